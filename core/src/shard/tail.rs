//! The tail: what is committed but not yet in the store. It is bounded by who fills it; here it is
//! only kept, read and cut.

use std::collections::VecDeque;

use crate::{entry::Batch, event::RecordedEvent, shard::by_name::ByName, stream::StreamName};

/// Committed batches that the store does not have yet, by batch and by stream.
#[derive(Debug, Default)]
pub struct Tail {
    /// `(accepted count at the batch, bytes, streams and how many events each got)`, oldest first.
    batches: VecDeque<Kept>,
    streams: ByName<VecDeque<RecordedEvent>>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    accepted: u64,
    bytes: usize,
    streams: Vec<(StreamName, usize)>,
}

impl Tail {
    /// Bytes that the kept batches take in the log, at the most.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Keeps a batch; `accepted` is the count of accepted entries up to and including it.
    pub fn push(&mut self, accepted: u64, batch: &Batch) {
        debug_assert!(self.batches.back().is_none_or(|k| k.accepted < accepted));
        let bytes = batch.encoded_bytes_max();
        let mut streams = Vec::with_capacity(batch.appends.len());
        for (time, append) in batch.timed() {
            let events = self.streams.get_or_insert(&append.stream);
            events.extend(append.recorded(batch.shard, time));
            streams.push((append.stream.clone(), append.events.len()));
        }
        self.bytes += bytes;
        self.batches.push_back(Kept { accepted, bytes, streams });
    }

    /// Drops the batches that the store has: those up to the accepted count `accepted`.
    pub fn cut(&mut self, accepted: u64) {
        while self.batches.front().is_some_and(|k| k.accepted <= accepted) {
            let Some(kept) = self.batches.pop_front() else { break };
            self.bytes -= kept.bytes;
            for (stream, count) in kept.streams {
                if let Some(events) = self.streams.get_mut(&stream) {
                    events.drain(..count.min(events.len()));
                    if events.is_empty() {
                        self.streams.remove(&stream);
                    }
                }
            }
        }
    }

    /// The events of a stream from revision `from` to `last`, as far as they are kept; the ones
    /// before the first kept are in the store.
    pub fn read(&self, stream: &StreamName, from: u64, last: u64) -> Vec<RecordedEvent> {
        let Some(events) = self.streams.get(stream) else { return Vec::new() };
        let begin = events.partition_point(|e| e.revision < from);
        events.range(begin..).take_while(|e| e.revision <= last).cloned().collect()
    }
}
