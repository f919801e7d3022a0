//! **Faithful**: the store equals the fold of the log up to the checkpoint; nothing else is in it.
//!
//! What is claimed:
//! - a checkpoint's state (epoch, next, accepted, closed) is that of the fold at its position, and it is
//!   *ended* only if its shard is closed and no record follows;
//! - every event accepted up to the checkpoint of its shard is in the store, the same in every part;
//! - every event row of the store is in the fold. Rows may be ahead of the checkpoint, and then some may
//!   be missing: rows are written before the checkpoint, in any order;
//! - every head is that of the fold at its revision, with its remembered appends, and is not older than
//!   the checkpoint asks.
//!
//! A stream whose revisions are not 0, 1, 2, … is left to [gapless](super::gapless).

use std::{collections::BTreeMap, iter::Peekable};

use stormkeep_core::{
    event::RecordedEvent, limits::REMEMBERED_APPENDS, shard::ShardId, stream::StreamName,
};

use super::{
    Promise, StoreDump, Violation, broken,
    judged::{At, Judged},
};

pub(super) fn check(judged: &Judged<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut report =
        |expected, seen| found.push(broken(Promise::Faithful, judged.end, expected, seen));
    // What any replica holds may not be wrong; what every quorum sees may not be incomplete.
    for store in [&judged.evidence.store, &judged.evidence.surely] {
        let reach = checkpoints(judged, store, &mut report);
        events(judged, store, &reach, &mut report);
        heads(judged, store, &reach, &mut report);
    }
    found
}

/// How many records of each shard's log are folded, as its checkpoint says.
fn checkpoints(
    judged: &Judged<'_>,
    store: &StoreDump,
    report: &mut impl FnMut(String, String),
) -> BTreeMap<ShardId, usize> {
    let mut reach = BTreeMap::new();
    for (id, at) in &store.checkpoints {
        let closed = judged.shard(*id).is_some_and(|info| info.closed);
        let agreed = match judged.fold.shards.get(id) {
            Some(shard) => shard.agree(at, closed),
            None => Err("there is no such log".to_owned()),
        };
        match agreed {
            Ok(records) => drop(reach.insert(*id, records)),
            Err(seen) => {
                report(format!("shard {id}: its log agrees with the checkpoint {at:?}"), seen);
            }
        }
    }
    reach
}

/// Walks the rows of the store and the events of the fold side by side.
fn events(
    judged: &Judged<'_>,
    store: &StoreDump,
    reach: &BTreeMap<ShardId, usize>,
    report: &mut impl FnMut(String, String),
) {
    let fold = &judged.fold;
    let mut rows = store.events.iter().peekable();
    for (name, stream) in &fold.names {
        surplus(&mut rows, |other| other < name, report);
        let stream = &fold.streams[*stream];
        if !stream.orderly {
            while rows.next_if(|((other, _), _)| other == name).is_some() {}
            continue;
        }
        let mut reported = false;
        for place in &stream.appends {
            let placed = &fold.appends[*place];
            let due = reach.get(&placed.shard).is_some_and(|records| placed.record < *records);
            for event in placed.events() {
                let key = |(other, revision): &(StreamName, u64)| {
                    other == name && *revision == event.revision
                };
                let row = rows.next_if(|(k, _)| key(k));
                let right = match row {
                    Some((_, row)) => event.is(name, row),
                    None => !due,
                };
                if right || reported {
                    continue;
                }
                reported = true;
                let expected = format!(
                    "the store's row of revision {}: event {:?}, time {}, of {}",
                    event.revision,
                    event.event.id,
                    event.time,
                    judged.words(placed)
                );
                report(expected, row.map_or("no row".to_owned(), |(_, row)| words(row)));
            }
        }
        surplus(&mut rows, |other| other == name, report);
    }
    surplus(&mut rows, |_| true, report);
}

/// Rows that are in no log: passes over those of the streams asked for, and reports the first of each.
fn surplus<'e>(
    rows: &mut Peekable<impl Iterator<Item = (&'e (StreamName, u64), &'e RecordedEvent)>>,
    of: impl Fn(&StreamName) -> bool,
    report: &mut impl FnMut(String, String),
) {
    let mut reported: Option<&StreamName> = None;
    while let Some(((name, revision), row)) = rows.next_if(|((name, _), _)| of(name)) {
        if reported.replace(name) != Some(name) {
            report(format!("{name}: no row of revision {revision}: no log has it"), words(row));
        }
    }
}

fn heads(
    judged: &Judged<'_>,
    store: &StoreDump,
    reach: &BTreeMap<ShardId, usize>,
    report: &mut impl FnMut(String, String),
) {
    let fold = &judged.fold;
    let heads = &store.heads;
    for (name, head) in heads {
        let stream = fold.names.get(name).copied();
        if stream.is_some_and(|stream| !fold.streams[stream].orderly) {
            continue;
        }
        let state = stream.and_then(|s| Some((s, fold.appends_at(s, Some(head.revision))?)));
        let Some((stream, count)) = state else {
            let newest = stream.and_then(|stream| fold.head(stream));
            let expected =
                format!("{name}: a head at the end of an append; the log is at {}", At(newest));
            report(expected, format!("the store's head at revision {}", head.revision));
            continue;
        };
        let appends = &fold.streams[stream].appends;
        let last = &appends[count.saturating_sub(REMEMBERED_APPENDS)..count];
        let last = last.iter().map(|place| &fold.appends[*place]);
        let due = last.map(|p| (p.id, p.first, p.last, p.time));
        let stored = head.remembered.iter().map(|r| (r.id, r.first, r.last, r.time));
        if !due.clone().eq(stored.clone()) {
            let expected =
                format!("{name}: the head at revision {} remembers {}", head.revision, list(due));
            report(expected, list(stored));
        }
    }
    for (name, stream) in &fold.names {
        let stream = &fold.streams[*stream];
        let appends = stream.appends.iter().rev().map(|place| &fold.appends[*place]);
        let folded = |shard, record| reach.get(&shard).is_some_and(|records| record < *records);
        let due = appends.into_iter().find(|placed| folded(placed.shard, placed.record));
        let stored = heads.get(name).map(|head| head.revision);
        if let Some(due) = due.filter(|due| stream.orderly && stored < Some(due.last)) {
            let expected = format!("{name}: a head from {} on", judged.words(due));
            report(expected, format!("the store's head at {}", At(stored)));
        }
    }
}

/// Remembered appends, in words; a long list by its ends.
fn list<T: std::fmt::Debug>(items: impl Iterator<Item = T> + Clone) -> String {
    let count = items.clone().count();
    let first = items.clone().next();
    format!("{count} appends, from {first:?} to {:?}", items.last())
}

fn words(row: &RecordedEvent) -> String {
    format!(
        "event {:?} of append {:?} of {} at revision {}, time {}",
        row.event.id, row.append, row.stream, row.revision, row.time
    )
}

#[cfg(test)]
mod tests {
    use stormkeep_core::{env::Position, shard::Checkpoint, time::HybridTime};

    use super::super::testing::{Case, name};
    use super::*;

    fn folded() -> Case {
        let mut case = Case::new();
        for n in 0..40 {
            case.accept("a-1", n, 2);
        }
        case.accept("b-1", 99, 1);
        case.move_on();
        case.accept("a-1", 50, 1);
        case.fold();
        case
    }

    #[test]
    fn the_core_s_own_fold_is_faithful() {
        assert_eq!(folded().seen(check), "");
    }

    #[test]
    fn rows_ahead_of_the_checkpoint_and_an_empty_store_are_fine() {
        let mut case = folded();
        // The fold stopped between rows and checkpoint; some rows are not there yet.
        case.evidence.store.checkpoints = BTreeMap::from([(ShardId(0), Checkpoint::default())]);
        case.evidence.store.events.remove(&(name("a-1"), 3));
        case.evidence.store.heads.remove(&name("b-1"));
        assert_eq!(case.seen(check), "");
        case.evidence.store = Default::default();
        assert_eq!(case.seen(check), "");
    }

    #[test]
    fn a_missing_or_different_row_is_found() {
        let mut case = folded();
        case.evidence.store.events.remove(&(name("a-1"), 80));
        assert!(case.seen(check).contains("row of revision 80: event"));
        let mut case = folded();
        if let Some(row) = case.evidence.store.events.get_mut(&(name("b-1"), 0)) {
            row.time = HybridTime(1);
        }
        assert!(case.seen(check).contains("of append 63 of b-1 at revision 0, time 1"));
    }

    #[test]
    fn a_row_that_no_log_has_is_found() {
        for (stream, revision) in [("a-1", 81), ("a-0", 0), ("z-1", 0)] {
            let mut case = folded();
            let row = case.evidence.store.events[&(name("a-1"), 3)].clone();
            case.evidence.store.events.insert((name(stream), revision), row);
            let expected = format!("{stream}: no row of revision {revision}: no log has it");
            assert!(case.seen(check).contains(&expected));
            assert_eq!(case.judge(check).len(), 1);
        }
    }

    #[test]
    fn a_wrong_head_is_found() {
        let bend = |bend: fn(&mut Case)| {
            let mut case = folded();
            bend(&mut case);
            case.seen(check)
        };
        let head = |case: &mut Case, bend: fn(&mut stormkeep_core::stream::Head)| {
            case.evidence.store.heads.get_mut(&name("a-1")).map(bend);
        };
        let mut case = folded();
        head(&mut case, |head| head.remembered.truncate(31));
        assert!(case.seen(check).contains("a-1: the head at revision 80 remembers 32 appends"));
        head(&mut case, |head| head.revision = 79);
        assert!(case.seen(check).contains("a-1: a head from append 32 of a-1 at revision 80"));
        head(&mut case, |head| head.revision = 78);
        assert!(case.seen(check).contains("a-1: a head at the end of an append"));
        let gone = bend(|case| drop(case.evidence.store.heads.remove(&name("b-1"))));
        assert!(gone.contains("b-1: a head from append 63") && gone.contains("at no event"));
        let alien = bend(|case| {
            let head = case.evidence.store.heads[&name("a-1")].clone();
            case.evidence.store.heads.insert(name("z-1"), head);
        });
        assert!(alien.contains("z-1: a head at the end of an append; the log is at no event"));
    }

    #[test]
    fn a_wrong_checkpoint_is_found() {
        type Bend = fn(&mut Checkpoint);
        let bends: [(Bend, &str); 5] = [
            (|at| at.accepted += 1, "there the log has accepted 2, epoch 1, next 1"),
            (|at| at.closed = HybridTime(9), "there the log has"),
            (|at| at.position = Some(Position::new(7)), "no record is at its position"),
            (|at| at.position = None, "there the log has accepted 0"),
            (|at| at.ended = true, "the shard is open"),
        ];
        for (bend, seen) in bends {
            let mut case = folded();
            case.evidence.store.checkpoints.get_mut(&ShardId(1)).map(bend);
            assert!(case.seen(check).contains(seen), "{seen}");
        }
        let mut case = folded();
        case.fence(0, 2);
        assert!(case.seen(check).contains("1 more records follow"));
    }

    #[test]
    fn a_row_that_some_quorum_does_not_see_is_found() {
        let mut case = folded();
        case.evidence.surely = case.evidence.store.clone();
        assert_eq!(case.seen(check), "");
        case.evidence.surely.events.remove(&(name("a-1"), 3));
        assert!(case.seen(check).contains("a-1"));
    }
}
