//! What the oracles of a live run see: the history of the clients, and a log that is made of what all shards held at the end.
//!
//! The oracles fold logs. A real log is behind an API that does not show it, so one is written down here that folds to
//! what a last reader of all shards saw: a fence, and a batch for each append, in the order of times. Which events are one
//! append, clients know. A reader that left something out, or showed something twice, makes a log in which the oracles
//! find just that.

use std::collections::BTreeMap;

use stormkeep_core::{
    entry::{Batch, BatchedAppend, Entry, Fence},
    env::{LogRecord, Position},
    event::RecordedEvent,
    shard::{ShardId, ShardInfo},
};

use crate::oracle::Evidence;
use crate::oracle::{Promise, Violation, check};

/// Promises that a live run cannot judge: its evidence has neither stores nor groups.
const BLIND: [Promise; 2] = [Promise::Faithful, Promise::Delivered];

/// The epoch that every answer is taken for.
const EPOCH: u64 = 1;

/// Asks the oracles that can see something.
pub(super) fn judge(evidence: &Evidence) -> Vec<Violation> {
    let mut found = check(evidence);
    found.retain(|violation| !BLIND.contains(&violation.promise));
    found
}

/// The log that folds to these events.
pub(super) fn logs(
    shards: &[ShardInfo],
    events: Vec<RecordedEvent>,
) -> BTreeMap<ShardId, Vec<LogRecord>> {
    let mut by_shard: BTreeMap<ShardId, Vec<RecordedEvent>> =
        shards.iter().map(|shard| (shard.id, Vec::new())).collect();
    for event in events {
        by_shard.entry(event.shard).or_default().push(event);
    }
    by_shard.into_iter().map(|(shard, events)| (shard, log(shard, events))).collect()
}

fn log(shard: ShardId, mut events: Vec<RecordedEvent>) -> Vec<LogRecord> {
    // Stable: of two at one time both stay, and the oracles see them.
    events.sort_by_key(|event| event.time);
    let mut entries = vec![Entry::Fence(Fence { shard, epoch: EPOCH })];
    let appends = events.chunk_by(|a, b| {
        (a.append, &a.stream) == (b.append, &b.stream)
            && (a.revision + 1, a.time.plus(1)) == (b.revision, b.time)
    });
    for (index, events) in (0..).zip(appends) {
        let [first, ..] = events else { continue };
        let append = BatchedAppend {
            stream: first.stream.clone(),
            id: first.append,
            first: first.revision,
            events: events.iter().map(|event| event.event.clone()).collect(),
        };
        let (time, appends) = (first.time, vec![append]);
        entries.push(Entry::Batch(Batch { shard, epoch: EPOCH, index, time, appends }));
    }
    let record =
        |(n, entry): (u128, Entry)| LogRecord { position: Position::new(n), data: entry.encode() };
    (1..).zip(entries).map(record).collect()
}

#[cfg(test)]
mod tests {
    use stormkeep_core::{
        append::{Append, AppendId, Appended, Expected},
        event::{Event, EventId, Format},
        shard::HashRange,
        stream::StreamName,
        time::HybridTime,
    };

    use super::*;
    use crate::{
        history::{Call, Exchange},
        oracle::Rest,
    };

    fn event(id: u128) -> Event {
        let (data, metadata) = (Default::default(), Default::default());
        Event { id: EventId(id), kind: "moved".into(), format: Format::Bytes, data, metadata }
    }

    /// A client that was told of an append of two events, and what the last reader saw.
    fn evidence(seen: impl Fn(&mut Vec<RecordedEvent>)) -> Evidence {
        let stream = StreamName::new("player-1").expect("a name");
        let (shard, events) = (ShardId(0), [event(1), event(2)]);
        let (append, time) = (AppendId(9), HybridTime(50));
        let mut recorded: Vec<RecordedEvent> = (0..)
            .zip(events.clone())
            .map(|(revision, event)| {
                let (stream, time) = (stream.clone(), time.plus(revision));
                RecordedEvent { stream, revision, shard, time, append, event }
            })
            .collect();
        seen(&mut recorded);
        let (expected, described) = (Expected::Any, Expected::Any);
        let asked = Append { stream, expected, described, id: append, events: events.into() };
        let (answered_by, epoch, repeated) = (shard, EPOCH, false);
        let told = Appended { shard, answered_by, epoch, first: 0, last: 1, time, repeated };
        let mut evidence = Evidence {
            rest: Rest { rested_at: Some(100), limit: 10, healed_at: 95, unwell: Vec::new() },
            delivered_once: true,
            ..Evidence::default()
        };
        let range = HashRange { start: 0, end: u128::MAX };
        evidence.shards = vec![ShardInfo { id: shard, range, parents: vec![], closed: false }];
        evidence.logs = logs(&evidence.shards, recorded);
        evidence.history.calls.push(Call {
            client: 0,
            node: 0,
            invoked: 10,
            timeout: 100,
            ended: Some(20),
            what: Exchange::Append(asked, Some(Ok(told))),
        });
        evidence
    }

    #[test]
    fn what_was_seen_whole_is_fine() {
        assert_eq!(judge(&evidence(|_| {})), []);
    }

    #[test]
    fn what_the_last_reader_missed_or_saw_twice_or_elsewhere_is_found() {
        let first = |seen: fn(&mut Vec<RecordedEvent>)| {
            judge(&evidence(seen)).first().map(|violation| violation.promise)
        };
        assert_eq!(first(Vec::clear), Some(Promise::Durable));
        assert_eq!(first(|seen| drop(seen.pop())), Some(Promise::Durable));
        assert_eq!(first(|seen| seen.push(seen[0].clone())), Some(Promise::Durable));
        assert_eq!(first(|seen| seen[1].event = event(3)), Some(Promise::Durable));
        let late = |seen: &mut Vec<RecordedEvent>| seen.iter_mut().for_each(|e| e.time.0 += 1);
        assert_eq!(first(late), Some(Promise::Fenced));
    }
}
