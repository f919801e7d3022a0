//! A stream and its metadata, as the reference knows them: every event of both, and nothing worked out before
//! it is asked for.

use stormkeep_core::{
    append::{Append, AppendId, Expected},
    entry::BatchedAppend,
    event::Event,
    limits::REMEMBERED_APPENDS,
    shard::sequencer::Shown,
    stream::StreamName,
    time::{HybridTime, WallTime},
};

#[derive(Debug, Clone)]
struct Known {
    metadata: bool,
    id: AppendId,
    first: u64,
    last: u64,
}

/// See the module's docs.
#[derive(Debug, Default)]
pub(super) struct Joint {
    appends: Vec<Known>,
    ended: bool,
    /// What the last metadata said, and how many events the stream had then.
    said: Option<(serde_json::Value, u64)>,
}

impl Joint {
    pub(super) fn is_empty(&self) -> bool {
        self.appends.is_empty()
    }

    /// How many events the stream of this name has.
    pub(super) fn count(&self, stream: &StreamName) -> u64 {
        let own = self.appends.iter().filter(|a| a.metadata == stream.is_metadata());
        own.map(|a| a.last + 1).max().unwrap_or(0)
    }

    pub(super) fn recent(&self, back: usize) -> Option<AppendId> {
        self.appends.iter().rev().nth(back).map(|a| a.id)
    }

    pub(super) fn recall(&self, stream: &StreamName, id: AppendId) -> Option<(u64, u64)> {
        let last = self.appends.iter().rev().take(REMEMBERED_APPENDS);
        let mut same = last.filter(|a| a.id == id && a.metadata == stream.is_metadata());
        same.next().map(|a| (a.first, a.last))
    }

    pub(super) fn has(&self, append: &BatchedAppend) -> bool {
        self.appends.iter().any(|a| {
            (a.metadata, a.id) == (append.stream.is_metadata(), append.id)
                && (a.first, a.last) == (append.first, append.last())
        })
    }

    pub(super) fn tombstoned(&self) -> bool {
        self.ended
    }

    pub(super) fn append(&mut self, append: &Append) -> (u64, u64) {
        self.push(&append.stream, append.id, &append.events)
    }

    pub(super) fn accept(&mut self, append: &BatchedAppend) {
        let (first, last) = self.push(&append.stream, append.id, &append.events);
        assert_eq!((first, last), (append.first, append.last()));
    }

    fn push(&mut self, stream: &StreamName, id: AppendId, events: &[Event]) -> (u64, u64) {
        let (metadata, first) = (stream.is_metadata(), self.count(stream));
        let last = first + events.len() as u64 - 1;
        self.appends.push(Known { metadata, id, first, last });
        let count = self.count(&stream.described());
        for event in events {
            match (&*event.kind, metadata) {
                ("$streamDeleted", false) => self.ended = true,
                ("$metadata", true) => {
                    let said = serde_json::from_slice(&event.data).unwrap_or_default();
                    self.said = Some((said, count));
                }
                _ => {}
            }
        }
        (first, last)
    }

    fn said(&self, name: &str) -> Option<u64> {
        self.said.as_ref().and_then(|(said, _)| said[name].as_u64())
    }

    /// Which of its events the stream shows, whatever their age.
    fn shows(&self, stream: &StreamName) -> std::ops::Range<u64> {
        let count = self.count(stream);
        if stream.is_metadata() {
            return 0..count;
        }
        let had = self.said.as_ref().map_or(0, |(_, had)| *had);
        let before = self.said("$tb").unwrap_or(0).min(had);
        let most = self.said("$maxCount").filter(|n| *n > 0).unwrap_or(count);
        before.max(count.saturating_sub(most))..count
    }

    pub(super) fn meets(&self, stream: &StreamName, expected: Expected) -> bool {
        let there = !self.shows(stream).is_empty();
        match expected {
            Expected::Any => true,
            Expected::NoStream => !there,
            Expected::StreamExists => there,
            Expected::Exactly(revision) => self.count(stream) == revision + 1,
        }
    }

    pub(super) fn shown(&self, stream: &StreamName, wall: WallTime) -> Shown {
        let shows = self.shows(stream);
        let described = !stream.is_metadata();
        let age = self.said("$maxAge").filter(|age| *age > 0 && described);
        Shown {
            head: self.count(stream).checked_sub(1),
            exists: !shows.is_empty(),
            tombstoned: self.ended && described,
            first: shows.start,
            oldest: HybridTime(age.map_or(0, |age| wall.0.saturating_sub(age * 1_000_000))),
        }
    }
}
