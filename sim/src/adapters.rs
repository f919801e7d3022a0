//! The five traits in the simulated world, one set for each process.

mod store;

use std::{
    future::Future,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use stormkeep_core::{
    append::{Request, Response},
    entry::Entry,
    env::{
        CallError, Clock, Cursor, DeliverError, Delivered, Delivery, Env, Handler, Log, LogError,
        Network, NodeId, Page, Position, Put, PutError, ReadLogError,
    },
    shard::{ShardId, ShardInfo},
    time::WallTime,
};

use crate::{
    fault::Place,
    history::Nanos,
    host::Inbound,
    model::lambda,
    plant::{Bent, Plant},
    world::{MS, Reply, World},
};

pub use store::SimStore;

/// The world as one process sees it.
pub struct SimEnv {
    log: SimLog,
    store: Bent<SimStore>,
    network: SimNetwork,
    clock: SimClock,
    handler: SimHandler,
}

impl SimEnv {
    /// The world as a new process on this machine sees it.
    pub fn new(world: &Arc<World>, node: u32) -> Self {
        let here = || Here { world: world.clone(), node };
        SimEnv {
            log: SimLog(here()),
            store: Bent::new(SimStore::new(here()), world.plan.plant),
            network: SimNetwork(here()),
            clock: SimClock(here()),
            handler: SimHandler(here()),
        }
    }
}

impl Env for SimEnv {
    type Log = SimLog;
    type Store = Bent<SimStore>;
    type Network = SimNetwork;
    type Clock = SimClock;
    type Handler = SimHandler;

    fn log(&self) -> &SimLog {
        &self.log
    }
    fn store(&self) -> &Bent<SimStore> {
        &self.store
    }
    fn network(&self) -> &SimNetwork {
        &self.network
    }
    fn clock(&self) -> &SimClock {
        &self.clock
    }
    fn handler(&self) -> &SimHandler {
        &self.handler
    }
}

struct Here {
    world: Arc<World>,
    node: u32,
}

impl Here {
    fn now(&self) -> Nanos {
        self.world.kernel.now()
    }

    fn ask<T: Send + 'static>(
        &self,
        place: Place,
        late: T,
        serve: impl Fn(&Arc<World>, Reply<T>) + Send + Sync + 'static,
    ) -> impl Future<Output = T> + Send {
        let timeout_ms = match place {
            Place::Log => self.world.plan.log.timeout_ms,
            _ => self.world.plan.store.timeout_ms,
        };
        self.world.request(self.node, place, timeout_ms * MS, late, serve)
    }
}

/// The log, over a link.
pub struct SimLog(Here);

impl Log for SimLog {
    async fn shards(&self) -> Result<Vec<ShardInfo>, LogError> {
        let serve = |world: &Arc<World>, reply: Reply<_>| {
            let shards = world.log().shards(world.kernel.now());
            reply.send(world, Ok(shards));
        };
        self.0.ask(Place::Log, Err(LogError::Unavailable), serve).await
    }

    async fn put(
        &self,
        shard: &ShardInfo,
        _after: Option<Position>,
        data: Bytes,
    ) -> Result<Put, PutError> {
        let key = shard.range.start;
        let serve = move |world: &Arc<World>, reply| put(world, key, &data, reply);
        self.0.ask(Place::Log, Err(PutError::Unknown), serve).await
    }

    async fn read(&self, shard: ShardId, from: Cursor) -> Result<Page, ReadLogError> {
        let serve = move |world: &Arc<World>, reply: Reply<_>| {
            let share = world.effects().log_share;
            let page = world.log().read(world.kernel.now(), shard, &from, share);
            reply.send(world, page);
        };
        self.0.ask(Place::Log, Err(ReadLogError::Unavailable), serve).await
    }

    async fn split(&self, shard: ShardId, at: u128) -> Result<(), LogError> {
        let serve = move |world: &Arc<World>, reply: Reply<_>| {
            let done = world.log().split(world.kernel.now(), shard, at);
            reply.send(world, done);
        };
        self.0.ask(Place::Log, Err(LogError::Unavailable), serve).await
    }

    async fn merge(&self, a: ShardId, b: ShardId) -> Result<(), LogError> {
        let serve = move |world: &Arc<World>, reply: Reply<_>| {
            let done = world.log().merge(world.kernel.now(), a, b);
            reply.send(world, done);
        };
        self.0.ask(Place::Log, Err(LogError::Unavailable), serve).await
    }
}

/// A put at the log service: it lands after a while, its answer leaves after another; the answer may be
/// lost, and the put may land again.
fn put(world: &Arc<World>, key: u128, data: &Bytes, reply: Reply<Result<Put, PutError>>) {
    let effects = world.effects();
    let ((before, after), lost, again) = {
        let mut log = world.log();
        let (before, after) = log.put_takes(key);
        let stream = log.stream();
        let lost = stream.chance(effects.log_lose_answers);
        let (repeat, within) = effects.log_repeat_puts;
        let again = stream.chance(repeat).then(|| stream.below(within));
        ((before * effects.log_slow, after * effects.log_slow), lost, again)
    };
    if effects.log_slow > 1 {
        world.struck("log-slow");
    }
    let (here, data) = (world.clone(), data.clone());
    if let Some(later) = again {
        let (here, data) = (world.clone(), data.clone());
        world.kernel.after(before + later, move || {
            here.struck("log-repeat-puts");
            if land(&here, key, &data).is_ok() {
                here.rare("puts that landed twice");
            }
        });
    }
    world.kernel.after(before, move || {
        let landed = land(&here, key, &data);
        if landed.is_ok() && reply.is_late() {
            here.rare("puts that landed after their caller gave up");
        }
        if lost {
            return here.struck("log-lose-answers");
        }
        let there = here.clone();
        here.kernel.after(after, move || reply.send(&there, landed));
    });
}

fn land(world: &Arc<World>, key: u128, data: &Bytes) -> Result<Put, PutError> {
    let effects = world.effects();
    let now = world.kernel.now();
    let keep = |data: Bytes| match Entry::decode(&data) {
        Ok(entry) if world.plan.plant == Plant::NoBatchIndex => {
            world.renumber().renumber(entry).encode()
        }
        _ => data,
    };
    let (share, lag) = (effects.log_share, effects.log_lag_ns);
    let landed = world.log().land(now, key, data.clone(), (share, lag), keep);
    if effects.log_lag_ns > 0 {
        world.struck("log-lag");
    }
    if landed == Err(PutError::Throttled) && effects.log_share < 1.0 {
        world.struck("log-throttle");
    }
    let shard = landed.map_or(u32::MAX, |put| put.shard.0);
    let mut hasher = DefaultHasher::new();
    // The first bytes of an entry hold the checksum of the others.
    (landed.ok().map(|put| put.position), data.len(), data.get(..9)).hash(&mut hasher);
    world.note("landed", shard, hasher.finish());
    landed
}

/// Peers, over links.
pub struct SimNetwork(Here);

impl Network for SimNetwork {
    async fn call(
        &self,
        to: NodeId,
        request: Request,
        timeout: Duration,
    ) -> Result<Response, CallError> {
        let (place, number) = (Place::Node(to.0), to.0 as usize);
        let serve = move |world: &Arc<World>, reply: Reply<Result<Response, CallError>>| {
            let door = world.hosts().get(number).and_then(|host| host.inbox.clone());
            let Some(door) = door else {
                // Nothing listens: the machine refuses the connection.
                return reply.send(world, Err(CallError::Refused));
            };
            let here = world.clone();
            let answer = move |response| reply.send(&here, Ok(response));
            let inbound = Inbound {
                request: request.clone(),
                timeout,
                from_peer: true,
                reply: Box::new(answer),
            };
            // A process that has just died drops it, as its kernel would.
            let _ = door.unbounded_send(inbound);
        };
        let late = Err(CallError::Unknown);
        let timeout = timeout.as_nanos() as Nanos;
        self.0.world.request(self.0.node, place, timeout, late, serve).await
    }
}

/// The function service, over a link.
pub struct SimHandler(Here);

impl Handler for SimHandler {
    async fn deliver(&self, delivery: Delivery) -> Result<Delivered, DeliverError> {
        let timeout = self.0.world.lambda().timeout();
        let serve = move |world: &Arc<World>, reply| lambda::invoke(world, &delivery, reply);
        let late = Err(DeliverError::TimedOut);
        self.0.world.request(self.0.node, Place::Handlers, timeout, late, serve).await
    }
}

/// The machine's clocks, and the runtime's tasks.
pub struct SimClock(Here);

impl Clock for SimClock {
    fn now(&self) -> WallTime {
        self.0.world.hosts()[self.0.node as usize].clocks.wall(self.0.now())
    }

    fn elapsed(&self) -> Duration {
        let local = self.0.world.hosts()[self.0.node as usize].clocks.local(self.0.now());
        Duration::from_nanos(local)
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + 'static {
        let clocks = self.0.world.hosts()[self.0.node as usize].clocks;
        // A slow machine comes late to everything; not so late that it outlasts the fault by much.
        let slow = self.0.world.effects().slow[self.0.node as usize].min(5);
        self.0.world.kernel.sleep(clocks.takes(duration.as_nanos() as Nanos) * slow)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        madsim::task::spawn(task.boxed());
    }

    fn random(&self) -> u64 {
        self.0.world.hosts()[self.0.node as usize].stream.bits()
    }

    fn buggify(&self, point: &'static str) -> bool {
        let world = &self.0.world;
        let hit = world.plan.core.buggify_per_mille > 0
            && world.hosts()[self.0.node as usize]
                .stream
                .chance(f64::from(world.plan.core.buggify_per_mille) / 1000.0);
        if hit {
            tracing::trace!(node = %self.0.node, point, "buggify");
        }
        hit
    }
}
