//! Draws faults: a stream of randomness for each kind, so that one kind more or less in a swarm leaves the
//! others as they were.

use crate::{
    fault::{Fault, Place, What},
    model::effects::REPLICAS,
    plan::Plan,
    rng::Stream,
};

/// Draws faults that fit a plan.
pub(super) struct Draw {
    seed: u64,
    nodes: u32,
    chaos_ms: u64,
    /// How many times the usual load a surge may be at the most.
    surge_max: u32,
}

impl Draw {
    pub(super) fn new(plan: &Plan) -> Self {
        // So many clients at once keep a run to a second or so.
        let surge_max = (200 / plan.workload.clients.max(1)).clamp(2, 20);
        Draw { seed: plan.seed, nodes: plan.nodes, chaos_ms: plan.chaos_ms, surge_max }
    }

    /// So many faults of a kind, anywhere in the time of faults.
    pub(super) fn faults(&self, kind: &str, count: u64) -> Vec<Fault> {
        let stream = &mut Stream::new(self.seed, kind, 0);
        (0..count).map(|_| self.fault(kind, stream)).collect()
    }

    /// One surge that takes most of the time of faults.
    pub(super) fn surge(&self, kind: &str) -> Option<Fault> {
        let stream = &mut Stream::new(self.seed, kind, 1);
        let what = self.what(kind, stream)?;
        let what = match what {
            What::LoginStorm { .. } => What::LoginStorm { times: self.surge_max },
            What::FlashCrowd { streams, .. } => What::FlashCrowd { times: self.surge_max, streams },
            What::RetryStorm { .. } => What::RetryStorm { times: self.surge_max },
            other => other,
        };
        Some(Fault { at_ms: self.chaos_ms / 6, for_ms: self.chaos_ms / 2, what })
    }

    fn fault(&self, kind: &str, stream: &mut Stream) -> Fault {
        let at_ms = stream.below(self.chaos_ms * 9 / 10);
        let longest = match kind {
            "log-expire-cursors" | "split" | "merge" => 0,
            "crash" | "pause" | "replica-down" => 20_000,
            _ => 15_000,
        };
        let for_ms = if longest == 0 { 0 } else { stream.log_between(300, longest) };
        // Every kind in the table has an arm in `what`: a unit test draws each.
        let what = self.what(kind, stream).unwrap_or(What::LogExpireCursors {});
        Fault { at_ms, for_ms: for_ms.min(self.chaos_ms - at_ms), what }
    }

    fn what(&self, kind: &str, stream: &mut Stream) -> Option<What> {
        let node = stream.below(u64::from(self.nodes)) as u32;
        let per_mille = |stream: &mut Stream, low, high| stream.log_between(low, high) as u32;
        let times = |stream: &mut Stream, high| stream.log_between(2, high) as u32;
        let sign = |stream: &mut Stream| if stream.chance(0.5) { 1 } else { -1 };
        let surge = |stream: &mut Stream| stream.between(2, u64::from(self.surge_max)) as u32;
        Some(match kind {
            "crash" => What::Crash { node },
            "drain" => What::Drain { node },
            "pause" => What::Pause { node },
            "slow" => What::Slow { node, times: times(stream, 50) },
            // From a millisecond to an hour.
            "clock-step" => What::ClockStep {
                node,
                by_ms: sign(stream) * stream.log_between(1, 3_600_000) as i64,
            },
            "clock-drift" => {
                What::ClockDrift { node, ppm: sign(stream) * stream.log_between(10, 50_000) as i64 }
            }
            "cut-one-way" => {
                let (from, to) = self.link(node, stream);
                What::CutOneWay { from, to }
            }
            "cut" => {
                let (from, to) = self.link(node, stream);
                What::Cut { from, to }
            }
            "lose" => What::Lose { per_mille: per_mille(stream, 5, 300) },
            "repeat" => What::Repeat { per_mille: per_mille(stream, 10, 500) },
            "reorder" => What::Reorder { by_ms: stream.log_between(5, 500) },
            "log-throttle" => What::LogThrottle { per_mille: per_mille(stream, 5, 500) },
            "log-slow" => What::LogSlow { times: times(stream, 20) },
            "log-lose-answers" => What::LogLoseAnswers { per_mille: per_mille(stream, 10, 500) },
            "log-repeat-puts" => What::LogRepeatPuts {
                per_mille: per_mille(stream, 10, 500),
                within_ms: stream.log_between(10, 10_000),
            },
            "log-lag" => What::LogLag { by_ms: stream.log_between(50, 3000) },
            "log-expire-cursors" => What::LogExpireCursors {},
            "split" => What::Split { nth: stream.below(64) as u32 },
            "merge" => What::Merge { nth: stream.below(64) as u32 },
            "replica-down" => What::ReplicaDown { replica: stream.below(REPLICAS.into()) as u32 },
            "replica-slow" => What::ReplicaSlow {
                replica: stream.below(REPLICAS.into()) as u32,
                times: times(stream, 100),
            },
            "replica-lose" => What::ReplicaLose { per_mille: per_mille(stream, 5, 300) },
            "swap-lose" => What::SwapLose { per_mille: per_mille(stream, 100, 600) },
            "store-overload" => What::StoreOverload { times: times(stream, 100) },
            "login-storm" => What::LoginStorm { times: surge(stream) },
            "flash-crowd" => {
                What::FlashCrowd { times: surge(stream), streams: stream.between(1, 5) as u32 }
            }
            "retry-storm" => What::RetryStorm { times: surge(stream) },
            _ => return None,
        })
    }

    /// A node, and something that it talks to; in either order.
    fn link(&self, node: u32, stream: &mut Stream) -> (Place, Place) {
        let peer = (node + 1 + stream.below(u64::from(self.nodes.max(2) - 1)) as u32) % self.nodes;
        let other = match stream.below(4) {
            0 if peer != node => Place::Node(peer),
            1 => Place::Log,
            2 => Place::Clients,
            _ => Place::Store,
        };
        if stream.chance(0.5) { (Place::Node(node), other) } else { (other, Place::Node(node)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn every_kind_can_be_drawn_and_ends_before_the_faults_do() {
        let plan = Scenario::Calm.plan(1);
        let draw = Draw::new(&plan);
        for kind in What::KINDS {
            for fault in draw.faults(kind, 50) {
                assert_eq!(fault.what.kind(), *kind);
                assert!(fault.at_ms + fault.for_ms <= plan.chaos_ms, "{fault:?}");
            }
        }
    }
}
