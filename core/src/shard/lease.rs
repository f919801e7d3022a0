//! Who should own which shard: decided by every node for itself, from signs of life and epoch rows.
//!
//! It is never more than advice. Two nodes that both think a shard is theirs are sorted out by the
//! compare-and-set, the fence and the epoch check; so no clock is compared with another, and a wrong
//! guess costs time, not data.
//!
//! A node is alive while its beat moves, as seen by the observer's own clock. A shard is free if it has
//! no owner, or its owner is an incarnation that is not alive. Each free shard goes to the node that
//! ranks highest for it (rendezvous hashing) among those that have room; the others wait a grace period per
//! rank. A node that has just started knows nobody yet: it waits one grace period, too, so that the first one
//! does not take everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    env::{EpochRow, NodeId, NodeRow, Token},
    shard::ShardId,
};

/// What the decision depends on.
#[derive(Debug, Clone)]
pub struct View<'a> {
    /// The observer's [`Clock::elapsed`](crate::env::Clock::elapsed).
    pub now: Duration,
    /// All signs of life.
    pub nodes: &'a [NodeRow],
    /// The epoch rows of the shards that can be owned: open, and their parents folded.
    pub shards: &'a [EpochRow],
    /// Closed shards that are not folded to their end.
    pub unfolded: &'a [ShardId],
    /// The shards that this node owns or is taking.
    pub mine: &'a BTreeSet<ShardId>,
    /// Whether this node is leaving.
    pub draining: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Take this shard from the epoch row seen.
    Take(EpochRow),
    /// Fold this closed shard to its end.
    Fold(ShardId),
    /// Finish what is under way on this shard, then let it go.
    Release(ShardId),
    /// Tell who serves this shard here that the store names another owner.
    Warn(EpochRow),
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    beat: u64,
    draining: bool,
    moved: Duration,
}

/// The memory of one observer.
#[derive(Debug)]
pub struct Leases {
    me: (NodeId, Token),
    dead_after: Duration,
    grace: Duration,
    seen: BTreeMap<(NodeId, Token), Seen>,
    /// Since when a shard has been waiting for someone to take or fold it.
    waiting: BTreeMap<ShardId, Duration>,
    /// When this observer first looked.
    began: Option<Duration>,
}

impl Leases {
    /// `dead_after`: how long a beat may stand still; `grace`: how long a node waits per rank before
    /// it takes what a better-ranked one has not.
    pub fn new(me: (NodeId, Token), dead_after: Duration, grace: Duration) -> Self {
        Leases {
            me,
            dead_after,
            grace,
            seen: BTreeMap::new(),
            waiting: BTreeMap::new(),
            began: None,
        }
    }

    /// Decides. Call it about every third of `dead_after`, with a fresh view.
    pub fn decide(&mut self, view: &View<'_>) -> Vec<Action> {
        self.observe(view);
        let alive = self.alive(view);
        let mut actions = Vec::new();

        // A shard that this node serves, but that the store says has moved on.
        for row in view.shards {
            if view.mine.contains(&row.shard) && row.owner.is_some_and(|o| o != self.me) {
                actions.push(Action::Warn(*row));
            }
        }
        if view.draining {
            actions.extend(view.mine.iter().map(|s| Action::Release(*s)));
            return actions;
        }

        let free: Vec<&EpochRow> =
            view.shards.iter().filter(|row| self.is_free(row, view)).collect();
        let wanted: BTreeSet<ShardId> =
            free.iter().map(|row| row.shard).chain(view.unfolded.iter().copied()).collect();
        self.waiting.retain(|shard, _| wanted.contains(shard));
        for shard in wanted {
            self.waiting.entry(shard).or_insert(view.now);
        }
        for shard in view.unfolded {
            if self.waited(*shard, view.now) >= self.grace * rank(*shard, self.me.0, &alive) {
                actions.push(Action::Fold(*shard));
            }
        }

        let room = view.shards.len().div_ceil(alive.len().max(1));
        let roomy = self.with_room(view, &alive, room);
        let strange = view.now < *self.began.get_or_insert(view.now) + self.grace;
        // A shard that is served here but cannot be owned any more was closed: it is let go, and is no load.
        let ready: BTreeSet<ShardId> = view.shards.iter().map(|row| row.shard).collect();
        actions.extend(view.mine.difference(&ready).map(|shard| Action::Release(*shard)));
        let kept: BTreeSet<ShardId> = view.mine.intersection(&ready).copied().collect();
        let mut held = kept.len();
        for row in &free {
            let waited = self.waited(row.shard, view.now);
            let before = row.owner.is_some_and(|(node, _)| node == self.me.0);
            // An earlier incarnation of this node was the owner: nobody else can know that it is gone.
            let turns = if before { 0 } else { rank(row.shard, self.me.0, &roomy) };
            // Nobody may have room for a shard that every node with room fails to take.
            let overdue = waited >= self.grace * (alive.len() as u32 + 1);
            let turn = waited >= self.grace * turns && (before || !strange);
            if (held < room && turn) || overdue {
                actions.push(Action::Take(**row));
                held += 1;
            }
        }
        if free.is_empty() && kept.len() > room {
            let worst = kept.into_iter().max_by_key(|s| (rank(*s, self.me.0, &alive), *s));
            actions.extend(worst.map(Action::Release));
        }
        actions
    }

    fn observe(&mut self, view: &View<'_>) {
        for row in view.nodes {
            let seen = Seen { beat: row.beat, draining: row.draining, moved: view.now };
            let known = self.seen.entry((row.node, row.token)).or_insert(seen);
            if row.beat > known.beat {
                *known = seen;
            }
        }
        self.seen.retain(|key, _| view.nodes.iter().any(|row| (row.node, row.token) == *key));
    }

    fn is_alive(&self, key: (NodeId, Token), now: Duration) -> bool {
        key == self.me
            || (key.0 != self.me.0
                && self
                    .seen
                    .get(&key)
                    .is_some_and(|s| now.saturating_sub(s.moved) < self.dead_after))
    }

    /// The nodes that may be given shards; this one among them.
    fn alive(&self, view: &View<'_>) -> BTreeSet<NodeId> {
        let others =
            self.seen.iter().filter(|(key, s)| !s.draining && self.is_alive(**key, view.now));
        others.map(|(key, _)| key.0).chain([self.me.0]).collect()
    }

    fn is_free(&self, row: &EpochRow, view: &View<'_>) -> bool {
        !view.mine.contains(&row.shard)
            && row.owner.is_none_or(|owner| !self.is_alive(owner, view.now) || owner == self.me)
    }

    fn waited(&self, shard: ShardId, now: Duration) -> Duration {
        self.waiting.get(&shard).map_or(Duration::ZERO, |since| now.saturating_sub(*since))
    }

    /// The nodes that hold fewer shards than their share, as the rows tell.
    fn with_room(
        &self,
        view: &View<'_>,
        alive: &BTreeSet<NodeId>,
        room: usize,
    ) -> BTreeSet<NodeId> {
        let mut held: BTreeMap<NodeId, usize> = BTreeMap::new();
        for (node, token) in view.shards.iter().filter_map(|row| row.owner) {
            if self.is_alive((node, token), view.now) {
                *held.entry(node).or_default() += 1;
            }
        }
        let mine = view.shards.iter().filter(|row| view.mine.contains(&row.shard)).count();
        held.insert(self.me.0, mine);
        alive.iter().filter(|n| held.get(n).is_none_or(|count| *count < room)).copied().collect()
    }
}

/// How many of the nodes come before `node` for a shard.
fn rank(shard: ShardId, node: NodeId, alive: &BTreeSet<NodeId>) -> u32 {
    let mine = (weight(shard, node), node);
    alive.iter().filter(|other| (weight(shard, **other), **other) > mine).count() as u32
}

/// A well-mixed number for a pair (the finaliser of SplitMix64).
fn weight(shard: ShardId, node: NodeId) -> u64 {
    let mut z = (u64::from(shard.0) << 32 | u64::from(node.0)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
