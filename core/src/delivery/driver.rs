//! The driver of one unit: reads events into its window, parks what the window wants parked, writes progress down, and pushes, if
//! the group is pushed. Consumers take and settle events at the window themselves; they ring.

use std::{sync::Arc, time::Duration};

use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, Fuse},
    select_biased,
    stream::FuturesUnordered,
};
use tracing::debug;

use super::{
    park,
    push::{self, Pushes},
    source::{self, Page, Reads},
    units::{Course, Open},
    until_done,
};
use crate::{
    env::{Clock, Env, Progress, Row, Store},
    gateway::Gateway,
    group::Group,
    shard::{
        Checkpoint,
        window::{Counts, Mark, Moment},
    },
    stats::Counter,
    time::HybridTime,
    wait::may_linger,
};

/// See the module's docs.
pub(crate) struct Driver<E: Env> {
    gateway: Arc<Gateway<E>>,
    open: Arc<Open>,
    reads: Reads,
    pushes: Pushes,
    /// What was counted so far.
    counted: Counts,
    /// When a unit that is drained ends, whatever consumers still hold.
    drained_by: Option<Duration>,
}

type Reading = Fuse<BoxFuture<'static, Page>>;
type Writing = Fuse<BoxFuture<'static, Mark>>;

impl<E: Env> Driver<E> {
    pub(crate) fn new(gateway: Arc<Gateway<E>>, open: Arc<Open>, reads: Reads) -> Self {
        let (pushes, counted, drained_by) = (Pushes::default(), Counts::default(), None);
        Driver { gateway, open, reads, pushes, counted, drained_by }
    }

    /// Works until the unit is at its end, or told to stop. `folded` says how far the shard is folded. Returns up to where parked
    /// events were replayed, if that was the unit and it came to its end.
    pub(crate) async fn run(mut self, folded: impl Fn() -> Checkpoint + Send) -> Option<u64> {
        let gateway = self.gateway.clone();
        let clock = gateway.env.clock();
        let mut reading: Reading = Fuse::terminated();
        let mut is_reading = false;
        let mut writing: Writing = Fuse::terminated();
        let mut is_writing = false;
        let mut parkings = FuturesUnordered::new();
        let mut pushing = FuturesUnordered::new();
        loop {
            let course = self.open.course();
            let group = self.open.group();
            let now = clock.elapsed();
            self.count();
            let (parks, mark, idle) = {
                let mut window = self.open.window();
                window.tick(Moment { now, random: clock.random() });
                let mark = window.checkpoint(now);
                (window.take_parks(), mark, window.is_idle())
            };
            if course == Course::Abandon {
                return None;
            }
            for park in parks {
                parkings.push(self.park(&group, park));
            }
            if course == Course::Drain {
                let until = now + gateway.config.drain_within;
                let late = now >= *self.drained_by.get_or_insert(until);
                if (idle && parkings.is_empty()) || late {
                    let last = self.open.window().mark();
                    self.write(&group, last).await;
                    return None;
                }
            }
            if !is_writing && let Some(mark) = mark {
                is_writing = true;
                writing = self.write(&group, mark).fuse();
            }
            if !is_reading && let Some(read) = self.read(&group, folded()) {
                is_reading = true;
                reading = read.fuse();
            }
            if group.is_pushed() && course == Course::Run {
                let limit = group.settings.message_timeout;
                while let Some((batch, delivery)) = self.pushes.next(&self.open, &group, now) {
                    let gateway = gateway.clone();
                    pushing.push(
                        async move { push::deliver(&gateway, limit, batch, delivery).await }
                            .boxed(),
                    );
                }
            }
            let mut timer = self.timer(&group, clock.elapsed()).fuse();
            select_biased! {
                () = self.open.rung().fuse() => {}
                page = reading => {
                    is_reading = false;
                    self.open.window().push(page.events, page.next, page.ended);
                    self.open.call();
                }
                mark = writing => {
                    is_writing = false;
                    self.open.window().written(mark, clock.elapsed());
                    if mark.ended {
                        debug!(node = %gateway.node, group = %group.id, shard = %self.open.key.shard, "unit at its end");
                        return match self.reads {
                            Reads::Parked { below } => Some(below),
                            Reads::Shard(_) => None,
                        };
                    }
                }
                place = parkings.select_next_some() => {
                    self.open.window().parked(place);
                    self.open.call();
                }
                ended = pushing.select_next_some() => {
                    let moment = Moment { now: clock.elapsed(), random: clock.random() };
                    self.pushes.ended(&self.open, &group, ended, moment, &gateway.stats);
                }
                () = timer => self.open.call(),
            }
        }
    }

    /// Ends when the window has something to do by itself.
    fn timer(&self, group: &Group, now: Duration) -> BoxFuture<'static, ()> {
        let due = {
            let window = self.open.window();
            let pushes = self.pushes.due(group).filter(|at| group.is_pushed() && *at > now);
            let drained = self.drained_by;
            // A mark that is due is being written.
            let mark = window.checkpoint_due().filter(|at| *at > now);
            [window.next_due(), mark, pushes, drained].into_iter().flatten().min()
        };
        let clock = self.gateway.env.clock();
        match due {
            Some(at) => clock.sleep(at.saturating_sub(now)).boxed(),
            None => std::future::pending().boxed(),
        }
    }

    /// The next read, if there is room, and something to read.
    fn read(&self, group: &Group, folded: Checkpoint) -> Option<BoxFuture<'static, Page>> {
        let (room, from) = {
            let window = self.open.window();
            (window.room(), window.read_from())
        };
        let (gateway, group) = (self.gateway.clone(), group.clone());
        match self.reads {
            _ if room == 0 => None,
            Reads::Shard(_) if from > folded.closed.0 && !folded.ended => None,
            Reads::Shard(shard) => Some(
                async move { source::read_shard(&gateway, &group, shard, from, folded, room).await }
                    .boxed(),
            ),
            Reads::Parked { below } => Some(
                async move { source::read_parked(&gateway, &group, from, below, room).await }
                    .boxed(),
            ),
        }
    }

    fn park(&self, group: &Group, park: crate::shard::window::Park) -> BoxFuture<'static, u64> {
        let (gateway, group, replay) = (self.gateway.clone(), group.clone(), self.open.key.replay);
        async move {
            park::park(&gateway, &group, &park, replay).await;
            park.place
        }
        .boxed()
    }

    /// Writes down how far everything is settled.
    fn write(&self, group: &Group, mark: Mark) -> BoxFuture<'static, Mark> {
        let (gateway, group, reads) = (self.gateway.clone(), group.clone(), self.reads);
        async move {
            let clock = gateway.env.clock();
            may_linger(clock, "delivery: before the checkpoint", gateway.config.dead_after).await;
            match reads {
                Reads::Shard(shard) => {
                    let progress = Progress { next: HybridTime(mark.next), ended: mark.ended };
                    let row = [Row::Progress(shard, group.number, progress)];
                    let store = gateway.env.store();
                    until_done(&gateway, || store.write(&row)).await;
                }
                // A mark of 0 says nothing.
                Reads::Parked { .. } if mark.next == 0 => {}
                Reads::Parked { .. } => park::settle_replay(&gateway, &group, mark.next).await,
            }
            gateway.stats.count(Counter::ProgressWritten);
            mark
        }
        .boxed()
    }

    /// Adds what the window has counted since to the process's counts.
    fn count(&mut self) {
        let counts = self.open.window().counts();
        let before = std::mem::replace(&mut self.counted, counts);
        let stats = &self.gateway.stats;
        let settled = counts.settled - before.settled;
        stats.add(Counter::EventsSettled, settled);
        stats.add(Counter::EventsParked, counts.parked - before.parked);
        stats.add(Counter::EventsGivenAgain, counts.given_again - before.given_again);
        stats.add(Counter::EventsTimedOut, counts.timed_out - before.timed_out);
        if self.reads.is_replay() {
            stats.add(Counter::EventsReplayed, settled);
        }
    }
}
