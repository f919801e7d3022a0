//! The promises, one a file, and the one type of a broken promise.
//!
//! An oracle sees what clients saw and what the log and the store hold at the end: [`Evidence`]. It never
//! sees the core's private state, and it folds the log by a rule of its own (`fold.rs`).
//!
//! | promise | file |
//! | --- | --- |
//! | durable | `durable.rs` |
//! | fenced | `fenced.rs` |
//! | linearizable | `linearizable.rs` (the order), `reads.rs` (what reads show) |
//! | gapless | `gapless.rs` |
//! | faithful | `faithful.rs` (the store), `followers.rs` (who reads the log) |
//! | ordered | `ordered.rs` |
//! | delivered | `delivered.rs` |
//! | live | `live.rs` |
//! | repeatable | `repeatable.rs` |
//!
//! An oracle claims only what holds in every correct run: one false alarm costs more trust than ten
//! found faults earn. Where an answer leaves two truths open, its module says so and takes both.

mod delivered;
mod durable;
mod faithful;
mod fenced;
mod fold;
mod followers;
mod gapless;
mod joint;
mod judged;
mod linearizable;
mod live;
mod ordered;
mod reads;
pub mod repeatable;
#[cfg(test)]
mod testing;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use stormkeep_core::{
    env::{LogRecord, Progress},
    event::RecordedEvent,
    group::{Group, GroupNumber},
    head::Head,
    shard::{Checkpoint, ShardId, ShardInfo},
    stream::StreamName,
    time::HybridTime,
};

use crate::history::{History, Nanos};

use judged::Judged;

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
    /// No event ever appears behind a position that was already read; a strong read shows every append that its node
    /// answered before.
    Ordered,
    /// Every group sees every event at least once, in stream order, and no progress is written beyond what is settled.
    Delivered,
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
            Promise::Ordered => "ordered",
            Promise::Delivered => "delivered",
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

fn broken(promise: Promise, at: Nanos, expected: String, seen: String) -> Violation {
    Violation { promise, expected, seen, at }
}

/// What the store holds, as a read of all replicas sees it.
#[derive(Debug, Clone, Default)]
pub struct StoreDump {
    /// The events.
    pub events: BTreeMap<(StreamName, u64), RecordedEvent>,
    /// The events once more, by shard and time.
    pub ordered: BTreeMap<(ShardId, HybridTime), RecordedEvent>,
    /// The heads.
    pub heads: BTreeMap<StreamName, Head>,
    /// The checkpoints.
    pub checkpoints: BTreeMap<ShardId, Checkpoint>,
    /// How far shards are settled for groups.
    pub progress: BTreeMap<(ShardId, GroupNumber), Progress>,
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
    /// What the store holds: the newest of each row at any replica.
    pub store: StoreDump,
    /// What every quorum of the store sees at the least: the second newest of each row.
    pub surely: StoreDump,
    /// The groups, as their document says at the end.
    pub groups: Vec<Group>,
    /// How the run came to rest.
    pub rest: Rest,
    /// Whether every message between nodes arrived once at the most. Then a *no* and a *busy* are exact.
    /// Else a second copy may have been decided in another way than the one that was answered.
    pub delivered_once: bool,
}

type Oracle = fn(&Judged<'_>) -> Vec<Violation>;

/// Which oracle holds which promise, the most important first.
const ORACLES: &[(Promise, Oracle)] = &[
    (Promise::Durable, durable::check),
    (Promise::Fenced, fenced::check),
    (Promise::Linearizable, linearizable::check),
    (Promise::Linearizable, reads::check),
    (Promise::Gapless, gapless::check),
    (Promise::Faithful, faithful::check),
    (Promise::Faithful, followers::check),
    (Promise::Ordered, ordered::check),
    (Promise::Delivered, delivered::check),
    (Promise::Live, live::check),
];

/// Violations that one oracle reports at the most: the first ones say what is wrong, the rest is noise.
const PER_ORACLE_MAX: usize = 3;

/// Asks all oracles. Violations come in order of the importance of their promise, then of time.
///
/// *Repeatable* needs two runs ([`repeatable::compare`]), and *no-panic* is seen by who runs.
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let judged = Judged::new(evidence);
    let mut all = Vec::new();
    for (promise, oracle) in ORACLES {
        let mut found = oracle(&judged);
        debug_assert!(found.iter().all(|v| v.promise == *promise));
        found.sort_by_key(|v| v.at);
        found.truncate(PER_ORACLE_MAX);
        all.extend(found);
    }
    all
}

#[cfg(test)]
mod tests {
    use stormkeep_core::append::{Appended, Expected, Freshness};

    use super::testing::{Case, broken};
    use super::*;

    /// A past with a bit of everything, and nothing wrong.
    fn good() -> Case {
        let mut case = Case::new();
        case.evidence.delivered_once = true;
        let one = case.commit("a-1", 1, 2, (10, 20));
        case.commit("b-1", 2, 1, (15, 30));
        case.read("a-1", Freshness::Strong, 0, 10, Some(1), (40, 50));
        case.fence(0, 2);
        let zombie = case.batch_at(0, 1, 2, &[("a-1", 3, 2, 1)]);
        case.put(0, &zombie);
        case.ask("a-1", 3, 1, Expected::Exactly(1), (50, 0), None);
        case.commit("a-1", 4, 1, (60, 70));
        case.move_on();
        case.commit("a-1", 5, 1, (80, 90));
        let again = Appended { repeated: true, answered_by: ShardId(1), epoch: 1, ..one };
        case.ask("a-1", 1, 2, Expected::Any, (95, 99), Some(Ok(again)));
        case.read("a-1", Freshness::Eventual, 1, 2, Some(2), (100, 110));
        case.follow(0, (100, 120));
        case.follow(1, (100, 120));
        case.fold();
        case
    }

    #[test]
    fn a_good_past_breaks_no_promise() {
        assert_eq!(check(&good().evidence), []);
    }

    #[test]
    fn a_past_that_never_came_to_rest_breaks_one_promise() {
        assert_eq!(broken(&Evidence::default()), BTreeMap::from([("live".to_owned(), 1)]));
    }

    #[test]
    fn violations_come_by_importance_then_time_and_not_too_many() {
        let mut case = good();
        case.evidence.logs.clear();
        case.evidence.rest.rested_at = None;
        let found = check(&case.evidence);
        let promises: Vec<Promise> = found.iter().map(|v| v.promise).collect();
        assert_eq!(
            promises[..4],
            [Promise::Durable, Promise::Durable, Promise::Durable, Promise::Fenced]
        );
        assert_eq!(promises.last(), Some(&Promise::Live));
        assert!(found[0].at <= found[1].at && found[1].at <= found[2].at);
        assert!(broken(&case.evidence).values().all(|count| *count <= 2 * PER_ORACLE_MAX));
    }

    /// A store without an epoch check lets a zombie acknowledge what the log ignores.
    #[test]
    fn a_core_without_the_epoch_check_is_found() {
        let mut case = good();
        let told = Appended {
            shard: ShardId(0),
            answered_by: ShardId(0),
            epoch: 1,
            first: 2,
            last: 2,
            time: stormkeep_core::time::HybridTime(1003),
            repeated: false,
        };
        case.ask("a-1", 3, 1, Expected::Any, (75, 79), Some(Ok(told)));
        let found = broken(&case.evidence);
        assert!(found.contains_key("durable") && found.contains_key("fenced"), "{found:?}");
    }

    #[test]
    fn a_large_past_is_judged_at_once() {
        let mut case = Case::new();
        let mut batches = Vec::new();
        for n in 0..200u64 {
            let names: Vec<String> = (0..50).map(|s| format!("player-{s}")).collect();
            let appends: Vec<_> = names
                .iter()
                .zip(0u128..)
                .map(|(name, s)| (name.as_str(), u128::from(n) << 32 | s, n * 5, 5))
                .collect();
            batches.push(case.batch_at(0, 1, n, &appends));
        }
        for (n, batch) in (0u64..).zip(&batches) {
            case.put(0, batch);
            for (time, append) in batch.timed() {
                let (first, last) = (append.first, append.last());
                let appended = Appended {
                    shard: ShardId(0),
                    answered_by: ShardId(0),
                    epoch: 1,
                    first,
                    last,
                    time,
                    repeated: false,
                };
                let name = append.stream.as_str();
                case.ask(
                    name,
                    append.id.0,
                    5,
                    Expected::Any,
                    (n * 10, n * 10 + 9),
                    Some(Ok(appended)),
                );
            }
        }
        case.fold();
        let begun = std::time::Instant::now();
        assert_eq!(check(&case.evidence), []);
        // It takes some hundredths of this; a loop within a loop over all of it takes far more.
        assert!(begun.elapsed() < std::time::Duration::from_secs(5));
    }
}
