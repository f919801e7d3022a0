//! The accept rule: which entries of a log count. Every reader applies it, so all agree, whatever
//! zombies and retries have put there.
//!
//! State `(epoch, next)`, at first `(0, 0)`. `Fence e` counts if `e > epoch`; then `epoch = e, next = 0`.
//! `Batch (e, i)` counts if `e == epoch` and `i == next`; then `next += 1`. All else is ignored, and
//! so is an entry that names another shard.

use crate::{
    entry::Entry,
    env::Position,
    shard::{Checkpoint, ShardId},
};

/// What the accept rule says of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Accepted,
    /// It does not count.
    Ignored(Ignored),
}

/// Why an entry does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// It was meant for another shard, and landed here after a split or merge.
    OtherShard,
    /// A fence of this epoch or a lower one: a retry, or the loser of a takeover.
    StaleFence,
    /// A batch of a lower epoch: its owner is a zombie.
    StaleBatch,
    /// A batch that was accepted before: a retry.
    Repeat,
}

/// The log cannot be what its owner wrote: an entry is missing. Outside of a log that lost entries
/// this cannot be, since an owner puts a batch only after the one before it is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "shard {shard}: entry (epoch {epoch}, index {index}) where (epoch {at_epoch}, index {at_index}) was next: the log lost entries"
)]
pub struct LogGap {
    /// The shard.
    pub shard: ShardId,
    /// The epoch found.
    pub epoch: u64,
    /// The index found.
    pub index: u64,
    /// The epoch that the fold is in.
    pub at_epoch: u64,
    /// The index that it expects next.
    pub at_index: u64,
}

/// The fold of one shard's log into what counts.
#[derive(Debug, Clone)]
pub struct Replay {
    shard: ShardId,
    at: Checkpoint,
}

impl Replay {
    /// Goes on from a checkpoint; [`Checkpoint::default`] is the beginning of the log.
    pub fn from(shard: ShardId, at: Checkpoint) -> Self {
        Replay { shard, at }
    }

    /// Where the fold is.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.at
    }

    /// Takes the next entry of the log.
    pub fn apply(&mut self, position: Position, entry: &Entry) -> Result<Verdict, LogGap> {
        debug_assert!(self.at.position.is_none_or(|p| p < position), "the log is read in order");
        let verdict = self.judge(entry)?;
        self.at.position = Some(position);
        if verdict == Verdict::Accepted {
            self.at.accepted += 1;
            match entry {
                Entry::Fence(fence) => {
                    self.at.epoch = fence.epoch;
                    self.at.next = 0;
                }
                Entry::Batch(batch) => {
                    self.at.next += 1;
                    self.at.closed = self.at.closed.max(batch.closes());
                }
            }
        }
        Ok(verdict)
    }

    /// Says that the shard is closed and has no further entry.
    pub fn end(&mut self) {
        self.at.ended = true;
    }

    fn judge(&self, entry: &Entry) -> Result<Verdict, LogGap> {
        if entry.shard() != self.shard {
            return Ok(Verdict::Ignored(Ignored::OtherShard));
        }
        Ok(match entry {
            Entry::Fence(fence) if fence.epoch > self.at.epoch => Verdict::Accepted,
            Entry::Fence(_) => Verdict::Ignored(Ignored::StaleFence),
            Entry::Batch(batch) if batch.epoch < self.at.epoch => {
                Verdict::Ignored(Ignored::StaleBatch)
            }
            Entry::Batch(batch) if batch.epoch > self.at.epoch || batch.index > self.at.next => {
                return Err(LogGap {
                    shard: self.shard,
                    epoch: batch.epoch,
                    index: batch.index,
                    at_epoch: self.at.epoch,
                    at_index: self.at.next,
                });
            }
            Entry::Batch(batch) if batch.index < self.at.next => Verdict::Ignored(Ignored::Repeat),
            Entry::Batch(_) => Verdict::Accepted,
        })
    }
}
