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
    append::Freshness,
    entry::Entry,
    env::{EpochRow, NodeRow, Row, Store, StoreError, Swap},
    event::RecordedEvent,
    shard::{Checkpoint, ShardId},
    stream::{Head, StreamName},
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
}

impl Plant {
    /// All of them.
    pub const ALL: &[Plant] = &[Plant::None, Plant::NoEpochCheck, Plant::NoBatchIndex];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Plant::None => "none",
            Plant::NoEpochCheck => "no-epoch-check",
            Plant::NoBatchIndex => "no-batch-index",
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

/// A store whose epoch check, if `blind`, shows a process only what it took itself.
pub struct Blind<S> {
    store: S,
    blind: bool,
    took: Mutex<BTreeMap<ShardId, EpochRow>>,
}

impl<S: Store> Blind<S> {
    /// The store as it is, or blind.
    pub fn new(store: S, blind: bool) -> Self {
        Blind { store, blind, took: Mutex::default() }
    }
}

impl<S: Store> Store for Blind<S> {
    async fn epoch(&self, shard: ShardId) -> Result<EpochRow, StoreError> {
        let row = self.store.epoch(shard).await?;
        let took = self.took.lock().unwrap_or_else(PoisonError::into_inner).get(&shard).copied();
        Ok(took.filter(|_| self.blind).unwrap_or(row))
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

    async fn write(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        self.store.write(rows).await
    }

    async fn head(&self, stream: &StreamName) -> Result<Option<Head>, StoreError> {
        self.store.head(stream).await
    }

    async fn events(
        &self,
        stream: &StreamName,
        from: u64,
        limit: u32,
        freshness: Freshness,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        self.store.events(stream, from, limit, freshness).await
    }

    async fn checkpoint(&self, shard: ShardId) -> Result<Checkpoint, StoreError> {
        self.store.checkpoint(shard).await
    }

    async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        self.store.nodes().await
    }
}
