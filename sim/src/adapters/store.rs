//! The store, over a link to one of its coordinators.

use std::sync::Arc;

use stormkeep_core::{
    append::{Direction, Freshness},
    env::{
        Document, DocumentKey, EpochRow, NodeId, NodeRow, Progress, Rewritten, Row, Store,
        StoreError, Swap, Token,
    },
    event::RecordedEvent,
    group::GroupNumber,
    head::Head,
    shard::{Checkpoint, ShardId},
    stream::StreamName,
    time::HybridTime,
};

use super::Here;
use crate::{
    fault::Place,
    history::Written,
    model::{
        cassandra::{self, Cell, Committed, Find, Key, QUORUM, Rows, Value},
        paxos::{self, CasKey, CasValue},
    },
    world::{Reply, World},
};

/// See the module's docs.
pub struct SimStore(Here);

impl SimStore {
    pub(super) fn new(here: Here) -> Self {
        SimStore(here)
    }

    async fn find(
        &self,
        need: usize,
        find: impl Fn(&Rows) -> Rows + Send + Sync + 'static,
    ) -> Result<Rows, StoreError> {
        let query = Arc::new(Find { find: Box::new(find) });
        let serve = move |world: &Arc<World>, reply| {
            cassandra::read(world, need, query.clone(), reply);
        };
        self.0.ask(Place::Store, Err(StoreError::Unknown), serve).await
    }

    async fn committed(&self, keys: Vec<CasKey>) -> Result<Vec<CasValue>, StoreError> {
        let query = Arc::new(Committed(keys));
        let serve = move |world: &Arc<World>, reply| {
            cassandra::read(world, QUORUM, query.clone(), reply);
        };
        self.0.ask(Place::Store, Err(StoreError::Unknown), serve).await
    }

    async fn find_one(&self, need: usize, key: Key) -> Result<Option<Value>, StoreError> {
        let found = self.find(need, move |rows| one(rows, &key)).await?;
        Ok(found.into_values().next().map(|cell| cell.value))
    }

    /// The rows between two keys, both included.
    async fn find_all(&self, begin: Key, end: Key) -> Result<Rows, StoreError> {
        let find = move |rows: &Rows| copied(rows.range(begin.clone()..=end.clone()));
        self.find(QUORUM, find).await
    }

    /// The events between two keys, both included, in the order of the read.
    async fn find_events(
        &self,
        need: usize,
        (begin, end): (Key, Key),
        limit: u32,
        direction: Direction,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        if begin > end {
            return Ok(Vec::new());
        }
        let limit = limit as usize;
        let find = move |rows: &Rows| {
            let range = rows.range(begin.clone()..=end.clone());
            match direction {
                Direction::Forwards => copied(range.take(limit)),
                Direction::Backwards => copied(range.rev().take(limit)),
            }
        };
        let rows = self.find(need, find).await?;
        // Each replica has shown its first ones: a row that only one of them has may stand before them.
        let mut events: Vec<RecordedEvent> = rows.into_values().filter_map(event).collect();
        if direction == Direction::Backwards {
            events.reverse();
        }
        events.truncate(limit);
        Ok(events)
    }
}

fn one(rows: &Rows, key: &Key) -> Rows {
    rows.get(key).map(|cell| (key.clone(), cell.clone())).into_iter().collect()
}

fn copied<'a>(rows: impl Iterator<Item = (&'a Key, &'a Cell)>) -> Rows {
    rows.map(|(key, cell)| (key.clone(), cell.clone())).collect()
}

fn event(cell: Cell) -> Option<RecordedEvent> {
    match cell.value {
        Value::Event(event) => Some(event),
        _ => None,
    }
}

/// How many replicas a read asks.
fn need(freshness: Freshness) -> usize {
    match freshness {
        Freshness::Strong => QUORUM,
        Freshness::Eventual => 1,
    }
}

impl Store for SimStore {
    async fn epoch(&self, shard: ShardId) -> Result<EpochRow, StoreError> {
        let rows = self.epochs(&[shard]).await?;
        rows.into_iter().next().ok_or(StoreError::Unknown)
    }

    async fn epochs(&self, shards: &[ShardId]) -> Result<Vec<EpochRow>, StoreError> {
        let rows = self.committed(shards.iter().map(|shard| CasKey::Epoch(*shard)).collect());
        rows.await?.into_iter().map(paxos::epoch).collect()
    }

    async fn epoch_settled(&self, shard: ShardId) -> Result<EpochRow, StoreError> {
        let serve = move |world: &Arc<World>, reply: Reply<_>| {
            let here = world.clone();
            world.spawn(async move {
                let row = paxos::read_serial(here.clone(), shard).await;
                reply.send(&here, row);
            });
        };
        self.0.ask(Place::Store, Err(StoreError::Unknown), serve).await
    }

    async fn swap_epoch(&self, from: EpochRow, to: EpochRow) -> Result<Swap, StoreError> {
        let serve = move |world: &Arc<World>, reply: Reply<_>| {
            let here = world.clone();
            world.spawn(async move {
                let swap = paxos::swap(here.clone(), from, to).await;
                reply.send(&here, swap);
            });
        };
        self.0.ask(Place::Store, Err(StoreError::Unknown), serve).await
    }

    async fn write(&self, rows: &[Row]) -> Result<(), StoreError> {
        for row in rows {
            if let Row::Progress(shard, group, progress) = row {
                let at = self.0.now();
                let written = Written { at, shard: *shard, group: *group, progress: *progress };
                self.0.world.history().progress.push(written);
            }
        }
        let cells: Arc<Vec<(Key, Cell)>> =
            Arc::new(rows.iter().cloned().flat_map(cassandra::cells).collect());
        let serve = move |world: &Arc<World>, reply| cassandra::write(world, cells.clone(), reply);
        self.0.ask(Place::Store, Err(StoreError::Unknown), serve).await
    }

    async fn head(
        &self,
        stream: &StreamName,
        freshness: Freshness,
    ) -> Result<Option<Head>, StoreError> {
        let found = self.find_one(need(freshness), Key::Head(stream.clone())).await?;
        Ok(found.and_then(|value| match value {
            Value::Head(head) => Some(Arc::unwrap_or_clone(head)),
            _ => None,
        }))
    }

    async fn events(
        &self,
        stream: &StreamName,
        from: u64,
        limit: u32,
        direction: Direction,
        freshness: Freshness,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        let (low, high) = match direction {
            Direction::Forwards => (from, u64::MAX),
            Direction::Backwards => (0, from),
        };
        let keys = (Key::Event(stream.clone(), low), Key::Event(stream.clone(), high));
        self.find_events(need(freshness), keys, limit, direction).await
    }

    async fn shard_events(
        &self,
        shard: ShardId,
        (low, high): (HybridTime, HybridTime),
        limit: u32,
        direction: Direction,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        let keys = (Key::Ordered(shard, low), Key::Ordered(shard, high));
        self.find_events(QUORUM, keys, limit, direction).await
    }

    async fn checkpoints(&self) -> Result<Vec<(ShardId, Checkpoint)>, StoreError> {
        let (begin, end) = (Key::Checkpoint(ShardId(0)), Key::Checkpoint(ShardId(u32::MAX)));
        let rows = self.find_all(begin, end).await?;
        let checkpoints = rows.into_iter().filter_map(|(key, cell)| match (key, cell.value) {
            (Key::Checkpoint(shard), Value::Checkpoint(at)) => Some((shard, at)),
            _ => None,
        });
        Ok(checkpoints.collect())
    }

    async fn checkpoint(&self, shard: ShardId) -> Result<Checkpoint, StoreError> {
        let found = self.find_one(QUORUM, Key::Checkpoint(shard)).await?;
        Ok(found.map_or(Checkpoint::default(), |value| match value {
            Value::Checkpoint(at) => at,
            _ => Checkpoint::default(),
        }))
    }

    async fn documents(&self, keys: &[DocumentKey]) -> Result<Vec<Document>, StoreError> {
        let rows = self.committed(keys.iter().map(|key| CasKey::Document(*key)).collect());
        rows.await?.into_iter().map(paxos::document).collect()
    }

    async fn rewrite(&self, from: Document, to: Document) -> Result<Rewritten, StoreError> {
        let serve = move |world: &Arc<World>, reply: Reply<_>| {
            let (here, from, to) = (world.clone(), from.clone(), to.clone());
            world.spawn(async move {
                let rewritten = paxos::rewrite(here.clone(), from, to).await;
                reply.send(&here, rewritten);
            });
        };
        self.0.ask(Place::Store, Err(StoreError::Unknown), serve).await
    }

    async fn progress(&self, shard: ShardId) -> Result<Vec<(GroupNumber, Progress)>, StoreError> {
        let begin = Key::Progress(shard, GroupNumber(0));
        let end = Key::Progress(shard, GroupNumber(u64::MAX));
        let rows = self.find_all(begin, end).await?;
        let rows = rows.into_iter().filter_map(|(key, cell)| match (key, cell.value) {
            (Key::Progress(_, group), Value::Progress(at)) => Some((group, at)),
            _ => None,
        });
        Ok(rows.collect())
    }

    async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        let begin = Key::Node(NodeId(0), Token(0));
        let end = Key::Node(NodeId(u32::MAX), Token(u128::MAX));
        let rows = self.find_all(begin, end).await?;
        let nodes = rows.into_values().filter_map(|cell| match cell.value {
            Value::Node(row) => Some(row),
            _ => None,
        });
        Ok(nodes.collect())
    }
}
