//! Names of streams.

use std::{fmt, sync::Arc};

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

use crate::limits::STREAM_NAME_BYTES_MAX;

/// What the name of a metadata stream begins with; the rest names the stream that it describes.
const METADATA_PREFIX: &str = "$$";

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
    /// It names the metadata of a metadata stream, or of nothing.
    #[error(
        "stream: `$$` must be followed by the name of a stream that is no metadata stream itself"
    )]
    NoSuchMetadata,
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
        if let Some(described) = name.strip_prefix(METADATA_PREFIX)
            && (described.is_empty() || described.starts_with(METADATA_PREFIX))
        {
            return Err(InvalidStreamName::NoSuchMetadata);
        }
        Ok(StreamName(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the metadata stream of another one: `$$player-42` describes `player-42`.
    pub fn is_metadata(&self) -> bool {
        self.0.starts_with(METADATA_PREFIX)
    }

    /// The stream that a metadata stream describes; any other stream itself. Both live on one shard and have one
    /// [`Head`](crate::head::Head).
    pub fn described(&self) -> StreamName {
        match self.0.strip_prefix(METADATA_PREFIX) {
            Some(described) => StreamName(described.into()),
            None => self.clone(),
        }
    }

    /// The metadata stream of this one; itself, if it is one.
    pub fn metadata(&self) -> StreamName {
        if self.is_metadata() {
            return self.clone();
        }
        StreamName(format!("{METADATA_PREFIX}{}", self.0).into())
    }

    /// The part before the first `-`; the whole name if there is none.
    pub fn category(&self) -> &str {
        self.0.split_once('-').map_or(&self.0, |(category, _)| category)
    }

    /// The place of the stream in the 128-bit key space: the MD5 of its name, as Kinesis hashes a
    /// partition key. A metadata stream is where the stream is that it describes.
    pub fn key(&self) -> u128 {
        let name = self.0.strip_prefix(METADATA_PREFIX).unwrap_or(&self.0);
        u128::from_be_bytes(Md5::digest(name.as_bytes()).into())
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
