//! The order of all events: the frontier never passes what may still come, however shards split and merge and
//! however old the listing is; and slices, put behind one another, are that order, each event once.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{batched, cases};
use proptest::{collection::vec, prelude::*};
use stormkeep_core::{
    append::{AllSlice, Direction, Freshness, ReadAll},
    event::RecordedEvent,
    shard::{Checkpoint, HashRange, ShardId, ShardInfo, frontier::Frontier, merge::Merge},
    time::{GlobalPosition, HybridTime},
};

/// What may happen to a cluster whose owners obey: they start above all that came before, and above their
/// parents, which are folded to their end by then.
#[derive(Debug, Clone)]
enum Act {
    /// A shard takes an event, some time after its last one.
    Event { nth: usize, later: u64 },
    /// A shard is folded by some events.
    Fold { nth: usize, count: usize },
    /// A shard is split, if it can be.
    Split { nth: usize },
    /// Two neighbours are merged, if they can be.
    Merge { nth: usize },
    /// A reader gets a new listing.
    List,
}

fn any_act() -> impl Strategy<Value = Act> {
    let nth = || any::<prop::sample::Index>().prop_map(|i| i.index(1 << 20));
    prop_oneof![
        8 => (nth(), 1..50u64).prop_map(|(nth, later)| Act::Event { nth, later }),
        8 => (nth(), 1..6usize).prop_map(|(nth, count)| Act::Fold { nth, count }),
        2 => nth().prop_map(|nth| Act::Split { nth }),
        1 => nth().prop_map(|nth| Act::Merge { nth }),
        2 => Just(Act::List),
    ]
}

#[derive(Debug, Default)]
struct Cluster {
    shards: Vec<ShardInfo>,
    /// The times of each shard's events, and how many are folded.
    events: BTreeMap<ShardId, (Vec<HybridTime>, usize)>,
    listed: Vec<ShardInfo>,
}

impl Cluster {
    fn new(count: u32) -> Self {
        let mut cluster = Cluster::default();
        HashRange::split_evenly(count).for_each(|range| cluster.add(range, Vec::new()));
        cluster.listed = cluster.shards.clone();
        cluster
    }

    fn add(&mut self, range: HashRange, parents: Vec<ShardId>) {
        for shard in &mut self.shards {
            shard.closed |= parents.contains(&shard.id);
        }
        let id = ShardId(self.shards.len() as u32);
        self.shards.push(ShardInfo { id, range, parents, closed: false });
        self.events.insert(id, (Vec::new(), 0));
    }

    fn ended(&self, shard: &ShardInfo) -> bool {
        let (events, folded) = &self.events[&shard.id];
        let parents = self.shards.iter().filter(|s| shard.parents.contains(&s.id));
        shard.closed && *folded == events.len() && parents.into_iter().all(|p| self.ended(p))
    }

    fn open(&self, nth: usize) -> ShardInfo {
        let open: Vec<&ShardInfo> = self.shards.iter().filter(|s| !s.closed).collect();
        open[nth % open.len()].clone()
    }

    /// The highest time of a shard and of all that it came from; `None`: its parents are not folded yet.
    fn floor(&self, shard: &ShardInfo) -> Option<u64> {
        let mut floor = self.events[&shard.id].0.last().map_or(0, |t| t.0);
        for parent in self.shards.iter().filter(|s| shard.parents.contains(&s.id)) {
            if !self.ended(parent) {
                return None;
            }
            floor = floor.max(self.floor(parent)?);
        }
        Some(floor)
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Event { nth, later } => {
                let shard = self.open(nth);
                if let Some(floor) = self.floor(&shard) {
                    self.events.get_mut(&shard.id).unwrap().0.push(HybridTime(floor + later));
                }
            }
            Act::Fold { nth, count } => {
                let shard = self.shards[nth % self.shards.len()].id;
                let (events, folded) = self.events.get_mut(&shard).unwrap();
                *folded = events.len().min(*folded + count);
            }
            Act::Split { nth } => {
                let ShardInfo { id, range, .. } = self.open(nth);
                let middle = range.start + (range.end - range.start) / 2;
                self.add(HashRange { end: middle, ..range }, vec![id]);
                self.add(HashRange { start: middle + 1, ..range }, vec![id]);
            }
            Act::Merge { nth } => {
                let left = self.open(nth);
                let right = self
                    .shards
                    .iter()
                    .find(|s| !s.closed && left.range.end.checked_add(1) == Some(s.range.start));
                if let Some(right) = right.cloned() {
                    let range = HashRange { start: left.range.start, end: right.range.end };
                    self.add(range, vec![left.id, right.id]);
                }
            }
            Act::List => self.listed = self.shards.clone(),
        }
    }

    fn checkpoints(&self) -> BTreeMap<ShardId, Checkpoint> {
        let at = |shard: &ShardInfo| {
            let (events, folded) = &self.events[&shard.id];
            let closed = folded.checked_sub(1).map_or(HybridTime(0), |n| events[n]);
            Checkpoint { ended: self.ended(shard), closed, ..Checkpoint::default() }
        };
        // A shard that nobody folds yet has none.
        let known = self.shards.iter().filter(|s| self.events[&s.id].1 > 0 || self.ended(s));
        known.map(|s| (s.id, at(s))).collect()
    }

    fn stored(&self, up_to: HybridTime) -> BTreeSet<(HybridTime, ShardId)> {
        let all = self
            .events
            .iter()
            .flat_map(|(id, (events, folded))| events[..*folded].iter().map(|time| (*time, *id)));
        all.filter(|(time, _)| *time <= up_to).collect()
    }

    fn everything(&self, up_to: HybridTime) -> BTreeSet<(HybridTime, ShardId)> {
        let all = self.events.iter().flat_map(|(id, (events, _))| events.iter().map(|t| (*t, *id)));
        all.filter(|(time, _)| *time <= up_to).collect()
    }
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn nothing_ever_appears_behind_the_watermark(
        shards in 1..5u32, acts in vec(any_act(), 1..120), reads in vec(any::<bool>(), 120), mixed in any::<bool>(),
    ) {
        let mut cluster = Cluster::new(shards);
        let mut seen: Vec<(HybridTime, BTreeSet<(HybridTime, ShardId)>)> = Vec::new();
        let mut before = cluster.checkpoints();
        for (act, read) in acts.iter().zip(reads) {
            cluster.act(act);
            if !read {
                continue;
            }
            let mut checkpoints = cluster.checkpoints();
            if mixed {
                // Each row was read at a time of its own.
                for (id, at) in &before {
                    if id.0 % 2 == 0 {
                        checkpoints.insert(*id, at.clone());
                    }
                }
            }
            before = cluster.checkpoints();
            let Some(frontier) = Frontier::of(&cluster.listed, &checkpoints) else {
                prop_assert!(cluster.listed != cluster.shards, "a new listing has no hole");
                continue;
            };
            let watermark = frontier.watermark();
            let stored = cluster.stored(watermark);
            prop_assert_eq!(&stored, &cluster.everything(watermark), "all up to it is in the store");
            for from in [HybridTime(0), HybridTime(watermark.0 / 2), watermark] {
                let holders = frontier.holders(from);
                let due = stored.iter().filter(|(time, _)| *time >= from);
                prop_assert!(due.into_iter().all(|(_, id)| holders.contains(id)));
            }
            prop_assert!(frontier.lagging(HybridTime(watermark.0 + 1)).count() > 0);
            prop_assert_eq!(frontier.lagging(watermark).count(), 0);
            seen.push((watermark, stored));
        }
        for (watermark, stored) in seen {
            prop_assert_eq!(stored, cluster.everything(watermark), "it was final");
        }
    }

    /// Once everything is folded and every open shard has closed a time, the watermark is there.
    #[test]
    fn the_watermark_moves_on_while_shards_come_and_go(shards in 1..5u32, acts in vec(any_act(), 1..120)) {
        let mut cluster = Cluster::new(shards);
        acts.iter().for_each(|act| cluster.act(act));
        let newest = cluster.events.values().filter_map(|(e, _)| e.last()).max().copied();
        let newest = newest.unwrap_or_default().0 + 1;
        let ids: Vec<ShardId> = cluster.shards.iter().map(|s| s.id).collect();
        for id in ids {
            let shard = cluster.shards[id.0 as usize].clone();
            if !shard.closed {
                cluster.events.get_mut(&id).unwrap().0.push(HybridTime(newest));
            }
            let (events, folded) = cluster.events.get_mut(&id).unwrap();
            *folded = events.len();
        }
        let frontier = Frontier::of(&cluster.shards, &cluster.checkpoints()).unwrap();
        prop_assert!(frontier.watermark() >= HybridTime(newest));
    }
}

/// Events at these times of these shards.
fn events(places: &BTreeSet<(u64, u32)>) -> Vec<RecordedEvent> {
    let append = batched("player-1", 1, 0, 1);
    let event = |(time, shard): &(u64, u32)| {
        append.recorded(ShardId(*shard), HybridTime(*time)).next().unwrap()
    };
    places.iter().map(event).collect()
}

/// What each shard answers to a read.
fn parts(all: &[RecordedEvent], merge: &Merge, direction: Direction) -> Vec<Vec<RecordedEvent>> {
    let Some((low, high)) = merge.times() else { return Vec::new() };
    let part = |shard: u32| {
        let mut part = all.to_vec();
        part.retain(|e| e.shard == ShardId(shard) && (low..=high).contains(&e.time));
        if direction == Direction::Backwards {
            part.reverse();
        }
        part.truncate(merge.limit() as usize);
        part
    };
    (0..4).map(part).collect()
}

fn read(all: &[RecordedEvent], read: ReadAll, last: u64) -> AllSlice {
    let merge = Merge::new(read, HybridTime(last));
    merge.slice(parts(all, &merge, read.direction))
}

fn any_places() -> impl Strategy<Value = BTreeSet<(u64, u32)>> {
    // Few times, so that many shards have an event of the same one.
    prop::collection::btree_set((1..30u64, 0..4u32), 0..60)
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn slices_behind_one_another_are_the_whole_order(
        places in any_places(), last in 0..35u64, limit in 1..7u32, backwards in any::<bool>(),
        from in (0..35u64, 0..4u32), anywhere in any::<bool>(),
    ) {
        let all = events(&places);
        let last = HybridTime(last);
        let somewhere = GlobalPosition::of(HybridTime(from.0), ShardId(from.1));
        let (direction, begin) = if backwards {
            (Direction::Backwards, if anywhere { somewhere } else { GlobalPosition::END })
        } else {
            (Direction::Forwards, if anywhere { somewhere } else { GlobalPosition::START })
        };
        let mut due: Vec<_> = all.iter().filter(|e| e.time <= last).cloned().collect();
        due.sort_by_key(RecordedEvent::position);
        if backwards {
            due.retain(|e| e.position() < begin);
            due.reverse();
        } else {
            due.retain(|e| e.position() >= begin);
        }
        let mut seen = Vec::new();
        let mut from = begin;
        loop {
            let asked = ReadAll { from, limit, direction, freshness: Freshness::Eventual };
            let slice = read(&all, asked, last.0);
            prop_assert!(slice.events.len() <= limit as usize);
            prop_assert_eq!(slice.watermark, GlobalPosition::behind(last));
            let end = if backwards { GlobalPosition::START } else { slice.watermark.max(from) };
            let full = slice.events.len() == limit as usize;
            seen.extend(slice.events);
            if slice.next == end {
                break;
            }
            prop_assert!(full, "a slice is full unless it is the last");
            let moved = if backwards { slice.next < from } else { slice.next > from };
            prop_assert!(moved, "{} behind {}", slice.next, from);
            from = slice.next;
        }
        prop_assert_eq!(seen, due);
    }

    #[test]
    fn a_read_of_nothing_stays_where_it_is(from in any::<u64>(), last in any::<u64>(), backwards in any::<bool>()) {
        let direction = if backwards { Direction::Backwards } else { Direction::Forwards };
        let from = GlobalPosition(from);
        let merge = Merge::new(ReadAll { from, limit: 0, direction, freshness: Freshness::Strong }, HybridTime(last));
        prop_assert_eq!(merge.times(), None);
        let slice = merge.slice([]);
        prop_assert_eq!((slice.next, slice.events.len()), (from, 0));
        prop_assert_eq!(slice.watermark, GlobalPosition::behind(HybridTime(last)));
    }
}

/// One shard alone, read by one event at a time: each slice begins at the time of the one before it, so what
/// is behind it must not be taken for the end.
#[test]
fn a_slice_that_begins_within_a_time_sees_that_there_is_more() {
    let all = events(&(1..=5).map(|time| (time, 0)).collect());
    let from = GlobalPosition::of(HybridTime(1), ShardId(0)).next();
    let asked =
        ReadAll { from, limit: 1, direction: Direction::Forwards, freshness: Freshness::Eventual };
    let slice = read(&all, asked, 9);
    assert_eq!(slice.events[0].time, HybridTime(2));
    assert_eq!(slice.next, slice.events[0].position().next());
}

fn info(id: u32, start: u128, end: u128, parents: &[u32], closed: bool) -> ShardInfo {
    let parents = parents.iter().map(|p| ShardId(*p)).collect();
    ShardInfo { id: ShardId(id), range: HashRange { start, end }, parents, closed }
}

fn at(closed: u64, ended: bool) -> Checkpoint {
    Checkpoint { closed: HybridTime(closed), ended, ..Checkpoint::default() }
}

#[test]
fn a_frontier_counts_open_shards_their_ancestors_and_no_hole() {
    let half = u128::MAX / 2;
    let listed = [
        info(0, 0, u128::MAX, &[], true),
        info(1, 0, half, &[0], false),
        info(2, half + 1, u128::MAX, &[0], false),
    ];
    let frontier = |shards: &[ShardInfo], checkpoints: &[(u32, Checkpoint)]| {
        let checkpoints = checkpoints.iter().map(|(id, at)| (ShardId(*id), at.clone())).collect();
        Frontier::of(shards, &checkpoints).map(|f| f.watermark().0)
    };
    assert_eq!(frontier(&listed, &[]), Some(0));
    // The parent holds it back until it is ended; its children are above it, whether anybody took them or not.
    assert_eq!(frontier(&listed, &[(0, at(50, false))]), Some(50));
    assert_eq!(frontier(&listed, &[(0, at(50, false)), (1, at(90, false))]), Some(50));
    assert_eq!(frontier(&listed, &[(0, at(50, true)), (1, at(90, false))]), Some(50));
    let both = [(0, at(50, true)), (1, at(90, false)), (2, at(70, false))];
    assert_eq!(frontier(&listed, &both), Some(70));
    // A listing without the children, or with one of them, has a hole.
    assert_eq!(frontier(&listed[..1], &both), None);
    assert_eq!(frontier(&listed[..2], &both), None);
    assert_eq!(frontier(&[], &[]), None);
}
