//! Events: what is appended, and what was recorded.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    append::AppendId,
    shard::ShardId,
    stream::StreamName,
    time::{GlobalPosition, HybridTime},
};

/// Names one event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventId(pub u128);

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// What the payload of an event is.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Format {
    /// Anything.
    #[default]
    Bytes,
    /// JSON, as its writer says; nobody has looked.
    Json,
}

/// One event of an append.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// Its type, `item-picked-up`.
    pub kind: Arc<str>,
    /// What its payload is.
    pub format: Format,
    /// Its payload.
    pub data: Bytes,
    /// What goes with the payload: correlation, causation.
    pub metadata: Bytes,
}

impl Event {
    /// Bytes of its type, payload and metadata.
    pub fn bytes(&self) -> usize {
        self.kind.len() + self.data.len() + self.metadata.len()
    }
}

/// An event in its place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecordedEvent {
    /// Its stream.
    pub stream: StreamName,
    /// Its place in the stream, from 0.
    pub revision: u64,
    /// The shard that holds it; with `time` its place in the order of all events.
    pub shard: ShardId,
    /// Its place in the order of all events of its shard.
    pub time: HybridTime,
    /// The append that brought it.
    pub append: AppendId,
    /// The event.
    pub event: Event,
}

impl RecordedEvent {
    /// Its place in the order of all events of all shards.
    pub fn position(&self) -> GlobalPosition {
        GlobalPosition::of(self.time, self.shard)
    }
}
