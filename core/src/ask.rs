//! Questions to the owner of a shard, and the door that they come through.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures::channel::{mpsc, oneshot};

use crate::{
    append::{Append, AppendError, Appended, Direction, ReadError},
    event::RecordedEvent,
    shard::sequencer::Shown,
    stream::StreamName,
    time::HybridTime,
};

/// A question to an owner, with the way back for its answer.
pub(crate) enum Ask {
    Append(Append, oneshot::Sender<Result<Appended, AppendError>>),
    /// A read of a stream.
    Read(StreamName, Range, oneshot::Sender<Result<Grant, ReadError>>),
    /// A reader of all shards waits for this shard's time to be closed up to here. There is no answer.
    Close(HybridTime),
}

/// What a read asks for: a first revision, how many events, and which way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    pub(crate) from: u64,
    pub(crate) limit: u32,
    pub(crate) direction: Direction,
}

impl Range {
    /// The lowest and the highest revision that it covers in a stream that shows these; `None`: none.
    pub(crate) fn within(&self, shown: &Shown) -> Option<(u64, u64)> {
        let last = shown.head.filter(|_| shown.exists)?;
        let count = u64::from(self.limit).checked_sub(1)?;
        let (low, high) = match self.direction {
            Direction::Forwards => {
                let low = self.from.max(shown.first);
                (low, low.saturating_add(count).min(last))
            }
            Direction::Backwards => {
                let high = self.from.min(last);
                (high.saturating_sub(count).max(shown.first), high)
            }
        };
        (low <= high).then_some((low, high))
    }
}

/// The way to an owner: a queue of bounded length. All hold the same sender, since each clone of one
/// would bring a place of its own, and the queue would have no bound.
#[derive(Clone)]
pub(crate) struct Door(Arc<Mutex<mpsc::Sender<Ask>>>);

/// Why an owner took no question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shut {
    /// Too many wait.
    Full,
    /// It serves no more.
    Gone,
}

impl Door {
    /// A door, and where the questions come out.
    pub(crate) fn new(queue_max: usize) -> (Self, mpsc::Receiver<Ask>) {
        // The one sender has a place of its own.
        let (sender, receiver) = mpsc::channel(queue_max.saturating_sub(1));
        (Door(Arc::new(Mutex::new(sender))), receiver)
    }

    pub(crate) fn offer(&self, ask: Ask) -> Result<(), Shut> {
        let mut sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |error: mpsc::TrySendError<Ask>| {
            if error.is_full() { Shut::Full } else { Shut::Gone }
        };
        sender.try_send(ask).map_err(full)
    }
}

/// Leave to read a stream as it is now: what the store does not have yet of the range is in `tail`.
pub(crate) struct Grant {
    pub(crate) shown: Shown,
    pub(crate) tail: Vec<RecordedEvent>,
}

impl Ask {
    /// The stream, if earlier questions about it wait for its head: this one waits behind them.
    pub(crate) fn stream_if_waiting(
        &self,
        cold: &BTreeMap<StreamName, Vec<Ask>>,
    ) -> Option<StreamName> {
        let stream = match self {
            Ask::Append(append, _) => append.stream.described(),
            Ask::Read(stream, ..) => stream.described(),
            Ask::Close(_) => return None,
        };
        cold.contains_key(&stream).then_some(stream)
    }

    /// Answers that this node does not own the shard.
    pub(crate) fn refuse(self) {
        match self {
            Ask::Append(_, reply) => drop(reply.send(Err(AppendError::NotOwner { hint: None }))),
            Ask::Close(_) => {}
            Ask::Read(_, _, reply) => drop(reply.send(Err(ReadError::NotOwner { hint: None }))),
        }
    }
}

/// Shuts the door, and refuses whoever waits in front of it. What comes later finds it shut, rather than a
/// queue that is dropped.
pub(crate) fn shut(requests: &mut mpsc::Receiver<Ask>) {
    requests.close();
    while let Ok(ask) = requests.try_recv() {
        ask.refuse();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(count: u64, first: u64) -> Shown {
        let head = count.checked_sub(1);
        Shown { head, exists: first < count, first, ..Shown::default() }
    }

    proptest! {
        /// Reads that go on where the last one ended go over every event that is shown, once.
        #[test]
        fn ranges_behind_one_another_cover_what_is_shown(
            count in 0..40u64, first in 0..45u64, limit in 1..9u32, from in 0..50u64, backwards in any::<bool>(),
        ) {
            let shown = shown(count, first.min(count));
            let all = shown.first..count;
            let (direction, mut due): (_, Vec<u64>) = if backwards {
                (Direction::Backwards, all.filter(|r| *r <= from).rev().collect())
            } else {
                (Direction::Forwards, all.filter(|r| *r >= from).collect())
            };
            let mut at = from;
            while let Some((low, high)) = (Range { from: at, limit, direction }).within(&shown) {
                prop_assert!(low <= high && high - low < u64::from(limit));
                let part: Vec<u64> = if backwards { (low..=high).rev().collect() } else { (low..=high).collect() };
                prop_assert_eq!(&due[..part.len()], &part[..]);
                due.drain(..part.len());
                if due.is_empty() {
                    break;
                }
                at = if backwards { low - 1 } else { high + 1 };
            }
            prop_assert_eq!(due, Vec::<u64>::new());
        }

        #[test]
        fn a_range_of_any_numbers_does_no_harm(
            count in any::<u64>(), first in any::<u64>(), limit in any::<u32>(), from in any::<u64>(), backwards in any::<bool>(),
        ) {
            let direction = if backwards { Direction::Backwards } else { Direction::Forwards };
            if let Some((low, high)) = (Range { from, limit, direction }).within(&shown(count, first)) {
                prop_assert!(first <= low && low <= high && high < count);
            }
        }
    }

    #[test]
    fn nothing_is_covered_of_a_stream_that_is_not_there() {
        let all = Range { from: 0, limit: 10, direction: Direction::Forwards };
        let last = Range { from: u64::MAX, direction: Direction::Backwards, ..all };
        for range in [all, last] {
            assert_eq!(range.within(&Shown::default()), None);
            // Deleted.
            assert_eq!(range.within(&shown(5, 5)), None);
            assert_eq!(range.within(&shown(5, 2)), Some((2, 4)));
            assert_eq!(Range { limit: 0, ..range }.within(&shown(5, 2)), None);
        }
    }
}
