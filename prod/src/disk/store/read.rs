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
    pub(super) fn read_events(
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
        let Some(value) = self.heads.get(stream.as_str())? else { return Ok(None) };
        let row: HeadRow = decode(&value)?;
        let mut remembered = self.remembered(stream, row.revision)?;
        remembered.extend(self.remembered(&stream.metadata(), row.metadata)?);
        // Times grow, whichever of the two an append went to.
        remembered.sort_by_key(|r| r.time);
        let surplus = remembered.len().saturating_sub(REMEMBERED_APPENDS);
        let remembered = VecDeque::from(remembered.split_off(surplus));
        let HeadRow { revision, metadata, tombstoned, limits } = row;
        Ok(Some(Head { revision, metadata, tombstoned, limits, remembered }))
    }

    /// The last appends to a stream, as its rows say.
    fn remembered(
        &self,
        stream: &StreamName,
        last: Option<u64>,
    ) -> Result<Vec<Remembered>, RowError> {
        let Some(last) = last else { return Ok(Vec::new()) };
        let mut found: Vec<Remembered> = Vec::new();
        let metadata = stream.is_metadata();
        for row in self.streams.range(stream_key(stream, 0)..=stream_key(stream, last)).rev() {
            let (key, value) = row.into_inner()?;
            let (revision, way) = (revision_of(&key)?, Way::decode(&value)?);
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
        Ok(found)
    }
}
