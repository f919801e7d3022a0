//! Appending.

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, Uri, header};
use md5::{Digest, Md5};
use serde_json::json;
use stormkeep_core::{
    append::{Append, AppendId, Appended, Expected},
    env::Env,
    event::{Event, EventId},
    limits::EVENTS_PER_APPEND_MAX,
    stream::StreamName,
};
use uuid::Uuid;

use super::{
    EventInput, Http, Kind, Problem,
    body::{Layout, Read},
    event,
    query::{self, Query, StreamPath, header_text, invalid, takes_json},
};
use crate::append_id::append_id;

/// The header that names an append.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

pub(super) async fn append<E: Env>(
    State(http): State<Http<E>>,
    path: StreamPath,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let stream = query::stream(path)?;
    let query = Query::of(&uri, &["expected"], &[])?;
    takes_json(&headers)?;
    let expected = query::expected(&headers, &query)?;
    let key = key(&headers)?;
    let body = http.body(&headers, body).await?;
    let events = events(&body, key)?;
    let id = key.unwrap_or_else(|| append_id(&events));
    let (described, events) = (Expected::Any, events.into());
    let append = Append { stream: stream.clone(), expected, described, id, events };
    let appended = http.service.append(append, http.options.request_timeout).await;
    drop(body);
    let appended = appended.map_err(|error| Problem::append(error, &stream))?;
    Ok((StatusCode::CREATED, answer(&stream, &appended)).into_response())
}

/// What an append is answered.
pub(super) fn answer(stream: &StreamName, appended: &Appended) -> impl IntoResponse + use<> {
    let document = json!({
        "stream": stream.as_str(),
        "firstRevision": appended.first,
        "lastRevision": appended.last,
        "position": appended.position().to_string(),
        "repeated": appended.repeated,
    });
    ([(header::CONTENT_TYPE, "application/json")], document.to_string())
}

fn key(headers: &HeaderMap) -> Result<Option<AppendId>, Problem> {
    let Some(text) = header_text(headers, IDEMPOTENCY_KEY)? else { return Ok(None) };
    let key = event::uuid(text.trim().trim_matches('"'));
    key.map(|id| Some(AppendId(id))).map_err(|error| invalid(format!("Idempotency-Key: {error}")))
}

fn events(body: &Read, key: Option<AppendId>) -> Result<Vec<Event>, Problem> {
    let inputs = match body.layout {
        Layout::Lines => lines(&body.bytes)?,
        Layout::Json => document(&body.bytes)?,
    };
    if inputs.len() > EVENTS_PER_APPEND_MAX {
        let detail = format!(
            "events: {} events in one append; at most {EVENTS_PER_APPEND_MAX}: split it",
            inputs.len()
        );
        return Err(Problem::new(Kind::TooLarge, detail).with("limitEvents", EVENTS_PER_APPEND_MAX));
    }
    let event = |(index, input): (usize, EventInput)| {
        let event = input.event(|| made_up(key, index));
        event.map_err(|error| invalid(format!("events[{index}].{error}")))
    };
    inputs.into_iter().enumerate().map(event).collect()
}

/// The id of an event that comes without one: of an append that is sent again, the same one.
fn made_up(key: Option<AppendId>, index: usize) -> EventId {
    let Some(key) = key else { return EventId(Uuid::new_v4().as_u128()) };
    let mut hash = Md5::new();
    hash.update(key.0.to_be_bytes());
    hash.update((index as u64).to_be_bytes());
    let bytes = hash.finalize().into();
    EventId(uuid::Builder::from_md5_bytes(bytes).into_uuid().as_u128())
}

fn document(bytes: &[u8]) -> Result<Vec<EventInput>, Problem> {
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    let parsed = match first {
        Some(b'[') => serde_json::from_slice(bytes),
        _ => serde_json::from_slice(bytes).map(|event| vec![event]),
    };
    parsed.map_err(|error| Problem::json(&error, None))
}

fn lines(bytes: &[u8]) -> Result<Vec<EventInput>, Problem> {
    let lines = bytes.split(|byte| *byte == b'\n').enumerate();
    let filled = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    let event = |(number, line): (usize, &[u8])| {
        serde_json::from_slice(line).map_err(|error| Problem::json(&error, Some(number + 1)))
    };
    filled.map(event).collect()
}
