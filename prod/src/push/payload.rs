//! What a handler is sent: as many events as fit, in one of two forms.
//!
//! Both forms name each event by its position, which no other event has: an answer names those that failed by it.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::value::RawValue;
use stormkeep_core::{
    consume::Given,
    env::Handled,
    event::Format,
    group::{Form, GroupId},
    stream::StreamName,
};
use uuid::Uuid;

use crate::api::http::{EventOutput, date_time};

/// The version of the envelope: it changes when a field goes or means something else; fields may be added to it.
const VERSION: u32 = 1;

/// A request's body, and what it leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Payload {
    pub(super) body: Bytes,
    /// Which of the delivery's events are in it.
    pub(super) sent: Vec<usize>,
    /// What became of each event so far: of those that are sent, nobody knows.
    pub(super) handled: Vec<Handled>,
}

impl Payload {
    /// What became of all events, once it is known of those that were sent.
    pub(super) fn with(self, handled: Vec<Handled>) -> Vec<Handled> {
        let mut all = self.handled;
        for (at, handled) in self.sent.into_iter().zip(handled) {
            all[at] = handled;
        }
        all
    }
}

/// The content type of a body of this form.
pub(super) fn content_type(form: Form) -> &'static str {
    match form {
        Form::Records => "application/json",
        Form::CloudEvents => "application/cloudevents-batch+json",
    }
}

/// Takes events, in their order, as long as they fit in so many bytes. What comes behind them is given again; an event that does
/// not fit by itself has failed, and what is behind it in its stream waits for it.
pub(super) fn encode(group: &GroupId, events: &[Given], form: Form, bytes_max: usize) -> Payload {
    let (head, tail) = match form {
        Form::Records => (envelope(group), "]}"),
        Form::CloudEvents => ("[".to_owned(), "]"),
    };
    let room = bytes_max.saturating_sub(head.len() + tail.len());
    let (mut body, mut used) = (head, 0);
    let (mut sent, mut handled) = (Vec::new(), Vec::with_capacity(events.len()));
    let mut waiting: BTreeSet<&StreamName> = BTreeSet::new();
    for (at, given) in events.iter().enumerate() {
        let stream = &given.event.stream;
        if waiting.contains(stream) {
            handled.push(Handled::NotKnown);
            continue;
        }
        let record = match form {
            Form::Records => record(given),
            Form::CloudEvents => cloud_event(given),
        };
        let record = match record {
            Ok(record) if record.len() <= room => record,
            Ok(record) => {
                waiting.insert(stream);
                handled.push(Handled::Failed(format!(
                    "the event is {} bytes in JSON, and a handler is sent {room} at the most",
                    record.len()
                )));
                continue;
            }
            Err(error) => {
                waiting.insert(stream);
                handled.push(Handled::Failed(format!("the event cannot be put as JSON: {error}")));
                continue;
            }
        };
        let comma = usize::from(!sent.is_empty());
        if used + comma + record.len() > room {
            handled.resize(events.len(), Handled::NotKnown);
            break;
        }
        used += comma + record.len();
        if comma == 1 {
            body.push(',');
        }
        body.push_str(&record);
        sent.push(at);
        handled.push(Handled::NotKnown);
    }
    body.push_str(tail);
    Payload { body: body.into(), sent, handled }
}

fn envelope(group: &GroupId) -> String {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    format!(
        r#"{{"version":{VERSION},"source":{},"group":{},"records":["#,
        text(&group.source.to_string()),
        text(&group.name)
    )
}

/// An event as it is shown everywhere, and what a handler needs besides.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    #[serde(flatten)]
    event: EventOutput<'a>,
    append_id: Uuid,
    retries: u32,
}

fn record(given: &Given) -> serde_json::Result<String> {
    serde_json::to_string(&Record {
        event: EventOutput::of(&given.event),
        append_id: Uuid::from_u128(given.event.append.0),
        retries: given.retries,
    })
}

/// What stands in a path as it is. Source: RFC 3986, section 2.3.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An event by CloudEvents 1.0.2, "JSON Event Format". Revision and position have more bits than its integers.
#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: &'a str,
    subject: &'a str,
    time: String,
    datacontenttype: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
    revision: String,
    eventid: Uuid,
    appendid: Uuid,
    retries: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadatabase64: Option<String>,
}

fn cloud_event(given: &Given) -> serde_json::Result<String> {
    let recorded = &given.event;
    let event = &recorded.event;
    let stream = recorded.stream.as_str();
    let is_json = event.format == Format::Json;
    let data = is_json.then(|| serde_json::from_slice(&event.data).ok()).flatten();
    let metadata = std::str::from_utf8(&event.metadata).ok();
    serde_json::to_string(&CloudEvent {
        specversion: "1.0",
        id: recorded.position().to_string(),
        source: format!("/streams/{}", utf8_percent_encode(stream, PATH)),
        kind: &event.kind,
        subject: stream,
        time: date_time(recorded.time),
        datacontenttype: if is_json { "application/json" } else { "application/octet-stream" },
        data,
        data_base64: data.is_none().then(|| BASE64.encode(&event.data)),
        revision: recorded.revision.to_string(),
        eventid: Uuid::from_u128(event.id.0),
        appendid: Uuid::from_u128(recorded.append.0),
        retries: given.retries,
        metadata: metadata.filter(|text| !text.is_empty()),
        metadatabase64: metadata.is_none().then(|| BASE64.encode(&event.metadata)),
    })
}

#[cfg(test)]
pub(super) mod tests;
