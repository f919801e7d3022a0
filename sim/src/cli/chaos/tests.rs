use std::fs;

use super::*;
use crate::{
    cli::{
        corpus,
        fake::{self, Fake},
        json::JsonLines,
        output::Silent,
    },
    oracle::Promise,
    seedfile::Expect,
};

fn options(seeds: std::ops::Range<u64>, jobs: usize) -> ChaosOptions {
    ChaosOptions {
        scenario: Scenario::Chaos,
        plant: Plant::None,
        first_seed: seeds.start,
        limit: Limit::Seeds(seeds.end - seeds.start),
        jobs,
        stop_at_first: false,
        canary: false,
        corpus: Vec::new(),
        found: None,
    }
}

fn every_tenth(plan: &Plan) -> bool {
    plan.seed % 10 == 7
}

#[test]
fn comes_to_the_same_whatever_the_number_of_jobs() {
    let summaries = [1, 2, 7].map(|jobs| {
        // Runs end in an order of their own.
        let engine = Fake(|plan: &Plan| {
            thread::sleep(Duration::from_micros(plan.seed * 7919 % 500));
            every_tenth(plan)
        });
        chaos_with(&engine, &options(1000..1100, jobs), &mut Silent)
    });
    for summary in &summaries {
        let seeds: Vec<u64> = summary.violations.iter().map(|found| found.seed).collect();
        assert_eq!(seeds, (1007..1100).step_by(10).collect::<Vec<_>>());
        assert_eq!(summary.totals, summaries[0].totals);
        assert_eq!(summary.digest, summaries[0].digest);
        assert_eq!((summary.totals.seeds, summary.totals.violations), (100, 10));
        assert_eq!(summary.totals.twice, 6);
        assert!(!summary.passed());
    }
    let other = chaos_with(&Fake(every_tenth), &options(1000..1099, 2), &mut Silent);
    assert_ne!(other.digest, summaries[0].digest);
}

#[test]
fn stops_at_the_first_with_the_same_digest_and_count() {
    let summaries = [1, 4].map(|jobs| {
        let stop = ChaosOptions { stop_at_first: true, ..options(0..1_000_000, jobs) };
        chaos_with(&Fake(|plan: &Plan| plan.seed == 37), &stop, &mut Silent)
    });
    for summary in &summaries {
        assert_eq!(summary.seeds_to_find(), Some(38));
        assert_eq!(summary.digest, summaries[0].digest);
        assert!(summary.totals.seeds < 1000);
    }
}

#[test]
fn time_limits_it_but_one_seed_is_always_run() {
    let limit = Limit::Time(Duration::ZERO);
    let summary =
        chaos_with(&Fake(every_tenth), &ChaosOptions { limit, ..options(0..1, 3) }, &mut Silent);
    assert_eq!(summary.totals.seeds, 1);
    let last = ChaosOptions { first_seed: u64::MAX, limit, ..options(0..1, 1) };
    assert_eq!(chaos_with(&Fake(every_tenth), &last, &mut Silent).totals.seeds, 1);
}

#[test]
fn a_run_that_differs_is_a_violation_of_repeatable() {
    struct Fickle(std::sync::atomic::AtomicU64);
    impl Engine for Fickle {
        fn plan(&self, _: Scenario, seed: u64) -> Plan {
            fake::plan(seed)
        }
        fn run(&self, plan: &Plan, options: &Options) -> RunReport {
            let mut report = fake::report(plan.seed);
            assert_eq!(options.keep_trace, plan.seed.is_multiple_of(TWICE_EVERY));
            if options.keep_trace {
                let detail = self.0.fetch_add(1, Ordering::Relaxed);
                report.trace.push(crate::trace::TraceEvent {
                    at: 7,
                    what: "put",
                    node: 3,
                    detail: if plan.seed == 32 { detail } else { 0 },
                });
            }
            report
        }
    }
    let summary = chaos_with(&Fickle(0.into()), &options(1..40, 1), &mut Silent);
    let [found] = summary.violations.as_slice() else { panic!("{:?}", summary.violations) };
    assert_eq!(found.seed, 32);
    let violation = found.violation.as_ref().unwrap();
    assert_eq!((violation.promise, violation.at), (Promise::Repeatable, 7));
}

#[test]
fn a_planted_fault_is_in_the_plan_and_in_the_file() {
    let dir = std::env::temp_dir().join(format!("stormkeep-chaos-{}", std::process::id()));
    let planted = ChaosOptions {
        plant: Plant::NoBatchIndex,
        found: Some(dir.join("found")),
        canary: true,
        stop_at_first: true,
        ..options(0..100, 1)
    };
    let engine = Fake(|plan: &Plan| plan.plant == Plant::NoBatchIndex && plan.seed == 3);
    let summary = chaos_with(&engine, &planted, &mut Silent);
    assert_eq!(summary.seeds_to_find(), Some(4));
    let path = dir.join("found/chaos-no-batch-index-3.toml");
    assert_eq!(summary.violations[0].file.as_ref(), Some(&path));
    let file = SeedFile::load(&path).unwrap();
    assert_eq!((file.plan.seed, file.plan.plant), (3, Plant::NoBatchIndex));
    assert_eq!(file.expect, Expect::Pass);
    assert_eq!(file.found, "violation of durable at 1.500000 virtual s: a hole");
    let text = crate::cli::table::summary(&summary);
    assert!(text.contains("canary no-batch-index found after 4 seeds"), "{text}");

    let blind = chaos_with(&Fake(|_: &Plan| false), &planted, &mut Silent);
    assert!(blind.passed());
    let text = crate::cli::table::summary(&blind);
    assert!(text.contains("CANARY NOT FOUND: the oracles are blind"), "{text}");
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_file_that_cannot_be_written_does_not_hide_the_violation() {
    let dir = std::env::temp_dir().join(format!("stormkeep-blocked-{}", std::process::id()));
    fs::write(&dir, "a file, not a directory").unwrap();
    let blocked = ChaosOptions { found: Some(dir.clone()), ..options(7..8, 1) };
    let summary = chaos_with(&Fake(every_tenth), &blocked, &mut Silent);
    let text = crate::cli::table::found(&summary.violations[0]);
    assert!(
        text.contains("again     cargo sim replay 7\n") || text.ends_with("replay 7"),
        "{text}"
    );
    assert!(text.contains("no file"), "{text}");
    fs::remove_file(&dir).unwrap();
}

#[test]
fn the_corpus_must_do_what_it_expects() {
    let dir = std::env::temp_dir().join(format!("stormkeep-corpus-{}", std::process::id()));
    let save = |name: &str, seed, expect| {
        let file = SeedFile { expect, ..SeedFile::of(fake::plan(seed), "a story") };
        file.save(&dir.join(name)).unwrap();
    };
    save("a.toml", 1, Expect::Pass);
    save("b.toml", 7, Expect::Pass);
    save("c.toml", 17, Expect::Violation(Promise::Durable));
    save("d.toml", 2, Expect::Violation(Promise::Live));
    save("e.toml", 27, Expect::Violation(Promise::Live));
    fs::write(dir.join("README.md"), "not a seed file").unwrap();
    let with = ChaosOptions { corpus: corpus::load(&dir).unwrap(), ..options(1..5, 2) };
    let mut kept = Vec::new();
    let summary = chaos_with(&Fake(every_tenth), &with, &mut JsonLines::new(&mut kept));
    let failed: Vec<u64> = summary.corpus_failures.iter().map(|found| found.seed).collect();
    assert_eq!(failed, [7, 2, 27]);
    assert!(summary.violations.is_empty() && !summary.passed());
    assert_eq!(summary.totals.seeds, 4);
    let kept = String::from_utf8(kept).unwrap();
    assert!(kept.contains("live was to be broken, but no promise was"), "{kept}");
    fs::write(dir.join("f.toml"), "version = 9").unwrap();
    assert!(corpus::load(&dir).unwrap_err().to_string().contains("f.toml: version = 9"));
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn machines_read_a_start_the_violations_and_an_end() {
    let mut kept = Vec::new();
    let all = options(0..220, 2);
    chaos_with(&Fake(|plan: &Plan| plan.seed == 7), &all, &mut JsonLines::new(&mut kept));
    let text = String::from_utf8(kept).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [start, violation, end] = lines.as_slice() else { panic!("{text}") };
    assert_eq!((&start["event"], &start["first_seed"]), (&"start".into(), &0.into()));
    assert_eq!(start["seeds"], 220);
    assert_eq!((&violation["event"], &violation["seed"]), (&"violation".into(), &7.into()));
    assert_eq!(violation["promise"], "durable");
    assert_eq!(violation["at_ns"], 1_500_000_000_u64);
    assert_eq!(violation["reproduce"], "cargo sim replay 7");
    assert_eq!((&end["event"], &end["passed"]), (&"end".into(), &false.into()));
    assert_eq!(end["seeds"], 220);
    assert_eq!(end["digest"].as_str().unwrap().len(), 16);
    assert_eq!(end["faults"]["crash"], 440);
    assert_eq!(end["gaps"], serde_json::json!([]));
}
