//! What can go wrong, and when: an explicit schedule that a person can edit. Taking one fault away
//! leaves the others as they were.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// One end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Place {
    /// The node of this number, from 0.
    Node(u32),
    /// All clients.
    Clients,
    /// The log service.
    Log,
    /// The store service.
    Store,
    /// The handlers that events are pushed to.
    Handlers,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Node(node) => write!(f, "n{node}"),
            Place::Clients => f.write_str("clients"),
            Place::Log => f.write_str("log"),
            Place::Store => f.write_str("store"),
            Place::Handlers => f.write_str("handlers"),
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "clients" => Ok(Place::Clients),
            "log" => Ok(Place::Log),
            "store" => Ok(Place::Store),
            "handlers" => Ok(Place::Handlers),
            _ => text.strip_prefix('n').and_then(|n| n.parse().ok()).map(Place::Node).ok_or_else(
                || format!("{text:?} is no place; use n0, n1, …, clients, log, store or handlers"),
            ),
        }
    }
}

impl TryFrom<String> for Place {
    type Error = String;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

/// One fault of the schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// When it begins: virtual milliseconds from the start.
    pub at_ms: u64,
    /// How long it lasts; 0 for one that happens at once.
    #[serde(default)]
    pub for_ms: u64,
    /// What it is.
    #[serde(flatten)]
    pub what: What,
}

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $field_doc:literal])+ $field:ident: $type:ty),* } = $label:literal,)+) => {
        /// What goes wrong.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
        pub enum What { $($(#[doc = $doc])+ $name { $($(#[doc = $field_doc])+ $field: $type),* },)+ }

        impl What {
            /// The name of every kind, as it stands in a seed file and in the summary.
            pub const KINDS: &[&str] = &[$($label,)+];

            /// The name of this kind.
            pub fn kind(&self) -> &'static str {
                match self { $(What::$name { .. } => $label,)+ }
            }
        }
    };
}

faults! {
    /// A node dies with all that is in its memory, and starts again after the fault's time.
    Crash {
        /// The node's number.
        node: u32
    } = "crash",
    /// A node gives its shards back, then ends, and starts again after the fault's time: a deployment.
    Drain {
        /// The node's number.
        node: u32
    } = "drain",
    /// A node stands still, as in a long garbage collection, then goes on as if nothing had been.
    Pause {
        /// The node's number.
        node: u32
    } = "pause",
    /// All that a node sends and receives takes this many times as long, and its timers up to five times.
    Slow {
        /// The node's number.
        node: u32,
        /// How many times as long.
        times: u32
    } = "slow",
    /// A node's wall clock is wrong by this much, from one moment to the next and back.
    ClockStep {
        /// The node's number.
        node: u32,
        /// Milliseconds ahead, or behind if negative.
        by_ms: i64
    } = "clock-step",
    /// A node's clocks run fast or slow.
    ClockDrift {
        /// The node's number.
        node: u32,
        /// Microseconds a second ahead, or behind if negative.
        ppm: i64
    } = "clock-drift",
    /// Nothing gets from one place to another.
    CutOneWay {
        /// Where it would come from.
        from: Place,
        /// Where it would go.
        to: Place
    } = "cut-one-way",
    /// Nothing gets from one place to another, nor back.
    Cut {
        /// One place.
        from: Place,
        /// The other.
        to: Place
    } = "cut",
    /// Messages between nodes and clients are lost.
    Lose {
        /// How many of a thousand.
        per_mille: u32
    } = "lose",
    /// Messages between nodes arrive twice, the second time later.
    Repeat {
        /// How many of a thousand.
        per_mille: u32
    } = "repeat",
    /// Messages between nodes and clients take up to this much longer, each for itself: they overtake
    /// one another.
    Reorder {
        /// Milliseconds at the most.
        by_ms: u64
    } = "reorder",
    /// The log allows each shard only a part of its bytes and records a second.
    LogThrottle {
        /// How much of a thousand is left.
        per_mille: u32
    } = "log-throttle",
    /// The log takes longer for each put.
    LogSlow {
        /// How many times as long.
        times: u32
    } = "log-slow",
    /// Puts happen, but their answers are lost.
    LogLoseAnswers {
        /// How many of a thousand.
        per_mille: u32
    } = "log-lose-answers",
    /// Puts land a second time, later: a retry that was hidden on the way.
    LogRepeatPuts {
        /// How many of a thousand.
        per_mille: u32,
        /// Milliseconds later at the most.
        within_ms: u64
    } = "log-repeat-puts",
    /// Records can be read only this much later.
    LogLag {
        /// Milliseconds.
        by_ms: u64
    } = "log-lag",
    /// All read cursors given out so far expire, as after five minutes.
    LogExpireCursors {} = "log-expire-cursors",
    /// A shard of the log is split in the middle.
    Split {
        /// Which of the open shards, counted round.
        nth: u32
    } = "split",
    /// A shard of the log and its neighbour are merged.
    Merge {
        /// Which of the open shards, counted round.
        nth: u32
    } = "merge",
    /// A replica of the store is down; what it was to be told meanwhile may be lost to it.
    ReplicaDown {
        /// Which replica, from 0.
        replica: u32
    } = "replica-down",
    /// A replica of the store takes longer for everything.
    ReplicaSlow {
        /// Which replica, from 0.
        replica: u32,
        /// How many times as long.
        times: u32
    } = "replica-slow",
    /// Messages to and from replicas are lost: writes show up on some, operations time out.
    ReplicaLose {
        /// How many of a thousand.
        per_mille: u32
    } = "replica-lose",
    /// Messages of compare-and-sets are lost in the middle of them: unknown outcomes.
    SwapLose {
        /// How many of a thousand.
        per_mille: u32
    } = "swap-lose",
    /// The store works at a part of its speed, and refuses what queues too long.
    StoreOverload {
        /// How many times as long each operation takes.
        times: u32
    } = "store-overload",
    /// Many new players at once, each with a stream of its own.
    LoginStorm {
        /// How many times the usual load.
        times: u32
    } = "login-storm",
    /// A crowd on a few streams.
    FlashCrowd {
        /// How many times the usual load.
        times: u32,
        /// On how many streams.
        streams: u32
    } = "flash-crowd",
    /// Clients that give up soon and try again at once, without mercy.
    RetryStorm {
        /// How many times the usual load.
        times: u32
    } = "retry-storm",
}

impl What {
    /// The node or replica that it is about, if it is about one.
    pub fn target(&self) -> Option<u32> {
        match *self {
            What::Crash { node }
            | What::Drain { node }
            | What::Pause { node }
            | What::Slow { node, .. }
            | What::ClockStep { node, .. }
            | What::ClockDrift { node, .. } => Some(node),
            What::ReplicaDown { replica } | What::ReplicaSlow { replica, .. } => Some(replica),
            _ => None,
        }
    }
}
