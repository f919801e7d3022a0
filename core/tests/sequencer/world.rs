//! A log, a store and one sequencer between them, beside a reference that knows every append: what the
//! owner's driver would do, one act at a time, each checked against what the reference says.

use std::collections::{BTreeMap, VecDeque};

use stormkeep_core::{
    append::{Append, AppendError, Appended, Outcome},
    entry::{Batch, Entry},
    env::Position,
    head::{Change, Head},
    shard::{
        Checkpoint,
        replay::{Replay, Verdict},
        sequencer::{Answer, Bounds, Check, Sequencer, Shown},
    },
    stream::StreamName,
    time::{HybridTime, WallTime},
};

use crate::common::{SHARD, fence};

mod asked;
mod joint;

use joint::Joint;

/// An answer that is due, in the terms of the reference; times are known when a batch is sealed.
#[derive(Debug, Clone)]
enum Due {
    Append { stream: StreamName, first: u64, last: u64, repeated: bool },
    Wrong(AppendError),
    Shown { stream: StreamName, shown: Shown },
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    needs: u64,
    due: Due,
}

/// A question, as the driver keeps it while its stream's head is read.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Append(Append, u64),
    Read(StreamName, u64),
}

pub(crate) struct World {
    bounds: Bounds,
    /// What the parents closed at.
    floor: HybridTime,
    sequencer: Sequencer<u64>,
    tickets: u64,
    // The log: what was accepted, with the state of the accept rule behind it.
    replay: Replay,
    log: Vec<(Checkpoint, Entry)>,
    // The store: what has been folded, how far, and how much of that the sequencer was told.
    heads: BTreeMap<StreamName, Head>,
    folded: usize,
    told: u64,
    // The reference: every append decided; where and when each is, once sealed.
    streams: BTreeMap<StreamName, Joint>,
    sealed_at: BTreeMap<(StreamName, u64), HybridTime>,
    waiting: VecDeque<Waiting>,
    cold: BTreeMap<StreamName, (Option<Head>, Vec<Ask>)>,
    open: (usize, u64),
    in_flight: Option<(Batch, bool)>,
    sealed: u64,
    confirmed: Vec<(u64, usize)>,
    confirmed_count: u64,
    check: Option<(Check, usize)>,
}

impl World {
    pub(crate) fn new(bounds: Bounds, floor: HybridTime) -> Self {
        let replay = Replay::from(SHARD, Checkpoint::default());
        let sequencer = Sequencer::begin(bounds, SHARD, replay.checkpoint(), &[], floor);
        let mut world = World {
            bounds,
            floor,
            sequencer,
            tickets: 0,
            replay,
            log: Vec::new(),
            heads: BTreeMap::new(),
            folded: 0,
            told: 0,
            streams: BTreeMap::new(),
            sealed_at: BTreeMap::new(),
            waiting: VecDeque::new(),
            cold: BTreeMap::new(),
            open: (0, 0),
            in_flight: None,
            sealed: 0,
            confirmed: Vec::new(),
            confirmed_count: 0,
            check: None,
        };
        world.take_over(false, 0);
        world
    }

    pub(crate) fn seal(&mut self) -> bool {
        let due = self.in_flight.is_none() && self.open.1 > 0;
        let sealed = self.sequencer.seal();
        assert_eq!(sealed.is_some(), due);
        self.sent(sealed.map(|bytes| Entry::decode(&bytes)), self.open.1)
    }

    pub(crate) fn seal_empty(&mut self, wall: WallTime) -> bool {
        let due = self.in_flight.is_none() && self.open.1 == 0;
        let sealed = self.sequencer.seal_empty(wall);
        assert_eq!(sealed.is_some(), due);
        self.sent(sealed.map(|bytes| Entry::decode(&bytes)), 0)
    }

    fn sent<E: std::fmt::Debug>(&mut self, entry: Option<Result<Entry, E>>, appends: u64) -> bool {
        let Some(entry) = entry else { return false };
        let Ok(Entry::Batch(batch)) = entry else { panic!("a batch was sealed: {entry:?}") };
        assert_eq!((batch.shard, batch.epoch), (SHARD, self.sequencer.epoch()));
        assert_eq!((batch.index, batch.appends.len() as u64), (self.sealed, appends));
        assert!(batch.time > self.replay.checkpoint().closed.max(self.floor), "times grow");
        for (time, append) in batch.timed() {
            let known = &self.streams[&append.stream.described()];
            assert!(known.has(append), "{:?} of {}: {known:?}", append.id, append.stream);
            self.sealed_at.insert((append.stream.clone(), append.first), time);
        }
        self.sealed += 1;
        self.open = (0, 0);
        self.in_flight = Some((batch, false));
        true
    }

    /// The batch in flight is in the log; its owner does not know it yet.
    pub(crate) fn land(&mut self) {
        if let Some((batch, landed)) = &mut self.in_flight
            && !std::mem::replace(landed, true)
        {
            let entry = Entry::Batch(batch.clone());
            self.put(entry);
        }
    }

    pub(crate) fn confirm(&mut self) -> bool {
        self.land();
        let Some((batch, _)) = self.in_flight.take() else { return false };
        self.confirmed.push((self.replay.checkpoint().accepted, batch.encoded_bytes_max()));
        self.confirmed_count += 1;
        self.sequencer.confirmed();
        assert_eq!(self.sequencer.held_bytes(), self.held_bytes());
        true
    }

    fn put(&mut self, entry: Entry) {
        let position = Position::new(self.log.len() as u128);
        assert_eq!(self.replay.apply(position, &entry), Ok(Verdict::Accepted));
        self.log.push((self.replay.checkpoint().clone(), entry));
    }

    pub(crate) fn begin_check(&mut self) -> bool {
        if self.check.is_some() {
            return false;
        }
        let free = self.waiting.iter().take_while(|w| w.needs <= self.confirmed_count).count();
        self.check = self.sequencer.begin_check().map(|check| (check, free));
        assert_eq!(self.check.is_some(), free > 0);
        free > 0
    }

    pub(crate) fn passed(&mut self) -> bool {
        let Some((check, free)) = self.check.take() else { return false };
        let answers: Vec<(u64, Answer)> = self.sequencer.passed(check).collect();
        assert_eq!(answers.len(), free);
        for ((ticket, answer), waiting) in answers.into_iter().zip(self.waiting.drain(..free)) {
            assert_eq!(ticket, waiting.ticket, "in the order they were decided in");
            let due = match waiting.due {
                Due::Wrong(error) => Answer::Append(Err(error)),
                Due::Append { stream, first, last, repeated } => {
                    let time = self.sealed_at[&(stream, first)];
                    let epoch = self.sequencer.epoch();
                    let shard = SHARD;
                    Answer::Append(Ok(Appended {
                        shard,
                        answered_by: shard,
                        epoch,
                        first,
                        last,
                        time,
                        repeated,
                    }))
                }
                Due::Shown { ref stream, shown } => {
                    check_tail(&self.sequencer, &self.heads, stream, shown.head);
                    Answer::Shown(shown)
                }
            };
            assert_eq!(answer, due);
        }
        true
    }

    /// The store folds `count` more entries.
    pub(crate) fn fold(&mut self, count: usize) {
        for (_, entry) in self.log.iter().skip(self.folded).take(count) {
            self.folded += 1;
            let Entry::Batch(batch) = entry else { continue };
            for (time, append) in batch.timed() {
                let described = append.stream.described();
                let stored = self.heads.remove(&described);
                let change = Change::of(append, batch.shard, time);
                self.heads.insert(described, Head::extend(stored, &change));
            }
        }
    }

    /// The sequencer is told how much the store has.
    pub(crate) fn tell(&mut self) {
        self.told = self.folded as u64;
        self.sequencer.materialized(self.told);
        assert_eq!(self.sequencer.held_bytes(), self.held_bytes());
    }

    /// Another owner takes over: the batch in flight lands before its fence or never, and the checkpoint
    /// is `lag` entries behind the store.
    pub(crate) fn take_over(&mut self, lands: bool, lag: usize) {
        if lands {
            self.land();
        }
        let next = self.sequencer.epoch() + 1;
        self.put(fence(next));
        let at = self.folded - lag.min(self.folded);
        let tail: Vec<(u64, Batch)> = self.log[at..]
            .iter()
            .filter_map(|(at, entry)| match entry {
                Entry::Batch(batch) => Some((at.accepted, batch.clone())),
                Entry::Fence(_) => None,
            })
            .collect();
        let at_fence = self.replay.checkpoint().clone();
        let successor = Sequencer::begin(self.bounds, SHARD, &at_fence, &tail, self.floor);
        let gone = std::mem::replace(&mut self.sequencer, successor);
        let outcomes: Vec<(u64, Outcome)> = gone.step_down().collect();
        assert_eq!(outcomes.len(), self.waiting.len());
        for ((ticket, outcome), waiting) in outcomes.into_iter().zip(self.waiting.drain(..)) {
            assert_eq!(ticket, waiting.ticket);
            let may_be = matches!(waiting.due, Due::Append { stream, first, .. }
                if self.sealed_at.contains_key(&(stream.clone(), first)));
            assert_eq!(outcome, if may_be { Outcome::Unknown } else { Outcome::No });
        }
        // What counts from here on is what was accepted.
        self.streams.clear();
        self.sealed_at.clear();
        for (_, entry) in &self.log {
            let Entry::Batch(batch) = entry else { continue };
            for (time, append) in batch.timed() {
                self.streams.entry(append.stream.described()).or_default().accept(append);
                self.sealed_at.insert((append.stream.clone(), append.first), time);
            }
        }
        self.confirmed = tail.iter().map(|(at, batch)| (*at, batch.encoded_bytes_max())).collect();
        (self.cold, self.open, self.in_flight, self.check) = Default::default();
        (self.sealed, self.confirmed_count, self.told) = (0, 0, 0);
        assert_eq!(self.sequencer.held_bytes(), self.held_bytes());
        assert!(self.sequencer.is_idle());
    }

    /// Lets everything come to its end.
    pub(crate) fn finish(&mut self) {
        while self.loaded(WallTime(0)) {}
        while self.seal() | self.confirm() | self.begin_check() | self.passed() {}
        assert!(self.sequencer.is_idle() && self.waiting.is_empty());
        self.fold(usize::MAX);
        self.tell();
        assert_eq!(self.sequencer.held_bytes(), 0);
        for (stream, joint) in self.streams.iter().filter(|(_, joint)| !joint.is_empty()) {
            let head = &self.heads[stream];
            for name in [stream.clone(), stream.metadata()] {
                assert_eq!(joint.count(&name).checked_sub(1), head.last(&name), "no gap in {name}");
            }
        }
    }
}

/// What the tail lacks below its first event is in the store; from there on it lacks nothing.
fn check_tail(
    sequencer: &Sequencer<u64>,
    heads: &BTreeMap<StreamName, Head>,
    stream: &StreamName,
    head: Option<u64>,
) {
    let Some(last) = head else { return };
    for from in [0, last / 2, last] {
        let tail: Vec<u64> =
            sequencer.tail(stream, from, last).iter().map(|e| e.revision).collect();
        let below = tail.first().map_or(last + 1, |first| *first);
        assert!(tail.iter().copied().eq(below..=last));
        assert!(below >= from);
        let stored = heads.get(&stream.described()).and_then(|head| head.last(stream));
        assert!(below == from || stored.map_or(0, |r| r + 1) >= below, "the store has the rest");
    }
}
