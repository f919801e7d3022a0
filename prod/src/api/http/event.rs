//! Events as JSON, both ways.
//!
//! What a client wrote as JSON is kept, and given back, byte for byte: numbers keep their digits, objects their
//! order. What is no JSON goes as base64. Positions are strings, since they have more bits than the numbers of
//! JavaScript; revisions are numbers.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use stormkeep_core::{
    event::{Event, EventId, Format, RecordedEvent},
    time::HybridTime,
};
use uuid::Uuid;

/// What the payload of an event is, as its writer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FormatName {
    /// JSON.
    Json,
    /// Anything.
    Bytes,
}

/// An event that a client sends.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EventInput {
    /// A UUID; made up if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// JSON payload.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
    /// Any other payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
    /// What a payload in base64 is; `bytes` if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<FormatName>,
    /// What goes with the payload, in JSON.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<RawValue>>,
    /// What goes with the payload, if it is no JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_base64: Option<String>,
}

/// `null` is a value here, and not the lack of one.
pub(crate) fn present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

impl EventInput {
    /// The event, or which field makes no sense and why. `id` is taken if the event has none.
    pub fn event(self, id: impl FnOnce() -> EventId) -> Result<Event, String> {
        let id = match self.id {
            Some(text) => EventId(uuid(&text).map_err(|error| format!("id: {error}"))?),
            None => id(),
        };
        let (format, data) = match (self.data, self.data_base64) {
            (Some(_), Some(_)) => return Err("data: give either data or dataBase64".into()),
            (None, None) => return Err("data: it is missing; give data or dataBase64".into()),
            (Some(json), None) => (Format::Json, bytes(json)),
            (None, Some(text)) => {
                let format = match self.format {
                    Some(FormatName::Json) => Format::Json,
                    _ => Format::Bytes,
                };
                (format, decode("dataBase64", &text)?)
            }
        };
        let metadata = match (self.metadata, self.metadata_base64) {
            (Some(_), Some(_)) => {
                return Err("metadata: give either metadata or metadataBase64".into());
            }
            (None, None) => Bytes::new(),
            (Some(json), None) => bytes(json),
            (None, Some(text)) => decode("metadataBase64", &text)?,
        };
        Ok(Event { id, kind: self.kind.into(), format, data, metadata })
    }
}

fn bytes(json: Box<RawValue>) -> Bytes {
    Bytes::from(String::from(Box::<str>::from(json)))
}

fn decode(field: &str, text: &str) -> Result<Bytes, String> {
    let decoded = BASE64.decode(text);
    decoded.map(Bytes::from).map_err(|error| format!("{field}: no base64 of RFC 4648: {error}"))
}

/// Reads a UUID.
pub fn uuid(text: &str) -> Result<u128, String> {
    let uuid = Uuid::try_parse(text);
    uuid.map(|uuid| uuid.as_u128()).map_err(|error| format!("`{text}` is no UUID: {error}"))
}

/// A payload as it goes out.
enum Payload<'a> {
    Json(&'a RawValue),
    Base64(String),
}

impl<'a> Payload<'a> {
    fn of(bytes: &'a [u8], is_json: bool) -> Self {
        let json = is_json.then(|| serde_json::from_slice(bytes).ok()).flatten();
        json.map_or_else(|| Payload::Base64(BASE64.encode(bytes)), Payload::Json)
    }

    fn split(self) -> (Option<&'a RawValue>, Option<String>) {
        match self {
            Payload::Json(json) => (Some(json), None),
            Payload::Base64(text) => (None, Some(text)),
        }
    }
}

/// An event that is read.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventOutput<'a> {
    stream: &'a str,
    revision: u64,
    position: String,
    id: Uuid,
    #[serde(rename = "type")]
    kind: &'a str,
    created: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
    format: FormatName,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_base64: Option<String>,
}

impl<'a> EventOutput<'a> {
    /// Shows an event.
    pub(crate) fn of(recorded: &'a RecordedEvent) -> Self {
        let event = &recorded.event;
        let (format, is_json) = match event.format {
            Format::Json => (FormatName::Json, true),
            Format::Bytes => (FormatName::Bytes, false),
        };
        let (data, data_base64) = Payload::of(&event.data, is_json).split();
        let (metadata, metadata_base64) = match event.metadata.is_empty() {
            true => (None, None),
            false => Payload::of(&event.metadata, true).split(),
        };
        EventOutput {
            stream: recorded.stream.as_str(),
            revision: recorded.revision,
            position: recorded.position().to_string(),
            id: Uuid::from_u128(event.id.0),
            kind: &event.kind,
            created: date_time(recorded.time),
            data,
            data_base64,
            format,
            metadata,
            metadata_base64,
        }
    }
}

/// An event as it is shown in pages.
pub fn event_json(recorded: &RecordedEvent) -> serde_json::Result<String> {
    serde_json::to_string(&EventOutput::of(recorded))
}

/// A time as RFC 3339 in UTC with microseconds.
pub fn date_time(time: HybridTime) -> String {
    let (seconds, us) = (time.0 / 1_000_000, time.0 % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{us:06}Z")
}

/// The date so many days after 1970-01-01. Source: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms",
/// `civil_from_days`: years begin in March, in eras of 146,097 days.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + u64::from(month <= 2), month, date)
}

#[cfg(test)]
mod tests {
    use stormkeep_core::{append::AppendId, shard::ShardId, stream::StreamName};

    use super::*;

    fn shown(event: Event) -> String {
        let stream = StreamName::new("player-1").unwrap();
        let (shard, time, append) = (ShardId(0), HybridTime(1_700_000_000_123_456), AppendId(1));
        let recorded = RecordedEvent { stream, revision: 7, shard, time, append, event };
        serde_json::to_string(&EventOutput::of(&recorded)).unwrap()
    }

    fn taken(json: &str) -> Result<Event, String> {
        serde_json::from_str::<EventInput>(json).unwrap().event(|| EventId(9))
    }

    #[test]
    fn what_was_json_comes_back_byte_for_byte() {
        let data = r#"{"z": 12345678901234567890.10, "a":[ 1,2 ],"a":null}"#;
        let event = taken(&format!(r#"{{"type":"t","data":{data},"metadata":null}}"#)).unwrap();
        assert_eq!((&event.data[..], event.format), (data.as_bytes(), Format::Json));
        assert_eq!((&event.metadata[..], event.id), (&b"null"[..], EventId(9)));
        let shown = shown(event);
        assert!(
            shown.contains(&format!(r#""data":{data},"format":"json","metadata":null"#)),
            "{shown}"
        );
        assert!(shown.contains(r#""created":"2023-11-14T22:13:20.123456Z""#), "{shown}");
        assert!(shown.contains(r#""position":"6963200000505675776","#), "{shown}");
    }

    #[test]
    fn what_was_no_json_comes_back_as_it_was() {
        let event = taken(r#"{"type":"t","dataBase64":"/wA="}"#).unwrap();
        assert_eq!((&event.data[..], event.format), (&[255, 0][..], Format::Bytes));
        let text = shown(event);
        assert!(text.contains(r#""dataBase64":"/wA=","format":"bytes"}"#), "{text}");
        // Its writer said that it is JSON, and it is not.
        let event = taken(r#"{"type":"t","dataBase64":"/wA=","format":"json"}"#).unwrap();
        assert_eq!(event.format, Format::Json);
        assert!(shown(event).contains(r#""dataBase64":"/wA=","format":"json"}"#));
    }

    #[test]
    fn a_field_that_makes_no_sense_is_named() {
        let error = |json: &str| taken(json).unwrap_err();
        assert!(error(r#"{"type":"t"}"#).starts_with("data: it is missing"));
        assert!(error(r#"{"type":"t","data":1,"dataBase64":""}"#).starts_with("data: give either"));
        assert!(error(r#"{"type":"t","dataBase64":"*"}"#).starts_with("dataBase64: no base64"));
        assert!(error(r#"{"type":"t","data":1,"id":"7"}"#).starts_with("id: `7` is no UUID"));
        assert!(serde_json::from_str::<EventInput>(r#"{"typ":"t"}"#).is_err());
    }

    #[test]
    fn dates_are_right_around_leap_days() {
        let date = |seconds: u64| date_time(HybridTime(seconds * 1_000_000));
        assert_eq!(date(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(date(951_782_400), "2000-02-29T00:00:00.000000Z");
        assert_eq!(date(1_709_251_199), "2024-02-29T23:59:59.000000Z");
        assert_eq!(date(4_107_542_400), "2100-03-01T00:00:00.000000Z");
    }
}
