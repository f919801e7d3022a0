//! Taking a shard: the end of its parents, compare-and-set of the epoch, fence, replay. When it is done, all that earlier owners
//! can ever have acknowledged lies before the fence and has been read.

use std::{collections::BTreeSet, future::Future, sync::Arc};

use tracing::{debug, info};

use crate::{
    config::Config,
    entry::{Batch, Entry, Fence},
    env::{
        Clock, Env, EpochRow, Log, NodeId, Position, PutError, Row, Store, StoreError, Swap, Token,
    },
    reader::LogReader,
    shard::{Checkpoint, ShardId, ShardInfo, sequencer::Sequencer},
    stats::{Counter, Stats},
    time::HybridTime,
    wait::{Backoff, may_linger},
};

/// A shard that was taken, ready to be served.
pub(crate) struct Taken<T> {
    pub(crate) row: EpochRow,
    pub(crate) sequencer: Sequencer<T>,
    /// The highest position known in the shard.
    pub(crate) last: Option<Position>,
}

/// Why a shard was not taken. Nothing is lost by it: whoever holds the higher epoch goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotTaken {
    #[error("another node was faster")]
    Lost,
    #[error("the shard is closed")]
    Closed,
    #[error("a parent of the shard is not folded to its end")]
    ParentsOpen,
    #[error("the log lost entries or holds a damaged one")]
    Damaged,
}

/// Who takes, and with what.
pub(crate) struct Takeover<'a, E: Env> {
    pub(crate) env: &'a Arc<E>,
    pub(crate) config: &'a Config,
    pub(crate) stats: &'a Arc<Stats>,
    pub(crate) me: (NodeId, Token),
}

impl<E: Env> Takeover<'_, E> {
    /// Takes a shard from the epoch row `seen`. `ancestors` are the listed shards that it came from.
    pub(crate) async fn take<T>(
        &self,
        shard: &ShardInfo,
        ancestors: &BTreeSet<ShardId>,
        seen: EpochRow,
    ) -> Result<Taken<T>, NotTaken> {
        let node = self.me.0;
        let closed = self.end(ancestors).await?;
        let row = EpochRow { shard: shard.id, epoch: seen.epoch + 1, owner: Some(self.me) };
        debug!(%node, shard = %shard.id, epoch = row.epoch, from = ?seen.owner, "taking");
        self.swap(seen, row).await?;
        let clock = self.env.clock();
        may_linger(clock, "takeover: before the fence", self.config.dead_after).await;
        let fence = self.fence(shard, row).await?;
        may_linger(clock, "takeover: before the replay", self.config.dead_after).await;
        let taken = self.replay(shard, row, closed, fence).await?;
        self.stats.count(Counter::Takeovers);
        info!(%node, shard = %shard.id, epoch = row.epoch, tail_bytes = taken.sequencer.held_bytes(), "took");
        Ok(taken)
    }

    /// Step 0: the streams of a child begin where its ancestors ended, in the store; and nobody answers for
    /// an ancestor any more. The owner of one may not know yet that it is closed: its epoch check would
    /// pass, and it would answer from a past that the child has gone beyond. All of them, and not the
    /// parents alone: a parent may have been closed before anybody took it. Returns the highest time that
    /// any of them closed at.
    async fn end(&self, ancestors: &BTreeSet<ShardId>) -> Result<HybridTime, NotTaken> {
        let mut closed = HybridTime::default();
        for ancestor in ancestors {
            let at = self.until_answered(|| self.env.store().checkpoint(*ancestor)).await;
            if !at.ended {
                return Err(NotTaken::ParentsOpen);
            }
            closed = closed.max(at.closed);
            self.disown(*ancestor).await;
        }
        Ok(closed)
    }

    /// Ends the epoch of a closed shard. A plain read would not do: what it sees at one replica, the next
    /// epoch check may not see at two others.
    async fn disown(&self, parent: ShardId) {
        let mut backoff = Backoff::new(self.config);
        loop {
            let row = self.until_answered(|| self.env.store().epoch_settled(parent)).await;
            if row.owner.is_none() {
                return;
            }
            let to = EpochRow { shard: parent, epoch: row.epoch + 1, owner: None };
            // Whatever this answers, the next look says what became of it.
            if self.env.store().swap_epoch(row, to).await == Ok(Swap::Done) {
                self.stats.count(Counter::ParentsDisowned);
                return;
            }
            backoff.pause(self.env.clock()).await;
        }
    }

    /// Lets a shard go that is served no more: the epoch stays, so that whoever is next takes it from there.
    /// A row that still named this node would keep the others waiting.
    pub(crate) async fn release(&self, row: EpochRow) {
        let to = EpochRow { owner: None, ..row };
        // Lost: it has happened, or somebody has taken the shard already.
        self.until_answered(|| self.env.store().swap_epoch(row, to)).await;
        self.stats.count(Counter::Releases);
    }

    /// Calls the store until it answers.
    async fn until_answered<R, F>(&self, call: impl Fn() -> F) -> R
    where
        F: Future<Output = Result<R, StoreError>>,
    {
        let mut backoff = Backoff::new(self.config);
        loop {
            match call().await {
                Ok(answer) => return answer,
                Err(_) => backoff.pause(self.env.clock()).await,
            }
        }
    }

    /// Step 1: from epoch e to e + 1, with this incarnation's token. A put of the fence may begin only
    /// when the swap is known to be done: an unknown outcome is settled first.
    async fn swap(&self, from: EpochRow, to: EpochRow) -> Result<(), NotTaken> {
        let mut backoff = Backoff::new(self.config);
        loop {
            match self.env.store().swap_epoch(from, to).await {
                Ok(Swap::Done) => return Ok(()),
                Ok(Swap::Lost(row)) if row == to => return Ok(()),
                Ok(Swap::Lost(_)) => return Err(self.lost(to)),
                Err(_) => {}
            }
            backoff.pause(self.env.clock()).await;
            let settled = self.until_answered(|| self.env.store().epoch_settled(from.shard)).await;
            self.stats.count(Counter::SwapsSettled);
            if settled == to {
                return Ok(());
            }
            if settled != from {
                return Err(self.lost(to));
            }
        }
    }

    /// Step 2: the fence, again and again until a put is confirmed. Every entry that an earlier owner
    /// may still acknowledge was confirmed before the swap, so it lies before this fence.
    async fn fence(&self, shard: &ShardInfo, row: EpochRow) -> Result<Position, NotTaken> {
        let bytes = Entry::Fence(Fence { shard: shard.id, epoch: row.epoch }).encode();
        let mut backoff = Backoff::new(self.config);
        loop {
            match self.env.log().put(shard, None, bytes.clone()).await {
                Ok(put) if put.shard == shard.id => return Ok(put.position),
                Ok(_) => {
                    self.stats.count(Counter::PutsMisplaced);
                    return Err(NotTaken::Closed);
                }
                Err(PutError::Refused(reason)) => {
                    debug!(node = %self.me.0, shard = %shard.id, epoch = row.epoch, reason, "fence refused");
                    return Err(NotTaken::Closed);
                }
                Err(PutError::Throttled) => self.stats.count(Counter::PutsThrottled),
                Err(PutError::Unknown) => self.stats.count(Counter::PutsUnknown),
            }
            backoff.pause(self.env.clock()).await;
            // Somebody may have taken the shard meanwhile: then this fence is of no use.
            if let Ok(now) = self.env.store().epoch(shard.id).await
                && now != row
            {
                return Err(self.lost(row));
            }
        }
    }

    /// Step 3: replay from the checkpoint to the own accepted fence.
    async fn replay<T>(
        &self,
        shard: &ShardInfo,
        row: EpochRow,
        closed: HybridTime,
        fence: Position,
    ) -> Result<Taken<T>, NotTaken> {
        let mut backoff = Backoff::new(self.config);
        let at = self.until_answered(|| self.env.store().checkpoint(shard.id)).await;
        let mut reader =
            LogReader::behind(self.env.clone(), self.stats.clone(), shard.id, at.clone());
        let mut tail: Vec<(u64, Batch)> = Vec::new();
        // The reader's checkpoint is behind whole pages; the sequencer begins right behind the fence.
        let mut behind = at.clone();
        loop {
            if behind.epoch > row.epoch {
                return Err(self.lost(row));
            }
            // The fence is in the checkpoint already: a fold was faster than this takeover.
            if behind.epoch == row.epoch {
                if tail.is_empty() && at.position.is_none() {
                    self.mark(shard.id, &behind).await;
                }
                let sequencer =
                    Sequencer::begin(self.config.bounds(), shard.id, &behind, &tail, closed);
                let last = behind.position.max(Some(fence));
                return Ok(Taken { row, sequencer, last });
            }
            let step = match reader.step().await {
                Ok(step) => step,
                Err(error) if !error.is_lasting() => {
                    backoff.pause(self.env.clock()).await;
                    continue;
                }
                Err(error) => {
                    // A fold may have gone on since the checkpoint was read, and the log dropped what it has folded.
                    let now = self.until_answered(|| self.env.store().checkpoint(shard.id)).await;
                    if reader.skip_to(&now) {
                        tail.clear();
                        behind = now;
                        continue;
                    }
                    tracing::error!(node = %self.me.0, shard = %shard.id, %error, "the log cannot be replayed");
                    return Err(NotTaken::Damaged);
                }
            };
            backoff.reset();
            for (at, entry) in step.accepted {
                if let Entry::Batch(batch) = entry {
                    tail.push((at.accepted, batch));
                }
                behind = at;
                if behind.epoch >= row.epoch {
                    break;
                }
            }
            if step.ended && behind.epoch < row.epoch {
                return Err(NotTaken::Closed);
            }
            if step.at_tip && behind.epoch < row.epoch {
                self.env.clock().sleep(self.config.poll).await;
            }
        }
    }

    /// The first owner of a shard leaves a checkpoint at its fence before it acknowledges anything: who reads from the oldest record
    /// on does not notice that the log has dropped some before it, and who reads behind a position does.
    async fn mark(&self, shard: ShardId, fence: &Checkpoint) {
        let row = [Row::Checkpoint(shard, fence.clone())];
        self.until_answered(|| self.env.store().write(&row)).await;
    }

    fn lost(&self, row: EpochRow) -> NotTaken {
        self.stats.count(Counter::TakeoversLost);
        debug!(node = %self.me.0, shard = %row.shard, epoch = row.epoch, "lost");
        NotTaken::Lost
    }
}
