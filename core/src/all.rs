//! Reading all shards in their one order: by time, then by shard.
//!
//! The *watermark* is the lowest time that any open shard has closed, as the checkpoints in the store say. The events
//! up to a checkpoint are in the store before it is, and whoever owns the shard next starts above it; so everything
//! up to the watermark is in the store, and nothing will ever be added there. No reader passes it. It needs no
//! process to be alive or to tell the truth about itself.
//!
//! Shards that are closed and folded to their end hold it back no more; their children must be counted by then. So the shards
//! that do count must cover the whole key space: a listing that is out of date has a hole there.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    append::{AllSlice, Appended, Direction, Freshness, ReadAll, ReadError},
    ask::Ask,
    env::{Clock, Env, Store},
    event::RecordedEvent,
    gateway::Gateway,
    shard::{self, Checkpoint, HashRange, ShardId, ShardInfo},
    time::{GlobalPosition, HybridTime},
    wait::within,
};

/// How far all shards are folded.
struct Frontier {
    checkpoints: BTreeMap<ShardId, Checkpoint>,
    /// The time that each open shard has closed.
    open: BTreeMap<ShardId, HybridTime>,
}

impl Frontier {
    /// `None`: the listing of shards is older than the checkpoints.
    fn of(shards: &[ShardInfo], checkpoints: &BTreeMap<ShardId, Checkpoint>) -> Option<Self> {
        let closed = |id: ShardId| checkpoints.get(&id).map_or(HybridTime::default(), |c| c.closed);
        let counts: Vec<&ShardInfo> =
            shards.iter().filter(|s| checkpoints.get(&s.id).is_none_or(|c| !c.ended)).collect();
        if !cover_all(counts.iter().map(|s| s.range).collect()) {
            return None;
        }
        // A shard starts above all that it came from.
        let bound = |s: &ShardInfo| {
            let from = shard::ancestors(shards, s).into_iter().chain([s.id]);
            from.map(closed).max().unwrap_or_default()
        };
        let open = counts.into_iter().map(|s| (s.id, bound(s))).collect();
        Some(Frontier { checkpoints: checkpoints.clone(), open })
    }

    fn watermark(&self) -> HybridTime {
        self.open.values().min().copied().unwrap_or_default()
    }
}

/// Whether ranges, which may overlap, cover the whole key space.
fn cover_all(mut ranges: Vec<HashRange>) -> bool {
    ranges.sort_by_key(|r| r.start);
    let mut next = Some(0u128);
    for range in ranges {
        match next {
            Some(at) if range.start <= at => {
                next = range.end.checked_add(1).map(|behind| behind.max(at));
            }
            Some(_) => return false,
            None => return true,
        }
    }
    next.is_none()
}

impl<E: Env> Gateway<E> {
    /// Remembers how new an answer was, so that a read of all shards that follows can show it.
    pub(crate) fn answered(&self, appended: &Appended) {
        let last = appended.time.plus(appended.last - appended.first);
        let mut routes = self.routes();
        routes.newest = routes.newest.max(last);
    }

    pub(crate) async fn read_all(
        &self,
        read: ReadAll,
        timeout: Duration,
    ) -> Result<AllSlice, ReadError> {
        if read.limit == 0 {
            let watermark = GlobalPosition::behind(self.frontier().await?.watermark());
            return Ok(AllSlice { events: Vec::new(), next: read.from, watermark });
        }
        let newest = match read.freshness {
            Freshness::Strong => self.routes().newest,
            Freshness::Eventual => HybridTime::default(),
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
        loop {
            let changed = self.watchers.watch(None);
            let frontier = self.frontier().await?;
            let left = deadline.saturating_sub(clock.elapsed());
            if frontier.watermark() >= newest || left.is_zero() {
                return Ok(frontier);
            }
            for (shard, _) in frontier.open.iter().filter(|(_, closed)| **closed < newest) {
                if let Some(owner) = self.routes().here.get(shard) {
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
        let known = self.routes().shards.clone();
        if let Some(frontier) = Frontier::of(&known, &checkpoints) {
            return Ok(frontier);
        }
        self.refresh_shards().await;
        let shards = self.routes().shards.clone();
        Frontier::of(&shards, &checkpoints).ok_or(ReadError::Unavailable)
    }

    async fn merge(&self, read: ReadAll, frontier: &Frontier) -> Result<AllSlice, ReadError> {
        let last = frontier.watermark();
        let watermark = GlobalPosition::behind(last);
        let times = match read.direction {
            Direction::Forwards => (read.from.time(), last),
            Direction::Backwards => (HybridTime::default(), last.min(read.from.time())),
        };
        let wanted = |position: GlobalPosition| match read.direction {
            Direction::Forwards => position >= read.from,
            Direction::Backwards => position < read.from,
        };
        let mut events: Vec<RecordedEvent> = Vec::new();
        if times.0 <= times.1 {
            let within = |(_, checkpoint): &(&ShardId, &Checkpoint)| checkpoint.closed >= times.0;
            let shards: BTreeSet<ShardId> =
                frontier.checkpoints.iter().filter(within).map(|(id, _)| *id).collect();
            // One more: of each shard, one event may have the time of `from` and not be wanted.
            let limit = read.limit.saturating_add(1);
            let parts: Vec<Vec<RecordedEvent>> = stream::iter(shards)
                .map(|shard| self.env.store().shard_events(shard, times, limit, read.direction))
                .buffered(self.config.fold_concurrency)
                .try_collect()
                .await
                .map_err(|_| ReadError::Unavailable)?;
            events = parts.into_iter().flatten().filter(|e| wanted(e.position())).collect();
            events.sort_by_key(RecordedEvent::position);
            if read.direction == Direction::Backwards {
                events.reverse();
            }
        }
        let more = events.len() > read.limit as usize;
        events.truncate(read.limit as usize);
        let next = match (read.direction, events.last()) {
            (Direction::Forwards, Some(event)) if more => GlobalPosition(event.position().0 + 1),
            (Direction::Forwards, _) => watermark.max(read.from),
            (Direction::Backwards, Some(event)) if more => event.position(),
            (Direction::Backwards, _) => GlobalPosition::START,
        };
        Ok(AllSlice { events, next, watermark })
    }
}
