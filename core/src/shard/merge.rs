//! One slice of the order of all events, merged from what each shard has of it.

use crate::{
    append::{AllSlice, Direction, ReadAll},
    event::RecordedEvent,
    time::{GlobalPosition, HybridTime},
};

/// A read of all shards up to a watermark.
#[derive(Debug, Clone, Copy)]
pub struct Merge {
    read: ReadAll,
    last: HybridTime,
}

impl Merge {
    /// `last`: the [watermark](super::frontier::Frontier::watermark).
    pub fn new(read: ReadAll, last: HybridTime) -> Self {
        Merge { read, last }
    }

    /// The times to read of each shard, both included; `None`: there is nothing to read.
    pub fn times(&self) -> Option<(HybridTime, HybridTime)> {
        let from = self.read.from.time();
        let (low, high) = match self.read.direction {
            Direction::Forwards => (from, self.last),
            Direction::Backwards => (HybridTime::default(), self.last.min(from)),
        };
        (low <= high && self.read.limit > 0).then_some((low, high))
    }

    /// How many events to read of each shard. Of the two more than asked for, one may have the time of
    /// [`ReadAll::from`] and be on the other side of it, and one tells that there is more.
    pub fn limit(&self) -> u32 {
        self.read.limit.saturating_add(2)
    }

    /// The slice: `parts` is what each shard has, in the order of the read.
    pub fn slice(&self, parts: impl IntoIterator<Item = Vec<RecordedEvent>>) -> AllSlice {
        let ReadAll { from, limit, direction, .. } = self.read;
        let watermark = GlobalPosition::behind(self.last);
        if limit == 0 {
            return AllSlice { events: Vec::new(), next: from, watermark };
        }
        let wanted = |position: GlobalPosition| match direction {
            Direction::Forwards => position >= from && position < watermark,
            Direction::Backwards => position < from.min(watermark),
        };
        let mut events: Vec<RecordedEvent> =
            parts.into_iter().flatten().filter(|e| wanted(e.position())).collect();
        events.sort_by_key(RecordedEvent::position);
        if direction == Direction::Backwards {
            events.reverse();
        }
        let more = events.len() > limit as usize;
        events.truncate(limit as usize);
        let next = match (direction, events.last()) {
            (Direction::Forwards, Some(event)) if more => event.position().next(),
            (Direction::Forwards, _) => watermark.max(from),
            (Direction::Backwards, Some(event)) if more => event.position(),
            (Direction::Backwards, _) => GlobalPosition::START,
        };
        AllSlice { events, next, watermark }
    }
}
