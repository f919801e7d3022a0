//! Hybrid logical time: orders readers, never decides a commit.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::shard::ShardId;

/// A reading of a wall clock: microseconds since 1970-01-01 UTC. It may be skewed, drift, and jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WallTime(pub u64);

/// Hybrid logical time: microseconds since 1970-01-01 UTC, pushed forward so that it is unique in its
/// shard and grows. 51 bits are enough until 2041; with a shard's number in the low 12 bits it makes a
/// global position that a client's signed 64-bit integer holds.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct HybridTime(pub u64);

impl HybridTime {
    /// The time of the event `n` places on, when each event takes one of its own.
    pub fn plus(self, n: u64) -> HybridTime {
        HybridTime(self.0 + n)
    }
}

impl fmt::Display for HybridTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The place of an event in the order of all events: its time, then its shard, in 63 bits, so that a signed
/// integer holds it.
///
/// Of two live shards the numbers must differ in their low 12 bits: room for 4096 shards at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GlobalPosition(pub u64);

impl GlobalPosition {
    const SHARD_BITS: u32 = 12;

    /// Before all events.
    pub const START: GlobalPosition = GlobalPosition(0);
    /// Behind all events.
    pub const END: GlobalPosition = GlobalPosition(u64::MAX >> 1);

    /// The position of the event of this time in this shard.
    pub fn of(time: HybridTime, shard: ShardId) -> Self {
        if time >= Self::END.time() {
            return Self::END;
        }
        let low = u64::from(shard.0) & ((1 << Self::SHARD_BITS) - 1);
        GlobalPosition(time.0 << Self::SHARD_BITS | low)
    }

    /// The first position behind all events of this time, whatever their shard.
    pub fn behind(time: HybridTime) -> Self {
        if time >= Self::END.time() {
            return Self::END;
        }
        GlobalPosition((time.0 + 1) << Self::SHARD_BITS)
    }

    /// The first position behind this one.
    pub fn next(self) -> Self {
        GlobalPosition(self.0.saturating_add(1)).min(Self::END)
    }

    /// The time in it.
    pub fn time(self) -> HybridTime {
        HybridTime(self.0 >> Self::SHARD_BITS)
    }
}

impl fmt::Display for GlobalPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Hands out the times of one shard.
#[derive(Debug, Clone, Default)]
pub struct HybridClock {
    last: HybridTime,
}

impl HybridClock {
    /// Starts above `last`: the highest time that was replayed, or that a parent closed at.
    pub fn above(last: HybridTime) -> Self {
        HybridClock { last }
    }

    /// The last time that was handed out, or that it began above.
    pub fn last(&self) -> HybridTime {
        self.last
    }

    /// Takes `count` consecutive times (at least one) and returns the first: the wall clock's, if it
    /// is ahead of all that were taken before, else the next.
    pub fn take(&mut self, wall: WallTime, count: u64) -> HybridTime {
        let first = HybridTime(wall.0.max(self.last.0 + 1));
        self.last = first.plus(count.max(1) - 1);
        first
    }
}
