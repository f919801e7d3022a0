//! What the tests of the core have in common: strategies for the nouns, and a shard to put them in.

#![allow(clippy::unwrap_used)] // a test: what is wrong here must stop it
#![allow(dead_code)]

use std::sync::Arc;

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};
use stormkeep_core::{
    append::AppendId,
    entry::{Batch, BatchedAppend, Entry, Fence},
    event::{Event, EventId, Format},
    head::{METADATA, TOMBSTONE},
    shard::ShardId,
    stream::StreamName,
    time::HybridTime,
};

/// The shard that the tests are about.
pub(crate) const SHARD: ShardId = ShardId(7);

/// So many cases; a failure is told, not filed away.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

pub(crate) fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

/// An event of `bytes` bytes of payload.
pub(crate) fn event(id: u128, bytes: usize) -> Event {
    Event {
        id: EventId(id),
        kind: "k".into(),
        format: Format::Bytes,
        data: Bytes::from(vec![b'x'; bytes]),
        metadata: Bytes::new(),
    }
}

pub(crate) fn events(count: usize) -> Arc<[Event]> {
    (0..count).map(|n| event(n as u128, 4)).collect()
}

/// An event of a metadata stream that sets limits.
pub(crate) fn metadata(json: &str) -> Event {
    let data = Bytes::from(json.to_owned());
    Event { kind: METADATA.into(), format: Format::Json, data, ..event(77, 0) }
}

/// The event that ends a stream for ever.
pub(crate) fn tombstone() -> Event {
    Event { kind: TOMBSTONE.into(), ..event(78, 0) }
}

pub(crate) fn batched(name: &str, id: u128, first: u64, count: usize) -> BatchedAppend {
    BatchedAppend { stream: stream(name), id: AppendId(id), first, events: events(count) }
}

pub(crate) fn fence(epoch: u64) -> Entry {
    Entry::Fence(Fence { shard: SHARD, epoch })
}

pub(crate) fn batch(epoch: u64, index: u64, time: u64, appends: Vec<BatchedAppend>) -> Batch {
    Batch { shard: SHARD, epoch, index, time: HybridTime(time), appends }
}

/// Numbers of all sizes, the extremes among them.
pub(crate) fn any_u64() -> impl Strategy<Value = u64> {
    prop_oneof![0..300u64, any::<u64>(), Just(u64::MAX)]
}

fn any_u128() -> impl Strategy<Value = u128> {
    prop_oneof![0..300u128, any::<u128>(), Just(u128::MAX)]
}

fn any_event() -> impl Strategy<Value = Event> {
    let bytes = || vec(any::<u8>(), 0..200).prop_map(Bytes::from);
    let format = prop_oneof![Just(Format::Bytes), Just(Format::Json)];
    (any_u128(), ".{0,20}", format, bytes(), bytes()).prop_map(
        |(id, kind, format, data, metadata)| Event {
            id: EventId(id),
            kind: kind.into(),
            format,
            data,
            metadata,
        },
    )
}

fn any_batched() -> impl Strategy<Value = BatchedAppend> {
    let name = prop_oneof!["(\\$\\$)?[a-z]{1,8}-[0-9]{1,4}", "\\PC{1,40}"];
    (name, any_u128(), any_u64(), vec(any_event(), 1..6)).prop_map(|(name, id, first, events)| {
        BatchedAppend {
            stream: StreamName::new(name).unwrap_or_else(|_| stream("player-1")),
            id: AppendId(id),
            first,
            events: events.into(),
        }
    })
}

pub(crate) fn any_shard() -> impl Strategy<Value = ShardId> {
    prop_oneof![0..10u32, any::<u32>()].prop_map(ShardId)
}

pub(crate) fn any_batch() -> impl Strategy<Value = Batch> {
    (any_shard(), any_u64(), any_u64(), any_u64(), vec(any_batched(), 0..6)).prop_map(
        |(shard, epoch, index, time, appends)| Batch {
            shard,
            epoch,
            index,
            time: HybridTime(time),
            appends,
        },
    )
}

pub(crate) fn any_entry() -> impl Strategy<Value = Entry> {
    let any_fence = (any_shard(), any_u64()).prop_map(|(shard, epoch)| Fence { shard, epoch });
    prop_oneof![1 => any_fence.prop_map(Entry::Fence), 4 => any_batch().prop_map(Entry::Batch)]
}
