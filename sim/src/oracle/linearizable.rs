//! **Linearizable**: appends and strong reads of a stream have one order that respects real time and
//! expected revisions; an unknown outcome happened once or never.
//!
//! The log gives the order of a stream's appends, so there is nothing to search. Every operation gets a
//! level: state `k`, the stream with its first `k` appends, is level `2k`, and the append that leads
//! from state `k` to the next is level `2k + 1`. An order exists if and only if no operation ended before
//! one of a lower level was asked. One pass over the levels, with the latest question so far, decides it.
//!
//! The operations, and what each claims:
//! - an accepted append: between the first question for it and the first answer that says Ok, if any. A
//!   repeated Ok says so as well. One that was never acknowledged may happen at any later time. An id
//!   that stands twice (see [durable](super::durable)) is two appends, each with the answers that name
//!   its revision;
//! - a strong read: the state that its head names. A head within an append is torn: a violation;
//! - a wrong expected revision: the state that it names, which must not meet what was asked, and whose
//!   head must not remember the append: that would have been answered as a repeat;
//! - an eventual read: the stream was at the state that it shows, or a later one, before it was answered.
//!   What it shows was accepted, so no later answer may be without it.
//!
//! Every accepted append must have met what it expected of its stream.
//!
//! A stream whose revisions are not 0, 1, 2, … has no states to speak of: that is for
//! [gapless](super::gapless).

use stormkeep_core::{
    append::{AppendError, AppendId, Expected, Freshness},
    limits::REMEMBERED_APPENDS,
};

use super::{
    Promise, Violation, broken,
    fold::Placed,
    judged::{At, Judged, Time, Who},
};
use crate::history::{Exchange, Nanos};

/// One operation on a stream.
#[derive(Debug, Clone, Copy)]
struct Op {
    stream: usize,
    level: usize,
    invoked: Nanos,
    ended: Nanos,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    /// An index of the fold's appends.
    Append(usize),
    /// An index of the history's calls.
    Call(usize),
}

pub(super) fn check(judged: &Judged<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut ops = Vec::with_capacity(judged.evidence.history.calls.len());
    appends(judged, &mut ops, &mut found);
    answers(judged, &mut ops, &mut found);
    ops.sort_unstable_by_key(|op| (op.stream, op.level));
    for stream in ops.chunk_by(|a, b| a.stream == b.stream) {
        found.extend(out_of_order(judged, stream));
    }
    found
}

/// The accepted appends, and whether each met its expectation.
fn appends(judged: &Judged<'_>, ops: &mut Vec<Op>, found: &mut Vec<Violation>) {
    for (place, placed) in judged.fold.appends.iter().enumerate() {
        let stream = &judged.fold.streams[placed.stream];
        if !stream.orderly {
            continue;
        }
        let before = placed.first.checked_sub(1);
        let mut unmet = None;
        for asked in judged.asked(placed.id).filter(|asked| asked.append.stream == stream.name) {
            unmet = Some(asked.append.expected).filter(|expected| !meets(before, *expected));
            if unmet.is_none() {
                break;
            }
        }
        if let Some(expected) = unmet {
            let expected = format!(
                "append {:?} of {} only if the stream is as it expects: {expected:?}",
                placed.id, stream.name
            );
            let seen = format!("{}, behind {}", judged.words(placed), At(before));
            found.push(broken(Promise::Linearizable, judged.seen_at(place), expected, seen));
        }
        let known = judged.known[place];
        ops.push(Op {
            stream: placed.stream,
            level: 2 * placed.nth + 1,
            invoked: known.asked.unwrap_or(0),
            ended: known.told.unwrap_or(Nanos::MAX),
            what: What::Append(place),
        });
    }
}

/// The answers that name a state.
fn answers(judged: &Judged<'_>, ops: &mut Vec<Op>, found: &mut Vec<Violation>) {
    for (n, call) in judged.evidence.history.calls.iter().enumerate() {
        let ended = call.ended.unwrap_or(Nanos::MAX);
        let (name, head, refused, eventual) = match &call.what {
            Exchange::Append(
                append,
                Some(Err(AppendError::WrongExpectedRevision { actual, expected })),
            ) => (&append.stream, *actual, Some((append, *expected)), false),
            Exchange::Read(read, Some(Ok(slice))) => {
                (&read.stream, slice.head, None, read.freshness == Freshness::Eventual)
            }
            _ => continue,
        };
        let mut report = |expected, seen: String| {
            let (at, seen) = (ended.min(judged.end), format!("{seen}, told to {}", Who(call)));
            found.push(broken(Promise::Linearizable, at, expected, seen));
        };
        if let Some((append, expected)) = refused
            && (expected != append.expected || meets(head, append.expected))
        {
            let due = format!(
                "append {:?} of {name} refused only if {:?} does not hold",
                append.id, append.expected
            );
            report(due, format!("refused for {expected:?} at {}", At(head)));
        }
        let stream = match judged.fold.names.get(name) {
            Some(stream) if judged.fold.streams[*stream].orderly => Some(*stream),
            Some(_) => continue,
            None => None,
        };
        if eventual {
            let Some(stream) = stream else { continue };
            let level = 2 * judged.fold.appends_begun(stream, head);
            ops.push(Op { stream, level, invoked: 0, ended, what: What::Call(n) });
            continue;
        }
        let state = stream.and_then(|stream| judged.fold.appends_at(stream, head));
        let (Some(stream), Some(state)) = (stream, state) else {
            // A stream without a log has one state: no event.
            if head.is_some() {
                let newest = At(stream.and_then(|stream| judged.fold.head(stream)));
                let expected =
                    format!("{name}: a head at the end of an append; the log is at {newest}");
                report(expected, At(head).to_string());
            }
            continue;
        };
        if let Some(placed) =
            refused.and_then(|(append, _)| remembered(judged, append.id, stream, state))
        {
            let expected = format!("{}: answered as a repeat", judged.words(placed));
            report(expected, format!("wrong expected revision, the stream at {}", At(head)));
        }
        let invoked = call.invoked;
        ops.push(Op { stream, level: 2 * state, invoked, ended, what: What::Call(n) });
    }
}

/// An append as the head of its stream remembers it in a state.
fn remembered<'j>(
    judged: &'j Judged<'_>,
    id: AppendId,
    stream: usize,
    state: usize,
) -> Option<&'j Placed> {
    let mut places = judged.fold.places(id).map(|place| &judged.fold.appends[place]);
    let last = state.saturating_sub(REMEMBERED_APPENDS)..state;
    places.find(|placed| placed.stream == stream && last.contains(&placed.nth))
}

/// The first operation of a stream, by level, that ended before one of a lower level was asked.
fn out_of_order(judged: &Judged<'_>, ops: &[Op]) -> Option<Violation> {
    let mut latest: Option<&Op> = None;
    for level in ops.chunk_by(|a, b| a.level == b.level) {
        if let Some(lower) = latest
            && let Some(higher) = level.iter().find(|op| op.ended < lower.invoked)
        {
            let name = &judged.fold.streams[lower.stream].name;
            let expected = format!(
                "{name}: what was asked at {} comes after what was answered at {}: {}",
                Time(lower.invoked),
                Time(higher.ended),
                words(judged, higher)
            );
            let seen = format!("it comes before that: {}", words(judged, lower));
            let at = lower.ended.max(higher.ended).min(judged.end);
            return Some(broken(Promise::Linearizable, at, expected, seen));
        }
        latest = level.iter().chain(latest).max_by_key(|op| op.invoked);
    }
    None
}

fn words(judged: &Judged<'_>, op: &Op) -> String {
    match op.what {
        What::Append(place) => judged.words(&judged.fold.appends[place]),
        What::Call(n) => {
            let call = &judged.evidence.history.calls[n];
            let (what, head) = match &call.what {
                Exchange::Append(
                    append,
                    Some(Err(AppendError::WrongExpectedRevision { actual, .. })),
                ) => (format!("the refusal of append {:?}", append.id), *actual),
                Exchange::Read(read, Some(Ok(slice))) => {
                    let freshness = match read.freshness {
                        Freshness::Strong => "a strong read",
                        Freshness::Eventual => "an eventual read",
                    };
                    (freshness.to_owned(), slice.head)
                }
                _ => ("a call".to_owned(), None),
            };
            format!("{what} that saw {} ({})", At(head), Who(call))
        }
    }
}

/// Whether a stream with this head is as expected.
fn meets(head: Option<u64>, expected: Expected) -> bool {
    match expected {
        Expected::Any => true,
        Expected::NoStream => head.is_none(),
        Expected::StreamExists => head.is_some(),
        Expected::Exactly(revision) => head == Some(revision),
    }
}

#[cfg(test)]
mod tests {
    use stormkeep_core::append::{Appended, Expected::*};

    use super::super::testing::{Answer, Case};
    use super::*;
    use Freshness::{Eventual, Strong};

    fn refused(expected: Expected, actual: Option<u64>) -> Answer {
        Some(Err(AppendError::WrongExpectedRevision { expected, actual }))
    }

    #[test]
    fn an_order_that_respects_real_time_is_fine() {
        let mut case = Case::new();
        case.read("a-1", Strong, 0, 10, None, (5, 15));
        let one = case.accept("a-1", 1, 2);
        case.ask("a-1", 1, 2, NoStream, (10, 20), Some(Ok(one.clone())));
        case.read("a-1", Strong, 0, 10, Some(1), (20, 25));
        let two = case.accept("a-1", 2, 1);
        case.ask("a-1", 2, 1, Exactly(1), (30, 60), Some(Ok(two)));
        // Concurrent with the append: either state is right, in any order of the answers.
        case.read("a-1", Strong, 0, 10, Some(2), (30, 40));
        case.read("a-1", Strong, 0, 10, Some(1), (35, 60));
        case.ask("a-1", 9, 1, NoStream, (70, 80), refused(NoStream, Some(2)));
        case.ask("a-1", 9, 1, StreamExists, (3, 4), refused(StreamExists, None));
        // A retry answered as a repeat, and an append that nobody was told of.
        case.ask("a-1", 1, 2, NoStream, (90, 95), Some(Ok(Appended { repeated: true, ..one })));
        case.ask("a-1", 3, 1, Any, (15, 0), None);
        case.accept("a-1", 3, 1);
        case.read("a-1", Strong, 0, 10, Some(3), (100, 110));
        case.read("a-1", Eventual, 0, 10, Some(0), (120, 130));
        case.read("b-1", Strong, 0, 10, None, (120, 130));
        // What an eventual read shows, a strong one may show later as well.
        case.read("a-1", Eventual, 0, 10, Some(3), (140, 150));
        case.read("a-1", Strong, 0, 10, Some(3), (160, 170));
        assert_eq!(case.seen(check), "");
    }

    #[test]
    fn a_stale_read_is_found() {
        let mut case = Case::new();
        case.commit("a-1", 1, 1, (10, 20));
        case.commit("a-1", 2, 1, (30, 40));
        case.read("a-1", Strong, 0, 10, Some(0), (40, 50));
        assert_eq!(case.seen(check), "");
        case.read("a-1", Strong, 0, 10, Some(0), (41, 55));
        let seen = case.seen(check);
        assert!(seen.contains("append 2 of a-1 at revision 1"), "{seen}");
        assert!(
            seen.contains("a strong read that saw revision 0") && seen.contains("/ 55"),
            "{seen}"
        );
    }

    #[test]
    fn a_stale_refusal_and_reads_that_go_back_are_found() {
        let mut case = Case::new();
        case.commit("a-1", 1, 1, (10, 20));
        case.ask("a-1", 9, 1, Exactly(5), (25, 30), refused(Exactly(5), None));
        assert!(case.seen(check).contains("the refusal of append 9 that saw no event"));

        // Nobody was told of the append, but a read saw it, and the next one does not.
        for freshness in [Strong, Eventual] {
            let mut case = Case::new();
            case.ask("a-1", 1, 1, Any, (10, 0), None);
            case.accept("a-1", 1, 1);
            case.read("a-1", freshness, 0, 10, Some(0), (20, 30));
            case.read("a-1", Strong, 0, 10, None, (40, 50));
            assert_eq!(case.judge(check).len(), 1, "{freshness:?}");
            // The other way round an eventual read claims nothing.
            case.evidence.history.calls.pop();
            case.read("a-1", Eventual, 0, 10, None, (40, 50));
            assert_eq!(case.seen(check), "");
        }
    }

    #[test]
    fn appends_in_the_wrong_order_are_found() {
        let mut case = Case::new();
        let one = case.accept("a-1", 1, 1);
        case.commit("a-1", 2, 1, (10, 20));
        // It was asked for when a later one was acknowledged already.
        case.ask("a-1", 1, 1, Any, (30, 40), Some(Ok(one.clone())));
        assert!(case.seen(check).contains("append 1 of a-1 at revision 0"));
        // Unless an earlier call had asked for it.
        case.ask("a-1", 1, 1, Any, (5, 0), None);
        assert_eq!(case.seen(check), "");
    }

    #[test]
    fn torn_and_impossible_heads_are_found() {
        let mut case = Case::new();
        case.commit("a-1", 1, 3, (10, 20));
        case.read("a-1", Eventual, 0, 10, Some(1), (30, 40));
        assert_eq!(case.seen(check), "");
        case.read("a-1", Strong, 0, 10, Some(1), (30, 40));
        case.read("a-1", Strong, 0, 10, Some(7), (30, 40));
        case.read("b-1", Strong, 0, 10, Some(0), (30, 40));
        assert_eq!(case.judge(check).len(), 3);
    }

    #[test]
    fn an_append_that_was_accepted_or_refused_against_its_expectation_is_found() {
        let mut case = Case::new();
        case.commit("a-1", 1, 1, (10, 20));
        for (id, expected, bad) in [
            (2, Exactly(0), false),
            (3, NoStream, true),
            (4, Exactly(1), true),
            (5, StreamExists, false),
        ] {
            case.ask("a-1", id, 1, expected, (30, 0), None);
            case.accept("a-1", id, 1);
            let found = case.judge(check);
            assert_eq!(found.iter().any(|v| v.seen.contains(&format!("append {id} "))), bad);
        }
        for (asked, named) in [(Exactly(3), Exactly(3)), (StreamExists, NoStream), (NoStream, Any)]
        {
            let mut case = Case::new();
            case.commit("a-1", 1, 4, (10, 20));
            case.ask("a-1", 2, 1, asked, (30, 40), refused(named, Some(3)));
            assert!(case.seen(check).contains("does not hold"));
        }
    }

    #[test]
    fn a_remembered_append_is_never_refused() {
        for (others, violations) in [(31, 1), (32, 0)] {
            let mut case = Case::new();
            let one = case.accept("a-1", 1, 1);
            case.ask("a-1", 1, 1, NoStream, (10, 20), Some(Ok(one)));
            for n in 0..others {
                case.commit("a-1", 100 + n, 1, (30, 40));
            }
            let head = Some(others as u64);
            case.ask("a-1", 1, 1, NoStream, (50, 60), refused(NoStream, head));
            assert_eq!(case.judge(check).len(), violations, "{others} others");
        }
    }

    #[test]
    fn an_id_beyond_the_memory_of_a_head_is_another_append() {
        let mut case = Case::new();
        case.commit("a-1", 1, 1, (10, 20));
        for n in 0..32 {
            case.commit("a-1", 100 + n, 1, (30, 40));
        }
        // A copy of the message comes late; its answer, if any, is not the first one's.
        case.accept("a-1", 1, 1);
        case.read("a-1", Strong, 0, 1, Some(32), (50, 60));
        case.read("a-1", Strong, 0, 1, Some(33), (70, 80));
        assert_eq!(case.seen(check), "");
    }
}
