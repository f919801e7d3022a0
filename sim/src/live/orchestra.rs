//! One live run: starts everything, lets things go wrong, waits until all is well, and asks the oracles.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{StreamExt, channel::mpsc};
use stormkeep_core::{append::Outcome, event::RecordedEvent};
use tokio::runtime;

use super::{
    LiveError, Options, Progress, Report,
    carrier::Carrier,
    disturb::{self, Disturbance, Place},
    evidence,
    stage::Stage,
};
use crate::{
    crowd,
    history::{Exchange, Nanos},
    host::Inbound,
    oracle::{Evidence, Rest},
    world::World,
};

/// How long a fresh cluster may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Between two looks at what is due.
const TICK: Duration = Duration::from_millis(1);
/// Between two words on how far the run is.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Streams that are read whole at the end.
const INSPECTED_MAX: usize = 400;

/// See the module's docs. `tell` hears now and then how far it is.
pub fn run(options: &Options, tell: &mut dyn FnMut(&Progress)) -> Result<Report, LiveError> {
    fs::create_dir_all(&options.directory)
        .map_err(|error| LiveError::new(options.directory.display().to_string(), error))?;
    if !options.server.is_file() {
        return Err(LiveError::new(
            options.server.display().to_string(),
            "there is no such program: `cargo build --release --package stormkeep`, or give --server",
        ));
    }
    // The world and its clients are on one thread: see `World`.
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| LiveError::new("the runtime", error))?;
    runtime.block_on(async {
        let live = Live::start(options).await?;
        let report = live.play(options, tell).await;
        live.end();
        report
    })
}

struct Live {
    world: Arc<World>,
    carrier: Arc<Carrier>,
    stage: Arc<Mutex<Stage>>,
    began: Instant,
}

/// All of it is used by one thread, in turn.
fn lock(stage: &Mutex<Stage>) -> MutexGuard<'_, Stage> {
    stage.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Live {
    async fn start(options: &Options) -> Result<Live, LiveError> {
        let plan = super::plan(options);
        let mut stage = Stage::set(options, &plan).await?;
        let carrier = Arc::new(Carrier::new(stage.doors()));
        // Services of the model have nothing to do here: the world gives the clients their place, and their time.
        let (world, _services) = World::new(plan, false);
        stage.start()?;
        let stage = Arc::new(Mutex::new(stage));
        let live = Live { world, carrier, stage, began: Instant::now() };
        live.until_ready().await?;
        Ok(Live { began: Instant::now(), ..live })
    }

    async fn until_ready(&self) -> Result<(), LiveError> {
        for node in 0..self.world.plan.nodes {
            while !self.carrier.is_ready(node).await {
                if let Some(words) = lock(&self.stage).ended().pop() {
                    return Err(LiveError::new("a node", words));
                }
                if self.began.elapsed() > READY_WITHIN {
                    let why = format!("not ready within {READY_WITHIN:?}; see its log");
                    return Err(LiveError::new(format!("node {node}"), why));
                }
                tokio::time::sleep(TICK * 50).await;
            }
        }
        Ok(())
    }

    /// Clients come to the doors.
    fn open(&self) {
        for node in 0..self.world.plan.nodes {
            let (inbox, mut arriving) = mpsc::unbounded::<Inbound>();
            self.world.hosts()[node as usize].inbox = Some(inbox);
            self.world.history().processes.push((node, 0));
            let (world, carrier, began) = (self.world.clone(), self.carrier.clone(), self.began);
            tokio::spawn(async move {
                while let Some(inbound) = arriving.next().await {
                    let (world, carrier) = (world.clone(), carrier.clone());
                    tokio::spawn(async move {
                        let Inbound { request, timeout, reply, .. } = inbound;
                        let asked = carrier.ask(node, request);
                        // Whoever waited has given up by then: the connection is of no use.
                        let Ok(answer) = tokio::time::timeout(timeout, asked).await else { return };
                        // It is heard now, not when the last event was due.
                        world.kernel.catch_up(nanos(began.elapsed()));
                        reply(answer);
                    });
                }
            });
        }
    }

    fn now(&self) -> Nanos {
        nanos(self.began.elapsed())
    }

    /// Lets time pass until this holds, or a moment comes. Whether it holds.
    async fn pass(
        &self,
        until: Duration,
        tell: &mut dyn FnMut(&Progress),
        told: &mut Duration,
        holds: impl Fn() -> bool,
    ) -> bool {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.world.kernel.catch_up(self.now());
            lock(&self.stage).ended().into_iter().for_each(|words| self.carrier.defect(words));
            let elapsed = self.began.elapsed();
            if elapsed >= *told + TELL_EVERY {
                *told = elapsed;
                tell(&self.progress(false));
            }
            if holds() {
                return true;
            }
            if elapsed >= until {
                return false;
            }
        }
    }

    async fn play(
        &self,
        options: &Options,
        tell: &mut dyn FnMut(&Progress),
    ) -> Result<Report, LiveError> {
        self.open();
        let places = lock(&self.stage).places();
        crowd::start(&self.world);
        for disturbance in disturb::draw(options.seed, &places, options.time) {
            self.schedule(disturbance);
        }
        let mut told = Duration::ZERO;
        self.pass(options.time, tell, &mut told, || false).await;
        self.heal();
        crowd::stop(&self.world);
        let rest = self.rest(tell, &mut told).await;
        tell(&self.progress(true));
        let all = self.everything().await;
        self.report(rest, all)
    }

    /// Makes a disturbance happen, and end.
    fn schedule(&self, disturbance: Disturbance) {
        let Disturbance { at, lasts, what, place } = disturbance;
        let (stage, carrier) = (self.stage.clone(), self.carrier.clone());
        self.world.kernel.after(nanos(at), move || {
            if let Err(error) = lock(&stage).begin(what, place) {
                carrier.defect(format!("{} of {place:?}: {error}", what.kind()));
            }
        });
        let (stage, carrier, world) =
            (self.stage.clone(), self.carrier.clone(), self.world.clone());
        self.world.kernel.after(nanos(at + lasts), move || end(&stage, &carrier, &world, place));
    }

    /// All faults end.
    fn heal(&self) {
        // The lock must be free again: each end takes it.
        let places = lock(&self.stage).places();
        for place in places {
            end(&self.stage, &self.carrier, &self.world, place);
        }
    }

    /// Waits until all is well: every call has ended, every shard takes an append through every node, all streams can be
    /// read, and every node shows all that was answered in the order of all events.
    async fn rest(&self, tell: &mut dyn FnMut(&Progress), told: &mut Duration) -> Rest {
        let healed_at = self.now();
        let limit = Duration::from_millis(self.world.plan.rest_within_ms);
        let until = self.began.elapsed() + limit;
        let done = || self.world.crowd().unfinished == 0;
        let mut unwell = Vec::new();
        if !self.pass(until, tell, told, || self.world.crowd().is_quiet()).await {
            unwell.push("a call of a client has not ended".into());
        }
        crowd::probe(&self.world);
        if unwell.is_empty() && !self.pass(until, tell, told, done).await {
            let left = self.world.crowd().unfinished;
            unwell.push(format!("{left} shards, each through one node, do not take an append"));
        }
        crowd::inspect(&self.world, INSPECTED_MAX);
        if unwell.is_empty() && !self.pass(until, tell, told, done).await {
            unwell.extend(crowd::last_words(&self.world));
        }
        crowd::overlook(&self.world);
        if unwell.is_empty() && !self.pass(until, tell, told, done).await {
            unwell.extend(crowd::last_words(&self.world));
        }
        let rested_at = unwell.is_empty().then(|| self.now());
        Rest { healed_at, limit: nanos(limit), rested_at, unwell }
    }

    /// What all shards hold. Without it nothing can be judged.
    async fn everything(&self) -> Result<Vec<RecordedEvent>, LiveError> {
        let until = self.began.elapsed() + READY_WITHIN;
        loop {
            match self.carrier.everything(0).await {
                Ok(events) => return Ok(events),
                Err(error) if self.began.elapsed() > until => {
                    return Err(LiveError::new("the events of all shards", error));
                }
                Err(_) => tokio::time::sleep(TICK * 200).await,
            }
        }
    }

    fn progress(&self, healed: bool) -> Progress {
        let history = self.world.history();
        let mut progress = Progress {
            elapsed: self.began.elapsed(),
            calls: history.calls.len() as u64,
            faults: lock(&self.stage).faults.clone(),
            healed,
            ..Progress::default()
        };
        for call in &history.calls {
            let Exchange::Append(_, answer) = &call.what else { continue };
            match answer {
                Some(Ok(appended)) => progress.committed += u64::from(!appended.repeated),
                Some(Err(error)) if error.outcome() != Outcome::Unknown => {}
                _ => progress.unknown += u64::from(call.ended.is_some()),
            }
        }
        progress
    }

    fn report(
        &self,
        rest: Rest,
        all: Result<Vec<RecordedEvent>, LiveError>,
    ) -> Result<Report, LiveError> {
        let progress = self.progress(true);
        let all = all?;
        let shards = self.world.log().all_shards();
        let events = all.len() as u64;
        let history = std::mem::take(&mut *self.world.history());
        let logs = evidence::logs(&shards, all);
        // Nothing repeats a request here: neither the carrier, nor TCP.
        let evidence =
            Evidence { history, shards, logs, rest, delivered_once: true, ..Evidence::default() };
        let violations = evidence::judge(&evidence);
        let rare: BTreeMap<&'static str, u64> =
            self.world.counts().1.into_iter().filter(|(_, count)| *count > 0).collect();
        Ok(Report { progress, violations, defects: self.carrier.defects(), events, rare })
    }

    /// Ends all processes, and lets go of what holds itself.
    fn end(self) {
        self.world.hosts().iter_mut().for_each(|host| host.inbox = None);
        self.world.kernel.clear();
    }
}

/// What went wrong at a place ends.
fn end(stage: &Mutex<Stage>, carrier: &Carrier, world: &World, place: Place) {
    match lock(stage).end(place) {
        Ok(true) => {
            if let Place::Process(node) = place {
                world.history().processes.push((node, world.kernel.now()));
            }
        }
        Ok(false) => {}
        Err(error) => carrier.defect(format!("the end of what was wrong at {place:?}: {error}")),
    }
}

fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
