//! The arguments of the command, and how they are read.

use std::{
    num::NonZero,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use super::{
    BadInput,
    chaos::{ChaosOptions, Limit},
    corpus,
};
use crate::{
    live::{Services, Target as LiveThing},
    plant::Plant,
    scenario::Scenario,
    seedfile::{COMMIT, SeedFile},
};

/// How long `chaos` goes on if it is not told.
const DEFAULT_TIME: Duration = Duration::from_secs(30);
/// How many seeds a canary may take if it is not told.
const CANARY_SEEDS: u64 = 2000;

#[derive(Debug, Parser)]
#[command(
    name = "sim",
    bin_name = "cargo sim",
    version = COMMIT,
    about = "Stormkeep's simulator: the real core in a world that fails on purpose. A failure is a seed.",
    after_help = "Exit codes: 0 all is well, 1 a promise is broken, 2 bad input."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run many seeds over all cores; exit 1 if one breaks a promise
    Chaos(ChaosArgs),
    /// Run one seed, or the plan of a seed file, once more, event for event
    Replay(ReplayArgs),
    /// Make a failing seed file smaller: fewer faults, less time, fewer clients and nodes
    Shrink(ShrinkArgs),
    /// Drive real processes by the same crowd, break them, and ask the same oracles; exit 1 if a promise is broken
    Live(LiveArgs),
    /// Measure how fast the simulation is, beside the bare runtime beneath it
    Speed(SpeedArgs),
    /// List the scenarios
    Scenarios,
    /// Print the plan of a seed as a seed file, to be edited and replayed
    Plan(PlanArgs),
}

#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct ChaosArgs {
    /// The seeds from A up to, not including, B; without it, fresh random ones
    #[arg(long, value_name = "A..B", value_parser = parse_seeds, conflicts_with = "time")]
    pub(crate) seeds: Option<Range<u64>>,
    /// How long to go on with fresh seeds: 500ms, 30s, 10m, 2h [default: 30s]
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time)]
    pub(crate) time: Option<Duration>,
    /// Runs at a time [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) jobs: Option<u16>,
    /// What is to happen; see `cargo sim scenarios`
    #[arg(long, value_name = "S", default_value = "chaos")]
    pub(crate) scenario: Scenario,
    /// A fault to plant in the protocol: none, no-epoch-check, no-batch-index, early-watermark,
    /// checkpoint-before-ack, starts-at-end
    #[arg(long, value_name = "P")]
    pub(crate) plant: Option<Plant>,
    /// See that the oracles see: plant a fault (no-epoch-check, if not told), stop when it is found, exit 1
    #[arg(long)]
    pub(crate) canary: bool,
    /// Stop at the first violation
    #[arg(long)]
    pub(crate) stop_at_first: bool,
    /// For machines: one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Leave out the seed files in seeds/
    #[arg(long)]
    pub(crate) no_corpus: bool,
    /// Where the seed files of violations go
    #[arg(long, value_name = "DIR", default_value = "found")]
    pub(crate) found: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ReplayArgs {
    /// A seed (decimal or 0x…), or the path of a seed file
    #[arg(value_name = "SEED|FILE", value_parser = parse_target)]
    pub(crate) target: Target,
    /// The scenario of the seed [default: chaos]; a file has its own
    #[arg(long, value_name = "S")]
    pub(crate) scenario: Option<Scenario>,
    /// A fault to plant in the protocol: none, no-epoch-check, no-batch-index, early-watermark,
    /// checkpoint-before-ack, starts-at-end
    #[arg(long, value_name = "P")]
    pub(crate) plant: Option<Plant>,
    /// Print what the core logs, a line an event, with virtual time, node, shard and epoch
    #[arg(long)]
    pub(crate) trace: bool,
    /// For machines: one JSON object a line (the trace goes to standard error)
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ShrinkArgs {
    /// The seed file of a violation
    pub(crate) file: PathBuf,
    /// Where the smaller one goes [default: beside it, as NAME.small.toml]
    #[arg(short, long, value_name = "OUT")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SpeedArgs {
    /// How long to run seeds
    #[arg(long, default_value = "20", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// For machines: one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct LiveArgs {
    /// What is driven: one process on disk, or three nodes on the services of tests/services/up
    #[arg(long, value_name = "T", default_value = "disk")]
    pub(crate) target: LiveTarget,
    /// How long things go wrong: 30s, 5m, 2h; up to a minute of rest follows
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time, default_value = "1m")]
    pub(crate) time: Duration,
    /// The seed of clients and faults [default: a fresh one]
    #[arg(long, value_parser = parse_seed)]
    pub(crate) seed: Option<u64>,
    /// The server's program [default: beside this one]
    #[arg(long, value_name = "FILE")]
    pub(crate) server: Option<PathBuf>,
    /// Where processes keep their files, which stay [default: a temporary one, which goes if all is well]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Shards of the log
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) shards: u32,
    /// See that the oracles see: the process loses its disk when it is killed first, and that must be found (exit 1)
    #[arg(long, conflicts_with = "target")]
    pub(crate) canary: bool,
    /// Of a cluster: where the stand-in for Kinesis is
    #[arg(
        long,
        env = "KINESIS_ENDPOINT",
        value_name = "URL",
        default_value = "http://127.0.0.1:4568"
    )]
    pub(crate) kinesis: String,
    /// Of a cluster: the first three numbers of the addresses of Cassandra's nodes
    #[arg(long, env = "CASSANDRA_NET", value_name = "A.B.C", default_value = "127.0.0")]
    pub(crate) cassandra: String,
    /// Of a cluster: the same of the addresses that they name to clients, if `up` was told others; then links to them fail, too
    #[arg(long, env = "CASSANDRA_BROADCAST", value_name = "A.B.C")]
    pub(crate) broadcast: Option<String>,
    /// Of a cluster: leave the nodes of Cassandra alone
    #[arg(long)]
    pub(crate) spare_cassandra: bool,
    /// For machines: one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a live run drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LiveTarget {
    Disk,
    Cluster,
}

impl LiveArgs {
    /// The target, with what is known of its services.
    pub(crate) fn target(&self) -> LiveThing {
        match self.target {
            LiveTarget::Disk => LiveThing::Disk,
            LiveTarget::Cluster => {
                let script =
                    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/services/cassandra/node");
                LiveThing::Cluster(Services {
                    kinesis: self.kinesis.clone(),
                    cassandra: self.cassandra.clone(),
                    broadcast: self.broadcast.clone(),
                    script: (!self.spare_cassandra && script.exists()).then_some(script),
                })
            }
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PlanArgs {
    /// The seed: decimal or 0x…
    #[arg(value_parser = parse_seed)]
    pub(crate) seed: u64,
    /// What is to happen; see `cargo sim scenarios`
    #[arg(long, value_name = "S", default_value = "chaos")]
    pub(crate) scenario: Scenario,
    /// A fault to plant in the protocol: none, no-epoch-check, no-batch-index, early-watermark,
    /// checkpoint-before-ack, starts-at-end
    #[arg(long, value_name = "P", default_value = "none")]
    pub(crate) plant: Plant,
}

/// What to replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Seed(u64),
    File(PathBuf),
}

impl ChaosArgs {
    /// Whether nothing was said about how long to go on.
    pub(crate) fn is_default(&self) -> bool {
        self.seeds.is_none() && self.time.is_none() && !self.canary
    }

    /// All options, those that were not said too. `fresh`: the first seed, if none is said.
    pub(crate) fn options(&self, fresh: u64) -> Result<ChaosOptions, BadInput> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let (first_seed, limit) = match (&self.seeds, self.time) {
            (Some(seeds), _) => (seeds.start, Limit::Seeds(seeds.end - seeds.start)),
            (None, Some(time)) => (fresh, Limit::Time(time)),
            (None, None) if self.canary => (fresh, Limit::Seeds(CANARY_SEEDS)),
            (None, None) => (fresh, Limit::Time(DEFAULT_TIME)),
        };
        let plant = match self.plant {
            Some(Plant::None) if self.canary => {
                return Err(BadInput(
                    "--canary needs a planted fault, not --plant none".to_owned(),
                ));
            }
            Some(plant) => plant,
            None if self.canary => Plant::NoEpochCheck,
            None => Plant::None,
        };
        // The corpus says what happens to the whole core; a planted fault would make it say nothing.
        let corpus = match corpus::directory() {
            Some(directory) if !self.no_corpus && plant == Plant::None => corpus::load(&directory)?,
            _ => Vec::new(),
        };
        Ok(ChaosOptions {
            scenario: self.scenario,
            plant,
            first_seed,
            limit,
            jobs: self.jobs.map_or(cores, usize::from),
            stop_at_first: self.stop_at_first || self.canary,
            canary: self.canary,
            corpus,
            found: Some(self.found.clone()),
        })
    }
}

impl ReplayArgs {
    /// The run that is meant: a file of it, and its path if it came from one.
    pub(crate) fn file(
        &self,
        plan: impl FnOnce(Scenario, u64) -> crate::plan::Plan,
    ) -> Result<(SeedFile, Option<&Path>), BadInput> {
        let (mut file, path) = match &self.target {
            Target::Seed(seed) => {
                let plan = plan(self.scenario.unwrap_or(Scenario::Chaos), *seed);
                (SeedFile::of(plan, String::new()), None)
            }
            Target::File(path) if self.scenario.is_some() => {
                return Err(BadInput(format!(
                    "--scenario goes with a seed only: {} holds a whole plan, its scenario too",
                    path.display()
                )));
            }
            Target::File(path) => (SeedFile::load(path)?, Some(path.as_path())),
        };
        if let Some(plant) = self.plant {
            file.plan.plant = plant;
        }
        Ok((file, path))
    }
}

/// A seed: decimal, or hexadecimal with 0x.
pub(crate) fn parse_seed(text: &str) -> Result<u64, String> {
    let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        // `from_str_radix` and `parse` take a sign; a seed has none.
        Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16).ok(),
        None if !text.starts_with('+') => text.parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| {
        format!("{text:?} is no seed: a seed is a whole number from 0 to {}, or 0x…", u64::MAX)
    })
}

/// A half-open range of seeds.
pub(crate) fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let (start, end) = text
        .split_once("..")
        .ok_or_else(|| format!("{text:?} is no range of seeds: write A..B, such as 0..1000"))?;
    if let Some(end) = end.strip_prefix('=') {
        return Err(format!("ranges of seeds leave out their end: for {end} too, write one more"));
    }
    let (start, end) = (parse_seed(start)?, parse_seed(end)?);
    if start > end {
        return Err(format!("{text} runs backwards: write {end}..{start}"));
    }
    if start == end {
        return Err(format!(
            "{text} holds no seed: its end is left out; write {start}..B, B larger"
        ));
    }
    Ok(start..end)
}

/// A span of time: 500ms, 30s, 10m, 2h.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no span of time: write 500ms, 30s, 10m or 2h");
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    // A year bounds it, so that no sum of times can overflow.
    match number.checked_mul(unit_ms) {
        Some(0) => Err(format!("{text}: no time at all; write 500ms, 30s, 10m or 2h")),
        Some(ms) if ms <= 365 * 24 * 3_600_000 => Ok(Duration::from_millis(ms)),
        _ => Err(format!("{text}: more than a year")),
    }
}

/// A seed or a file. What looks like a number is meant as a seed.
pub(crate) fn parse_target(text: &str) -> Result<Target, String> {
    let numeric = text.starts_with("0x") || text.chars().all(|c| c.is_ascii_digit() || c == '-');
    if numeric && !text.is_empty() {
        parse_seed(text).map(Target::Seed)
    } else {
        Ok(Target::File(PathBuf::from(text)))
    }
}

#[cfg(test)]
mod tests;
