//! The rows of the store, as bytes: keys that sort as they are read, values with a checksum.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stormkeep_core::{
    append::AppendId,
    event::{Event, EventId, Format, RecordedEvent},
    group::GroupNumber,
    head::{Head, Limits},
    shard::ShardId,
    stream::StreamName,
    time::HybridTime,
};

/// The part of a head that is a row, of a stream that has metadata or was ended; what it remembers is found by its
/// streams' rows.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct HeadRow {
    pub(super) revision: Option<u64>,
    pub(super) metadata: Option<u64>,
    pub(super) tombstoned: bool,
    pub(super) limits: Limits,
}

impl HeadRow {
    /// The row of a head; `None`: its stream has only events, and their rows say it all.
    pub(super) fn of(head: &Head) -> Option<HeadRow> {
        let &Head { revision, metadata, tombstoned, limits, .. } = head;
        Some(HeadRow { revision, metadata, tombstoned, limits }).filter(HeadRow::is_needed)
    }

    /// Whether it says more than the rows of the events. The first format had a row of every stream.
    pub(super) fn is_needed(&self) -> bool {
        self.metadata.is_some() || self.tombstoned
    }

    pub(super) fn version(&self) -> u64 {
        let count = |revision: Option<u64>| revision.map_or(0, |r| r + 1);
        count(self.revision) + count(self.metadata)
    }
}

/// The row of a [`RecordedEvent`], where it lies: what many events have in common is not copied for each.
#[derive(Debug, Deserialize)]
pub(super) struct EventRow<'a> {
    stream: &'a str,
    revision: u64,
    shard: ShardId,
    time: HybridTime,
    append: AppendId,
    event: EventBody<'a>,
}

/// See [`Event`].
#[derive(Debug, Deserialize)]
struct EventBody<'a> {
    id: EventId,
    kind: &'a str,
    format: Format,
    data: &'a [u8],
    metadata: &'a [u8],
}

impl EventRow<'_> {
    /// The event, if it is this one of this stream. `kind` is the type of the event before, which it often has.
    pub(super) fn event(
        self,
        stream: &StreamName,
        revision: u64,
        kind: Option<&Arc<str>>,
    ) -> Result<RecordedEvent, RowError> {
        let EventRow { stream: found, revision: place, shard, time, append, event } = self;
        if found != stream.as_str() || place != revision {
            return Err(damaged("a row leads to another event"));
        }
        let kind = kind.filter(|kind| ***kind == *event.kind);
        let event = Event {
            id: event.id,
            kind: kind.map_or_else(|| event.kind.into(), Arc::clone),
            format: event.format,
            data: Bytes::copy_from_slice(event.data),
            metadata: Bytes::copy_from_slice(event.metadata),
        };
        Ok(RecordedEvent { stream: stream.clone(), revision, shard, time, append, event })
    }
}

/// Why a row cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowError {
    #[error(transparent)]
    Engine(#[from] fjall::Error),
    #[error("{0}")]
    Damaged(String),
}

pub(super) fn damaged(what: impl Into<String>) -> RowError {
    RowError::Damaged(what.into())
}

/// Where an event is, and the append that brought it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) shard: ShardId,
    pub(super) time: HybridTime,
    pub(super) append: AppendId,
}

impl Way {
    pub(super) fn to(event: &RecordedEvent) -> Way {
        Way { shard: event.shard, time: event.time, append: event.append }
    }

    pub(super) fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 + 4 + 8 + 16);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.shard.0.to_be_bytes());
        bytes.extend_from_slice(&self.time.0.to_be_bytes());
        bytes.extend_from_slice(&self.append.0.to_be_bytes());
        seal(bytes)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Way, RowError> {
        let body = opened(bytes)?;
        let wrong = || damaged("a row is too short");
        let (shard, rest) = body.split_first_chunk().ok_or_else(wrong)?;
        let (time, rest) = rest.split_first_chunk().ok_or_else(wrong)?;
        let append = rest.try_into().map_err(|_| wrong())?;
        Ok(Way {
            shard: ShardId(u32::from_be_bytes(*shard)),
            time: HybridTime(u64::from_be_bytes(*time)),
            append: AppendId(u128::from_be_bytes(append)),
        })
    }
}

/// `bytes`: about how many it takes.
pub(super) fn encode<T: Serialize>(value: &T, bytes: usize) -> Result<Vec<u8>, RowError> {
    let mut row = Vec::with_capacity(4 + bytes);
    row.extend_from_slice(&[0; 4]);
    let row = postcard::to_extend(value, row);
    row.map(seal).map_err(|error| damaged(error.to_string()))
}

pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, RowError> {
    postcard::from_bytes(opened(bytes)?).map_err(|error| damaged(error.to_string()))
}

/// Puts the checksum of what follows into the first four bytes.
pub(super) fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

pub(super) fn opened(bytes: &[u8]) -> Result<&[u8], RowError> {
    let (crc, body) = bytes.split_first_chunk().ok_or_else(|| damaged("a row is too short"))?;
    if u32::from_le_bytes(*crc) != crc32fast::hash(body) {
        return Err(damaged("the checksum of a row does not match"));
    }
    Ok(body)
}

pub(super) fn event_key(shard: ShardId, time: HybridTime) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&shard.0.to_be_bytes());
    key[4..].copy_from_slice(&time.0.to_be_bytes());
    key
}

pub(super) fn progress_key(shard: ShardId, group: GroupNumber) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&shard.0.to_be_bytes());
    key[4..].copy_from_slice(&group.0.to_be_bytes());
    key
}

/// Names have no control characters, so 0 ends one.
pub(super) fn stream_key(stream: &StreamName, revision: u64) -> Vec<u8> {
    let mut key = stream.as_str().as_bytes().to_vec();
    key.push(0);
    key.extend_from_slice(&revision.to_be_bytes());
    key
}

pub(super) fn revision_of(key: &[u8]) -> Result<u64, RowError> {
    let revision = key.last_chunk().ok_or_else(|| damaged("a key is too short"))?;
    Ok(u64::from_be_bytes(*revision))
}
