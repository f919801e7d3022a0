//! Who is there, and whose turn it is.

use std::{collections::BTreeMap, time::Duration};

use crate::{consume::ConsumerId, stream::StreamName};

/// A consumer that has not asked for this long is gone: others have its turn. What it holds stays its own until it
/// is overdue.
const GONE_AFTER: Duration = Duration::from_secs(10);
/// Who waits for events asks again before this time is over; a single consumer that does not is busy, and the next one has its
/// turn.
pub const ASKS_WITHIN: Duration = Duration::from_secs(1);

/// The consumers that are there.
#[derive(Debug, Default)]
pub(super) struct Consumers {
    /// When each asked last, be it as a sign of life.
    asked: BTreeMap<ConsumerId, Duration>,
    /// When each asked last for events.
    wanted: BTreeMap<ConsumerId, Duration>,
    /// Who was given events last.
    favourite: Option<ConsumerId>,
}

impl Consumers {
    /// A consumer asks, for events or as a sign of life. Whether it may: there is room, or it was there.
    pub(super) fn ask(
        &mut self,
        consumer: ConsumerId,
        for_events: bool,
        consumers_max: u32,
        now: Duration,
    ) -> bool {
        let full = consumers_max > 0 && self.asked.len() >= consumers_max as usize;
        if full && !self.asked.contains_key(&consumer) {
            return false;
        }
        self.asked.insert(consumer, now);
        if for_events {
            self.wanted.insert(consumer, now);
        }
        true
    }

    pub(super) fn leave(&mut self, consumer: ConsumerId) -> bool {
        if self.favourite == Some(consumer) {
            self.favourite = None;
        }
        self.wanted.remove(&consumer);
        self.asked.remove(&consumer).is_some()
    }

    /// Forgets those who have gone.
    pub(super) fn forget(&mut self, now: Duration) {
        let here = |_: &ConsumerId, asked: &mut Duration| now.saturating_sub(*asked) < GONE_AFTER;
        self.asked.retain(here);
        self.wanted.retain(here);
        self.favourite = self.favourite.filter(|id| self.asked.contains_key(id));
    }

    pub(super) fn all(&self) -> impl Iterator<Item = ConsumerId> + '_ {
        self.asked.keys().copied()
    }

    pub(super) fn count(&self) -> usize {
        self.asked.len()
    }

    /// Whether one beside these waits for events.
    pub(super) fn another_waits(&self, beside: &[ConsumerId], now: Duration) -> bool {
        self.wanted.keys().any(|id| !beside.contains(id) && self.waits(id, now))
    }

    /// Whether it waits for events, or is about to ask again.
    fn waits(&self, consumer: &ConsumerId, now: Duration) -> bool {
        let wanted = self.wanted.get(consumer);
        wanted.is_some_and(|wanted| now.saturating_sub(*wanted) <= ASKS_WITHIN)
    }

    /// Whether the single consumer is this one, or as busy as it likes to be: it has not asked for a while.
    pub(super) fn is_single(&mut self, consumer: ConsumerId, now: Duration) -> bool {
        let claims = |id: &ConsumerId| self.waits(id, now);
        match self.favourite.filter(claims) {
            Some(favourite) if favourite != consumer => false,
            _ => {
                // Who overflows to the next one comes back when it asks again.
                self.favourite = self.favourite.or(Some(consumer));
                true
            }
        }
    }

    /// The consumer that a stream belongs to: the one that ranks highest for it (rendezvous hashing), so that few streams move when
    /// one comes or goes.
    pub(super) fn pinned(&self, stream: &StreamName) -> Option<ConsumerId> {
        let key = stream.key() as u64;
        let rank = |id: &ConsumerId| super::backoff::mixed(key, id.0 as u64 ^ (id.0 >> 64) as u64);
        self.all().max_by_key(|id| (rank(id), *id))
    }
}
