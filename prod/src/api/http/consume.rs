//! What consumers ask over HTTP: events, and what became of them.
//!
//! A consumer is a number that it keeps. It polls for events, settles each, and leaves; one that falls silent is not missed before its
//! events are overdue.

use std::time::Duration;

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::json;
use stormkeep_core::{
    consume::{ConsumeError, ConsumerId, Fetch, Fetched, Leave, Settle, Settled, Unit, Verdict},
    env::Env,
    group::{GroupId, GroupNumber},
    shard::ShardId,
};
use uuid::Uuid;

use super::{
    Http, Kind, Problem,
    event::{self, EventOutput},
    operate::json_response,
    query::{Query, invalid, takes_json},
    subscriptions::{GroupPath, group_id},
};
use crate::service::Service;

/// Events of one answer if nothing is said.
const EVENTS_DEFAULT: u32 = 10;
/// Longest wait for events, in seconds.
const WAIT_MAX_S: u64 = 60;
/// How long a consumer that nobody knows may take to leave.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Events<'a> {
    consumer: Uuid,
    unit: Option<String>,
    events: Vec<Given<'a>>,
}

#[derive(Serialize)]
struct Given<'a> {
    place: u64,
    delivery: u64,
    retries: u32,
    #[serde(flatten)]
    event: EventOutput<'a>,
}

pub(super) async fn fetch<E: Env>(
    State(http): State<Http<E>>,
    path: GroupPath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let group = group_id(path)?;
    let query = Query::of(&uri, &["consumer", "max", "wait"], &[])?;
    takes_json(&headers)?;
    let most = http.options.page_events_max.max(1);
    let max = query.number("max", 1, most.into())?.and_then(|max| u32::try_from(max).ok());
    let max = max.unwrap_or(EVENTS_DEFAULT.min(most));
    let wait = Duration::from_secs(query.number("wait", 0, WAIT_MAX_S)?.unwrap_or(0));
    let asked = query.one("consumer").map(consumer_id).transpose()?;
    let consumer = asked.unwrap_or_else(|| ConsumerId(Uuid::new_v4().as_u128()));
    // If the request is dropped before its answer is made, nobody knows a consumer that was drawn for it.
    let mut unknown = Unknown {
        leaves: asked
            .is_none()
            .then(|| (http.service.clone(), Leave { group: group.clone(), consumer })),
    };
    let fetch = Fetch { group, consumer, max, wait };
    let fetched = http.service.fetch(fetch, wait + http.options.request_timeout).await;
    let Fetched { unit, events } = fetched.map_err(Problem::consume)?;
    unknown.leaves = None;
    let answer = Events {
        consumer: Uuid::from_u128(consumer.0),
        unit: unit.map(unit_text),
        events: events
            .iter()
            .map(|given| Given {
                place: given.place,
                delivery: given.delivery,
                retries: given.retries,
                event: EventOutput::of(&given.event),
            })
            .collect(),
    };
    match serde_json::to_vec(&answer) {
        Ok(bytes) => Ok(json_response(bytes)),
        Err(error) => Err(Problem::new(Kind::Internal, format!("the events: {error}"))),
    }
}

/// Leaves for a consumer whose request was dropped.
struct Unknown<E: Env> {
    leaves: Option<(Service<E>, Leave)>,
}

impl<E: Env> Drop for Unknown<E> {
    fn drop(&mut self) {
        if let Some((service, leave)) = self.leaves.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { service.leave(leave, LEAVE_WITHIN).await });
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SettleInput {
    consumer: String,
    unit: String,
    verdicts: Vec<VerdictInput>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VerdictInput {
    place: u64,
    delivery: u64,
    verdict: VerdictName,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum VerdictName {
    Ack,
    Retry,
    Park,
    Skip,
    Stop,
}

impl VerdictInput {
    fn verdict(self) -> (u64, u64, Verdict) {
        let verdict = match self.verdict {
            VerdictName::Ack => Verdict::Ack,
            VerdictName::Retry => Verdict::Retry(self.reason),
            VerdictName::Park => Verdict::Park(self.reason),
            VerdictName::Skip => Verdict::Skip,
            VerdictName::Stop => Verdict::Stop,
        };
        (self.place, self.delivery, verdict)
    }
}

pub(super) async fn settle<E: Env>(
    State(http): State<Http<E>>,
    path: GroupPath,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let group = group_id(path)?;
    Query::of(&uri, &[], &[])?;
    takes_json(&headers)?;
    let input: SettleInput = http.document(&headers, body).await?;
    let consumer = consumer_id(&input.consumer)?;
    let unit = parse_unit(&input.unit).ok_or_else(|| {
        invalid(format!(
            "unit: `{}` is none that was told with events; hand it back as it came",
            input.unit
        ))
    })?;
    let verdicts: Vec<_> = input.verdicts.into_iter().map(VerdictInput::verdict).collect();
    let count = verdicts.len();
    let settle = Settle { group, consumer, unit, verdicts };
    let counted = match http.service.settle(settle, http.options.request_timeout).await {
        Ok(Settled { counted }) => counted,
        // The unit is with another node, or under another lease, and its events are given again.
        Err(ConsumeError::NotHolder { .. }) => vec![false; count],
        Err(error) => return Err(Problem::consume(error)),
    };
    Ok(json_response(json!({ "counted": counted }).to_string()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LeaveInput {
    consumer: String,
}

pub(super) async fn leave<E: Env>(
    State(http): State<Http<E>>,
    path: GroupPath,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let group: GroupId = group_id(path)?;
    Query::of(&uri, &[], &[])?;
    takes_json(&headers)?;
    let input: LeaveInput = http.document(&headers, body).await?;
    let leave = Leave { group, consumer: consumer_id(&input.consumer)? };
    let left = http.service.leave(leave, http.options.request_timeout).await;
    left.map_err(Problem::consume)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn consumer_id(text: &str) -> Result<ConsumerId, Problem> {
    event::uuid(text).map(ConsumerId).map_err(|error| invalid(format!("consumer: {error}")))
}

/// A unit as a text that clients hand back and do not look into.
pub(super) fn unit_text(unit: Unit) -> String {
    let replay = if unit.replay { ".replay" } else { "" };
    format!("{}.{}.{}{replay}", unit.group.0, unit.shard.0, unit.lease)
}

fn parse_unit(text: &str) -> Option<Unit> {
    let (text, replay) = match text.strip_suffix(".replay") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let mut numbers = text.split('.');
    let mut number = || numbers.next()?.parse::<u64>().ok();
    let (group, shard, lease) = (GroupNumber(number()?), number()?, number()?);
    let shard = ShardId(u32::try_from(shard).ok()?);
    numbers.next().is_none().then_some(Unit { group, shard, lease, replay })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_read_as_it_is_written() {
        for replay in [false, true] {
            let unit = Unit { group: GroupNumber(5), shard: ShardId(3), lease: u64::MAX, replay };
            assert_eq!(parse_unit(&unit_text(unit)), Some(unit));
        }
        for bad in
            ["", "5", "5.3", "5.3.", "5..7", "5.3.7.8", "5.3.7.replays", "5.-3.7", "5.4294967296.7"]
        {
            assert_eq!(parse_unit(bad), None, "{bad}");
        }
    }
}
