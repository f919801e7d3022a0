use stormkeep_core::{
    append::ReadError,
    time::{GlobalPosition, HybridTime},
};

use super::super::testing::Case;
use super::*;
use Direction::{Backwards, Forwards};
use Freshness::{Eventual, Strong};

/// Two shards, one behind the other: three events at 1000 to 1002, and two at 1003 and 1004.
fn case() -> Case {
    let mut case = Case::new();
    case.commit("a-1", 1, 2, (10, 20));
    case.commit("b-1", 2, 1, (30, 40));
    case.move_on();
    case.commit("a-1", 3, 2, (50, 60));
    case
}

fn at(time: u64) -> GlobalPosition {
    GlobalPosition::behind(HybridTime(time - 1))
}

fn read(from: GlobalPosition, limit: u32, direction: Direction) -> ReadAll {
    ReadAll { from, limit, direction, freshness: Eventual }
}

/// A read that shows the events of these times.
fn ask(case: &mut Case, read: ReadAll, times: &[u64], next: GlobalPosition, watermark: u64) {
    let slice = case.all_slice(times, next, at(watermark));
    case.call(70, Some(80), Exchange::All(read, Some(Ok(slice))));
}

#[test]
fn slices_in_both_directions_are_fine() {
    let mut case = case();
    let (start, end) = (GlobalPosition::START, GlobalPosition::END);
    ask(&mut case, read(start, 10, Forwards), &[1000, 1001, 1002], at(1003), 1003);
    let behind = GlobalPosition::of(HybridTime(1001), stormkeep_core::shard::ShardId(0)).next();
    ask(&mut case, read(start, 2, Forwards), &[1000, 1001], behind, 1003);
    ask(&mut case, read(behind, 5, Forwards), &[1002], at(1003), 1003);
    ask(&mut case, read(at(1003), 5, Forwards), &[1003, 1004], at(1009), 1009);
    // Beyond the watermark there is nothing yet, and the reader stays where it is.
    ask(&mut case, read(at(2000), 5, Forwards), &[], at(2000), 1009);
    ask(&mut case, read(at(1002), 0, Forwards), &[], at(1002), 1009);
    ask(&mut case, read(end, 10, Backwards), &[1002, 1001, 1000], start, 1003);
    let first = GlobalPosition::of(HybridTime(1003), stormkeep_core::shard::ShardId(1));
    ask(&mut case, read(end, 2, Backwards), &[1004, 1003], first, 1009);
    ask(&mut case, read(first, 5, Backwards), &[1002, 1001, 1000], start, 1009);
    let failed = Exchange::All(read(start, 5, Forwards), Some(Err(ReadError::Unavailable)));
    case.call(70, Some(80), failed);
    assert_eq!(case.seen(check), "");
}

#[test]
fn events_left_out_added_or_out_of_order_are_found() {
    let (start, end) = (GlobalPosition::START, GlobalPosition::END);
    let wrong: [(&[u64], &str); 4] = [
        (&[1000, 1002], "at 4100096 an event of append 1"),
        (&[1000, 1001, 1002, 1003], "nothing more"),
        (&[1001, 1000, 1002], "of a-1 at revision 1"),
        (&[1000, 1001], "at 4104192 an event of append 2"),
    ];
    for (times, seen) in wrong {
        let mut case = case();
        ask(&mut case, read(start, 10, Forwards), times, at(1003), 1003);
        assert!(case.seen(check).contains(seen), "{seen}: {}", case.seen(check));
        let mut case = self::case();
        let times: Vec<u64> = times.iter().rev().copied().collect();
        ask(&mut case, read(end, 10, Backwards), &times, start, 1003);
        assert_eq!(case.judge(check).len(), 1);
    }
}

#[test]
fn a_reader_that_is_led_astray_is_found() {
    let start = GlobalPosition::START;
    let wrong = [
        // It stops early, with room for more.
        (read(start, 10, Forwards), vec![1000], at(1001), 1003),
        // It goes beyond the watermark, or back.
        (read(start, 10, Forwards), vec![1000, 1001, 1002], at(1004), 1003),
        (read(at(1002), 10, Forwards), vec![], at(1001), 1001),
        (read(start, 2, Forwards), vec![1000, 1001, 1002], at(1003), 1003),
        (read(at(1002), 5, Backwards), vec![1001], at(1001), 1003),
        (read(start, 0, Forwards), vec![], at(1003), 1003),
    ];
    for (read, times, next, watermark) in wrong {
        let mut case = case();
        ask(&mut case, read, &times, next, watermark);
        assert_eq!(case.judge(check).len(), 1, "{read:?}: {}", case.seen(check));
    }
}

#[test]
fn what_comes_too_late_is_found_even_if_nobody_looks() {
    let mut case = case();
    ask(&mut case, read(GlobalPosition::START, 0, Forwards), &[], GlobalPosition::START, 1009);
    case.ask_at("c-1", 9, (75, 90));
    assert_eq!(case.seen(check), "", "it was asked for before the watermark was answered");
    case.ask_at("d-1", 10, (85, 95));
    let seen = case.seen(check);
    assert!(
        seen.contains("nothing new below the watermark") && seen.contains("of d-1 at revision 0")
    );
}

#[test]
fn a_strong_read_that_stops_short_is_found_unless_it_waited() {
    let strong = ReadAll { freshness: Strong, ..read(at(1003), 5, Forwards) };
    let short = |case: &mut Case, invoked, ended| {
        let slice = case.all_slice(&[], at(1003), at(1003));
        case.call(invoked, Some(ended), Exchange::All(strong, Some(Ok(slice))));
    };
    // The answer came to a client at 60; the client waits for 1000.
    for (invoked, ended, violations) in [(61, 90, 1), (60, 90, 0), (61, 461, 0), (61, 459, 1)] {
        let mut case = case();
        short(&mut case, invoked, ended);
        assert_eq!(case.judge(check).len(), violations, "{invoked} to {ended}");
        // The process that answered is gone.
        case.evidence.history.processes.extend([(1, 0), (1, 61)]);
        assert_eq!(case.judge(check).len(), 0);
    }
    let mut case = case();
    let slice = case.all_slice(&[1003, 1004], at(1009), at(1009));
    case.call(61, Some(70), Exchange::All(strong, Some(Ok(slice))));
    assert_eq!(case.seen(check), "");
}
