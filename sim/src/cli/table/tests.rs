use super::*;
use crate::cli::fake;

fn totals(seeds: u64) -> Totals {
    let mut totals = Totals::default();
    for seed in 0..seeds {
        totals.add(&fake::report(seed));
    }
    totals
}

#[test]
fn gaps_are_named_only_when_there_were_seeds_enough() {
    let mut totals = totals(GAP_SEEDS);
    totals.faults.insert("drain", 0);
    totals.rare.insert("repeats dropped", 0);
    let gaps = Gaps::of(&totals, Scenario::Chaos);
    assert_eq!(
        (gaps.faults.as_slice(), gaps.rare.as_slice()),
        (&["drain"][..], &["repeats dropped"][..])
    );
    let text = gaps.text(Scenario::Chaos);
    assert_eq!(
        text,
        "GAPS IN COVERAGE: 1 fault kind and 1 rare path never occurred\n  drain\n  repeats dropped"
    );

    totals.seeds = GAP_SEEDS - 1;
    let text = Gaps::of(&totals, Scenario::Chaos).text(Scenario::Chaos);
    assert_eq!(text, "coverage: 1 fault kind and 1 rare path did not occur in so few seeds");

    totals.seeds = GAP_SEEDS;
    let text = Gaps::of(&totals, Scenario::Calm).text(Scenario::Calm);
    assert!(text.contains("only the chaos scenario plays them all"), "{text}");
}

#[test]
fn a_kind_that_no_report_has_is_a_gap_too() {
    let mut totals = totals(GAP_SEEDS);
    assert!(Gaps::of(&totals, Scenario::Chaos).text(Scenario::Chaos).contains("every fault kind"));
    totals.faults.remove("crash");
    assert_eq!(Gaps::of(&totals, Scenario::Chaos).faults, ["crash"]);
}

#[test]
fn numbers_and_spans_are_read_with_ease() {
    assert_eq!(grouped(0), "0");
    assert_eq!(grouped(999), "999");
    assert_eq!(grouped(1_000), "1,000");
    assert_eq!(grouped(1_234_567), "1,234,567");
    assert_eq!(span(Duration::from_millis(1500)), "1500ms");
    assert_eq!(span(Duration::from_secs(30)), "30s");
    assert_eq!(span(Duration::from_secs(600)), "10m");
    assert_eq!(span(Duration::from_secs(7200)), "2h");
    assert_eq!(range(u64::MAX - 1, 5), format!("{}..{}", u64::MAX - 1, u64::MAX));
}

#[test]
fn pairs_are_read_downwards() {
    let rows = [("a", 1), ("bb", 20), ("c", 3)].map(|(name, n)| (name, n.to_string()));
    let text = pairs(rows, 2);
    let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines, [vec!["a", "1", "c", "3"], vec!["bb", "20"]]);
    assert_eq!(pairs([], 3), "");
}

#[test]
fn a_plan_shows_every_knob_and_fault() {
    let text = plan(&fake::plan(7));
    for words in ["seed            7", "clients=8", "peer.usual_us=500", "clock-step", "by_ms=-300"]
    {
        assert!(text.contains(words), "{words:?} is not in:\n{text}");
    }
}

#[test]
fn a_violation_says_all_that_is_needed() {
    let violation = Violation { expected: "one\ntwo".to_owned(), ..fake::violation() };
    let mut seen = Found::of(&fake::plan(7), Some(violation));
    seen.file = Some("found/chaos-7.toml".into());
    assert_eq!(
        found(&seen),
        "VIOLATION of durable: chaos, seed 7, at 1.500000 virtual s\n  expected  one\n            two\n  \
         seen      a hole\n  again     cargo sim replay found/chaos-7.toml\n  smaller   cargo sim shrink \
         found/chaos-7.toml"
    );
}
