//! How the rows of a stream are read.

use std::collections::VecDeque;

use stormkeep_core::{
    append::Direction,
    event::RecordedEvent,
    head::{Head, Remembered},
    limits::REMEMBERED_APPENDS,
    stream::StreamName,
};

use super::{
    super::row::{
        EventRow, HeadRow, RowError, Way, damaged, decode, event_key, revision_of, stream_key,
    },
    DiskStore,
};

impl DiskStore {
    /// Events of a stream from a revision on; those that were read lately are not looked for again.
    pub(super) fn read_forwards(
        &self,
        stream: &StreamName,
        from: u64,
        limit: u32,
    ) -> Result<Vec<RecordedEvent>, RowError> {
        let mut events = self.cache.read(stream, from, from.saturating_add(limit.into()));
        let found = events.len();
        if found < limit as usize {
            let (from, left) = (from + found as u64, limit - found as u32);
            events.extend(self.read_rows(stream, (from, u64::MAX), left, Direction::Forwards)?);
            self.cache.keep(stream, &events[found..]);
        }
        Ok(events)
    }

    pub(super) fn read_rows(
        &self,
        stream: &StreamName,
        (low, high): (u64, u64),
        limit: u32,
        direction: Direction,
    ) -> Result<Vec<RecordedEvent>, RowError> {
        let range = self.streams.range(stream_key(stream, low)..=stream_key(stream, high));
        let rows: Box<dyn Iterator<Item = fjall::Guard>> = match direction {
            Direction::Forwards => Box::new(range),
            Direction::Backwards => Box::new(range.rev()),
        };
        let mut ways = Vec::new();
        for row in rows.take(limit as usize) {
            let (key, value) = row.into_inner()?;
            ways.push((revision_of(&key)?, Way::decode(&value)?));
        }
        if direction == Direction::Backwards {
            ways.reverse();
        }
        let mut events = self.events_at(stream, &ways)?;
        if direction == Direction::Backwards {
            events.reverse();
        }
        Ok(events)
    }

    /// The events of a stream that these ways, in order of revisions, lead to.
    pub(super) fn events_at(
        &self,
        stream: &StreamName,
        ways: &[(u64, Way)],
    ) -> Result<Vec<RecordedEvent>, RowError> {
        let mut events: Vec<RecordedEvent> = Vec::with_capacity(ways.len());
        let mut found = |revision, value: &[u8]| {
            let kind = events.last().map(|before| &before.event.kind);
            let event = decode::<EventRow>(value)?.event(stream, revision, kind)?;
            events.push(event);
            Ok::<_, RowError>(())
        };
        let missing = || damaged("an event is missing");
        // The events of one append lie side by side: one look finds all of them.
        let beside = |(_, one): &(u64, Way), (_, next): &(u64, Way)| {
            one.shard == next.shard && one.time.0.checked_add(1) == Some(next.time.0)
        };
        for run in ways.chunk_by(beside) {
            let [(revision, first), rest @ ..] = run else { continue };
            let Some((_, last)) = rest.last() else {
                let value = self.events.get(event_key(first.shard, first.time))?;
                found(*revision, &value.ok_or_else(missing)?)?;
                continue;
            };
            let (from, to) = (event_key(first.shard, first.time), event_key(last.shard, last.time));
            let mut rows = self.events.range(from..=to);
            for (revision, _) in run {
                found(*revision, &rows.next().ok_or_else(missing)?.value()?)?;
            }
        }
        Ok(events)
    }

    pub(super) fn read_head(&self, stream: &StreamName) -> Result<Option<Head>, RowError> {
        // In this order: up to checkpoints that were there before, a stream without a row of its head has only events.
        let written = self.written();
        let row = match self.heads.get(stream.as_str())? {
            Some(value) => decode::<HeadRow>(&value)?,
            None => HeadRow::default(),
        };
        if !row.is_needed() {
            // Nothing is ever removed, so a stream has its first row; a filter knows most that do not.
            if !self.streams.contains_key(stream_key(stream, 0))? {
                return Ok(None);
            }
            // Its rows are the head up to the checkpoint: behind it some may be missing between others.
            let vouched = |way: &Way| written.get(&way.shard).is_some_and(|c| way.time <= c.closed);
            let remembered = VecDeque::from(self.remembered(stream, u64::MAX, vouched)?);
            let head = |last: &Remembered| Head { revision: Some(last.last), ..Head::default() };
            return Ok(remembered.back().map(head).map(|head| Head { remembered, ..head }));
        }
        let HeadRow { revision, metadata, tombstoned, limits } = row;
        let mut remembered = Vec::new();
        for (stream, last) in [(stream.clone(), revision), (stream.metadata(), metadata)] {
            if let Some(last) = last {
                remembered.extend(self.remembered(&stream, last, |_| true)?);
            }
        }
        // Times grow, whichever of the two an append went to.
        remembered.sort_by_key(|r| r.time);
        let surplus = remembered.len().saturating_sub(REMEMBERED_APPENDS);
        let remembered = VecDeque::from(remembered.split_off(surplus));
        Ok(Some(Head { revision, metadata, tombstoned, limits, remembered }))
    }

    /// The last appends to a stream that `vouched` lets pass, oldest first, as its rows up to a revision say.
    fn remembered(
        &self,
        stream: &StreamName,
        last: u64,
        vouched: impl Fn(&Way) -> bool,
    ) -> Result<Vec<Remembered>, RowError> {
        let mut found: Vec<Remembered> = Vec::new();
        let metadata = stream.is_metadata();
        for row in self.streams.range(stream_key(stream, 0)..=stream_key(stream, last)).rev() {
            let (key, value) = row.into_inner()?;
            let (revision, way) = (revision_of(&key)?, Way::decode(&value)?);
            if !vouched(&way) {
                continue;
            }
            if let Some(append) = found.last_mut().filter(|append| append.id == way.append) {
                (append.first, append.time) = (revision, way.time);
                continue;
            }
            if found.len() == REMEMBERED_APPENDS {
                break;
            }
            let (id, shard, time) = (way.append, way.shard, way.time);
            found.push(Remembered { id, metadata, shard, first: revision, last: revision, time });
        }
        found.reverse();
        Ok(found)
    }
}
