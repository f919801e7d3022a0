//! Pushing: a unit's events go to a handler in batches, several at a time, none of one stream at the same time. How many, the
//! handler decides: one that throttles is sent no more at a time than it took, and one more now and then.

use std::{collections::BTreeSet, time::Duration};

use tracing::{debug, warn};

use super::units::Open;
use crate::{
    consume::{ConsumerId, Verdict},
    env::{DeliverError, Delivered, Delivery, Env, Handled, Handler},
    gateway::Gateway,
    group::Group,
    shard::window::{Moment, Want},
    stats::{Counter, Stats},
    wait::within,
};

/// A batch that is under way: by whom, and each event's place and delivery.
pub(crate) struct Batch {
    slot: u32,
    events: Vec<(u64, u64)>,
}

/// How it ended.
pub(crate) type Ended = (Batch, Result<Delivered, DeliverError>);

/// After so many batches that were not throttled, one more is tried at a time.
const RAISE_AFTER: u32 = 16;

/// Which batches of one unit are under way, and when the next may be.
#[derive(Debug, Default)]
pub(crate) struct Pushes {
    busy: BTreeSet<u32>,
    /// How many at a time the handler takes; `None`: it has not said.
    allowed: Option<u32>,
    /// Batches since that was changed.
    taken: u32,
    /// A handler that is throttled or cannot be reached is left in peace until then.
    paused_until: Option<Duration>,
    /// How often in a row it was.
    refusals: u32,
    /// Since when events have been waiting for a batch to fill.
    filling: Option<Duration>,
}

impl Pushes {
    /// Takes the next batch, if there is one and it may be pushed now.
    pub(crate) fn next(
        &mut self,
        open: &Open,
        group: &Group,
        now: Duration,
    ) -> Option<(Batch, Delivery)> {
        let push = &group.settings.push;
        if self.paused_until.is_some_and(|until| now < until) {
            return None;
        }
        let allowed = self.allowed.unwrap_or(u32::MAX).min(push.concurrency);
        if self.busy.len() as u32 >= allowed {
            return None;
        }
        let slot = (0..push.concurrency).find(|slot| !self.busy.contains(slot))?;
        let mut window = open.window();
        let ready = window.ready();
        if ready == 0 {
            self.filling = None;
            return None;
        }
        let since = *self.filling.get_or_insert(now);
        if ready < push.batch_events_max as usize && now < since + push.batch_wait {
            return None;
        }
        let want = Want {
            events_max: push.batch_events_max,
            bytes_max: push.batch_bytes_max as usize,
            shares: false,
        };
        let given = window.take(consumer(slot), want, now).ok()?;
        if given.is_empty() {
            return None;
        }
        self.filling = None;
        self.busy.insert(slot);
        let events = given.iter().map(|given| (given.place, given.delivery)).collect();
        let within = group.settings.message_timeout;
        let (group, target, unit) = (group.id.clone(), group.target.clone(), open.unit);
        Some((Batch { slot, events }, Delivery { group, unit, target, events: given, within }))
    }

    /// When there may be something to push although nothing else happens.
    pub(crate) fn due(&self, group: &Group) -> Option<Duration> {
        let filled = self.filling.map(|since| since + group.settings.push.batch_wait);
        self.paused_until.max(filled)
    }

    /// Says what became of a batch.
    pub(crate) fn ended(
        &mut self,
        open: &Open,
        group: &Group,
        (batch, result): Ended,
        moment: Moment,
        stats: &Stats,
    ) {
        self.busy.remove(&batch.slot);
        let me = consumer(batch.slot);
        let mut window = open.window();
        let together = |window: &mut crate::shard::window::Window, reason: &str| {
            if batch.events.len() > 1 {
                stats.count(Counter::BatchesHalved);
            }
            window.failed_together(me, &batch.events, reason, moment);
        };
        match result {
            Ok(Delivered { handled }) if handled.iter().any(|h| *h != Handled::NotKnown) => {
                self.refusals = 0;
                let handled = handled.into_iter().chain(std::iter::repeat(Handled::NotKnown));
                for (event, handled) in batch.events.iter().zip(handled) {
                    match handled {
                        Handled::Yes => drop(window.settle(me, *event, Verdict::Ack, moment)),
                        Handled::Failed(reason) => {
                            window.settle(me, *event, Verdict::Retry(reason), moment);
                        }
                        Handled::NotKnown => window.give_back(me, &[*event]),
                    }
                }
            }
            Ok(_) => together(&mut window, "the handler said nothing of any event"),
            Err(error @ (DeliverError::Throttled { .. } | DeliverError::Unreachable(_))) => {
                window.give_back(me, &batch.events);
                self.refusals += 1;
                let asked = match &error {
                    DeliverError::Throttled { retry_after } => {
                        stats.count(Counter::PushesThrottled);
                        *retry_after
                    }
                    _ => {
                        warn!(group = %group.id, %error, "not pushed");
                        None
                    }
                };
                let under_way = self.busy.len() as u32;
                (self.allowed, self.taken) = (Some(under_way.max(1)), 0);
                // While others are under way, their end is what to wait for.
                if under_way == 0 || asked.is_some() {
                    let wait = asked.unwrap_or_default().max(self.wait(group, moment.random));
                    self.paused_until = Some(moment.now.saturating_add(wait));
                }
                return;
            }
            Err(DeliverError::Failed(reason)) => {
                self.refusals = 0;
                stats.count(Counter::PushesUnknown);
                together(&mut window, &reason);
            }
            Err(DeliverError::TimedOut) => {
                self.refusals = 0;
                stats.count(Counter::PushesUnknown);
                together(&mut window, "no answer from the handler in time");
            }
        }
        self.taken += 1;
        if self.taken >= RAISE_AFTER {
            self.taken = 0;
            self.allowed = self.allowed.map(|allowed| allowed.saturating_add(1));
        }
        debug!(group = %group.id, events = batch.events.len(), "batch ended");
    }

    /// How long to leave a handler in peace: it doubles, as long as it refuses.
    fn wait(&self, group: &Group, random: u64) -> Duration {
        let settings = &group.settings;
        let doublings = self.refusals.saturating_sub(1).min(20);
        let shortest = settings.backoff_min.max(Duration::from_millis(10));
        let whole = shortest.saturating_mul(1 << doublings);
        let whole = whole.min(settings.backoff_max.max(shortest));
        let half = whole / 2;
        half + Duration::from_micros(random % (half.as_micros() as u64).max(1))
    }
}

/// Each batch under way is a consumer of its own to the window.
fn consumer(slot: u32) -> ConsumerId {
    ConsumerId(u128::from(slot))
}

/// Delivers a batch, and waits no longer than the group's message timeout.
pub(crate) async fn deliver<E: Env>(
    gateway: &Gateway<E>,
    limit: Duration,
    batch: Batch,
    delivery: Delivery,
) -> Ended {
    gateway.stats.count(Counter::BatchesPushed);
    gateway.stats.add(Counter::EventsGiven, delivery.events.len() as u64);
    let delivered = gateway.env.handler().deliver(delivery);
    let result = within(gateway.env.clock(), limit, delivered).await;
    (batch, result.unwrap_or(Err(DeliverError::TimedOut)))
}
