//! The world of one run: virtual time, links, services, nodes, clients, and what is gathered of them.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, TryLockError},
};

use futures::{
    FutureExt, StreamExt,
    channel::{mpsc, oneshot},
    future::BoxFuture,
    select_biased,
    stream::FuturesUnordered,
};
use madsim::runtime::Handle;
use stormkeep_core::{consume::Unit, event::RecordedEvent, group::GroupId, stream::StreamName};

use crate::{
    crowd::Crowd,
    fault::{Fault, Place, What},
    history::{History, Nanos},
    host::Host,
    kernel::Kernel,
    model::{
        cassandra::Cassandra,
        effects::Effects,
        kinesis::Kinesis,
        lambda::Lambda,
        links::{Fate, Links},
    },
    plan::Plan,
    plant::Renumber,
    report::Counts,
    trace::{Trace, TraceEvent},
};

/// A millisecond in virtual nanoseconds.
pub const MS: Nanos = 1_000_000;

/// See the module's docs. Every part has a lock of its own, held only within one call: the run is one
/// thread, and the locks are there because the core demands `Send` and `Sync` of its world.
pub struct World {
    /// What was planned.
    pub plan: Plan,
    /// Time.
    pub kernel: Arc<Kernel>,
    links: Mutex<Links>,
    log: Mutex<Kinesis>,
    store: Mutex<Cassandra>,
    lambda: Mutex<Lambda>,
    /// Under which lease each event was fetched first: who fetches it under a later one sees it again.
    fetched: Mutex<BTreeMap<(GroupId, StreamName, u64), Unit>>,
    hosts: Mutex<Vec<Host>>,
    crowd: Mutex<Crowd>,
    history: Mutex<History>,
    trace: Mutex<Trace>,
    active: Mutex<Active>,
    faults: Mutex<Counts>,
    rare: Mutex<Counts>,
    renumber: Mutex<Renumber>,
    services: mpsc::UnboundedSender<BoxFuture<'static, ()>>,
}

/// The faults that are on, by their number in the schedule, and what they add up to.
struct Active {
    faults: Vec<(usize, Fault)>,
    effects: Arc<Effects>,
}

/// Gives a part of the world. The run is one thread, so a part that is in use is a mistake here: it is
/// better told than waited for. A panic ends the run, so a poisoned lock is never seen.
fn part<T>(part: &Mutex<T>) -> MutexGuard<'_, T> {
    match part.try_lock() {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => panic!("this part of the world is in use already"),
    }
}

/// What happens in the models that seldom happens; the core's own counts are added to these.
pub const RARE: &[&str] = &[
    "puts that landed after their caller gave up",
    "puts that landed twice",
    "half-done compare-and-sets finished by another",
    "compare-and-sets with an unknown outcome",
    "rows repaired by a read",
    "rows handed to a replica that was down",
    "writes that reached too few replicas",
    "work dropped by a replica",
    "operations refused for too few replicas",
    "operations refused by an overloaded store",
    "clients' unknown appends settled by a retry",
    "appends acknowledged while the crowd was there",
    "limits and deletions acknowledged",
    "appends refused by a tombstone",
    "reads that saw a deleted stream",
    "reads of all shards answered",
    "events seen by those who follow all shards",
    "events fetched again under a later lease",
    "replays asked for",
    "consumers told that a verdict did not count",
    "consumers that died with events",
    "consumers that took too long",
    "invocations throttled",
    "cold starts",
    "invocations that ran twice",
    "invocations that timed out with their work done",
    "invocations that ended in the middle",
    "items that a function failed",
];

impl World {
    /// A world at time 0.
    ///
    /// The second part must be run beside it: see [`serve`].
    pub fn new(plan: Plan, keep_trace: bool) -> (Arc<Self>, Services) {
        let (services, work) = mpsc::unbounded();
        let zeros = |names: &[&'static str]| names.iter().map(|name| (*name, 0)).collect();
        let world = Arc::new(World {
            kernel: Arc::new(Kernel::default()),
            links: Mutex::new(Links::new(plan.seed, plan.links.clone())),
            log: Mutex::new(Kinesis::new(plan.seed, plan.log.clone(), plan.shards)),
            store: Mutex::new(Cassandra::new(plan.seed, plan.store.clone())),
            lambda: Mutex::new(match &plan.delivery {
                Some(delivery) => Lambda::new(plan.seed, delivery.lambda.clone()),
                None => Lambda::idle(plan.seed),
            }),
            fetched: Mutex::default(),
            hosts: Mutex::new((0..plan.nodes).map(|n| Host::new(&plan, n)).collect()),
            crowd: Mutex::new(Crowd::new(&plan)),
            history: Mutex::default(),
            trace: Mutex::new(Trace::new(keep_trace)),
            active: Mutex::new(Active {
                faults: Vec::new(),
                effects: Arc::new(Effects::of(plan.nodes, [])),
            }),
            faults: Mutex::new(zeros(What::KINDS)),
            rare: Mutex::new(zeros(RARE)),
            renumber: Mutex::default(),
            services,
            plan,
        });
        (world, work)
    }

    /// Runs what a service does in several steps, whatever becomes of the node that asked for it.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        // The receiver lives as long as the run.
        let _ = self.services.unbounded_send(work.boxed());
    }

    /// The runtime that the nodes' tasks run on. Not kept: it holds the nodes, which hold the world.
    pub fn runtime(&self) -> Handle {
        Handle::current()
    }

    /// The log service.
    pub fn log(&self) -> MutexGuard<'_, Kinesis> {
        part(&self.log)
    }

    /// The store service.
    pub fn store(&self) -> MutexGuard<'_, Cassandra> {
        part(&self.store)
    }

    /// The function service.
    pub fn lambda(&self) -> MutexGuard<'_, Lambda> {
        part(&self.lambda)
    }

    /// A consumer was given an event.
    pub fn seen_by_consumers(&self, group: &GroupId, unit: Unit, event: &RecordedEvent) {
        let key = (group.clone(), event.stream.clone(), event.revision);
        let first = *part(&self.fetched).entry(key).or_insert(unit);
        if unit.shard == first.shard && unit.lease > first.lease {
            self.rare("events fetched again under a later lease");
        }
    }

    /// The nodes.
    pub fn hosts(&self) -> MutexGuard<'_, Vec<Host>> {
        part(&self.hosts)
    }

    /// The clients.
    pub fn crowd(&self) -> MutexGuard<'_, Crowd> {
        part(&self.crowd)
    }

    /// What clients saw.
    pub fn history(&self) -> MutexGuard<'_, History> {
        part(&self.history)
    }

    /// The trace.
    pub fn trace(&self) -> MutexGuard<'_, Trace> {
        part(&self.trace)
    }

    /// What has been done to the batches of the log, if that fault is planted.
    pub fn renumber(&self) -> MutexGuard<'_, Renumber> {
        part(&self.renumber)
    }

    /// What the faults that are on add up to.
    pub fn effects(&self) -> Arc<Effects> {
        part(&self.active).effects.clone()
    }

    /// A fault begins.
    pub fn begin(&self, number: usize, fault: Fault) {
        self.change(|active| active.push((number, fault)));
    }

    /// A fault ends. Whether it was on.
    pub fn end(&self, number: usize) -> bool {
        let mut was_on = false;
        self.change(|active| {
            active.retain(|(n, _)| {
                was_on |= *n == number;
                *n != number
            });
        });
        was_on
    }

    /// Whether a fault of this kind is on for the same target.
    pub fn is_on(&self, what: &What) -> bool {
        part(&self.active).faults.iter().any(|(_, fault)| {
            fault.what.kind() == what.kind() && fault.what.target() == what.target()
        })
    }

    fn change(&self, change: impl FnOnce(&mut Vec<(usize, Fault)>)) {
        let mut active = part(&self.active);
        change(&mut active.faults);
        let faults = active.faults.iter().map(|(_, fault)| fault);
        active.effects = Arc::new(Effects::of(self.plan.nodes, faults));
    }

    /// A fault of this kind has struck.
    pub fn struck(&self, kind: &'static str) {
        *part(&self.faults).entry(kind).or_default() += 1;
    }

    /// Something has happened that seldom happens.
    pub fn rare(&self, what: &'static str) {
        *part(&self.rare).entry(what).or_default() += 1;
    }

    /// Something has happened so many times that seldom happens.
    pub fn rare_times(&self, what: &'static str, times: u64) {
        *part(&self.rare).entry(what).or_default() += times;
    }

    /// The counts of faults, and of what seldom happens.
    pub fn counts(&self) -> (Counts, Counts) {
        (part(&self.faults).clone(), part(&self.rare).clone())
    }

    /// Adds to the trace.
    pub fn note(&self, what: &'static str, node: u32, detail: u64) {
        let at = self.kernel.now();
        self.trace().push(TraceEvent { at, what, node, detail });
    }

    /// Sends a message: calls `arrive` when it arrives, once or twice; `None` if it does not.
    pub fn send(
        self: &Arc<Self>,
        from: Place,
        to: Place,
        arrive: impl Fn(&Arc<World>) + Send + Sync + 'static,
    ) {
        let fate = part(&self.links).send(from, to, &self.effects());
        let node = node_of(to);
        match fate {
            Fate::Cut => {
                self.struck(self.cut_kind(from, to));
                self.note("cut", node, 0);
            }
            Fate::Lost => {
                self.struck("lose");
                self.note("lost", node, 0);
            }
            Fate::Arrives(delay) => {
                let world = self.clone();
                self.kernel.after(delay, move || {
                    world.note("arrived", node, delay);
                    arrive(&world);
                });
            }
            Fate::Repeats(first, second) => {
                self.struck("repeat");
                let arrive = Arc::new(arrive);
                for delay in [first, second] {
                    let (world, arrive) = (self.clone(), arrive.clone());
                    self.kernel.after(delay, move || {
                        world.note("arrived", node, delay);
                        arrive(&world);
                    });
                }
            }
        }
    }

    /// Which kind of cut keeps a message from passing.
    fn cut_kind(&self, from: Place, to: Place) -> &'static str {
        if self.effects().cuts.contains(&(to, from)) { "cut" } else { "cut-one-way" }
    }

    /// A node's request to a place: `serve` is called when it arrives there. The answer is what it
    /// [replies](Reply::send), or `late` if none has come back after `timeout`.
    pub fn request<T: Send + 'static>(
        self: &Arc<Self>,
        node: u32,
        to: Place,
        timeout: Nanos,
        late: T,
        serve: impl Fn(&Arc<World>, Reply<T>) + Send + Sync + 'static,
    ) -> impl Future<Output = T> + Send {
        let (sender, receiver) = oneshot::channel();
        let slot = Arc::new(Mutex::new(Some(sender)));
        // The answer is that of the copy that arrives first; a repeated one answers into the void.
        let first = Mutex::new(Some(slot.clone()));
        self.send(Place::Node(node), to, move |world| {
            let slot = part(&first).take().unwrap_or_default();
            serve(world, Reply { from: to, to: Place::Node(node), slot });
        });
        let world = self.clone();
        self.kernel.after(timeout, move || {
            if let Some(sender) = part(&slot).take() {
                world.note("timed out", node, timeout);
                let _ = sender.send(late);
            }
        });
        async move {
            match receiver.await {
                Ok(answer) => answer,
                // The slot is emptied by an answer or the timeout, and by nothing else.
                Err(oneshot::Canceled) => std::future::pending().await,
            }
        }
    }
}

/// What services have to do in several steps.
pub type Services = mpsc::UnboundedReceiver<BoxFuture<'static, ()>>;

/// Does what services have to do, for ever.
pub async fn serve(mut services: Services) {
    let mut work = FuturesUnordered::new();
    loop {
        select_biased! {
            more = services.select_next_some() => work.push(more),
            () = work.select_next_some() => {}
        }
    }
}

/// The way back for an answer.
pub struct Reply<T> {
    from: Place,
    to: Place,
    slot: Arc<Mutex<Option<oneshot::Sender<T>>>>,
}

impl<T: Send + 'static> Reply<T> {
    /// Sends the answer back. It may get lost, and may come too late.
    pub fn send(self, world: &Arc<World>, answer: T) {
        let answer = Mutex::new(Some(answer));
        world.send(self.from, self.to, move |_| {
            // A repeated answer finds the slot empty.
            if let Some(sender) = part(&self.slot).take()
                && let Some(answer) = part(&answer).take()
            {
                let _ = sender.send(answer);
            }
        });
    }

    /// Whether nobody waits for the answer any more.
    pub fn is_late(&self) -> bool {
        part(&self.slot).is_none()
    }
}

/// The node of a place, for the trace.
pub fn node_of(place: Place) -> u32 {
    match place {
        Place::Node(node) => node,
        _ => TraceEvent::NOWHERE,
    }
}

/// Counts that start at zero and are added up by name.
pub fn add(counts: &mut BTreeMap<&'static str, u64>, name: &'static str, n: u64) {
    *counts.entry(name).or_default() += n;
}
