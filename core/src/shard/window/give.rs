//! Giving events to a consumer that asks.

use std::time::Duration;

use super::{Item, State, Window};
use crate::{
    consume::{ConsumeError, ConsumerId, Given},
    group::Strategy,
};

/// What a consumer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// Events at the most.
    pub events_max: u32,
    /// Bytes of types, payloads and metadata at the most; one event may have more.
    pub bytes_max: usize,
    /// Whether it is one of several of the same kind that all ask for themselves: then it is given its share, by the
    /// group's strategy. Else it is a batch of a push, which may take all.
    pub shares: bool,
}

/// Bytes of one answer to a consumer at the most: it is held whole, by whoever gives, passes on and takes it.
const SHARE_BYTES_MAX: usize = 4 * 1024 * 1024;

impl Want {
    /// What one of several consumers asks for.
    pub fn share(events_max: u32) -> Self {
        Want { events_max, bytes_max: SHARE_BYTES_MAX, shares: true }
    }
}

impl Window {
    /// Gives events to a consumer, in order; none if none may be given to it now.
    pub fn take(
        &mut self,
        consumer: ConsumerId,
        want: Want,
        now: Duration,
    ) -> Result<Vec<Given>, ConsumeError> {
        // Here, and not by a timer: nobody misses one who is gone until somebody asks.
        self.consumers.forget(now);
        let consumers_max = if want.shares { self.settings.consumers_max } else { 0 };
        if !self.consumers.ask(consumer, want.events_max > 0, consumers_max, now) {
            return Err(ConsumeError::TooManyConsumers { consumers_max });
        }
        if self.closing || !self.may_take(consumer, want, now) {
            return Ok(Vec::new());
        }
        // A push has a time limit of its own.
        let due = want.shares.then(|| now + self.settings.message_timeout);
        let mut left = self.most(want);
        let mut bytes = 0;
        let mut given: Vec<Given> = Vec::new();
        let mut from = 0;
        let answer = self.deliveries + 1;
        while left > 0
            && let Some(place) = self.ready.range(from..).next().copied()
        {
            from = place + 1;
            let Some(item) = self.items.get(&place) else { continue };
            let size = item.event.event.bytes();
            let fits = given.is_empty() || bytes + size <= want.bytes_max;
            let many = given.len() as u32 + 1;
            if !fits
                || many > item.together_max
                || !self.is_for(consumer, want, place, answer)
                || self.is_rather_for_another(consumer, item, now)
            {
                continue;
            }
            // Of the batch so far, and of this event: the smaller one holds.
            left = (left - 1).min(item.together_max - many);
            bytes += size;
            given.extend(self.give(place, consumer, answer, due));
        }
        Ok(given)
    }

    /// How many events may be given now, if many ask.
    pub fn ready(&self) -> usize {
        if self.closing { 0 } else { self.ready.len() }
    }

    fn most(&self, want: Want) -> u32 {
        if !want.shares || self.settings.strategy != Strategy::RoundRobin {
            return want.events_max;
        }
        let consumers = self.consumers.count();
        if consumers <= 1 {
            return want.events_max;
        }
        let ready = self.ready.len().saturating_mul(self.settings.in_flight_per_stream as usize);
        let share = ready.div_ceil(consumers).max(1);
        want.events_max.min(u32::try_from(share).unwrap_or(u32::MAX))
    }

    fn may_take(&mut self, consumer: ConsumerId, want: Want, now: Duration) -> bool {
        if !want.shares || self.settings.strategy != Strategy::DispatchToSingle {
            return true;
        }
        self.consumers.is_single(consumer, now)
    }

    /// Whether this consumer may have this event: none of its stream is in flight but in this answer, and the strategy allows it.
    fn is_for(&self, consumer: ConsumerId, want: Want, place: u64, answer: u64) -> bool {
        let Some(item) = self.items.get(&place) else { return false };
        let stream = &item.event.stream;
        let elsewhere =
            |item: &Item| matches!(item.state, State::Given(_)) && item.answer != answer;
        let lane = self.lanes.get(stream).into_iter().flat_map(|lane| &lane.places);
        if lane.filter_map(|place| self.items.get(place)).any(elsewhere) {
            return false;
        }
        !(want.shares && self.settings.strategy == Strategy::Pinned)
            || self.consumers.pinned(stream) == Some(consumer)
    }

    /// Whether this consumer had this event and did not settle it in time, and another one waits for events that never did so. One that
    /// stands still inside, and still asks, would else be given it each time until it is parked.
    fn is_rather_for_another(&self, consumer: ConsumerId, item: &Item, now: Duration) -> bool {
        item.overdue_at.contains(&consumer)
            && self.settings.strategy == Strategy::RoundRobin
            && self.consumers.another_waits(&item.overdue_at, now)
    }

    fn give(
        &mut self,
        place: u64,
        consumer: ConsumerId,
        answer: u64,
        due: Option<Duration>,
    ) -> Option<Given> {
        self.deliveries += 1;
        let delivery = self.deliveries;
        self.set_due(place, due);
        let item = self.items.get_mut(&place)?;
        item.state = State::Given(consumer);
        self.counts.given_again += u64::from(item.delivery > 0);
        (item.delivery, item.answer) = (delivery, answer);
        let (event, retries) = (item.event.clone(), item.failures);
        self.refresh(&event.stream);
        Some(Given { place, delivery, retries, event })
    }
}
