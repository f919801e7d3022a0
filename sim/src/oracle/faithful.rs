//! **Faithful**: the store equals the fold of the log up to the checkpoint; nothing else is in it.
//!
//! What is claimed:
//! - a checkpoint's state (epoch, next, accepted, closed) is that of the fold at its position, and it is
//!   *ended* only if its shard is closed and no record follows;
//! - every event accepted up to the checkpoint of its shard is in the store, the same in every part, both in its stream
//!   and in the order of its shard;
//! - every event row of the store is in the fold. Rows may be ahead of the checkpoint, and then some may
//!   be missing: rows are written before the checkpoint, in any order;
//! - every head is that of the fold at its revision and that of its metadata, with its remembered appends and its
//!   limits, and is not older than the checkpoint asks.
//!
//! A stream whose revisions are not 0, 1, 2, … is left to [gapless](super::gapless).

use std::{collections::BTreeMap, iter::Peekable};

use stormkeep_core::{
    event::RecordedEvent, head::Head, limits::REMEMBERED_APPENDS, shard::ShardId,
    stream::StreamName, time::HybridTime,
};

use super::{
    Promise, StoreDump, Violation, broken,
    fold::PlacedEvent,
    joint::{Joint, State},
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
        ordered(judged, store, &reach, &mut report);
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

/// The rows of each shard in the order of their times: the first one that is wrong, missing or too much.
fn ordered(
    judged: &Judged<'_>,
    store: &StoreDump,
    reach: &BTreeMap<ShardId, usize>,
    report: &mut impl FnMut(String, String),
) {
    let mut due: BTreeMap<(ShardId, HybridTime), (usize, PlacedEvent<'_>)> = BTreeMap::new();
    for (place, placed) in judged.fold.appends.iter().enumerate() {
        due.extend(placed.events().map(|event| ((placed.shard, event.time), (place, event))));
    }
    for (at @ (shard, time), row) in &store.ordered {
        let right = due.get(at).is_some_and(|(place, event)| {
            let stream = judged.fold.appends[*place].stream;
            event.is(&judged.fold.streams[stream].name, row)
        });
        if !right {
            report(format!("shard {shard}: the log's event of time {time}, if any"), words(row));
            break;
        }
    }
    for ((shard, time), (place, _)) in due {
        let placed = &judged.fold.appends[place];
        let folded = reach.get(&shard).is_some_and(|records| placed.record < *records);
        if folded && !store.ordered.contains_key(&(shard, time)) {
            let words = judged.words(placed);
            report(format!("shard {shard}: a row of time {time}, of {words}"), "no row".to_owned());
            break;
        }
    }
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
    let newest = |joint: Option<usize>| {
        let state = joint.and_then(|joint| fold.joints[joint].states.last());
        let state = state.copied().unwrap_or_default();
        format!("{}, metadata at {}", At(state.head(false)), At(state.head(true)))
    };
    for (name, head) in heads {
        let joint = fold.joint(name);
        if joint.is_some_and(|joint| !fold.joints[joint].orderly) {
            continue;
        }
        let places = |head: &Head| (At(head.revision).to_string(), At(head.metadata).to_string());
        let Some((joint, count)) = joint.and_then(|j| Some((j, behind(&fold.joints[j], head)?)))
        else {
            let expected =
                format!("{name}: a head at the end of an append; the log is at {}", newest(joint));
            let (revision, metadata) = places(head);
            report(expected, format!("the store's head at {revision}, metadata at {metadata}"));
            continue;
        };
        let (appends, state) = (&fold.joints[joint].appends, fold.joints[joint].states[count]);
        let last = &appends[count.saturating_sub(REMEMBERED_APPENDS)..count];
        let last = last.iter().map(|place| &fold.appends[*place]);
        let due = last.map(|p| (p.id, p.metadata, p.shard, p.first, p.last, p.time));
        let stored = head.remembered.iter();
        let stored = stored.map(|r| (r.id, r.metadata, r.shard, r.first, r.last, r.time));
        if !due.clone().eq(stored.clone()) {
            let (revision, metadata) = places(head);
            let expected = format!(
                "{name}: the head at {revision}, metadata at {metadata}, remembers {}",
                list(due)
            );
            report(expected, list(stored));
        }
        let due = (state.truncated, state.most, state.ended);
        let stored = (head.limits.truncate_before, head.limits.max_count, head.tombstoned);
        if due != stored {
            let due = format!(
                "{name}: the head at {}, metadata at {}, is truncated, limited, ended as {due:?}",
                At(head.revision),
                At(head.metadata)
            );
            report(due, format!("{stored:?}"));
        }
    }
    let folded = |shard, record| reach.get(&shard).is_some_and(|records| record < *records);
    for joint in fold.joints.iter().filter(|joint| joint.orderly) {
        let appends = joint.appends.iter().rev().map(|place| &fold.appends[*place]);
        let due = appends.into_iter().find(|placed| folded(placed.shard, placed.record));
        let Some(due) = due else { continue };
        let name = fold.streams[due.stream].name.described();
        let stored = heads.get(&name);
        // One that is at no state was reported above.
        let missing = stored.is_none_or(|head| behind(joint, head).is_some_and(|n| n <= due.nth));
        if missing {
            let expected = format!("{name}: a head from {} on", judged.words(due));
            let (revision, metadata) = stored.map_or((None, None), |h| (h.revision, h.metadata));
            let seen =
                format!("the store's head at {}, metadata at {}", At(revision), At(metadata));
            report(expected, seen);
        }
    }
}

/// How many appends of a stream and its metadata a head has; `None`: it is within one.
fn behind(joint: &Joint, head: &Head) -> Option<usize> {
    let events = |state: &State| state.events + state.metadata;
    let count = joint.states.partition_point(|state| events(state) < head.version());
    let state = joint.states.get(count)?;
    let same = state.head(false) == head.revision && state.head(true) == head.metadata;
    same.then_some(count)
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
        let head = |case: &mut Case, bend: fn(&mut Head)| {
            case.evidence.store.heads.get_mut(&name("a-1")).map(bend);
        };
        let mut case = folded();
        head(&mut case, |head| head.remembered.truncate(31));
        assert!(
            case.seen(check).contains(
                "a-1: the head at revision 80, metadata at no event, remembers 32 appends"
            )
        );
        head(&mut case, |head| head.revision = Some(79));
        assert!(case.seen(check).contains("a-1: a head from append 32 of a-1 at revision 80"));
        head(&mut case, |head| head.revision = Some(78));
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
