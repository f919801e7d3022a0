//! What there is to deliver: which units each shard has, and which of them may begin.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    env::{Env, Progress, Store, StoreError},
    gateway::Gateway,
    group::{Group, GroupId, GroupNumber, Groups},
    shard::{self, Checkpoint, HashRange, ShardId, ShardInfo},
    stats::{Counter, Stats},
};

/// The whole key space: where the streams of a shard may be that is not listed any more.
const ANYWHERE: HashRange = HashRange { start: 0, end: u128::MAX };

/// One look at the groups, the shards, and how far each is folded and settled.
#[derive(Debug)]
pub(crate) struct Plan {
    groups: Groups,
    listed: Vec<ShardInfo>,
    checkpoints: BTreeMap<ShardId, Checkpoint>,
    /// Of shards that are closed and folded to their end.
    progress: BTreeMap<ShardId, BTreeMap<GroupNumber, Progress>>,
    /// Which groups are through with which shard.
    done: BTreeSet<(ShardId, GroupNumber)>,
}

impl Plan {
    pub(crate) async fn look<E: Env>(
        gateway: &Gateway<E>,
        groups: Groups,
    ) -> Result<Self, StoreError> {
        let mut checkpoints = BTreeMap::new();
        let mut progress = BTreeMap::new();
        if !groups.groups.is_empty() {
            let store = gateway.env.store();
            // Before the listing, so that every shard that is folded is listed, or was and is gone.
            checkpoints = store.checkpoints().await?.into_iter().collect();
            if !gateway.refresh_shards().await {
                return Err(StoreError::Unknown);
            }
            for (shard, at) in &checkpoints {
                let lagging = groups.groups.iter().any(|g| at.ended && g.start.time() <= at.closed);
                if lagging {
                    let rows = store.progress(*shard).await?.into_iter().collect();
                    progress.insert(*shard, rows);
                }
            }
        }
        let listed = gateway.routes().shards.to_vec();
        Ok(Plan::of(groups, listed, checkpoints, progress))
    }

    pub(crate) fn of(
        groups: Groups,
        listed: Vec<ShardInfo>,
        checkpoints: BTreeMap<ShardId, Checkpoint>,
        progress: BTreeMap<ShardId, BTreeMap<GroupNumber, Progress>>,
    ) -> Self {
        let mut plan = Plan { groups, listed, checkpoints, progress, done: BTreeSet::new() };
        let mut done = BTreeSet::new();
        for (shard, at) in plan.checkpoints.iter().filter(|(_, at)| at.ended) {
            let before = plan.before(*shard);
            for group in &plan.groups.groups {
                let settled = plan.progress.get(shard).and_then(|rows| rows.get(&group.number));
                // It began behind all that the shard has. But an empty shard ended at no time at all, and is passed over only
                // when those before it are through: parents have lower ids, and are decided.
                let passed = group.start.time() > at.closed
                    && before.iter().all(|parent| {
                        !group.touches(plan.range(*parent))
                            || done.contains(&(*parent, group.number))
                    });
                if passed || settled.is_some_and(|progress| progress.ended) {
                    done.insert((*shard, group.number));
                }
            }
        }
        plan.done = done;
        plan
    }

    /// How far each shard is folded.
    pub(crate) fn checkpoints(&self) -> Vec<(ShardId, Checkpoint)> {
        self.checkpoints.iter().map(|(id, at)| (*id, at.clone())).collect()
    }

    /// The group of an id.
    pub(crate) fn group(&self, id: &GroupId) -> Option<&Group> {
        self.groups.get(id)
    }

    /// The shards of which there is something to deliver, now or later.
    pub(crate) fn shards(&self) -> impl Iterator<Item = ShardId> + '_ {
        let all: BTreeSet<ShardId> =
            self.listed.iter().map(|s| s.id).chain(self.checkpoints.keys().copied()).collect();
        all.into_iter().filter(|shard| {
            self.unfinished(*shard).next().is_some() || self.replays(*shard).next().is_some()
        })
    }

    /// The groups that have units on a shard which may work now.
    pub(crate) fn units(&self, shard: ShardId, stats: &Stats) -> Vec<&Group> {
        let before = self.before(shard);
        let may_begin = |group: &&Group| {
            let begins = before.iter().all(|parent| {
                !group.touches(self.range(*parent)) || self.done.contains(&(*parent, group.number))
            });
            if !begins {
                stats.count(Counter::ChildrenWaited);
            }
            begins
        };
        self.unfinished(shard).filter(may_begin).collect()
    }

    /// The groups that replay what they have parked, if it is parked in this shard.
    pub(crate) fn replays(&self, shard: ShardId) -> impl Iterator<Item = &Group> {
        self.groups.groups.iter().filter(move |group| {
            let parked = group.id.parked().filter(|_| group.replay_below > 0);
            let holder = parked.and_then(|parked| shard::holder(&self.listed, parked.key()));
            holder.is_some_and(|holder| holder.id == shard)
        })
    }

    fn unfinished(&self, shard: ShardId) -> impl Iterator<Item = &Group> {
        let range = self.range(shard);
        let unfinished = move |group: &&Group| {
            group.touches(range) && !self.done.contains(&(shard, group.number))
        };
        self.groups.groups.iter().filter(unfinished)
    }

    fn range(&self, shard: ShardId) -> HashRange {
        self.listed.iter().find(|s| s.id == shard).map_or(ANYWHERE, |s| s.range)
    }

    /// The shards that must be at their end before this one begins: its parents. Those that the log does not list any more are taken
    /// for ancestors of every shard that came later and has no listed parents left, since nothing says whose they were.
    fn before(&self, shard: ShardId) -> BTreeSet<ShardId> {
        let listed = |id: &ShardId| self.listed.iter().any(|s| s.id == *id);
        let gone = || {
            let gone = self.checkpoints.keys().filter(move |id| **id < shard && !listed(id));
            gone.copied()
        };
        match self.listed.iter().find(|s| s.id == shard) {
            Some(info) if info.parents.iter().all(listed) => info.parents.iter().copied().collect(),
            Some(info) => info.parents.iter().copied().filter(listed).chain(gone()).collect(),
            None => gone().collect(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test: what is wrong here must stop it
mod tests {
    use super::*;
    use crate::{
        group::{Settings, Source, Start, Target},
        stream::StreamName,
        time::{GlobalPosition, HybridTime},
    };

    fn group(source: Source, number: u64, start: u64) -> Group {
        Group {
            id: GroupId::new(source, format!("g{number}")).unwrap(),
            number: GroupNumber(number),
            began: Start::Beginning,
            start: GlobalPosition::of(HybridTime(start), ShardId(0)),
            first_revision: 0,
            filter: None,
            target: Target::Consumers,
            settings: Settings::default(),
            replay_below: 0,
        }
    }

    /// Shard 0 was split into 1 and 2; 1 was split into 3 and 4.
    fn listed() -> Vec<ShardInfo> {
        let half = u128::MAX / 2;
        let shard = |id, parents: &[u32], start, end, closed| ShardInfo {
            id: ShardId(id),
            range: HashRange { start, end },
            parents: parents.iter().map(|p| ShardId(*p)).collect(),
            closed,
        };
        vec![
            shard(0, &[], 0, u128::MAX, true),
            shard(1, &[0], 0, half, true),
            shard(2, &[0], half + 1, u128::MAX, false),
            shard(3, &[1], 0, half / 2, false),
            shard(4, &[1], half / 2 + 1, half, false),
        ]
    }

    fn checkpoint(closed: u64, ended: bool) -> Checkpoint {
        Checkpoint { closed: HybridTime(closed), ended, ..Checkpoint::default() }
    }

    fn plan(groups: Vec<Group>, listed: Vec<ShardInfo>, ended: &[(u32, u64)]) -> Plan {
        let mut checkpoints: BTreeMap<_, _> =
            [(0, 10, true), (1, 20, true), (2, 30, false), (3, 30, false)]
                .map(|(id, closed, ended)| (ShardId(id), checkpoint(closed, ended)))
                .into();
        checkpoints.retain(|id, _| id.0 != 3 || listed.len() > 1);
        let mut progress: BTreeMap<ShardId, BTreeMap<GroupNumber, Progress>> = BTreeMap::new();
        for (shard, group) in ended {
            let at = Progress { next: HybridTime(11), ended: true };
            progress.entry(ShardId(*shard)).or_default().insert(GroupNumber(*group), at);
        }
        Plan::of(Groups { groups }, listed, checkpoints, progress)
    }

    fn begins(plan: &Plan, group: u64) -> Vec<u32> {
        let stats = Stats::default();
        let has = |shard: &ShardId| {
            plan.units(*shard, &stats).iter().any(|g| g.number == GroupNumber(group))
        };
        plan.shards().filter(has).map(|shard| shard.0).collect()
    }

    #[test]
    fn a_child_begins_when_its_parents_are_at_their_end_for_the_group() {
        let all = || vec![group(Source::All, 1, 0), group(Source::All, 2, 0)];
        assert_eq!(begins(&plan(all(), listed(), &[]), 1), [0]);
        let parent_done = plan(all(), listed(), &[(0, 1)]);
        assert_eq!((begins(&parent_done, 1), begins(&parent_done, 2)), (vec![1, 2], vec![0]));
        assert_eq!(begins(&plan(all(), listed(), &[(0, 1), (1, 1)]), 1), [2, 3, 4]);
    }

    #[test]
    fn a_group_that_began_behind_the_end_of_a_shard_is_through_with_it() {
        assert_eq!(begins(&plan(vec![group(Source::All, 1, 11)], listed(), &[]), 1), [1, 2]);
        assert_eq!(begins(&plan(vec![group(Source::All, 1, 21)], listed(), &[]), 1), [2, 3, 4]);
    }

    #[test]
    fn an_empty_shard_is_passed_over_only_when_its_parents_are_through() {
        let mut group = group(Source::All, 1, 0);
        group.start = GlobalPosition::of(HybridTime(5), ShardId(0));
        let mut plan = plan(vec![group], listed(), &[]);
        plan.checkpoints.insert(ShardId(1), checkpoint(0, true));
        let plan = Plan::of(plan.groups, plan.listed, plan.checkpoints, BTreeMap::new());
        assert_eq!(begins(&plan, 1), [0]);
    }

    #[test]
    fn a_group_of_one_stream_works_on_the_shards_that_may_hold_it() {
        let streams = (0..).map(|n| StreamName::new(format!("a-{n}")).unwrap());
        let stream = streams.into_iter().find(|s| s.key() < u128::MAX / 4).unwrap();
        let of_stream = vec![group(Source::Stream(stream), 1, 0)];
        let shards = |plan: &Plan| plan.shards().map(|s| s.0).collect::<Vec<_>>();
        assert_eq!(shards(&plan(of_stream.clone(), listed(), &[])), [0, 1, 3]);
        assert_eq!(begins(&plan(of_stream, listed(), &[(0, 1), (1, 1)]), 1), [3]);
    }

    #[test]
    fn shards_that_are_not_listed_any_more_come_one_after_the_other_and_before_their_heirs() {
        let groups = || vec![group(Source::All, 1, 0)];
        let left = || listed().split_off(2);
        assert_eq!(begins(&plan(groups(), left(), &[]), 1), [0]);
        assert_eq!(begins(&plan(groups(), left(), &[(0, 1)]), 1), [1]);
        assert_eq!(begins(&plan(groups(), left(), &[(0, 1), (1, 1)]), 1), [2, 3, 4]);
    }

    #[test]
    fn what_was_parked_is_replayed_where_its_stream_is() {
        let mut one = group(Source::All, 1, 100);
        one.replay_below = 3;
        let plan = plan(vec![one.clone()], listed(), &[]);
        let key = one.id.parked().unwrap().key();
        let home = shard::holder(&listed(), key).unwrap().id;
        let replays = |shard: u32| plan.replays(ShardId(shard)).count();
        assert_eq!((0..5).filter(|s| replays(*s) > 0).collect::<Vec<_>>(), [home.0]);
    }
}
