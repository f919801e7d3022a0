//! **Linearizable**, the other half: what a read shows is the stream.
//!
//! What is claimed of every read that was answered Ok, of the head and the first revision that it says the stream shows:
//! - a strong read shows the log's events between the two, from [`from`](stormkeep_core::append::ReadStream::from) on
//!   in its direction, as many as its limit allows, all of them and in every part the same;
//! - an eventual read shows a run of these from their beginning, without a gap;
//! - a read says where to go on, right behind the last event that it shows, unless nothing is there.
//!
//! Where a read stands in the order of the stream, and whether head and first revision are right, is for
//! [linearizable](super::linearizable).

use stormkeep_core::append::{Direction, Freshness, ReadStream, StreamSlice};

use super::{
    Promise, Violation, broken,
    fold::PlacedEvent,
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
                "{freshness} read of {} {:?} from revision {}, {} at the most, head at {}, shown from {}, by {}: {expected}",
                read.stream,
                read.direction,
                read.from,
                read.limit,
                At(slice.head),
                slice.first_shown,
                Who(call)
            );
            let at = call.ended.unwrap_or(judged.end);
            found.push(broken(Promise::Linearizable, at, expected, seen));
        }
    }
    found
}

/// The lowest and the highest revision that a read covers, as head and first revision have it.
fn covered(read: &ReadStream, slice: &StreamSlice) -> Option<(u64, u64)> {
    let (first, last) = (slice.first_shown, slice.head.filter(|_| slice.exists)?);
    let more = u64::from(read.limit).checked_sub(1)?;
    let (low, high) = match read.direction {
        Direction::Forwards => {
            let low = read.from.max(first);
            (low, low.saturating_add(more).min(last))
        }
        Direction::Backwards => {
            let high = read.from.min(last);
            (first.max(high.saturating_sub(more)), high)
        }
    };
    (low <= high).then_some((low, high))
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
    let covered = covered(read, slice);
    let mut due: Vec<PlacedEvent<'_>> = match (stream, covered) {
        (Some(stream), Some((low, high))) => {
            fold.events(stream, low).take_while(|e| e.revision <= high).collect()
        }
        _ => Vec::new(),
    };
    if read.direction == Direction::Backwards {
        due.reverse();
    }
    for (n, event) in slice.events.iter().enumerate() {
        let Some(due) = due.get(n) else {
            let expected = format!("no event at {}", Revisions(event.revision, event.revision));
            return Some((
                expected,
                format!("event {:?} of append {:?}", event.event.id, event.append),
            ));
        };
        if !due.is(&read.stream, event) {
            return Some((
                format!(
                    "at {} event {:?} of append {:?}, time {}, in shard {}",
                    Revisions(due.revision, due.revision),
                    due.event.id,
                    due.append,
                    due.time,
                    due.shard
                ),
                format!(
                    "at {} event {:?} of append {:?}, time {}, in shard {}, of {}",
                    Revisions(event.revision, event.revision),
                    event.event.id,
                    event.append,
                    event.time,
                    event.shard,
                    event.stream
                ),
            ));
        }
    }
    let count = slice.events.len() as u64;
    let whole = covered.map_or(0, |(low, high)| high - low + 1);
    if read.freshness == Freshness::Strong && count != whole {
        return Some((format!("{whole} events"), format!("{count} events")));
    }
    let last = slice.events.last().map(|event| event.revision);
    let next = last.and_then(|last| match read.direction {
        Direction::Forwards => slice.head.filter(|head| last < *head).map(|_| last + 1),
        Direction::Backwards => (last > slice.first_shown).then(|| last - 1),
    });
    (slice.next != next).then(|| (format!("to go on {}", Next(next)), Next(slice.next).to_string()))
}

/// Where to go on, in words.
struct Next(Option<u64>);

impl std::fmt::Display for Next {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(revision) => write!(f, "at revision {revision}"),
            None => f.write_str("nowhere"),
        }
    }
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
            assert_eq!(case.judge(check).len(), 1, "{head:?}");
        }
    }

    /// The events of these revisions, and where to go on.
    fn backwards(case: &mut Case, from: u64, limit: u32, revisions: &[u64], next: Option<u64>) {
        case.read("a-1", Strong, 0, 100, Some(4), (50, 60));
        let call = case.evidence.history.calls.last_mut();
        let Some(Exchange::Read(read, Some(Ok(slice)))) = call.map(|call| &mut call.what) else {
            panic!("a read was answered")
        };
        (read.from, read.limit, read.direction) = (from, limit, Direction::Backwards);
        let all = std::mem::take(&mut slice.events);
        slice.events = revisions.iter().map(|r| all[*r as usize].clone()).collect();
        slice.next = next;
    }

    #[test]
    fn reads_backwards_go_down_to_the_first_that_is_shown() {
        let mut case = case();
        backwards(&mut case, u64::MAX, 10, &[4, 3, 2, 1, 0], None);
        backwards(&mut case, 4, 2, &[4, 3], Some(2));
        backwards(&mut case, 2, 2, &[2, 1], Some(0));
        backwards(&mut case, 0, 2, &[0], None);
        backwards(&mut case, 3, 0, &[], None);
        assert_eq!(case.seen(check), "");
        bend(&mut case, |slice| slice.first_shown = 3);
        assert_eq!(case.judge(check).len(), 4, "all that show what is hidden");
        for (revisions, next) in [(&[4, 3][..], None), (&[3, 4], Some(2)), (&[4], Some(3))] {
            let mut case = self::case();
            backwards(&mut case, 9, 2, revisions, next);
            assert_eq!(case.judge(check).len(), 1, "{revisions:?}, {next:?}");
        }
    }

    #[test]
    fn hidden_events_are_not_shown() {
        let mut case = case();
        case.read("a-1", Strong, 3, 100, Some(4), (50, 60));
        case.read("a-1", Eventual, 3, 100, Some(4), (50, 60));
        for call in &mut case.evidence.history.calls {
            let Exchange::Read(read, Some(Ok(slice))) = &mut call.what else { continue };
            (read.from, slice.first_shown) = (0, 3);
        }
        assert_eq!(case.seen(check), "");
        bend(&mut case, |slice| slice.first_shown = 2);
        assert!(case.judge(check).len() == 2, "a run of events has its beginning");
        bend(&mut case, |slice| (slice.first_shown, slice.exists) = (5, false));
        assert_eq!(case.judge(check).len(), 2);
    }
}
