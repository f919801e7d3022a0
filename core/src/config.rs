//! What an operator may set. The defaults are for Kinesis and Cassandra in one region.

use std::time::Duration;

use crate::{limits::ENTRY_BYTES_MAX, shard::sequencer::Bounds};

/// The settings of one node. All nodes of a cluster should have the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Time between two signs of life.
    pub heartbeat: Duration,
    /// A node whose sign of life stands still for this long may lose its shards.
    pub dead_after: Duration,
    /// How long a node waits, per rank, before it takes a shard that a better-ranked one has not taken.
    pub take_grace: Duration,
    /// Time between two reads of a log that has nothing new. Kinesis allows five reads a second and
    /// shard to all readers together.
    pub poll: Duration,
    /// The shortest time between two reads of a log, even if this node knows that there is something new.
    pub poll_min: Duration,
    /// An idle shard puts an empty batch this often, so that its time is closed.
    pub close_after: Duration,
    /// The first wait before a call to a service is repeated; it doubles up to `retry_max`.
    pub retry_min: Duration,
    /// The longest wait before a call to a service is repeated.
    pub retry_max: Duration,
    /// How often a node looks the owner of a shard up at the most, however many requests wait for it.
    pub look_every: Duration,
    /// The longest wait for a peer's answer.
    pub peer_timeout: Duration,
    /// What a refused client is told to wait.
    pub retry_after: Duration,
    /// Bytes of one batch at the most.
    pub batch_bytes_max: usize,
    /// Bytes of one shard's tail at the most. It bounds memory, and how long a takeover replays.
    pub tail_bytes_max: usize,
    /// Heads that an owner and a fold of one shard keep in memory, each.
    pub heads_max: usize,
    /// Requests that may wait for one owner.
    pub queue_max: usize,
    /// Rows of one write to the store at the most.
    pub write_rows_max: usize,
    /// Writes and reads that one fold has under way at the most.
    pub fold_concurrency: usize,
    /// How long a worker that gives a shard back waits for consumers to settle what they hold.
    pub drain_within: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            heartbeat: Duration::from_millis(1000),
            dead_after: Duration::from_millis(4000),
            take_grace: Duration::from_millis(1500),
            poll: Duration::from_millis(300),
            poll_min: Duration::from_millis(250),
            close_after: Duration::from_millis(2000),
            retry_min: Duration::from_millis(20),
            retry_max: Duration::from_millis(1000),
            look_every: Duration::from_millis(100),
            peer_timeout: Duration::from_millis(5000),
            retry_after: Duration::from_millis(250),
            batch_bytes_max: ENTRY_BYTES_MAX,
            tail_bytes_max: 8 * 1024 * 1024,
            heads_max: 100_000,
            queue_max: 4096,
            write_rows_max: 64,
            fold_concurrency: 8,
            drain_within: Duration::from_millis(5000),
        }
    }
}

impl Config {
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            batch_bytes_max: self.batch_bytes_max,
            tail_bytes_max: self.tail_bytes_max,
            heads_max: self.heads_max,
        }
    }
}
