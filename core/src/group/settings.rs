//! How a group is given its events: the settings of KurrentDB's persistent subscriptions, and those of pushing.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::ms;

/// Which of several consumers is given an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// One, as long as it keeps up; then the next.
    DispatchToSingle,
    /// The same for all events of a stream, as long as the consumers stay.
    Pinned,
}

/// What a handler reads.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Form {
    /// An envelope of Stormkeep's own, with the group and its events.
    #[default]
    Records,
    /// A batch of CloudEvents.
    CloudEvents,
}

/// Who is given the events of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Target {
    /// Consumers that [fetch](crate::consume::Fetch) them.
    #[default]
    Consumers,
    /// A Lambda function.
    Lambda {
        /// Its name or ARN.
        function: Arc<str>,
        /// What it reads.
        #[serde(default)]
        form: Form,
    },
    /// A web address, by HTTP POST.
    Webhook {
        /// Where to.
        url: Arc<str>,
        /// The key that requests are signed with.
        secret: Option<Arc<str>>,
        /// What it reads.
        #[serde(default)]
        form: Form,
    },
}

/// How events are pushed to a [`Target`] that is no consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Push {
    /// Events of one batch at the most.
    pub batch_events_max: u32,
    /// Bytes of the types, payloads and metadata of one batch at the most; a single event may have more.
    pub batch_bytes_max: u32,
    /// How long to wait for a batch to fill.
    pub batch_wait: Duration,
    /// Batches of one shard under way at a time. Those of one stream never are.
    pub concurrency: u32,
}

impl Default for Push {
    fn default() -> Self {
        Push {
            batch_events_max: 100,
            // Lambda takes 6 MB of JSON; base64 and framing take their part.
            batch_bytes_max: 3 * 1024 * 1024,
            batch_wait: Duration::ZERO,
            concurrency: 4,
        }
    }
}

/// See the module's docs. All but `push` hold for each shard by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Which of several consumers is given an event.
    pub strategy: Strategy,
    /// How long a consumer may take over an event before it counts as failed.
    pub message_timeout: Duration,
    /// How often an event may fail, and be given again, before it is parked.
    pub max_retries: u32,
    /// The first wait before an event is given again; it doubles up to `backoff_max`, and half of it is random.
    pub backoff_min: Duration,
    /// The longest wait before an event is given again.
    pub backoff_max: Duration,
    /// Events that are held in memory at the most: in flight, waiting to be given again, or behind one of these in their
    /// stream. While it is full, nothing more is read.
    pub buffer_max: u32,
    /// Events that are read at a time.
    pub read_batch: u32,
    /// A checkpoint is written after this time, if anything has changed and `checkpoint_min` is reached.
    pub checkpoint_after: Duration,
    /// Settled events before a checkpoint is written; ten times `checkpoint_after` goes before it, and so does rest.
    pub checkpoint_min: u32,
    /// Settled events after which a checkpoint is written at once.
    pub checkpoint_max: u32,
    /// Consumers at a time; 0: any number.
    pub consumers_max: u32,
    /// Events of one stream in one answer to a consumer, in order; the next one is given when these are settled. With 1 an event is
    /// given only when the one before it is settled. With more, a consumer that fails one must not go on with later
    /// ones of its stream: they are given again, and what it says of them does not count.
    pub in_flight_per_stream: u32,
    /// Whether links are to be followed; for the APIs, which resolve them.
    pub resolve_links: bool,
    /// Whether more is to be measured; for the APIs.
    pub extra_statistics: bool,
    /// How events are pushed.
    pub push: Push,
}

impl Default for Settings {
    /// KurrentDB's, where it has them.
    fn default() -> Self {
        Settings {
            strategy: Strategy::RoundRobin,
            message_timeout: ms(30_000),
            max_retries: 10,
            backoff_min: ms(250),
            backoff_max: ms(30_000),
            buffer_max: 500,
            read_batch: 100,
            checkpoint_after: ms(2000),
            checkpoint_min: 10,
            checkpoint_max: 1000,
            consumers_max: 0,
            in_flight_per_stream: 1,
            resolve_links: false,
            extra_statistics: false,
            push: Push::default(),
        }
    }
}

/// A setting is out of its range. Outcome: *no*.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("settings.{field} = {value}: must be from {low} to {high}")]
pub struct InvalidSettings {
    /// Its name.
    pub field: String,
    /// What it was; times in milliseconds.
    pub value: u64,
    /// The least that it may be.
    pub low: u64,
    /// The most that it may be.
    pub high: u64,
}

impl Settings {
    /// Checks every range.
    pub fn check(&self) -> Result<(), InvalidSettings> {
        const DAY_MS: u64 = 24 * 3_600_000;
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let count = u64::from;
        let push = &self.push;
        let ranges = [
            ("message_timeout", millis(self.message_timeout), 1, DAY_MS),
            ("max_retries", count(self.max_retries), 0, 1_000_000),
            ("backoff_min", millis(self.backoff_min), 0, DAY_MS),
            ("backoff_max", millis(self.backoff_max), millis(self.backoff_min), DAY_MS),
            ("buffer_max", count(self.buffer_max), 1, 100_000),
            ("read_batch", count(self.read_batch), 1, 10_000),
            ("checkpoint_after", millis(self.checkpoint_after), 1, DAY_MS),
            ("checkpoint_min", count(self.checkpoint_min), 0, 1_000_000),
            ("checkpoint_max", count(self.checkpoint_max), 1, 1_000_000),
            ("consumers_max", count(self.consumers_max), 0, 1_000_000),
            ("in_flight_per_stream", count(self.in_flight_per_stream), 1, 100_000),
            ("push.batch_events_max", count(push.batch_events_max), 1, 10_000),
            ("push.batch_bytes_max", count(push.batch_bytes_max), 1, 256 * 1024 * 1024),
            ("push.batch_wait", millis(push.batch_wait), 0, 300_000),
            ("push.concurrency", count(push.concurrency), 1, 1000),
        ];
        for (field, value, low, high) in ranges {
            if value < low || value > high {
                return Err(InvalidSettings { field: field.to_owned(), value, low, high });
            }
        }
        Ok(())
    }
}
