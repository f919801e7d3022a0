//! Events of streams that were read lately, as they are told: what is written never changes, so nothing here is ever out of
//! date.

use std::sync::Arc;

use quick_cache::{Weighter, sync::Cache};
use stormkeep_core::{event::RecordedEvent, stream::StreamName};

/// Revisions of a page.
const PAGE: u64 = 32;
/// Bytes that an event takes besides its own.
const EVENT_BYTES: u64 = 192;

/// A stream, and which of its pages.
type Key = (StreamName, u64);

/// Pages of streams. One holds the events from its first revision on, without a gap; not all of them yet, if its stream ended
/// there when it was read.
#[derive(Debug)]
pub(super) struct EventCache(Cache<Key, Arc<[RecordedEvent]>, Bytes>);

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<Key, Arc<[RecordedEvent]>> for Bytes {
    fn weight(&self, (stream, _): &Key, events: &Arc<[RecordedEvent]>) -> u64 {
        let bytes = |event: &RecordedEvent| event.event.bytes() as u64 + EVENT_BYTES;
        stream.as_str().len() as u64 + events.iter().map(bytes).sum::<u64>()
    }
}

impl EventCache {
    pub(super) fn new(bytes_max: u64) -> Self {
        let pages = bytes_max / (PAGE * EVENT_BYTES);
        EventCache(Cache::with_weighter(pages as usize, bytes_max, Bytes))
    }

    /// The events of a stream from one revision to before another, as far as they are here without a gap.
    pub(super) fn read(&self, stream: &StreamName, from: u64, until: u64) -> Vec<RecordedEvent> {
        let mut found = Vec::new();
        let mut next = from;
        while next < until {
            let (page, at) = (next / PAGE, (next % PAGE) as usize);
            let Some(events) = self.0.get(&(stream.clone(), page)) else { break };
            let end = events.len().min((until - page * PAGE).min(PAGE) as usize);
            let Some(events) = events.get(at..end).filter(|events| !events.is_empty()) else {
                break;
            };
            found.extend_from_slice(events);
            next += events.len() as u64;
        }
        found
    }

    /// Keeps events of a stream that were read one after the other.
    pub(super) fn keep(&self, stream: &StreamName, events: &[RecordedEvent]) {
        let gapless = |one: &RecordedEvent, next: &RecordedEvent| one.revision + 1 == next.revision;
        for run in events.chunk_by(gapless) {
            for events in run.chunk_by(|_, next| next.revision % PAGE != 0) {
                self.keep_of_page(stream, events);
            }
        }
    }

    fn keep_of_page(&self, stream: &StreamName, events: &[RecordedEvent]) {
        let Some(first) = events.first().map(|event| event.revision) else { return };
        let (key, at) = ((stream.clone(), first / PAGE), (first % PAGE) as usize);
        let before = (at > 0).then(|| self.0.get(&key)).flatten();
        // Unless what comes before it on its page is missing.
        if let Some(before) = before.as_deref().unwrap_or_default().get(..at) {
            self.0.insert(key, [before, events].concat().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stormkeep_core::{
        append::AppendId,
        event::{Event, EventId, Format},
        shard::ShardId,
        time::HybridTime,
    };

    use super::*;

    fn event(stream: &StreamName, revision: u64) -> RecordedEvent {
        let event = Event {
            id: EventId(revision.into()),
            kind: "tested".into(),
            format: Format::Bytes,
            data: vec![0; 100].into(),
            metadata: Default::default(),
        };
        let (shard, time) = (ShardId(0), HybridTime(revision));
        RecordedEvent { stream: stream.clone(), revision, shard, time, append: AppendId(0), event }
    }

    /// Bytes of a cache that keeps all of it.
    const LARGE: u64 = 100_000_000;

    #[derive(Debug, Clone)]
    enum Step {
        /// More is written.
        Write(u64),
        /// So many are read from a revision on.
        Read(u64, u64),
    }

    proptest! {
        #[test]
        fn what_is_here_is_what_was_kept(
            steps in proptest::collection::vec(
                prop_oneof![(0..70u64).prop_map(Step::Write), (0..300u64, 0..100u64).prop_map(|(a, b)| Step::Read(a, b))],
                1..60,
            ),
            bytes_max in prop_oneof![1_000..200_000u64, Just(LARGE)],
        ) {
            let stream = StreamName::new("player-1").unwrap();
            let cache = EventCache::new(bytes_max);
            let mut written = 0;
            for step in steps {
                match step {
                    Step::Write(more) => written += more,
                    Step::Read(from, count) => {
                        let until = (from + count).min(written);
                        let found = cache.read(&stream, from, until);
                        prop_assert!(found.len() as u64 <= until.saturating_sub(from));
                        let behind = from + found.len() as u64;
                        let rest: Vec<_> = (behind..until).map(|n| event(&stream, n)).collect();
                        cache.keep(&stream, &rest);
                        for (n, found) in (from..).zip(&found) {
                            prop_assert_eq!(found, &event(&stream, n));
                        }
                        if from == 0 && bytes_max == LARGE {
                            prop_assert_eq!(cache.read(&stream, 0, until).len() as u64, until);
                        }
                    }
                }
                prop_assert!(cache.0.weight() <= bytes_max);
            }
        }
    }

    #[test]
    fn a_cache_without_room_keeps_nothing() {
        let stream = StreamName::new("player-1").unwrap();
        let cache = EventCache::new(0);
        cache.keep(&stream, &[event(&stream, 0)]);
        assert_eq!(cache.read(&stream, 0, 1), []);
    }

    #[test]
    fn a_page_grows_with_its_stream_and_what_lies_behind_a_gap_is_not_told() {
        let stream = StreamName::new("player-1").unwrap();
        let cache = EventCache::new(1 << 20);
        let events: Vec<_> = (0..100).map(|n| event(&stream, n)).collect();
        cache.keep(&stream, &events[..20]);
        assert_eq!(cache.read(&stream, 3, 25), events[3..20]);
        cache.keep(&stream, &events[20..70]);
        assert_eq!(cache.read(&stream, 3, 100), events[3..70]);
        // Its page has 6 events before it that are not here.
        cache.keep(&stream, &events[76..]);
        assert_eq!(cache.read(&stream, 70, 100), []);
        assert_eq!(cache.read(&stream, 96, 100), events[96..]);
        assert_eq!(cache.read(&StreamName::new("player-2").unwrap(), 0, 1), []);
    }
}
