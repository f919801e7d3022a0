//! Errors, in the codes, trailers and details that the clients turn into exceptions of their own.

use stormkeep_core::{
    append::{AppendError, Expected, ReadError},
    limits::{ENTRY_BYTES_MAX, InvalidAppend},
    stream::StreamName,
};
use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};

use super::message::identifier;
use crate::{
    api::proto::{
        rpc,
        shared::{
            BadRequest, MaximumAppendSizeExceeded, StreamDeleted, Timeout, Unknown,
            WrongExpectedVersion, wrong_expected_version,
        },
    },
    follow::FollowError,
};

/// What the clients know an error by.
fn with_exception(
    code: Code,
    message: String,
    exception: &'static str,
    pairs: &[(&'static str, String)],
) -> Status {
    let mut trailers = MetadataMap::new();
    trailers.insert("exception", MetadataValue::from_static(exception));
    for (key, value) in pairs {
        // Trailers are ASCII; what is not is escaped as in a URI.
        let escaped: String = value
            .bytes()
            .map(|b| match b {
                b' '..=b'~' if b != b'%' => char::from(b).to_string(),
                b => format!("%{b:02X}"),
            })
            .collect();
        if let Ok(value) = escaped.parse() {
            trailers.insert(*key, value);
        }
    }
    Status::with_metadata(code, message, trailers)
}

/// The stream has a tombstone.
pub(super) fn deleted(stream: &StreamName) -> Status {
    let message = format!("Event stream '{stream}' is deleted.");
    let pairs = [("stream-name", stream.to_string())];
    with_exception(Code::FailedPrecondition, message, "stream-deleted", &pairs)
}

/// An expected state, in the numbers of the protocol.
fn number(expected: Expected) -> i64 {
    match expected {
        Expected::Exactly(revision) => i64::try_from(revision).unwrap_or(i64::MAX),
        Expected::NoStream => -1,
        Expected::Any => -2,
        Expected::StreamExists => -4,
    }
}

/// An append, a deletion or a tombstone failed. An append that met another revision than it expected is no error of the
/// call: see [`append`](super::append).
pub(super) fn append(stream: &StreamName, error: &AppendError) -> Status {
    match error {
        AppendError::Invalid(
            invalid @ (InvalidAppend::EventTooLarge { .. } | InvalidAppend::AppendTooLarge { .. }),
        ) => {
            let pairs = [("maximum-append-size", ENTRY_BYTES_MAX.to_string())];
            let exception = "maximum-append-size-exceeded";
            with_exception(Code::InvalidArgument, invalid.to_string(), exception, &pairs)
        }
        AppendError::Invalid(invalid) => Status::invalid_argument(invalid.to_string()),
        AppendError::WrongExpectedRevision { expected, actual, .. } => {
            let expected = number(*expected);
            let actual_number = actual.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX));
            let message = format!(
                "Append failed due to WrongExpectedVersion. Stream: {stream}, Expected version: {expected}, Actual version: {actual_number}"
            );
            let mut pairs = vec![
                ("stream-name", stream.to_string()),
                ("expected-version", expected.to_string()),
            ];
            pairs.extend(actual.map(|actual| ("actual-version", actual.to_string())));
            let exception = "wrong-expected-version";
            with_exception(Code::FailedPrecondition, message, exception, &pairs)
        }
        AppendError::Tombstoned => deleted(stream),
        AppendError::NotOwner { .. } | AppendError::Unavailable => {
            Status::unavailable(AppendError::Unavailable.to_string())
        }
        AppendError::Busy { .. } => Status::unavailable(error.to_string()),
        AppendError::Unknown => Status::deadline_exceeded(
            "no answer in time: the append may have happened; ask again with the same event ids",
        ),
    }
}

/// A read failed.
pub(super) fn read(error: &ReadError) -> Status {
    match error {
        ReadError::Trimmed => Status::out_of_range(error.to_string()),
        _ => Status::unavailable(error.to_string()),
    }
}

/// A subscription ended.
pub(super) fn follow(stream: Option<&StreamName>, error: &FollowError) -> Status {
    match (error, stream) {
        (FollowError::Tombstoned, Some(stream)) => deleted(stream),
        _ => Status::unavailable(error.to_string()),
    }
}

/// One append of a batch failed.
pub(super) fn batch(stream: &StreamName, error: &AppendError) -> rpc::Status {
    let message = error.to_string();
    match error {
        AppendError::WrongExpectedRevision { expected, actual, .. } => {
            use wrong_expected_version::{
                CurrentStreamRevisionOption as Current, ExpectedStreamPositionOption as Given,
            };
            let current =
                actual.map_or(Current::CurrentNoStream(()), Current::CurrentStreamRevision);
            let given = match expected {
                Expected::Any => Given::ExpectedAny(()),
                Expected::NoStream => Given::ExpectedNoStream(()),
                Expected::StreamExists => Given::ExpectedStreamExists(()),
                Expected::Exactly(revision) => Given::ExpectedStreamPosition(*revision),
            };
            let details = WrongExpectedVersion {
                current_stream_revision_option: Some(current),
                expected_stream_position_option: Some(given),
            };
            status(Code::FailedPrecondition, message, "WrongExpectedVersion", &details)
        }
        AppendError::Tombstoned => {
            let details = StreamDeleted { stream_identifier: Some(identifier(stream)) };
            status(Code::FailedPrecondition, message, "StreamDeleted", &details)
        }
        AppendError::Invalid(
            InvalidAppend::EventTooLarge { .. } | InvalidAppend::AppendTooLarge { .. },
        ) => {
            let max_append_size = ENTRY_BYTES_MAX as u32;
            let details = MaximumAppendSizeExceeded { max_append_size };
            status(Code::InvalidArgument, message, "MaximumAppendSizeExceeded", &details)
        }
        AppendError::Invalid(_) => bad_request(message),
        AppendError::Unknown => status(Code::DeadlineExceeded, message, "Timeout", &Timeout {}),
        AppendError::NotOwner { .. } | AppendError::Unavailable | AppendError::Busy { .. } => {
            status(Code::Unavailable, message, "Unknown", &Unknown {})
        }
    }
}

/// One append of a batch makes no sense.
pub(super) fn bad_request(message: String) -> rpc::Status {
    let details = BadRequest { message: message.clone() };
    status(Code::InvalidArgument, message, "BadRequest", &details)
}

fn status(code: Code, message: String, name: &str, details: &impl prost::Message) -> rpc::Status {
    let details = prost_types::Any {
        type_url: format!("type.googleapis.com/event_store.client.{name}"),
        value: details.encode_to_vec(),
    };
    rpc::Status { code: code as i32, message, details: Some(details) }
}
