//! **Gapless**: revisions of a stream are 0, 1, 2, …, and times only grow.
//!
//! What is claimed:
//! - in the fold of the logs, each append of a stream begins right behind the one before it, from 0,
//!   over any number of splits and merges;
//! - each accepted batch of a shard has a time above all times before it, so that every event has a
//!   time of its own (those within a batch follow one another by the format of the log);
//! - the first batch of a child is above all times of its parents;
//! - if the run came to rest, the store's event rows of each stream are 0, 1, 2, … (before that a fold
//!   may have got some rows ahead of others; up to the checkpoint [faithful](super::faithful) looks).

use super::{
    Promise, Violation, broken,
    fold::Odd,
    judged::{At, Judged},
};

pub(super) fn check(judged: &Judged<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut report = |at, expected, seen| found.push(broken(Promise::Gapless, at, expected, seen));
    let fold = &judged.fold;
    for stream in fold.streams.iter().filter(|stream| !stream.orderly) {
        let mut before = None;
        for place in &stream.appends {
            let placed = &fold.appends[*place];
            let due = before.map_or(Some(0), |last: u64| last.checked_add(1));
            if due != Some(placed.first) {
                let expected = format!("{}: {} next", stream.name, At(due));
                let seen = format!("{}, behind {}", judged.words(placed), At(before));
                report(judged.seen_at(*place), expected, seen);
                break;
            }
            before = Some(placed.last);
        }
    }
    for odd in &fold.odd {
        if let Odd::Time { shard, epoch, batch, time, closed } = odd {
            let expected = format!("shard {shard}: a time above {closed} next");
            let seen = format!("time {time} (epoch {epoch}, batch {batch})");
            report(judged.end, expected, seen);
        }
    }
    for info in &judged.evidence.shards {
        let Some(opens) = fold.shards.get(&info.id).and_then(|shard| shard.opens) else { continue };
        for parent in &info.parents {
            let Some(folded) = fold.shards.get(parent) else { continue };
            let closed = folded.behind(folded.len()).closed;
            if opens <= closed {
                let expected = format!(
                    "shard {}: times above {closed}, where its parent {parent} closed",
                    info.id
                );
                report(judged.end, expected, format!("its first batch at {opens}"));
            }
        }
    }
    if judged.evidence.rest.rested_at.is_some() {
        let mut before = None;
        for (stream, revision) in judged.evidence.store.events.keys() {
            let due = match before {
                Some((last, gap, _)) if last == stream && gap => None,
                Some((last, _, at)) if last == stream => Some(at + 1),
                _ => Some(0),
            };
            let gap = due.is_none_or(|due| due != *revision);
            if gap && due.is_some() {
                let expected = format!("{stream}: the store's row of {} next", At(due));
                report(judged.end, expected, format!("that of revision {revision}"));
            }
            before = Some((stream, gap, *revision));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use stormkeep_core::time::HybridTime;

    use super::super::testing::{Case, name};
    use super::*;

    #[test]
    fn streams_over_several_shards_are_fine() {
        let mut case = Case::new();
        case.accept("a-1", 1, 2);
        case.accept("b-1", 2, 1);
        let empty = case.batch_of(&[]);
        case.put(0, &empty);
        case.move_on();
        let late = case.batch_at(0, 1, 3, &[("a-1", 3, 2, 1)]);
        case.put(1, &late); // meant for the parent: it does not count
        case.accept("a-1", 3, 1);
        case.fold();
        assert_eq!(case.seen(check), "");
    }

    #[test]
    fn gaps_and_overlaps_are_found() {
        for (first, seen) in [(3, "a-1: revision 2 next"), (1, "a-1: revision 2 next")] {
            let mut case = Case::new();
            case.accept("a-1", 1, 2);
            case.move_on();
            let batch = case.batch_of(&[("a-1", 2, first, 1), ("a-1", 3, 9, 1)]);
            case.put(1, &batch);
            assert!(case.seen(check).contains(seen));
            assert_eq!(case.judge(check).len(), 1);
        }
        let mut case = Case::new();
        let batch = case.batch_of(&[("a-1", 2, 1, 1)]);
        case.put(0, &batch);
        assert!(case.seen(check).contains("a-1: revision 0 next"));
    }

    #[test]
    fn times_that_stand_still_are_found() {
        let mut case = Case::new();
        case.accept("a-1", 1, 3);
        let mut batch = case.batch_of(&[("a-1", 2, 3, 1)]);
        batch.time = HybridTime(batch.time.0 - 1); // that of the last event before it
        case.put(0, &batch);
        assert!(case.seen(check).contains("shard s0: a time above 1002 next / time 1002"));
    }

    #[test]
    fn a_child_that_begins_before_its_parent_ended_is_found() {
        let mut case = Case::new();
        case.accept("a-1", 1, 3);
        case.move_on();
        let mut batch = case.batch_of(&[]);
        batch.time = HybridTime(1002);
        case.put(1, &batch);
        assert!(case.seen(check).contains("where its parent s0 closed"));
    }

    #[test]
    fn a_gap_in_the_store_is_found_once_all_is_at_rest() {
        let mut case = Case::new();
        case.accept("a-1", 1, 5);
        case.accept("b-1", 2, 2);
        case.fold();
        case.evidence.store.events.remove(&(name("a-1"), 1));
        case.evidence.store.events.remove(&(name("b-1"), 0));
        assert_eq!(case.judge(check).len(), 2);
        case.evidence.rest.rested_at = None;
        assert_eq!(case.seen(check), "");
    }
}
