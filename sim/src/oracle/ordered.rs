//! **Ordered**: no event ever appears behind a position that was already read; and a strong read shows every append that
//! its node had answered before.
//!
//! The order of all events is by time, then by shard: position `time << 12 | shard`, with the low 12 bits of the shard's
//! number. What is claimed of every read of all shards that was answered Ok:
//! - forwards it shows exactly the accepted events, in every part the same, from the position where it began up to
//!   where it says to go on, which is not beyond its watermark; backwards the same, from below the position where it
//!   began, and below the watermark, down to where it says to go on. So the slices of a follower, put behind one another,
//!   are the order of all that was ever accepted, without what came too late for it;
//! - it shows no more than its limit, and fewer only if nothing is left: then it goes on at its watermark, or at the
//!   very beginning;
//! - nothing that was first asked for after a watermark was answered, by whatever node, is below it;
//! - the watermark of a strong read is above every append that its node had answered, in the same process, before the
//!   read was asked; unless it waited for that as long as it may, half of its time (of which a clock may run off a part).
//!
//! That the watermark passes every answered append at every node once the faults have ended is for [live](super::live).

use std::collections::BTreeMap;

use stormkeep_core::append::{AllSlice, Direction, Freshness, ReadAll};

use super::{
    Promise, Violation, broken,
    fold::{Placed, PlacedEvent},
    judged::{Ack, Judged, Time, Who},
};
use crate::history::{Call, Exchange, Nanos};

/// A strong read may show less than it should if it took this part of its time.
const WAITED: (Nanos, Nanos) = (2, 5);

/// The bits of a position that the shard takes.
const SHARD_BITS: u32 = 12;

/// An event of the order.
struct Ordered<'j> {
    position: u64,
    placed: &'j Placed,
    event: PlacedEvent<'j>,
}

pub(super) fn check(judged: &Judged<'_>) -> Vec<Violation> {
    let order = order(judged);
    let mut found = Vec::new();
    let mut report = |at, expected, seen| found.push(broken(Promise::Ordered, at, expected, seen));
    for call in &judged.evidence.history.calls {
        let Exchange::All(read, Some(Ok(slice))) = &call.what else { continue };
        if let Some((expected, seen)) = other_slice(judged, &order, read, slice) {
            let expected = format!(
                "read of all {:?} from {}, {} at the most, up to {}, watermark {}, by {}: {expected}",
                read.direction,
                read.from,
                read.limit,
                slice.next,
                slice.watermark,
                Who(call)
            );
            report(call.ended.unwrap_or(judged.end), expected, seen);
        }
    }
    too_late(judged, &mut report);
    unseen(judged, &mut report);
    found
}

/// Where an event stands.
fn position(event: &PlacedEvent<'_>) -> u64 {
    let shard = u64::from(event.shard.0) & ((1 << SHARD_BITS) - 1);
    event.time.0 << SHARD_BITS | shard
}

fn order<'j>(judged: &'j Judged<'_>) -> Vec<Ordered<'j>> {
    let events = |placed: &'j Placed| {
        placed.events().map(move |event| Ordered { position: position(&event), placed, event })
    };
    let mut order: Vec<Ordered<'j>> = judged.fold.appends.iter().flat_map(events).collect();
    order.sort_by_key(|ordered| ordered.position);
    order
}

/// What a read should show, and shows instead.
fn other_slice(
    judged: &Judged<'_>,
    order: &[Ordered<'_>],
    read: &ReadAll,
    slice: &AllSlice,
) -> Option<(String, String)> {
    let (from, next, watermark) = (read.from.0, slice.next.0, slice.watermark.0);
    let count = slice.events.len();
    let limit = read.limit as usize;
    if count > limit {
        return Some((format!("no more than {limit} events"), format!("{count} events")));
    }
    let (low, high, end) = match read.direction {
        Direction::Forwards => (from, next.min(watermark), from.max(watermark)),
        Direction::Backwards => (next, from.min(watermark), 0),
    };
    let on_its_way = match read.direction {
        Direction::Forwards => (from..=end).contains(&next),
        Direction::Backwards => next <= from,
    };
    let due = if limit == 0 { from } else { end };
    if !on_its_way || (count < limit || limit == 0) && next != due {
        return Some((format!("to go on at {due}, with {count} events"), format!("at {next}")));
    }
    if limit == 0 {
        return None;
    }
    let begin = order.partition_point(|ordered| ordered.position < low);
    let behind = order.partition_point(|ordered| ordered.position < high).max(begin);
    let mut due: Vec<&Ordered<'_>> = order[begin..behind].iter().collect();
    if read.direction == Direction::Backwards {
        due.reverse();
    }
    for n in 0..due.len().max(count) {
        let (due, shown) = (due.get(n), slice.events.get(n));
        let same = due.zip(shown).is_some_and(|(due, shown)| {
            due.event.is(&judged.fold.streams[due.placed.stream].name, shown)
        });
        if !same {
            let expected = due.map_or("nothing more".to_owned(), |due| {
                format!("at {} an event of {}", due.position, judged.words(due.placed))
            });
            let seen = shown.map_or("nothing more".to_owned(), |shown| {
                format!(
                    "at {} event {:?} of append {:?} of {} at revision {}",
                    shown.position(),
                    shown.event.id,
                    shown.append,
                    shown.stream,
                    shown.revision
                )
            });
            return Some((expected, seen));
        }
    }
    None
}

/// Appends that were asked for when a watermark above them had been answered.
fn too_late(judged: &Judged<'_>, report: &mut impl FnMut(Nanos, String, String)) {
    let mut answered: Vec<(Nanos, u64, &Call)> = Vec::new();
    for call in &judged.evidence.history.calls {
        if let (Exchange::All(_, Some(Ok(slice))), Some(ended)) = (&call.what, call.ended) {
            answered.push((ended, slice.watermark.0, call));
        }
    }
    answered.sort_by_key(|(ended, ..)| *ended);
    let mut highest: Option<(u64, &Call)> = None;
    let mut answered = answered.into_iter().peekable();
    let mut asked: Vec<(Nanos, usize)> = (judged.known.iter().enumerate())
        .filter_map(|(place, known)| known.asked.map(|at| (at, place)))
        .collect();
    asked.sort_unstable();
    for (at, place) in asked {
        while let Some((_, watermark, call)) = answered.next_if(|(ended, ..)| *ended < at) {
            if highest.is_none_or(|(highest, _)| watermark > highest) {
                highest = Some((watermark, call));
            }
        }
        let placed = &judged.fold.appends[place];
        let first = placed.events().map(|event| position(&event)).min();
        if let (Some((watermark, call)), Some(first)) = (highest, first)
            && first < watermark
        {
            let expected = format!(
                "nothing new below the watermark {watermark} that was answered to {}",
                Who(call)
            );
            let words = judged.words(placed);
            let seen = format!("at {first}: {words}, first asked for at {}", Time(at));
            report(judged.seen_at(place), expected, seen);
        }
    }
}

/// The highest position answered up to a moment, and the append that has it.
type Highest<'a> = (Nanos, u64, &'a Ack<'a>);

/// Strong reads that do not reach what their node had answered.
fn unseen(judged: &Judged<'_>, report: &mut impl FnMut(Nanos, String, String)) {
    let mut processes: BTreeMap<u32, Vec<Nanos>> = BTreeMap::new();
    for (node, began) in &judged.evidence.history.processes {
        processes.entry(*node).or_default().push(*began);
    }
    // Which process of its node a call came to: one that began while it was under way may have answered it.
    let process = |node: u32, at: Nanos| {
        processes.get(&node).map_or(0, |began| began.partition_point(|began| *began <= at))
    };
    let mut acks: BTreeMap<(u32, usize), Vec<&Ack<'_>>> = BTreeMap::new();
    for ack in &judged.acks {
        let of = process(ack.call.node, ack.call.invoked);
        if of == process(ack.call.node, ack.at()) {
            acks.entry((ack.call.node, of)).or_default().push(ack);
        }
    }
    // The highest position answered up to each answer.
    let mut highest: BTreeMap<(u32, usize), Vec<Highest<'_>>> = BTreeMap::new();
    for (of, mut acks) in acks {
        acks.sort_by_key(|ack| ack.at());
        let mut so_far: Vec<Highest<'_>> = Vec::with_capacity(acks.len());
        for ack in acks {
            let position = ack.appended.position().0;
            let (before, by) = so_far.last().map_or((0, ack), |(_, before, by)| (*before, *by));
            let (position, by) = if position > before { (position, ack) } else { (before, by) };
            so_far.push((ack.at(), position, by));
        }
        highest.insert(of, so_far);
    }
    for call in &judged.evidence.history.calls {
        let Exchange::All(read, Some(Ok(slice))) = &call.what else { continue };
        let Some(ended) = call.ended else { continue };
        let waited = (ended - call.invoked) * WAITED.1 >= call.timeout * WAITED.0;
        let of = process(call.node, call.invoked);
        let strong = read.freshness == Freshness::Strong && read.limit > 0;
        if waited || !strong || of != process(call.node, ended) {
            continue;
        }
        let Some(acks) = highest.get(&(call.node, of)) else { continue };
        let before = acks.partition_point(|(at, ..)| *at < call.invoked);
        let Some((_, position, ack)) = before.checked_sub(1).map(|n| acks[n]) else { continue };
        if position >= slice.watermark.0 {
            let expected = format!(
                "a strong read by {} goes beyond {position}, append {:?} of {}, which its node answered at {}",
                Who(call),
                ack.append.id,
                ack.append.stream,
                Time(ack.at())
            );
            report(ended, expected, format!("watermark {}", slice.watermark));
        }
    }
}

#[cfg(test)]
mod tests;
