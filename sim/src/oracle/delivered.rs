//! **Delivered**: every group sees every event at least once, in stream order, with no gap before its position.
//!
//! What a group wants is found here once more, from its source and its start. An event is *settled* when somebody handled it for the
//! group, or decided to skip it, or when a link to it is in the group's parked stream. What is claimed of every group:
//! - once the world is at rest, every accepted event that it wants is settled;
//! - nobody wrote down a progress beyond an event that was not settled by then;
//! - the first time that an event is handled is not before that of an earlier event of its stream; events that were parked
//!   are apart, since a replay gives them again when their stream has gone on;
//! - what is parked is an event that the group wants, and says why.
//!
//! That all of it is delivered soon after the faults have ended is for [live](super::live).

use std::collections::BTreeMap;

use stormkeep_core::{
    env::Progress,
    group::{Group, Source},
    shard::ShardId,
    stream::StreamName,
    time::HybridTime,
};

use super::{
    Promise, Violation, broken,
    fold::PlacedEvent,
    judged::{Judged, Time},
};
use crate::history::Nanos;

/// The bits of a position that the shard takes.
const SHARD_BITS: u32 = 12;
/// What the names of parked streams begin with.
const PARKED: &str = "$persistentsubscription-";

/// An event that a group wants, and how it fared.
struct Wanted<'j> {
    stream: &'j StreamName,
    event: PlacedEvent<'j>,
    /// When it was first handled, and as the how manieth handling of all.
    handled: Option<(Nanos, usize)>,
    parked: bool,
}

impl Wanted<'_> {
    fn words(&self) -> String {
        let PlacedEvent { revision, shard, time, event, .. } = self.event;
        format!("event {:?} of {} revision {revision}, {shard} time {time}", event.id, self.stream)
    }
}

pub(super) fn check(judged: &Judged<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for group in &judged.evidence.groups {
        let mut report = |at, expected: String, seen: String| {
            let expected = format!("group {}: {expected}", group.id);
            found.push(broken(Promise::Delivered, at, expected, seen));
        };
        let mut wanted = wanted(judged, group);
        settle(judged, group, &mut wanted, &mut report);
        if judged.evidence.rest.rested_at.is_some() {
            for missing in wanted.iter().filter(|w| w.handled.is_none() && !w.parked) {
                report(
                    judged.end,
                    format!("{} is handled or parked", missing.words()),
                    "neither".into(),
                );
            }
        }
        out_of_order(&wanted, &mut report);
        too_far(judged, group, &wanted, &mut report);
    }
    found
}

/// Whether a stream is where a group parks events, or the metadata of that: nobody but workers appends to it.
pub(super) fn is_of_a_group(judged: &Judged<'_>, stream: &StreamName) -> bool {
    let name = stream.as_str().strip_prefix("$$").unwrap_or(stream.as_str());
    judged.evidence.groups.iter().any(|group| parked_stream(group) == name)
}

fn parked_stream(group: &Group) -> String {
    format!("{PARKED}{}-parked", group.id)
}

/// The accepted events that a group wants, by stream, in their order.
fn wanted<'j>(judged: &'j Judged<'_>, group: &Group) -> Vec<Wanted<'j>> {
    let mut wanted = Vec::new();
    for (number, stream) in judged.fold.streams.iter().enumerate() {
        let name = stream.name.as_str();
        let parked = name.trim_start_matches("$$").starts_with(PARKED);
        for event in judged.fold.events(number, 0) {
            let of_source = match &group.id.source {
                Source::Stream(stream) => stream.as_str() == name,
                Source::Category(category) => name.split('-').next() == Some(category),
                Source::EventType(kind) => event.event.kind == *kind && !parked,
                Source::All => !parked,
            };
            let low = u64::from(event.shard.0) & ((1 << SHARD_BITS) - 1);
            let position = event.time.0 << SHARD_BITS | low;
            if of_source && position >= group.start.0 {
                wanted.push(Wanted { stream: &stream.name, event, handled: None, parked: false });
            }
        }
    }
    wanted
}

/// Finds out how each event fared.
fn settle(
    judged: &Judged<'_>,
    group: &Group,
    wanted: &mut [Wanted<'_>],
    report: &mut impl FnMut(Nanos, String, String),
) {
    let mut places: BTreeMap<(String, u64), usize> = BTreeMap::new();
    for (n, w) in wanted.iter().enumerate() {
        places.insert((w.stream.as_str().to_owned(), w.event.revision), n);
    }
    for (nth, handling) in judged.evidence.history.handled.iter().enumerate() {
        if handling.group != group.id {
            continue;
        }
        let key = (handling.stream.as_str().to_owned(), handling.revision);
        match places.get(&key) {
            Some(n) => drop(wanted[*n].handled.get_or_insert((handling.at, nth))),
            None => report(
                handling.at,
                "it is given what it wants alone".into(),
                format!("revision {} of {} was handled", handling.revision, handling.stream),
            ),
        }
    }
    let parked = parked_stream(group);
    let Some((number, _)) =
        judged.fold.streams.iter().enumerate().find(|(_, s)| s.name.as_str() == parked)
    else {
        return;
    };
    for link in judged.fold.events(number, 0) {
        let data = String::from_utf8_lossy(&link.event.data).into_owned();
        let target = data.split_once('@').and_then(|(revision, stream)| {
            places.get(&(stream.to_owned(), revision.parse().ok()?))
        });
        match target {
            Some(n) => wanted[*n].parked = true,
            None => {
                report(judged.end, "what is parked is an event that it wants".into(), data.clone())
            }
        }
        let metadata: serde_json::Value =
            serde_json::from_slice(&link.event.metadata).unwrap_or_default();
        if metadata["reason"].as_str().is_none_or(str::is_empty) {
            report(judged.end, format!("{data} is parked with a reason"), "none".into());
        }
    }
}

/// The first handling of each event follows that of the one before it in its stream.
fn out_of_order(wanted: &[Wanted<'_>], report: &mut impl FnMut(Nanos, String, String)) {
    let mut before: Option<&Wanted<'_>> = None;
    for w in wanted.iter().filter(|w| !w.parked) {
        let Some((at, nth)) = w.handled else { continue };
        if let Some(earlier) = before.filter(|earlier| earlier.stream == w.stream)
            && let Some((_, earlier_nth)) = earlier.handled
            && nth < earlier_nth
        {
            report(
                at,
                format!("{} is handled first behind {}", w.words(), earlier.words()),
                format!("at {}, before it", Time(at)),
            );
            continue;
        }
        before = Some(w);
    }
}

/// Nothing that was written down is beyond an event that was not settled by then.
fn too_far(
    judged: &Judged<'_>,
    group: &Group,
    wanted: &[Wanted<'_>],
    report: &mut impl FnMut(Nanos, String, String),
) {
    let mut shards: BTreeMap<ShardId, Vec<&Wanted<'_>>> = BTreeMap::new();
    for w in wanted {
        shards.entry(w.event.shard).or_default().push(w);
    }
    // Of each shard: by time, the event that was settled last of all up to it.
    let mut latest: BTreeMap<ShardId, Vec<(HybridTime, Nanos, &Wanted<'_>)>> = BTreeMap::new();
    for (shard, mut events) in shards {
        events.sort_by_key(|w| w.event.time);
        let line = latest.entry(shard).or_default();
        for w in events {
            let settled = match w.handled {
                _ if w.parked => 0,
                Some((at, _)) => at,
                None => Nanos::MAX,
            };
            let own = (w.event.time, settled, w);
            let next = match line.last() {
                Some((_, before, worst)) if *before >= settled => (own.0, *before, *worst),
                _ => own,
            };
            line.push(next);
        }
    }
    for written in judged.evidence.history.progress.iter().filter(|w| w.group == group.number) {
        let Progress { next, ended } = written.progress;
        let Some(line) = latest.get(&written.shard) else { continue };
        let count =
            if ended { line.len() } else { line.partition_point(|(time, ..)| *time < next) };
        let Some((_, settled, worst)) = count.checked_sub(1).map(|n| &line[n]) else { continue };
        if *settled > written.at {
            report(
                written.at,
                format!("{} is settled before a progress beyond it is written", worst.words()),
                format!("{:?} was written at {}", written.progress, Time(written.at)),
            );
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use stormkeep_core::{
        event::{Event, EventId, Format},
        group::{GroupId, GroupNumber, Settings, Start, Target},
        time::GlobalPosition,
    };

    use super::super::testing::Case;
    use super::*;
    use crate::history::{Handling, Written};

    /// A group of all events, and two streams of two events.
    fn case() -> Case {
        let mut case = Case::new();
        case.accept("a-1", 1, 2);
        case.accept("b-1", 2, 1);
        case.accept("b-1", 3, 1);
        let id = GroupId { source: Source::All, name: "g".into() };
        case.evidence.groups.push(Group {
            id,
            number: GroupNumber(1),
            began: Start::Beginning,
            start: GlobalPosition::START,
            first_revision: 0,
            filter: None,
            target: Target::Consumers,
            settings: Settings::default(),
            replay_below: 0,
        });
        case
    }

    fn handle(case: &mut Case, at: Nanos, stream: &str, revision: u64) {
        let group = case.evidence.groups[0].id.clone();
        let Ok(stream) = StreamName::new(stream) else { return };
        case.evidence.history.handled.push(Handling { at, group, stream, revision });
    }

    fn all_handled(case: &mut Case) {
        for (at, stream, revision) in
            [(10, "a-1", 0), (20, "b-1", 0), (30, "a-1", 1), (40, "b-1", 1)]
        {
            handle(case, at, stream, revision);
        }
    }

    fn write(case: &mut Case, at: Nanos, next: u64, ended: bool) {
        let progress = Progress { next: HybridTime(next), ended };
        let (shard, group) = (ShardId(0), GroupNumber(1));
        case.evidence.history.progress.push(Written { at, shard, group, progress });
    }

    fn park(case: &mut Case, data: &str, metadata: &str) {
        let event = Event {
            id: EventId(99),
            kind: "$>".into(),
            format: Format::Bytes,
            data: data.to_owned().into(),
            metadata: metadata.to_owned().into(),
        };
        case.accept_of("$persistentsubscription-$all::g-parked", 99, &[event].into());
    }

    #[test]
    fn what_is_handled_in_order_even_twice_is_fine() {
        let mut case = case();
        all_handled(&mut case);
        handle(&mut case, 50, "a-1", 0);
        write(&mut case, 40, u64::MAX, true);
        assert_eq!(case.seen(check), "");
    }

    #[test]
    fn an_event_that_nobody_handled_is_found_once_the_world_is_at_rest() {
        let mut case = case();
        handle(&mut case, 10, "a-1", 0);
        handle(&mut case, 20, "b-1", 0);
        handle(&mut case, 20, "b-1", 1);
        assert_eq!(case.judge(check).len(), 1);
        assert!(case.seen(check).contains("neither"));
        case.evidence.rest.rested_at = None;
        assert_eq!(case.seen(check), "");
    }

    #[test]
    fn what_is_before_the_start_or_of_another_source_is_not_wanted() {
        let mut case = case();
        all_handled(&mut case);
        case.evidence.groups[0].start = GlobalPosition::END;
        assert!(case.seen(check).contains("was handled"));
        case.evidence.history.handled.clear();
        assert_eq!(case.seen(check), "");
    }

    #[test]
    fn an_event_before_an_earlier_one_of_its_stream_is_found_unless_that_was_parked() {
        let mut case = case();
        for (at, stream, revision) in
            [(10, "b-1", 0), (20, "a-1", 1), (30, "a-1", 0), (40, "b-1", 1)]
        {
            handle(&mut case, at, stream, revision);
        }
        assert!(case.seen(check).contains("before it"));
        park(&mut case, "0@a-1", "{\"reason\":\"it failed\"}");
        assert_eq!(case.seen(check), "");
    }

    #[test]
    fn progress_beyond_what_is_settled_is_found() {
        let mut case = case();
        all_handled(&mut case);
        write(&mut case, 39, u64::MAX, false);
        assert!(case.seen(check).contains("was written"));
        case.evidence.history.progress.clear();
        write(&mut case, 39, 0, true);
        assert!(case.seen(check).contains("was written"));
    }

    #[test]
    fn a_parking_without_a_reason_or_of_something_else_is_found() {
        let mut case = case();
        all_handled(&mut case);
        park(&mut case, "0@a-1", "{}");
        assert!(case.seen(check).contains("none"));
        park(&mut case, "7@a-1", "{\"reason\":\"it failed\"}");
        assert!(case.seen(check).contains("7@a-1"));
    }
}
