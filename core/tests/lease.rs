//! Who owns which shard: when the cluster is left alone, every shard soon has one owner, the shares are
//! even, and then nothing moves. The dead lose their shards, the restarted get theirs back at once, and
//! those that leave give all up.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use common::cases;
use proptest::{collection::vec, prelude::*};
use stormkeep_core::{
    env::{EpochRow, NodeId, NodeRow, Role, Token},
    shard::{
        ShardId,
        lease::{Action, Leases, View},
    },
};

const TICK: Duration = Duration::from_millis(1000);
const DEAD_AFTER: Duration = Duration::from_millis(4000);
const GRACE: Duration = Duration::from_millis(1500);

struct Node {
    me: (NodeId, Token),
    leases: Leases,
    beat: u64,
    draining: bool,
    mine: BTreeSet<ShardId>,
}

/// Nodes that look at one store, one after the other, once a tick.
struct Cluster {
    now: Duration,
    nodes: BTreeMap<u32, Node>,
    signs: BTreeMap<(NodeId, Token), NodeRow>,
    rows: Vec<EpochRow>,
    unfolded: Vec<ShardId>,
    tokens: u128,
}

impl Cluster {
    fn new(nodes: u32, shards: u32) -> Self {
        let rows = (0..shards).map(|n| EpochRow::vacant(ShardId(n))).collect();
        let mut cluster = Cluster {
            now: Duration::ZERO,
            nodes: BTreeMap::new(),
            signs: BTreeMap::new(),
            rows,
            unfolded: Vec::new(),
            tokens: 0,
        };
        (0..nodes).for_each(|n| cluster.start(n));
        cluster
    }

    /// Starts a node, or a new incarnation of it.
    fn start(&mut self, node: u32) {
        self.tokens += 1;
        let me = (NodeId(node), Token(self.tokens));
        let leases = Leases::new(me, DEAD_AFTER, GRACE);
        let mine = BTreeSet::new();
        self.nodes.insert(node, Node { me, leases, beat: 0, draining: false, mine });
    }

    /// One node gives a sign of life, looks, and does what it decides; its actions.
    fn look(&mut self, node: u32) -> Vec<Action> {
        let Some(node) = self.nodes.get_mut(&node) else { return Vec::new() };
        node.beat += 1;
        let ((id, token), beat, draining) = (node.me, node.beat, node.draining);
        self.signs.insert(node.me, NodeRow { node: id, role: Role::Owns, token, beat, draining });
        let signs: Vec<NodeRow> = self.signs.values().copied().collect();
        let actions = node.leases.decide(&View {
            now: self.now,
            nodes: &signs,
            shards: &self.rows,
            unfolded: &self.unfolded,
            mine: &node.mine,
            draining,
        });
        for action in &actions {
            match *action {
                Action::Take(seen) => {
                    let row = self.rows.iter_mut().find(|r| r.shard == seen.shard).unwrap();
                    assert_eq!(*row, seen, "a shard is taken from the row that was seen");
                    assert!(!draining, "who leaves takes nothing");
                    *row = EpochRow { epoch: row.epoch + 1, owner: Some(node.me), ..*row };
                    node.mine.insert(seen.shard);
                }
                Action::Release(shard) => {
                    let row = self.rows.iter_mut().find(|r| r.shard == shard).unwrap();
                    assert!(node.mine.remove(&shard), "only what is held is let go");
                    if row.owner == Some(node.me) {
                        row.owner = None;
                    }
                }
                Action::Warn(row) => {
                    assert_ne!(row.owner, Some(node.me));
                    node.mine.remove(&row.shard);
                }
                Action::Fold(shard) => assert!(self.unfolded.contains(&shard)),
            }
        }
        actions
    }

    /// Everyone looks once, in the order that `salt` says; how many actions that made.
    fn tick(&mut self, salt: usize) -> usize {
        self.now += TICK;
        let mut order: Vec<u32> = self.nodes.keys().copied().collect();
        if !order.is_empty() {
            let turn = salt % order.len();
            order.rotate_left(turn);
        }
        order.into_iter().map(|n| self.look(n).len()).sum()
    }

    fn takers(&self) -> usize {
        self.nodes.values().filter(|n| !n.draining).count()
    }

    /// Whether every shard is served by the node that its row names, and the shares are even.
    fn is_balanced(&self) -> bool {
        let owned = self.rows.iter().all(|row| {
            let owner = row.owner.and_then(|(n, _)| self.nodes.get(&n.0));
            owner.is_some_and(|n| Some(n.me) == row.owner && n.mine.contains(&row.shard))
        });
        let share = self.rows.len().div_ceil(self.takers().max(1));
        let fair = self.nodes.values().all(|n| n.mine.len() <= if n.draining { 0 } else { share });
        let held: usize = self.nodes.values().map(|n| n.mine.len()).sum();
        owned && fair && held == self.rows.len()
    }

    /// Ticks until the shards are balanced.
    fn settle(&mut self) -> u32 {
        let bound = self.ticks_max();
        for ticks in 0..=bound {
            if self.is_balanced() {
                return ticks;
            }
            self.tick(ticks as usize);
        }
        panic!("not balanced after {bound} ticks: {:?}", self.rows);
    }

    /// The dead are found out, then each shard may have to move, one after the other, each waiting for
    /// the turn of whoever ranks last.
    fn ticks_max(&self) -> u32 {
        let turns = GRACE * (self.takers() as u32 + 1);
        let move_max = turns.as_millis().div_ceil(TICK.as_millis()) as u32 + 2;
        ticks(DEAD_AFTER) + 1 + move_max * self.rows.len() as u32
    }

    fn owner(&self, shard: usize) -> Option<u32> {
        self.rows[shard].owner.map(|(n, _)| n.0)
    }
}

fn ticks(time: Duration) -> u32 {
    time.as_millis().div_ceil(TICK.as_millis()) as u32
}

#[derive(Debug, Clone)]
enum Act {
    Tick(usize),
    /// A node that is up crashes.
    Crash(u32),
    /// A node that is down comes up; one that is up starts anew.
    Start(u32),
    Drain(u32),
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..10usize).prop_map(Act::Tick),
        1 => (0..5u32).prop_map(Act::Crash),
        2 => (0..5u32).prop_map(Act::Start),
        1 => (0..5u32).prop_map(Act::Drain),
    ]
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn a_cluster_left_alone_balances_and_then_rests(
        nodes in 1..=5u32, shards in 1..=12u32, acts in vec(any_act(), 0..60),
    ) {
        let mut cluster = Cluster::new(nodes, shards);
        for act in acts {
            match act {
                Act::Tick(salt) => {
                    cluster.tick(salt);
                }
                Act::Crash(node) => drop(cluster.nodes.remove(&node)),
                Act::Start(node) => cluster.start(node),
                Act::Drain(node) => if let Some(node) = cluster.nodes.get_mut(&node) {
                    node.draining = true;
                },
            }
        }
        if cluster.takers() == 0 {
            cluster.start(9);
        }
        cluster.settle();
        // The dead may still be counted among the living, and then the shares be smaller than they could.
        (0..ticks(DEAD_AFTER) as usize + 1).for_each(|salt| {
            cluster.tick(salt);
        });
        cluster.settle();
        let before = cluster.rows.clone();
        for salt in 0..30 {
            prop_assert_eq!(cluster.tick(salt), 0, "nothing moves any more");
        }
        prop_assert_eq!(cluster.rows, before);
    }

    #[test]
    fn the_shards_of_a_dead_node_are_taken_in_time(nodes in 2..=5u32, shards in 1..=12u32, dead in 0..5u32) {
        let mut cluster = Cluster::new(nodes, shards);
        cluster.settle();
        (0..10).for_each(|salt| {
            cluster.tick(salt);
        });
        let dead = dead % nodes;
        cluster.nodes.remove(&dead);
        let before = cluster.rows.clone();
        // Nobody takes anything while the dead one may yet be alive.
        for salt in 0..ticks(DEAD_AFTER) as usize - 1 {
            cluster.tick(salt);
            prop_assert_eq!(&cluster.rows, &before);
        }
        for salt in 0..ticks(GRACE * nodes) as usize + 2 {
            cluster.tick(salt);
        }
        prop_assert!(cluster.is_balanced());
        for (row, before) in cluster.rows.iter().zip(&before) {
            let was_dead = before.owner.is_some_and(|(n, _)| n.0 == dead);
            prop_assert_eq!(row.epoch, before.epoch + u64::from(was_dead), "only its shards move");
        }
    }

    #[test]
    fn a_restarted_node_takes_its_shards_back_at_once(nodes in 1..=5u32, shards in 1..=12u32, who in 0..5u32) {
        let mut cluster = Cluster::new(nodes, shards);
        cluster.settle();
        let who = who % nodes;
        let before: Vec<_> = (0..shards as usize).map(|s| cluster.owner(s)).collect();
        cluster.start(who);
        let mut taken: Vec<Action> = cluster.look(who);
        taken.sort();
        let due = before.iter().filter(|owner| **owner == Some(who)).count();
        prop_assert_eq!(taken.len(), due);
        prop_assert!(taken.iter().all(|a| matches!(a, Action::Take(_))));
        let after: Vec<_> = (0..shards as usize).map(|s| cluster.owner(s)).collect();
        prop_assert_eq!(after, before);
        prop_assert!(cluster.is_balanced());
    }

    #[test]
    fn a_node_that_leaves_gives_all_up(nodes in 2..=5u32, shards in 1..=12u32, who in 0..5u32) {
        let mut cluster = Cluster::new(nodes, shards);
        cluster.settle();
        let who = who % nodes;
        cluster.nodes.get_mut(&who).unwrap().draining = true;
        cluster.look(who);
        prop_assert!(cluster.nodes[&who].mine.is_empty());
        for salt in 0..ticks(GRACE * nodes) as usize + 2 {
            cluster.tick(salt);
        }
        prop_assert!(cluster.is_balanced());
        for salt in 0..30 {
            prop_assert_eq!(cluster.tick(salt), 0, "it takes nothing, and nothing moves");
        }
    }

    #[test]
    fn a_closed_shard_is_folded_by_one_and_by_others_if_that_one_fails(nodes in 1..=5u32, shard in 100..200u32) {
        let mut cluster = Cluster::new(nodes, 3);
        cluster.settle();
        cluster.tick(0);
        cluster.unfolded.push(ShardId(shard));
        let mut folders = BTreeSet::new();
        for tick in 0..=ticks(GRACE * (nodes - 1)) {
            cluster.now += TICK;
            for node in 0..nodes {
                let folds = cluster.look(node).contains(&Action::Fold(ShardId(shard)));
                if folds {
                    folders.insert(node);
                }
                prop_assert_eq!(folders.contains(&node), folds, "it is asked for until it is done");
            }
            if tick == 0 {
                prop_assert_eq!(folders.len(), 1);
            }
        }
        prop_assert_eq!(folders.len(), nodes as usize);
        cluster.unfolded.clear();
        prop_assert_eq!(cluster.tick(0), 0);
    }
}

#[test]
fn a_node_is_told_of_a_row_that_names_another() {
    let mut cluster = Cluster::new(1, 2);
    cluster.settle();
    let moved = EpochRow { epoch: 9, owner: Some((NodeId(5), Token(77))), ..cluster.rows[1] };
    cluster.rows[1] = moved;
    cluster.now += TICK;
    assert!(cluster.look(0).contains(&Action::Warn(moved)));
    assert!(!cluster.nodes[&0].mine.contains(&ShardId(1)));
}

#[test]
fn a_beat_that_stands_still_is_death_whoever_wrote_the_row() {
    let mut cluster = Cluster::new(1, 1);
    let owner = (NodeId(5), Token(77));
    cluster.rows[0] = EpochRow { shard: ShardId(0), epoch: 3, owner: Some(owner) };
    let row =
        NodeRow { node: owner.0, role: Role::Owns, token: owner.1, beat: 1000, draining: false };
    cluster.signs.insert(owner, row);
    for salt in 0..ticks(DEAD_AFTER) as usize {
        assert_eq!(cluster.tick(salt), 0, "it may be alive");
    }
    cluster.settle();
    assert_eq!(cluster.rows[0].epoch, 4);
}
