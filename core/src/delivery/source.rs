//! Where a unit's events come from: a shard's part of the store, or the parked stream of a replay.

use std::time::Duration;

use super::until_done;
use crate::{
    append::{Direction, Freshness, ReadStream, Request, Response, StreamSlice},
    env::{Env, Store},
    event::RecordedEvent,
    gateway::{Gateway, Origin},
    group::Group,
    shard::{Checkpoint, ShardId},
    stream::StreamName,
    time::HybridTime,
    wait::{Backoff, may_linger},
};

/// How long one read of the parked stream may take.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// What a unit reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// The events of a shard; their places are their times.
    Shard(ShardId),
    /// What is parked, below a revision of the parked stream; places are revisions.
    Parked { below: u64 },
}

impl Reads {
    pub(crate) fn is_replay(&self) -> bool {
        matches!(self, Reads::Parked { .. })
    }
}

/// What was read: the events that the group wants, and where to go on.
pub(crate) struct Page {
    pub(crate) events: Vec<(u64, RecordedEvent)>,
    pub(crate) next: u64,
    pub(crate) ended: bool,
}

/// Reads events of a shard from a time on, as far as it is folded.
pub(crate) async fn read_shard<E: Env>(
    gateway: &Gateway<E>,
    group: &Group,
    shard: ShardId,
    from: u64,
    folded: Checkpoint,
    limit: u32,
) -> Page {
    let closed = folded.closed;
    if from > closed.0 {
        return Page { events: Vec::new(), next: from, ended: folded.ended };
    }
    let times = (HybridTime(from), closed);
    let store = gateway.env.store();
    let read = || store.shard_events(shard, times, limit, Direction::Forwards);
    let events = until_done(gateway, read).await;
    may_linger(gateway.env.clock(), "delivery: behind the read", gateway.config.poll).await;
    let more = events.len() as u64 >= u64::from(limit);
    let next = match events.last() {
        Some(last) if more => last.time.0 + 1,
        _ => closed.0 + 1,
    };
    let wanted = events.into_iter().filter(|event| group.wants(event));
    Page {
        events: wanted.map(|event| (event.time.0, event)).collect(),
        next,
        ended: folded.ended && !more,
    }
}

/// Reads what is parked from a revision of the parked stream on, and the events that it links to.
pub(crate) async fn read_parked<E: Env>(
    gateway: &Gateway<E>,
    group: &Group,
    from: u64,
    below: u64,
    limit: u32,
) -> Page {
    let end = Page { events: Vec::new(), next: below.max(from), ended: true };
    let Some(parked) = group.id.parked() else { return end };
    let slice = read_stream(gateway, &parked, from, limit).await;
    let mut events = Vec::new();
    for link in slice.events.into_iter().filter(|link| link.revision < below) {
        let place = link.revision;
        events.push((place, resolve(gateway, link).await));
    }
    let next = slice.next.unwrap_or(below).min(below).max(from);
    Page { events, next, ended: next >= below }
}

/// The event that a parked one links to; itself, if it is no link.
async fn resolve<E: Env>(gateway: &Gateway<E>, link: RecordedEvent) -> RecordedEvent {
    let Some((stream, revision)) = target(&link) else { return link };
    let store = gateway.env.store();
    let read = || store.events(&stream, revision, 1, Direction::Forwards, Freshness::Strong);
    let found = until_done(gateway, read).await;
    found.into_iter().find(|event| event.revision == revision).unwrap_or(link)
}

/// Where a link leads: its data is `revision@stream`.
fn target(link: &RecordedEvent) -> Option<(StreamName, u64)> {
    if *link.event.kind != *super::park::LINK {
        return None;
    }
    let text = std::str::from_utf8(&link.event.data).ok()?;
    let (revision, stream) = text.split_once('@')?;
    Some((StreamName::new(stream).ok()?, revision.parse().ok()?))
}

/// A strong read of a stream, until it is answered.
pub(crate) async fn read_stream<E: Env>(
    gateway: &Gateway<E>,
    stream: &StreamName,
    from: u64,
    limit: u32,
) -> StreamSlice {
    let mut backoff = Backoff::new(&gateway.config);
    loop {
        let read = Request::ReadStream(ReadStream {
            stream: stream.clone(),
            from,
            limit,
            direction: Direction::Forwards,
            freshness: Freshness::Strong,
        });
        // Boxed: the gateway's futures are large, and would be part of every unit's.
        let answer = Box::pin(gateway.handle(read, READ_WITHIN, Origin::Client)).await;
        if let Response::ReadStream(Ok(slice)) = answer {
            return slice;
        }
        backoff.pause(gateway.env.clock()).await;
    }
}
