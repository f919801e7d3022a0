//! What clients asked and saw: all that the oracles know besides what the log and the store hold.

use stormkeep_core::{
    append::{
        AllSlice, Append, AppendError, Appended, LogSlice, ReadAll, ReadError, ReadLog, ReadStream,
        StreamSlice,
    },
    consume::{ConsumeError, Fetch, Fetched, Leave, Manage, ManageError, Managed, Settle, Settled},
    env::Progress,
    event::RecordedEvent,
    group::{GroupId, GroupNumber},
    shard::ShardId,
    stream::StreamName,
};

use crate::plan::Plan;

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
    /// Managing groups.
    Manage(Manage, Option<Result<Managed, ManageError>>),
    /// A fetch of a consumer.
    Fetch(Fetch, Option<Result<Fetched, ConsumeError>>),
    /// A consumer settles.
    Settle(Settle, Option<Result<Settled, ConsumeError>>),
    /// A consumer leaves.
    Leave(Leave, Option<Result<(), ConsumeError>>),
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
    /// What was handled for groups, in the order it was.
    pub handled: Vec<Handling>,
    /// What workers wrote down of their progress, in the order they asked the store for it.
    pub progress: Vec<Written>,
}

/// Somebody handled an event for a group, or decided to skip it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handling {
    /// When.
    pub at: Nanos,
    /// The group.
    pub group: GroupId,
    /// The event's stream.
    pub stream: StreamName,
    /// Its revision.
    pub revision: u64,
}

/// Somebody wrote down how far a shard is settled for a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// When it was asked for.
    pub at: Nanos,
    /// The shard.
    pub shard: ShardId,
    /// The group.
    pub group: GroupNumber,
    /// How far.
    pub progress: Progress,
}

/// Whether an event fails whoever handles it now: a part of them does, until a plan's time.
pub fn is_poison(plan: &Plan, now: Nanos, event: &RecordedEvent) -> bool {
    let Some(delivery) = &plan.delivery else { return false };
    let cured = delivery.cured_at_ms > 0 && now >= delivery.cured_at_ms * 1_000_000;
    !cured && (event.event.id.0 >> 1) % 1000 < u128::from(delivery.poison_per_mille)
}
