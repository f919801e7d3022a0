//! The order of each stream: what waits for what, and what of it may be given next.

use std::time::Duration;

use super::{Moment, Park, State, Window, backoff};
use crate::stream::StreamName;

impl Window {
    /// An event failed: it waits, or is parked; those behind it in its stream wait for it.
    pub(super) fn fail(&mut self, place: u64, reason: String, counts: bool, moment: Moment) {
        let Some(item) = self.items.get_mut(&place) else { return };
        item.failures += u32::from(counts);
        if item.failures > self.settings.max_retries {
            self.park(place, reason);
        } else {
            let random = backoff::mixed(moment.random, place);
            let wait = backoff::wait(&self.settings, item.failures.max(1), random);
            self.wait(place, Some(moment.now + wait));
        }
        self.withdraw_behind(place);
    }

    pub(super) fn park(&mut self, place: u64, reason: String) {
        let Some(item) = self.items.get_mut(&place) else { return };
        item.state = State::Parking;
        let (event, failures) = (item.event.clone(), item.failures);
        self.parks.push(Park { place, event, failures, reason });
        self.set_due(place, None);
        self.refresh_of(place);
    }

    pub(super) fn wait(&mut self, place: u64, until: Option<Duration>) {
        if let Some(item) = self.items.get_mut(&place) {
            item.state = State::Waiting;
        }
        self.set_due(place, until);
        self.refresh_of(place);
    }

    /// What follows a failed event in its stream waits for it, whatever was said of it.
    pub(super) fn withdraw_behind(&mut self, place: u64) {
        let Some(item) = self.items.get(&place) else { return };
        let Some(lane) = self.lanes.get(&item.event.stream) else { return };
        let behind = lane.places.iter().copied().filter(|other| *other > place);
        for other in behind.collect::<Vec<_>>() {
            let Some(item) = self.items.get_mut(&other) else { continue };
            item.counts_from = self.deliveries + 1;
            if matches!(item.state, State::Given(_) | State::Handled) {
                item.state = State::Waiting;
                self.set_due(other, None);
            }
        }
        self.refresh_of(place);
    }

    /// An event is settled, or handled while an earlier one is not.
    pub(super) fn end(&mut self, place: u64, state: State) {
        if let Some(item) = self.items.get_mut(&place) {
            item.state = state;
        }
        self.set_due(place, None);
        self.refresh_of(place);
    }

    pub(super) fn set_due(&mut self, place: u64, due: Option<Duration>) {
        let Some(item) = self.items.get_mut(&place) else { return };
        if let Some(before) = item.due {
            self.due.remove(&(before, place));
        }
        item.due = due;
        if let Some(due) = due {
            self.due.insert((due, place));
        }
    }

    fn refresh_of(&mut self, place: u64) {
        if let Some(item) = self.items.get(&place) {
            let stream = item.event.stream.clone();
            self.refresh(&stream);
        }
    }

    /// Drops what is settled at the front of a stream, and finds what of it may be given next.
    pub(super) fn refresh(&mut self, stream: &StreamName) {
        let Some(lane) = self.lanes.get_mut(stream) else { return };
        if let Some(before) = lane.ready.take() {
            self.ready.remove(&before);
        }
        while let Some(front) = lane.places.front().copied() {
            let state = self.items.get(&front).map(|item| item.state);
            if !matches!(state, Some(State::Handled | State::Settled)) {
                break;
            }
            lane.places.pop_front();
            self.items.remove(&front);
            self.counts.settled += 1;
            self.written.settled += 1;
        }
        let (mut in_flight, most) = (0, self.settings.in_flight_per_stream);
        for place in lane.places.iter().copied() {
            let Some(item) = self.items.get(&place) else { break };
            match item.state {
                State::Given(_) => in_flight += 1,
                State::Handled | State::Settled => {}
                State::Waiting if item.due.is_none() => {
                    if in_flight < most {
                        lane.ready = Some(place);
                        self.ready.insert(place);
                    }
                    break;
                }
                State::Waiting | State::Parking => break,
            }
        }
        if lane.places.is_empty() {
            self.lanes.remove(stream);
        }
    }
}
