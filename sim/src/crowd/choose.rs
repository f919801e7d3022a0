//! What a client asks next.

use bytes::Bytes;
use stormkeep_core::{
    append::{Append, AppendId, Direction, Expected, Freshness, ReadAll, ReadLog, ReadStream},
    event::{Event, EventId, Format},
    head::{METADATA, TOMBSTONE},
    stream::StreamName,
    time::GlobalPosition,
};

use super::{Client, Role};
use crate::{history::Exchange, plan::Plan, rng::Stream};

/// What the clients know of the world.
pub(super) struct Known<'w> {
    pub(super) plan: &'w Plan,
    pub(super) shared: &'w [StreamName],
    /// The last revision of each shared stream that any client saw.
    pub(super) seen: &'w [Option<u64>],
    /// The highest watermark that any client saw.
    pub(super) watermark: GlobalPosition,
}

/// Whether it happens that happens so often of a thousand times. What never happens draws nothing: a plan that
/// was made before there was such a thing is played as it was.
pub(super) fn per_mille(stream: &mut Stream, count: u32) -> bool {
    count > 0 && stream.chance(f64::from(count) / 1000.0)
}

/// What a client asks next.
pub(super) fn decide(known: &Known<'_>, client: &mut Client, number: u32) -> Exchange {
    let Known { plan, shared, seen, .. } = *known;
    let workload = &plan.workload;
    let stream = &mut client.stream;
    match &client.role {
        Role::Group(group, part) => {
            let question = super::consume::decide(plan, *group, part, stream);
            // The plan has the group of every client that has to do with one.
            return question
                .unwrap_or_else(|| append(plan, stream, shared[0].clone(), Expected::Any));
        }
        Role::Follow(shard, after) => {
            return Exchange::Follow(ReadLog { shard: *shard, after: after.clone() }, None);
        }
        Role::FollowAll(at) => {
            let limit = 1 + stream.below(40) as u32;
            return read_all(*at, limit, Direction::Forwards, Freshness::Eventual);
        }
        Role::Overlook { at, .. } => {
            return read_all(*at, 10, Direction::Forwards, Freshness::Eventual);
        }
        Role::Probe(name, _) => return append(plan, stream, name.clone(), Expected::Any),
        Role::Inspect(names, from) => {
            // The list is never empty while this client works.
            let name = names.last().cloned().unwrap_or_else(|| shared[0].clone());
            return read(name, *from, 50, Direction::Forwards, Freshness::Strong);
        }
        Role::Login => {
            client.made += 1;
            if let Ok(name) = StreamName::new(format!("login-{number}-{}", client.made / 3)) {
                let expected =
                    if client.made.is_multiple_of(3) { Expected::NoStream } else { Expected::Any };
                return append(plan, stream, name, expected);
            }
        }
        Role::Flash(streams) => {
            let nth = stream.below(u64::from(*streams));
            if let Ok(name) = StreamName::new(format!("boss-{nth}")) {
                return append(plan, stream, name, Expected::Any);
            }
        }
        Role::Steady | Role::Merciless => {}
    }
    let hot = stream.chance(f64::from(workload.hot_per_mille) / 1000.0);
    let among = if hot { shared.len().div_ceil(10) } else { shared.len() };
    let nth = stream.below(among as u64) as usize;
    let (name, last) = (shared[nth].clone(), seen[nth]);
    if stream.chance(f64::from(workload.read_per_mille) / 1000.0) {
        let eventual = stream.chance(f64::from(workload.eventual_per_mille) / 1000.0);
        let freshness = if eventual { Freshness::Eventual } else { Freshness::Strong };
        if per_mille(stream, workload.read_all_per_mille) {
            return look_around(known, stream, freshness);
        }
        let last = last.unwrap_or(0);
        let from = if stream.chance(0.5) { 0 } else { last.saturating_sub(stream.below(10)) };
        let limit = 1 + stream.below(30) as u32;
        let metadata = per_mille(stream, workload.describe_per_mille);
        let name = if metadata { name.metadata() } else { name };
        if per_mille(stream, workload.backwards_per_mille) {
            let from = if stream.chance(0.5) { u64::MAX } else { from };
            return read(name, from, limit, Direction::Backwards, freshness);
        }
        return read(name, from, limit, Direction::Forwards, freshness);
    }
    if per_mille(stream, workload.describe_per_mille) {
        // Every other stream goes on for ever, or soon there would be none.
        if nth % 2 == 1 && per_mille(stream, workload.tombstone_per_mille) {
            let expected = expectation(stream, last);
            return appended(stream, name, (expected, Expected::Any), [(TOMBSTONE, "")]);
        }
        return describe(stream, name, last);
    }
    let expected = match stream.below(10) {
        0..=4 => Expected::Any,
        5 => Expected::StreamExists,
        6 => Expected::NoStream,
        _ => last.map_or(Expected::NoStream, Expected::Exactly),
    };
    append(plan, stream, name, expected)
}

fn expectation(stream: &mut Stream, last: Option<u64>) -> Expected {
    match stream.below(6) {
        0..=2 => Expected::Any,
        3 => Expected::StreamExists,
        4 => Expected::NoStream,
        _ => last.map_or(Expected::NoStream, Expected::Exactly),
    }
}

/// Limits a stream, deletes it, or says something else of it.
fn describe(stream: &mut Stream, name: StreamName, last: Option<u64>) -> Exchange {
    let before = last.unwrap_or(0).saturating_sub(stream.below(10));
    let most = 1 + stream.below(20);
    let said = match stream.below(10) {
        0..=3 => format!("{{\"$tb\": {}}}", i64::MAX),
        4..=5 => format!("{{\"$tb\": {before}}}"),
        6..=7 => format!("{{\"$maxCount\": {most}}}"),
        8 => format!("{{\"$tb\": {before}, \"$maxCount\": {most}, \"mine\": [1]}}"),
        _ => "{}".to_owned(),
    };
    let described = expectation(stream, last);
    // Nobody keeps track of metadata: mostly it is written over whatever there is.
    let own = if stream.chance(0.8) { Expected::Any } else { Expected::NoStream };
    let kind = if stream.chance(0.9) { METADATA } else { "noted" };
    appended(stream, name.metadata(), (own, described), [(kind, &said)])
}

fn read(
    stream: StreamName,
    from: u64,
    limit: u32,
    direction: Direction,
    freshness: Freshness,
) -> Exchange {
    Exchange::Read(ReadStream { stream, from, limit, direction, freshness }, None)
}

fn read_all(
    from: GlobalPosition,
    limit: u32,
    direction: Direction,
    freshness: Freshness,
) -> Exchange {
    Exchange::All(ReadAll { from, limit, direction, freshness }, None)
}

/// A read of all shards, somewhere.
fn look_around(known: &Known<'_>, stream: &mut Stream, freshness: Freshness) -> Exchange {
    // Up to ten seconds before what everybody knows of.
    let back = stream.below(10_000_000 << 12);
    let near = GlobalPosition(known.watermark.0.saturating_sub(back));
    let limit = stream.below(30) as u32;
    match stream.below(5) {
        0 => read_all(GlobalPosition::START, limit, Direction::Forwards, freshness),
        1 => read_all(near, limit, Direction::Forwards, freshness),
        2 => read_all(near, limit, Direction::Backwards, freshness),
        3 => read_all(known.watermark, limit, Direction::Forwards, freshness),
        _ => read_all(GlobalPosition::END, limit, Direction::Backwards, freshness),
    }
}

/// A read of all shards that looks for an event.
pub(super) fn look_for(stream: &mut Stream, event: GlobalPosition) -> Exchange {
    let limit = 1 + stream.below(10) as u32;
    if stream.chance(0.5) {
        read_all(event, limit, Direction::Forwards, Freshness::Strong)
    } else {
        read_all(GlobalPosition::END, limit, Direction::Backwards, Freshness::Strong)
    }
}

fn id(stream: &mut Stream) -> u128 {
    u128::from(stream.bits()) << 64 | u128::from(stream.bits())
}

fn append(plan: &Plan, stream: &mut Stream, name: StreamName, expected: Expected) -> Exchange {
    let count = 1 + stream.below(u64::from(plan.workload.events_max));
    let events = (0..count).map(|_| {
        let bytes = stream.below(u64::from(plan.workload.event_bytes_max) + 1) as usize;
        let fill = (stream.bits() & 0xff) as u8;
        Event {
            id: EventId(id(stream)),
            kind: "moved".into(),
            format: Format::Bytes,
            data: Bytes::from(vec![fill; bytes]),
            metadata: Bytes::new(),
        }
    });
    let (described, events) = (Expected::Any, events.collect());
    let id = AppendId(id(stream));
    Exchange::Append(Append { stream: name, expected, described, id, events }, None)
}

/// An append of events of these types and contents.
fn appended<const N: usize>(
    stream: &mut Stream,
    name: StreamName,
    (expected, described): (Expected, Expected),
    events: [(&str, &str); N],
) -> Exchange {
    let events = events.map(|(kind, json)| Event {
        id: EventId(id(stream)),
        kind: kind.into(),
        format: Format::Json,
        data: Bytes::from(json.to_owned()),
        metadata: Bytes::new(),
    });
    let (id, events) = (AppendId(id(stream)), events.into());
    Exchange::Append(Append { stream: name, expected, described, id, events }, None)
}
