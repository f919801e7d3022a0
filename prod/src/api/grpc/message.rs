//! Between the messages of the protocol and the words of the core.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use stormkeep_core::{
    append::Expected,
    event::{Event, EventId, Format, RecordedEvent},
    stream::StreamName,
};
use tonic::Status;
use uuid::Uuid;

use crate::api::proto::{
    shared::{self, StreamIdentifier},
    streams::{append_req, batch_append_req, delete_req, read_resp, tombstone_req},
};

const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";

pub(super) fn stream_name(identifier: Option<StreamIdentifier>) -> Result<StreamName, Status> {
    let missing = || Status::invalid_argument("options.stream_identifier is missing");
    let name = identifier.ok_or_else(missing)?.stream_name;
    let name = std::str::from_utf8(&name).map_err(|error| {
        Status::invalid_argument(format!(
            "options.stream_identifier.stream_name: not UTF-8 from byte {} on",
            error.valid_up_to()
        ))
    })?;
    StreamName::new(name).map_err(|error| {
        Status::invalid_argument(format!("options.stream_identifier.stream_name: {error}"))
    })
}

pub(super) fn identifier(stream: &StreamName) -> StreamIdentifier {
    StreamIdentifier { stream_name: Bytes::copy_from_slice(stream.as_str().as_bytes()) }
}

pub(super) fn uuid_of(id: Option<shared::Uuid>, field: &str) -> Result<Uuid, Status> {
    let wrong = |what: &str| Status::invalid_argument(format!("{field}: {what}"));
    match id.and_then(|id| id.value).ok_or_else(|| wrong("the UUID is missing"))? {
        shared::uuid::Value::Structured(halves) => Ok(Uuid::from_u64_pair(
            halves.most_significant_bits.cast_unsigned(),
            halves.least_significant_bits.cast_unsigned(),
        )),
        shared::uuid::Value::String(text) => {
            Uuid::parse_str(&text).map_err(|_| wrong("the text is no UUID"))
        }
    }
}

pub(super) fn uuid(id: Uuid, structured: bool) -> shared::Uuid {
    let value = if structured {
        let (high, low) = id.as_u64_pair();
        shared::uuid::Value::Structured(shared::uuid::Structured {
            most_significant_bits: high.cast_signed(),
            least_significant_bits: low.cast_signed(),
        })
    } else {
        shared::uuid::Value::String(id.to_string())
    };
    shared::Uuid { value: Some(value) }
}

/// An event as a client proposes it.
pub(super) struct Proposed {
    pub(super) id: Option<shared::Uuid>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) custom_metadata: Bytes,
    pub(super) data: Bytes,
}

impl From<append_req::ProposedMessage> for Proposed {
    fn from(message: append_req::ProposedMessage) -> Self {
        let append_req::ProposedMessage { id, metadata, custom_metadata, data } = message;
        Proposed { id, metadata, custom_metadata, data }
    }
}

impl From<batch_append_req::ProposedMessage> for Proposed {
    fn from(message: batch_append_req::ProposedMessage) -> Self {
        let batch_append_req::ProposedMessage { id, metadata, custom_metadata, data } = message;
        Proposed { id, metadata, custom_metadata, data }
    }
}

impl Proposed {
    /// The event; `number` counts the events of its append from 0.
    pub(super) fn event(mut self, number: usize) -> Result<Event, Status> {
        let field = |name: &str| format!("proposed_message[{number}].{name}");
        let id = uuid_of(self.id, &field("id"))?;
        let missing = || {
            let field = field("metadata[\"type\"]");
            Status::invalid_argument(format!("{field}: the event's type is missing"))
        };
        let kind = self.metadata.remove("type").filter(|kind| !kind.is_empty());
        let kind = kind.ok_or_else(missing)?;
        let format = match self.metadata.get("content-type").map(String::as_str) {
            Some(JSON) => Format::Json,
            Some(BYTES) | None => Format::Bytes,
            Some(other) => {
                let field = field("metadata[\"content-type\"]");
                return Err(Status::invalid_argument(format!(
                    "{field}: {other:?}; it is {JSON} or {BYTES}"
                )));
            }
        };
        Ok(Event {
            id: EventId(id.as_u128()),
            kind: kind.into(),
            format,
            data: self.data,
            metadata: self.custom_metadata,
        })
    }
}

pub(super) fn recorded(event: &RecordedEvent, structured: bool) -> read_resp::ReadEvent {
    let position = event.position().0;
    let content_type = match event.event.format {
        Format::Json => JSON,
        Format::Bytes => BYTES,
    };
    let metadata = [
        ("type", event.event.kind.to_string()),
        ("content-type", content_type.to_owned()),
        // Ticks of 100 ns since 1970, as the clients read it.
        ("created", (event.time.0 * 10).to_string()),
    ];
    let recorded = read_resp::read_event::RecordedEvent {
        id: Some(uuid(Uuid::from_u128(event.event.id.0), structured)),
        stream_identifier: Some(identifier(&event.stream)),
        stream_revision: event.revision,
        prepare_position: position,
        commit_position: position,
        metadata: metadata.map(|(key, value)| (key.to_owned(), value)).into(),
        custom_metadata: event.event.metadata.clone(),
        data: event.event.data.clone(),
    };
    read_resp::ReadEvent {
        event: Some(recorded),
        link: None,
        position: Some(read_resp::read_event::Position::CommitPosition(position)),
    }
}

/// Now, as the protocol says it.
pub(super) fn timestamp() -> prost_types::Timestamp {
    SystemTime::now().into()
}

/// How long a deadline at this time is away.
pub(super) fn until(deadline: prost_types::Timestamp) -> Duration {
    let seconds = u64::try_from(deadline.seconds).unwrap_or(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_secs(seconds).saturating_sub(now)
}

macro_rules! expected {
    ($name:ident, $options:path) => {
        /// What a call demands of its stream.
        pub(super) fn $name(expected: Option<$options>) -> Result<Expected, Status> {
            use $options as Given;
            match expected {
                Some(Given::Revision(revision)) => Ok(Expected::Exactly(revision)),
                Some(Given::NoStream(_)) => Ok(Expected::NoStream),
                Some(Given::Any(_)) => Ok(Expected::Any),
                Some(Given::StreamExists(_)) => Ok(Expected::StreamExists),
                None => {
                    Err(Status::invalid_argument("options.expected_stream_revision is missing"))
                }
            }
        }
    };
}

expected!(append_expected, append_req::options::ExpectedStreamRevision);
expected!(delete_expected, delete_req::options::ExpectedStreamRevision);
expected!(tombstone_expected, tombstone_req::options::ExpectedStreamRevision);
