//! The oracles' own fold of the logs: what counts, by the accept rule of the design, written down a second
//! time so that a mistake in the core's cannot hide itself.
//!
//! State `(epoch, next)` of a shard, at first `(0, 0)`. An entry that names another shard is ignored.
//! `Fence e` counts if `e > epoch`; then `epoch = e, next = 0`. `Batch (e, i)` counts if `e == epoch` and
//! `i == next`; then `next += 1`. All else is ignored.
//!
//! Shards are folded in order of their ids. Parents have lower ids than their children, and a stream
//! lives in one shard at a time, so the appends of a stream come in the order of its history.
//!
//! A log that no correct owner writes does not stop the fold: what is odd is kept as [`Odd`], for the
//! oracles to judge.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use stormkeep_core::{
    append::AppendId,
    entry::{Batch, Entry, InvalidEntry},
    env::{LogRecord, Position},
    event::{Event, RecordedEvent},
    shard::{Checkpoint, ShardId},
    stream::StreamName,
    time::HybridTime,
};

use super::joint::{Joint, State as JointState, described, is_metadata};

/// An accepted append in its place.
#[derive(Debug)]
pub(super) struct Placed {
    /// Its stream: an index of [`Fold::streams`].
    pub(super) stream: usize,
    /// Its stream with that one's metadata: an index of [`Fold::joints`].
    pub(super) joint: usize,
    /// Its place among the appends of both, from 0.
    pub(super) nth: usize,
    /// Whether its stream is the metadata of another one.
    pub(super) metadata: bool,
    pub(super) id: AppendId,
    pub(super) shard: ShardId,
    pub(super) epoch: u64,
    /// The index of its batch in the epoch.
    pub(super) batch: u64,
    /// Which record of the shard's log, from 0.
    pub(super) record: usize,
    /// Revision of its first event.
    pub(super) first: u64,
    /// Revision of its last event.
    pub(super) last: u64,
    /// Time of its first event.
    pub(super) time: HybridTime,
    pub(super) events: Arc<[Event]>,
}

/// One event of an accepted append.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlacedEvent<'f> {
    pub(super) revision: u64,
    pub(super) shard: ShardId,
    pub(super) time: HybridTime,
    pub(super) append: AppendId,
    pub(super) event: &'f Event,
}

impl Placed {
    /// Its events in order.
    pub(super) fn events(&self) -> impl Iterator<Item = PlacedEvent<'_>> {
        (0..).zip(self.events.iter()).map(|(n, event)| PlacedEvent {
            revision: self.first.saturating_add(n),
            shard: self.shard,
            time: later(self.time, n),
            append: self.id,
            event,
        })
    }
}

impl PlacedEvent<'_> {
    /// Whether a recorded event of `stream` is this one, in all that it says.
    pub(super) fn is(&self, stream: &StreamName, recorded: &RecordedEvent) -> bool {
        recorded.revision == self.revision
            && recorded.shard == self.shard
            && recorded.time == self.time
            && recorded.append == self.append
            && recorded.stream == *stream
            && recorded.event == *self.event
    }
}

/// The history of one stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) name: StreamName,
    /// Its appends in order: indices of [`Fold::appends`].
    pub(super) appends: Vec<usize>,
    /// Whether its revisions are 0, 1, 2, … Only then do revisions name states of the stream.
    pub(super) orderly: bool,
}

/// The state of the fold of one shard behind some record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) accepted: u64,
    pub(super) epoch: u64,
    pub(super) next: u64,
    pub(super) closed: HybridTime,
    /// Where [`Fold::appends`] ends so far.
    pub(super) appends: usize,
}

/// The fold of one shard.
#[derive(Debug)]
pub(super) struct ShardFold {
    /// The state before the first record.
    begin: State,
    /// The state behind each record.
    records: Vec<(Position, State)>,
    /// The time of its first accepted batch.
    pub(super) opens: Option<HybridTime>,
    /// The epochs whose fences were accepted, in order.
    pub(super) epochs: Vec<u64>,
}

impl ShardFold {
    /// How many records lie up to and including a position; `None`: no record is there.
    pub(super) fn reach(&self, position: Option<Position>) -> Option<usize> {
        let Some(position) = position else { return Some(0) };
        self.records.binary_search_by_key(&position, |(p, _)| *p).ok().map(|n| n + 1)
    }

    /// The state behind so many records.
    pub(super) fn behind(&self, reach: usize) -> &State {
        reach.checked_sub(1).and_then(|n| self.records.get(n)).map_or(&self.begin, |(_, s)| s)
    }

    /// How many records there are.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// How far a checkpoint reaches; `Err`: what this fold has in its place.
    pub(super) fn agree(&self, at: &Checkpoint, closed: bool) -> Result<usize, String> {
        let Some(reach) = self.reach(at.position) else {
            return Err("no record is at its position".to_owned());
        };
        let state = self.behind(reach);
        if (at.accepted, at.epoch, at.next, at.closed)
            != (state.accepted, state.epoch, state.next, state.closed)
        {
            return Err(format!(
                "there the log has accepted {}, epoch {}, next {}, closed {}",
                state.accepted, state.epoch, state.next, state.closed
            ));
        }
        if at.ended && !closed {
            return Err("the shard is open".to_owned());
        }
        if at.ended && reach < self.len() {
            return Err(format!("{} more records follow", self.len() - reach));
        }
        Ok(reach)
    }
}

/// What no correct owner and no correct log leave behind.
#[derive(Debug)]
pub(super) enum Odd {
    /// A record is no entry.
    NoEntry { shard: ShardId, position: Position, error: InvalidEntry },
    /// A batch is ahead of the fold: of an epoch without a fence before it, or behind a missing batch.
    Ahead { shard: ShardId, position: Position, epoch: u64, batch: u64, state: State },
    /// An accepted batch whose time is not above all times before it.
    Time { shard: ShardId, epoch: u64, batch: u64, time: HybridTime, closed: HybridTime },
}

/// The fold of all logs.
#[derive(Debug, Default)]
pub(super) struct Fold {
    /// All accepted appends: shard by shard, in the order of each log.
    pub(super) appends: Vec<Placed>,
    pub(super) shards: BTreeMap<ShardId, ShardFold>,
    pub(super) streams: Vec<Stream>,
    /// The streams by name: indices of [`Fold::streams`].
    pub(super) names: BTreeMap<StreamName, usize>,
    /// The streams with their metadata.
    pub(super) joints: Vec<Joint>,
    /// The same by the name of the stream: indices of [`Fold::joints`].
    joint_names: BTreeMap<String, usize>,
    /// The appends by id, then by place: indices of [`Fold::appends`].
    pub(super) ids: Vec<(AppendId, usize)>,
    pub(super) odd: Vec<Odd>,
}

/// Folds the logs.
pub(super) fn fold(logs: &BTreeMap<ShardId, Vec<LogRecord>>) -> Fold {
    let mut fold = Fold::default();
    for (shard, records) in logs {
        fold.shard(*shard, records);
    }
    fold.ids = fold.appends.iter().enumerate().map(|(n, placed)| (placed.id, n)).collect();
    fold.ids.sort_unstable();
    fold
}

impl Fold {
    /// The events of a stream from a revision on. Call it for an orderly stream.
    pub(super) fn events(&self, stream: usize, from: u64) -> impl Iterator<Item = PlacedEvent<'_>> {
        let appends = &self.streams[stream].appends;
        let begin = appends.partition_point(|n| self.appends[*n].last < from);
        let placed = appends[begin..].iter().flat_map(|n| self.appends[*n].events());
        placed.skip_while(move |e| e.revision < from)
    }

    /// A stream with its metadata, whichever of the two is named; `None`: there is no event of either.
    pub(super) fn joint(&self, name: &StreamName) -> Option<usize> {
        self.joint_names.get(described(name)).copied()
    }

    /// The state of a stream and its metadata before an append.
    pub(super) fn before(&self, placed: &Placed) -> &JointState {
        &self.joints[placed.joint].states[placed.nth]
    }

    /// The last revision of a stream, as the log has it.
    pub(super) fn head(&self, stream: usize) -> Option<u64> {
        self.streams[stream].appends.last().map(|n| self.appends[*n].last)
    }

    /// Where an append stands, in order: indices of [`Fold::appends`].
    pub(super) fn places(&self, id: AppendId) -> impl Iterator<Item = usize> {
        let begin = self.ids.partition_point(|(i, _)| *i < id);
        self.ids[begin..].iter().take_while(move |(i, _)| *i == id).map(|(_, n)| *n)
    }

    fn shard(&mut self, shard: ShardId, records: &[LogRecord]) {
        let mut state = State { appends: self.appends.len(), ..State::default() };
        let mut folded = ShardFold {
            begin: state,
            records: Vec::with_capacity(records.len()),
            opens: None,
            epochs: Vec::new(),
        };
        for (n, LogRecord { position, data }) in records.iter().enumerate() {
            match Entry::decode(data) {
                Err(error) => self.odd.push(Odd::NoEntry { shard, position: *position, error }),
                Ok(entry) if entry.shard() != shard => {}
                Ok(Entry::Fence(fence)) => {
                    if fence.epoch > state.epoch {
                        (state.epoch, state.next) = (fence.epoch, 0);
                        state.accepted += 1;
                        folded.epochs.push(fence.epoch);
                    }
                }
                Ok(Entry::Batch(batch)) => {
                    let (found, due) = ((batch.epoch, batch.index), (state.epoch, state.next));
                    if found == due {
                        folded.opens.get_or_insert(batch.time);
                        self.accept(n, batch, &mut state);
                    } else if found > due {
                        let (position, (epoch, batch)) = (*position, found);
                        self.odd.push(Odd::Ahead { shard, position, epoch, batch, state });
                    }
                }
            }
            folded.records.push((*position, state));
        }
        self.shards.insert(shard, folded);
    }

    fn accept(&mut self, record: usize, batch: Batch, state: &mut State) {
        let Batch { shard, epoch, index, time: opens, appends } = batch;
        if opens <= state.closed {
            let closed = state.closed;
            self.odd.push(Odd::Time { shard, epoch, batch: index, time: opens, closed });
        }
        let mut time = opens;
        let mut closes = opens;
        for append in appends {
            let stream = self.stream(append.stream);
            let count = append.events.len() as u64;
            let last = append.first.saturating_add(count.saturating_sub(1));
            let history = &mut self.streams[stream];
            let due = match history.appends.last() {
                Some(before) => self.appends[*before].last.checked_add(1),
                None => Some(0),
            };
            history.orderly &= due == Some(append.first);
            history.appends.push(self.appends.len());
            let metadata = is_metadata(&history.name);
            let next = self.joints.len();
            let joint = self.joint_names.entry(described(&history.name).to_owned()).or_insert(next);
            let joint = *joint;
            if joint == next {
                self.joints.push(Joint::new());
            }
            let together = &mut self.joints[joint];
            together.orderly &= history.orderly;
            let nth = together.appends.len();
            together.push(self.appends.len(), metadata, &append.events);
            self.appends.push(Placed {
                stream,
                joint,
                nth,
                metadata,
                id: append.id,
                shard,
                epoch,
                batch: index,
                record,
                first: append.first,
                last,
                time,
                events: append.events,
            });
            closes = later(time, count.saturating_sub(1));
            time = later(time, count);
        }
        state.accepted += 1;
        state.next += 1;
        state.closed = state.closed.max(closes);
        state.appends = self.appends.len();
    }

    fn stream(&mut self, name: StreamName) -> usize {
        let Fold { names, streams, .. } = self;
        *names.entry(name).or_insert_with_key(|name| {
            streams.push(Stream { name: name.clone(), appends: Vec::new(), orderly: true });
            streams.len() - 1
        })
    }

    /// The accepted appends of a shard behind one checkpoint's reach and up to another's.
    pub(super) fn between(&self, shard: &ShardFold, reach: Range<usize>) -> &[Placed] {
        let (begin, end) = (shard.behind(reach.start).appends, shard.behind(reach.end).appends);
        self.appends.get(begin..end).unwrap_or_default()
    }
}

/// [`HybridTime::plus`] for a time that may be nonsense.
fn later(time: HybridTime, by: u64) -> HybridTime {
    HybridTime(time.0.saturating_add(by))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Case;
    use super::*;

    #[test]
    fn only_what_the_accept_rule_takes_counts() {
        let mut case = Case::new();
        let fresh = case.batch_of(&[("a-1", 1, 0, 2)]);
        case.put(0, &fresh);
        case.put(0, &fresh); // a repeat
        case.fence(0, 2);
        let zombie = case.batch_at(0, 1, 1, &[("a-1", 2, 2, 1)]);
        case.put(0, &zombie);
        let misplaced = case.batch_at(7, 2, 0, &[("a-1", 3, 2, 1)]);
        case.put(0, &misplaced);
        case.fence(0, 2); // a repeat
        let good = case.batch_at(0, 2, 0, &[("a-1", 4, 2, 1)]);
        case.put(0, &good);

        let fold = fold(&case.evidence.logs);
        let ids: Vec<u128> = fold.appends.iter().map(|p| p.id.0).collect();
        assert_eq!(ids, [1, 4]);
        assert!(fold.odd.is_empty() && fold.streams[0].orderly);
        let shard = &fold.shards[&ShardId(0)];
        assert_eq!((shard.len(), shard.epochs.as_slice()), (8, [1, 2].as_slice()));
        let state = shard.behind(8);
        assert_eq!((state.accepted, state.epoch, state.next, state.appends), (4, 2, 1, 2));
        let revisions: Vec<u64> = fold.events(0, 1).map(|e| e.revision).collect();
        assert_eq!(revisions, [1, 2]);
        let at = |head| fold.joints[0].at(false, head);
        assert_eq!([None, Some(0), Some(1)].map(at), [0..1, 1..1, 1..2]);
    }

    #[test]
    fn odd_logs_are_kept_for_judgement_and_do_not_stop_the_fold() {
        let mut case = Case::new();
        let ahead = case.batch_at(0, 1, 3, &[("a-1", 1, 0, 1)]);
        case.put(0, &ahead);
        case.put_bytes(0, b"nonsense");
        let mut huge = case.batch_at(0, 1, 0, &[("a-1", 2, u64::MAX, 2), ("a-1", 3, 0, 1)]);
        huge.time = HybridTime(u64::MAX);
        case.put(0, &huge);
        let mut back = case.batch_at(0, 1, 1, &[("a-1", 4, 0, 1)]);
        back.time = HybridTime(1);
        case.put(0, &back);

        let fold = fold(&case.evidence.logs);
        assert!(matches!(
            fold.odd.as_slice(),
            [Odd::Ahead { batch: 3, .. }, Odd::NoEntry { .. }, Odd::Time { batch: 1, .. }]
        ));
        assert_eq!(fold.appends.len(), 3);
        assert!(!fold.streams[0].orderly);
    }
}
