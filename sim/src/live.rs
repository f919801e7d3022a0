//! Chaos on the real thing: the crowd of the simulator and its oracles, against real processes, sockets and services.
//!
//! ```text
//!  crowd (unchanged) ─ carrier: HTTP and JSON ─ proxy ─> stormkeep serve ─ proxies ─> log, store, peers
//!    │                                            ^          ^
//!  history ─> oracles (unchanged)                 └─ faults ─┘  SIGKILL, SIGSTOP
//! ```
//!
//! Clients are the same state machines with the same randomness; only time is real: the kernel's queue of events follows the
//! machine's clock, and everything runs on one thread. A seed fixes what clients want and what goes wrong when, not how the
//! run goes. Processes are driven through the API that their users have, so that the way from the socket to the node is tried
//! as well.
//!
//! The oracles see what clients saw, and what all shards held at the end in their one order (`evidence.rs`). So of the
//! promises these are judged: *durable*, *linearizable*, *gapless*, *ordered*, *live*, and the half of *fenced* that speaks
//! of facts. Its other half is not, since epochs are not in the API; nor are *faithful* and *delivered*, which look into the log and
//! the store, nor *repeatable*, which no real run is. The API has no limits and deletions of the crowd's kind, and no eventual
//! reads: clients do without them here.

mod carrier;
mod disturb;
mod document;
mod evidence;
mod orchestra;
pub mod proxy;
mod server;
mod stage;

use std::{path::PathBuf, time::Duration};

use crate::{
    oracle::Violation,
    plan::{Latency, Plan},
    report::Counts,
    scenario::Scenario,
};

pub use orchestra::run;

/// What is driven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One process, with its log and store on disk.
    Disk,
    /// Three nodes, on services that are up.
    Cluster(Services),
}

/// The services that a cluster runs on: those of `tests/services/up`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Services {
    /// Where the stand-in for Kinesis is, `http://127.0.0.1:4568`.
    pub kinesis: String,
    /// The first three numbers of the addresses of Cassandra's nodes.
    pub cassandra: String,
    /// The same of the addresses that these nodes name to clients, if others: then links to them can fail.
    pub broadcast: Option<String>,
    /// `tests/services/cassandra/node`: then one of them is killed and stopped.
    pub script: Option<PathBuf>,
}

impl Target {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Target::Disk => "disk",
            Target::Cluster(_) => "cluster",
        }
    }

    /// What it is.
    pub fn sentence(&self) -> &'static str {
        match self {
            Target::Disk => "one process with its files on disk",
            Target::Cluster(_) => "three nodes on Kinesis and Cassandra",
        }
    }
}

/// What a run is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The seed: of what clients ask, and of what goes wrong when.
    pub seed: u64,
    /// What is driven.
    pub target: Target,
    /// How long things go wrong.
    pub time: Duration,
    /// The binary.
    pub server: PathBuf,
    /// Where processes keep their files and logs; made if it is not there.
    pub directory: PathBuf,
    /// Shards of the log.
    pub shards: u32,
    /// Whether the disk of a process is lost at its first kill, to see that the oracles see it. Of [`Target::Disk`].
    pub canary: bool,
}

/// Why a run could not be made. Nothing is said about any promise.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct LiveError {
    what: String,
    why: String,
}

impl LiveError {
    fn new(what: impl Into<String>, why: impl ToString) -> Self {
        LiveError { what: what.into(), why: why.to_string() }
    }
}

/// How far a run is.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Since it began.
    pub elapsed: Duration,
    /// Calls of clients.
    pub calls: u64,
    /// Appends that were answered as committed.
    pub committed: u64,
    /// Appends whose outcome a client does not know, retries included.
    pub unknown: u64,
    /// Faults so far, by kind.
    pub faults: Counts,
    /// Whether the faults have ended.
    pub healed: bool,
}

/// What a run came to.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// At the end.
    pub progress: Progress,
    /// Broken promises, the most important first.
    pub violations: Vec<Violation>,
    /// What processes said or did that they never should.
    pub defects: Vec<String>,
    /// Events that all shards held at the end.
    pub events: u64,
    /// What happened that seldom happens, for a client to see.
    pub rare: Counts,
}

impl Report {
    /// Whether all was well.
    pub fn passed(&self) -> bool {
        self.violations.is_empty() && self.defects.is_empty()
    }
}

/// The plan of a live run: a crowd, and links that add nothing to the real ones.
fn plan(options: &Options) -> Plan {
    let mut plan = Scenario::Calm.plan(options.seed);
    let nothing = Latency { usual_us: 0, tail_us: 0, tail_per_mille: 0 };
    plan.links.client = nothing;
    let cluster = matches!(options.target, Target::Cluster(_));
    plan.nodes = if cluster { 3 } else { 1 };
    plan.shards = options.shards;
    plan.chaos_ms = options.time.as_millis() as u64;
    // A node of Cassandra takes half a minute to start, on a busy machine more.
    plan.rest_within_ms = if cluster { 240_000 } else { 60_000 };
    plan.delivery = None;
    let workload = &mut plan.workload;
    workload.clients = 24;
    workload.think_ms = if cluster { 200 } else { 60 };
    workload.timeout_ms = if cluster { 5000 } else { 3000 };
    workload.streams = 60;
    workload.events_max = 4;
    workload.event_bytes_max = 600;
    workload.retry_per_mille = 900;
    workload.eventual_per_mille = 0;
    workload.follow = false;
    workload.all_followers = 2;
    workload.read_all_per_mille = 100;
    workload.backwards_per_mille = 300;
    workload.describe_per_mille = 0;
    workload.tombstone_per_mille = 0;
    plan
}
