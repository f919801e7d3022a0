//! Streams: their names, and their heads (what an append is decided against).

use std::{collections::VecDeque, fmt, sync::Arc};

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

use crate::{
    append::{AppendId, Expected},
    limits::{REMEMBERED_APPENDS, STREAM_NAME_BYTES_MAX},
    shard::ShardId,
    time::HybridTime,
};

/// The name of a stream: 1 to [`STREAM_NAME_BYTES_MAX`] bytes of UTF-8 without control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Arc<str>", into = "Arc<str>")]
pub struct StreamName(Arc<str>);

/// Why a stream's name cannot be taken. Outcome: *no*.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidStreamName {
    /// It is empty.
    #[error("stream: the name is empty; give it at least one character")]
    Empty,
    /// It is longer than [`STREAM_NAME_BYTES_MAX`] bytes.
    #[error("stream: a name of {bytes} bytes; at most {STREAM_NAME_BYTES_MAX}")]
    TooLong {
        /// Bytes of the name.
        bytes: usize,
    },
    /// It has a control character.
    #[error("stream: control character U+{:04X} at byte {at}; use printable characters", *.character as u32)]
    NotPrintable {
        /// Byte offset of the character.
        at: usize,
        /// The character.
        character: char,
    },
}

impl StreamName {
    /// Checks and takes a name.
    pub fn new(name: impl Into<Arc<str>>) -> Result<Self, InvalidStreamName> {
        let name = name.into();
        if name.is_empty() {
            return Err(InvalidStreamName::Empty);
        }
        if name.len() > STREAM_NAME_BYTES_MAX {
            return Err(InvalidStreamName::TooLong { bytes: name.len() });
        }
        if let Some((at, character)) = name.char_indices().find(|(_, c)| c.is_control()) {
            return Err(InvalidStreamName::NotPrintable { at, character });
        }
        Ok(StreamName(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the first `-`; the whole name if there is none.
    pub fn category(&self) -> &str {
        self.0.split_once('-').map_or(&self.0, |(category, _)| category)
    }

    /// The place of the stream in the 128-bit key space: the MD5 of its name, as Kinesis hashes a
    /// partition key.
    pub fn key(&self) -> u128 {
        u128::from_be_bytes(Md5::digest(self.0.as_bytes()).into())
    }
}

impl TryFrom<Arc<str>> for StreamName {
    type Error = InvalidStreamName;
    fn try_from(name: Arc<str>) -> Result<Self, Self::Error> {
        StreamName::new(name)
    }
}

impl From<StreamName> for Arc<str> {
    fn from(name: StreamName) -> Self {
        name.0
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An append that a head remembers, so that its repeat answers as the first time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Remembered {
    /// The append.
    pub id: AppendId,
    /// The shard that holds it: not the stream's shard of today, if that was split or merged since.
    pub shard: ShardId,
    /// Revision of its first event.
    pub first: u64,
    /// Revision of its last event.
    pub last: u64,
    /// Time of its first event.
    pub time: HybridTime,
}

/// The head of a stream that has events: its last revision, and its last
/// [`REMEMBERED_APPENDS`] appends, oldest first.
///
/// A head is a function of its stream's log alone: whoever folds the same appends has the same head.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Head {
    /// Revision of the last event.
    pub revision: u64,
    /// The last appends, oldest first.
    pub remembered: VecDeque<Remembered>,
}

impl Head {
    /// The head after one more append; `head` is `None` for a stream that has no event.
    pub fn extend(head: Option<Head>, append: Remembered) -> Head {
        let mut head = head.unwrap_or(Head { revision: 0, remembered: VecDeque::new() });
        head.revision = append.last;
        if head.remembered.len() == REMEMBERED_APPENDS {
            head.remembered.pop_front();
        }
        head.remembered.push_back(append);
        head
    }

    /// The append that this head remembers under `id`.
    pub fn recall(&self, id: AppendId) -> Option<&Remembered> {
        self.remembered.iter().rev().find(|r| r.id == id)
    }

    /// Completes what a log's tail says of a stream with what the store says of it.
    ///
    /// Both are heads of the same stream at some revision, so the newer one wins, and the older one
    /// only lends the appends that the newer one has not seen. The tail's part may know fewer appends
    /// than a head remembers, since it begins where the checkpoint ends.
    pub fn merge(tail: Head, stored: Option<Head>) -> Head {
        let Some(stored) = stored else { return tail };
        if stored.revision >= tail.revision {
            return stored;
        }
        let first = tail.remembered.front().map_or(u64::MAX, |r| r.first);
        let mut remembered: VecDeque<_> =
            stored.remembered.into_iter().filter(|r| r.last < first).collect();
        remembered.extend(tail.remembered);
        while remembered.len() > REMEMBERED_APPENDS {
            remembered.pop_front();
        }
        Head { revision: tail.revision, remembered }
    }

    /// Whether `expected` holds for a stream with this head (`None`: no event yet).
    pub fn meets(head: Option<&Head>, expected: Expected) -> bool {
        match expected {
            Expected::Any => true,
            Expected::NoStream => head.is_none(),
            Expected::StreamExists => head.is_some(),
            Expected::Exactly(revision) => head.is_some_and(|h| h.revision == revision),
        }
    }
}
