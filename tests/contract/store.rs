//! What the core needs of a store: see the contract at [`Store`].

pub(crate) mod documents;
pub(crate) mod epochs;
pub(crate) mod pages;
pub(crate) mod rows;

use std::collections::BTreeMap;

use bytes::Bytes;
use stormkeep_core::{
    append::{AppendId, Direction, Freshness},
    entry::{Batch, BatchedAppend},
    env::{Clock, Row, Store},
    event::{Event, EventId, Format, RecordedEvent},
    head::Head,
    shard::{Checkpoint, ShardId, fold::Fold},
    stream::StreamName,
    time::HybridTime,
};

use crate::family::{Family, Verdict, ensure, random, until_answered};

/// 2026-01-01 UTC, in microseconds.
const BEGAN_US: u64 = 1_767_225_600_000_000;

/// A shard that no other check has, with all of its bits in use.
fn a_shard<F: Family>(family: &F) -> ShardId {
    ShardId(family.clock().random() as u32 | 1 << 31)
}

/// A name that no other check has.
fn a_name<F: Family>(family: &F, kind: &str) -> StreamName {
    name(&format!("{kind}-{:032x}", random(family)))
}

fn name(name: &str) -> StreamName {
    StreamName::new(name).unwrap_or_else(|error| panic!("{name:?}: {error}"))
}

/// What is appended to one shard, and the rows that the core's own fold makes of it.
struct Past {
    shard: ShardId,
    fold: Fold,
    time: u64,
    batches: u64,
    next: BTreeMap<StreamName, u64>,
    events: Vec<RecordedEvent>,
    heads: BTreeMap<StreamName, Head>,
}

impl Past {
    fn new(shard: ShardId) -> Self {
        let (fold, next, events, heads) =
            (Fold::default(), BTreeMap::new(), Vec::new(), BTreeMap::new());
        Past { shard, fold, time: BEGAN_US, batches: 0, next, events, heads }
    }

    /// Time passes.
    fn wait_us(&mut self, microseconds: u64) {
        self.time += microseconds;
    }

    /// Appends `count` small events to a stream: the rows of the batch.
    fn append(&mut self, stream: &StreamName, count: u64) -> Vec<Row> {
        let events = (0..count).map(|n| {
            let data = format!("{{\"of\":{:?},\"number\":{n}}}", stream.as_str());
            event(self.time + n, "counted", Format::Json, data.into())
        });
        let events = events.collect();
        self.append_events(stream, events)
    }

    /// Appends events to a stream: the rows of the batch.
    fn append_events(&mut self, stream: &StreamName, events: Vec<Event>) -> Vec<Row> {
        let first = self.next.get(stream).copied().unwrap_or_default();
        let count = events.len() as u64;
        self.next.insert(stream.clone(), first + count);
        let id = AppendId(u128::from(self.time) << 64 | u128::from(self.shard.0));
        let append = BatchedAppend { stream: stream.clone(), id, first, events: events.into() };
        let batch = Batch {
            shard: self.shard,
            epoch: 1,
            index: self.batches,
            time: HybridTime(self.time),
            appends: vec![append],
        };
        self.batches += 1;
        self.time += count;
        let rows = self.fold.rows([&batch]).unwrap_or_else(|gap| panic!("{gap}"));
        for row in &rows {
            match row {
                Row::Event(event) => self.events.push(event.clone()),
                Row::Head(stream, head) => {
                    drop(self.heads.insert(stream.clone(), (**head).clone()))
                }
                Row::Checkpoint(..) | Row::Progress(..) | Row::Node(_) => {}
            }
        }
        rows
    }

    /// The time of its last event.
    fn closes(&self) -> HybridTime {
        HybridTime(self.time - 1)
    }

    /// How far its shard is folded, when all of its rows are written.
    fn checkpoint(&self) -> Row {
        let at = Checkpoint {
            accepted: self.batches + 1,
            epoch: 1,
            next: self.batches,
            closed: self.closes(),
            ..Checkpoint::default()
        };
        Row::Checkpoint(self.shard, at)
    }

    /// The events of a stream.
    fn of(&self, stream: &StreamName) -> Vec<RecordedEvent> {
        self.events.iter().filter(|e| e.stream == *stream).cloned().collect()
    }
}

/// An event whose id is of its time.
fn event(time: u64, kind: &str, format: Format, data: Bytes) -> Event {
    let metadata =
        if time.is_multiple_of(2) { Bytes::new() } else { Bytes::from_static(b"\0\xff") };
    let id = EventId(u128::from(time) << 64 | u128::from(u64::MAX));
    Event { id, kind: kind.into(), format, data, metadata }
}

/// Writes rows until it is confirmed.
async fn write<F: Family>(family: &F, rows: Vec<Row>) -> Verdict {
    until_answered(family, "write", || family.store().write(&rows)).await
}

/// The head of a stream, as a strong read sees it.
async fn head<F: Family>(family: &F, stream: &StreamName) -> Verdict<Option<Head>> {
    until_answered(family, "head", || family.store().head(stream, Freshness::Strong)).await
}

/// Events of a stream, as a strong read sees them.
async fn events<F: Family>(
    family: &F,
    stream: &StreamName,
    from: u64,
    limit: u32,
    direction: Direction,
) -> Verdict<Vec<RecordedEvent>> {
    until_answered(family, "events", || {
        family.store().events(stream, from, limit, direction, Freshness::Strong)
    })
    .await
}

/// Events of a shard between two times.
async fn shard_events<F: Family>(
    family: &F,
    shard: ShardId,
    times: (u64, u64),
    limit: u32,
    direction: Direction,
) -> Verdict<Vec<RecordedEvent>> {
    let times = (HybridTime(times.0), HybridTime(times.1));
    until_answered(family, "shard_events", || {
        family.store().shard_events(shard, times, limit, direction)
    })
    .await
}

/// All that a past has of a stream is read: its events in both tables, and its head.
async fn is_there<F: Family>(family: &F, past: &Past, stream: &StreamName) -> Verdict {
    let read = events(family, stream, 0, 10_000, Direction::Forwards).await?;
    same_events(&format!("stream {stream}"), &read, &past.of(stream))?;
    // A head may be as old as the checkpoint.
    let at = until_answered(family, "checkpoint", || family.store().checkpoint(past.shard)).await?;
    if at.closed < past.closes() {
        write(family, vec![past.checkpoint()]).await?;
    }
    let head = head(family, &stream.described()).await?;
    let expected = past.heads.get(&stream.described());
    ensure!(head.as_ref() == expected, "the head of {stream} is {head:?} instead of {expected:?}");
    let times = (BEGAN_US, past.time);
    let read = shard_events(family, past.shard, times, 10_000, Direction::Forwards).await?;
    same_events("the shard's events", &read, &past.events)
}

fn same_events(what: &str, read: &[RecordedEvent], expected: &[RecordedEvent]) -> Verdict {
    let at = read.iter().zip(expected).take_while(|(a, b)| a == b).count();
    let place =
        |events: &[RecordedEvent]| events.get(at).map(|e| (e.stream.clone(), e.revision, e.time));
    ensure!(
        read == expected,
        "{what}: {} events are read instead of {}; number {at} is {:?} instead of {:?}",
        read.len(),
        expected.len(),
        place(read),
        place(expected)
    );
    Ok(())
}
