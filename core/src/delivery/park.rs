//! Parking: a failed event is put into the parked stream of its group, as a link with the reason. An ordinary append, whose id
//! follows from the event and the group, so that two who park the same event park it once.

use std::time::Duration;

use bytes::Bytes;
use md5::{Digest, Md5};
use tracing::{error, warn};

use crate::{
    append::{Append, AppendError, AppendId, Expected, Request, Response},
    env::{Clock, Env},
    event::{Event, EventId, Format},
    gateway::{Gateway, Origin},
    group::Group,
    head::METADATA,
    shard::window::Park,
    stream::StreamName,
    wait::{Backoff, may_linger},
};

/// The type of an event that is a link to another one, as in KurrentDB.
pub(crate) const LINK: &str = "$>";
/// How long one try may take.
const APPEND_WITHIN: Duration = Duration::from_secs(10);

/// Parks an event. Returns when it is acknowledged, however long that takes: until then the event is not settled.
pub(crate) async fn park<E: Env>(gateway: &Gateway<E>, group: &Group, park: &Park, replay: bool) {
    let Some(stream) = group.id.parked() else { return std::future::pending().await };
    may_linger(gateway.env.clock(), "delivery: before the parking", gateway.config.retry_max).await;
    warn!(
        group = %group.id, stream = %park.event.stream, revision = park.event.revision,
        failures = park.failures, reason = park.reason, "parked"
    );
    until_appended(gateway, link(group, stream, park, replay)).await;
}

/// Parked events below a revision were given again and settled: the parked stream shows them no more.
pub(crate) async fn settle_replay<E: Env>(gateway: &Gateway<E>, group: &Group, below: u64) {
    let Some(stream) = group.id.parked() else { return };
    let id = derived(group, &["replayed", &below.to_string()]);
    let event = Event {
        id: EventId(id),
        kind: METADATA.into(),
        format: Format::Json,
        data: Bytes::from(format!("{{\"$tb\":{below}}}")),
        metadata: Bytes::new(),
    };
    until_appended(gateway, append(stream.metadata(), id, event)).await;
}

fn link(group: &Group, parked: StreamName, park: &Park, replay: bool) -> Append {
    let (stream, revision) = (&park.event.stream, park.event.revision);
    let place = park.place.to_string();
    // What fails again in its replay is another parking.
    let of = if replay { ["again", &place] } else { ["parked", &place] };
    let id = derived(group, &[of[0], of[1], &revision.to_string(), stream.as_str()]);
    // The fields of KurrentDB's, and what it does not say.
    let metadata = serde_json::json!({
        "reason": park.reason,
        "subscriptionEventNumber": revision,
        "failures": park.failures,
        "group": group.id.to_string(),
    });
    let event = Event {
        id: EventId(id),
        kind: LINK.into(),
        format: Format::Bytes,
        data: Bytes::from(format!("{revision}@{stream}")),
        metadata: Bytes::from(metadata.to_string()),
    };
    append(parked, id, event)
}

fn append(stream: StreamName, id: u128, event: Event) -> Append {
    Append {
        stream,
        expected: Expected::Any,
        described: Expected::Any,
        id: AppendId(id),
        events: [event].into(),
    }
}

/// An id that follows from the group and what is done for it.
fn derived(group: &Group, parts: &[&str]) -> u128 {
    let mut hash = Md5::new();
    hash.update(group.id.to_string());
    hash.update(group.number.0.to_be_bytes());
    for part in parts {
        hash.update([0]);
        hash.update(part);
    }
    u128::from_be_bytes(hash.finalize().into())
}

async fn until_appended<E: Env>(gateway: &Gateway<E>, append: Append) {
    let mut backoff = Backoff::new(&gateway.config);
    loop {
        let request = Request::Append(append.clone());
        // Boxed: the gateway's futures are large, and would be part of every unit's.
        let answer = Box::pin(gateway.handle(request, APPEND_WITHIN, Origin::Client)).await;
        match answer {
            Response::Append(Ok(_)) => return,
            Response::Append(Err(error @ (AppendError::Tombstoned | AppendError::Invalid(_)))) => {
                error!(stream = %append.stream, %error, "cannot be parked: the streams of these events stand still; delete the group, or make another");
                gateway.env.clock().sleep(APPEND_WITHIN).await;
            }
            _ => backoff.pause(gateway.env.clock()).await,
        }
    }
}
