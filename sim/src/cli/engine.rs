//! What makes plans and runs them: the simulator, or a test's stand-in for it.

use tracing::Dispatch;

use crate::{
    oracle::{Promise, Violation, repeatable},
    plan::Plan,
    report::RunReport,
    run::{self, Options},
    scenario::Scenario,
};

/// Makes plans of seeds, and runs them. Called from many threads at once.
pub trait Engine: Sync {
    /// The plan of a seed.
    fn plan(&self, scenario: Scenario, seed: u64) -> Plan {
        scenario.plan(seed)
    }

    /// One run.
    fn run(&self, plan: &Plan, options: &Options) -> RunReport {
        run::run(plan, options)
    }
}

/// The simulator itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Simulator;

impl Engine for Simulator {}

/// Runs a plan twice and compares the two runs, event for event: a difference is a violation of
/// *repeatable*, unless the first run broke another promise. Only the first run logs.
pub fn run_twice(engine: &dyn Engine, plan: &Plan, log: Option<Dispatch>) -> RunReport {
    let mut first = engine.run(plan, &Options { keep_trace: true, log });
    let second = engine.run(plan, &Options { keep_trace: true, log: None });
    if first.violation.is_none() {
        first.violation = repeatable::compare(&first.trace, &second.trace)
            .or_else(|| differs("digest", first.digest, second.digest))
            .or_else(|| differs("count of events", first.events, second.events));
    }
    first.trace = Vec::new();
    first
}

/// What the traces do not show: they keep what was, the digest what was pushed.
fn differs(what: &str, first: u64, second: u64) -> Option<Violation> {
    (first != second).then(|| Violation {
        promise: Promise::Repeatable,
        expected: format!("the first run's {what}, {first:#x}, of the second run too"),
        seen: format!("{second:#x}, though the traces are the same"),
        at: 0,
    })
}
