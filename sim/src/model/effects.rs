//! What the faults that are on at the moment add up to.

use std::collections::BTreeSet;

use crate::fault::{Fault, Place, What};

/// See the module's docs. A number is 1 or 0 when no fault touches it.
#[derive(Debug, Clone)]
pub struct Effects {
    /// Links that carry nothing: from, to.
    pub cuts: BTreeSet<(Place, Place)>,
    /// How many times as long a node's messages take.
    pub slow: Vec<u64>,
    /// Probability that a message of nodes and clients is lost.
    pub lose: f64,
    /// Probability that a message between nodes arrives twice.
    pub repeat: f64,
    /// Nanoseconds that a message may take longer at the most.
    pub reorder_ns: u64,
    /// The part of its limits that the log still allows.
    pub log_share: f64,
    /// How many times as long a put takes.
    pub log_slow: u64,
    /// Probability that the answer to a put is lost.
    pub log_lose_answers: f64,
    /// Probability that a put lands again, and within how many nanoseconds.
    pub log_repeat_puts: (f64, u64),
    /// Nanoseconds that are added to the read lag.
    pub log_lag_ns: u64,
    /// Replicas of the store that are down.
    pub replicas_down: BTreeSet<u32>,
    /// How many times as long a replica takes.
    pub replica_slow: Vec<u64>,
    /// Probability that a message to or from a replica is lost.
    pub replica_lose: f64,
    /// The same, for messages of compare-and-sets.
    pub swap_lose: f64,
    /// How many times as long a replica works on a row.
    pub store_overload: u64,
}

/// Replicas of each row of the store.
pub const REPLICAS: u32 = 3;

impl Effects {
    /// What these faults add up to in a cluster of `nodes`.
    pub fn of<'a>(nodes: u32, faults: impl IntoIterator<Item = &'a Fault>) -> Self {
        let mut effects = Effects {
            cuts: BTreeSet::new(),
            slow: vec![1; nodes as usize],
            lose: 0.0,
            repeat: 0.0,
            reorder_ns: 0,
            log_share: 1.0,
            log_slow: 1,
            log_lose_answers: 0.0,
            log_repeat_puts: (0.0, 0),
            log_lag_ns: 0,
            replicas_down: BTreeSet::new(),
            replica_slow: vec![1; REPLICAS as usize],
            replica_lose: 0.0,
            swap_lose: 0.0,
            store_overload: 1,
        };
        for fault in faults {
            effects.add(&fault.what);
        }
        effects
    }

    fn add(&mut self, what: &What) {
        let share = |per_mille: u32| f64::from(per_mille) / 1000.0;
        match *what {
            What::CutOneWay { from, to } => {
                self.cuts.insert((from, to));
            }
            What::Cut { from, to } => {
                self.cuts.extend([(from, to), (to, from)]);
            }
            What::Slow { node, times } => {
                if let Some(slow) = self.slow.get_mut(node as usize) {
                    *slow *= u64::from(times);
                }
            }
            What::Lose { per_mille } => self.lose = self.lose.max(share(per_mille)),
            What::Repeat { per_mille } => self.repeat = self.repeat.max(share(per_mille)),
            What::Reorder { by_ms } => self.reorder_ns = self.reorder_ns.max(by_ms * 1_000_000),
            What::LogThrottle { per_mille } => self.log_share *= share(per_mille),
            What::LogSlow { times } => self.log_slow *= u64::from(times),
            What::LogLoseAnswers { per_mille } => {
                self.log_lose_answers = self.log_lose_answers.max(share(per_mille));
            }
            What::LogRepeatPuts { per_mille, within_ms } => {
                self.log_repeat_puts = (share(per_mille), within_ms * 1_000_000);
            }
            What::LogLag { by_ms } => self.log_lag_ns = self.log_lag_ns.max(by_ms * 1_000_000),
            What::ReplicaDown { replica } => {
                self.replicas_down.insert(replica);
            }
            What::ReplicaSlow { replica, times } => {
                if let Some(slow) = self.replica_slow.get_mut(replica as usize) {
                    *slow *= u64::from(times);
                }
            }
            What::ReplicaLose { per_mille } => {
                self.replica_lose = self.replica_lose.max(share(per_mille));
            }
            What::SwapLose { per_mille } => self.swap_lose = self.swap_lose.max(share(per_mille)),
            What::StoreOverload { times } => {
                self.store_overload = self.store_overload.max(u64::from(times));
            }
            // These happen to nodes, clocks, shards and clients: see `schedule.rs` and `crowd.rs`.
            What::Crash { .. }
            | What::Drain { .. }
            | What::Pause { .. }
            | What::ClockStep { .. }
            | What::ClockDrift { .. }
            | What::LogExpireCursors {}
            | What::Split { .. }
            | What::Merge { .. }
            | What::LoginStorm { .. }
            | What::FlashCrowd { .. }
            | What::RetryStorm { .. } => {}
        }
    }
}
