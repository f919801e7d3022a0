//! A bounded chaos run breaks no promise, every kind of fault strikes in it, and it comes to the same whatever
//! the number of threads.

use stormkeep_sim::{
    cli::{
        chaos::{ChaosOptions, ChaosSummary, Limit, chaos},
        output::Silent,
    },
    plant::Plant,
    scenario::Scenario,
};

/// What must happen to deliveries in a bounded chaos run; 200 seeds take every rare path.
const DELIVERY: [&str; 8] = [
    "events fetched again under a later lease",
    "shards handed over with events in flight",
    "failed batches halved",
    "events parked",
    "parked events replayed",
    "events not settled in time",
    "invocations that timed out with their work done",
    "children that waited for their parents' delivery",
];

fn run(scenario: Scenario, seeds: u64, jobs: usize) -> ChaosSummary {
    let options = ChaosOptions {
        scenario,
        plant: Plant::None,
        first_seed: 1,
        limit: Limit::Seeds(seeds),
        jobs,
        stop_at_first: false,
        canary: false,
        corpus: Vec::new(),
        found: None,
    };
    let summary = chaos(&options, &mut Silent);
    assert_eq!(summary.violations, [], "{scenario}");
    assert_eq!(summary.totals.seeds, seeds);
    assert!(summary.totals.committed > 0, "{scenario}: nothing was committed");
    summary
}

#[test]
fn chaos_breaks_no_promise_and_plays_every_fault() {
    let summary = run(Scenario::Chaos, 48, 2);
    let silent: Vec<_> = summary.totals.faults.iter().filter(|(_, count)| **count == 0).collect();
    assert_eq!(silent, [], "faults that never struck");
    for path in DELIVERY {
        assert!(summary.totals.rare[path] > 0, "{path}: never");
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    assert_eq!(run(Scenario::Chaos, 8, 1).digest, run(Scenario::Chaos, 8, 2).digest);
}

#[test]
fn shards_split_and_merge_under_load() {
    let totals = run(Scenario::Reshard, 16, 2).totals;
    assert!(totals.rare["closed shards folded to their end"] > 0);
    assert!(totals.rare["owners of closed parents ended"] > 0);
    assert!(totals.rare["misplaced entries dropped"] > 0);
}

#[test]
fn the_crowd_comes_and_goes() {
    let totals = run(Scenario::LaunchDay, 2, 2).totals;
    assert!(totals.rare["appends acknowledged while the crowd was there"] > 0);
    assert!(totals.rare["appends shed"] > 0);
    assert!(totals.rare["puts throttled"] > 0);
}

#[test]
fn in_calm_weather_nothing_is_shed_and_nobody_is_fenced() {
    let totals = run(Scenario::Calm, 8, 2).totals;
    assert_eq!(totals.faults.values().sum::<u64>(), 0);
    assert_eq!(totals.rare["zombies fenced by an epoch check"], 0);
    assert_eq!(totals.rare["answers withdrawn as unknown"], 0);
}
