//! **Fenced**: no two epochs of a shard acknowledge conflicting facts.
//!
//! What is claimed:
//! - two appends that were answered Ok never share a revision of a stream;
//! - an append is told with the epoch of the batch that holds it, and its time; a repeated one with an
//!   epoch that is not before that batch's, if it is of the same shard;
//! - the epoch of every answer has an accepted fence in its shard: an owner serves behind its own fence;
//! - an owner answers nothing that was asked after a later epoch of its shard had answered. The later
//!   owner's compare-and-set was done by then, and the check behind every answer begins after the question;
//! - no batch is ahead of the accept rule: of an epoch without a fence before it, or with an index that
//!   leaves one out. An owner puts a batch when its fence and all batches before it are confirmed;
//! - an accepted append is of a stream whose key the shard's range holds.

use std::collections::BTreeMap;

use stormkeep_core::shard::ShardId;

use super::{
    Promise, Violation, broken,
    fold::Odd,
    judged::{Ack, Judged, Revisions, Time, Who},
};

pub(super) fn check(judged: &Judged<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut report = |at, expected, seen| found.push(broken(Promise::Fenced, at, expected, seen));
    overlaps(judged, &mut report);
    for ack in &judged.acks {
        if let Some((expected, seen)) = other_fact(judged, ack) {
            report(ack.at(), expected, seen);
        }
    }
    zombies(judged, &mut report);
    for odd in &judged.fold.odd {
        if let Odd::Ahead { shard, position, epoch, batch, state } = odd {
            let expected = format!(
                "shard {shard}: epoch {}, batch {} next, or what is behind it",
                state.epoch, state.next
            );
            let seen = format!("epoch {epoch}, batch {batch} at position {position}");
            report(judged.end, expected, seen);
        }
    }
    strangers(judged, &mut report);
    found
}

/// Two acknowledged appends at one revision.
fn overlaps(judged: &Judged<'_>, report: &mut impl FnMut(u64, String, String)) {
    let mut acks: Vec<&Ack<'_>> = judged.acks.iter().collect();
    acks.sort_by_key(|ack| (ack.stream, ack.appended.first));
    let mut furthest: Option<&Ack<'_>> = None;
    for ack in acks {
        if let Some(before) = furthest.filter(|before| before.stream == ack.stream) {
            if ack.append.id != before.append.id && ack.appended.first <= before.appended.last {
                let expected = format!(
                    "{}: no other append at {} of append {:?} ({})",
                    ack.append.stream,
                    Revisions(before.appended.first, before.appended.last),
                    before.append.id,
                    told(before)
                );
                let seen = format!(
                    "append {:?} at {} ({})",
                    ack.append.id,
                    Revisions(ack.appended.first, ack.appended.last),
                    told(ack)
                );
                report(ack.at().max(before.at()), expected, seen);
            }
            if ack.appended.last <= before.appended.last {
                continue;
            }
        }
        furthest = Some(ack);
    }
}

/// An answer that says something else of its append than the log does.
fn other_fact(judged: &Judged<'_>, ack: &Ack<'_>) -> Option<(String, String)> {
    let (fold, appended) = (&judged.fold, ack.appended);
    let fenced = fold.shards.get(&appended.answered_by);
    if fenced.is_none_or(|s| s.epochs.binary_search(&appended.epoch).is_err()) {
        let expected =
            format!("shard {}: answers of epochs that have a fence", appended.answered_by);
        return Some((expected, format!("append {:?}: {}", ack.append.id, told(ack))));
    }
    let placed = &fold.appends[ack.place?];
    let epoch_fits = if appended.repeated {
        appended.answered_by != placed.shard || appended.epoch >= placed.epoch
    } else {
        appended.answered_by == placed.shard && appended.epoch == placed.epoch
    };
    if epoch_fits && appended.time == placed.time {
        return None;
    }
    let expected = format!("{}, time {}", judged.words(placed), placed.time);
    Some((expected, format!("time {}, {}", appended.time, told(ack))))
}

/// An owner that answered what was asked after a later epoch had answered.
fn zombies(judged: &Judged<'_>, report: &mut impl FnMut(u64, String, String)) {
    let mut shards: BTreeMap<ShardId, Vec<&Ack<'_>>> = BTreeMap::new();
    for ack in &judged.acks {
        shards.entry(ack.appended.answered_by).or_default().push(ack);
    }
    for (shard, mut by_question) in shards {
        let mut by_answer = by_question.clone();
        by_question.sort_by_key(|ack| ack.call.invoked);
        by_answer.sort_by_key(|ack| ack.at());
        let mut answered = by_answer.into_iter().peekable();
        let mut latest: Option<&Ack<'_>> = None;
        for ack in by_question {
            while let Some(before) = answered.next_if(|before| before.at() < ack.call.invoked) {
                if latest.is_none_or(|latest| latest.appended.epoch < before.appended.epoch) {
                    latest = Some(before);
                }
            }
            if let Some(later) = latest.filter(|l| l.appended.epoch > ack.appended.epoch) {
                let expected = format!(
                    "shard {shard}: epoch {} or later for append {:?}, asked for at {}: append {:?} was answered at {} ({})",
                    later.appended.epoch,
                    ack.append.id,
                    Time(ack.call.invoked),
                    later.append.id,
                    Time(later.at()),
                    told(later)
                );
                report(ack.at(), expected, format!("append {:?}: {}", ack.append.id, told(ack)));
            }
        }
    }
}

/// Appends in a shard whose range does not hold their stream.
fn strangers(judged: &Judged<'_>, report: &mut impl FnMut(u64, String, String)) {
    for stream in &judged.fold.streams {
        let mut key = None;
        let mut checked = None;
        for place in &stream.appends {
            let placed = &judged.fold.appends[*place];
            if checked.replace(placed.shard) == Some(placed.shard) {
                continue;
            }
            let Some(info) = judged.shard(placed.shard) else { continue };
            let key = *key.get_or_insert_with(|| stream.name.key());
            if !info.range.contains(key) {
                let (start, end) = (info.range.start, info.range.end);
                let expected = format!("shard {}: keys from {start:x} to {end:x}", info.id);
                let seen = format!("key {key:x}: {}", judged.words(placed));
                report(judged.seen_at(*place), expected, seen);
            }
        }
    }
}

fn told(ack: &Ack<'_>) -> String {
    let repeated = if ack.appended.repeated { ", repeated" } else { "" };
    format!(
        "shard {}, epoch {}{repeated}, told to {}",
        ack.appended.answered_by,
        ack.appended.epoch,
        Who(ack.call)
    )
}

#[cfg(test)]
mod tests {
    use stormkeep_core::{
        append::{Appended, Expected},
        shard::HashRange,
        time::HybridTime,
    };

    use super::super::testing::{Case, name};
    use super::*;

    #[test]
    fn epochs_that_follow_one_another_are_fine() {
        let mut case = Case::new();
        let one = case.commit("a-1", 1, 3, (10, 20));
        let slow = case.accept("a-1", 2, 1);
        case.fence(0, 2);
        case.commit("a-1", 3, 1, (40, 50));
        // It was asked in time: its answer may come after one of the next epoch.
        case.ask("a-1", 2, 1, Expected::Any, (45, 90), Some(Ok(slow)));
        let again = Appended { repeated: true, epoch: 2, ..one.clone() };
        case.ask("a-1", 1, 3, Expected::Any, (60, 70), Some(Ok(again)));
        case.move_on();
        let in_child = Appended { repeated: true, answered_by: ShardId(1), epoch: 1, ..one };
        case.ask("a-1", 1, 3, Expected::Any, (80, 85), Some(Ok(in_child)));
        case.commit("a-1", 4, 1, (90, 95));
        assert_eq!(case.seen(check), "");
    }

    #[test]
    fn two_epochs_that_acknowledge_one_revision_are_found() {
        let mut case = Case::new();
        case.commit("a-1", 1, 1, (10, 20));
        case.fence(0, 2);
        let good = case.commit("a-1", 2, 3, (30, 40));
        // A zombie is told that its batch is confirmed, and does not look at the epoch.
        let zombie = Appended { epoch: 1, first: 3, last: 3, ..good };
        case.ask("a-1", 3, 1, Expected::Any, (25, 60), Some(Ok(zombie)));
        let seen = case.seen(check);
        assert!(
            seen.contains("a-1: no other append at revisions 1 to 3 of append 2")
                && seen.contains("/ 60"),
            "{seen}"
        );
        assert_eq!(case.judge(check).len(), 1);
    }

    #[test]
    fn an_answer_with_another_epoch_or_time_than_the_log_is_found() {
        let mut case = Case::new();
        case.fence(0, 2);
        let one = case.accept("a-1", 1, 1);
        for wrong in [
            Appended { epoch: 1, ..one.clone() },
            Appended { epoch: 1, repeated: true, ..one.clone() },
            Appended { time: HybridTime(1), ..one.clone() },
        ] {
            case.evidence.history.calls.clear();
            case.ask("a-1", 1, 1, Expected::Any, (10, 20), Some(Ok(wrong)));
            assert!(case.seen(check).contains("append 1 of a-1 at revision 0 (shard s0, epoch 2"));
        }
        case.evidence.history.calls.clear();
        let unfenced = Appended { epoch: 3, repeated: true, ..one };
        case.ask("a-1", 1, 1, Expected::Any, (10, 20), Some(Ok(unfenced)));
        assert!(case.seen(check).contains("answers of epochs that have a fence"));
    }

    #[test]
    fn a_zombie_that_answers_after_the_next_owner_is_found() {
        let mut case = Case::new();
        let one = case.commit("a-1", 1, 1, (10, 20));
        case.fence(0, 2);
        case.commit("a-1", 2, 1, (30, 40));
        let late = Appended { repeated: true, ..one };
        case.ask("a-1", 1, 1, Expected::Any, (40, 50), Some(Ok(late.clone())));
        assert_eq!(case.seen(check), "");
        case.ask("a-1", 1, 1, Expected::Any, (41, 50), Some(Ok(late)));
        assert!(case.seen(check).contains("epoch 2 or later for append 1"));
    }

    #[test]
    fn a_log_that_lost_a_batch_is_found() {
        let mut case = Case::new();
        let ahead = case.batch_at(0, 1, 1, &[("a-1", 1, 0, 1)]);
        case.put(0, &ahead);
        let unfenced = case.batch_at(0, 2, 0, &[("a-1", 1, 0, 1)]);
        case.put(0, &unfenced);
        assert_eq!(case.judge(check).len(), 2);
    }

    #[test]
    fn a_stream_outside_of_the_range_is_found() {
        let mut case = Case::new();
        let key = name("a-1").key();
        case.evidence.shards[0].range = HashRange { start: 0, end: key };
        case.accept("a-1", 1, 1);
        assert_eq!(case.seen(check), "");
        case.evidence.shards[0].range = HashRange { start: 0, end: key - 1 };
        assert!(case.seen(check).contains("shard s0: keys from 0 to"));
    }
}
