use std::{fmt, future::Future, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    append::{Direction, Freshness},
    env::NodeId,
    event::RecordedEvent,
    group::GroupNumber,
    head::Head,
    shard::{Checkpoint, ShardId},
    stream::StreamName,
    time::HybridTime,
};

/// Names one incarnation of a node: 128 random bits, drawn at its start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token(pub u128);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0 >> 96)
    }
}

/// Who sequences a shard. Written by compare-and-set alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EpochRow {
    /// The shard.
    pub shard: ShardId,
    /// Grows with every change of owner; 0: the shard never had one.
    pub epoch: u64,
    /// The owner, and its incarnation; `None`: it was released, or never taken.
    pub owner: Option<(NodeId, Token)>,
}

impl EpochRow {
    /// The row of a shard that never had an owner; what a read answers when there is no row.
    pub const fn vacant(shard: ShardId) -> Self {
        EpochRow { shard, epoch: 0, owner: None }
    }
}

/// How a compare-and-set ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// The row is as asked.
    Done,
    /// The row was not as expected; this is how it is.
    Lost(EpochRow),
}

/// Names a [`Document`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DocumentKey {
    /// All [groups](crate::group::Groups).
    Groups,
    /// Who delivers the events of a shard.
    Delivery(ShardId),
}

impl fmt::Display for DocumentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DocumentKey::Groups => f.write_str("groups"),
            DocumentKey::Delivery(shard) => write!(f, "delivery/{shard}"),
        }
    }
}

/// A small thing that many share and one changes at a time. Written by compare-and-set alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Its name.
    pub key: DocumentKey,
    /// Grows by one with every change; 0: it was never written.
    pub version: u64,
    /// What it says, in UTF-8.
    pub body: Bytes,
}

impl Document {
    /// A document that was never written; what a read answers when there is none.
    pub const fn blank(key: DocumentKey) -> Self {
        Document { key, version: 0, body: Bytes::new() }
    }

    /// The next version of it.
    pub fn next(&self, body: Bytes) -> Self {
        Document { key: self.key, version: self.version + 1, body }
    }
}

/// How a compare-and-set of a document ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewritten {
    /// The document is as asked.
    Done,
    /// It was not as expected; this is how it is.
    Lost(Document),
}

/// How far the events of a shard are settled for a group: whatever is below `next` was handled, skipped or parked,
/// whoever gave it.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Progress {
    /// The first time that may not be settled.
    pub next: HybridTime,
    /// Whether the shard is closed, and nothing of it is left.
    pub ended: bool,
}

/// What a process does, of which a [`NodeRow`] is the sign of life.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Role {
    /// It owns shards.
    #[default]
    Owns,
    /// It delivers events.
    Delivers,
}

/// A sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeRow {
    /// The node.
    pub node: NodeId,
    /// What this is a sign of. A process that does both gives two, under two tokens.
    pub role: Role,
    /// Its incarnation.
    pub token: Token,
    /// Grows with each sign of life.
    pub beat: u64,
    /// Whether it is leaving: it should be given no shard.
    pub draining: bool,
}

/// A row that is written with a logical timestamp: it is a function of the log (a [`NodeRow`]: of
/// its writer), so that it may be written twice, late, or by a zombie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// An event in its place.
    Event(RecordedEvent),
    /// The head of a stream and its metadata; the name is that of the stream.
    Head(StreamName, Arc<Head>),
    /// How far a shard is folded.
    Checkpoint(ShardId, Checkpoint),
    /// How far a shard is settled for a group.
    Progress(ShardId, GroupNumber, Progress),
    /// A sign of life. Its key is the node and the token: beats begin again with each incarnation.
    Node(NodeRow),
}

impl Row {
    /// The logical timestamp to write it at: of two writes of one row, the higher wins in every order.
    ///
    /// The revision for events, the count of events for heads, the count of accepted entries for checkpoints. Two
    /// checkpoints of the same count say the same but for ignored entries at the end, so either may
    /// win, as long as the row is written and compared whole (in Cassandra: one cell). The store then
    /// breaks the tie by the larger value, and an encoding that begins with `(ended, position)` keeps
    /// the further one.
    ///
    /// For progress the time itself: a position that anybody reached who began at a valid one is valid, since all below it
    /// was settled by somebody; so the highest may win, and one that holds a lease no more does no harm by it. Two of the
    /// same time differ by `ended`, and the larger value is the one that knows more.
    pub fn timestamp(&self) -> u64 {
        match self {
            Row::Event(event) => event.revision,
            Row::Head(_, head) => head.version(),
            Row::Checkpoint(_, checkpoint) => checkpoint.accepted,
            Row::Progress(_, _, progress) => progress.next.0,
            Row::Node(node) => node.beat,
        }
    }
}

/// Why the store gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// *no*: too few replicas are up; nothing was written.
    #[error("too few replicas of the store are up")]
    Unavailable,
    /// *busy*: the store sheds load; nothing was written.
    #[error("the store is overloaded")]
    Busy,
    /// *unknown*: no answer in time; a write may be there, and may yet appear.
    #[error("no answer from the store in time")]
    Unknown,
}

/// The queryable state: a fold of the logs; and who owns a shard, which is the one thing that is not.
///
/// What it must guarantee:
/// - a write that was confirmed is seen by every read (but an eventual one) that begins later,
///   unless a write of a higher logical timestamp took its place; a [`head`](Store::head) may wait for the checkpoint that covers it;
/// - a compare-and-set is linearizable with the other ones on its row and with
///   [`epoch_settled`](Store::epoch_settled), and a read of an epoch that begins after its success sees it;
/// - a compare-and-set that was answered *unknown* may still happen, once, at any later time, as long as
///   the row is as it expected; `epoch_settled` answers only after those that are half done are done
///   or undone. To ask for the identical swap again is safe.
pub trait Store: Send + Sync + 'static {
    /// The epoch row of a shard: the check behind every answer. In Cassandra a quorum read.
    fn epoch(&self, shard: ShardId) -> impl Future<Output = Result<EpochRow, StoreError>> + Send;

    /// The epoch rows of many shards, each as [`epoch`](Store::epoch) would answer, in their order.
    fn epochs(
        &self,
        shards: &[ShardId],
    ) -> impl Future<Output = Result<Vec<EpochRow>, StoreError>> + Send;

    /// The epoch row, after every half-done compare-and-set is done or undone. In Cassandra a read at `SERIAL`.
    fn epoch_settled(
        &self,
        shard: ShardId,
    ) -> impl Future<Output = Result<EpochRow, StoreError>> + Send;

    /// Compare-and-set of an epoch row.
    fn swap_epoch(
        &self,
        from: EpochRow,
        to: EpochRow,
    ) -> impl Future<Output = Result<Swap, StoreError>> + Send;

    /// Writes rows, each at its [`Row::timestamp`]. On an error any part of them may be written: write
    /// them again.
    fn write(&self, rows: &[Row]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The head of a stream and its metadata; `None` if it has neither. `stream` is no metadata stream. What was written
    /// behind the checkpoint of its shard may be missing from it.
    fn head(
        &self,
        stream: &StreamName,
        freshness: Freshness,
    ) -> impl Future<Output = Result<Option<Head>, StoreError>> + Send;

    /// The events of a stream from a revision on, this one included, in the order of the read, `limit` at
    /// the most.
    fn events(
        &self,
        stream: &StreamName,
        from: u64,
        limit: u32,
        direction: Direction,
        freshness: Freshness,
    ) -> impl Future<Output = Result<Vec<RecordedEvent>, StoreError>> + Send;

    /// The events of a shard between two times, both included, in the order of the read, `limit` at the most.
    fn shard_events(
        &self,
        shard: ShardId,
        times: (HybridTime, HybridTime),
        limit: u32,
        direction: Direction,
    ) -> impl Future<Output = Result<Vec<RecordedEvent>, StoreError>> + Send;

    /// How far each shard is folded that ever was, listed by the log or not.
    fn checkpoints(
        &self,
    ) -> impl Future<Output = Result<Vec<(ShardId, Checkpoint)>, StoreError>> + Send;

    /// How far a shard is folded.
    fn checkpoint(
        &self,
        shard: ShardId,
    ) -> impl Future<Output = Result<Checkpoint, StoreError>> + Send;

    /// Documents, in the order of their keys; a read that begins after a compare-and-set succeeded sees it. In Cassandra a
    /// quorum read.
    fn documents(
        &self,
        keys: &[DocumentKey],
    ) -> impl Future<Output = Result<Vec<Document>, StoreError>> + Send;

    /// Compare-and-set of a document: `to` is the [next](Document::next) version of `from`. One that was answered *unknown* is
    /// settled by asking the identical one again: if it is lost to itself, it is done.
    fn rewrite(
        &self,
        from: Document,
        to: Document,
    ) -> impl Future<Output = Result<Rewritten, StoreError>> + Send;

    /// How far a shard is settled for each group that has begun it.
    fn progress(
        &self,
        shard: ShardId,
    ) -> impl Future<Output = Result<Vec<(GroupNumber, Progress)>, StoreError>> + Send;

    /// All signs of life. An adapter may drop one that has not been written for an hour.
    fn nodes(&self) -> impl Future<Output = Result<Vec<NodeRow>, StoreError>> + Send;
}
