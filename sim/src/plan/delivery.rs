//! What is delivered, to whom, and how they fare.

use serde::{Deserialize, Serialize};
use stormkeep_core::group::Strategy;

use super::Latency;

/// Groups, their consumers, and a function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// So many nodes, from n0 on, have a worker beside them.
    pub workers: u32,
    /// So many of these own no shard: they are processes of workers alone.
    #[serde(default)]
    pub apart: u32,
    /// How many events of a thousand fail for every group, until they are cured.
    pub poison_per_mille: u32,
    /// When poison is cured, in virtual milliseconds; 0: never.
    pub cured_at_ms: u64,
    /// When what was parked is replayed; 0: never.
    pub replay_at_ms: u64,
    /// The function of the groups that are pushed.
    pub lambda: LambdaKnobs,
    /// The groups.
    pub groups: Vec<GroupKnobs>,
}

/// What a group reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKnob {
    /// All events.
    All,
    /// The streams that the clients share.
    Category,
    /// The first of them.
    Stream,
    /// The type of most events.
    EventType,
}

/// One group and its consumers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupKnobs {
    /// What it reads.
    pub source: SourceKnob,
    /// Whether it is pushed to the function.
    pub pushed: bool,
    /// Whether it begins at the end, rather than at the beginning.
    pub from_end: bool,
    /// [`Settings::strategy`](stormkeep_core::group::Settings::strategy).
    pub strategy: Strategy,
    /// [`Settings::in_flight_per_stream`](stormkeep_core::group::Settings::in_flight_per_stream).
    pub in_flight_per_stream: u32,
    /// [`Settings::message_timeout`](stormkeep_core::group::Settings::message_timeout).
    pub message_timeout_ms: u64,
    /// [`Settings::max_retries`](stormkeep_core::group::Settings::max_retries).
    pub max_retries: u32,
    /// [`Settings::backoff_min`](stormkeep_core::group::Settings::backoff_min).
    pub backoff_min_ms: u64,
    /// [`Settings::backoff_max`](stormkeep_core::group::Settings::backoff_max).
    pub backoff_max_ms: u64,
    /// [`Settings::buffer_max`](stormkeep_core::group::Settings::buffer_max).
    pub buffer_max: u32,
    /// [`Settings::read_batch`](stormkeep_core::group::Settings::read_batch).
    pub read_batch: u32,
    /// [`Settings::checkpoint_after`](stormkeep_core::group::Settings::checkpoint_after).
    pub checkpoint_after_ms: u64,
    /// [`Settings::checkpoint_max`](stormkeep_core::group::Settings::checkpoint_max).
    pub checkpoint_max: u32,
    /// [`Push::batch_events_max`](stormkeep_core::group::Push::batch_events_max).
    pub batch_events_max: u32,
    /// [`Push::concurrency`](stormkeep_core::group::Push::concurrency).
    pub concurrency: u32,
    /// Consumers at a time.
    pub consumers: u32,
    /// How many events of a thousand a consumer fails.
    pub fail_per_mille: u32,
    /// In how many fetches of a thousand a consumer dies, before or after its work.
    pub crash_per_mille: u32,
    /// In how many fetches of a thousand a consumer takes longer than it may.
    pub slow_per_mille: u32,
}

/// The function service, a model of Lambda.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LambdaKnobs {
    /// Invocations at a time. The service's: 1,000 for an account, unless it is raised.
    pub concurrency: u32,
    /// How long a new environment takes to begin, in milliseconds.
    pub cold_ms: u64,
    /// How long the work on an event takes.
    pub work: Latency,
    /// How long a caller waits, in milliseconds.
    pub timeout_ms: u64,
    /// How many events of a thousand fail.
    pub fail_per_mille: u32,
    /// How many invocations of a thousand end in the middle of a batch.
    pub crash_per_mille: u32,
    /// How many invocations of a thousand do their work, while their answer is lost.
    pub lose_per_mille: u32,
    /// How many invocations of a thousand run twice.
    pub twice_per_mille: u32,
}
