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
    /// When each asked last.
    asked: BTreeMap<ConsumerId, Duration>,
    /// Who was given events last.
    favourite: Option<ConsumerId>,
}

impl Consumers {
    /// A consumer asks. Whether it may: there is room, or it was there.
    pub(super) fn ask(&mut self, consumer: ConsumerId, consumers_max: u32, now: Duration) -> bool {
        let full = consumers_max > 0 && self.asked.len() >= consumers_max as usize;
        if full && !self.asked.contains_key(&consumer) {
            return false;
        }
        self.asked.insert(consumer, now);
        true
    }

    pub(super) fn leave(&mut self, consumer: ConsumerId) -> bool {
        if self.favourite == Some(consumer) {
            self.favourite = None;
        }
        self.asked.remove(&consumer).is_some()
    }

    /// Forgets those who have gone.
    pub(super) fn forget(&mut self, now: Duration) {
        self.asked.retain(|_, asked| now.saturating_sub(*asked) < GONE_AFTER);
        self.favourite = self.favourite.filter(|id| self.asked.contains_key(id));
    }

    pub(super) fn all(&self) -> impl Iterator<Item = ConsumerId> + '_ {
        self.asked.keys().copied()
    }

    pub(super) fn count(&self) -> usize {
        self.asked.len()
    }

    /// Whether one beside this one asks for events.
    pub(super) fn another_asks(&self, consumer: ConsumerId, now: Duration) -> bool {
        self.asked.iter().any(|(id, asked)| *id != consumer && waits(*asked, now))
    }

    /// Whether the single consumer is this one, or as busy as it likes to be: it has not asked for a while.
    pub(super) fn is_single(&mut self, consumer: ConsumerId, now: Duration) -> bool {
        let claims = |id: &ConsumerId| self.asked.get(id).is_some_and(|asked| waits(*asked, now));
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

/// Whether who asked then is still waiting for an answer, or about to ask again.
fn waits(asked: Duration, now: Duration) -> bool {
    now.saturating_sub(asked) <= ASKS_WITHIN
}
