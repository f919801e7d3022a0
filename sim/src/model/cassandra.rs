//! A model of Cassandra: three replicas of every row, each with its own delays, outages and backlog.
//!
//! - a write goes to all replicas and is confirmed by two (`LOCAL_QUORUM` and `QUORUM` are the same with
//!   one data centre); one that reached too few is *unknown*, and may show up later on a replica;
//! - a read asks two, and the third when one is slow (speculative retry, 50 ms); the newest cell wins by
//!   timestamp, ties by the larger value, as Cassandra's `Cells.reconcile` does; a blocking read repair may
//!   follow (`read_repair = 'BLOCKING'`, the default of a table);
//! - an eventual read asks one;
//! - a replica that was down is told what it missed (hinted hand-off), or not;
//! - with fewer than two replicas up: `UnavailableException`; with a backlog: `OverloadedException`.
//!
//! Compare-and-set is in [`paxos`](crate::model::paxos).

mod read;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use stormkeep_core::{
    env::{Document, DocumentKey, NodeId, NodeRow, Progress, Row, StoreError, Token},
    event::RecordedEvent,
    group::GroupNumber,
    head::Head,
    shard::{Checkpoint, ShardId},
    stream::StreamName,
    time::HybridTime,
};

use crate::{
    history::Nanos,
    model::{
        effects::{Effects, REPLICAS},
        links::sample,
        paxos::{self, CasKey, PaxosRow},
    },
    oracle::StoreDump,
    plan::StoreKnobs,
    rng::Stream,
    world::{MS, Reply, World},
};

pub use read::{Committed, Find, Query, read};

/// Replicas that must confirm.
pub const QUORUM: usize = 2;
const SPECULATE_AFTER: Nanos = 50 * MS;

/// The primary key of a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// An event: partition by stream, clustered by revision.
    Event(StreamName, u64),
    /// An event once more: partition by shard, clustered by time.
    Ordered(ShardId, HybridTime),
    /// The head of a stream.
    Head(StreamName),
    /// The checkpoint of a shard.
    Checkpoint(ShardId),
    /// How far a shard is settled for a group: partition by shard.
    Progress(ShardId, GroupNumber),
    /// A sign of life.
    Node(NodeId, Token),
}

/// What a row holds. The order breaks ties between equal timestamps.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Of [`Key::Event`] and [`Key::Ordered`].
    Event(RecordedEvent),
    /// Of [`Key::Head`].
    Head(Arc<Head>),
    /// Of [`Key::Checkpoint`].
    Checkpoint(Checkpoint),
    /// Of [`Key::Progress`].
    Progress(Progress),
    /// Of [`Key::Node`].
    Node(NodeRow),
}

/// A value and the timestamp it was written at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    timestamp: u64,
    /// What the row holds.
    pub value: Value,
}

/// Rows as a replica has them, or as a read sees them.
pub type Rows = BTreeMap<Key, Cell>;

/// The row of the core's trait, as keys and cells: an event is in two tables.
pub fn cells(row: Row) -> impl Iterator<Item = (Key, Cell)> {
    let timestamp = row.timestamp();
    let ordered = match &row {
        Row::Event(e) => Some((Key::Ordered(e.shard, e.time), Value::Event(e.clone()))),
        _ => None,
    };
    let (key, value) = match row {
        Row::Event(e) => (Key::Event(e.stream.clone(), e.revision), Value::Event(e)),
        Row::Head(stream, head) => (Key::Head(stream), Value::Head(head)),
        Row::Checkpoint(shard, at) => (Key::Checkpoint(shard), Value::Checkpoint(at)),
        Row::Progress(shard, group, at) => (Key::Progress(shard, group), Value::Progress(at)),
        Row::Node(row) => (Key::Node(row.node, row.token), Value::Node(row)),
    };
    let both = [(key, value)].into_iter().chain(ordered);
    both.map(move |(key, value)| (key, Cell { timestamp, value }))
}

/// Last write wins: a cell takes its place unless a newer one has it. Whether it did.
fn reconcile(rows: &mut Rows, key: &Key, cell: &Cell) -> bool {
    match rows.get_mut(key) {
        Some(old) if *old >= *cell => false,
        Some(old) => {
            *old = cell.clone();
            true
        }
        None => {
            rows.insert(key.clone(), cell.clone());
            true
        }
    }
}

/// One replica.
pub struct Replica {
    rows: Rows,
    /// Rows of compare-and-set.
    pub(super) paxos: BTreeMap<CasKey, PaxosRow>,
    hints: Rows,
    busy_until: Nanos,
    stream: Stream,
}

/// See the module's docs.
pub struct Cassandra {
    knobs: StoreKnobs,
    replicas: Vec<Replica>,
    stream: Stream,
}

impl Cassandra {
    /// An empty store.
    pub fn new(seed: u64, knobs: StoreKnobs) -> Self {
        let replica = |n| Replica {
            rows: Rows::new(),
            paxos: BTreeMap::new(),
            hints: Rows::new(),
            busy_until: 0,
            stream: Stream::new(seed, "store", n),
        };
        let replicas = (0..u64::from(REPLICAS)).map(replica).collect();
        Cassandra { knobs, replicas, stream: Stream::new(seed, "store", 1000) }
    }

    /// A replica.
    pub fn replica(&mut self, number: u32) -> &mut Replica {
        &mut self.replicas[number as usize]
    }

    /// A random number of the coordinators.
    pub fn draw(&mut self) -> u64 {
        self.stream.bits()
    }

    /// A replica is up again: it is told what it missed, or not. How many rows it was told.
    pub fn recover(&mut self, number: u32) -> usize {
        let replica = &mut self.replicas[number as usize];
        let hints = std::mem::take(&mut replica.hints);
        if !self.knobs.hints {
            return 0;
        }
        for (key, cell) in &hints {
            reconcile(&mut replica.rows, key, cell);
        }
        hints.len()
    }

    /// How long a message to or from a replica takes; `None`: it is lost.
    pub(super) fn hop(&mut self, number: u32, effects: &Effects, lose: f64) -> Option<Nanos> {
        let replica = &mut self.replicas[number as usize];
        let slow = effects.replica_slow.get(number as usize).copied().unwrap_or(1);
        let delay = sample(self.knobs.replica, &mut replica.stream) * slow;
        (!replica.stream.chance(lose)).then_some(delay)
    }

    /// Queues the work of so many rows at a replica, and says how long until it is done. `None`: it drops
    /// what would wait longer than anybody waits for it, as Cassandra drops expired mutations and reads.
    pub(super) fn work(
        &mut self,
        number: u32,
        now: Nanos,
        rows: usize,
        effects: &Effects,
    ) -> Option<Nanos> {
        let cost = rows as u64 * self.knobs.row_us * 1000 * effects.store_overload;
        let replica = &mut self.replicas[number as usize];
        let wait = replica.busy_until.saturating_sub(now);
        if wait > self.knobs.timeout_ms * MS {
            return None;
        }
        replica.busy_until = now + wait + cost;
        Some(wait + cost)
    }

    fn up(&self, effects: &Effects) -> Vec<u32> {
        (0..REPLICAS).filter(|r| !effects.replicas_down.contains(r)).collect()
    }

    /// Whether a coordinator refuses an operation at once.
    fn refuses(&self, now: Nanos, need: usize, effects: &Effects) -> Option<StoreError> {
        let up = self.up(effects);
        if up.len() < need {
            return Some(StoreError::Unavailable);
        }
        let backlog_max = self.knobs.timeout_ms * MS / 2;
        let ready = up
            .iter()
            .filter(|r| self.replicas[**r as usize].busy_until.saturating_sub(now) < backlog_max);
        (ready.count() < need).then_some(StoreError::Busy)
    }

    /// What the replicas hold: of each row the `nth` newest cell, counted from 1; the row is left out if
    /// fewer replicas have it.
    pub fn dump(&self, nth: usize) -> StoreDump {
        let mut cells: BTreeMap<&Key, Vec<&Cell>> = BTreeMap::new();
        for (key, cell) in self.replicas.iter().flat_map(|replica| &replica.rows) {
            cells.entry(key).or_default().push(cell);
        }
        let rows = cells.into_iter().filter_map(|(key, mut cells)| {
            cells.sort_unstable_by(|a, b| b.cmp(a));
            cells.get(nth - 1).map(|cell| (key.clone(), (*cell).clone()))
        });
        let mut dump = StoreDump::default();
        for (key, cell) in rows {
            match (key, cell.value) {
                (Key::Event(stream, revision), Value::Event(event)) => {
                    dump.events.insert((stream, revision), event);
                }
                (Key::Ordered(shard, time), Value::Event(event)) => {
                    dump.ordered.insert((shard, time), event);
                }
                (Key::Head(stream), Value::Head(head)) => {
                    dump.heads.insert(stream, Arc::unwrap_or_clone(head));
                }
                (Key::Checkpoint(shard), Value::Checkpoint(at)) => {
                    dump.checkpoints.insert(shard, at);
                }
                (Key::Progress(shard, group), Value::Progress(at)) => {
                    dump.progress.insert((shard, group), at);
                }
                _ => {}
            }
        }
        dump
    }

    /// A document, as it was committed last.
    pub fn document(&self, key: DocumentKey) -> Document {
        let rows = self.replicas.iter().filter_map(|r| r.paxos.get(&CasKey::Document(key)));
        let newest = rows.map(PaxosRow::committed).max_by_key(|(ballot, _)| *ballot);
        let document = newest.and_then(|(_, value)| paxos::document(value).ok());
        document.unwrap_or_else(|| Document::blank(key))
    }

    /// How far a shard is settled for a group, as every quorum sees it at the least.
    pub fn progress(&self, shard: ShardId, group: GroupNumber) -> Progress {
        let cells = self.replicas.iter().map(|r| r.rows.get(&Key::Progress(shard, group)));
        let mut cells: Vec<Option<&Cell>> = cells.collect();
        cells.sort();
        match cells[cells.len() - QUORUM].map(|cell| &cell.value) {
            Some(Value::Progress(at)) => *at,
            _ => Progress::default(),
        }
    }

    /// The checkpoint of a shard as every quorum sees it at the least: the second newest.
    pub fn checkpoint(&self, shard: ShardId) -> Checkpoint {
        let cells = self.replicas.iter().map(|r| r.rows.get(&Key::Checkpoint(shard)));
        let mut cells: Vec<Option<&Cell>> = cells.collect();
        cells.sort();
        match cells[cells.len() - QUORUM].map(|cell| &cell.value) {
            Some(Value::Checkpoint(at)) => at.clone(),
            _ => Checkpoint::default(),
        }
    }
}

/// What one operation has heard from the replicas so far.
struct Heard<A, T> {
    answers: Vec<(u32, A)>,
    reply: Option<Reply<Result<T, StoreError>>>,
}

fn heard_by<A, T>(reply: Reply<Result<T, StoreError>>) -> Mutex<Heard<A, T>> {
    Mutex::new(Heard { answers: Vec::new(), reply: Some(reply) })
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a coordinator refuses an operation at once; counted.
fn refused(world: &World, need: usize, effects: &Effects) -> Option<StoreError> {
    let error = world.store().refuses(world.kernel.now(), need, effects)?;
    world.rare(match error {
        StoreError::Unavailable => "operations refused for too few replicas",
        _ => "operations refused by an overloaded store",
    });
    Some(error)
}

/// Writes rows at a quorum.
pub fn write(
    world: &Arc<World>,
    rows: Arc<Vec<(Key, Cell)>>,
    reply: Reply<Result<(), StoreError>>,
) {
    let effects = world.effects();
    if let Some(error) = refused(world, QUORUM, &effects) {
        return reply.send(world, Err(error));
    }
    let shared = Arc::new(heard_by(reply));
    let mut reached = 0;
    for number in 0..REPLICAS {
        if effects.replicas_down.contains(&number) {
            world.struck("replica-down");
            let mut store = world.store();
            for (key, cell) in rows.iter() {
                reconcile(&mut store.replica(number).hints, key, cell);
            }
            continue;
        }
        let hop = world.store().hop(number, &effects, effects.replica_lose);
        let Some(delay) = hop else {
            world.struck("replica-lose");
            show_up_late(world, number, &rows);
            continue;
        };
        reached += 1;
        let (rows, shared) = (rows.clone(), shared.clone());
        let here = world.clone();
        world.kernel.after(delay, move || arrive(&here, number, rows, shared));
    }
    if reached < QUORUM {
        world.rare("writes that reached too few replicas");
    }
}

/// A message that was lost on the way may have been only late.
fn show_up_late(world: &Arc<World>, number: u32, rows: &Arc<Vec<(Key, Cell)>>) {
    let draw = world.store().draw();
    if draw.is_multiple_of(3) {
        let (rows, here) = (rows.clone(), world.clone());
        world.kernel.after((draw >> 8) % (10_000 * MS), move || {
            let mut store = here.store();
            for (key, cell) in rows.iter() {
                reconcile(&mut store.replica(number).rows, key, cell);
            }
        });
    }
}

fn arrive(
    world: &Arc<World>,
    number: u32,
    rows: Arc<Vec<(Key, Cell)>>,
    shared: Arc<Mutex<Heard<(), ()>>>,
) {
    let effects = world.effects();
    if effects.replicas_down.contains(&number) {
        return;
    }
    let done = world.store().work(number, world.kernel.now(), rows.len(), &effects);
    let Some(done) = done else { return world.rare("work dropped by a replica") };
    let here = world.clone();
    world.kernel.after(done, move || {
        let ack = {
            let mut store = here.store();
            for (key, cell) in rows.iter() {
                reconcile(&mut store.replica(number).rows, key, cell);
            }
            let effects = here.effects();
            store.hop(number, &effects, effects.replica_lose)
        };
        let stamps = rows.iter().map(|(_, cell)| cell.timestamp);
        let mixed = stamps.fold(rows.len() as u64, |mix, stamp| mix.rotate_left(7) ^ stamp);
        here.note("stored", number, mixed);
        let Some(delay) = ack else { return };
        let there = here.clone();
        here.kernel.after(delay, move || {
            let mut heard = lock(&shared);
            heard.answers.push((number, ()));
            if heard.answers.len() >= QUORUM
                && let Some(reply) = heard.reply.take()
            {
                reply.send(&there, Ok(()));
            }
        });
    });
}
