//! What a consumer holds: the events that it was given and has not settled, found by their ids.
//!
//! Clients settle by the id of an event, and an id need not be of one event only: of several that are held, it means the one that
//! was given first. An event that is given again takes the place of its earlier delivery.
//!
//! Each takes one of the consumer's slots, until it is settled or the group's message timeout is over: then it is given to others, and
//! a consumer that forgets events does not run out of slots. It may still be settled late; as many of those are
//! remembered as there are slots.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use stormkeep_core::consume::Unit;
use tokio::time::Instant;

/// An event's place, for all units.
pub(super) type Place = (Unit, u64);

/// An event that was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    id: u128,
    delivery: u64,
    given: Instant,
    /// Whether it takes a slot: it is not overdue.
    takes: bool,
}

/// An event that is to be settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) place: Place,
    pub(super) delivery: u64,
    /// Whether a slot becomes free when it is settled: say so to [`free`](Held::free).
    pub(super) takes: bool,
}

/// See the module's docs.
#[derive(Debug)]
pub(super) struct Held {
    slots: usize,
    used: usize,
    entries: BTreeMap<Place, Entry>,
    /// In the order in which they were given.
    by_id: BTreeMap<u128, VecDeque<Place>>,
    /// What takes a slot, by when it was given.
    by_time: BTreeSet<(Instant, Place)>,
    overdue: VecDeque<(Place, u64)>,
}

impl Held {
    pub(super) fn new(slots: u32) -> Self {
        Held {
            slots: slots as usize,
            used: 0,
            entries: BTreeMap::new(),
            by_id: BTreeMap::new(),
            by_time: BTreeSet::new(),
            overdue: VecDeque::new(),
        }
    }

    /// Free slots.
    pub(super) fn room(&self) -> u32 {
        u32::try_from(self.slots.saturating_sub(self.used)).unwrap_or(u32::MAX)
    }

    /// An event was given.
    pub(super) fn given(&mut self, place: Place, delivery: u64, id: u128, now: Instant) {
        match self.entries.insert(place, Entry { id, delivery, given: now, takes: true }) {
            Some(before) if before.takes => {
                self.by_time.remove(&(before.given, place));
            }
            Some(_) => self.used += 1,
            None => {
                self.used += 1;
                self.by_id.entry(id).or_default().push_back(place);
            }
        }
        self.by_time.insert((now, place));
    }

    /// Whether a delivery is held and not overdue.
    pub(super) fn is_current(&self, place: Place, delivery: u64) -> bool {
        self.entries.get(&place).is_some_and(|entry| entry.delivery == delivery && entry.takes)
    }

    /// The event that an id means is about to be settled, and is held no more.
    pub(super) fn take(&mut self, id: u128) -> Option<Taken> {
        let place = *self.by_id.get(&id)?.front()?;
        let Entry { delivery, takes, .. } = self.remove(place)?;
        Some(Taken { place, delivery, takes })
    }

    /// So many events that took a slot are settled.
    pub(super) fn free(&mut self, count: usize) {
        self.used = self.used.saturating_sub(count);
    }

    /// When the first event that takes a slot is overdue.
    pub(super) fn due(&self, timeout: Duration) -> Option<Instant> {
        self.by_time.first().and_then(|(given, _)| given.checked_add(timeout))
    }

    /// Frees the slots of what is overdue.
    pub(super) fn expire(&mut self, timeout: Duration, now: Instant) {
        while self.due(timeout).is_some_and(|due| due <= now) {
            let Some((_, place)) = self.by_time.pop_first() else { return };
            if let Some(entry) = self.entries.get_mut(&place) {
                entry.takes = false;
                self.used -= 1;
                self.overdue.push_back((place, entry.delivery));
            }
            while self.overdue.len() > self.slots {
                let Some((place, delivery)) = self.overdue.pop_front() else { return };
                let is_it = |entry: &Entry| entry.delivery == delivery && !entry.takes;
                if self.entries.get(&place).is_some_and(is_it) {
                    self.remove(place);
                }
            }
        }
    }

    fn remove(&mut self, place: Place) -> Option<Entry> {
        let entry = self.entries.remove(&place)?;
        if entry.takes {
            self.by_time.remove(&(entry.given, place));
        }
        if let Some(places) = self.by_id.get_mut(&entry.id) {
            places.retain(|other| *other != place);
            if places.is_empty() {
                self.by_id.remove(&entry.id);
            }
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use stormkeep_core::{group::GroupNumber, shard::ShardId};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn at(place: u64) -> Place {
        (Unit { group: GroupNumber(5), shard: ShardId(1), lease: 7, replay: false }, place)
    }

    #[test]
    fn an_id_means_the_event_that_was_given_first() {
        let (mut held, now) = (Held::new(3), Instant::now());
        held.given(at(1), 1, 9, now);
        held.given(at(2), 2, 9, now);
        assert_eq!(held.room(), 1);
        assert_eq!(held.take(9), Some(Taken { place: at(1), delivery: 1, takes: true }));
        assert_eq!(held.room(), 1, "it is not settled yet");
        held.free(1);
        assert_eq!(held.room(), 2);
        assert_eq!(held.take(9), Some(Taken { place: at(2), delivery: 2, takes: true }));
        assert_eq!(held.take(9), None, "it is settled once");
    }

    #[test]
    fn what_is_given_again_is_held_once() {
        let (mut held, now) = (Held::new(2), Instant::now());
        held.given(at(1), 1, 9, now);
        held.given(at(1), 2, 9, now);
        assert_eq!(held.room(), 1);
        assert!(!held.is_current(at(1), 1) && held.is_current(at(1), 2));
        assert_eq!(held.take(9), Some(Taken { place: at(1), delivery: 2, takes: true }));
    }

    #[test]
    fn what_is_overdue_takes_no_slot_and_is_settled_late() {
        let (mut held, now) = (Held::new(2), Instant::now());
        held.given(at(1), 1, 1, now);
        held.given(at(2), 2, 2, now);
        assert_eq!((held.room(), held.due(TIMEOUT)), (0, Some(now + TIMEOUT)));
        held.expire(TIMEOUT, now + TIMEOUT / 2);
        assert_eq!(held.room(), 0, "it is not its time");
        held.expire(TIMEOUT, now + TIMEOUT);
        assert_eq!((held.room(), held.due(TIMEOUT)), (2, None));
        assert_eq!(held.take(1), Some(Taken { place: at(1), delivery: 1, takes: false }));
        // Given again after all.
        held.given(at(2), 3, 2, now + TIMEOUT);
        assert_eq!(held.room(), 1);
        assert_eq!(held.take(2), Some(Taken { place: at(2), delivery: 3, takes: true }));
    }

    #[test]
    fn what_is_settled_costs_nothing_though_an_earlier_one_is_held() {
        let (mut held, now) = (Held::new(2), Instant::now());
        held.given(at(0), 1, 0, now);
        for n in 1..100 {
            held.given(at(n), n + 1, u128::from(n), now);
            assert!(held.take(u128::from(n)).is_some_and(|taken| taken.takes));
            held.free(1);
        }
        assert_eq!((held.room(), held.entries.len(), held.by_time.len()), (1, 1, 1));
    }

    #[test]
    fn a_consumer_that_settles_nothing_costs_no_more_than_its_slots() {
        let (mut held, mut now) = (Held::new(2), Instant::now());
        for n in 0..100 {
            held.given(at(n), n + 1, u128::from(n), now);
            now += TIMEOUT;
            held.expire(TIMEOUT, now);
        }
        assert_eq!((held.room(), held.entries.len(), held.by_id.len()), (2, 2, 2));
        assert_eq!((held.by_time.len(), held.overdue.len()), (0, 2));
    }
}
