//! A stand-in for the simulator: runs that end at once, as a test wants them to.

use super::engine::Engine;
use crate::{
    fault::What,
    oracle::{Promise, Violation},
    plan::Plan,
    report::RunReport,
    run::Options,
    scenario::Scenario,
};

pub(crate) use crate::seedfile::tests::plan;

/// An engine whose runs break *durable* when `broken` says so of the plan.
pub(crate) struct Fake<F>(pub(crate) F);

impl<F: Fn(&Plan) -> bool + Sync> Engine for Fake<F> {
    fn plan(&self, scenario: Scenario, seed: u64) -> Plan {
        Plan { scenario, ..plan(seed) }
    }

    fn run(&self, plan: &Plan, _: &Options) -> RunReport {
        let broken = self.0(plan).then(violation);
        RunReport { violation: broken, ..report(plan.seed) }
    }
}

pub(crate) fn violation() -> Violation {
    Violation {
        promise: Promise::Durable,
        expected: "an event".to_owned(),
        seen: "a hole".to_owned(),
        at: 1_500_000_000,
    }
}

pub(crate) fn report(seed: u64) -> RunReport {
    RunReport {
        seed,
        digest: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        virtual_ns: 60_000_000_000,
        events: 1000,
        calls: 100,
        committed: 50,
        faults: What::KINDS.iter().map(|kind| (*kind, 2)).collect(),
        rare: [("takeovers", 3), ("repeats dropped", 1)].into(),
        ..RunReport::default()
    }
}
