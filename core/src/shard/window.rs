//! The delivery window: which events of a unit may be given now, to whom, and how far everything is settled.
//!
//! Events come in the order of their *places* (of a shard: their times; of a replay: revisions of the parked stream) and stay until
//! they are settled: handled, skipped, or parked and the parking acknowledged. What it promises:
//! - an event that was not settled is given, again and again, until it is, or until it has failed so often that it is parked;
//! - an event is given only when those before it in its stream are settled, or given in the same answer: an answer that gets
//!   lost is lost whole. When one fails, the later ones of its stream wait for it, and what was said of them does not
//!   count; other streams go on;
//! - [`mark`](Window::mark) is never beyond an event that is not settled;
//! - it holds [`buffer_max`](Settings::buffer_max) events at the most. A stream that stands still holds what has been read of it, at most
//!   all of that: then nothing more is read until its first event is settled or parked, which the number of tries and the
//!   longest wait bound.
//!
//! Time and randomness are arguments: [`Moment`].

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use crate::{
    consume::{ConsumerId, Verdict, shortened},
    event::RecordedEvent,
    group::Settings,
    stream::StreamName,
};

mod backoff;
mod checkpoint;
mod consumers;
mod give;
mod lane;

use checkpoint::Written;
pub use consumers::ASKS_WITHIN;
use consumers::Consumers;
pub use give::Want;

/// When something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The [elapsed](crate::env::Clock::elapsed) time.
    pub now: Duration,
    /// 64 random bits.
    pub random: u64,
}

/// How far a unit is settled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Every event below this place is settled.
    pub next: u64,
    /// Whether there will be no more, and nothing is left.
    pub ended: bool,
}

/// An event to be parked: append it to the parked stream, then call [`parked`](Window::parked).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Park {
    /// Its place.
    pub place: u64,
    /// The event.
    pub event: RecordedEvent,
    /// How often it has failed.
    pub failures: u32,
    /// Why.
    pub reason: String,
}

/// What a window has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events settled.
    pub settled: u64,
    /// Of these, parked.
    pub parked: u64,
    /// Deliveries of events that had been given before.
    pub given_again: u64,
    /// Deliveries that were not settled in time.
    pub timed_out: u64,
}

/// What is in a window now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Events.
    pub all: u64,
    /// Given, and not settled.
    pub in_flight: u64,
    /// Waiting to be given again.
    pub retrying: u64,
    /// Being parked.
    pub parking: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be given when it is its stream's turn and nothing is [due](Item::due).
    Waiting,
    /// In flight.
    Given(ConsumerId),
    /// Handled, while an earlier event of its stream is not settled.
    Handled,
    /// Its parking is under way.
    Parking,
    /// Skipped or parked, while an earlier event of its stream is not settled.
    Settled,
}

#[derive(Debug)]
struct Item {
    event: RecordedEvent,
    state: State,
    /// Waiting: when it may be given again. Given: when it counts as failed.
    due: Option<Duration>,
    failures: u32,
    /// Who was given it and did not settle it in time; at most as many as it has failures.
    overdue_at: Vec<ConsumerId>,
    /// The last delivery of it; 0: none.
    delivery: u64,
    /// The first delivery of the answer that it was given in.
    answer: u64,
    /// Deliveries below this one do not count: they were given behind an event that failed.
    counts_from: u64,
    /// Of how many events a batch with it may be.
    together_max: u32,
}

/// The events of one stream, in order.
#[derive(Debug, Default)]
struct Lane {
    places: VecDeque<u64>,
    /// The next one that may be given.
    ready: Option<u64>,
}

/// See the module's docs.
#[derive(Debug)]
pub struct Window {
    settings: Settings,
    /// Every event below this place is here, or settled.
    read: u64,
    /// Whether there is nothing from there on.
    ended: bool,
    items: BTreeMap<u64, Item>,
    lanes: BTreeMap<StreamName, Lane>,
    /// The next event of each stream that may be given.
    ready: BTreeSet<u64>,
    due: BTreeSet<(Duration, u64)>,
    consumers: Consumers,
    deliveries: u64,
    parks: Vec<Park>,
    written: Written,
    counts: Counts,
    closing: bool,
}

impl Window {
    /// An empty window that goes on from a mark.
    pub fn new(settings: Settings, from: Mark, now: Duration) -> Self {
        Window {
            settings,
            read: from.next,
            ended: from.ended,
            items: BTreeMap::new(),
            lanes: BTreeMap::new(),
            ready: BTreeSet::new(),
            due: BTreeSet::new(),
            consumers: Consumers::default(),
            deliveries: 0,
            parks: Vec::new(),
            written: Written::new(from, now),
            counts: Counts::default(),
            closing: false,
        }
    }

    /// Other settings hold from now on.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// How many events may be read; 0: it is full, or there are no more.
    pub fn room(&self) -> u32 {
        if self.ended || self.closing {
            return 0;
        }
        let held = u32::try_from(self.items.len()).unwrap_or(u32::MAX);
        self.settings.read_batch.min(self.settings.buffer_max.saturating_sub(held))
    }

    /// The place to read from.
    pub fn read_from(&self) -> u64 {
        self.read
    }

    /// Takes what was read: the events that the group wants of those from [`read_from`](Window::read_from) on and below `next`, in order.
    /// `ended`: there is nothing from `next` on, for ever.
    pub fn push(&mut self, events: Vec<(u64, RecordedEvent)>, next: u64, ended: bool) {
        debug_assert!(next >= self.read);
        for (place, event) in events {
            debug_assert!(place >= self.read && place < next);
            let stream = event.stream.clone();
            let item = Item {
                event,
                state: State::Waiting,
                due: None,
                failures: 0,
                overdue_at: Vec::new(),
                delivery: 0,
                answer: 0,
                counts_from: 0,
                together_max: u32::MAX,
            };
            self.items.insert(place, item);
            self.lanes.entry(stream.clone()).or_default().places.push_back(place);
            self.refresh(&stream);
        }
        self.read = self.read.max(next);
        self.ended |= ended;
    }

    /// Says what became of an event that was given. Returns whether it counts: it does not if the event is settled
    /// already, or was given to another since, or behind an event that failed.
    pub fn settle(
        &mut self,
        consumer: ConsumerId,
        (place, delivery): (u64, u64),
        verdict: Verdict,
        moment: Moment,
    ) -> bool {
        if verdict == Verdict::Stop {
            return self.leave(consumer);
        }
        let Some(item) = self.items.get_mut(&place) else { return false };
        let real = (1..=item.delivery).contains(&delivery) && delivery >= item.counts_from;
        let current = item.state == State::Given(consumer) && delivery == item.delivery;
        match verdict {
            // Whoever was given it, and however late this comes: it was handled when it was its turn.
            Verdict::Ack if real && matches!(item.state, State::Waiting | State::Given(_)) => {
                self.end(place, State::Handled);
            }
            Verdict::Retry(reason) if current => {
                self.fail(place, shortened(&reason), true, moment);
            }
            Verdict::Park(reason) if current => {
                self.park(place, shortened(&reason));
                self.withdraw_behind(place);
            }
            Verdict::Skip if current => self.end(place, State::Settled),
            _ => return false,
        }
        true
    }

    /// A batch of these `(place, delivery)` failed, and nobody knows which of them did. They are given again in batches of half
    /// the size; only an event that was alone counts as failed.
    pub fn failed_together(
        &mut self,
        consumer: ConsumerId,
        batch: &[(u64, u64)],
        reason: &str,
        moment: Moment,
    ) {
        let half = (batch.len() as u32 / 2).max(1);
        for (place, delivery) in batch {
            if self.is_current(consumer, *place, *delivery) {
                if let Some(item) = self.items.get_mut(place) {
                    item.together_max = item.together_max.min(half);
                }
                self.fail(*place, shortened(reason), batch.len() == 1, moment);
            }
        }
    }

    /// These were not handled, through no fault of theirs: they may be given again at once.
    pub fn give_back(&mut self, consumer: ConsumerId, batch: &[(u64, u64)]) {
        for (place, delivery) in batch {
            if self.is_current(consumer, *place, *delivery) {
                self.wait(*place, None);
                self.withdraw_behind(*place);
            }
        }
    }

    /// A consumer leaves: what it holds may be given to others at once. Whether it was there.
    pub fn leave(&mut self, consumer: ConsumerId) -> bool {
        if !self.consumers.leave(consumer) {
            return false;
        }
        let mine = self.items.iter().filter(|(_, item)| item.state == State::Given(consumer));
        let mine: Vec<(u64, u64)> = mine.map(|(place, item)| (*place, item.delivery)).collect();
        self.give_back(consumer, &mine);
        true
    }

    /// Time has passed: what is overdue fails, what has waited may be given. Call it at [`next_due`](Window::next_due).
    pub fn tick(&mut self, moment: Moment) {
        while let Some((at, place)) = self.due.first().copied()
            && at <= moment.now
        {
            let Some(item) = self.items.get_mut(&place) else {
                self.due.remove(&(at, place));
                continue;
            };
            match item.state {
                State::Given(consumer) => {
                    if !item.overdue_at.contains(&consumer) {
                        item.overdue_at.push(consumer);
                    }
                    self.counts.timed_out += 1;
                    let reason = format!("no answer within {:?}", self.settings.message_timeout);
                    self.fail(place, reason, true, moment);
                }
                _ => {
                    let stream = item.event.stream.clone();
                    self.set_due(place, None);
                    self.refresh(&stream);
                }
            }
        }
    }

    /// When [`tick`](Window::tick) has something to do.
    pub fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    /// What is to be parked. Each is told once; it stays unsettled until it is [`parked`](Window::parked).
    pub fn take_parks(&mut self) -> Vec<Park> {
        std::mem::take(&mut self.parks)
    }

    /// The parking of an event is acknowledged.
    pub fn parked(&mut self, place: u64) {
        if self.items.get(&place).is_some_and(|item| item.state == State::Parking) {
            self.counts.parked += 1;
            self.end(place, State::Settled);
        }
    }

    /// Nothing is read or given any more.
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// Whether nothing is in flight, and nothing is being parked.
    pub fn is_idle(&self) -> bool {
        let held = self.held();
        held.in_flight == 0 && held.parking == 0
    }

    /// What it has counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What is in it.
    pub fn held(&self) -> Held {
        let mut held = Held { all: self.items.len() as u64, ..Held::default() };
        for item in self.items.values() {
            match item.state {
                State::Given(_) => held.in_flight += 1,
                State::Waiting if item.delivery > 0 => held.retrying += 1,
                State::Parking => held.parking += 1,
                State::Waiting | State::Handled | State::Settled => {}
            }
        }
        held
    }

    /// The consumers, and how many events each holds.
    pub fn consumers(&self) -> Vec<(ConsumerId, u64)> {
        self.consumers.all().map(|id| (id, self.held_by(id))).collect()
    }

    fn held_by(&self, consumer: ConsumerId) -> u64 {
        self.items.values().filter(|item| item.state == State::Given(consumer)).count() as u64
    }

    fn is_current(&self, consumer: ConsumerId, place: u64, delivery: u64) -> bool {
        self.items
            .get(&place)
            .is_some_and(|item| item.state == State::Given(consumer) && item.delivery == delivery)
    }
}
