//! Planted faults: what the core would be without a part of its protocol, made outside of it, by
//! adapters that undo that part. The oracles must find each.

use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use stormkeep_core::{
    append::{Direction, Freshness},
    entry::Entry,
    env::{
        Document, DocumentKey, EpochRow, NodeRow, Progress, Rewritten, Row, Store, StoreError, Swap,
    },
    event::RecordedEvent,
    group::GroupNumber,
    head::Head,
    shard::{Checkpoint, ShardId},
    stream::StreamName,
    time::HybridTime,
};

/// A planted fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Plant {
    /// None.
    #[default]
    None,
    /// The epoch check always sees the epoch that the process itself took.
    NoEpochCheck,
    /// The log renumbers batches as they land, so that the accept rule sees no repeats.
    NoBatchIndex,
    /// Progress is written up to what is folded, whether it is settled or not.
    CheckpointBeforeAck,
    /// Whoever goes on with a shard for a group begins at the end of what is folded.
    StartsAtEnd,
    /// Whoever reads all shards is told that each has closed a second more than it has.
    EarlyWatermark,
}

impl Plant {
    /// All of them.
    pub const ALL: &[Plant] = &[
        Plant::None,
        Plant::NoEpochCheck,
        Plant::NoBatchIndex,
        Plant::EarlyWatermark,
        Plant::CheckpointBeforeAck,
        Plant::StartsAtEnd,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Plant::None => "none",
            Plant::NoEpochCheck => "no-epoch-check",
            Plant::NoBatchIndex => "no-batch-index",
            Plant::EarlyWatermark => "early-watermark",
            Plant::CheckpointBeforeAck => "checkpoint-before-ack",
            Plant::StartsAtEnd => "starts-at-end",
        }
    }
}

impl fmt::Display for Plant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Plant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Plant::ALL.iter().copied().find(|plant| plant.name() == text).ok_or_else(|| {
            let names: Vec<_> = Plant::ALL.iter().map(|plant| plant.name()).collect();
            format!("{text:?} is no planted fault; there are: {}", names.join(", "))
        })
    }
}

/// Gives every batch that lands the next index of its epoch: the accept rule without its index.
#[derive(Debug, Default)]
pub struct Renumber {
    next: BTreeMap<(ShardId, u64), u64>,
}

impl Renumber {
    /// The entry as it is to be kept.
    pub fn renumber(&mut self, entry: Entry) -> Entry {
        match entry {
            Entry::Batch(mut batch) => {
                let next = self.next.entry((batch.shard, batch.epoch)).or_default();
                batch.index = *next;
                *next += 1;
                Entry::Batch(batch)
            }
            Entry::Fence(fence) => Entry::Fence(fence),
        }
    }
}

/// A store as a planted fault bends it.
pub struct Bent<S> {
    store: S,
    plant: Plant,
    took: Mutex<BTreeMap<ShardId, EpochRow>>,
}

/// How much too high [`Plant::EarlyWatermark`] says that a shard has closed.
const EARLY_BY_US: u64 = 1_000_000;

impl<S: Store> Bent<S> {
    /// The store, bent by a fault or as it is.
    pub fn new(store: S, plant: Plant) -> Self {
        Bent { store, plant, took: Mutex::default() }
    }
}

impl<S: Store> Store for Bent<S> {
    /// [`Plant::NoEpochCheck`] shows a process only what it took itself.
    async fn epoch(&self, shard: ShardId) -> Result<EpochRow, StoreError> {
        let row = self.store.epoch(shard).await?;
        let took = self.took.lock().unwrap_or_else(PoisonError::into_inner).get(&shard).copied();
        Ok(took.filter(|_| self.plant == Plant::NoEpochCheck).unwrap_or(row))
    }

    async fn epochs(&self, shards: &[ShardId]) -> Result<Vec<EpochRow>, StoreError> {
        self.store.epochs(shards).await
    }

    async fn epoch_settled(&self, shard: ShardId) -> Result<EpochRow, StoreError> {
        self.store.epoch_settled(shard).await
    }

    async fn swap_epoch(&self, from: EpochRow, to: EpochRow) -> Result<Swap, StoreError> {
        let swap = self.store.swap_epoch(from, to).await?;
        if swap == Swap::Done {
            self.took.lock().unwrap_or_else(PoisonError::into_inner).insert(to.shard, to);
        }
        Ok(swap)
    }

    async fn write(&self, rows: &[Row]) -> Result<(), StoreError> {
        if self.plant == Plant::CheckpointBeforeAck {
            let mut rows = rows.to_vec();
            for row in &mut rows {
                if let Row::Progress(shard, _, progress) = row {
                    let closed = self.store.checkpoint(*shard).await?.closed;
                    progress.next = progress.next.max(closed.plus(1));
                }
            }
            return self.store.write(&rows).await;
        }
        self.store.write(rows).await
    }

    async fn head(
        &self,
        stream: &StreamName,
        freshness: Freshness,
    ) -> Result<Option<Head>, StoreError> {
        self.store.head(stream, freshness).await
    }

    async fn events(
        &self,
        stream: &StreamName,
        from: u64,
        limit: u32,
        direction: Direction,
        freshness: Freshness,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        self.store.events(stream, from, limit, direction, freshness).await
    }

    async fn shard_events(
        &self,
        shard: ShardId,
        times: (HybridTime, HybridTime),
        limit: u32,
        direction: Direction,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        self.store.shard_events(shard, times, limit, direction).await
    }

    async fn checkpoints(&self) -> Result<Vec<(ShardId, Checkpoint)>, StoreError> {
        let mut rows = self.store.checkpoints().await?;
        if self.plant == Plant::EarlyWatermark {
            let begun = rows.iter_mut().filter(|(_, at)| at.closed > HybridTime::default());
            begun.for_each(|(_, at)| at.closed = at.closed.plus(EARLY_BY_US));
        }
        Ok(rows)
    }

    async fn checkpoint(&self, shard: ShardId) -> Result<Checkpoint, StoreError> {
        self.store.checkpoint(shard).await
    }

    async fn documents(&self, keys: &[DocumentKey]) -> Result<Vec<Document>, StoreError> {
        self.store.documents(keys).await
    }

    async fn rewrite(&self, from: Document, to: Document) -> Result<Rewritten, StoreError> {
        self.store.rewrite(from, to).await
    }

    async fn progress(&self, shard: ShardId) -> Result<Vec<(GroupNumber, Progress)>, StoreError> {
        let mut rows = self.store.progress(shard).await?;
        if self.plant == Plant::StartsAtEnd {
            let closed = self.store.checkpoint(shard).await?.closed;
            for (_, progress) in &mut rows {
                progress.next = progress.next.max(closed.plus(1));
            }
        }
        Ok(rows)
    }

    async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        self.store.nodes().await
    }
}
