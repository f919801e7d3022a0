//! The worker: takes leases over shards, and delivers the events of each to every group that wants them.
//!
//! A lease is for a shard, and whoever has it works on the shard's *units*, one for each group: it reads the events of the
//! shard from the store, up to the time that the fold's checkpoint has closed, and never from the log, whose few reads a second are for
//! folds and takeovers. So a group may lag behind the log's retention without knowing, and a hundred groups cost the log nothing.
//!
//! Like the lease of an owner, one of delivery is advice: two workers that both think a shard is theirs give events twice, and
//! no more. What each writes down is a place below which everything was settled by somebody, so the furthest is right, and it wins
//! by its timestamp. What each parks has an append id that the event and the group determine.
//!
//! A unit on a shard begins when those on its parents are at their end, so a group sees a stream in its order across splits
//! and merges.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tracing::{debug, error, info};

use crate::{
    Node,
    env::{
        Clock, DocumentKey, Env, EpochRow, NodeId, NodeRow, Rewritten, Role, Row, Store,
        StoreError, Token,
    },
    gateway::Gateway,
    group::{Group, GroupNumber, Groups},
    shard::{
        Checkpoint, ShardId,
        lease::{Action, Leases, View},
        window::Mark,
    },
    stats::Counter,
    wait::{Backoff, may_linger, within},
};

mod consume;
mod driver;
mod lease;
mod manage;
mod park;
mod plan;
mod push;
mod source;
mod units;

pub(crate) use units::Units;

use driver::Driver;
use lease::{document, row};
use plan::Plan;
use source::Reads;
use units::{Open, UnitKey};

/// A running worker. Cheap to clone; the tasks behind it end with the process.
pub struct Worker<E: Env> {
    inner: Arc<Inner<E>>,
}

impl<E: Env> Clone for Worker<E> {
    fn clone(&self) -> Self {
        Worker { inner: self.inner.clone() }
    }
}

struct Inner<E: Env> {
    gateway: Arc<Gateway<E>>,
    me: (NodeId, Token),
    work: Mutex<Work>,
    /// How far each shard is folded, as the store said last.
    folded: Mutex<BTreeMap<ShardId, Checkpoint>>,
}

/// What this worker delivers.
#[derive(Default)]
struct Work {
    draining: bool,
    /// Shards that are held, being taken, or being given back.
    held: BTreeMap<ShardId, Held>,
    /// Up to where parked events of a group were replayed here.
    replayed: BTreeMap<GroupNumber, u64>,
}

#[derive(Default)]
struct Held {
    /// `None`: it is being taken.
    lease: Option<EpochRow>,
    giving_back: bool,
    units: BTreeMap<UnitKey, Arc<Open>>,
}

impl<E: Env> Worker<E> {
    /// Starts a worker in the process of a node, which answers for both; in one of its own if the node is
    /// [without shards](Node::without_shards).
    pub fn beside(node: &Node<E>) -> Self {
        let gateway = node.gateway();
        let clock = gateway.env.clock();
        let random = || u128::from(clock.random());
        let token = Token(random() << 64 | random());
        let inner = Arc::new(Inner {
            me: (gateway.node, token),
            gateway: gateway.clone(),
            work: Mutex::default(),
            folded: Mutex::default(),
        });
        clock.spawn(inner.clone().live());
        clock.spawn(inner.clone().look());
        Worker { inner }
    }

    /// Gives all shards back: nothing new is given, what consumers hold may be settled for a while, progress is written. Returns when
    /// none is left; the worker then takes none any more.
    pub async fn drain(&self) {
        self.inner.work().draining = true;
        while !self.inner.work().held.is_empty() {
            self.inner.gateway.env.clock().sleep(self.inner.gateway.config.retry_min).await;
        }
    }

    /// The shards that it delivers now.
    pub fn delivers(&self) -> Vec<ShardId> {
        let work = self.inner.work();
        work.held.iter().filter(|(_, held)| held.lease.is_some()).map(|(id, _)| *id).collect()
    }
}

impl<E: Env> Inner<E> {
    /// Gives signs of life, and decides about shards and units, until it is drained.
    async fn live(self: Arc<Self>) {
        let config = self.gateway.config.clone();
        let clock = self.gateway.env.clock();
        let mut leases = Leases::new(self.me, config.dead_after, config.take_grace);
        let mut beat = 0;
        loop {
            beat += 1;
            if let Err(error) = self.tick(&mut leases, beat).await {
                debug!(node = %self.me.0, %error, "the worker had no look at the cluster this time");
            }
            if self.has_left() {
                return;
            }
            let quarter = config.heartbeat.as_micros() as u64 / 4;
            let wait = quarter * 3 + clock.random() % (quarter * 2).max(1);
            clock.sleep(Duration::from_micros(wait)).await;
        }
    }

    fn has_left(&self) -> bool {
        let work = self.work();
        work.draining && work.held.is_empty()
    }

    /// Looks how far the shards are folded, and wakes the units of those that are further.
    async fn look(self: Arc<Self>) {
        let (config, clock) = (self.gateway.config.clone(), self.gateway.env.clock());
        while !self.has_left() {
            let changed = self.gateway.watchers.watch(None);
            if !self.work().held.is_empty()
                && let Ok(checkpoints) = self.gateway.env.store().checkpoints().await
            {
                self.learn(checkpoints);
            }
            let shortest = config.poll_min.min(config.poll);
            if !shortest.is_zero() {
                clock.sleep(shortest).await;
            }
            within(clock, config.poll - shortest, changed).await;
        }
    }

    fn learn(&self, checkpoints: Vec<(ShardId, Checkpoint)>) {
        let mut further = BTreeSet::new();
        {
            let mut folded = self.folded.lock().unwrap_or_else(PoisonError::into_inner);
            for (shard, at) in checkpoints {
                let known = folded.entry(shard).or_default();
                if at > *known {
                    further.insert(shard);
                    *known = at;
                }
            }
        }
        let work = self.work();
        let held = further.iter().filter_map(|shard| work.held.get(shard));
        held.flat_map(|held| held.units.values()).for_each(|unit| unit.wake());
    }

    fn folded(&self, shard: ShardId) -> Checkpoint {
        let folded = self.folded.lock().unwrap_or_else(PoisonError::into_inner);
        folded.get(&shard).cloned().unwrap_or_default()
    }

    async fn tick(self: &Arc<Self>, leases: &mut Leases, beat: u64) -> Result<(), StoreError> {
        let (store, clock) = (self.gateway.env.store(), self.gateway.env.clock());
        let (node, token) = self.me;
        let draining = self.work().draining;
        let sign = Row::Node(NodeRow { node, role: Role::Delivers, token, beat, draining });
        let _ = store.write(&[sign]).await;

        let document = store.documents(&[DocumentKey::Groups]).await?.pop();
        let groups = match Groups::decode(&document.map(|d| d.body).unwrap_or_default()) {
            Ok(groups) => groups,
            Err(error) => {
                error!(%node, %error, "nothing new is delivered");
                return Ok(());
            }
        };
        let plan = Plan::look(&self.gateway, groups).await?;
        self.learn(plan.checkpoints());
        let shards: Vec<ShardId> = plan.shards().collect();
        let keys: Vec<DocumentKey> = shards.iter().map(|id| DocumentKey::Delivery(*id)).collect();
        let documents = store.documents(&keys).await?;
        let rows: Vec<EpochRow> =
            shards.iter().zip(&documents).map(|(shard, document)| row(*shard, document)).collect();
        let mut nodes = store.nodes().await?;
        nodes.retain(|row| row.role == Role::Delivers);
        let mine = self.work().held.keys().copied().collect();
        let view = View {
            now: clock.elapsed(),
            nodes: &nodes,
            shards: &rows,
            unfolded: &[],
            mine: &mine,
            draining,
        };
        for action in leases.decide(&view) {
            match action {
                Action::Take(row) => self.take(row),
                Action::Release(shard) => self.give_back(shard),
                Action::Warn(row) => self.lose(row),
                Action::Fold(_) => {}
            }
        }
        self.sync(&plan).await
    }

    /// Takes the lease of a shard beside everything else.
    fn take(self: &Arc<Self>, seen: EpochRow) {
        let row = EpochRow { epoch: seen.epoch + 1, owner: Some(self.me), ..seen };
        self.work().held.insert(seen.shard, Held::default());
        let this = self.clone();
        self.gateway.env.clock().spawn(async move {
            let taken = this.swap(seen, row).await;
            let mut work = this.work();
            if taken && let Some(held) = work.held.get_mut(&seen.shard) {
                info!(node = %this.me.0, shard = %seen.shard, lease = row.epoch, "delivers");
                this.gateway.stats.count(Counter::DeliveriesTaken);
                held.lease = Some(row);
            } else {
                this.gateway.stats.count(Counter::DeliveriesLost);
                work.held.remove(&seen.shard);
            }
        });
    }

    /// Whether the lease is as asked. An unknown outcome is settled by asking for the identical one again.
    async fn swap(&self, from: EpochRow, to: EpochRow) -> bool {
        let (from, to) = (document(from), document(to));
        let mut backoff = Backoff::new(&self.gateway.config);
        loop {
            match self.gateway.env.store().rewrite(from.clone(), to.clone()).await {
                Ok(Rewritten::Done) => return true,
                Ok(Rewritten::Lost(now)) => return now == to,
                Err(_) => backoff.pause(self.gateway.env.clock()).await,
            }
        }
    }

    /// Finishes what is under way on a shard, then lets it go.
    fn give_back(self: &Arc<Self>, shard: ShardId) {
        let (lease, units): (_, Vec<Arc<Open>>) = {
            let mut work = self.work();
            let Some(held) = work.held.get_mut(&shard) else { return };
            // One that is being taken is given back when it is there.
            let Some(lease) = held.lease else { return };
            if std::mem::replace(&mut held.giving_back, true) {
                return;
            }
            (lease, held.units.values().cloned().collect())
        };
        if units.iter().any(|unit| unit.holds_any()) {
            self.gateway.stats.count(Counter::DeliveriesHandedOver);
        }
        units.iter().for_each(|unit| unit.drain());
        let this = self.clone();
        self.gateway.env.clock().spawn(async move {
            for unit in units {
                unit.ended().await;
            }
            may_linger(
                this.gateway.env.clock(),
                "worker: before the release",
                this.gateway.config.poll,
            )
            .await;
            let to = EpochRow { epoch: lease.epoch + 1, owner: None, ..lease };
            this.swap(lease, to).await;
            this.work().held.remove(&shard);
            debug!(node = %this.me.0, %shard, "gave the shard back");
        });
    }

    /// Another worker has the lease.
    fn lose(&self, seen: EpochRow) {
        let mut work = self.work();
        let Some(held) = work.held.get(&seen.shard) else { return };
        // What was seen before this lease was taken says nothing.
        if held.giving_back || held.lease.is_none_or(|lease| seen.epoch <= lease.epoch) {
            return;
        }
        self.gateway.stats.count(Counter::DeliveriesLost);
        if let Some(held) = work.held.remove(&seen.shard) {
            held.units.values().for_each(|unit| unit.abandon());
        }
    }

    /// Begins and ends units, so that those of the shards held here are as planned.
    async fn sync(self: &Arc<Self>, plan: &Plan) -> Result<(), StoreError> {
        let held: Vec<(ShardId, EpochRow)> = {
            let work = self.work();
            let ready = work.held.iter().filter(|(_, held)| !held.giving_back);
            ready.filter_map(|(shard, held)| Some((*shard, held.lease?))).collect()
        };
        for (shard, lease) in held {
            self.end_units(plan, shard);
            let running = self.running(shard);
            let missing = plan.units(shard, &self.gateway.stats);
            let missing: Vec<&Group> = missing
                .into_iter()
                .filter(|group| !running.contains(&UnitKey::of(group, shard, false)))
                .collect();
            if !missing.is_empty() {
                let progress: BTreeMap<_, _> =
                    self.gateway.env.store().progress(shard).await?.into_iter().collect();
                for group in missing {
                    let at = progress.get(&group.number).copied().unwrap_or_default();
                    let next = at.next.max(group.start.time()).0;
                    if !at.ended {
                        let mark = Mark { next, ended: false };
                        self.begin(group, lease, Reads::Shard(shard), mark);
                    }
                }
            }
            for group in plan.replays(shard) {
                let done = self.work().replayed.get(&group.number).copied().unwrap_or(0);
                let fresh = !running.contains(&UnitKey::of(group, shard, true));
                if fresh && group.replay_below > done {
                    let reads = Reads::Parked { below: group.replay_below };
                    self.begin(group, lease, reads, Mark::default());
                }
            }
        }
        Ok(())
    }

    fn running(&self, shard: ShardId) -> BTreeSet<UnitKey> {
        let work = self.work();
        let units = work.held.get(&shard).map(|held| held.units.keys().cloned().collect());
        units.unwrap_or_default()
    }

    /// Ends units whose group is gone, and tells the others how it is now.
    fn end_units(&self, plan: &Plan, shard: ShardId) {
        let mut work = self.work();
        let Some(held) = work.held.get_mut(&shard) else { return };
        held.units.retain(|key, unit| match plan.group(&key.group) {
            Some(group) if group.number == unit.number() => {
                unit.set(group);
                true
            }
            _ => {
                unit.abandon();
                false
            }
        });
    }

    fn begin(self: &Arc<Self>, group: &Group, lease: EpochRow, reads: Reads, from: Mark) {
        let now = self.gateway.env.clock().elapsed();
        let replay = reads.is_replay();
        let key = UnitKey::of(group, lease.shard, replay);
        let open = self.gateway.units.open(group, key.clone(), lease.epoch, from, now);
        {
            let mut work = self.work();
            let Some(held) = work.held.get_mut(&lease.shard) else { return };
            if held.lease != Some(lease) || held.giving_back {
                return self.gateway.units.close(&open);
            }
            held.units.insert(key.clone(), open.clone());
        }
        debug!(node = %self.me.0, shard = %lease.shard, group = %group.id, ?from, replay, "unit begins");
        let (this, driver) = (self.clone(), Driver::new(self.gateway.clone(), open.clone(), reads));
        self.gateway.env.clock().spawn(async move {
            let shard = key.shard;
            let replayed = driver.run(|| this.folded(shard)).await;
            this.gateway.units.close(&open);
            let mut work = this.work();
            if let Some(below) = replayed {
                let known = work.replayed.entry(open.number()).or_default();
                *known = (*known).max(below);
            }
            if let Some(held) = work.held.get_mut(&shard)
                && held.units.get(&key).is_some_and(|unit| Arc::ptr_eq(unit, &open))
            {
                held.units.remove(&key);
            }
            open.end();
        });
    }

    /// The work list. A panic elsewhere while it was held leaves it usable: it only says what runs.
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls the store until it answers.
async fn until_done<E: Env, T, F>(gateway: &Gateway<E>, call: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut backoff = Backoff::new(&gateway.config);
    loop {
        match call().await {
            Ok(value) => return value,
            Err(_) => backoff.pause(gateway.env.clock()).await,
        }
    }
}
