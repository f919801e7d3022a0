//! What is asked: put to the sequencer and to the reference, which must agree on what becomes of it.

use stormkeep_core::{
    append::{Append, AppendError, AppendId},
    limits::ENTRY_FRAME_BYTES_MAX,
    shard::sequencer::Offer,
    stream::StreamName,
    time::WallTime,
};

use super::{Ask, Due, Waiting, World};

impl World {
    /// An append that is `back` appends old, if the stream and its metadata have that many, or a new one.
    pub(crate) fn append_id(&self, stream: &StreamName, back: Option<usize>) -> AppendId {
        let known = self.streams.get(&stream.described()).zip(back);
        let old = known.and_then(|(joint, back)| joint.recent(back));
        old.unwrap_or(AppendId(u128::from(self.tickets) + 1_000))
    }

    pub(crate) fn last(&self, stream: &StreamName) -> Option<u64> {
        self.streams.get(&stream.described()).and_then(|joint| joint.count(stream).checked_sub(1))
    }

    pub(crate) fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// Asks, or waits behind those that wait for the same head.
    pub(crate) fn ask(&mut self, wall: WallTime, ask: Ask) {
        let stream = match &ask {
            Ask::Append(append, _) => append.stream.described(),
            Ask::Read(stream, _) => stream.described(),
        };
        if let Some((_, parked)) = self.cold.get_mut(&stream) {
            return parked.push(ask);
        }
        if let Some(ask) = self.offer(wall, ask) {
            // The read of the store begins now, and is answered whenever it is.
            let stored = self.heads.get(&stream).cloned();
            self.cold.insert(stream, (stored, vec![ask]));
        }
    }

    /// The store's answer to the longest read under way, by the order of names.
    pub(crate) fn loaded(&mut self, wall: WallTime) -> bool {
        let Some((stream, (stored, parked))) = self.cold.pop_first() else { return false };
        self.sequencer.load(stream, stored);
        for ask in parked {
            assert!(self.offer(wall, ask).is_none(), "a loaded head is there");
        }
        true
    }

    /// Puts a question to the sequencer and to the reference; gives it back if it needs a head.
    fn offer(&mut self, wall: WallTime, ask: Ask) -> Option<Ask> {
        match ask {
            Ask::Append(append, ticket) => {
                let held = self.held_bytes();
                let bytes = append.encoded_bytes_max();
                let full = held > 0 && held + bytes > self.bounds.tail_bytes_max.max(bytes);
                match self.sequencer.append(wall, append.clone(), ticket) {
                    Offer::Busy(_) => assert!(full, "busy with {held} bytes held"),
                    Offer::NeedsHead((append, ticket)) => return Some(Ask::Append(append, ticket)),
                    Offer::Full(_) => {
                        let limit = self.bounds.batch_bytes_max;
                        assert!(self.open.1 > 0 && self.open.0 + bytes > limit);
                    }
                    Offer::Taken => {
                        let due = self.decide(append, bytes);
                        self.hold(ticket, due);
                        // Only a repeat or a refusal is decided on a full tail.
                        assert!(!full || self.held_bytes() == held, "taken with {held} bytes held");
                        let most = self.bounds.tail_bytes_max.max(bytes) + ENTRY_FRAME_BYTES_MAX;
                        assert!(self.held_bytes() <= most.max(held));
                    }
                }
            }
            Ask::Read(stream, ticket) => match self.sequencer.read(wall, &stream, ticket) {
                Offer::NeedsHead(ticket) => return Some(Ask::Read(stream, ticket)),
                Offer::Taken => {
                    let joint = self.streams.get(&stream.described());
                    let shown = joint.map(|j| j.shown(&stream, wall)).unwrap_or_default();
                    self.hold(ticket, Due::Shown { stream, shown });
                }
                offer => panic!("a read is never refused: {offer:?}"),
            },
        }
        assert_eq!(self.sequencer.held_bytes(), self.held_bytes());
        assert_eq!(self.sequencer.waiting(), self.waiting.len());
        None
    }

    fn decide(&mut self, append: Append, bytes: usize) -> Due {
        let joint = self.streams.entry(append.stream.described()).or_default();
        if let Some((first, last)) = joint.recall(&append.stream, append.id) {
            return Due::Append { stream: append.stream, first, last, repeated: true };
        }
        if joint.tombstoned() {
            return Due::Wrong(AppendError::Tombstoned);
        }
        for (stream, expected, described) in [
            (append.stream.described(), append.described, true),
            (append.stream.clone(), append.expected, false),
        ] {
            // What is demanded of the described stream is of no matter to an append to that stream itself.
            let asked = !described || append.stream.is_metadata();
            if asked && !joint.meets(&stream, expected) {
                let actual = joint.count(&stream).checked_sub(1);
                let wrong = AppendError::WrongExpectedRevision { expected, actual, described };
                return Due::Wrong(wrong);
            }
        }
        let (first, last) = joint.append(&append);
        if self.open.1 == 0 {
            self.open.0 = ENTRY_FRAME_BYTES_MAX;
        }
        self.open = (self.open.0 + bytes, self.open.1 + 1);
        Due::Append { stream: append.stream, first, last, repeated: false }
    }

    fn hold(&mut self, ticket: u64, due: Due) {
        let needs = self.sealed + u64::from(self.open.1 > 0);
        self.waiting.push_back(Waiting { ticket, needs, due });
    }

    pub(super) fn held_bytes(&self) -> usize {
        let tail = self.confirmed.iter().filter(|(at, _)| *at > self.told).map(|(_, b)| b);
        let in_flight = self.in_flight.as_ref().map_or(0, |(b, _)| b.encoded_bytes_max());
        tail.sum::<usize>() + in_flight + self.open.0
    }
}
