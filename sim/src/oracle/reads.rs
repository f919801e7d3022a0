//! **Linearizable**, the other half: what a read shows is the stream.
//!
//! What is claimed of every read that was answered Ok:
//! - a strong read shows the log's events from [`from`](stormkeep_core::append::ReadStream::from) up to
//!   the head that it names, as many as its limit allows, all of them and in every part the same;
//! - an eventual read shows a run of the log's events from `from` on, without a gap and no more than its
//!   limit; the head that it names is in the stream, and not before the last event that it shows.
//!
//! Where a read stands in the order of the stream is for [linearizable](super::linearizable).

use stormkeep_core::append::{Freshness, ReadStream, StreamSlice};

use super::{
    Promise, Violation, broken,
    judged::{At, Judged, Revisions, Who},
};
use crate::history::Exchange;

pub(super) fn check(judged: &Judged<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for call in &judged.evidence.history.calls {
        let Exchange::Read(read, Some(Ok(slice))) = &call.what else { continue };
        if let Some((expected, seen)) = other_events(judged, read, slice) {
            let freshness = match read.freshness {
                Freshness::Strong => "strong",
                Freshness::Eventual => "eventual",
            };
            let expected = format!(
                "{freshness} read of {} from revision {}, {} at the most, head at {}, by {}: {expected}",
                read.stream,
                read.from,
                read.limit,
                At(slice.head),
                Who(call)
            );
            let at = call.ended.unwrap_or(judged.end);
            found.push(broken(Promise::Linearizable, at, expected, seen));
        }
    }
    found
}

/// What a read should show, and shows instead.
fn other_events(
    judged: &Judged<'_>,
    read: &ReadStream,
    slice: &StreamSlice,
) -> Option<(String, String)> {
    let fold = &judged.fold;
    let stream = fold.names.get(&read.stream).copied();
    if stream.is_some_and(|stream| !fold.streams[stream].orderly) {
        return None;
    }
    let count = slice.events.len() as u64;
    let limit = u64::from(read.limit);
    let behind = slice.head.map_or(0, |head| head.saturating_add(1));
    match read.freshness {
        Freshness::Strong => {
            let due = behind.saturating_sub(read.from).min(limit);
            if count != due {
                return Some((format!("{due} events"), format!("{count} events")));
            }
        }
        Freshness::Eventual => {
            if count > limit {
                return Some(("no more than the limit".to_owned(), format!("{count} events")));
            }
            let newest = stream.and_then(|stream| fold.head(stream));
            if slice.head > newest || (count > 0 && behind < read.from.saturating_add(count)) {
                let expected = format!("a head between the last event and {}", At(newest));
                return Some((expected, format!("{count} events, head at {}", At(slice.head))));
            }
        }
    }
    let mut placed = stream.map(|stream| fold.events(stream, read.from)).into_iter().flatten();
    for (revision, event) in (read.from..).zip(&slice.events) {
        let Some(due) = placed.next() else {
            let expected = format!("no event at {}", Revisions(revision, revision));
            return Some((
                expected,
                format!("event {:?} of append {:?}", event.event.id, event.append),
            ));
        };
        if !due.is(&read.stream, event) {
            return Some((
                format!(
                    "at {} event {:?} of append {:?}, time {}",
                    Revisions(due.revision, due.revision),
                    due.event.id,
                    due.append,
                    due.time
                ),
                format!(
                    "at {} event {:?} of append {:?}, time {}, of {}",
                    Revisions(event.revision, event.revision),
                    event.event.id,
                    event.append,
                    event.time,
                    event.stream
                ),
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use stormkeep_core::time::HybridTime;

    use super::super::testing::Case;
    use super::*;
    use Freshness::{Eventual, Strong};

    fn case() -> Case {
        let mut case = Case::new();
        case.commit("a-1", 1, 3, (10, 20));
        case.commit("a-1", 2, 2, (30, 40));
        case
    }

    fn bend(case: &mut Case, bend: impl Fn(&mut StreamSlice)) {
        for call in &mut case.evidence.history.calls {
            if let Exchange::Read(_, Some(Ok(slice))) = &mut call.what {
                bend(slice);
            }
        }
    }

    #[test]
    fn whole_parts_and_empty_reads_are_fine() {
        let mut case = case();
        for freshness in [Strong, Eventual] {
            case.read("a-1", freshness, 0, 100, Some(4), (50, 60));
            case.read("a-1", freshness, 1, 3, Some(4), (50, 60));
            case.read("a-1", freshness, 4, 3, Some(4), (50, 60));
            case.read("a-1", freshness, 9, 3, Some(4), (50, 60));
            case.read("a-1", freshness, 0, 0, Some(4), (50, 60));
            case.read("b-1", freshness, 0, 9, None, (50, 60));
        }
        case.read("a-1", Strong, 0, 100, Some(2), (35, 39));
        case.read("a-1", Eventual, 0, 100, Some(1), (70, 80));
        case.read("a-1", Eventual, 0, 100, None, (70, 80));
        assert_eq!(case.seen(check), "");
    }

    #[test]
    fn a_read_that_leaves_out_or_adds_events_is_found() {
        let mut strong = case();
        strong.read("a-1", Strong, 0, 100, Some(4), (50, 60));
        bend(&mut strong, |slice| drop(slice.events.pop()));
        assert!(strong.seen(check).contains("5 events / 4 events / 60"));

        for freshness in [Strong, Eventual] {
            let mut gap = case();
            gap.read("a-1", freshness, 0, 100, Some(4), (50, 60));
            gap.read("a-1", freshness, 1, 3, Some(4), (50, 60));
            bend(&mut gap, |slice| drop(slice.events.remove(1)));
            assert_eq!(gap.judge(check).len(), 2);

            let mut more = case();
            more.read("a-1", freshness, 0, 2, Some(4), (50, 60));
            more.read("b-1", freshness, 0, 2, None, (50, 60));
            bend(&mut more, |slice| {
                slice.events.extend(slice.events.last().cloned());
                slice.head = slice.head.max(Some(0));
            });
            assert!(!more.judge(check).is_empty());
        }
    }

    #[test]
    fn a_read_with_another_content_is_found() {
        let bends: [fn(&mut StreamSlice); 4] = [
            |slice| slice.events[1].time = HybridTime(1),
            |slice| slice.events[1].append = slice.events[4].append,
            |slice| slice.events[1].event = slice.events[0].event.clone(),
            |slice| slice.events.swap(1, 2),
        ];
        for (n, bent) in bends.into_iter().enumerate() {
            for freshness in [Strong, Eventual] {
                let mut case = case();
                case.read("a-1", freshness, 0, 100, Some(4), (50, 60));
                bend(&mut case, bent);
                assert!(case.seen(check).contains("at revision 1 event"), "{n}");
            }
        }
    }

    #[test]
    fn an_eventual_head_outside_of_the_stream_is_found() {
        for head in [None, Some(3), Some(5)] {
            let mut case = case();
            case.read("a-1", Eventual, 0, 100, Some(4), (50, 60));
            bend(&mut case, |slice| slice.head = head);
            assert!(case.seen(check).contains("a head between the last event and revision 4"));
        }
    }
}
