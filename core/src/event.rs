//! Events: what is appended, and what was recorded.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{append::AppendId, stream::StreamName, time::HybridTime};

/// Names one event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventId(pub u128);

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// One event of an append.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// Its type, `item-picked-up`.
    pub kind: Arc<str>,
    /// Its payload.
    pub data: Bytes,
    /// What goes with the payload: correlation, causation, content type.
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
    /// Its place in the order of all events of its shard.
    pub time: HybridTime,
    /// The append that brought it.
    pub append: AppendId,
    /// The event.
    pub event: Event,
}
