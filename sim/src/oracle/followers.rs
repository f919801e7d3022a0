//! **Faithful**, for those who read the log: a follower sees exactly what the fold accepts.
//!
//! What is claimed of every catch-up read that was answered Ok:
//! - it shows the accepted events of its shard between the position that it began behind and the one
//!   where it ended, all of them, in the order of the log and in every part the same;
//! - the checkpoint that it gives to go on from is that of the fold at its position;
//! - each client's reads of a shard go on where its last one ended, from the beginning of the log.

use std::collections::BTreeMap;

use stormkeep_core::{
    append::{LogSlice, ReadLog},
    shard::{Checkpoint, ShardId},
};

use super::{
    Promise, Violation, broken,
    judged::{Judged, Who},
};
use crate::history::Exchange;

pub(super) fn check(judged: &Judged<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let beginning = Checkpoint::default();
    let mut at: BTreeMap<(u32, ShardId), &Checkpoint> = BTreeMap::new();
    for call in &judged.evidence.history.calls {
        let Exchange::Follow(read, Some(Ok(slice))) = &call.what else { continue };
        let before = at.insert((call.client, read.shard), &slice.next).unwrap_or(&beginning);
        let wrong = if read.after != *before && read.after != beginning {
            Some((format!("to go on from {before:?}"), format!("from {:?}", read.after)))
        } else {
            other_events(judged, read, slice)
        };
        if let Some((expected, seen)) = wrong {
            let expected = format!("a reader of shard {}, {}: {expected}", read.shard, Who(call));
            found.push(broken(Promise::Faithful, call.ended.unwrap_or(judged.end), expected, seen));
        }
    }
    found
}

fn other_events(judged: &Judged<'_>, read: &ReadLog, slice: &LogSlice) -> Option<(String, String)> {
    let fold = &judged.fold;
    let Some(shard) = fold.shards.get(&read.shard) else {
        let nothing = slice.events.is_empty() && slice.next == read.after;
        return (!nothing)
            .then(|| ("nothing: there is no such log".to_owned(), format!("{:?}", slice.next)));
    };
    let closed = judged.shard(read.shard).is_some_and(|info| info.closed);
    let from = match shard.agree(&read.after, closed) {
        Ok(from) => from,
        Err(seen) => return Some((format!("the log agrees with {:?}", read.after), seen)),
    };
    let to = match shard.agree(&slice.next, closed) {
        Ok(to) if to >= from => to,
        Ok(_) => {
            return Some((
                format!("not to go back from {:?}", read.after),
                format!("{:?}", slice.next),
            ));
        }
        Err(seen) => return Some((format!("the log agrees with {:?}", slice.next), seen)),
    };
    let placed = fold.between(shard, from..to);
    let mut shown = slice.events.iter();
    for append in placed {
        let name = &fold.streams[append.stream].name;
        for event in append.events() {
            let next = shown.next();
            if !next.is_some_and(|next| event.is(name, next)) {
                let expected = format!(
                    "event {:?} at revision {}, time {}, of {}",
                    event.event.id,
                    event.revision,
                    event.time,
                    judged.words(append)
                );
                let seen = next.map_or("no further event".to_owned(), |next| {
                    format!(
                        "event {:?} of append {:?} of {} at revision {}, time {}",
                        next.event.id, next.append, next.stream, next.revision, next.time
                    )
                });
                return Some((expected, seen));
            }
        }
    }
    let more = shown.next()?;
    let expected = format!("no event behind the last one up to {:?}", slice.next.position);
    Some((
        expected,
        format!("event {:?} of append {:?} of {}", more.event.id, more.append, more.stream),
    ))
}

#[cfg(test)]
mod tests {
    use stormkeep_core::append::ReadError;

    use super::super::testing::Case;
    use super::*;

    /// A follower of s0 that has read it in two parts, with a failed read between.
    fn followed() -> Case {
        let mut case = Case::new();
        case.accept("a-1", 1, 2);
        case.accept("b-1", 2, 1);
        case.follow(0, (10, 20));
        let mut after = Checkpoint::default();
        bend(&mut case, 0, |_, slice| after = slice.next.clone());
        let failed = ReadLog { shard: ShardId(0), after: after.clone() };
        case.call(25, Some(30), Exchange::Follow(failed, Some(Err(ReadError::Unavailable))));
        case.fence(0, 2);
        case.accept("a-1", 3, 2);
        case.follow(0, (40, 50));
        bend(&mut case, 2, |read, slice| {
            read.after = after;
            slice.events.drain(..3);
        });
        case
    }

    fn bend(case: &mut Case, call: usize, bend: impl FnOnce(&mut ReadLog, &mut LogSlice)) {
        if let Exchange::Follow(read, Some(Ok(slice))) = &mut case.evidence.history.calls[call].what
        {
            bend(read, slice);
        }
    }

    #[test]
    fn a_log_read_in_parts_or_anew_is_fine() {
        let mut case = followed();
        case.follow(0, (60, 70));
        case.follow(7, (60, 70));
        assert_eq!(case.seen(check), "");
    }

    #[test]
    fn a_closed_shard_read_to_its_end_is_fine() {
        let mut case = followed();
        bend(&mut case, 2, |_, slice| slice.next.ended = true);
        assert!(case.seen(check).contains("the shard is open"));
        case.move_on();
        assert_eq!(case.seen(check), "");
    }

    #[test]
    fn events_left_out_added_or_out_of_order_are_found() {
        type Bend = fn(&mut LogSlice);
        let bends: [(Bend, &str); 5] = [
            (|slice| drop(slice.events.pop()), "no further event"),
            (|slice| drop(slice.events.remove(0)), "event 10001"),
            (|slice| slice.events.swap(1, 2), "event 20000"),
            (
                |slice| slice.events.extend(slice.events.first().cloned()),
                "no event behind the last",
            ),
            (|slice| slice.events[0].revision = 9, "of a-1 at revision 9"),
        ];
        for (bent, seen) in bends {
            let mut case = followed();
            bend(&mut case, 0, |_, slice| bent(slice));
            assert!(case.seen(check).contains(seen), "{seen}: {}", case.seen(check));
            assert!(case.judge(check).iter().all(|v| v.at == 20));
        }
    }

    #[test]
    fn what_an_ignored_batch_brought_is_found() {
        let mut case = followed();
        let zombie = case.batch_at(0, 1, 2, &[("a-1", 9, 4, 1)]);
        case.put(0, &zombie);
        case.follow(0, (60, 70));
        assert_eq!(case.seen(check), "");
        bend(&mut case, 3, |_, slice| {
            let (time, append) = (zombie.time, &zombie.appends[0]);
            slice.events.extend(append.recorded(zombie.shard, time));
        });
        assert!(case.seen(check).contains("event 90000 of append 9 of a-1"));
    }

    #[test]
    fn a_reader_that_skips_or_goes_back_is_found() {
        let mut case = followed();
        case.evidence.history.calls.remove(0);
        assert!(case.seen(check).contains("to go on from"));
        let mut case = followed();
        let mut first = Checkpoint::default();
        bend(&mut case, 0, |read, _| first = read.after.clone());
        bend(&mut case, 2, |_, slice| slice.next = first);
        assert!(case.seen(check).contains("not to go back from"));
        let mut case = followed();
        bend(&mut case, 2, |_, slice| slice.next.next += 1);
        assert!(case.seen(check).contains("there the log has accepted 5, epoch 2, next 1"));
    }
}
