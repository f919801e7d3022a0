//! **Linearizable**: appends and strong reads of a stream have one order that respects real time and
//! expected revisions; an unknown outcome happened once or never.
//!
//! A stream and its metadata have one history (`joint.rs`). The log gives the order of their appends, so there is
//! little to search. State `k`, with the first `k` appends, is level `2k`, and the append that leads from state
//! `k` to the next is level `2k + 1`. An operation that names a state may stand at any of the levels where that state
//! is as it says. An order exists if and only if each operation, in the order they were asked in, finds a level that is not below
//! those of all operations that had ended before it was asked; to take the lowest such level never hurts a later one.
//!
//! The operations, and what each claims:
//! - an accepted append: between the first question for it and the first answer that says Ok, if any. A
//!   repeated Ok says so as well. One that was never acknowledged may happen at any later time. An id
//!   that stands twice (see [durable](super::durable)) is two appends, each with the answers that name
//!   its revision;
//! - a strong read: a state with the head that it names, and in which the stream shows what it says. A head within an
//!   append is torn: a violation;
//! - a wrong expected revision: a state with the head that it names, which must not meet what was asked, and whose
//!   head must not remember the append: that would have been answered as a repeat;
//! - a stream that is ended for ever: a state with a tombstone, and without a memory of the append;
//! - an eventual read: the stream was at the state that it shows, or a later one, before it was answered.
//!   What it shows was accepted, so no later answer may be without it.
//!
//! Every accepted append must have met what it expected of its stream, and of the one that it describes; and none
//! stands behind a tombstone.
//!
//! A stream whose revisions are not 0, 1, 2, … has no states to speak of: that is for
//! [gapless](super::gapless).

use std::{cmp::Reverse, collections::BinaryHeap, ops::Range};

use stormkeep_core::{
    append::{Append, AppendError, Expected, Freshness, StreamSlice},
    limits::REMEMBERED_APPENDS,
    stream::StreamName,
};

use super::{
    Promise, Violation, broken,
    joint::{Joint, State, described, is_metadata},
    judged::{At, Judged, Time, Who},
};
use crate::history::{Call, Exchange, Nanos};

/// One operation on a stream or its metadata.
#[derive(Debug, Clone, Copy)]
struct Op<'e> {
    joint: usize,
    invoked: Nanos,
    ended: Nanos,
    what: What<'e>,
}

#[derive(Debug, Clone, Copy)]
enum What<'e> {
    /// An index of the fold's appends.
    Append(usize),
    /// An answer that names a state.
    Answer(&'e Call, Says<'e>),
}

/// What an answer says of the state that it was given in.
#[derive(Debug, Clone, Copy)]
enum Says<'e> {
    Shows(&'e StreamName, &'e StreamSlice),
    /// What was expected, of which stream (the described one?), and where that is.
    Refused(&'e Append, Expected, bool, Option<u64>),
    Ended(&'e Append),
}

impl<'e> Says<'e> {
    fn of(call: &'e Call) -> Option<Self> {
        use AppendError::{Tombstoned, WrongExpectedRevision};
        match &call.what {
            Exchange::Append(
                append,
                Some(Err(WrongExpectedRevision { expected, actual, described })),
            ) => Some(Says::Refused(append, *expected, *described, *actual)),
            Exchange::Append(append, Some(Err(Tombstoned))) => Some(Says::Ended(append)),
            Exchange::Read(read, Some(Ok(slice))) => Some(Says::Shows(&read.stream, slice)),
            _ => None,
        }
    }

    /// The stream that it speaks of.
    fn stream(&self) -> &'e StreamName {
        match self {
            Says::Shows(stream, _) => stream,
            Says::Refused(append, ..) | Says::Ended(append) => &append.stream,
        }
    }

    /// Whether the revision that it names is that of a metadata stream.
    fn of_metadata(&self) -> bool {
        is_metadata(self.stream()) && !matches!(self, Says::Refused(_, _, true, _))
    }

    /// The states that it can speak of, as far as the revision goes that it names.
    fn run(&self, joint: &Joint) -> Range<usize> {
        match self {
            Says::Shows(_, slice) => joint.at(self.of_metadata(), slice.head),
            Says::Refused(.., actual) => joint.at(self.of_metadata(), *actual),
            Says::Ended(_) => joint.states.partition_point(|s| !s.ended)..joint.states.len(),
        }
    }

    /// Whether a state is as it says, but for what a head remembers.
    fn fits(&self, state: &State) -> bool {
        let own = is_metadata(self.stream());
        match self {
            Says::Shows(_, slice) => {
                slice.head == state.head(own)
                    && slice.exists == state.exists(own)
                    && slice.tombstoned == (state.ended && !own)
                    && slice.first_shown == state.first(own)
            }
            Says::Ended(_) => state.ended,
            Says::Refused(append, expected, of_described, actual) => {
                let named = self.of_metadata();
                let before = *of_described || !own || state.meets(false, append.described);
                !state.ended
                    && state.head(named) == *actual
                    && !state.meets(named, *expected)
                    && before
            }
        }
    }

    /// The append that was refused.
    fn refused(&self) -> Option<&'e Append> {
        match self {
            Says::Shows(..) => None,
            Says::Refused(append, ..) | Says::Ended(append) => Some(append),
        }
    }
}

pub(super) fn check(judged: &Judged<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut ops = Vec::with_capacity(judged.evidence.history.calls.len());
    appends(judged, &mut ops, &mut found);
    answers(judged, &mut ops, &mut found);
    ops.sort_by_key(|op| (op.joint, op.invoked));
    for ops in ops.chunk_by(|a, b| a.joint == b.joint) {
        found.extend(out_of_order(judged, ops));
    }
    found
}

/// The accepted appends, and whether each met its expectation.
fn appends<'e>(judged: &Judged<'e>, ops: &mut Vec<Op<'e>>, found: &mut Vec<Violation>) {
    for (place, placed) in judged.fold.appends.iter().enumerate() {
        if !judged.fold.joints[placed.joint].orderly {
            continue;
        }
        let name = &judged.fold.streams[placed.stream].name;
        let before = judged.fold.before(placed);
        let mut unmet = None;
        for asked in judged.asked(placed.id).filter(|asked| asked.append.stream == *name) {
            let Append { expected, described, .. } = asked.append;
            let own = before.meets(placed.metadata, *expected);
            let other = !placed.metadata || before.meets(false, *described);
            unmet = (!own || !other || before.ended).then_some((expected, described));
            if unmet.is_none() {
                break;
            }
        }
        if let Some((expected, of_described)) = unmet {
            let expected = format!(
                "append {:?} of {name} only if the stream is as it expects: {expected:?}, and {} {of_described:?}",
                placed.id,
                described(name)
            );
            let seen = format!("{}, behind {}", judged.words(placed), Both(before));
            found.push(broken(Promise::Linearizable, judged.seen_at(place), expected, seen));
        }
        let known = judged.known[place];
        ops.push(Op {
            joint: placed.joint,
            invoked: known.asked.unwrap_or(0),
            ended: known.told.unwrap_or(Nanos::MAX),
            what: What::Append(place),
        });
    }
}

/// The answers that name a state.
fn answers<'e>(judged: &Judged<'e>, ops: &mut Vec<Op<'e>>, found: &mut Vec<Violation>) {
    let nothing = Joint::new();
    for call in &judged.evidence.history.calls {
        let Some(says) = Says::of(call) else { continue };
        let ended = call.ended.unwrap_or(Nanos::MAX);
        let eventual = match &call.what {
            Exchange::Read(read, _) => read.freshness == Freshness::Eventual,
            _ => false,
        };
        let mut report = |expected: String, seen: String| {
            let (at, seen) = (ended.min(judged.end), format!("{seen}, told to {}", Who(call)));
            found.push(broken(Promise::Linearizable, at, expected, seen));
        };
        if let Says::Refused(append, expected, of_described, _) = says {
            let due = if of_described { append.described } else { append.expected };
            if expected != due {
                let due =
                    format!("append {:?} of {} refused for {due:?}", append.id, append.stream);
                report(due, format!("refused for {expected:?}"));
                continue;
            }
        }
        let joint = judged.fold.joint(says.stream());
        let history = joint.map_or(&nothing, |joint| &judged.fold.joints[joint]);
        if !history.orderly {
            continue;
        }
        if level(judged, history, says, 0).is_none() {
            let newest = Both(history.states.last().unwrap_or(&State::default())).to_string();
            let expected =
                format!("{}: a state that the log has been in; it is at {newest}", says.stream());
            report(expected, words_of(says, if eventual { "eventual" } else { "strong" }));
            continue;
        }
        if let Some(joint) = joint {
            let invoked = if eventual { 0 } else { call.invoked };
            ops.push(Op { joint, invoked, ended, what: What::Answer(call, says) });
        }
    }
}

/// The lowest level from `bound` on where an answer may stand.
fn level(judged: &Judged<'_>, joint: &Joint, says: Says<'_>, bound: usize) -> Option<usize> {
    let run = says.run(joint);
    let mut states = run.start.max(bound.div_ceil(2))..run.end;
    let fits = |state: &usize| says.fits(&joint.states[*state]);
    let unknown = |state: &usize| {
        says.refused().is_none_or(|append| !remembers(judged, joint, *state, append))
    };
    states.find(|state| fits(state) && unknown(state)).map(|state| 2 * state)
}

/// Whether the head of a stream remembers an append in a state.
fn remembers(judged: &Judged<'_>, joint: &Joint, state: usize, append: &Append) -> bool {
    let last = &joint.appends[state.saturating_sub(REMEMBERED_APPENDS)..state];
    last.iter()
        .map(|place| &judged.fold.appends[*place])
        .any(|placed| placed.id == append.id && placed.metadata == is_metadata(&append.stream))
}

/// The first operation on a stream that finds no level. `ops` are in the order they were asked in.
fn out_of_order(judged: &Judged<'_>, ops: &[Op<'_>]) -> Option<Violation> {
    let joint = &judged.fold.joints[ops.first()?.joint];
    let mut running: BinaryHeap<Reverse<(Nanos, usize, usize)>> = BinaryHeap::new();
    let mut bound: Option<(usize, &Op<'_>)> = None;
    for (n, op) in ops.iter().enumerate() {
        while let Some(Reverse((ended, level, before))) = running.peek().copied()
            && ended < op.invoked
        {
            running.pop();
            if bound.is_none_or(|(highest, _)| level > highest) {
                bound = Some((level, &ops[before]));
            }
        }
        let lowest = bound.map_or(0, |(level, _)| level);
        let found = match op.what {
            What::Append(place) => {
                let own = 2 * judged.fold.appends[place].nth + 1;
                (own >= lowest).then_some(own)
            }
            What::Answer(_, says) => level(judged, joint, says, lowest),
        };
        match (found, bound) {
            (Some(level), _) => running.push(Reverse((op.ended, level, n))),
            (None, Some((_, higher))) => {
                let expected = format!(
                    "what was asked at {} comes after what was answered at {}: {}",
                    Time(op.invoked),
                    Time(higher.ended),
                    words(judged, higher)
                );
                let seen = format!("it comes before that: {}", words(judged, op));
                let at = op.ended.max(higher.ended).min(judged.end);
                return Some(broken(Promise::Linearizable, at, expected, seen));
            }
            // It has a level if nothing was before it: see `answers`.
            (None, None) => {}
        }
    }
    None
}

fn words(judged: &Judged<'_>, op: &Op<'_>) -> String {
    match op.what {
        What::Append(place) => judged.words(&judged.fold.appends[place]),
        What::Answer(call, says) => {
            let freshness = match &call.what {
                Exchange::Read(read, _) if read.freshness == Freshness::Eventual => "eventual",
                _ => "strong",
            };
            format!("{} ({})", words_of(says, freshness), Who(call))
        }
    }
}

fn words_of(says: Says<'_>, freshness: &str) -> String {
    match says {
        Says::Shows(stream, slice) => format!(
            "a {freshness} read of {stream} that saw {}, exists {}, tombstoned {}, shown from {}",
            At(slice.head),
            slice.exists,
            slice.tombstoned,
            slice.first_shown
        ),
        Says::Refused(append, expected, of_described, actual) => {
            let named =
                if of_described { described(&append.stream) } else { append.stream.as_str() };
            format!(
                "the refusal of append {:?}, which expects {expected:?} of {named}, that saw {}",
                append.id,
                At(actual)
            )
        }
        Says::Ended(append) => {
            let stream = &append.stream;
            format!("the refusal of append {:?} of {stream}, that saw a tombstone", append.id)
        }
    }
}

/// A state, in words.
struct Both<'s>(&'s State);

impl std::fmt::Display for Both<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let State { truncated, ended, .. } = self.0;
        write!(f, "{}, metadata at {}", At(self.0.head(false)), At(self.0.head(true)))?;
        write!(f, ", shown from {} (truncated before {truncated})", self.0.first(false))?;
        f.write_str(if *ended { ", with a tombstone" } else { "" })
    }
}

#[cfg(test)]
mod tests;
