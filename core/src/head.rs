//! Heads of streams: what an append is decided against, and what a read may show.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    append::{AppendId, Expected},
    entry::BatchedAppend,
    event::Event,
    limits::REMEMBERED_APPENDS,
    shard::ShardId,
    stream::StreamName,
    time::{HybridTime, WallTime},
};

/// The type of the event that ends a stream for ever.
pub const TOMBSTONE: &str = "$streamDeleted";

/// The type of the events of a metadata stream whose JSON sets [`Limits`].
pub const METADATA: &str = "$metadata";

/// An append that a head remembers, so that its repeat answers as the first time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Remembered {
    /// The append.
    pub id: AppendId,
    /// Whether it went to the stream's metadata.
    pub metadata: bool,
    /// The shard that holds it: not the stream's shard of today, if that was split or merged since.
    pub shard: ShardId,
    /// Revision of its first event.
    pub first: u64,
    /// Revision of its last event.
    pub last: u64,
    /// Time of its first event.
    pub time: HybridTime,
}

/// What a stream shows of its events, as its metadata says. Events beyond it are hidden from reads of the
/// stream, not from `$all`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Limits {
    /// `$tb`: the first revision that is shown. Never above the next revision at the time it was set, so that
    /// a stream that hides all its events is empty until the next append, and shows that.
    pub truncate_before: u64,
    /// `$maxCount`: how many of the last events are shown.
    pub max_count: Option<u64>,
    /// `$maxAge`, in seconds: how old an event may be that is shown.
    pub max_age_s: Option<u64>,
}

impl Limits {
    /// The limits that a metadata event sets. What is not a number in its place sets none.
    fn parse(event: &Event) -> Limits {
        // A map and no struct: a struct would take its fields from an array, too.
        let metadata: Map<String, Value> = serde_json::from_slice(&event.data).unwrap_or_default();
        let number = |name| metadata.get(name).and_then(Value::as_u64);
        Limits {
            truncate_before: number("$tb").unwrap_or(0),
            max_count: number("$maxCount").filter(|n| *n > 0),
            max_age_s: number("$maxAge").filter(|n| *n > 0),
        }
    }
}

/// What one append does to the head of its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The append.
    pub append: Remembered,
    /// The limits that it sets.
    pub limits: Option<Limits>,
    /// Whether it ends the stream for ever.
    pub tombstone: bool,
}

impl Change {
    /// The change by an append whose first event has `time`.
    pub fn of(append: &BatchedAppend, shard: ShardId, time: HybridTime) -> Change {
        let metadata = append.stream.is_metadata();
        let limits = append.events.iter().rev().find(|e| metadata && &*e.kind == METADATA);
        let (id, first, last) = (append.id, append.first, append.last());
        Change {
            append: Remembered { id, metadata, shard, first, last, time },
            limits: limits.map(Limits::parse),
            tombstone: !metadata && append.events.iter().any(|e| &*e.kind == TOMBSTONE),
        }
    }
}

/// The head of a stream that has events or metadata: where both are, what is shown, and the last
/// [`REMEMBERED_APPENDS`] appends to either, oldest first.
///
/// A head is a function of its stream's log alone: whoever folds the same appends has the same head.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Head {
    /// Revision of the stream's last event; `None`: it has only metadata.
    pub revision: Option<u64>,
    /// Revision of the last event of its metadata.
    pub metadata: Option<u64>,
    /// Whether the stream was ended for ever.
    pub tombstoned: bool,
    /// What it shows.
    pub limits: Limits,
    /// The last appends, oldest first.
    pub remembered: VecDeque<Remembered>,
}

impl Head {
    /// The head after one more append; `head` is `None` for a stream that has neither events nor metadata.
    pub fn extend(head: Option<Head>, change: &Change) -> Head {
        let mut head = head.unwrap_or_default();
        head.apply(change);
        head
    }

    /// Becomes the head after one more append.
    pub fn apply(&mut self, change: &Change) {
        if change.append.metadata {
            self.metadata = Some(change.append.last);
        } else {
            self.revision = Some(change.append.last);
        }
        self.tombstoned |= change.tombstone;
        if let Some(limits) = change.limits {
            let next = self.revision.map_or(0, |r| r + 1);
            self.limits = limits;
            self.limits.truncate_before = limits.truncate_before.min(next);
        }
        if self.remembered.len() == REMEMBERED_APPENDS {
            self.remembered.pop_front();
        }
        self.remembered.push_back(change.append.clone());
    }

    /// Completes what the store says of a stream by what a log's tail says of it. The store may be ahead of the
    /// beginning of the tail.
    pub fn complete(stored: Option<Head>, tail: &[Change]) -> Option<Head> {
        tail.iter().fold(stored, |head, change| match head {
            Some(head) if !head.lacks(&change.append) => Some(head),
            head => Some(Head::extend(head, change)),
        })
    }

    /// Whether this head does not have an append yet.
    pub fn lacks(&self, append: &Remembered) -> bool {
        let last = if append.metadata { self.metadata } else { self.revision };
        last.is_none_or(|last| append.first > last)
    }

    /// How many events the stream and its metadata have together: the logical timestamp of a head.
    pub fn version(&self) -> u64 {
        let count = |revision: Option<u64>| revision.map_or(0, |r| r + 1);
        count(self.revision) + count(self.metadata)
    }

    /// The last revision of the stream of this name: the one described, or its metadata.
    pub fn last(&self, stream: &StreamName) -> Option<u64> {
        if stream.is_metadata() { self.metadata } else { self.revision }
    }

    /// The append that this head remembers under `id`.
    pub fn recall(&self, stream: &StreamName, id: AppendId) -> Option<&Remembered> {
        let metadata = stream.is_metadata();
        self.remembered.iter().rev().find(|r| r.id == id && r.metadata == metadata)
    }

    /// Whether the stream hides all its events: deleted, until the next append.
    pub fn is_deleted(&self) -> bool {
        self.revision.is_some_and(|last| self.limits.truncate_before > last)
    }

    /// The first revision that reads of `stream` show, by count and truncation; age is judged
    /// by event, see [`oldest_shown`](Head::oldest_shown).
    pub fn first_shown(&self, stream: &StreamName) -> u64 {
        if stream.is_metadata() {
            return 0;
        }
        let count = self.limits.max_count.unwrap_or(u64::MAX);
        let next = self.revision.map_or(0, |r| r + 1);
        self.limits.truncate_before.max(next.saturating_sub(count))
    }

    /// The oldest time that reads of `stream` show at `now`.
    pub fn oldest_shown(&self, stream: &StreamName, now: WallTime) -> HybridTime {
        match self.limits.max_age_s {
            Some(age) if !stream.is_metadata() => {
                HybridTime(now.0.saturating_sub(age.saturating_mul(1_000_000)))
            }
            _ => HybridTime(0),
        }
    }

    /// Whether `expected` holds for `stream` with this head (`None`: neither events nor metadata).
    pub fn meets(head: Option<&Head>, stream: &StreamName, expected: Expected) -> bool {
        let last = head.and_then(|h| h.last(stream));
        let gone = !stream.is_metadata() && head.is_some_and(Head::is_deleted);
        match expected {
            Expected::Any => true,
            Expected::NoStream => last.is_none() || gone,
            Expected::StreamExists => last.is_some() && !gone,
            Expected::Exactly(revision) => last == Some(revision),
        }
    }
}
