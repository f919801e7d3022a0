//! A node: its signs of life, its shards, and the door for requests.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{FutureExt, channel::mpsc, future::BoxFuture};
use tracing::{debug, info};

use crate::{
    append::{Request, Response},
    ask::Door,
    config::Config,
    env::{Clock, Env, EpochRow, NodeId, NodeRow, Role, Row, Store, StoreError, Token},
    gateway::{Gateway, Origin},
    materializer::{Handle, Materializer},
    owner::{Control, Ended, Owner},
    shard::{
        self, ShardId, ShardInfo,
        lease::{Action, Leases, View},
    },
    stats::Stats,
    stream::StreamName,
    takeover::{NotTaken, Takeover},
    watch::Watch,
};

/// A running node. Cheap to clone; the tasks behind it end with the process.
pub struct Node<E: Env> {
    inner: Arc<Inner<E>>,
}

impl<E: Env> Clone for Node<E> {
    fn clone(&self) -> Self {
        Node { inner: self.inner.clone() }
    }
}

struct Inner<E: Env> {
    env: Arc<E>,
    me: (NodeId, Token),
    config: Arc<Config>,
    stats: Arc<Stats>,
    gateway: Arc<Gateway<E>>,
    work: Mutex<Work>,
}

/// What this node does for each shard.
#[derive(Default)]
struct Work {
    /// Whether this node is leaving: it takes no shard any more.
    draining: bool,
    owned: BTreeMap<ShardId, mpsc::UnboundedSender<Control>>,
    folds: BTreeMap<ShardId, Arc<Handle>>,
    /// Closed shards that are known to be folded to their end.
    ended: BTreeSet<ShardId>,
}

impl<E: Env> Node<E> {
    /// Starts a node: it takes its share of the shards, and gives back what is too much.
    pub fn start(env: E, node: NodeId, config: Config, stats: Arc<Stats>) -> Self {
        let node = Self::without_shards(env, node, config, stats);
        info!(node = %node.inner.me.0, token = ?node.inner.me.1, "started");
        node.inner.env.clock().spawn(node.inner.clone().live());
        node
    }

    /// Starts a node that never owns a shard: it passes on what it is asked, and gives a [`Worker`](crate::Worker) that has a
    /// process of its own a place among its peers.
    pub fn without_shards(env: E, node: NodeId, config: Config, stats: Arc<Stats>) -> Self {
        let env = Arc::new(env);
        let random = |env: &E| u128::from(env.clock().random());
        let token = Token(random(&env) << 64 | random(&env));
        let config = Arc::new(config);
        let gateway = Arc::new(Gateway::new(env.clone(), node, config.clone(), stats.clone()));
        let inner = Arc::new(Inner {
            env,
            me: (node, token),
            config,
            stats,
            gateway,
            work: Mutex::new(Work::default()),
        });
        Node { inner }
    }

    /// Answers a client's request within `timeout`, wherever its owner is.
    pub fn handle(&self, request: Request, timeout: Duration) -> BoxFuture<'static, Response> {
        let inner = self.inner.clone();
        async move { inner.gateway.handle(request, timeout, Origin::Client).await }.boxed()
    }

    /// Answers a peer's request within `timeout`, or says that this node is not the owner.
    pub fn serve(&self, request: Request, timeout: Duration) -> BoxFuture<'static, Response> {
        let inner = self.inner.clone();
        async move { inner.gateway.handle(request, timeout, Origin::Peer).await }.boxed()
    }

    /// Gives all shards back, finishing what is under way. Returns when none is left; the node then takes none any more.
    pub async fn drain(&self) {
        self.inner.work().draining = true;
        while !self.inner.work().owned.is_empty() {
            self.inner.env.clock().sleep(self.inner.config.retry_min).await;
        }
    }

    /// Ends when something new of a stream is there for strong reads of it, or of any for reads of all. Call it, then read, then
    /// wait for it. It is a hint from this node's own shards: look again now and then all the same.
    pub fn watch(&self, stream: Option<StreamName>) -> Watch {
        self.inner.gateway.watchers.watch(stream)
    }

    /// The way from requests to their answers, for a worker beside this node.
    pub(crate) fn gateway(&self) -> Arc<Gateway<E>> {
        self.inner.gateway.clone()
    }

    /// The shards that this node serves now.
    pub fn serves(&self) -> Vec<ShardId> {
        self.inner.gateway.routes().here.keys().copied().collect()
    }
}

impl<E: Env> Inner<E> {
    /// Whether this node was drained and has nothing to do any more.
    fn has_left(&self) -> bool {
        let work = self.work();
        work.draining && work.owned.is_empty() && work.folds.is_empty()
    }

    /// Gives signs of life, and decides about shards, until it is drained.
    async fn live(self: Arc<Self>) {
        let mut leases = Leases::new(self.me, self.config.dead_after, self.config.take_grace);
        let mut beat = 0;
        loop {
            beat += 1;
            if let Err(error) = self.tick(&mut leases, beat).await {
                debug!(node = %self.me.0, %error, "no look at the cluster this time");
            }
            if self.has_left() {
                return;
            }
            // Between three and five quarters, so that nodes do not march in step.
            let quarter = self.config.heartbeat.as_micros() as u64 / 4;
            let wait = quarter * 3 + self.env.clock().random() % (quarter * 2).max(1);
            self.env.clock().sleep(Duration::from_micros(wait)).await;
        }
    }

    async fn tick(self: &Arc<Self>, leases: &mut Leases, beat: u64) -> Result<(), StoreError> {
        let store = self.env.store();
        let (node, token) = self.me;
        let draining = self.work().draining;
        let sign = Row::Node(NodeRow { node, role: Role::Owns, token, beat, draining });
        // A lost sign of life costs a shard at the worst; the next one follows soon.
        let _ = store.write(&[sign]).await;

        self.gateway.refresh_shards().await;
        let shards = self.gateway.routes().shards.clone();
        self.learn_ends(&shards).await?;
        let ended = self.work().ended.clone();
        let (open, closed): (Vec<&ShardInfo>, Vec<_>) = shards.iter().partition(|s| !s.closed);
        // A shard can be owned or ended when its parents are folded; one that is not listed any more was.
        // An empty child must not count as folded before its parents are, or its own child would be
        // taken without their streams.
        let listed = |id: &ShardId| shards.iter().any(|s| s.id == *id);
        let ready = |s: &&&ShardInfo| s.parents.iter().all(|p| !listed(p) || ended.contains(p));
        let unfolded: Vec<ShardId> =
            closed.iter().filter(|s| !ended.contains(&s.id)).filter(ready).map(|s| s.id).collect();
        let ready: Vec<ShardId> = open.iter().filter(ready).map(|s| s.id).collect();

        let rows = store.epochs(&ready).await?;
        let mut nodes = store.nodes().await?;
        nodes.retain(|row| row.role == Role::Owns);
        self.learn_owners(&rows);
        self.learn_times().await;
        let mine = self.work().owned.keys().copied().collect();
        let view = View {
            now: self.env.clock().elapsed(),
            nodes: &nodes,
            shards: &rows,
            unfolded: &unfolded,
            mine: &mine,
            draining,
        };
        for action in leases.decide(&view) {
            match action {
                Action::Take(row) => {
                    if let Some(shard) = shards.iter().find(|s| s.id == row.shard) {
                        self.take(shard.clone(), shard::ancestors(&shards, shard), row);
                    }
                }
                Action::Fold(shard) => drop(self.fold(shard)),
                Action::Release(shard) => self.tell(shard, Control::Release),
                Action::Warn(row) => self.tell(row.shard, Control::Seen(row)),
            }
        }
        Ok(())
    }

    async fn learn_ends(&self, shards: &[ShardInfo]) -> Result<(), StoreError> {
        for shard in shards.iter().filter(|s| s.closed) {
            if !self.work().ended.contains(&shard.id)
                && self.env.store().checkpoint(shard.id).await?.ended
            {
                self.work().ended.insert(shard.id);
            }
        }
        Ok(())
    }

    /// Tells the shards owned here how far the others are. If the store does not say, the next look will.
    async fn learn_times(&self) {
        let owned: Vec<ShardId> = self.work().owned.keys().copied().collect();
        if owned.is_empty() {
            return;
        }
        if let Ok(checkpoints) = self.env.store().checkpoints().await
            && let Some(newest) = checkpoints.iter().map(|(_, at)| at.closed).max()
        {
            owned.into_iter().for_each(|shard| self.tell(shard, Control::Passed(newest)));
        }
    }

    fn learn_owners(&self, rows: &[EpochRow]) {
        let mut routes = self.gateway.routes();
        for row in rows {
            match row.owner {
                Some((node, _)) => routes.owners.insert(row.shard, node),
                None => routes.owners.remove(&row.shard),
            };
        }
    }

    fn tell(&self, shard: ShardId, what: Control) {
        if let Some(owner) = self.work().owned.get(&shard) {
            // The owner may have just ended; then it needs no telling.
            let _ = owner.unbounded_send(what);
        }
    }

    /// Takes and serves a shard beside everything else, until its epoch ends.
    fn take(self: &Arc<Self>, shard: ShardInfo, ancestors: BTreeSet<ShardId>, seen: EpochRow) {
        let (control, mut told) = mpsc::unbounded();
        {
            let mut work = self.work();
            if work.draining {
                return;
            }
            work.owned.insert(shard.id, control);
        }
        let this = self.clone();
        self.env.clock().spawn(async move {
            let id = shard.id;
            let ended = this.own(shard, &ancestors, seen, &mut told).await;
            let mut work = this.work();
            work.owned.remove(&id);
            // A closed shard is folded to its end by whoever is at it.
            if ended != Some(Ended::Closed)
                && let Some(stop) = work.folds.remove(&id)
            {
                stop.stop();
            }
        });
    }

    async fn own(
        self: &Arc<Self>,
        shard: ShardInfo,
        ancestors: &BTreeSet<ShardId>,
        seen: EpochRow,
        told: &mut mpsc::UnboundedReceiver<Control>,
    ) -> Option<Ended> {
        let id = shard.id;
        let takeover =
            Takeover { env: &self.env, config: &self.config, stats: &self.stats, me: self.me };
        let owner = match Owner::take(&takeover, self.config.clone(), shard, ancestors, seen).await
        {
            Ok(owner) => owner,
            Err(reason) => {
                debug!(node = %self.me.0, shard = %id, %reason, "not taken");
                if reason == NotTaken::Damaged {
                    // Somebody has to look at the log; each try costs an epoch and a fence.
                    self.env.clock().sleep(self.config.dead_after).await;
                }
                return None;
            }
        };
        let row = owner.row();
        // Not before: the log allows few reads a second, and the takeover needs them.
        let fold = self.fold(id);
        let (door, mut asked) = Door::new(self.config.queue_max);
        {
            let mut routes = self.gateway.routes();
            routes.here.insert(id, door);
            routes.newest = routes.newest.max(owner.closes());
        }
        let ended = owner.serve(&mut asked, told, |batch| {
            fold.wake();
            self.gateway.watchers.appended(batch.appends.iter().map(|append| &append.stream));
        });
        let ended = ended.await;
        self.gateway.routes().here.remove(&id);
        if ended == Ended::Released {
            takeover.release(row).await;
        }
        Some(ended)
    }

    /// Folds a shard beside everything else, unless this node is at it already.
    fn fold(self: &Arc<Self>, shard: ShardId) -> Arc<Handle> {
        let handle = Arc::new(Handle::default());
        {
            let mut work = self.work();
            if let Some(running) = work.folds.get(&shard) {
                return running.clone();
            }
            work.folds.insert(shard, handle.clone());
        }
        let materializer = Materializer {
            env: self.env.clone(),
            node: self.me.0,
            config: self.config.clone(),
            stats: self.stats.clone(),
            shard,
            handle: handle.clone(),
            watchers: self.gateway.watchers.clone(),
        };
        let (this, own) = (self.clone(), handle.clone());
        self.env.clock().spawn(async move {
            let progress = |accepted| this.tell(shard, Control::Materialized(accepted));
            materializer.run(progress).await;
            let mut work = this.work();
            if work.folds.get(&shard).is_some_and(|h| Arc::ptr_eq(h, &own)) {
                work.folds.remove(&shard);
            }
        });
        handle
    }

    /// The work list. A panic elsewhere while it was held leaves it usable: it only says what runs.
    fn work(&self) -> std::sync::MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
