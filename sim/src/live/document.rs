//! The documents of the JSON API, as the crowd needs them.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stormkeep_core::{
    append::{Append, AppendId, Appended, Expected},
    event::{Event, EventId, Format, RecordedEvent},
    shard::ShardId,
    stream::StreamName,
    time::{GlobalPosition, HybridTime},
};
use uuid::Uuid;

/// Bits of a position that name the shard.
const SHARD_BITS: u32 = 12;

/// Which append brought an event: the API does not say, but clients know what they have sent.
pub(super) type Brought = BTreeMap<EventId, AppendId>;

/// An event that is sent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Sent<'a> {
    id: Uuid,
    #[serde(rename = "type")]
    kind: &'a str,
    data_base64: String,
}

/// An event that is read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Read {
    stream: String,
    revision: u64,
    position: String,
    id: Uuid,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data_base64: Option<String>,
    format: String,
    #[serde(default)]
    metadata: Option<serde_json::Value>,
}

/// A page of a stream.
#[derive(Debug, Deserialize)]
pub(super) struct StreamPage {
    pub(super) exists: bool,
    pub(super) head: Option<u64>,
    pub(super) events: Vec<Read>,
    pub(super) next: Option<u64>,
    pub(super) end: bool,
}

/// A page of all streams.
#[derive(Debug, Deserialize)]
pub(super) struct AllPage {
    pub(super) events: Vec<Read>,
    pub(super) next: Option<String>,
    pub(super) end: bool,
}

/// The answer to an append.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Done {
    first_revision: u64,
    last_revision: u64,
    position: String,
    repeated: bool,
}

/// A problem.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Problem {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    pub(super) detail: String,
    #[serde(default)]
    pub(super) actual: Option<u64>,
    #[serde(default)]
    pub(super) last_revision: Option<u64>,
    #[serde(default)]
    pub(super) retry_after_ms: Option<u64>,
}

impl Problem {
    /// The last part of its type.
    pub(super) fn name(&self) -> &str {
        self.kind.rsplit(':').next().unwrap_or_default()
    }
}

/// A position, as text.
pub(super) fn position(text: &str) -> Result<GlobalPosition, String> {
    let parsed = text.parse().map(GlobalPosition);
    parsed.map_err(|error| format!("position {text:?}: {error}"))
}

/// The shard and the time of a position. Shards of a live run have small numbers.
fn place(position: GlobalPosition) -> (ShardId, HybridTime) {
    let low = position.0 & ((1 << SHARD_BITS) - 1);
    (ShardId(low as u32), position.time())
}

/// The body of an append.
pub(super) fn body(append: &Append) -> Result<Bytes, String> {
    let events = append.events.iter().map(|event| {
        let plain = event.format == Format::Bytes && event.metadata.is_empty();
        plain.then(|| Sent {
            id: Uuid::from_u128(event.id.0),
            kind: &event.kind,
            data_base64: BASE64.encode(&event.data),
        })
    });
    let events: Option<Vec<Sent<'_>>> = events.collect();
    let events = events.ok_or("an event that a live run cannot send")?;
    serde_json::to_vec(&events).map(Bytes::from).map_err(|error| error.to_string())
}

/// What an append expects, as its header says it.
pub(super) fn expected(expected: Expected) -> String {
    match expected {
        Expected::Any => "any".into(),
        Expected::NoStream => "no-stream".into(),
        Expected::StreamExists => "exists".into(),
        Expected::Exactly(revision) => revision.to_string(),
    }
}

impl Done {
    /// The answer. The API does not name epochs: all are the first.
    pub(super) fn appended(&self) -> Result<Appended, String> {
        let (first, last) = (self.first_revision, self.last_revision);
        let (shard, time) = place(position(&self.position)?);
        let before = last.checked_sub(first).and_then(|more| time.0.checked_sub(more));
        let time = HybridTime(before.ok_or("its last revision is before its first")?);
        let (answered_by, repeated) = (shard, self.repeated);
        Ok(Appended { shard, answered_by, epoch: 1, first, last, time, repeated })
    }
}

impl Read {
    /// The event. One that nobody of this run has sent is of an append of its own.
    pub(super) fn recorded(self, brought: &Brought) -> Result<RecordedEvent, String> {
        let (shard, time) = place(position(&self.position)?);
        let stream = StreamName::new(self.stream).map_err(|error| error.to_string())?;
        let id = EventId(self.id.as_u128());
        let append = brought.get(&id).copied().unwrap_or(AppendId(id.0));
        let format = match self.format.as_str() {
            "bytes" => Format::Bytes,
            _ => Format::Json,
        };
        let data = BASE64.decode(self.data_base64.unwrap_or_default());
        let data = data.map_err(|error| format!("data of {stream}: {error}"))?.into();
        let metadata = self.metadata.map_or(Bytes::new(), |json| json.to_string().into());
        let event = Event { id, kind: self.kind.into(), format, data, metadata };
        Ok(RecordedEvent { stream, revision: self.revision, shard, time, append, event })
    }
}

/// The events of a page.
pub(super) fn recorded(events: Vec<Read>, brought: &Brought) -> Result<Vec<RecordedEvent>, String> {
    events.into_iter().map(|event| event.recorded(brought)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_tells_shard_and_time_of_the_first_event() {
        let position = GlobalPosition::of(HybridTime(1_000_002), ShardId(3));
        let text = format!(
            r#"{{"stream":"a","firstRevision":4,"lastRevision":6,"position":"{position}","repeated":true}}"#
        );
        let done: Done = serde_json::from_str(&text).expect("it is JSON");
        let appended = done.appended().expect("it makes sense");
        assert_eq!((appended.shard, appended.time), (ShardId(3), HybridTime(1_000_000)));
        assert_eq!((appended.first, appended.last, appended.repeated), (4, 6, true));
        assert_eq!(appended.position(), position);
    }

    #[test]
    fn what_is_read_is_what_was_sent() {
        let (id, append) = (EventId(77), AppendId(5));
        let position = GlobalPosition::of(HybridTime(9), ShardId(1));
        let text = format!(
            r#"{{"stream":"a-1","revision":2,"position":"{position}","id":"{}","type":"moved","created":"x","dataBase64":"/wA=","format":"bytes"}}"#,
            Uuid::from_u128(77)
        );
        let read: Read = serde_json::from_str(&text).expect("it is JSON");
        let event = read.recorded(&Brought::from([(id, append)])).expect("it makes sense");
        assert_eq!((event.append, event.shard, event.revision), (append, ShardId(1), 2));
        assert_eq!((event.event.id, &event.event.data[..]), (id, &[255, 0][..]));
        let stranger: Read = serde_json::from_str(&text).expect("it is JSON");
        let event = stranger.recorded(&Brought::new()).expect("it makes sense");
        assert_eq!(event.append, AppendId(77));
    }

    #[test]
    fn a_problem_is_known_by_the_end_of_its_type() {
        let text = r#"{"type":"urn:stormkeep:problem:busy","title":"t","status":503,"detail":"d","retryAfterMs":7}"#;
        let problem: Problem = serde_json::from_str(text).expect("it is JSON");
        assert_eq!((problem.name(), problem.retry_after_ms), ("busy", Some(7)));
    }
}
