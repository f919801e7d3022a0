//! What a client asks next.

use bytes::Bytes;
use stormkeep_core::{
    append::{Append, AppendId, Expected, Freshness, ReadLog, ReadStream},
    event::{Event, EventId},
    stream::StreamName,
};

use super::{Client, Role};
use crate::{history::Exchange, plan::Plan, rng::Stream};

/// What a client asks next. `seen` is the last revision of each shared stream that any client saw.
pub(super) fn decide(
    plan: &Plan,
    client: &mut Client,
    number: u32,
    shared: &[StreamName],
    seen: &[Option<u64>],
) -> Exchange {
    let workload = &plan.workload;
    let stream = &mut client.stream;
    match &client.role {
        Role::Follow(shard, after) => {
            return Exchange::Follow(ReadLog { shard: *shard, after: after.clone() }, None);
        }
        Role::Probe(name, _) => return append(plan, stream, name.clone(), Expected::Any),
        Role::Inspect(names, from) => {
            // The list is never empty while this client works.
            let name = names.last().cloned().unwrap_or_else(|| shared[0].clone());
            return read(name, *from, 50, Freshness::Strong);
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
    let name = shared[nth].clone();
    if stream.chance(f64::from(workload.read_per_mille) / 1000.0) {
        let eventual = stream.chance(f64::from(workload.eventual_per_mille) / 1000.0);
        let freshness = if eventual { Freshness::Eventual } else { Freshness::Strong };
        let last = seen[nth].unwrap_or(0);
        let from = if stream.chance(0.5) { 0 } else { last.saturating_sub(stream.below(10)) };
        let limit = 1 + stream.below(30) as u32;
        return read(name, from, limit, freshness);
    }
    let expected = match stream.below(10) {
        0..=4 => Expected::Any,
        5 => Expected::StreamExists,
        6 => Expected::NoStream,
        _ => seen[nth].map_or(Expected::NoStream, Expected::Exactly),
    };
    append(plan, stream, name, expected)
}

fn read(stream: StreamName, from: u64, limit: u32, freshness: Freshness) -> Exchange {
    Exchange::Read(ReadStream { stream, from, limit, freshness }, None)
}

fn append(plan: &Plan, stream: &mut Stream, name: StreamName, expected: Expected) -> Exchange {
    let id = |stream: &mut Stream| u128::from(stream.bits()) << 64 | u128::from(stream.bits());
    let count = 1 + stream.below(u64::from(plan.workload.events_max));
    let events = (0..count).map(|_| {
        let bytes = stream.below(u64::from(plan.workload.event_bytes_max) + 1) as usize;
        let fill = (stream.bits() & 0xff) as u8;
        Event {
            id: EventId(id(stream)),
            kind: "moved".into(),
            data: Bytes::from(vec![fill; bytes]),
            metadata: Bytes::new(),
        }
    });
    let events = events.collect();
    let id = AppendId(id(stream));
    Exchange::Append(Append { stream: name, expected, id, events }, None)
}
