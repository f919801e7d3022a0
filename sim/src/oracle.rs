//! The promises, one a file, and the one type of a broken promise.
//!
//! An oracle sees what clients saw and what the log and the store hold at the end: [`Evidence`]. It never
//! sees the core's private state, and it folds the log by a rule of its own ([`fold`]).
//!
//! | promise | file |
//! | --- | --- |
//! | durable | `durable.rs` |
//! | linearizable | `linearizable.rs` |
//! | gapless | `gapless.rs` |
//! | faithful | `faithful.rs` |
//! | fenced | `fenced.rs` |
//! | live | `live.rs` |
//! | repeatable | `repeatable.rs` |

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use stormkeep_core::{
    env::LogRecord,
    event::RecordedEvent,
    shard::{Checkpoint, ShardId, ShardInfo},
    stream::{Head, StreamName},
};

use crate::history::{History, Nanos};

/// One promise of the design.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Promise {
    /// An acknowledged append is in its stream, at the acknowledged revision, exactly once.
    Durable,
    /// Appends and strong reads of a stream have one order that respects real time.
    Linearizable,
    /// Revisions of a stream are 0, 1, 2, …
    Gapless,
    /// The store equals the fold of the log up to the checkpoint; nothing else is in it.
    Faithful,
    /// No two epochs of a shard acknowledge conflicting facts.
    Fenced,
    /// When faults stop, every call ends, every shard has an owner and lag returns to zero in time.
    Live,
    /// The same seed gives the same run, event for event.
    Repeatable,
    /// Nothing panics.
    NoPanic,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Promise::Durable => "durable",
            Promise::Linearizable => "linearizable",
            Promise::Gapless => "gapless",
            Promise::Faithful => "faithful",
            Promise::Fenced => "fenced",
            Promise::Live => "live",
            Promise::Repeatable => "repeatable",
            Promise::NoPanic => "no-panic",
        })
    }
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// What should have been.
    pub expected: String,
    /// What was.
    pub seen: String,
    /// When it could first be seen: virtual nanoseconds.
    pub at: Nanos,
}

/// What the store holds, as a read of all replicas sees it.
#[derive(Debug, Clone, Default)]
pub struct StoreDump {
    /// The events.
    pub events: BTreeMap<(StreamName, u64), RecordedEvent>,
    /// The heads.
    pub heads: BTreeMap<StreamName, Head>,
    /// The checkpoints.
    pub checkpoints: BTreeMap<ShardId, Checkpoint>,
}

/// How the run came to rest after the faults had stopped.
#[derive(Debug, Clone, Default)]
pub struct Rest {
    /// When the faults stopped.
    pub healed_at: Nanos,
    /// The stated time within which all must be well again.
    pub limit: Nanos,
    /// When all was well: every call ended, every shard answered, nothing lagged. `None`: never.
    pub rested_at: Option<Nanos>,
    /// What was still wrong at the end, a line each; empty if `rested_at` is set.
    pub unwell: Vec<String>,
}

/// All that the oracles see.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// What clients asked and saw.
    pub history: History,
    /// All shards there ever were, in order of their ids.
    pub shards: Vec<ShardInfo>,
    /// Every record ever put, by shard, in order of position, trimmed ones too.
    pub logs: BTreeMap<ShardId, Vec<LogRecord>>,
    /// What the store holds.
    pub store: StoreDump,
    /// How the run came to rest.
    pub rest: Rest,
}
