//! What an append may be at the most. Every limit has its own error in [`InvalidAppend`].

use crate::append::Append;

/// Bytes of one log entry at the most: the default record limit of Kinesis (1 MiB), less 1 KiB for
/// its partition key.
///
/// Source: Kinesis Data Streams developer guide, "Quotas and limits": a record of up to 1 MiB before
/// base64, the partition key included.
pub const ENTRY_BYTES_MAX: usize = 1024 * 1024 - 1024;

/// Bytes of framing that an entry may add around its appends at the most: header, shard, epoch,
/// index, time, and the count of appends.
pub const ENTRY_FRAME_BYTES_MAX: usize = 64;

/// Bytes of framing of one append within an entry at the most, its name and events apart.
pub const APPEND_FRAME_BYTES_MAX: usize = 64;

/// Bytes of framing of one event within an append at the most, its type, data and metadata apart.
pub const EVENT_FRAME_BYTES_MAX: usize = 48;

/// Bytes of one event (type, data and metadata) at the most: what fits in an entry of its own.
pub const EVENT_BYTES_MAX: usize = ENTRY_BYTES_MAX
    - ENTRY_FRAME_BYTES_MAX
    - APPEND_FRAME_BYTES_MAX
    - EVENT_FRAME_BYTES_MAX
    - STREAM_NAME_BYTES_MAX;

/// Bytes of a stream's name at the most.
pub const STREAM_NAME_BYTES_MAX: usize = 1024;

/// Events of one append at the most.
pub const EVENTS_PER_APPEND_MAX: usize = 4096;

/// Appends that the head of a stream remembers: a repeat of one of these answers as the first time.
pub const REMEMBERED_APPENDS: usize = 32;

/// Why an append cannot be taken, whatever the state of its stream. Outcome: *no*.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub enum InvalidAppend {
    /// It has no event.
    #[error("events: an append needs at least one event")]
    NoEvents,
    /// It has more than [`EVENTS_PER_APPEND_MAX`] events.
    #[error("events: {count} events in one append; at most {EVENTS_PER_APPEND_MAX}: split it")]
    TooManyEvents {
        /// Events in the append.
        count: usize,
    },
    /// One event is larger than [`EVENT_BYTES_MAX`].
    #[error(
        "events[{index}]: {bytes} bytes of type, data and metadata; at most {EVENT_BYTES_MAX}: store the payload elsewhere and append a reference"
    )]
    EventTooLarge {
        /// Which event of the append, from 0.
        index: usize,
        /// Bytes of its type, data and metadata.
        bytes: usize,
    },
    /// Its events are each small enough, but do not fit in one log entry together.
    #[error(
        "events: {bytes} bytes in one append; at most {ENTRY_BYTES_MAX} with framing: split it"
    )]
    AppendTooLarge {
        /// Bytes of its entry at the most.
        bytes: usize,
    },
}

/// Checks an append against every limit that does not depend on state.
pub fn check(append: &Append) -> Result<(), InvalidAppend> {
    if append.events.is_empty() {
        return Err(InvalidAppend::NoEvents);
    }
    if append.events.len() > EVENTS_PER_APPEND_MAX {
        return Err(InvalidAppend::TooManyEvents { count: append.events.len() });
    }
    for (index, event) in append.events.iter().enumerate() {
        let bytes = event.bytes();
        if bytes > EVENT_BYTES_MAX {
            return Err(InvalidAppend::EventTooLarge { index, bytes });
        }
    }
    let bytes = append.encoded_bytes_max() + ENTRY_FRAME_BYTES_MAX;
    if bytes > ENTRY_BYTES_MAX {
        return Err(InvalidAppend::AppendTooLarge { bytes });
    }
    Ok(())
}
