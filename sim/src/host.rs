//! Nodes: what a machine is to the core that runs on it. It dies with all that is in memory, stands still,
//! and has clocks of its own.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, channel::mpsc, select_biased, stream::FuturesUnordered};
use madsim::task::NodeId as RuntimeNode;
use stormkeep_core::{
    Config, Node, Stats, Worker,
    append::{Request, Response},
    env::NodeId,
    time::WallTime,
};

use crate::{
    adapters::SimEnv,
    history::Nanos,
    plan::{CoreKnobs, Plan},
    rng::Stream,
    world::World,
};

/// 2026-01-01 UTC, in microseconds: when every run begins.
const EPOCH_US: u64 = 1_767_225_600_000_000;

/// A request that has arrived at a node.
pub struct Inbound {
    /// It.
    pub request: Request,
    /// How long the sender waits for the answer.
    pub timeout: Duration,
    /// Whether a peer sent it.
    pub from_peer: bool,
    /// What to do with the answer.
    pub reply: Box<dyn FnOnce(Response) + Send>,
}

/// The clocks of one machine: they run at a rate of their own, and the wall clock may be wrong.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// The local time at the last change of rate, and when that was.
    local: Nanos,
    changed: Nanos,
    ppm: i64,
    /// Microseconds that the wall clock is ahead.
    ahead_us: i64,
}

impl Clocks {
    fn rate(&self) -> f64 {
        1.0 + self.ppm as f64 / 1e6
    }

    /// The machine's own time.
    pub fn local(&self, now: Nanos) -> Nanos {
        self.local + ((now - self.changed) as f64 * self.rate()) as Nanos
    }

    /// The wall clock.
    pub fn wall(&self, now: Nanos) -> WallTime {
        WallTime((EPOCH_US + self.local(now) / 1000).saturating_add_signed(self.ahead_us))
    }

    /// How long a local wait takes.
    pub fn takes(&self, local: Nanos) -> Nanos {
        (local as f64 / self.rate()) as Nanos
    }

    /// Runs fast or slow from now on.
    pub fn drift(&mut self, now: Nanos, ppm: i64) {
        self.local = self.local(now);
        self.changed = now;
        self.ppm = ppm;
    }

    /// The wall clock is ahead by so much from now on.
    pub fn step(&mut self, ahead_us: i64) {
        self.ahead_us = ahead_us;
    }
}

/// One machine.
pub struct Host {
    /// Its number in the runtime; known once it was started.
    pub runtime: Option<RuntimeNode>,
    /// The door of the process that runs; `None`: none does.
    pub inbox: Option<mpsc::UnboundedSender<Inbound>>,
    /// The process that runs.
    pub node: Option<Node<SimEnv>>,
    /// Its worker, if it has one.
    pub worker: Option<Worker<SimEnv>>,
    /// How many processes it has started.
    pub processes: u32,
    /// What all its processes have counted.
    pub stats: Arc<Stats>,
    /// Its clocks.
    pub clocks: Clocks,
    /// Its randomness.
    pub stream: Stream,
    config: Config,
}

impl Host {
    /// A machine on which nothing runs yet.
    pub fn new(plan: &Plan, number: u32) -> Self {
        let mut stream = Stream::new(plan.seed, "node", u64::from(number));
        // Clocks that are kept by NTP: a few milliseconds off.
        let ahead_us = stream.between(0, 10_000) as i64 - 5000;
        Host {
            runtime: None,
            inbox: None,
            node: None,
            worker: None,
            processes: 0,
            stats: Arc::default(),
            clocks: Clocks { local: 0, changed: 0, ppm: 0, ahead_us },
            stream,
            config: config(&plan.core),
        }
    }
}

fn config(knobs: &CoreKnobs) -> Config {
    let ms = Duration::from_millis;
    Config {
        heartbeat: ms(knobs.heartbeat_ms),
        dead_after: ms(knobs.dead_after_ms),
        take_grace: ms(knobs.heartbeat_ms * 3 / 2),
        poll: ms(knobs.poll_ms),
        poll_min: ms(knobs.poll_min_ms),
        close_after: ms(knobs.close_after_ms),
        batch_bytes_max: knobs.batch_bytes_max as usize,
        tail_bytes_max: knobs.tail_bytes_max as usize,
        heads_max: knobs.heads_max as usize,
        queue_max: knobs.queue_max as usize,
        write_rows_max: knobs.write_rows_max as usize,
        ..Config::default()
    }
}

/// Starts a machine: its process starts now, and again whenever the runtime restarts it.
pub fn start(world: &Arc<World>, number: u32) {
    let here = world.clone();
    let runtime = world.runtime();
    let node = runtime.create_node().name(format!("n{number}"));
    let id = node.init(move || process(here.clone(), number)).build().id();
    world.hosts()[number as usize].runtime = Some(id);
}

/// One process: the core, and the loop that hands it what arrives.
async fn process(world: Arc<World>, number: u32) {
    let (door, mut arriving) = mpsc::unbounded::<Inbound>();
    let (config, stats) = {
        let hosts = world.hosts();
        let host = &hosts[number as usize];
        (host.config.clone(), host.stats.clone())
    };
    let (workers, apart) = world.plan.delivery.as_ref().map_or((0, 0), |d| (d.workers, d.apart));
    let start = if number < apart { Node::without_shards } else { Node::start };
    let node = start(SimEnv::new(&world, number), NodeId(number), config, stats);
    let worker = (number < workers).then(|| Worker::beside(&node));
    {
        let mut hosts = world.hosts();
        let host = &mut hosts[number as usize];
        host.worker = worker;
        host.inbox = Some(door);
        host.node = Some(node.clone());
        host.processes += 1;
    }
    world.note("started", number, 0);
    let now = world.kernel.now();
    world.history().processes.push((number, now));
    let mut calls = FuturesUnordered::new();
    loop {
        select_biased! {
            () = calls.select_next_some() => {}
            inbound = arriving.select_next_some() => {
                let node = node.clone();
                calls.push(async move {
                    let Inbound { request, timeout, from_peer, reply } = inbound;
                    let response = if from_peer {
                        node.serve(request, timeout).await
                    } else {
                        node.handle(request, timeout).await
                    };
                    reply(response);
                });
            }
        }
    }
}

/// Kills the process of a machine.
pub fn kill(world: &Arc<World>, number: u32) {
    let id = {
        let mut hosts = world.hosts();
        let host = &mut hosts[number as usize];
        host.inbox = None;
        host.node = None;
        host.worker = None;
        host.runtime
    };
    world.note("killed", number, 0);
    if let Some(id) = id {
        world.runtime().kill(id);
    }
}

/// Starts a process on a machine on which none runs.
pub fn restart(world: &Arc<World>, number: u32) {
    let id = {
        let hosts = world.hosts();
        let host = &hosts[number as usize];
        if host.inbox.is_some() { None } else { host.runtime }
    };
    if let Some(id) = id {
        world.runtime().restart(id);
    }
}
