//! What clients asked and saw: all that the oracles know besides what the log and the store hold.

use stormkeep_core::append::{
    AllSlice, Append, AppendError, Appended, LogSlice, ReadAll, ReadError, ReadLog, ReadStream,
    StreamSlice,
};

/// Virtual nanoseconds since the start of a run.
pub type Nanos = u64;

/// One call of a client to a node. A retry is another call, with the same append id.
#[derive(Debug, Clone)]
pub struct Call {
    /// The client's number.
    pub client: u32,
    /// The node that was asked.
    pub node: u32,
    /// When it was asked.
    pub invoked: Nanos,
    /// How long the client waits for the answer.
    pub timeout: Nanos,
    /// When the answer came, or the client gave up; `None`: it has neither.
    pub ended: Option<Nanos>,
    /// What was asked and seen.
    pub what: Exchange,
}

/// A question and its answer; `None`: none came in time, so the outcome is unknown.
#[derive(Debug, Clone)]
pub enum Exchange {
    /// An append.
    Append(Append, Option<Result<Appended, AppendError>>),
    /// A read of a stream.
    Read(ReadStream, Option<Result<StreamSlice, ReadError>>),
    /// A catch-up read of a log. One client reads a shard from its beginning, each read going on where
    /// the last one ended.
    Follow(ReadLog, Option<Result<LogSlice, ReadError>>),
    /// A read of all shards.
    All(ReadAll, Option<Result<AllSlice, ReadError>>),
}

/// All calls of a run, in the order they were asked in.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The calls.
    pub calls: Vec<Call>,
    /// Each process of a node, and when it began: what it knew is gone with it.
    pub processes: Vec<(u32, Nanos)>,
}
