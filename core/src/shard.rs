//! Shards: ranges of the key space, each with a log; and the pure decisions made about one.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use crate::{env::Position, time::HybridTime};

pub mod fold;
pub mod frontier;
pub mod lease;
pub mod merge;
pub mod replay;
pub mod sequencer;
pub mod tail;
pub mod window;

mod by_name;
mod heads;

/// Names one shard for ever: its number, in order of creation (the digits of Kinesis'
/// `shardId-000000000007`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId(pub u32);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

/// A range of the 128-bit key space, both ends within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashRange {
    /// The lowest key.
    pub start: u128,
    /// The highest key.
    pub end: u128,
}

impl HashRange {
    /// Whether a key lies within it.
    pub fn contains(&self, key: u128) -> bool {
        (self.start..=self.end).contains(&key)
    }

    /// The whole key space, cut into `count` ranges of about the same size.
    pub fn split_evenly(count: u32) -> impl Iterator<Item = HashRange> {
        let count = u128::from(count.max(1));
        let step = u128::MAX / count;
        (0..count).map(move |n| HashRange {
            start: n * step,
            end: if n + 1 == count { u128::MAX } else { (n + 1) * step - 1 },
        })
    }
}

/// A shard as its log describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardInfo {
    /// Its id.
    pub id: ShardId,
    /// Its range.
    pub range: HashRange,
    /// The shards that it was split or merged from; none for a shard that was there at first.
    pub parents: Vec<ShardId>,
    /// Whether it takes no more entries.
    pub closed: bool,
}

/// The open shard that holds a key.
pub fn holder(shards: &[ShardInfo], key: u128) -> Option<&ShardInfo> {
    shards.iter().find(|s| !s.closed && s.range.contains(key))
}

/// The shards that a shard came from by splits and merges, over any number of steps, as far as they are
/// listed.
pub fn ancestors(shards: &[ShardInfo], shard: &ShardInfo) -> BTreeSet<ShardId> {
    let mut found = BTreeSet::new();
    let mut next: Vec<ShardId> = shard.parents.clone();
    while let Some(id) = next.pop() {
        if let Some(info) = shards.iter().find(|s| s.id == id)
            && found.insert(id)
        {
            next.extend(&info.parents);
        }
    }
    found
}

/// How far a fold of a shard's log has got: a position, and the state of the accept rule there.
///
/// Any reader goes on from a checkpoint as if it had read the log from its beginning.
/// Of two checkpoints of one shard at the same accepted count, the greater is the further one.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Whether the shard is closed and folded to its end.
    pub ended: bool,
    /// Entries up to and including this one are folded; `None`: none is.
    pub position: Option<Position>,
    /// Entries accepted so far, fences and batches: the logical timestamp of this checkpoint.
    pub accepted: u64,
    /// The epoch of the last accepted fence.
    pub epoch: u64,
    /// The index of the next batch of that epoch.
    pub next: u64,
    /// The time that accepted batches have closed.
    pub closed: HybridTime,
}
