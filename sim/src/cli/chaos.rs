//! Chaos: many seeds over many threads. What it comes to is the same whatever the number of threads:
//! seeds are consecutive, and all that depends on their order is computed in their order.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    corpus::Entry,
    engine::{Engine, Simulator, run_twice},
    output::{Found, Output, Progress},
    table::Totals,
};
use crate::{
    plan::Plan, plant::Plant, report::RunReport, run::Options, scenario::Scenario,
    seedfile::SeedFile,
};

/// One seed in so many is run twice, and the two runs compared.
pub const TWICE_EVERY: u64 = 16;

/// How often the output hears of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// What to run.
#[derive(Debug, Clone)]
pub struct ChaosOptions {
    /// The scenario.
    pub scenario: Scenario,
    /// The fault to plant.
    pub plant: Plant,
    /// The first seed; the others follow it one by one.
    pub first_seed: u64,
    /// When to stop.
    pub limit: Limit,
    /// Threads.
    pub jobs: usize,
    /// Start no more runs after a violation.
    pub stop_at_first: bool,
    /// The planted fault is a canary: that it is found is what is wanted.
    pub canary: bool,
    /// Seed files to replay besides.
    pub corpus: Vec<Entry>,
    /// The directory for the seed files of violations; `None`: none are written.
    pub found: Option<PathBuf>,
}

/// When to start no more runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// After so many seeds.
    Seeds(u64),
    /// After so much real time.
    Time(Duration),
}

/// What it came to.
#[derive(Debug, Clone)]
pub struct ChaosSummary {
    /// The options.
    pub options: ChaosOptions,
    /// Real time.
    pub elapsed: Duration,
    /// Over all seeds; the corpus apart.
    pub totals: Totals,
    /// The digests of all seeds' runs in one, in order of the seeds. If the run stopped at the first
    /// violation, up to that seed.
    pub digest: u64,
    /// The violations, in order of their seeds.
    pub violations: Vec<Found>,
    /// The files of the corpus that did not do what they must, in order of their names.
    pub corpus_failures: Vec<Found>,
}

impl ChaosSummary {
    /// Whether no promise was broken, and the corpus did what it must.
    pub fn passed(&self) -> bool {
        self.violations.is_empty() && self.corpus_failures.is_empty()
    }

    /// How many seeds the digest is of.
    pub fn digested(&self) -> u64 {
        let stopped = if self.options.stop_at_first { self.seeds_to_find() } else { None };
        stopped.unwrap_or(self.totals.seeds)
    }

    /// How many seeds it took to find the first violation.
    pub fn seeds_to_find(&self) -> Option<u64> {
        self.violations.first().map(|found| found.seed - self.options.first_seed + 1)
    }
}

/// Runs seeds on the simulator.
pub fn chaos(options: &ChaosOptions, out: &mut dyn Output) -> ChaosSummary {
    chaos_with(&Simulator, options, out)
}

/// Runs seeds on an engine.
pub fn chaos_with(
    engine: &dyn Engine,
    options: &ChaosOptions,
    out: &mut dyn Output,
) -> ChaosSummary {
    out.start(options);
    let shop = Shop {
        engine,
        options,
        started: Instant::now(),
        next: Mutex::new(0),
        stop: AtomicBool::new(false),
    };
    let mut gathered = Gathered::new(options);
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for job in 0..options.jobs.max(1) {
            let (shop, sender) = (&shop, sender.clone());
            scope.spawn(move || shop.work(job, &sender));
        }
        drop(sender);
        let mut told = Instant::now();
        loop {
            // Progress is told after a beginning, so that it names the runs under way.
            let due = match receiver.recv_timeout(PROGRESS_EVERY) {
                Ok(note) => {
                    let began = matches!(note, Note::Began { .. });
                    gathered.take(note, out);
                    began && told.elapsed() >= PROGRESS_EVERY
                }
                Err(RecvTimeoutError::Timeout) => true,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if due {
                told = Instant::now();
                out.progress(&gathered.progress(shop.started.elapsed()));
            }
        }
    });
    let summary = gathered.end(shop.started.elapsed());
    out.end(&summary);
    summary
}

/// Where the workers get their work.
struct Shop<'a> {
    engine: &'a dyn Engine,
    options: &'a ChaosOptions,
    started: Instant,
    /// The number of the next run: the corpus first, then the seeds.
    next: Mutex<u64>,
    stop: AtomicBool,
}

/// What to run next.
enum Work<'a> {
    File(usize, &'a Entry),
    Seed(u64),
}

/// What a worker tells.
enum Note {
    Began { job: usize, seed: u64 },
    FileDone { job: usize, index: usize, found: Option<Found> },
    SeedDone { job: usize, done: Box<SeedDone> },
}

struct SeedDone {
    plan: Plan,
    report: RunReport,
    twice: bool,
}

impl Shop<'_> {
    /// Numbers are given out under one lock with the decision to stop, so that the seeds that are run
    /// are consecutive: none is missing in the middle.
    fn next(&self) -> Option<Work<'_>> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let files = self.options.corpus.len() as u64;
        let work = if let Some(entry) = self.options.corpus.get(*next as usize) {
            Work::File(*next as usize, entry)
        } else {
            let index = *next - files;
            let over = match self.options.limit {
                Limit::Seeds(count) => index >= count,
                // At least one seed is run, however little time there is.
                Limit::Time(time) => index > 0 && self.started.elapsed() >= time,
            };
            if over || self.stop.load(Ordering::Relaxed) {
                return None;
            }
            Work::Seed(self.options.first_seed.checked_add(index)?)
        };
        *next += 1;
        Some(work)
    }

    fn work(&self, job: usize, notes: &Sender<Note>) {
        while let Some(work) = self.next() {
            let note = match work {
                Work::File(index, entry) => {
                    let seed = entry.file.plan.seed;
                    // The receiver lives as long as the workers do.
                    let _ = notes.send(Note::Began { job, seed });
                    Note::FileDone { job, index, found: self.file(entry) }
                }
                Work::Seed(seed) => {
                    let _ = notes.send(Note::Began { job, seed });
                    let done = self.seed(seed);
                    if self.options.stop_at_first && done.report.violation.is_some() {
                        self.stop.store(true, Ordering::Relaxed);
                    }
                    Note::SeedDone { job, done: Box::new(done) }
                }
            };
            let _ = notes.send(note);
        }
    }

    fn seed(&self, seed: u64) -> SeedDone {
        let mut plan = self.engine.plan(self.options.scenario, seed);
        plan.plant = self.options.plant;
        let twice = seed.is_multiple_of(TWICE_EVERY);
        let report = if twice {
            run_twice(self.engine, &plan, None)
        } else {
            self.engine.run(&plan, &Options::default())
        };
        SeedDone { plan, report, twice }
    }

    /// A file runs twice, since it may be there for what was not repeatable.
    fn file(&self, entry: &Entry) -> Option<Found> {
        let report = run_twice(self.engine, &entry.file.plan, None);
        let problem = entry.file.expect.judge(report.violation.as_ref()).err()?;
        let mut found = Found::of(&entry.file.plan, report.violation);
        found.corpus = Some((entry.path.clone(), problem));
        found.file = Some(entry.path.clone());
        Some(found)
    }
}

/// What the workers have told so far.
struct Gathered<'a> {
    options: &'a ChaosOptions,
    running: BTreeMap<usize, u64>,
    totals: Totals,
    /// Digests of seeds that ended before one that began earlier, and whether they broke a promise.
    early: BTreeMap<u64, (u64, bool)>,
    next_seed: Option<u64>,
    digest: u64,
    violations: BTreeMap<u64, Found>,
    corpus_failures: BTreeMap<usize, Found>,
}

impl<'a> Gathered<'a> {
    fn new(options: &'a ChaosOptions) -> Self {
        Gathered {
            options,
            running: BTreeMap::new(),
            totals: Totals::default(),
            early: BTreeMap::new(),
            next_seed: Some(options.first_seed),
            digest: 0,
            violations: BTreeMap::new(),
            corpus_failures: BTreeMap::new(),
        }
    }

    fn take(&mut self, note: Note, out: &mut dyn Output) {
        match note {
            Note::Began { job, seed } => {
                self.running.insert(job, seed);
            }
            Note::FileDone { job, index, found } => {
                self.running.remove(&job);
                if let Some(found) = found {
                    out.found(&found);
                    self.corpus_failures.insert(index, found);
                }
            }
            Note::SeedDone { job, done } => {
                self.running.remove(&job);
                self.seed_done(*done, out);
            }
        }
    }

    fn seed_done(&mut self, done: SeedDone, out: &mut dyn Output) {
        let SeedDone { plan, report, twice } = done;
        self.totals.add(&report);
        self.totals.twice += u64::from(twice);
        let broken = report.violation.is_some();
        self.early.insert(plan.seed, (report.digest, broken));
        while let Some(seed) = self.next_seed
            && let Some((digest, broken)) = self.early.remove(&seed)
        {
            self.digest = mixed(mixed(self.digest, seed), digest);
            let last = broken && self.options.stop_at_first;
            self.next_seed = if last { None } else { seed.checked_add(1) };
        }
        if broken {
            let found = self.written(plan, report);
            out.found(&found);
            self.violations.insert(found.seed, found);
        }
    }

    /// Writes the seed file of a violation.
    fn written(&self, plan: Plan, report: RunReport) -> Found {
        let mut found = Found::of(&plan, report.violation);
        let Some(directory) = &self.options.found else { return found };
        let path = directory.join(format!("{}.toml", found.name()));
        let story = found.violation.as_ref().map_or_else(String::new, |violation| {
            format!(
                "violation of {} at {:.6} virtual s: {}",
                violation.promise,
                violation.at as f64 / 1e9,
                violation.seen.lines().next().unwrap_or_default()
            )
        });
        match SeedFile::of(plan, story).save(&path) {
            Ok(()) => found.file = Some(path),
            Err(error) => found.unwritten = Some(error.to_string()),
        }
        found
    }

    fn progress(&self, elapsed: Duration) -> Progress<'_> {
        let running = self.running.values().copied().collect();
        Progress { options: self.options, elapsed, totals: &self.totals, running }
    }

    fn end(self, elapsed: Duration) -> ChaosSummary {
        ChaosSummary {
            options: self.options.clone(),
            elapsed,
            totals: self.totals,
            digest: self.digest,
            violations: self.violations.into_values().collect(),
            corpus_failures: self.corpus_failures.into_values().collect(),
        }
    }
}

fn mixed(digest: u64, word: u64) -> u64 {
    (digest.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (word >> 31)
}

#[cfg(test)]
mod tests;
