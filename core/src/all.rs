//! Reading all shards in their one order: by time, then by shard.
//!
//! How far that goes is decided by [`Frontier`], what a slice holds by [`Merge`]; here the store and the log are asked.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    append::{AllSlice, Appended, Freshness, ReadAll, ReadError},
    ask::Ask,
    env::{Clock, Env, Store},
    event::RecordedEvent,
    gateway::Gateway,
    shard::{frontier::Frontier, merge::Merge},
    stats::Counter,
    time::HybridTime,
    wait::{may_linger, within},
};

impl<E: Env> Gateway<E> {
    /// Remembers how new an answer was, so that a read of all shards that follows can show it.
    pub(crate) fn answered(&self, appended: &Appended) {
        let last = appended.position().time();
        let mut routes = self.routes();
        routes.newest = routes.newest.max(last);
    }

    pub(crate) async fn read_all(
        &self,
        read: ReadAll,
        timeout: Duration,
    ) -> Result<AllSlice, ReadError> {
        let newest = match read.freshness {
            Freshness::Strong if read.limit > 0 => self.routes().newest,
            _ => HybridTime::default(),
        };
        let answer = async {
            // Half of the time is for waiting, so that what can be shown is shown.
            let frontier = self.settled(newest, timeout / 2).await?;
            self.merge(read, &frontier).await
        };
        within(self.env.clock(), timeout, answer).await.unwrap_or(Err(ReadError::Unavailable))
    }

    /// Waits until the watermark has passed `newest`, but not longer than `wait`. Shards that lag behind it and are owned
    /// here are asked to close their time; the others close it when they have been idle for a while.
    async fn settled(&self, newest: HybridTime, wait: Duration) -> Result<Frontier, ReadError> {
        let clock = self.env.clock();
        let deadline = clock.elapsed() + wait;
        let mut waited = false;
        loop {
            let changed = self.watchers.watch(None);
            let frontier = self.frontier().await?;
            let left = deadline.saturating_sub(clock.elapsed());
            if frontier.watermark() >= newest || left.is_zero() {
                return Ok(frontier);
            }
            if !std::mem::replace(&mut waited, true) {
                self.stats.count(Counter::ReadsWaited);
            }
            for shard in frontier.lagging(newest) {
                if let Some(owner) = self.routes().here.get(&shard) {
                    // If its queue is full, it is not idle: its time moves on by itself.
                    let _ = owner.offer(Ask::Close(newest));
                }
            }
            within(clock, left.min(self.config.poll), changed).await;
        }
    }

    async fn frontier(&self) -> Result<Frontier, ReadError> {
        let checkpoints = self.env.store().checkpoints().await;
        let checkpoints = checkpoints.map_err(|_| ReadError::Unavailable)?.into_iter().collect();
        may_linger(self.env.clock(), "all: behind the checkpoints", self.config.poll).await;
        let known = self.routes().shards.clone();
        if let Some(frontier) = Frontier::of(&known, &checkpoints) {
            return Ok(frontier);
        }
        self.stats.count(Counter::ListingsOld);
        self.refresh_shards().await;
        let shards = self.routes().shards.clone();
        Frontier::of(&shards, &checkpoints).ok_or(ReadError::Unavailable)
    }

    async fn merge(&self, read: ReadAll, frontier: &Frontier) -> Result<AllSlice, ReadError> {
        let merge = Merge::new(read, frontier.watermark());
        let Some(times) = merge.times() else { return Ok(merge.slice([])) };
        may_linger(self.env.clock(), "all: before the events", self.config.poll).await;
        let parts: Vec<Vec<RecordedEvent>> = stream::iter(frontier.holders(times.0))
            .map(|shard| self.env.store().shard_events(shard, times, merge.limit(), read.direction))
            .buffered(self.config.fold_concurrency)
            .try_collect()
            .await
            .map_err(|_| ReadError::Unavailable)?;
        Ok(merge.slice(parts))
    }
}
