//! Builds evidence for the oracles' tests: a small cluster's past, correct unless a test bends it.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use stormkeep_core::{
    append::{
        AllSlice, Append, AppendError, AppendId, Appended, Direction, Expected, Freshness,
        LogSlice, ReadLog, ReadStream, StreamSlice,
    },
    entry::{Batch, BatchedAppend, Entry, Fence},
    env::{LogRecord, Position, Row},
    event::{Event, EventId, Format, RecordedEvent},
    shard::{Checkpoint, HashRange, ShardId, ShardInfo, fold::Fold, replay::Replay},
    stream::StreamName,
    time::{GlobalPosition, HybridTime},
};

use super::{Evidence, Judged, Oracle, Rest, Violation};
use crate::history::{Call, Exchange, Nanos};

/// An answer to an append; `None`: none came.
pub(super) type Answer = Option<Result<Appended, AppendError>>;

/// See the module's docs. One open shard, s0, in epoch 1.
pub(super) struct Case {
    pub(super) evidence: Evidence,
    time: u64,
}

impl Case {
    pub(super) fn new() -> Self {
        let rest =
            Rest { healed_at: 900_000, limit: 100_000, rested_at: Some(950_000), unwell: vec![] };
        let mut case = Case { evidence: Evidence { rest, ..Evidence::default() }, time: 1000 };
        case.shard(0, &[], HashRange { start: 0, end: u128::MAX });
        case.fence(0, 1);
        case
    }

    pub(super) fn shard(&mut self, id: u32, parents: &[u32], range: HashRange) {
        let parents: Vec<ShardId> = parents.iter().map(|p| ShardId(*p)).collect();
        for shard in &mut self.evidence.shards {
            shard.closed |= parents.contains(&shard.id);
        }
        let id = ShardId(id);
        self.evidence.shards.push(ShardInfo { id, range, parents, closed: false });
        self.evidence.logs.insert(id, Vec::new());
    }

    /// A case whose shard s0 was closed for s1, in epoch 1, of the same range.
    pub(super) fn move_on(&mut self) {
        self.shard(1, &[0], HashRange { start: 0, end: u128::MAX });
        self.fence(1, 1);
    }

    pub(super) fn put_bytes(&mut self, shard: u32, data: &[u8]) {
        let log = self.evidence.logs.entry(ShardId(shard)).or_default();
        // Positions need not follow one another closely.
        let position = Position::new(log.len() as u128 * 10 + 5);
        log.push(LogRecord { position, data: Bytes::copy_from_slice(data) });
    }

    pub(super) fn fence(&mut self, shard: u32, epoch: u64) {
        let fence = Fence { shard: ShardId(shard), epoch };
        self.put_bytes(shard, &Entry::Fence(fence).encode());
    }

    pub(super) fn put(&mut self, shard: u32, batch: &Batch) {
        self.put_bytes(shard, &Entry::Batch(batch.clone()).encode());
    }

    /// A batch of appends `(stream, id, first revision, events)`, with a time of its own.
    pub(super) fn batch_at(
        &mut self,
        shard: u32,
        epoch: u64,
        index: u64,
        appends: &[(&str, u128, u64, u64)],
    ) -> Batch {
        let appends = appends.iter().map(|(stream, id, first, count)| BatchedAppend {
            stream: name(stream),
            id: AppendId(*id),
            first: *first,
            events: events(*id, *count),
        });
        let time = HybridTime(self.time);
        let batch = Batch { shard: ShardId(shard), epoch, index, time, appends: appends.collect() };
        self.time += batch.event_count().max(1);
        batch
    }

    /// The next batch of the newest shard, in its epoch.
    pub(super) fn batch_of(&mut self, appends: &[(&str, u128, u64, u64)]) -> Batch {
        let shard = self.newest();
        let at = self.replayed(shard).0;
        self.batch_at(shard.0, at.epoch, at.next, appends)
    }

    /// Puts one append at the end of its stream, in a batch of its own in the newest shard, and returns
    /// the answer that its owner would give.
    pub(super) fn accept(&mut self, stream: &str, id: u128, count: u64) -> Appended {
        self.accept_of(stream, id, &events(id, count))
    }

    /// The same, of these events.
    pub(super) fn accept_of(
        &mut self,
        stream: &str,
        id: u128,
        events: &std::sync::Arc<[Event]>,
    ) -> Appended {
        let next = |b: &Batch| {
            b.appends.iter().filter(|a| a.stream.as_str() == stream).map(|a| a.last() + 1).max()
        };
        let logs: Vec<ShardId> = self.evidence.logs.keys().copied().collect();
        let first = logs.iter().flat_map(|s| self.replayed(*s).1).filter_map(|b| next(&b)).max();
        let (first, count) = (first.unwrap_or(0), events.len() as u64);
        let mut batch = self.batch_of(&[(stream, id, first, count)]);
        batch.appends[0].events = events.clone();
        let shard = self.newest();
        self.put(shard.0, &batch);
        let (epoch, time, last) = (batch.epoch, batch.time, first + count - 1);
        Appended { shard, answered_by: shard, epoch, first, last, time, repeated: false }
    }

    /// [`accept`](Case::accept), and a client that asked for it and was told.
    pub(super) fn commit(
        &mut self,
        stream: &str,
        id: u128,
        count: u64,
        at: (Nanos, Nanos),
    ) -> Appended {
        let appended = self.accept(stream, id, count);
        self.ask(stream, id, count, Expected::Any, at, Some(Ok(appended.clone())));
        appended
    }

    /// A call for an append; one without an answer has no end.
    pub(super) fn ask(
        &mut self,
        stream: &str,
        id: u128,
        count: u64,
        expected: Expected,
        (invoked, ended): (Nanos, Nanos),
        answer: Answer,
    ) {
        let (stream, id, events) = (name(stream), AppendId(id), events(id, count));
        let append = Append { stream, expected, described: Expected::Any, id, events };
        let ended = answer.is_some().then_some(ended);
        self.call(invoked, ended, Exchange::Append(append, answer));
    }

    /// A read of a stream: what the log's fold has up to `head`, of `limit` events from `from`.
    pub(super) fn read(
        &mut self,
        stream: &str,
        freshness: Freshness,
        from: u64,
        limit: u32,
        head: Option<u64>,
        (invoked, ended): (Nanos, Nanos),
    ) {
        let direction = Direction::Forwards;
        let read = ReadStream { stream: name(stream), from, limit, direction, freshness };
        let logs: Vec<ShardId> = self.evidence.logs.keys().copied().collect();
        let all = logs.iter().flat_map(|s| recorded(&self.replayed(*s).1)).filter(|e| {
            e.stream == read.stream && e.revision >= from && head.is_some_and(|h| e.revision <= h)
        });
        let events: Vec<RecordedEvent> = all.take(limit as usize).collect();
        let last = events.last().map(|e| e.revision);
        let next = last.filter(|last| Some(*last) < head).map(|last| last + 1);
        let exists = head.is_some();
        let slice = StreamSlice { head, exists, events, next, ..StreamSlice::default() };
        self.call(invoked, Some(ended), Exchange::Read(read, Some(Ok(slice))));
    }

    /// A catch-up read of a whole log.
    pub(super) fn follow(&mut self, shard: u32, (invoked, ended): (Nanos, Nanos)) {
        let (next, batches) = self.replayed(ShardId(shard));
        let read = ReadLog { shard: ShardId(shard), after: Checkpoint::default() };
        let slice = LogSlice { events: recorded(&batches), next };
        self.call(invoked, Some(ended), Exchange::Follow(read, Some(Ok(slice))));
    }

    /// A slice of all shards that shows the events of these times, in this order.
    pub(super) fn all_slice(
        &self,
        times: &[u64],
        next: GlobalPosition,
        watermark: GlobalPosition,
    ) -> AllSlice {
        let logs: Vec<ShardId> = self.evidence.logs.keys().copied().collect();
        let all: Vec<_> = logs.iter().flat_map(|s| recorded(&self.replayed(*s).1)).collect();
        let of = |time: &u64| all.iter().find(|e| e.time == HybridTime(*time)).cloned();
        AllSlice { events: times.iter().filter_map(of).collect(), next, watermark }
    }

    /// An append of one event that is accepted, and that a client waits for.
    pub(super) fn ask_at(&mut self, stream: &str, id: u128, at: (Nanos, Nanos)) {
        self.commit(stream, id, 1, at);
    }

    pub(super) fn call(&mut self, invoked: Nanos, ended: Option<Nanos>, what: Exchange) {
        self.evidence.history.calls.push(Call {
            client: 3,
            node: 1,
            invoked,
            timeout: 1000,
            ended,
            what,
        });
    }

    /// Folds all logs into the store, as the core does.
    pub(super) fn fold(&mut self) {
        let logs: Vec<ShardId> = self.evidence.logs.keys().copied().collect();
        let mut fold = Fold::default();
        for shard in logs {
            let (mut at, batches) = self.replayed(shard);
            at.ended = self.evidence.shards.iter().any(|s| s.id == shard && s.closed);
            for stream in fold.needs(&batches) {
                fold.load(stream, None);
            }
            let store = &mut self.evidence.store;
            for row in fold.rows(&batches).unwrap_or_default() {
                match row {
                    Row::Event(e) => {
                        store.ordered.insert((e.shard, e.time), e.clone());
                        store.events.insert((e.stream.clone(), e.revision), e);
                    }
                    Row::Head(stream, head) => {
                        drop(store.heads.insert(stream, Arc::unwrap_or_clone(head)))
                    }
                    Row::Checkpoint(..) | Row::Progress(..) | Row::Node(_) => {}
                }
            }
            store.checkpoints.insert(shard, at);
        }
    }

    /// What an oracle finds.
    pub(super) fn judge(&self, oracle: Oracle) -> Vec<Violation> {
        oracle(&Judged::new(&self.evidence))
    }

    /// What an oracle finds, as text. For a test to look into.
    pub(super) fn seen(&self, oracle: Oracle) -> String {
        let line = |v: Violation| format!("{} / {} / {}\n", v.expected, v.seen, v.at);
        self.judge(oracle).into_iter().map(line).collect()
    }

    fn newest(&self) -> ShardId {
        self.evidence.shards.last().map_or(ShardId(0), |s| s.id)
    }

    /// The core's fold of a shard's log, up to the first record that it cannot take.
    fn replayed(&self, shard: ShardId) -> (Checkpoint, Vec<Batch>) {
        let mut replay = Replay::from(shard, Checkpoint::default());
        let mut batches = Vec::new();
        for record in self.evidence.logs.get(&shard).into_iter().flatten() {
            let before = replay.checkpoint().accepted;
            let Ok(entry) = Entry::decode(&record.data) else { break };
            if replay.apply(record.position, &entry).is_err() {
                break;
            }
            if let Entry::Batch(batch) = entry
                && replay.checkpoint().accepted > before
            {
                batches.push(batch);
            }
        }
        (replay.checkpoint().clone(), batches)
    }
}

pub(super) fn name(stream: &str) -> StreamName {
    StreamName::try_from(std::sync::Arc::<str>::from(stream)).expect("a test's stream has a name")
}

/// The events that the append `id` asks for.
pub(super) fn events(id: u128, count: u64) -> std::sync::Arc<[Event]> {
    let event = |n: u64| Event {
        id: EventId(id << 16 | u128::from(n)),
        kind: "tested".into(),
        format: Format::Bytes,
        data: Bytes::from(format!("{id}/{n}")),
        metadata: Bytes::new(),
    };
    (0..count).map(event).collect()
}

/// The event of a metadata stream that says this of the stream that it describes.
pub(super) fn metadata(json: &str) -> std::sync::Arc<[Event]> {
    let mut said = events(1, 1).to_vec();
    said[0].kind = "$metadata".into();
    said[0].data = Bytes::from(json.to_owned());
    said.into()
}

fn recorded(batches: &[Batch]) -> Vec<RecordedEvent> {
    let events = |batch: &Batch| -> Vec<RecordedEvent> {
        batch.timed().flat_map(|(time, append)| append.recorded(batch.shard, time)).collect()
    };
    batches.iter().flat_map(events).collect()
}

/// The oracles that find something, by name; for tests of the whole.
pub(super) fn broken(evidence: &Evidence) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for violation in super::check(evidence) {
        *counts.entry(violation.promise.to_string()).or_default() += 1;
    }
    counts
}
