//! One run: a plan in, a report out.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    panic,
    sync::{Arc, Once},
    thread,
    time::Duration,
};

use madsim::runtime::Runtime;
use stormkeep_core::{
    Counter,
    append::Outcome,
    entry::Entry,
    env::DocumentKey,
    group::{Group, Groups},
    shard::{
        Checkpoint, ShardId,
        replay::{Replay, Verdict},
    },
    time::HybridTime,
};

use crate::{
    crowd,
    fault::{Fault, What},
    history::{Exchange, Nanos},
    host,
    model::cassandra::QUORUM,
    oracle::{self, Evidence, Promise, Rest, Violation},
    plan::Plan,
    report::RunReport,
    schedule, virtual_time,
    world::{self, MS, World},
};

/// What to gather besides the report.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Keep the trace's events in the report.
    pub keep_trace: bool,
    /// Where the run's log lines go.
    pub log: Option<tracing::Dispatch>,
}

thread_local! {
    /// The first panic of the run on this thread.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

const THREAD: &str = "simulation";

/// Runs a plan, on a fresh OS thread (a second run on one thread would differ: the standard library
/// keeps its hash keys by thread). Never panics: a panic within is a violation of *no-panic*.
pub fn run(plan: &Plan, options: &Options) -> RunReport {
    let (plan, options) = (plan.clone(), options.clone());
    let seed = plan.seed;
    let body = move || {
        let log = options.log.clone().unwrap_or_else(tracing::Dispatch::none);
        tracing::dispatcher::with_default(&log, || simulate(plan, &options))
    };
    on_a_fresh_thread(body).unwrap_or_else(|(at, seen)| {
        let expected = "no code panics, whatever goes wrong".into();
        let violation = Violation { promise: Promise::NoPanic, expected, seen, at };
        RunReport { seed, violation: Some(violation), ..RunReport::default() }
    })
}

/// Lets a visitor into the world of a plan: its links and services are there, but no node has started, no client
/// calls, and no fault of the plan strikes, unless the visitor sees to it. For tests of the models and the adapters.
/// `Err`: it panicked, and said this.
pub fn visit<T, V>(
    plan: &Plan,
    visitor: impl FnOnce(Arc<World>) -> V + Send + 'static,
) -> Result<T, String>
where
    T: Send + 'static,
    V: Future<Output = T> + 'static,
{
    let plan = plan.clone();
    on_a_fresh_thread(move || within(plan, false, visitor).1).map_err(|(_, panic)| panic)
}

/// Runs a simulation on a thread of its own. `Err`: it panicked; when, and what it said.
fn on_a_fresh_thread<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<T, (Nanos, String)> {
    catch_panics();
    let said = || PANIC.take().unwrap_or_else(|| "a panic without a message".into());
    let body = move || {
        panic::catch_unwind(panic::AssertUnwindSafe(body))
            .map_err(|_| (virtual_time::now(), said()))
    };
    match thread::Builder::new().name(THREAD.into()).spawn(body).map(thread::JoinHandle::join) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err((0, "a panic without a message".into())),
        Err(error) => Err((0, format!("no thread for the simulation: {error}"))),
    }
}

/// Panics of simulations become violations; they are not printed. All others are left as they were.
fn catch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if thread::current().name() != Some(THREAD) {
                return before(info);
            }
            PANIC.with_borrow_mut(|first| {
                first.get_or_insert_with(|| info.to_string());
            });
        }));
    });
}

fn simulate(plan: Plan, options: &Options) -> RunReport {
    let (world, rest) = within(plan, options.keep_trace, |world| async move { live(&world).await });
    let evidence = gather(&world, rest);
    let violation = oracle::check(&evidence).into_iter().next();
    report(&world, &evidence, violation)
}

/// A world, from its first moment until `body` has ended.
fn within<T, V: Future<Output = T>>(
    plan: Plan,
    keep_trace: bool,
    body: impl FnOnce(Arc<World>) -> V,
) -> (Arc<World>, T) {
    virtual_time::set_now(0);
    let runtime = Runtime::with_seed_and_config(plan.seed, madsim::Config::default());
    let (world, services) = World::new(plan, keep_trace);
    let here = world.clone();
    let output = runtime.block_on(async move {
        let drive = madsim::task::spawn(here.kernel.drive());
        let services = madsim::task::spawn(world::serve(services));
        let output = body(here.clone()).await;
        // Everything in the world holds the world. Tasks are dropped when they are polled next.
        for number in 0..here.plan.nodes {
            host::kill(&here, number);
        }
        services.abort();
        drive.abort();
        here.kernel.clear();
        madsim::time::sleep(Duration::from_millis(1)).await;
        output
    });
    (world, output)
}

/// The two phases of a run: work and faults, then rest.
async fn live(world: &Arc<World>) -> Rest {
    for number in 0..world.plan.nodes {
        host::start(world, number);
    }
    crowd::start(world);
    schedule::schedule(world);
    let mut left = world.plan.chaos_ms;
    while left > 0 {
        let step = left.min(5000);
        world.kernel.sleep(step * MS).await;
        left -= step;
        // madsim keeps a note of every task that ever was until it is asked how many there are.
        world.runtime().metrics().num_tasks();
    }
    schedule::heal(world);
    crowd::stop(world);
    rest(world).await
}

/// Waits until all is well: every call has ended, every shard answers, the store has what the log has.
async fn rest(world: &Arc<World>) -> Rest {
    let healed_at = world.kernel.now();
    let limit = world.plan.rest_within_ms * MS;
    tracing::info!(limit_ms = world.plan.rest_within_ms, "healed");
    let mut folds = Folds::default();
    let mut stage = 0;
    let (mut goal, mut due) = (BTreeMap::new(), BTreeMap::new());
    loop {
        world.kernel.sleep(100 * MS).await;
        let quiet = world.crowd().is_quiet();
        let unfinished = world.crowd().unfinished;
        let mut lagging = lagging(world, &goal);
        lagging.extend(undelivered(world, &due));
        match stage {
            0 if quiet => {
                crowd::probe(world);
                stage = 1;
            }
            1 if unfinished == 0 => {
                crowd::inspect(world, 200);
                goal = folds.catch_up(world);
                due = folds.closed();
                stage = 2;
            }
            2 if unfinished == 0 => {
                crowd::overlook(world);
                stage = 3;
            }
            3 if unfinished == 0 && lagging.is_empty() => {
                // A question that was late on its way may be decided after its client has given it up: then it is waited for.
                let now = folds.catch_up(world);
                if folds.has_events_behind(&due) {
                    (goal, due) = (now, folds.closed());
                    continue;
                }
                let rested_at = Some(world.kernel.now());
                return Rest { healed_at, limit, rested_at, unwell: Vec::new() };
            }
            _ => {}
        }
        if world.kernel.now() > healed_at + limit {
            let mut unwell = lagging;
            match stage {
                0 => unwell.push("a call of a client has not ended".into()),
                1 => unwell.push(format!("{unfinished} shards do not take an append")),
                _ => unwell.extend(crowd::last_words(world)),
            }
            return Rest { healed_at, limit, rested_at: None, unwell };
        }
    }
}

/// What is accepted in each shard's log so far, folded as it grows.
#[derive(Default)]
struct Folds {
    replays: BTreeMap<ShardId, (usize, Replay)>,
    /// The time of the last event of each shard that has any.
    events: BTreeMap<ShardId, HybridTime>,
}

impl Folds {
    fn catch_up(&mut self, world: &World) -> BTreeMap<ShardId, u64> {
        let log = world.log();
        let mut accepted = BTreeMap::new();
        for shard in log.all_shards() {
            let begin = || (0, Replay::from(shard.id, Checkpoint::default()));
            let (read, replay) = self.replays.entry(shard.id).or_insert_with(begin);
            for record in log.records_from(shard.id, *read) {
                *read += 1;
                if let Ok(entry) = Entry::decode(&record.data) {
                    // A gap is for the oracles to judge.
                    let accepted = replay.apply(record.position, &entry) == Ok(Verdict::Accepted);
                    if accepted
                        && matches!(&entry, Entry::Batch(batch) if !batch.appends.is_empty())
                    {
                        self.events.insert(shard.id, replay.checkpoint().closed);
                    }
                }
            }
            accepted.insert(shard.id, replay.checkpoint().accepted);
        }
        accepted
    }

    /// Whether a shard has accepted an event since it had closed these times.
    fn has_events_behind(&self, closed: &BTreeMap<ShardId, HybridTime>) -> bool {
        self.events.iter().any(|(id, last)| closed.get(id) < Some(last))
    }

    /// The time that each shard has closed by now.
    fn closed(&self) -> BTreeMap<ShardId, HybridTime> {
        self.replays.iter().map(|(id, (_, replay))| (*id, replay.checkpoint().closed)).collect()
    }
}

/// The shards whose checkpoint is not where it has to be, a line each.
fn lagging(world: &World, goal: &BTreeMap<ShardId, u64>) -> Vec<String> {
    let closed: Vec<ShardId> =
        world.log().all_shards().iter().filter(|s| s.closed).map(|s| s.id).collect();
    let mut lines = Vec::new();
    for (shard, accepted) in goal {
        let at = world.store().checkpoint(*shard);
        if at.accepted < *accepted {
            lines.push(format!("shard {shard}: {} of {accepted} entries are folded", at.accepted));
        } else if closed.contains(shard) && !at.ended {
            lines.push(format!("shard {shard} is closed, but not folded to its end"));
        }
    }
    lines
}

/// The shards that are not settled for a group as far as they have to be, a line each.
fn undelivered(world: &World, due: &BTreeMap<ShardId, HybridTime>) -> Vec<String> {
    let mut lines = Vec::new();
    if world.plan.delivery.is_none() {
        return lines;
    }
    let shards = world.log().all_shards();
    for group in groups(world) {
        for info in shards.iter().filter(|info| group.touches(info.range)) {
            let Some(closed) = due.get(&info.id) else { continue };
            let settled = world.store().progress(info.id, group.number);
            let done = settled.ended || (!info.closed && settled.next > *closed);
            if *closed >= group.start.time() && !done {
                lines.push(format!(
                    "group {}: shard {} is settled up to {}, and should be up to {closed}",
                    group.id, info.id, settled.next
                ));
            }
        }
    }
    lines
}

/// The groups, as their document says.
fn groups(world: &World) -> Vec<Group> {
    let body = world.store().document(DocumentKey::Groups).body;
    Groups::decode(&body).map(|groups| groups.groups).unwrap_or_default()
}

fn gather(world: &World, rest: Rest) -> Evidence {
    let (shards, logs) = {
        let log = world.log();
        (log.all_shards(), log.all_records())
    };
    let history = std::mem::take(&mut *world.history());
    let repeats = |fault: &Fault| matches!(fault.what, What::Repeat { .. });
    let delivered_once = !world.plan.faults.iter().any(repeats);
    let (store, surely) = {
        let store = world.store();
        (store.dump(1), store.dump(QUORUM))
    };
    let groups = groups(world);
    Evidence { history, shards, logs, store, surely, groups, rest, delivered_once }
}

fn report(world: &World, evidence: &Evidence, violation: Option<Violation>) -> RunReport {
    let (faults, mut rare) = world.counts();
    for host in world.hosts().iter() {
        for counter in Counter::ALL {
            world::add(&mut rare, counter.label(), host.stats.get(*counter));
        }
    }
    let appends = evidence.history.calls.iter().filter_map(|call| match &call.what {
        Exchange::Append(_, answer) => Some(answer),
        _ => None,
    });
    let mut committed = 0;
    let mut unknown = 0;
    for answer in appends {
        match answer {
            Some(Ok(appended)) => committed += u64::from(!appended.repeated),
            Some(Err(error)) if error.outcome() != Outcome::Unknown => {}
            _ => unknown += 1,
        }
    }
    world::add(&mut rare, "appends that ended unknown for a client", unknown);
    let virtual_ns: Nanos = world.kernel.now();
    let trace = std::mem::take(&mut *world.trace());
    RunReport {
        seed: world.plan.seed,
        digest: trace.digest(),
        violation,
        virtual_ns,
        events: trace.count(),
        calls: evidence.history.calls.len() as u64,
        committed,
        faults,
        rare,
        trace: trace.into_kept(),
    }
}
