//! The units that are worked on here, where consumers find them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    consume::{ConsumeError, Fetch, Fetched, Leave, Settle, Settled, Unit, UnitInfo},
    env::NodeId,
    group::{Group, GroupId, GroupNumber, Settings},
    shard::{
        ShardId,
        window::{Mark, Moment, Want, Window},
    },
    wait::{Bell, Signal},
};

/// Names a unit of this process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UnitKey {
    pub(crate) group: GroupId,
    pub(crate) shard: ShardId,
    pub(crate) replay: bool,
}

impl UnitKey {
    pub(crate) fn of(group: &Group, shard: ShardId, replay: bool) -> Self {
        UnitKey { group: group.id.clone(), shard, replay }
    }
}

/// What a unit's driver is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    /// Go on.
    Run,
    /// Give nothing more; end when nothing is in flight, or soon.
    Drain,
    /// End at once.
    Abandon,
}

/// A unit that is worked on.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) key: UnitKey,
    pub(crate) unit: Unit,
    group: Mutex<Group>,
    window: Mutex<Window>,
    /// Wakes its driver.
    bell: Bell,
    /// Wakes the consumers of its group.
    signal: Arc<Signal>,
    course: AtomicU8,
    ended: Signal,
}

impl Open {
    pub(crate) fn number(&self) -> GroupNumber {
        self.group().number
    }

    /// The group as it is now.
    pub(crate) fn group(&self) -> Group {
        self.group.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The group is like this from now on.
    pub(crate) fn set(&self, group: &Group) {
        let mut known = self.group.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != *group {
            *known = group.clone();
            self.window().set(settings(group));
            self.bell.ring();
        }
    }

    /// The window. A panic elsewhere while it was held may leave it half changed; that process has more to worry about.
    pub(crate) fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wake(&self) {
        self.bell.ring();
    }

    /// There may be something to give.
    pub(crate) fn call(&self) {
        self.signal.ring();
    }

    pub(crate) async fn rung(&self) {
        self.bell.rung().await;
    }

    pub(crate) fn course(&self) -> Course {
        match self.course.load(Ordering::Relaxed) {
            0 => Course::Run,
            1 => Course::Drain,
            _ => Course::Abandon,
        }
    }

    pub(crate) fn drain(&self) {
        self.window().close();
        self.course.fetch_max(1, Ordering::Relaxed);
        self.bell.ring();
    }

    pub(crate) fn abandon(&self) {
        self.window().close();
        self.course.fetch_max(2, Ordering::Relaxed);
        self.bell.ring();
    }

    /// Its driver has ended.
    pub(crate) fn end(&self) {
        self.ended.ring();
    }

    /// Ends when its driver has.
    pub(crate) async fn ended(&self) {
        self.ended.after(0).await;
    }

    /// Whether consumers hold events of it.
    pub(crate) fn holds_any(&self) -> bool {
        !self.window().is_idle()
    }

    fn info(&self, node: NodeId) -> UnitInfo {
        let window = self.window();
        let (held, counts) = (window.held(), window.counts());
        UnitInfo {
            unit: Some(self.unit),
            node: Some(node),
            next: window.mark().next,
            read: window.read_from(),
            held: held.all,
            in_flight: held.in_flight,
            retrying: held.retrying,
            parking: held.parking,
            settled: counts.settled,
            parked: counts.parked,
            given_again: counts.given_again,
            consumers: window.consumers(),
        }
    }
}

/// The settings of a group's window. A push may hold many events of a stream at a time: it has them in one batch.
fn settings(group: &Group) -> Settings {
    let mut settings = group.settings.clone();
    if group.is_pushed() {
        settings.in_flight_per_stream = settings.push.batch_events_max;
    }
    settings
}

/// All units of this process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Units(Arc<All>);

#[derive(Debug, Default)]
struct All {
    open: Mutex<BTreeMap<UnitKey, Arc<Open>>>,
    signals: Mutex<BTreeMap<GroupId, Arc<Signal>>>,
    /// Where the next search begins, so that no unit is always the last.
    turn: AtomicUsize,
}

impl Units {
    pub(crate) fn open(
        &self,
        group: &Group,
        key: UnitKey,
        lease: u64,
        from: Mark,
        now: Duration,
    ) -> Arc<Open> {
        let unit = Unit { group: group.number, shard: key.shard, lease, replay: key.replay };
        // Held over both: who closes the last unit of a group takes the group's signal away.
        let mut all = self.lock();
        let open = Arc::new(Open {
            key: key.clone(),
            unit,
            group: Mutex::new(group.clone()),
            window: Mutex::new(Window::new(settings(group), from, now)),
            bell: Bell::default(),
            signal: self.signals().entry(key.group.clone()).or_default().clone(),
            course: AtomicU8::new(0),
            ended: Signal::default(),
        });
        all.insert(key, open.clone());
        drop(all);
        open.call();
        open
    }

    pub(crate) fn close(&self, unit: &Arc<Open>) {
        let mut open = self.lock();
        if open.get(&unit.key).is_some_and(|known| Arc::ptr_eq(known, unit)) {
            open.remove(&unit.key);
        }
        if self.of(&open, &unit.key.group).next().is_none() {
            self.signals().remove(&unit.key.group);
        }
        drop(open);
        // Whoever waits for it must look elsewhere.
        unit.call();
    }

    /// What is rung when a group may have something to give; `None`: it is not worked on here.
    pub(crate) fn signal(&self, group: &GroupId) -> Option<Arc<Signal>> {
        self.signals().get(group).cloned()
    }

    /// A panic elsewhere while it was held leaves it usable: every entry stands for itself.
    fn signals(&self) -> MutexGuard<'_, BTreeMap<GroupId, Arc<Signal>>> {
        self.0.signals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives events of one unit, if any may be given now.
    pub(crate) fn take(
        &self,
        fetch: &Fetch,
        now: Duration,
    ) -> Result<Option<Fetched>, ConsumeError> {
        let mut units: Vec<Arc<Open>> = self.of(&self.lock(), &fetch.group).cloned().collect();
        if units.is_empty() {
            return Err(ConsumeError::NotHolder { hint: None });
        }
        let turn = self.0.turn.fetch_add(1, Ordering::Relaxed) % units.len();
        units.rotate_left(turn);
        for open in units {
            if open.group().is_pushed() {
                return Err(ConsumeError::Pushed(fetch.group.to_string()));
            }
            let events = open.window().take(fetch.consumer, Want::share(fetch.max), now)?;
            if !events.is_empty() {
                open.wake();
                return Ok(Some(Fetched { unit: Some(open.unit), events }));
            }
        }
        Ok(None)
    }

    /// Settles events, if their unit is worked on here under the lease that they were given under.
    pub(crate) fn settle(&self, settle: &Settle, moment: Moment) -> Result<Settled, ConsumeError> {
        let Unit { shard, replay, .. } = settle.unit;
        let key = UnitKey { group: settle.group.clone(), shard, replay };
        let open = self.lock().get(&key).cloned();
        let open = open.filter(|open| open.unit == settle.unit);
        let open = open.ok_or(ConsumeError::NotHolder { hint: None })?;
        let counted = {
            let mut window = open.window();
            let verdicts = settle.verdicts.iter().cloned();
            let one = |(place, delivery, verdict)| {
                window.settle(settle.consumer, (place, delivery), verdict, moment)
            };
            verdicts.map(one).collect()
        };
        open.wake();
        open.call();
        Ok(Settled { counted })
    }

    /// A consumer leaves the units here.
    pub(crate) fn leave(&self, leave: &Leave) {
        let units: Vec<Arc<Open>> = self.of(&self.lock(), &leave.group).cloned().collect();
        for open in units {
            open.window().leave(leave.consumer);
            open.wake();
            open.call();
        }
    }

    /// What is live in the units of a group.
    pub(crate) fn infos(&self, group: &GroupId, node: NodeId) -> Vec<UnitInfo> {
        let units: Vec<Arc<Open>> = self.of(&self.lock(), group).cloned().collect();
        units.iter().map(|open| open.info(node)).collect()
    }

    fn of<'a>(
        &self,
        open: &'a BTreeMap<UnitKey, Arc<Open>>,
        group: &GroupId,
    ) -> impl Iterator<Item = &'a Arc<Open>> + use<'a> {
        let first = UnitKey { group: group.clone(), shard: ShardId(0), replay: false };
        let last = UnitKey { group: group.clone(), shard: ShardId(u32::MAX), replay: true };
        open.range(first..=last).map(|(_, open)| open)
    }

    /// A panic elsewhere while it was held leaves it usable: every entry stands for itself.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<UnitKey, Arc<Open>>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
