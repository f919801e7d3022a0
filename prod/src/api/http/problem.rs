//! What is answered when something is not done: RFC 9457 problem details, with a type that stays.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};
use stormkeep_core::{
    append::{AppendError, Expected, ReadError},
    consume::{ConsumeError, ManageError},
    limits::InvalidAppend,
    stream::{InvalidStreamName, StreamName},
};

use crate::near;

/// What the types of problems begin with.
const TYPE_PREFIX: &str = "urn:stormkeep:problem:";
/// What a client should wait when nothing better is known.
const RETRY_AFTER: Duration = Duration::from_millis(500);

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident = $status:ident, $name:literal, $title:literal;)+) => {
        /// The problems there are: status, the last part of the type, title.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind { $($(#[doc = $doc])+ $kind,)+ }

        impl Kind {
            /// All of them.
            pub const ALL: &[Kind] = &[$(Kind::$kind,)+];

            /// Its HTTP status.
            pub fn status(self) -> StatusCode {
                match self { $(Kind::$kind => StatusCode::$status,)+ }
            }

            /// The last part of its type.
            pub fn name(self) -> &'static str {
                match self { $(Kind::$kind => $name,)+ }
            }

            fn title(self) -> &'static str {
                match self { $(Kind::$kind => $title,)+ }
            }
        }
    };
}

kinds! {
    /// The request makes no sense; the detail names the field.
    Invalid = BAD_REQUEST, "invalid-request", "The request makes no sense";
    /// The body is not JSON, or not what is expected; with line and column.
    Json = BAD_REQUEST, "invalid-json", "The body is not the JSON that is expected";
    /// There is nothing at this path.
    NoRoute = NOT_FOUND, "no-such-route", "There is nothing at this path";
    /// The stream has no events, or is deleted.
    NoStream = NOT_FOUND, "stream-not-found", "There is no such stream";
    /// There is no such group.
    NoGroup = NOT_FOUND, "subscription-not-found", "There is no such subscription";
    /// The path does not take this method.
    Method = METHOD_NOT_ALLOWED, "method-not-allowed", "The path does not take this method";
    /// The answer has no form that the client accepts.
    NotAcceptable = NOT_ACCEPTABLE, "not-acceptable", "The answer has no form that is accepted";
    /// The body did not come in time.
    Slow = REQUEST_TIMEOUT, "request-timeout", "The request did not come in time";
    /// The stream is not as the append expects.
    WrongRevision = CONFLICT, "wrong-expected-revision", "The stream is not as expected";
    /// A group of this name is there.
    GroupExists = CONFLICT, "subscription-exists", "The subscription exists already";
    /// Its events are pushed to a handler.
    Pushed = CONFLICT, "subscription-pushed", "The events of the subscription are pushed";
    /// As many consumers are there as may be.
    TooManyConsumers = CONFLICT, "too-many-consumers", "The subscription has all the consumers it may have";
    /// The stream is deleted for ever.
    Tombstoned = GONE, "stream-tombstoned", "The stream is deleted for ever";
    /// Larger than a limit; the detail names it.
    TooLarge = PAYLOAD_TOO_LARGE, "too-large", "The request is larger than a limit";
    /// The body is of a type that is not read.
    MediaType = UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body is of an unknown type";
    /// The server sheds load: nothing was done.
    Busy = SERVICE_UNAVAILABLE, "busy", "The server is busy; nothing was done";
    /// No owner of the shard could be reached: nothing was done.
    Unavailable = SERVICE_UNAVAILABLE, "unavailable", "The shard cannot be reached; nothing was done";
    /// The server is not ready, and says why.
    NotReady = SERVICE_UNAVAILABLE, "not-ready", "The server is not ready";
    /// It may have happened.
    Unknown = GATEWAY_TIMEOUT, "unknown-outcome", "It may or may not have happened";
    /// A defect.
    Internal = INTERNAL_SERVER_ERROR, "internal", "The server has a defect";
}

/// One answer that something was not done.
#[derive(Debug, Clone)]
pub struct Problem {
    kind: Kind,
    detail: String,
    members: Map<String, Value>,
    retry_after: Option<Duration>,
}

impl Problem {
    /// A problem; `detail` names the field and the way out.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let retry_after = (kind.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER);
        Problem { kind, detail: detail.into(), members: Map::new(), retry_after }
    }

    /// With one more member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.into(), value.into());
        self
    }

    fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// What is wrong with a body that should be JSON; `line` is the number of the line if each is read by itself.
    pub fn json(error: &serde_json::Error, line: Option<usize>) -> Self {
        let line = line.unwrap_or(error.line());
        // Its text ends with the place in what was read.
        let text = error.to_string();
        let what = text.split(" at line ").next().unwrap_or_default();
        let what = near::unknown(what).unwrap_or_else(|| what.to_owned());
        let column = error.column();
        Problem::new(Kind::Json, format!("body: {what}, at line {line}, column {column}"))
            .with("line", line)
            .with("column", column)
    }

    /// Its document.
    pub fn document(&self) -> Value {
        let mut document = json!({
            "type": format!("{TYPE_PREFIX}{}", self.kind.name()),
            "title": self.kind.title(),
            "status": self.kind.status().as_u16(),
            "detail": self.detail,
        });
        if let Value::Object(object) = &mut document {
            object.extend(self.members.clone());
            if let Some(wait) = self.retry_after {
                let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                object.insert("retryAfterMs".into(), wait_ms.into());
            }
        }
        document
    }

    /// Why an append to `stream`, which demanded `expected`, was not done.
    pub fn append(error: AppendError, stream: &StreamName) -> Self {
        let detail = error.to_string();
        match error {
            AppendError::Invalid(InvalidAppend::NoEvents) => Problem::new(Kind::Invalid, detail),
            AppendError::Invalid(_) => Problem::new(Kind::TooLarge, detail),
            AppendError::WrongExpectedRevision { expected, actual, .. } => {
                let at = match actual {
                    Some(revision) => format!("is at revision {revision}"),
                    None => "has no events".into(),
                };
                let detail = format!(
                    "{stream}: expected {}, and the stream {at}: read it, decide again, and append with what it is at now",
                    expected_text(expected)
                );
                Problem::new(Kind::WrongRevision, detail)
                    .with("expected", expected_value(expected))
                    .with("actual", actual)
            }
            AppendError::Tombstoned => {
                Problem::new(Kind::Tombstoned, format!("{stream}: {detail}"))
            }
            AppendError::NotOwner { .. } | AppendError::Unavailable => {
                Problem::new(Kind::Unavailable, detail)
            }
            AppendError::Busy { retry_after } => {
                Problem::new(Kind::Busy, detail).retry_after(retry_after)
            }
            AppendError::Unknown => Problem::new(
                Kind::Unknown,
                "no answer in time: send the same request again with the same Idempotency-Key (or the same ids of events), and it is done once",
            ),
        }
    }

    /// Why a read has no answer.
    pub fn read(error: ReadError) -> Self {
        let detail = format!("{error}; read again");
        match error {
            ReadError::Busy { retry_after } => {
                Problem::new(Kind::Busy, detail).retry_after(retry_after)
            }
            ReadError::NotOwner { .. } | ReadError::Unavailable | ReadError::Trimmed => {
                Problem::new(Kind::Unavailable, detail)
            }
        }
    }

    /// Why a consumer has no answer.
    pub fn consume(error: ConsumeError) -> Self {
        let detail = error.to_string();
        match error {
            ConsumeError::NoSuchGroup(_) => Problem::new(Kind::NoGroup, detail),
            ConsumeError::Pushed(_) => Problem::new(Kind::Pushed, detail),
            ConsumeError::TooManyConsumers { consumers_max } => {
                Problem::new(Kind::TooManyConsumers, detail).with("consumersMax", consumers_max)
            }
            ConsumeError::NotHolder { .. } | ConsumeError::Unavailable => {
                let detail = "nobody who works on the subscription could be reached in time: ask again, which is safe";
                Problem::new(Kind::Unavailable, detail)
            }
        }
    }

    /// Why a group is not managed.
    pub fn manage(error: ManageError) -> Self {
        let detail = error.to_string();
        match error {
            ManageError::Invalid(_) | ManageError::NoRevision => {
                Problem::new(Kind::Invalid, detail)
            }
            ManageError::Exists(_) => Problem::new(Kind::GroupExists, detail),
            ManageError::NoSuchGroup(_) => Problem::new(Kind::NoGroup, detail),
            ManageError::Damaged(_) => Problem::new(Kind::Internal, detail),
            ManageError::Unknown => Problem::new(Kind::Unknown, detail),
        }
    }

    /// There is no such stream; `last` is the last revision of one that is deleted.
    pub fn no_stream(stream: &StreamName, last: Option<u64>) -> Self {
        let detail = match last {
            Some(last) => {
                format!("{stream}: deleted; the next append goes on at revision {}", last + 1)
            }
            None => format!("{stream}: it has no events; the first append makes it"),
        };
        let problem = Problem::new(Kind::NoStream, detail);
        match last {
            Some(last) => problem.with("lastRevision", last),
            None => problem,
        }
    }

    /// The stream is ended.
    pub fn tombstoned(stream: &StreamName) -> Self {
        Problem::append(AppendError::Tombstoned, stream)
    }
}

impl From<InvalidStreamName> for Problem {
    fn from(error: InvalidStreamName) -> Self {
        Problem::new(Kind::Invalid, error.to_string())
    }
}

/// What is expected, as it is written in requests.
pub fn expected_text(expected: Expected) -> String {
    match expected {
        Expected::Any => "any".into(),
        Expected::NoStream => "no-stream".into(),
        Expected::StreamExists => "exists".into(),
        Expected::Exactly(revision) => revision.to_string(),
    }
}

fn expected_value(expected: Expected) -> Value {
    match expected {
        Expected::Exactly(revision) => revision.into(),
        other => expected_text(other).into(),
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.kind.status(), self.document().to_string()).into_response();
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, json);
        if let Some(wait) = self.retry_after {
            let wait_s = wait.as_secs_f64().ceil().max(1.0) as u64;
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait_s));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> StreamName {
        StreamName::new("player-1").unwrap()
    }

    #[test]
    fn no_busy_and_unknown_do_not_blur() {
        let wait = Duration::from_millis(1500);
        let told = |problem: Problem| {
            let retry = problem.document()["retryAfterMs"].as_u64();
            let response = problem.clone().into_response();
            let header =
                response.headers().get("retry-after").map(|v| v.to_str().unwrap().to_owned());
            (problem.kind.name(), response.status().as_u16(), retry, header)
        };
        for (error, expected) in [
            (AppendError::Busy { retry_after: wait }, ("busy", 503, Some(1500), Some("2"))),
            (AppendError::Unavailable, ("unavailable", 503, Some(500), Some("1"))),
            (AppendError::NotOwner { hint: None }, ("unavailable", 503, Some(500), Some("1"))),
            (AppendError::Unknown, ("unknown-outcome", 504, None, None)),
            (AppendError::Tombstoned, ("stream-tombstoned", 410, None, None)),
            (AppendError::Invalid(InvalidAppend::NoEvents), ("invalid-request", 400, None, None)),
            (
                AppendError::Invalid(InvalidAppend::AppendTooLarge { bytes: 5 }),
                ("too-large", 413, None, None),
            ),
        ] {
            let found = told(Problem::append(error, &stream()));
            assert_eq!((found.0, found.1, found.2, found.3.as_deref()), expected);
        }
        let detail = Problem::append(AppendError::Unknown, &stream()).document();
        assert!(detail["detail"].as_str().unwrap().contains("the same Idempotency-Key"));
        for (error, name) in [
            (ReadError::Busy { retry_after: wait }, "busy"),
            (ReadError::Unavailable, "unavailable"),
            (ReadError::NotOwner { hint: None }, "unavailable"),
        ] {
            assert_eq!(told(Problem::read(error)).0, name);
        }
    }

    #[test]
    fn every_kind_is_in_the_documentation() {
        let text = include_str!("../../../../docs/OPERATIONS.md");
        for kind in Kind::ALL {
            let row = format!("| {} | `{}` |", kind.status().as_u16(), kind.name());
            assert!(text.contains(&row), "docs/OPERATIONS.md lacks {row}");
        }
    }
}
