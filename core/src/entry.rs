//! Entries: the records of a shard's log, and their encoding.
//!
//! An encoded entry is a header of nine bytes (magic `SKE`, the format's version, the CRC-32 of the
//! body, a reserved byte that is 0) and a body: the [`Entry`] in postcard, whose wire format is published
//! and stable (<https://postcard.jamesmunns.com/wire-format>).

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    append::AppendId,
    event::{Event, RecordedEvent},
    limits::{APPEND_FRAME_BYTES_MAX, ENTRY_FRAME_BYTES_MAX, EVENT_FRAME_BYTES_MAX},
    shard::ShardId,
    stream::StreamName,
    time::HybridTime,
};

const MAGIC: [u8; 3] = *b"SKE";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 9;

/// One record of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// Begins an epoch: batches of lower epochs behind it are ignored.
    Fence(Fence),
    /// Appends that an owner decided.
    Batch(Batch),
}

/// See [`Entry::Fence`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The shard that it is meant for.
    pub shard: ShardId,
    /// The epoch that it begins.
    pub epoch: u64,
}

/// See [`Entry::Batch`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The shard that it is meant for.
    pub shard: ShardId,
    /// The epoch of the owner that decided it.
    pub epoch: u64,
    /// Its place in the epoch, from 0.
    pub index: u64,
    /// The time of its first event. A batch without events closes its shard's time at this.
    pub time: HybridTime,
    /// The appends, in the order they were decided in.
    pub appends: Vec<BatchedAppend>,
}

/// An append that its owner accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchedAppend {
    /// The stream.
    pub stream: StreamName,
    /// The append's id.
    pub id: AppendId,
    /// Revision of its first event.
    pub first: u64,
    /// Its events; never empty.
    pub events: Arc<[Event]>,
}

impl BatchedAppend {
    /// Revision of its last event.
    pub fn last(&self) -> u64 {
        self.first + self.events.len() as u64 - 1
    }

    /// Its events in their places; `time` is that of the first.
    pub fn recorded(
        &self,
        shard: ShardId,
        time: HybridTime,
    ) -> impl Iterator<Item = RecordedEvent> + '_ {
        (0..).zip(self.events.iter()).map(move |(n, event)| RecordedEvent {
            stream: self.stream.clone(),
            shard,
            revision: self.first + n,
            time: time.plus(n),
            append: self.id,
            event: event.clone(),
        })
    }
}

impl Batch {
    /// How many events it holds.
    pub fn event_count(&self) -> u64 {
        self.appends.iter().map(|a| a.events.len() as u64).sum()
    }

    /// The time of its last event: the shard's time is closed up to here.
    pub fn closes(&self) -> HybridTime {
        self.time.plus(self.event_count().max(1) - 1)
    }

    /// Its appends, each with the time of its first event.
    pub fn timed(&self) -> impl Iterator<Item = (HybridTime, &BatchedAppend)> {
        let mut time = self.time;
        self.appends.iter().map(move |append| {
            let first = time;
            time = time.plus(append.events.len() as u64);
            (first, append)
        })
    }

    /// Bytes that its encoding takes at the most.
    pub fn encoded_bytes_max(&self) -> usize {
        ENTRY_FRAME_BYTES_MAX
            + self.appends.iter().map(BatchedAppend::encoded_bytes_max).sum::<usize>()
    }
}

/// Bytes that an append takes in a log entry at the most.
pub(crate) fn append_bytes_max(stream: &StreamName, events: &[Event]) -> usize {
    APPEND_FRAME_BYTES_MAX
        + stream.as_str().len()
        + events.iter().map(|e| e.bytes() + EVENT_FRAME_BYTES_MAX).sum::<usize>()
}

impl BatchedAppend {
    /// Bytes that it takes in a log entry at the most.
    pub fn encoded_bytes_max(&self) -> usize {
        append_bytes_max(&self.stream, &self.events)
    }
}

/// Why bytes are no entry. A reader stops at such a record, loudly: to pass over it could lose what
/// was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEntry {
    /// The magic is missing: something else writes to this log.
    #[error("entry: not a Stormkeep entry ({bytes} bytes): is the log shared with another writer?")]
    Alien {
        /// Bytes of the record.
        bytes: usize,
    },
    /// It is of a format that this build does not know.
    #[error("entry: format version {version}; this build reads version {VERSION}: upgrade it")]
    Version {
        /// The version found.
        version: u8,
    },
    /// Its reserved byte is in use.
    #[error("entry: the reserved byte is {found}; this build knows 0 alone: the record is damaged")]
    Reserved {
        /// The byte found.
        found: u8,
    },
    /// Its checksum does not match its body.
    #[error("entry: checksum {found:08x}, the body has {computed:08x}: the record is damaged")]
    Checksum {
        /// The checksum found.
        found: u32,
        /// The checksum of the body.
        computed: u32,
    },
    /// Its body cannot be read although the checksum is right.
    #[error("entry: the body cannot be read: {reason}")]
    Body {
        /// What the decoder said.
        reason: String,
    },
}

impl Entry {
    /// The shard that it is meant for.
    pub fn shard(&self) -> ShardId {
        match self {
            Entry::Fence(fence) => fence.shard,
            Entry::Batch(batch) => batch.shard,
        }
    }

    /// Encodes it.
    pub fn encode(&self) -> Bytes {
        let capacity = match self {
            Entry::Fence(_) => ENTRY_FRAME_BYTES_MAX,
            Entry::Batch(batch) => batch.encoded_bytes_max(),
        };
        let mut header = Vec::with_capacity(capacity);
        header.extend_from_slice(&[MAGIC[0], MAGIC[1], MAGIC[2], VERSION, 0, 0, 0, 0, 0]);
        // Serialising plain data into memory has no failure: postcard's only error here is a
        // sequence of unknown length, which an entry does not have.
        #[allow(clippy::expect_used)]
        let mut bytes = postcard::to_extend(self, header).expect("an entry is plain data");
        let sum = crc32fast::hash(&bytes[HEADER_BYTES..]);
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
        Bytes::from(bytes)
    }

    /// Decodes it.
    pub fn decode(bytes: &[u8]) -> Result<Entry, InvalidEntry> {
        let alien = InvalidEntry::Alien { bytes: bytes.len() };
        let (header, body) = bytes.split_at_checked(HEADER_BYTES).ok_or(alien.clone())?;
        let [m0, m1, m2, version, s0, s1, s2, s3, reserved] = *header else { return Err(alien) };
        if [m0, m1, m2] != MAGIC {
            return Err(alien);
        }
        if version != VERSION {
            return Err(InvalidEntry::Version { version });
        }
        if reserved != 0 {
            return Err(InvalidEntry::Reserved { found: reserved });
        }
        let found = u32::from_le_bytes([s0, s1, s2, s3]);
        let computed = crc32fast::hash(body);
        if found != computed {
            return Err(InvalidEntry::Checksum { found, computed });
        }
        let invalid = |reason: String| InvalidEntry::Body { reason };
        let (entry, rest) =
            postcard::take_from_bytes::<Entry>(body).map_err(|e| invalid(e.to_string()))?;
        if !rest.is_empty() {
            return Err(invalid(format!("{} bytes too many", rest.len())));
        }
        if let Entry::Batch(batch) = &entry
            && batch.appends.iter().any(|a| a.events.is_empty())
        {
            return Err(invalid("an append without events".into()));
        }
        Ok(entry)
    }
}
