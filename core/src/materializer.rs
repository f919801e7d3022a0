//! The worker's job that folds a shard's log into the store: rows first, then the checkpoint.
//!
//! It may run twice at once, be late, or be a zombie: see [`fold`](crate::shard::fold). It never gives
//! up and never passes over a record: what it cannot fold, it tries again, loudly, while the tail fills
//! and the owner sheds load.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{
    StreamExt,
    stream::{self, FuturesUnordered},
};
use tracing::{debug, error, info};

use crate::{
    append::Freshness,
    config::Config,
    congestion::Allowance,
    entry::{Batch, Entry},
    env::{Clock, Env, NodeId, ReadLogError, Row, Store, StoreError},
    reader::{LogReader, StepError},
    shard::{Checkpoint, ShardId, fold::Fold},
    stats::{Counter, Stats},
    wait::{Backoff, Bell, may_linger, within},
    watch::Watchers,
};

/// How others speak to a fold that runs.
#[derive(Debug, Default)]
pub(crate) struct Handle {
    stop: AtomicBool,
    bell: Bell,
}

impl Handle {
    /// Ends the fold after its current step.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.bell.ring();
    }

    /// The log has more: the fold need not wait for its next look. A hint, and no more.
    pub(crate) fn wake(&self) {
        self.bell.ring();
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// What a materializer is given.
pub(crate) struct Materializer<E: Env> {
    pub(crate) env: Arc<E>,
    pub(crate) node: NodeId,
    pub(crate) config: Arc<Config>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) shard: ShardId,
    pub(crate) handle: Arc<Handle>,
    /// Who waits for what it writes.
    pub(crate) watchers: Watchers,
}

impl<E: Env> Materializer<E> {
    /// Folds until told to stop, or until the end of a closed shard. `progress` is called with each
    /// accepted count that the store has.
    pub(crate) async fn run(self, progress: impl Fn(u64) + Send) {
        let shard = self.shard;
        let at = self.until_done(|| self.env.store().checkpoint(shard)).await;
        debug!(node = %self.node, %shard, accepted = at.accepted, "fold begins");
        progress(at.accepted);
        let mut reader = LogReader::behind(self.env.clone(), self.stats.clone(), shard, at.clone());
        let mut fold = Fold::default();
        let mut allowance =
            Allowance::new(self.config.write_rows_max * self.config.fold_concurrency);
        let mut backoff = Backoff::new(&self.config);
        // A shard's few reads a second are for all its readers: whoever is throttled reads less often for
        // a while, so that a takeover or a slower reader is not starved.
        let mut pace = self.config.poll;
        let mut written = at;
        while !self.handle.is_stopped() && !written.ended {
            let step = match reader.step().await {
                Ok(step) => step,
                Err(error) => {
                    if error == StepError::Read(ReadLogError::Throttled) {
                        pace = (pace * 2).min(self.config.retry_max.max(self.config.poll));
                        self.env.clock().sleep(pace).await;
                        continue;
                    }
                    if error.is_lasting() {
                        // Another fold may have gone on, and the log dropped what it has folded.
                        let now = self.until_done(|| self.env.store().checkpoint(shard)).await;
                        if reader.skip_to(&now) {
                            fold = Fold::default();
                            progress(now.accepted);
                            written = now;
                            continue;
                        }
                        error!(node = %self.node, %shard, %error, "the log cannot be folded");
                    }
                    backoff.pause(self.env.clock()).await;
                    continue;
                }
            };
            backoff.reset();
            let batches = step.accepted.iter().filter_map(|(_, entry)| match entry {
                Entry::Batch(batch) => Some(batch),
                Entry::Fence(_) => None,
            });
            let batches: Vec<&Batch> = batches.collect();
            let rows = self.fold(&mut fold, &batches).await;
            self.write(&rows, &mut allowance).await;
            let at = reader.checkpoint();
            if at.accepted > written.accepted || at.ended {
                self.checkpoint(at).await;
                written = at.clone();
                progress(at.accepted);
                // A batch without events closes a time: a reader of all shards waits for just that.
                self.watchers.folded();
                self.stats.add(Counter::BatchesFolded, batches.len() as u64);
            }
            if step.at_tip && !step.ended {
                self.rest(pace).await;
                pace = (pace * 9 / 10).max(self.config.poll);
            }
        }
        if written.ended {
            self.stats.count(Counter::ShardsEnded);
            info!(node = %self.node, %shard, accepted = written.accepted, "closed shard folded to its end");
        }
    }

    /// Waits until it is time to look for more: after `pace`, or sooner if this node knows of more.
    async fn rest(&self, pace: Duration) {
        let clock = self.env.clock();
        let shortest = self.config.poll_min.min(pace);
        if !shortest.is_zero() {
            clock.sleep(shortest).await;
        }
        within(clock, pace - shortest, self.handle.bell.rung()).await;
    }

    async fn fold(&self, fold: &mut Fold, batches: &[&Batch]) -> Vec<Row> {
        fold.bound(self.config.heads_max);
        loop {
            let cold = stream::iter(fold.needs(batches.iter().copied())).map(async |stream| {
                let head =
                    self.until_done(|| self.env.store().head(&stream, Freshness::Strong)).await;
                (stream, head)
            });
            let heads: Vec<_> = cold.buffered(self.config.fold_concurrency).collect().await;
            for (stream, head) in heads {
                fold.load(stream, head);
            }
            match fold.rows(batches.iter().copied()) {
                Ok(rows) => return rows,
                Err(error) => {
                    error!(node = %self.node, shard = %self.shard, %error, "the log cannot be folded");
                    *fold = Fold::default();
                    self.env.clock().sleep(self.config.retry_max).await;
                }
            }
        }
    }

    /// Writes all rows, in any order, as many at a time as the store bears.
    async fn write(&self, rows: &[Row], allowance: &mut Allowance) {
        let mut waiting: Vec<&[Row]> = if rows.is_empty() { Vec::new() } else { vec![rows] };
        let mut under_way = FuturesUnordered::new();
        let mut rows_under_way = 0;
        let mut failures = 0;
        loop {
            while let Some(rows) = waiting.pop_if(|_| allowance.room(rows_under_way) > 0) {
                let most = allowance.room(rows_under_way).min(self.config.write_rows_max.max(1));
                let (now, later) = rows.split_at(most.min(rows.len()));
                if !later.is_empty() {
                    waiting.push(later);
                }
                rows_under_way += now.len();
                let begun = allowance.begin();
                under_way.push(async move {
                    let written = self.env.store().write(now).await.is_ok();
                    if !written {
                        self.stats.count(Counter::WritesRepeated);
                        Backoff::after(&self.config, failures).pause(self.env.clock()).await;
                    }
                    (now, begun, written)
                });
            }
            let Some((rows, begun, written)) = under_way.next().await else { return };
            rows_under_way -= rows.len();
            if written {
                failures = 0;
                allowance.confirmed();
            } else {
                failures += 1;
                allowance.failed(begun);
                waiting.push(rows);
            }
        }
    }

    async fn checkpoint(&self, at: &Checkpoint) {
        let clock = self.env.clock();
        may_linger(clock, "fold: before the checkpoint", self.config.dead_after).await;
        let row = [Row::Checkpoint(self.shard, at.clone())];
        self.until_done(|| self.env.store().write(&row)).await;
    }

    /// Calls the store until it answers.
    async fn until_done<T, F>(&self, call: impl Fn() -> F) -> T
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut backoff = Backoff::new(&self.config);
        loop {
            match call().await {
                Ok(value) => return value,
                Err(_) => {
                    self.stats.count(Counter::WritesRepeated);
                    backoff.pause(self.env.clock()).await;
                }
            }
        }
    }
}
