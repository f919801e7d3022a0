//! Bodies: of a known type, in bounded time and memory.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, header};
use stormkeep_core::env::Env;
use tokio::sync::OwnedSemaphorePermit;

use super::{Http, Kind, Problem, query::header_text};

/// How a body of JSON is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// One document.
    Json,
    /// A document a line.
    Lines,
}

/// A body, and the room that it takes until it is dropped.
pub(super) struct Read {
    pub(super) bytes: Bytes,
    pub(super) layout: Layout,
    _room: OwnedSemaphorePermit,
}

impl<E: Env> Http<E> {
    /// Reads a body.
    pub(super) async fn body(&self, headers: &HeaderMap, body: Body) -> Result<Read, Problem> {
        let layout = layout(headers)?;
        let max = self.options.body_bytes_max;
        let too_large = || {
            let detail = format!("body: more than {max} bytes; split the append");
            Problem::new(Kind::TooLarge, detail).with("limitBytes", max)
        };
        let length = header_text(headers, header::CONTENT_LENGTH.as_str())?;
        let length = length.and_then(|text| text.parse::<usize>().ok());
        if length.is_some_and(|length| length > max) {
            return Err(too_large());
        }
        let room = u32::try_from(length.unwrap_or(max).div_ceil(1024)).unwrap_or(u32::MAX);
        let room = self.bodies.clone().try_acquire_many_owned(room).map_err(|_| {
            Problem::new(Kind::Busy, "body: too many bodies are under way; send it again")
        })?;
        let read = axum::body::to_bytes(body, max);
        match tokio::time::timeout(self.options.request_timeout, read).await {
            Ok(Ok(bytes)) => Ok(Read { bytes, layout, _room: room }),
            Ok(Err(error)) if is_too_large(&error) => Err(too_large()),
            Ok(Err(error)) => Err(Problem::new(Kind::Invalid, format!("body: {error}"))),
            Err(_) => {
                let detail = "body: it did not come in time; nothing was done: send it again";
                Err(Problem::new(Kind::Slow, detail))
            }
        }
    }
}

fn is_too_large(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The layout that the headers tell; JSON if they tell nothing.
fn layout(headers: &HeaderMap) -> Result<Layout, Problem> {
    let text = header_text(headers, header::CONTENT_TYPE.as_str())?;
    let Some(text) = text else { return Ok(Layout::Json) };
    let kind = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Layout::Lines),
        "application/json" => Ok(Layout::Json),
        kind if kind.starts_with("application/") && kind.ends_with("+json") => Ok(Layout::Json),
        _ => {
            let detail = format!(
                "Content-Type: `{text}`: send application/json, or application/x-ndjson with an event a line (curl: -H 'Content-Type: application/json')"
            );
            Err(Problem::new(Kind::MediaType, detail))
        }
    }
}
