//! What can go wrong with a call, and how each client is told: as a status with the trailers that it turns into its own
//! exception, or as the detail of a batch.
//!
//! Sources: the trailers `exception`, `stream-name`, `expected-version`, `actual-version`, `maximum-append-size` and
//! `required-metadata-properties` are what the Node client (1.3.1) and the Rust client (1.2.0) look at; the Python
//! client (1.3.5) looks at the status code and, for deletions, takes the message apart; batches carry details of the
//! package `event_store.client`.

use std::time::Duration;

use prost::Message;
use prost_types::Any;
use stormkeep_core::{
    append::{AppendError, Expected, ReadError},
    limits::{ENTRY_BYTES_MAX, InvalidAppend},
    stream::InvalidStreamName,
};
use tonic::{
    Code, Status,
    metadata::{AsciiMetadataValue, MetadataMap},
};

use super::{
    proto::{event_store::client as wire, google::rpc},
    response,
};
use crate::{filter::InvalidFilter, follow::FollowError};

/// Why a call has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// A field is missing or cannot be; the message names it.
    Invalid(String),
    /// An event lacks what its metadata must have.
    MissingProperty(&'static str),
    /// The events of an append are too large, alone or together.
    TooLarge(String),
    /// The stream was not as expected.
    WrongExpected {
        /// What was demanded of it.
        expected: Expected,
        /// Its last revision.
        actual: Option<u64>,
    },
    /// The stream was ended for ever.
    Deleted,
    /// The time is over; what was asked may have happened.
    Deadline(String),
    /// It did not happen; try later.
    Busy(Duration),
    /// It did not happen.
    Unavailable(String),
}

impl Trouble {
    /// A field cannot be as it is.
    pub fn invalid(field: &str, why: impl std::fmt::Display) -> Trouble {
        Trouble::Invalid(format!("{field}: {why}"))
    }

    /// If the time is over, that is what was wrong with something that could not be reached in it.
    pub(crate) fn after(self, deadline: super::deadline::Deadline) -> Trouble {
        match self {
            Trouble::Unavailable(why) if deadline.is_over() => Trouble::Deadline(why),
            other => other,
        }
    }

    fn code(&self) -> Code {
        match self {
            Trouble::Invalid(_) | Trouble::MissingProperty(_) | Trouble::TooLarge(_) => {
                Code::InvalidArgument
            }
            Trouble::WrongExpected { .. } | Trouble::Deleted => Code::FailedPrecondition,
            Trouble::Deadline(_) => Code::DeadlineExceeded,
            Trouble::Busy(_) | Trouble::Unavailable(_) => Code::Unavailable,
        }
    }

    fn message(&self, operation: &str, stream: &str) -> String {
        match self {
            Trouble::Invalid(why) | Trouble::Deadline(why) | Trouble::Unavailable(why) => {
                why.clone()
            }
            Trouble::MissingProperty(name) => {
                format!("metadata[{name}]: missing; every event needs `type` and `content-type`")
            }
            Trouble::TooLarge(why) => {
                format!("Maximum Append Size of {ENTRY_BYTES_MAX} Exceeded. {why}")
            }
            // The Python client takes this apart.
            Trouble::WrongExpected { expected, actual } => format!(
                "{operation} failed due to WrongExpectedVersion. Stream: {stream}, Expected version: {}, Actual version: {}",
                version(*expected),
                actual.map_or(-1, |revision| revision as i64),
            ),
            // The Python client looks for `is deleted`.
            Trouble::Deleted => format!("Event stream '{stream}' is deleted."),
            Trouble::Busy(retry_after) => {
                format!("busy: nothing was done; try again in {retry_after:?}")
            }
        }
    }

    /// The status of a call that did `operation` to `stream` (empty: to none).
    pub fn status(&self, operation: &str, stream: &str) -> Status {
        let mut trailers = MetadataMap::new();
        let mut add = |name: &'static str, value: String| {
            trailers.insert(name, ascii(&value));
        };
        match self {
            Trouble::MissingProperty(_) => {
                add("exception", "missing-required-metadata-property".into());
                add("required-metadata-properties", "type,content-type".into());
            }
            Trouble::TooLarge(_) => {
                add("exception", "maximum-append-size-exceeded".into());
                add("maximum-append-size", ENTRY_BYTES_MAX.to_string());
            }
            Trouble::WrongExpected { expected, actual } => {
                add("exception", "wrong-expected-version".into());
                add("stream-name", stream.into());
                add("expected-version", version(*expected).to_string());
                if let Some(actual) = actual {
                    add("actual-version", actual.to_string());
                }
            }
            Trouble::Deleted => {
                add("exception", "stream-deleted".into());
                add("stream-name", stream.into());
            }
            Trouble::Busy(after) => add("grpc-retry-pushback-ms", after.as_millis().to_string()),
            Trouble::Invalid(_) | Trouble::Deadline(_) | Trouble::Unavailable(_) => {}
        }
        Status::with_metadata(self.code(), self.message(operation, stream), trailers)
    }

    /// The error of one append of a batch.
    pub fn batch_error(&self, stream: &str) -> rpc::Status {
        let message = self.message("Append", stream);
        let details = match self {
            Trouble::Invalid(_) | Trouble::MissingProperty(_) => {
                any("BadRequest", &wire::BadRequest { message: message.clone() })
            }
            Trouble::TooLarge(_) => any(
                "MaximumAppendSizeExceeded",
                &wire::MaximumAppendSizeExceeded { max_append_size: ENTRY_BYTES_MAX as u32 },
            ),
            Trouble::WrongExpected { expected, actual } => {
                any("WrongExpectedVersion", &response::wrong_expected_detail(*expected, *actual))
            }
            Trouble::Deleted => {
                let name = stream.as_bytes().to_vec().into();
                let stream_identifier = Some(wire::StreamIdentifier { stream_name: name });
                any("StreamDeleted", &wire::StreamDeleted { stream_identifier })
            }
            Trouble::Deadline(_) => any("Timeout", &wire::Timeout {}),
            Trouble::Busy(_) | Trouble::Unavailable(_) => any("Unknown", &wire::Unknown {}),
        };
        rpc::Status { code: self.code() as i32, message, details: Some(details) }
    }
}

/// An expected state as the number that the protocol has for it.
fn version(expected: Expected) -> i64 {
    match expected {
        Expected::Any => -2,
        Expected::NoStream => -1,
        Expected::StreamExists => -4,
        Expected::Exactly(revision) => revision as i64,
    }
}

/// A trailer's value is ASCII: what is not is percent-encoded.
pub(crate) fn ascii(value: &str) -> AsciiMetadataValue {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' || value.is_ascii() => encoded.push(byte as char),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded.parse().unwrap_or_else(|_| AsciiMetadataValue::from_static(""))
}

fn any(name: &str, message: &impl Message) -> Any {
    let type_url = format!("type.googleapis.com/event_store.client.{name}");
    Any { type_url, value: message.encode_to_vec() }
}

impl From<AppendError> for Trouble {
    fn from(error: AppendError) -> Trouble {
        match error {
            AppendError::Invalid(invalid) => invalid.into(),
            AppendError::WrongExpectedRevision { expected, actual, .. } => {
                Trouble::WrongExpected { expected, actual }
            }
            AppendError::Tombstoned => Trouble::Deleted,
            AppendError::NotOwner { .. } | AppendError::Unavailable => {
                Trouble::Unavailable(error.to_string())
            }
            AppendError::Busy { retry_after } => Trouble::Busy(retry_after),
            AppendError::Unknown => Trouble::Deadline(
                "the outcome is unknown: append the same events again, with the same ids".into(),
            ),
        }
    }
}

impl From<InvalidAppend> for Trouble {
    fn from(invalid: InvalidAppend) -> Trouble {
        match invalid {
            InvalidAppend::EventTooLarge { .. } | InvalidAppend::AppendTooLarge { .. } => {
                Trouble::TooLarge(invalid.to_string())
            }
            InvalidAppend::NoEvents | InvalidAppend::TooManyEvents { .. } => {
                Trouble::Invalid(invalid.to_string())
            }
        }
    }
}

impl From<ReadError> for Trouble {
    fn from(error: ReadError) -> Trouble {
        match error {
            ReadError::Busy { retry_after } => Trouble::Busy(retry_after),
            ReadError::NotOwner { .. } | ReadError::Unavailable | ReadError::Trimmed => {
                Trouble::Unavailable(error.to_string())
            }
        }
    }
}

impl From<FollowError> for Trouble {
    fn from(error: FollowError) -> Trouble {
        match error {
            FollowError::Tombstoned => Trouble::Deleted,
            FollowError::Closing => Trouble::Unavailable(error.to_string()),
        }
    }
}

impl From<InvalidStreamName> for Trouble {
    fn from(error: InvalidStreamName) -> Trouble {
        Trouble::Invalid(error.to_string())
    }
}

impl From<InvalidFilter> for Trouble {
    fn from(error: InvalidFilter) -> Trouble {
        Trouble::Invalid(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trailer(status: &Status, name: &str) -> Option<String> {
        status.metadata().get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_wrong_version_says_which_as_numbers() {
        let trouble = Trouble::WrongExpected { expected: Expected::Exactly(7), actual: Some(3) };
        let status = trouble.status("Delete", "player-1");
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(
            status.message(),
            "Delete failed due to WrongExpectedVersion. Stream: player-1, Expected version: 7, Actual version: 3"
        );
        assert_eq!(trailer(&status, "exception").as_deref(), Some("wrong-expected-version"));
        assert_eq!(trailer(&status, "stream-name").as_deref(), Some("player-1"));
        assert_eq!(trailer(&status, "expected-version").as_deref(), Some("7"));
        assert_eq!(trailer(&status, "actual-version").as_deref(), Some("3"));
        let trouble = Trouble::WrongExpected { expected: Expected::StreamExists, actual: None };
        let status = trouble.status("Delete", "player-1");
        assert!(status.message().ends_with("Expected version: -4, Actual version: -1"));
        assert_eq!(trailer(&status, "actual-version"), None);
    }

    #[test]
    fn a_batch_carries_its_detail_in_one_any() {
        let trouble = Trouble::WrongExpected { expected: Expected::NoStream, actual: Some(3) };
        let error = trouble.batch_error("player-1");
        assert_eq!(error.code, Code::FailedPrecondition as i32);
        let any = error.details.unwrap();
        assert_eq!(any.type_url, "type.googleapis.com/event_store.client.WrongExpectedVersion");
        let detail = wire::WrongExpectedVersion::decode(any.value.as_slice()).unwrap();
        assert_eq!(detail, response::wrong_expected_detail(Expected::NoStream, Some(3)));
        let deleted = Trouble::Deleted.batch_error("player-1").details.unwrap();
        assert_eq!(deleted.type_url, "type.googleapis.com/event_store.client.StreamDeleted");
        let detail = wire::StreamDeleted::decode(deleted.value.as_slice()).unwrap();
        assert_eq!(detail.stream_identifier.unwrap().stream_name.as_ref(), b"player-1");
        let timeout = Trouble::Deadline(String::new()).batch_error("x").details.unwrap();
        assert_eq!(timeout.type_url, "type.googleapis.com/event_store.client.Timeout");
        let large = Trouble::TooLarge(String::new()).batch_error("x").details.unwrap();
        let detail = wire::MaximumAppendSizeExceeded::decode(large.value.as_slice()).unwrap();
        assert_eq!(detail.max_append_size as usize, ENTRY_BYTES_MAX);
    }

    #[test]
    fn sizes_busyness_and_unknown_outcomes_have_their_codes() {
        let large = AppendError::Invalid(InvalidAppend::AppendTooLarge { bytes: 2_000_000 });
        let status = Trouble::from(large).status("Append", "s");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(trailer(&status, "exception").as_deref(), Some("maximum-append-size-exceeded"));
        let bytes = ENTRY_BYTES_MAX.to_string();
        assert_eq!(trailer(&status, "maximum-append-size"), Some(bytes));
        let busy = AppendError::Busy { retry_after: Duration::from_millis(250) };
        let status = Trouble::from(busy).status("Append", "s");
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains("250ms"));
        assert_eq!(trailer(&status, "grpc-retry-pushback-ms").as_deref(), Some("250"));
        let status = Trouble::from(AppendError::Unknown).status("Append", "s");
        assert_eq!(status.code(), Code::DeadlineExceeded);
        let status = Trouble::from(AppendError::Tombstoned).status("Append", "s");
        assert_eq!(status.message(), "Event stream 's' is deleted.");
        assert_eq!(trailer(&status, "exception").as_deref(), Some("stream-deleted"));
    }

    #[test]
    fn a_name_that_no_trailer_can_hold_is_encoded() {
        let status = Trouble::Deleted.status("Read", "größe-1");
        assert_eq!(trailer(&status, "stream-name").as_deref(), Some("gr%C3%B6%C3%9Fe-1"));
        let status = Trouble::Deleted.status("Read", "100%");
        assert_eq!(trailer(&status, "stream-name").as_deref(), Some("100%"));
    }
}
