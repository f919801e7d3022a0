//! How far all shards are folded: what a reader of all shards may show.
//!
//! The *watermark* is the lowest time that any open shard has closed, as the checkpoints in the store say. The events
//! up to a checkpoint are in the store before it is, and whoever owns the shard next starts above it; so everything
//! up to the watermark is in the store, and nothing will ever be added there. No reader passes it. It needs no
//! process to be alive or to tell the truth about itself.
//!
//! Shards that are closed and folded to their end hold it back no more; their children must be counted by then. So the shards
//! that do count must cover the whole key space: a listing that is out of date has a hole there. And the checkpoints
//! must have been read before the events are: what a reader finds missing may be written after it looked.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    shard::{self, Checkpoint, HashRange, ShardId, ShardInfo},
    time::HybridTime,
};

/// See the module's docs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontier {
    /// The time that each shard's checkpoint has closed; shards that are ended, too.
    folded: BTreeMap<ShardId, HybridTime>,
    /// The time below which each shard that counts will get no more events.
    open: BTreeMap<ShardId, HybridTime>,
}

impl Frontier {
    /// The frontier of the listed shards and of the checkpoints, which need not be of one moment: each only grows.
    /// `None`: the listing is older than the checkpoints; get a new one.
    pub fn of(shards: &[ShardInfo], checkpoints: &BTreeMap<ShardId, Checkpoint>) -> Option<Self> {
        let counts: Vec<&ShardInfo> =
            shards.iter().filter(|s| checkpoints.get(&s.id).is_none_or(|c| !c.ended)).collect();
        if !cover_all(counts.iter().map(|s| s.range).collect()) {
            return None;
        }
        let folded: BTreeMap<ShardId, HybridTime> =
            checkpoints.iter().map(|(id, at)| (*id, at.closed)).collect();
        let closed = |id: ShardId| folded.get(&id).copied().unwrap_or_default();
        // A shard starts above all that it came from.
        let bound = |s: &ShardInfo| {
            let from = shard::ancestors(shards, s).into_iter().chain([s.id]);
            from.map(closed).max().unwrap_or_default()
        };
        let open = counts.into_iter().map(|s| (s.id, bound(s))).collect();
        Some(Frontier { folded, open })
    }

    /// No event of this time or an earlier one will be added to the store.
    pub fn watermark(&self) -> HybridTime {
        self.open.values().min().copied().unwrap_or_default()
    }

    /// The shards that keep the watermark below a time.
    pub fn lagging(&self, time: HybridTime) -> impl Iterator<Item = ShardId> + '_ {
        self.open.iter().filter(move |(_, closed)| **closed < time).map(|(shard, _)| *shard)
    }

    /// The shards that may have events from a time on and up to the watermark.
    pub fn holders(&self, from: HybridTime) -> BTreeSet<ShardId> {
        self.folded.iter().filter(|(_, closed)| **closed >= from).map(|(shard, _)| *shard).collect()
    }
}

/// Whether ranges, which may overlap, cover the whole key space.
fn cover_all(mut ranges: Vec<HashRange>) -> bool {
    ranges.sort_by_key(|r| r.start);
    let mut next = Some(0u128);
    for range in ranges {
        match next {
            Some(at) if range.start <= at => {
                next = range.end.checked_add(1).map(|behind| behind.max(at));
            }
            Some(_) => return false,
            None => return true,
        }
    }
    next.is_none()
}
