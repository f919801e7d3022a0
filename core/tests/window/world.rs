//! A world around a window: a shard's events, consumers, a store for marks, and a simple reference beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;
use stormkeep_core::{
    append::AppendId,
    consume::{ConsumerId, Verdict},
    event::RecordedEvent,
    group::Settings,
    shard::window::{Mark, Moment, Park, Want, Window},
    time::HybridTime,
};

use crate::common;

pub(crate) const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// The event at a place.
pub(crate) fn recorded(stream: &str, place: u64) -> RecordedEvent {
    RecordedEvent {
        stream: common::stream(stream),
        revision: place,
        shard: common::SHARD,
        time: HybridTime(place),
        append: AppendId(u128::from(place)),
        event: common::event(u128::from(place), 10),
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Read,
    Take {
        consumer: u8,
        max: u32,
        shares: bool,
    },
    /// The nth of what is in flight.
    Settle {
        nth: u16,
        verdict: u8,
    },
    /// An acknowledgement of any delivery there ever was.
    Late {
        nth: u16,
    },
    Pass {
        by_ms: u64,
    },
    Leave {
        consumer: u8,
    },
    FailTogether {
        consumer: u8,
    },
    GiveBack {
        consumer: u8,
    },
    Parked,
    Checkpoint,
    Crash,
}

type Delivery = (ConsumerId, u64, u64);

pub(crate) struct World {
    /// The stream of each place.
    streams: Vec<u8>,
    settings: Settings,
    window: Window,
    now: Duration,
    random: u64,
    stored: Mark,
    /// Places that were settled, by any window.
    settled: BTreeSet<u64>,
    /// Places that were handled, while an earlier one of their stream may not be settled.
    said: BTreeSet<u64>,
    given: Vec<Delivery>,
    in_flight: Vec<Delivery>,
    parks: Vec<Park>,
    failures: BTreeMap<u64, u32>,
}

impl World {
    pub(crate) fn new(streams: &[u8], settings: Settings) -> Self {
        World {
            streams: streams.to_vec(),
            window: Window::new(settings.clone(), Mark::default(), ms(0)),
            settings,
            now: ms(0),
            random: 1,
            stored: Mark::default(),
            settled: BTreeSet::new(),
            said: BTreeSet::new(),
            given: Vec::new(),
            in_flight: Vec::new(),
            parks: Vec::new(),
            failures: BTreeMap::new(),
        }
    }

    fn moment(&mut self) -> Moment {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        Moment { now: self.now, random: self.random >> 7 }
    }

    pub(crate) fn mark(&self) -> Mark {
        self.window.mark()
    }

    /// The streams of the places that are not settled.
    pub(crate) fn unsettled(&self) -> impl Iterator<Item = u8> + '_ {
        let all = (0..).zip(&self.streams);
        all.filter(|(place, _)| !self.settled.contains(place)).map(|(_, stream)| *stream)
    }

    pub(crate) fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Read => self.read(),
            Step::Take { consumer, max, shares } => self.take(consumer, max, shares)?,
            Step::Settle { nth, verdict } => {
                if !self.in_flight.is_empty() {
                    let nth = usize::from(nth) % self.in_flight.len();
                    let delivery = self.in_flight.remove(nth);
                    self.settle(delivery, verdict)?;
                }
            }
            Step::Late { nth } => {
                if !self.given.is_empty() {
                    let delivery = self.given[usize::from(nth) % self.given.len()];
                    self.settle(delivery, 0)?;
                }
            }
            Step::Pass { by_ms } => {
                self.now += ms(by_ms);
                let moment = self.moment();
                self.window.tick(moment);
            }
            Step::Leave { consumer } => drop(self.window.leave(id(consumer))),
            Step::FailTogether { consumer } => {
                let batch = self.held_by(consumer);
                let moment = self.moment();
                self.window.failed_together(id(consumer), &batch, "crashed", moment);
            }
            Step::GiveBack { consumer } => {
                let batch = self.held_by(consumer);
                self.window.give_back(id(consumer), &batch);
            }
            Step::Parked => {
                self.hear_parks()?;
                if let Some(park) = self.parks.pop() {
                    let before = self.window.counts().settled;
                    self.window.parked(park.place);
                    self.let_go(park.place, self.window.counts().settled - before);
                    self.settled.insert(park.place);
                }
            }
            Step::Checkpoint => {
                if let Some(mark) = self.window.checkpoint(self.now) {
                    prop_assert!(mark > self.stored, "a checkpoint goes back");
                    self.stored = mark;
                    self.window.written(mark, self.now);
                }
            }
            Step::Crash => {
                self.window = Window::new(self.settings.clone(), self.stored, self.now);
                self.in_flight.clear();
                self.given.clear();
                self.said.clear();
                self.parks.clear();
                self.failures.clear();
            }
        }
        self.check()
    }

    fn read(&mut self) {
        let room = u64::from(self.window.room());
        let from = self.window.read_from();
        if room == 0 {
            return;
        }
        let end = (from + room).min(self.streams.len() as u64);
        let events = (from..end).map(|place| {
            let stream = format!("s-{}", self.streams[place as usize]);
            (place, recorded(&stream, place))
        });
        self.window.push(events.collect(), end, end == self.streams.len() as u64);
    }

    fn take(&mut self, consumer: u8, max: u32, shares: bool) -> Result<(), TestCaseError> {
        let want = Want { events_max: max, bytes_max: 35, shares };
        let given = self.window.take(id(consumer), want, self.now).unwrap_or_default();
        prop_assert!(given.len() <= max as usize);
        prop_assert!(given.is_sorted_by_key(|g| g.place));
        let (mut seen, mut answer) = (BTreeMap::new(), BTreeSet::new());
        for given in given {
            let stream = self.streams[given.place as usize];
            // Whatever is before it in its stream is settled, or in the same answer.
            for before in (0..given.place).filter(|p| self.streams[*p as usize] == stream) {
                let with_me = answer.contains(&before);
                prop_assert!(
                    self.settled.contains(&before) || with_me || self.said.contains(&before),
                    "place {} was given before place {before}",
                    given.place
                );
            }
            *seen.entry(stream).or_insert(0) += 1;
            answer.insert(given.place);
            let delivery = (id(consumer), given.place, given.delivery);
            self.in_flight.retain(|(_, place, _)| *place != given.place);
            self.said.remove(&given.place);
            self.in_flight.push(delivery);
            self.given.push(delivery);
        }
        let most = self.settings.in_flight_per_stream;
        prop_assert!(seen.values().all(|count| *count <= most));
        Ok(())
    }

    fn held_by(&self, consumer: u8) -> Vec<(u64, u64)> {
        let mine = self.in_flight.iter().filter(|(who, ..)| *who == id(consumer));
        mine.map(|(_, place, delivery)| (*place, *delivery)).collect()
    }

    fn settle(&mut self, delivery: Delivery, verdict: u8) -> Result<(), TestCaseError> {
        let (consumer, place, number) = delivery;
        let verdict = match verdict {
            0..=2 => Verdict::Ack,
            3 => Verdict::Retry("failed".into()),
            4 => Verdict::Park("bad".into()),
            _ => Verdict::Skip,
        };
        let moment = self.moment();
        let before = self.window.counts().settled;
        let (done, skipped) = (verdict == Verdict::Ack, verdict == Verdict::Skip);
        let counted = self.window.settle(consumer, (place, number), verdict, moment);
        if counted && skipped {
            // For good, whatever becomes of those before it.
            self.settled.insert(place);
        } else if counted && done {
            self.said.insert(place);
        } else if counted {
            let streams = &self.streams;
            let stream = streams[place as usize];
            self.said.retain(|other| *other < place || streams[*other as usize] != stream);
        }
        let count = self.window.counts().settled - before;
        prop_assert!(counted || count == 0);
        self.let_go(place, count);
        Ok(())
    }

    /// The window let go of so many events of a stream: this one, and what was handled or parked behind it.
    fn let_go(&mut self, place: u64, count: u64) {
        let stream = self.streams[place as usize];
        let behind = (place..).zip(&self.streams[place as usize..]);
        let behind = behind.filter(|(_, s)| **s == stream).map(|(place, _)| place);
        self.settled.extend(behind.take(count as usize));
    }

    fn hear_parks(&mut self) -> Result<(), TestCaseError> {
        for park in self.window.take_parks() {
            prop_assert!(!park.reason.is_empty());
            let by_tries = park.failures > self.settings.max_retries;
            prop_assert!(by_tries || park.reason == "bad", "{park:?}");
            self.parks.push(park);
        }
        Ok(())
    }

    /// What must hold at all times.
    fn check(&mut self) -> Result<(), TestCaseError> {
        let (mark, held) = (self.window.mark(), self.window.held());
        prop_assert!(held.all <= u64::from(self.settings.buffer_max));
        for place in self.stored.next..mark.next {
            prop_assert!(self.settled.contains(&place), "{mark:?} is beyond place {place}");
        }
        prop_assert!(mark >= self.stored);
        prop_assert!(!mark.ended || mark.next == self.streams.len() as u64);
        Ok(())
    }

    /// Everybody is well: all that asks is served and acknowledged, but for the events of one stream, which fail.
    pub(crate) fn serve_all_but(&mut self, poisoned: u8) -> Result<(), TestCaseError> {
        self.step(Step::Take { consumer: 0, max: 100, shares: false })?;
        while let Some(delivery) = self.in_flight.pop() {
            let fails = self.streams[delivery.1 as usize] == poisoned;
            self.settle(delivery, if fails { 3 } else { 0 })?;
        }
        self.step(Step::Pass { by_ms: 30 })
    }

    /// The world calms down: everything is settled soon.
    pub(crate) fn calm_down(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..self.streams.len() * 8 + 20 {
            self.step(Step::Read)?;
            self.step(Step::Take { consumer: 0, max: 100, shares: false })?;
            self.in_flight.sort_by_key(|(_, place, _)| *place);
            for delivery in std::mem::take(&mut self.in_flight) {
                self.settle(delivery, 0)?;
            }
            self.step(Step::Parked)?;
            self.step(Step::Pass { by_ms: 1000 })?;
        }
        let end = Mark { next: self.streams.len() as u64, ended: true };
        prop_assert_eq!(self.window.mark(), end);
        Ok(())
    }
}

fn id(consumer: u8) -> ConsumerId {
    ConsumerId(u128::from(consumer))
}
