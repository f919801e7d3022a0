//! Metadata and deletion of streams.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Uri, header};
use serde_json::{Map, Value, json};
use stormkeep_core::{
    append::{Append, AppendError, Expected},
    env::Env,
    event::{Event, EventId, Format},
    head,
    stream::StreamName,
};
use uuid::Uuid;

use super::{
    Http, Kind, Problem,
    append::answer,
    body::Layout,
    query::{self, Query, StreamPath, invalid, takes_json},
};
use crate::append_id::append_id;

pub(super) async fn metadata<E: Env>(
    State(http): State<Http<E>>,
    path: StreamPath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let stream = described(path)?;
    Query::of(&uri, &[], &[])?;
    takes_json(&headers)?;
    let read = http.service.metadata(&stream, http.options.request_timeout).await;
    let (revision, metadata) = read.map_err(Problem::read)?;
    let document = json!({
        "stream": stream.as_str(), "revision": revision, "metadata": metadata,
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response())
}

pub(super) async fn set_metadata<E: Env>(
    State(http): State<Http<E>>,
    path: StreamPath,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let stream = described(path)?.metadata();
    let query = Query::of(&uri, &["expected"], &[])?;
    takes_json(&headers)?;
    let expected = query::expected(&headers, &query)?;
    let body = http.body(&headers, body).await?;
    if body.layout == Layout::Lines {
        let detail = "Content-Type: metadata is one document: send application/json";
        return Err(Problem::new(Kind::MediaType, detail));
    }
    let document: Value =
        serde_json::from_slice(&body.bytes).map_err(|error| Problem::json(&error, None))?;
    let Value::Object(object) = &document else {
        return Err(invalid("metadata: it must be an object, {\"$maxCount\": 100}".into()));
    };
    check(object)?;
    let event = Event {
        id: EventId(Uuid::new_v4().as_u128()),
        kind: head::METADATA.into(),
        format: Format::Json,
        // A copy: the body may be a small part of a large buffer.
        data: bytes::Bytes::copy_from_slice(&body.bytes),
        metadata: bytes::Bytes::new(),
    };
    let events: Arc<[Event]> = Arc::new([event]);
    let append = Append {
        stream: stream.clone(),
        expected,
        described: Expected::Any,
        id: append_id(&events),
        events,
    };
    let appended = http.service.append(append, http.options.request_timeout).await;
    let appended = appended.map_err(|error| Problem::append(error, &stream))?;
    Ok(answer(&stream, &appended).into_response())
}

/// The keys that limit a stream must be what they should be: a typing error must not keep events for ever.
fn check(object: &Map<String, Value>) -> Result<(), Problem> {
    for (key, min) in [("$maxCount", 1), ("$maxAge", 1), ("$cacheControl", 0), ("$tb", 0)] {
        if let Some(value) = object.get(key)
            && value.as_u64().is_none_or(|number| number < min)
        {
            let unit = match key {
                "$maxCount" => " of events",
                "$tb" => ": the first revision that is kept",
                _ => " of seconds",
            };
            let detail = format!("{key}: `{value}` is no whole number{unit}, at least {min}");
            return Err(invalid(detail));
        }
    }
    match object.get("$acl") {
        Some(acl) if !acl.is_object() => Err(invalid("$acl: it must be an object".into())),
        _ => Ok(()),
    }
}

pub(super) async fn delete<E: Env>(
    State(http): State<Http<E>>,
    path: StreamPath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let stream = described(path)?;
    let query = Query::of(&uri, &["expected", "tombstone"], &[])?;
    takes_json(&headers)?;
    let expected = query::expected(&headers, &query)?;
    let timeout = http.options.request_timeout;
    let deleted = match query.flag("tombstone")? {
        true => http.service.tombstone(stream.clone(), expected, timeout).await,
        false => http.service.delete(stream.clone(), expected, timeout).await,
    };
    let deleted = deleted.map_err(|error| match error {
        AppendError::WrongExpectedRevision { actual, .. } if expected == Expected::Any => {
            Problem::no_stream(&stream, actual)
        }
        error => Problem::append(error, &stream),
    })?;
    let position = deleted.position().to_string();
    let document = json!({ "stream": stream.as_str(), "position": position });
    Ok(([(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response())
}

/// The stream of a path; it must be none that describes another.
fn described(path: StreamPath) -> Result<StreamName, Problem> {
    let stream = query::stream(path)?;
    if stream.is_metadata() {
        let detail = format!("stream: {stream} is itself the metadata of {}", stream.described());
        return Err(invalid(detail));
    }
    Ok(stream)
}
