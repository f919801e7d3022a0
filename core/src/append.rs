//! What a client asks: appends and reads, their answers and their errors.
//!
//! Every error is one of three [`Outcome`]s, and they never blur: *no* (it did not happen), *busy* (it
//! did not happen; try later), *unknown* (it may have happened: ask again with the same append id).

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    consume::{
        ConsumeError, Fetch, Fetched, Leave, Manage, ManageError, Managed, Settle, Settled,
        UnitInfo,
    },
    entry::append_bytes_max,
    env::NodeId,
    event::{Event, RecordedEvent},
    group::GroupId,
    limits::InvalidAppend,
    shard::{Checkpoint, ShardId},
    stream::StreamName,
    time::{GlobalPosition, HybridTime},
};

/// Names one append for ever, so that a retry of it is safe.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AppendId(pub u128);

impl fmt::Debug for AppendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// What an append demands of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expected {
    /// Nothing.
    Any,
    /// That it has no event yet.
    NoStream,
    /// That it has an event.
    StreamExists,
    /// That its last revision is exactly this.
    Exactly(u64),
}

/// Events for one stream, committed all or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append {
    /// The stream.
    pub stream: StreamName,
    /// What it demands of the stream.
    pub expected: Expected,
    /// Of an append to a metadata stream: what it demands of the stream that is described. So a deletion, which is
    /// written there, can be refused by the state of the stream itself.
    pub described: Expected,
    /// Its id: a retry keeps it.
    pub id: AppendId,
    /// The events, in order; shared, since a retry and its batch hold the same ones.
    pub events: Arc<[Event]>,
}

impl Append {
    /// Bytes that this append takes in a log entry at the most.
    pub fn encoded_bytes_max(&self) -> usize {
        append_bytes_max(&self.stream, &self.events)
    }
}

/// The answer to an append that is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    /// The shard that holds it: with `time` its global position.
    pub shard: ShardId,
    /// The shard whose owner answered: for the repeat of an append, perhaps a child of the one that
    /// holds it.
    pub answered_by: ShardId,
    /// The epoch of the owner that answered.
    pub epoch: u64,
    /// Revision of its first event.
    pub first: u64,
    /// Revision of its last event.
    pub last: u64,
    /// Time of its first event; each of the others has the next one.
    pub time: HybridTime,
    /// Whether this is the repeat of an append that was committed before.
    pub repeated: bool,
}

impl Appended {
    /// The position of its last event in the order of all events.
    pub fn position(&self) -> GlobalPosition {
        GlobalPosition::of(self.time.plus(self.last - self.first), self.shard)
    }
}

/// What an error says of the operation. It speaks of the attempt that it answers: an earlier attempt under
/// the same append id, of unknown outcome, may still have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It did not happen.
    No,
    /// It did not happen; try later.
    Busy,
    /// It may have happened; the same append id settles it.
    Unknown,
}

/// Why an append is not known to be committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum AppendError {
    /// *no*: it breaks a limit.
    #[error(transparent)]
    Invalid(#[from] InvalidAppend),
    /// *no*: the stream was not as expected.
    #[error("wrong expected revision: expected {expected:?}, the stream is at {actual:?}")]
    WrongExpectedRevision {
        /// What the append demanded.
        expected: Expected,
        /// The last revision of the stream that did not meet it; `None` if it has no event.
        actual: Option<u64>,
        /// Whether it was the demand on the stream that a metadata stream describes.
        described: bool,
    },
    /// *no*: the stream was ended for ever.
    #[error("the stream is deleted for ever: it has a tombstone; use another name")]
    Tombstoned,
    /// *no*: this node does not own the shard of the stream. A gateway follows the hint.
    #[error("not the owner of the shard; ask {hint:?}")]
    NotOwner {
        /// Who owns it, as far as this node knows.
        hint: Option<NodeId>,
    },
    /// *no*: no owner could be reached in time.
    #[error("no owner of the shard could be reached in time; nothing was written")]
    Unavailable,
    /// *busy*: the shard sheds load.
    #[error("the shard is busy; try again in {retry_after:?}")]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// *unknown*: it may have happened.
    #[error("the outcome is unknown: ask again with the same append id")]
    Unknown,
}

impl AppendError {
    /// What this error says of the append.
    pub fn outcome(&self) -> Outcome {
        match self {
            AppendError::Busy { .. } => Outcome::Busy,
            AppendError::Unknown => Outcome::Unknown,
            _ => Outcome::No,
        }
    }
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Freshness {
    /// Linearizable: it sees every append that was answered before it began.
    Strong,
    /// From the store, from any node: a past state of the stream.
    Eventual,
}

/// Which way a read goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// From older events to newer ones.
    Forwards,
    /// From newer events to older ones.
    Backwards,
}

/// A read of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadStream {
    /// The stream.
    pub stream: StreamName,
    /// Revision to begin at, which is read as well. Backwards: a revision beyond the last begins at the last.
    pub from: u64,
    /// Events at the most.
    pub limit: u32,
    /// Which way.
    pub direction: Direction,
    /// How fresh it must be.
    pub freshness: Freshness,
}

/// What a read of a stream saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSlice {
    /// The stream's last revision at the point of the read; `None` if it has no event.
    /// For an eventual read, the last revision that its node knew of.
    pub head: Option<u64>,
    /// Whether the stream is there: it has an event, and is not deleted.
    pub exists: bool,
    /// Whether it was ended for ever.
    pub tombstoned: bool,
    /// The first revision that the stream shows; events before it are hidden by its metadata.
    pub first_shown: u64,
    /// Events from [`ReadStream::from`] on, in the order of the read, without a gap but for hidden ones.
    pub events: Vec<RecordedEvent>,
    /// Where to go on, as [`ReadStream::from`]; `None`: this was the end. There may be more even if `events` is
    /// empty, since events may be hidden by their age.
    pub next: Option<u64>,
}

/// A read of the events of all shards, in their one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadAll {
    /// Forwards: the first position to read. Backwards: the first position *not* to read.
    pub from: GlobalPosition,
    /// Events at the most.
    pub limit: u32,
    /// Which way.
    pub direction: Direction,
    /// Strong: it waits, as long as its time allows, until it can show every append that this node answered
    /// before it began.
    pub freshness: Freshness,
}

/// What a read of all shards saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllSlice {
    /// Events in the order of the read.
    pub events: Vec<RecordedEvent>,
    /// Where to go on, as [`ReadAll::from`].
    pub next: GlobalPosition,
    /// All positions below this are final: no event will ever appear there that is not there now.
    pub watermark: GlobalPosition,
}

/// A catch-up read of one shard's log, as the accept rule has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadLog {
    /// The shard.
    pub shard: ShardId,
    /// Where the last read ended; [`Checkpoint::default`] for the beginning.
    pub after: Checkpoint,
}

/// What a catch-up read saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSlice {
    /// The events of accepted batches after [`ReadLog::after`], in the order of the log.
    pub events: Vec<RecordedEvent>,
    /// Where to go on.
    pub next: Checkpoint,
}

/// Why a read has no answer. A read changes nothing, so every one of these may be tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ReadError {
    /// This node does not own the shard of the stream. A gateway follows the hint.
    #[error("not the owner of the shard; ask {hint:?}")]
    NotOwner {
        /// Who owns it, as far as this node knows.
        hint: Option<NodeId>,
    },
    /// The owner or the store could not be reached in time.
    #[error("the owner or the store could not be reached in time")]
    Unavailable,
    /// The shard sheds load.
    #[error("busy; try again in {retry_after:?}")]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// The log no longer holds what comes after the position.
    #[error(
        "after: the log no longer holds what follows this position: read the streams instead, then begin at the end"
    )]
    Trimmed,
}

/// What one node may ask another, and a client a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Append events.
    Append(Append),
    /// Read a stream.
    ReadStream(ReadStream),
    /// Read all shards.
    ReadAll(ReadAll),
    /// Read a shard's log.
    ReadLog(ReadLog),
    /// Fetch events of a group.
    Fetch(Fetch),
    /// Settle events of a group.
    Settle(Settle),
    /// Leave a group.
    Leave(Leave),
    /// Manage groups.
    Manage(Manage),
    /// What is live in the units of a group that the peer works on.
    Units(GroupId),
}

/// The answer to a [`Request`], of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Of an append.
    Append(Result<Appended, AppendError>),
    /// Of a read of a stream.
    ReadStream(Result<StreamSlice, ReadError>),
    /// Of a read of all shards.
    ReadAll(Result<AllSlice, ReadError>),
    /// Of a read of a log.
    ReadLog(Result<LogSlice, ReadError>),
    /// Of a fetch.
    Fetch(Result<Fetched, ConsumeError>),
    /// Of settling.
    Settle(Result<Settled, ConsumeError>),
    /// Of leaving.
    Leave(Result<(), ConsumeError>),
    /// Of managing groups.
    Manage(Result<Managed, ManageError>),
    /// Of a look at units.
    Units(Vec<UnitInfo>),
}
