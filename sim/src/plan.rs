//! A plan: every knob of one run, and its schedule of faults. Derived from a seed by a
//! [`Scenario`](crate::scenario::Scenario), printed before the run, and written to the seed file whole, so
//! that a seed keeps its meaning.

mod delivery;

use serde::{Deserialize, Serialize};

use crate::{fault::Fault, plant::Plant, scenario::Scenario};

pub use delivery::{Delivery, GroupKnobs, LambdaKnobs, SourceKnob};

/// See the module's docs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The seed: of the streams of randomness of links, services, nodes and workload.
    pub seed: u64,
    /// The scenario that made the plan.
    pub scenario: Scenario,
    /// A fault planted in the traits' adapters, to see that the oracles find it.
    #[serde(default)]
    pub plant: Plant,
    /// Nodes of the cluster.
    pub nodes: u32,
    /// Shards at the start.
    pub shards: u32,
    /// Virtual milliseconds of work and faults.
    pub chaos_ms: u64,
    /// Virtual milliseconds after the faults within which all must be well again.
    pub rest_within_ms: u64,
    /// The clients.
    pub workload: Workload,
    /// The links between places.
    pub links: Links,
    /// The log service.
    pub log: LogKnobs,
    /// The store service.
    pub store: StoreKnobs,
    /// The settings of the nodes.
    pub core: CoreKnobs,
    /// What is delivered; `None`: nothing, and no worker runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// What goes wrong, and when.
    #[serde(default)]
    pub faults: Vec<Fault>,
}

/// What clients do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Clients at work all the time.
    pub clients: u32,
    /// Mean wait of a client between two calls, in virtual milliseconds.
    pub think_ms: u64,
    /// How long a client waits for an answer, in virtual milliseconds.
    pub timeout_ms: u64,
    /// Streams that the clients share.
    pub streams: u32,
    /// How many calls of a thousand go to a tenth of the streams.
    pub hot_per_mille: u32,
    /// How many calls of a thousand are reads.
    pub read_per_mille: u32,
    /// How many reads of a thousand are eventual.
    pub eventual_per_mille: u32,
    /// How many appends of a thousand that ended unknown are tried again, under the same id.
    pub retry_per_mille: u32,
    /// Events of one append at the most.
    pub events_max: u32,
    /// Bytes of one event at the most.
    pub event_bytes_max: u32,
    /// Whether one client follows each shard's log from its beginning.
    pub follow: bool,
    /// How many clients follow all shards in their one order.
    #[serde(default)]
    pub all_followers: u32,
    /// How many reads of a thousand are of all shards; and after how many appends of a thousand the client looks for
    /// what it has appended in the order of all events.
    #[serde(default)]
    pub read_all_per_mille: u32,
    /// How many reads of a stream of a thousand go backwards.
    #[serde(default)]
    pub backwards_per_mille: u32,
    /// How many calls of a thousand are of the metadata of a stream: limits and deletions.
    #[serde(default)]
    pub describe_per_mille: u32,
    /// How many of these, again of a thousand, end the stream for ever.
    #[serde(default)]
    pub tombstone_per_mille: u32,
}

/// How long messages take: microseconds, one way; the usual time, and the mean of a rare longer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// The usual time; each message takes half to one and a half of it.
    pub usual_us: u64,
    /// The mean of what is added now and then.
    pub tail_us: u64,
    /// To how many of a thousand.
    pub tail_per_mille: u32,
}

/// The links.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Links {
    /// Between two nodes.
    pub peer: Latency,
    /// Between a client and a node.
    pub client: Latency,
    /// Between a node and a service.
    pub service: Latency,
}

/// The log service, a model of Kinesis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogKnobs {
    /// How long a put takes within the service.
    pub put: Latency,
    /// How much later a record can be read.
    pub lag: Latency,
    /// How long a caller waits for an answer, in milliseconds.
    pub timeout_ms: u64,
    /// How long records are kept, in virtual milliseconds.
    pub retention_ms: u64,
    /// Bytes a second that a shard takes. The service's: 1,000,000.
    pub put_bytes_per_s: u64,
    /// Records a second that a shard takes. The service's: 1,000.
    pub put_records_per_s: u64,
    /// Reads a second that a shard gives. The service's: 5.
    pub reads_per_s: u64,
    /// Bytes a second that a shard gives. The service's: 2,000,000.
    pub read_bytes_per_s: u64,
}

/// The store service, a model of Cassandra.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreKnobs {
    /// Between the coordinator of an operation and a replica.
    pub replica: Latency,
    /// How long a coordinator and a caller wait, in milliseconds.
    pub timeout_ms: u64,
    /// How long a replica works on one row, in microseconds.
    pub row_us: u64,
    /// Whether reads at a quorum repair the replicas that they saw behind, before they answer.
    pub read_repair: bool,
    /// Whether a replica that was down is told what it missed.
    pub hints: bool,
}

/// The settings of the nodes that a plan varies; the rest are the defaults of the core.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoreKnobs {
    /// [`Config::heartbeat`](stormkeep_core::Config::heartbeat).
    pub heartbeat_ms: u64,
    /// [`Config::dead_after`](stormkeep_core::Config::dead_after).
    pub dead_after_ms: u64,
    /// [`Config::poll`](stormkeep_core::Config::poll).
    pub poll_ms: u64,
    /// [`Config::poll_min`](stormkeep_core::Config::poll_min).
    #[serde(default = "poll_min_ms_before")]
    pub poll_min_ms: u64,
    /// [`Config::close_after`](stormkeep_core::Config::close_after).
    pub close_after_ms: u64,
    /// [`Config::batch_bytes_max`](stormkeep_core::Config::batch_bytes_max).
    pub batch_bytes_max: u64,
    /// [`Config::tail_bytes_max`](stormkeep_core::Config::tail_bytes_max).
    pub tail_bytes_max: u64,
    /// [`Config::heads_max`](stormkeep_core::Config::heads_max).
    pub heads_max: u64,
    /// [`Config::queue_max`](stormkeep_core::Config::queue_max).
    pub queue_max: u64,
    /// [`Config::write_rows_max`](stormkeep_core::Config::write_rows_max).
    pub write_rows_max: u64,
    /// How often of a thousand times a named point of the core takes the unlikely branch.
    pub buggify_per_mille: u32,
}

/// A plan that does not say it is older than the setting: then a fold always waited for its whole pace.
fn poll_min_ms_before() -> u64 {
    1000
}
