//! **Durable**: an acknowledged append is in its stream, at the acknowledged revision, exactly once, for
//! ever; and nothing is in a stream that nobody asked for, or that was refused.
//!
//! What is claimed of the fold of the logs:
//! - every append that was answered Ok, repeated or not, stands in its stream at the revisions that the
//!   client was told, with the events that it asked for, in the shard that the answer names (that of the
//!   first time, whoever answers a repeat);
//! - an append stands in its stream again only if at least [`REMEMBERED_APPENDS`] others, to the stream or its
//!   metadata, lie between: the second one was decided when the head no longer remembered the first;
//! - every accepted append is, in stream and content, what some client asked for under its id;
//! - an append whose every call was answered *no* or *busy* is not there. This is exact only if every
//!   message between nodes arrived once ([`Evidence::delivered_once`](super::Evidence::delivered_once)).
//!   Where messages are repeated, the copy that was answered may have been refused and the other one
//!   accepted; then only *invalid* is exact, since it depends on the append alone;
//! - every record of a log is an entry: a reader stops at one that is not, and with it all that follows.

use std::collections::BTreeMap;

use stormkeep_core::{
    append::{AppendError, Outcome},
    limits::REMEMBERED_APPENDS,
};

use super::{
    Promise, Violation, broken,
    fold::Odd,
    judged::{Ack, At, Judged, Revisions, Who},
};

pub(super) fn check(judged: &Judged<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut report = |at, expected, seen| found.push(broken(Promise::Durable, at, expected, seen));
    for odd in &judged.fold.odd {
        if let Odd::NoEntry { shard, position, error } = odd {
            let expected = format!("shard {shard}: every record of the log is an entry");
            report(judged.end, expected, format!("at position {position}: {error}"));
        }
    }
    for ack in &judged.acks {
        if let Some(seen) = misplaced(judged, ack) {
            let (append, appended) = (ack.append, ack.appended);
            let expected = format!(
                "append {:?} of {} at {} in shard {} (epoch {}), as told to {}{}",
                append.id,
                append.stream,
                Revisions(appended.first, appended.last),
                appended.shard,
                appended.epoch,
                Who(ack.call),
                if appended.repeated { " as a repeat" } else { "" }
            );
            report(ack.at(), expected, seen);
        }
    }
    for places in judged.fold.ids.chunk_by(|a, b| a.0 == b.0).filter(|places| places.len() > 1) {
        let mut last: BTreeMap<usize, usize> = BTreeMap::new();
        for (_, b) in places {
            let second = &judged.fold.appends[*b];
            let Some(a) = last.insert(second.stream, *b) else { continue };
            let first = &judged.fold.appends[a];
            let between = second.nth.saturating_sub(first.nth + 1);
            if between < REMEMBERED_APPENDS {
                let expected = format!("{} stands there once", judged.words(first));
                let seen = format!(
                    "again at {} (shard {}, epoch {}, batch {}), with {between} appends between; a head remembers {REMEMBERED_APPENDS}",
                    Revisions(second.first, second.last),
                    second.shard,
                    second.epoch,
                    second.batch
                );
                report(judged.seen_at(a).min(judged.seen_at(*b)), expected, seen);
            }
        }
    }
    for place in 0..judged.fold.appends.len() {
        if let Some((at, expected, seen)) = unwanted(judged, place) {
            report(at, expected, seen);
        }
    }
    found
}

/// What stands in the log instead of what a client was told.
fn misplaced(judged: &Judged<'_>, ack: &Ack<'_>) -> Option<String> {
    let (fold, appended) = (&judged.fold, ack.appended);
    let Some(placed) = ack.place.map(|n| &fold.appends[n]) else {
        if let Some(elsewhere) = fold.places(ack.append.id).next() {
            return Some(judged.words(&fold.appends[elsewhere]));
        }
        let Some(stream) = fold.streams.get(ack.stream) else {
            return Some("the stream has no event".to_owned());
        };
        let there = stream.appends.iter().map(|n| &fold.appends[*n]);
        let there = there.rev().find(|p| p.first <= appended.last && appended.first <= p.last);
        return Some(match there {
            Some(other) => format!("it stands nowhere; there is {}", judged.words(other)),
            None => format!("it stands nowhere; the stream is at {}", At(fold.head(ack.stream))),
        });
    };
    if placed.last != appended.last {
        return Some(judged.words(placed));
    }
    if placed.events[..] != ack.append.events[..] {
        return Some(format!("{} with other events", judged.words(placed)));
    }
    (appended.shard != placed.shard).then(|| judged.words(placed))
}

/// Why an accepted append should not be there: when it could be seen, what should be, what is.
fn unwanted(judged: &Judged<'_>, place: usize) -> Option<(u64, String, String)> {
    let placed = &judged.fold.appends[place];
    let name = &judged.fold.streams[placed.stream].name;
    let mut asked_for = false;
    let mut may_be = false;
    let mut invalid = false;
    let mut last = None;
    for asked in judged.asked(placed.id) {
        asked_for |= asked.append.stream == *name && asked.append.events[..] == placed.events[..];
        match asked.answer {
            None | Some(Ok(_)) => may_be = true,
            Some(Err(error)) => {
                may_be |= error.outcome() == Outcome::Unknown;
                invalid |= matches!(error, AppendError::Invalid(_));
                last = Some((asked.call, error));
            }
        }
        if may_be && asked_for {
            return None;
        }
    }
    if !asked_for {
        if super::delivered::is_of_a_group(judged, name) {
            return None;
        }
        let expected = format!("in {name} only what a client asked for");
        return Some((judged.seen_at(place), expected, judged.words(placed)));
    }
    let (call, error) = last?;
    if !invalid && !judged.evidence.delivered_once {
        return None;
    }
    let expected = format!("append {:?} not in {name}: {} was told: {error}", placed.id, Who(call));
    Some((call.ended.unwrap_or(judged.end), expected, judged.words(placed)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stormkeep_core::{
        append::{Appended, Expected},
        limits::InvalidAppend,
        shard::ShardId,
    };

    use super::super::testing::{Case, events};
    use super::*;

    const BUSY: AppendError = AppendError::Busy { retry_after: Duration::ZERO };

    #[test]
    fn acknowledged_repeated_unknown_and_refused_appends_are_fine() {
        let mut case = Case::new();
        case.evidence.delivered_once = true;
        let one = case.commit("a-1", 1, 2, (10, 20));
        let again = Appended { repeated: true, epoch: 4, ..one };
        case.ask("a-1", 1, 2, Expected::Any, (30, 40), Some(Ok(again)));
        // Nobody knows of it, and it happened; nobody knows of it, and it did not.
        case.ask("a-1", 2, 1, Expected::Any, (50, 0), None);
        case.accept("a-1", 2, 1);
        case.ask("a-1", 3, 1, Expected::Any, (50, 60), Some(Err(AppendError::Unknown)));
        // Refused once, then committed; refused for good.
        case.ask("a-1", 4, 1, Expected::Any, (60, 65), Some(Err(BUSY)));
        case.commit("a-1", 4, 1, (70, 80));
        case.ask("a-1", 5, 1, Expected::Any, (60, 65), Some(Err(AppendError::Unavailable)));
        assert_eq!(case.seen(check), "");
    }

    #[test]
    fn a_repeat_names_the_shard_of_the_first_time() {
        let mut case = Case::new();
        let one = case.commit("a-1", 1, 1, (10, 20));
        case.move_on();
        let again = Appended { repeated: true, ..one };
        case.ask("a-1", 1, 1, Expected::Any, (30, 40), Some(Ok(again.clone())));
        assert_eq!(case.seen(check), "");
        let child = Appended { shard: ShardId(1), ..again };
        case.ask("a-1", 1, 1, Expected::Any, (30, 40), Some(Ok(child)));
        assert!(case.seen(check).contains("in shard s1"));
    }

    #[test]
    fn an_acknowledged_append_of_a_zombie_or_in_another_shard_is_lost() {
        let mut case = Case::new();
        case.commit("a-1", 1, 1, (10, 20));
        case.fence(0, 2);
        let zombie = case.batch_at(0, 1, 1, &[("a-1", 2, 1, 1)]);
        case.put(0, &zombie);
        let told = Appended {
            shard: ShardId(0),
            answered_by: ShardId(0),
            epoch: 1,
            first: 1,
            last: 1,
            time: zombie.time,
            repeated: false,
        };
        case.ask("a-1", 2, 1, Expected::Any, (30, 40), Some(Ok(told.clone())));
        assert!(case.seen(check).contains("stands nowhere; the stream is at revision 0 / 40"));
        case.commit("a-1", 3, 1, (50, 60));
        assert!(
            case.seen(check).contains("stands nowhere; there is append 3 of a-1 at revision 1")
        );
        case.ask("b-1", 4, 1, Expected::Any, (70, 80), Some(Ok(told)));
        assert!(case.seen(check).contains("the stream has no event"));
    }

    #[test]
    fn an_append_that_moved_or_changed_is_found() {
        let mut case = Case::new();
        let one = case.accept("a-1", 1, 2);
        let moved = Appended { first: 5, last: 6, ..one.clone() };
        case.ask("a-1", 1, 2, Expected::Any, (10, 20), Some(Ok(moved)));
        assert!(case.seen(check).contains("append 1 of a-1 at revisions 0 to 1"));
        case.evidence.history.calls.clear();
        let longer = Appended { last: 2, ..one.clone() };
        case.ask("a-1", 1, 2, Expected::Any, (10, 20), Some(Ok(longer)));
        assert!(case.seen(check).contains("at revisions 0 to 2 in shard s0"));

        let mut case = Case::new();
        let mut batch = case.batch_of(&[("a-1", 1, 0, 2)]);
        batch.appends[0].events = events(9, 2);
        case.put(0, &batch);
        case.ask("a-1", 1, 2, Expected::Any, (10, 20), Some(Ok(one)));
        let seen = case.seen(check);
        assert!(
            seen.contains("with other events") && seen.contains("only what a client asked for")
        );
    }

    #[test]
    fn a_repeat_counts_only_beyond_the_memory_of_a_head() {
        for (between, violations) in [(0, 1), (31, 1), (32, 0)] {
            let mut case = Case::new();
            case.commit("a-1", 1, 1, (10, 20));
            for n in 0..between {
                case.commit("a-1", 100 + n, 1, (30, 40));
            }
            case.accept("b-1", 90, 1);
            case.ask("b-1", 90, 1, Expected::Any, (30, 0), None);
            // A late copy of the same message: its first one was answered long ago.
            case.accept("a-1", 1, 1);
            let found = case.judge(check);
            assert_eq!(found.len(), violations, "{between} between: {found:?}");
            assert!(found.iter().all(|v| v.at == 20 && v.seen.contains("a head remembers 32")));
        }
    }

    #[test]
    fn a_batch_that_counts_twice_is_found() {
        let mut case = Case::new();
        let batch = case.batch_of(&[("a-1", 1, 0, 1)]);
        case.put(0, &batch);
        case.put(0, &stormkeep_core::entry::Batch { index: 1, ..batch });
        case.ask("a-1", 1, 1, Expected::Any, (10, 0), None);
        assert!(case.seen(check).contains("again at revision 0 (shard s0, epoch 1, batch 1)"));
    }

    #[test]
    fn what_nobody_asked_for_is_found() {
        let mut case = Case::new();
        case.accept("a-1", 1, 1);
        assert!(case.seen(check).contains("in a-1 only what a client asked for"));
        // Asked for, but of another stream.
        case.ask("b-1", 1, 1, Expected::Any, (10, 0), None);
        assert_eq!(case.judge(check).len(), 1);
        case.ask("a-1", 1, 1, Expected::Any, (10, 0), None);
        assert_eq!(case.seen(check), "");
    }

    #[test]
    fn a_refusal_is_exact_when_messages_come_once() {
        let (expected, actual) = (Expected::NoStream, Some(3));
        let wrong = AppendError::WrongExpectedRevision { expected, actual, described: false };
        let invalid = AppendError::Invalid(InvalidAppend::NoEvents);
        for (error, repeats, violations) in [
            (BUSY, false, 1),
            (BUSY, true, 0),
            (wrong.clone(), false, 1),
            (wrong, true, 0),
            (AppendError::Tombstoned, false, 1),
            (AppendError::Unavailable, true, 0),
            (invalid, true, 1),
            (AppendError::Unknown, false, 0),
        ] {
            let mut case = Case::new();
            case.evidence.delivered_once = !repeats;
            case.ask("a-1", 1, 1, Expected::Any, (10, 20), Some(Err(error)));
            case.accept("a-1", 1, 1);
            let found = case.judge(check);
            assert_eq!(found.len(), violations, "{found:?}");
            assert!(found.iter().all(|v| v.at == 20));
        }
    }

    #[test]
    fn a_damaged_record_is_found() {
        let mut case = Case::new();
        case.put_bytes(0, b"SKE");
        assert!(case.seen(check).contains("shard s0: every record of the log is an entry"));
    }
}
