//! Snapshots of a few short traces: what a takeover, a zombie and a split look like, line by line. A change of
//! the protocol shows here first; look at it, then accept it with `cargo insta accept`.

use std::{
    io::{self, Write},
    path::Path,
    sync::{Arc, Mutex},
};

use stormkeep_sim::{
    fault::{Fault, What},
    oracle::Promise,
    plan::Plan,
    run::{self, Options},
    scenario::Scenario,
    seedfile::SeedFile,
    trace_format,
};

/// Where a run writes its trace to.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("one thread writes").write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines of a run that tell of shards and faults, without the puts and the lost looks.
fn trace(plan: &Plan) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = trace_format::dispatch(move || writer.clone());
    let report = run::run(plan, &Options { log: Some(log), ..Options::default() });
    assert_eq!(
        report.violation.map(|v: stormkeep_sim::oracle::Violation| v.promise),
        None::<Promise>
    );
    let bytes = lines.0.lock().expect("the run is over").clone();
    let text = String::from_utf8(bytes).expect("lines are text");
    let tells = |line: &&str| !line.contains("confirmed") && !line.contains("no look");
    text.lines().filter(tells).map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Three nodes, one shard, a few clients, ten seconds.
fn short(seed: u64, faults: &[(u64, u64, What)]) -> Plan {
    let mut plan = Scenario::Calm.plan(seed);
    plan.nodes = 3;
    plan.shards = 1;
    plan.chaos_ms = 15_000;
    plan.workload.clients = 4;
    plan.workload.think_ms = 500;
    plan.core.heartbeat_ms = 1000;
    plan.core.dead_after_ms = 3000;
    plan.core.buggify_per_mille = 0;
    for (at_ms, for_ms, what) in faults {
        plan.faults.push(Fault { at_ms: *at_ms, for_ms: *for_ms, what: what.clone() });
    }
    plan
}

#[test]
fn an_owner_crashes_and_another_takes_over() {
    let crash = |node| (5000, 8000, What::Crash { node });
    let crashes: Vec<_> = (0..2).map(crash).collect();
    insta::assert_snapshot!(trace(&short(1, &crashes)));
}

#[test]
fn an_owner_stands_still_and_is_fenced() {
    let pauses: Vec<_> = (0..2).map(|node| (5000, 8000, What::Pause { node })).collect();
    insta::assert_snapshot!(trace(&short(2, &pauses)));
}

#[test]
fn a_shard_is_split_and_its_children_are_taken() {
    insta::assert_snapshot!(trace(&short(3, &[(5000, 0, What::Split { nth: 0 })])));
}

#[test]
fn the_seed_that_showed_the_stale_parent() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds/stale-parent.toml");
    let file = SeedFile::load(&path).unwrap_or_else(|error| panic!("{error}"));
    insta::assert_snapshot!(trace(&file.plan));
}
