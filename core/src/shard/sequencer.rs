//! The owner's state machine: decides each append, fills batches, and holds every answer back until
//! an epoch check that began after all that it depends on.
//!
//! ```text
//!   append ──> decide against the head ──> open batch ──seal──> in flight ──confirmed──> tail
//!                       │                                                     │
//!                       └── answer, needs "n batches confirmed" ──────────────┴─ check ──> client
//! ```
//!
//! It does no I/O and reads no clock: its driver is [`owner`](crate::owner).

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    append::{Append, AppendError, Appended, Outcome},
    entry::{Batch, BatchedAppend, Entry},
    event::RecordedEvent,
    head::{Change, Head, Remembered},
    limits::{ENTRY_BYTES_MAX, ENTRY_FRAME_BYTES_MAX},
    shard::{
        Checkpoint, ShardId,
        heads::{Heads, Known},
        tail::Tail,
    },
    stream::StreamName,
    time::{HybridClock, HybridTime, WallTime},
};

/// The bounds of one sequencer.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of one batch at the most; never above [`ENTRY_BYTES_MAX`].
    pub batch_bytes_max: usize,
    /// Bytes of what is decided but not yet in the store, at the most, give or take one batch.
    pub tail_bytes_max: usize,
    /// Heads kept in memory, apart from those that the store does not have.
    pub heads_max: usize,
}

/// An answer that has passed its check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To an append.
    Append(Result<Appended, AppendError>),
    /// To a read: what the stream shows.
    Shown(Shown),
}

/// What a stream is at the point of a read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shown {
    /// Its last revision; `None`: it has no event.
    pub head: Option<u64>,
    /// Whether it has an event and is not deleted.
    pub exists: bool,
    /// Whether it was ended for ever.
    pub tombstoned: bool,
    /// The first revision that it shows.
    pub first: u64,
    /// The oldest time that it shows.
    pub oldest: HybridTime,
}

impl Shown {
    /// What the stream of this name is, with this head; `now` decides about the age of events.
    pub fn of(head: Option<&Head>, stream: &StreamName, now: WallTime) -> Shown {
        let Some(head) = head else { return Shown::default() };
        let metadata = stream.is_metadata();
        let last = head.last(stream);
        Shown {
            head: last,
            exists: last.is_some() && (metadata || !head.is_deleted()),
            tombstoned: head.tombstoned && !metadata,
            first: head.first_shown(stream),
            oldest: head.oldest_shown(stream, now),
        }
    }
}

/// What became of a question put to the sequencer; `Q` is the question, given back if not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Offer<Q> {
    /// Taken: the answer will come.
    Taken,
    /// Read the stream's head from the store, call [`Sequencer::load`], and ask again.
    NeedsHead(Q),
    /// The open batch is full: ask again when it is sealed.
    Full(Q),
    /// The tail is full: refuse with a retry-after.
    Busy(Q),
}

/// An epoch check under way: what it may release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    answers: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    /// Batches of this epoch that must be confirmed before the check that releases it begins.
    needs: u64,
    ticket: T,
    answer: Answer,
}

#[derive(Debug, Default)]
struct Open {
    time: HybridTime,
    appends: Vec<BatchedAppend>,
    bytes: usize,
    events: u64,
}

/// See the module's docs. `T` is what the driver needs to deliver an answer.
#[derive(Debug)]
pub struct Sequencer<T> {
    bounds: Bounds,
    shard: ShardId,
    epoch: u64,
    /// Entries accepted up to and including this epoch's fence.
    accepted_at_fence: u64,
    heads: Heads,
    hybrid: HybridClock,
    open: Open,
    /// The batch in flight, and its bytes at the most.
    in_flight: Option<(Batch, usize)>,
    /// Batches of this epoch sealed so far: the index of the next.
    sealed: u64,
    /// Batches of this epoch confirmed so far.
    confirmed: u64,
    /// The accepted count that the store has.
    materialized: u64,
    tail: Tail,
    waiting: VecDeque<Waiting<T>>,
}

impl<T> Sequencer<T> {
    /// Begins an epoch.
    ///
    /// `at_fence` is the replay's state behind the epoch's own accepted fence; `tail` are the accepted
    /// batches that the store may not have, each with its accepted count; `closed` is the highest time
    /// that the parents closed at, if it has parents.
    pub fn begin(
        bounds: Bounds,
        shard: ShardId,
        at_fence: &Checkpoint,
        tail: &[(u64, Batch)],
        closed: HybridTime,
    ) -> Self {
        let mut sequencer = Sequencer {
            bounds,
            shard,
            epoch: at_fence.epoch,
            accepted_at_fence: at_fence.accepted,
            heads: Heads::new(bounds.heads_max),
            hybrid: HybridClock::above(at_fence.closed.max(closed)),
            open: Open::default(),
            in_flight: None,
            sealed: 0,
            confirmed: 0,
            materialized: 0,
            tail: Tail::default(),
            waiting: VecDeque::new(),
        };
        for (accepted, batch) in tail {
            sequencer.tail.push(*accepted, batch);
            for (time, append) in batch.timed() {
                let change = Change::of(append, batch.shard, time);
                sequencer.heads.extend(&append.stream.described(), change, *accepted);
            }
        }
        sequencer
    }

    /// The shard.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// The epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Decides an append; its answer comes from [`passed`](Sequencer::passed) or
    /// [`step_down`](Sequencer::step_down).
    pub fn append(&mut self, wall: WallTime, append: Append, ticket: T) -> Offer<(Append, T)> {
        let bytes = append.encoded_bytes_max();
        let held = self.held_bytes();
        let busy = held > 0 && held + bytes > self.bounds.tail_bytes_max.max(bytes);
        let described = append.stream.described();
        let head = match self.heads.get(&described) {
            Known::Head(head) => head,
            Known::NeedsStore if busy => return Offer::Busy((append, ticket)),
            Known::NeedsStore => return Offer::NeedsHead((append, ticket)),
        };
        if let Some(first_time) = head.and_then(|h| h.recall(&append.stream, append.id)).cloned() {
            let answer = self.appended(&first_time, true);
            self.hold(ticket, answer);
            return Offer::Taken;
        }
        if let Err(error) = demands_met(head, &append, &described) {
            self.hold(ticket, Answer::Append(Err(error)));
            return Offer::Taken;
        }
        // Only what would add to the tail is refused: a repeat is answered however full it is.
        if busy {
            return Offer::Busy((append, ticket));
        }
        let first = head.and_then(|h| h.last(&append.stream)).map_or(0, |last| last + 1);
        let limit = self.bounds.batch_bytes_max.min(ENTRY_BYTES_MAX);
        if !self.open.appends.is_empty() && self.open.bytes + bytes > limit {
            return Offer::Full((append, ticket));
        }

        let accepted = self.accepted_at_fence + self.sealed + 1;
        let count = append.events.len() as u64;
        let time = if self.open.appends.is_empty() {
            self.open.bytes = ENTRY_FRAME_BYTES_MAX;
            self.open.time = self.hybrid.take(wall, count);
            self.open.time
        } else {
            // The events of a batch have consecutive times, whatever the wall clock says meanwhile.
            self.hybrid.take(WallTime(0), count)
        };
        debug_assert_eq!(time, self.open.time.plus(self.open.events));
        let batched =
            BatchedAppend { stream: append.stream, id: append.id, first, events: append.events };
        let change = Change::of(&batched, self.shard, time);
        let remembered = change.append.clone();
        self.heads.extend(&described, change, accepted);
        self.open.bytes += bytes;
        self.open.events += count;
        self.open.appends.push(batched);
        let answer = self.appended(&remembered, false);
        self.hold(ticket, answer);
        Offer::Taken
    }

    /// Decides a strong read: its answer is what the stream is as decided now, given when that is
    /// committed and checked.
    pub fn read(&mut self, wall: WallTime, stream: &StreamName, ticket: T) -> Offer<T> {
        let Known::Head(head) = self.heads.get(&stream.described()) else {
            return Offer::NeedsHead(ticket);
        };
        let answer = Answer::Shown(Shown::of(head, stream, wall));
        self.hold(ticket, answer);
        Offer::Taken
    }

    /// The stored head of a stream, as [`Offer::NeedsHead`] asked for. `stream` is no metadata stream.
    pub fn load(&mut self, stream: StreamName, stored: Option<Head>) {
        // In this order, so that the head is still there when its stream is asked for again.
        self.heads.evict(self.materialized);
        self.heads.load(stream, stored);
    }

    /// Seals the open batch and returns its bytes, to be put again and again until confirmed; `None`
    /// while one is in flight, or if nothing is open. Call it after every batch of offers.
    pub fn seal(&mut self) -> Option<Bytes> {
        if self.in_flight.is_some() || self.open.appends.is_empty() {
            return None;
        }
        let open = std::mem::take(&mut self.open);
        Some(self.send(open.time, open.appends))
    }

    /// Seals a batch without events, which closes the shard's time, at `wall` or later; `None` if there is other
    /// work. Call it when the shard has been idle for a while.
    pub fn seal_empty(&mut self, wall: WallTime) -> Option<Bytes> {
        if self.in_flight.is_some() || !self.open.appends.is_empty() {
            return None;
        }
        let time = self.hybrid.take(wall, 1);
        Some(self.send(time, Vec::new()))
    }

    /// The batch in flight is confirmed in this shard. Returns it.
    pub fn confirmed(&mut self) -> Option<Batch> {
        let Some((batch, _)) = self.in_flight.take() else {
            debug_assert!(false, "confirmed without a batch in flight");
            return None;
        };
        self.confirmed += 1;
        self.tail.push(self.accepted_at_fence + self.confirmed, &batch);
        self.tail.cut(self.materialized);
        Some(batch)
    }

    /// What an epoch check that begins now may release; `None` if nothing waits for one.
    pub fn begin_check(&self) -> Option<Check> {
        let answers = self.waiting.iter().take_while(|w| w.needs <= self.confirmed).count();
        (answers > 0).then_some(Check { answers })
    }

    /// The check saw this epoch: its answers may leave, in order.
    pub fn passed(&mut self, check: Check) -> impl Iterator<Item = (T, Answer)> + '_ {
        self.waiting.drain(..check.answers).map(|w| (w.ticket, w.answer))
    }

    /// The epoch is over. What stands in a sealed batch or in the log may have been committed; all else
    /// did not happen. A repeat shares the fate of the append that it repeats.
    pub fn step_down(self) -> impl Iterator<Item = (T, Outcome)> {
        // Times grow, so the open batch holds exactly what is not older than itself.
        let unsealed = (!self.open.appends.is_empty()).then_some(self.open.time);
        self.waiting.into_iter().map(move |w| {
            let outcome = match w.answer {
                Answer::Append(Ok(a)) if unsealed.is_none_or(|open| a.time < open) => {
                    Outcome::Unknown
                }
                _ => Outcome::No,
            };
            (w.ticket, outcome)
        })
    }

    /// The store has all entries up to the accepted count `accepted`.
    pub fn materialized(&mut self, accepted: u64) {
        self.materialized = self.materialized.max(accepted);
        self.tail.cut(self.materialized);
        self.heads.evict(self.materialized);
    }

    /// The kept events of a stream between two revisions; the ones before the first are in the store.
    pub fn tail(&self, stream: &StreamName, from: u64, last: u64) -> Vec<RecordedEvent> {
        self.tail.read(stream, from, last)
    }

    /// The last time that was handed out: everything up to it is decided.
    pub fn closes(&self) -> HybridTime {
        self.hybrid.last()
    }

    /// How many answers are held back.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing is open, in flight or unanswered.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_none() && self.open.appends.is_empty()
    }

    /// Bytes that are decided but not yet in the store.
    pub fn held_bytes(&self) -> usize {
        let in_flight = self.in_flight.as_ref().map_or(0, |(_, bytes)| *bytes);
        self.tail.bytes() + self.open.bytes + in_flight
    }

    fn send(&mut self, time: HybridTime, appends: Vec<BatchedAppend>) -> Bytes {
        let batch =
            Batch { shard: self.shard, epoch: self.epoch, index: self.sealed, time, appends };
        self.sealed += 1;
        let entry = Entry::Batch(batch);
        let bytes = entry.encode();
        if let Entry::Batch(batch) = entry {
            let bytes_max = batch.encoded_bytes_max();
            self.in_flight = Some((batch, bytes_max));
        }
        bytes
    }

    fn appended(&self, append: &Remembered, repeated: bool) -> Answer {
        Answer::Append(Ok(Appended {
            shard: append.shard,
            answered_by: self.shard,
            epoch: self.epoch,
            first: append.first,
            last: append.last,
            time: append.time,
            repeated,
        }))
    }

    /// An answer depends on everything that is decided so far.
    fn hold(&mut self, ticket: T, answer: Answer) {
        let needs = self.sealed + u64::from(!self.open.appends.is_empty());
        self.waiting.push_back(Waiting { needs, ticket, answer });
    }
}

/// What an append demands of its stream, and of the one that it describes.
fn demands_met(
    head: Option<&Head>,
    append: &Append,
    described: &StreamName,
) -> Result<(), AppendError> {
    if head.is_some_and(|h| h.tombstoned) {
        return Err(AppendError::Tombstoned);
    }
    let demand = |stream: &StreamName, expected, of_described| {
        if Head::meets(head, stream, expected) {
            return Ok(());
        }
        let actual = head.and_then(|h| h.last(stream));
        Err(AppendError::WrongExpectedRevision { expected, actual, described: of_described })
    };
    if append.stream.is_metadata() {
        demand(described, append.described, true)?;
    }
    demand(&append.stream, append.expected, false)
}
