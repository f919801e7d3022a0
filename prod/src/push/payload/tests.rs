#![allow(clippy::unwrap_used)] // a test: what is wrong here must stop it

use serde_json::{Value, json};
use stormkeep_core::{
    append::AppendId,
    event::{Event, EventId, RecordedEvent},
    group::Source,
    shard::ShardId,
    time::HybridTime,
};

use super::*;

pub(in crate::push) fn group() -> GroupId {
    GroupId::new(Source::Category("player".into()), "scores").unwrap()
}

/// An event of a stream; its revision is its place.
pub(in crate::push) fn given(stream: &str, revision: u64, data: &[u8]) -> Given {
    let event = Event {
        id: EventId(0xe000 + u128::from(revision)),
        kind: "scored".into(),
        format: Format::Json,
        data: Bytes::copy_from_slice(data),
        metadata: Bytes::new(),
    };
    let event = RecordedEvent {
        stream: StreamName::new(stream).unwrap(),
        revision,
        shard: ShardId(0),
        time: HybridTime(1_700_000_000_123_456 + revision),
        append: AppendId(0xa),
        event,
    };
    Given { place: revision, delivery: 1, retries: 3, event }
}

fn all(events: &[Given], form: Form) -> Value {
    let payload = encode(&group(), events, form, usize::MAX);
    assert_eq!(payload.sent, (0..events.len()).collect::<Vec<_>>());
    serde_json::from_slice(&payload.body).unwrap()
}

#[test]
fn an_envelope_has_all_that_a_handler_needs() {
    let mut raw = given("player-1", 8, b"\xff");
    raw.event.event.metadata = Bytes::from_static(b"{\"by\":1}");
    assert_eq!(
        all(&[given("player-1", 7, b"{\"points\":1.0}"), raw], Form::Records),
        json!({
            "version": 1, "source": "$ce-player", "group": "scores",
            "records": [
                {
                    "stream": "player-1", "revision": 7, "position": "6963200000505704448",
                    "id": "00000000-0000-0000-0000-00000000e007", "type": "scored",
                    "created": "2023-11-14T22:13:20.123463Z", "data": {"points": 1.0}, "format": "json",
                    "appendId": "00000000-0000-0000-0000-00000000000a", "retries": 3,
                },
                {
                    "stream": "player-1", "revision": 8, "position": "6963200000505708544",
                    "id": "00000000-0000-0000-0000-00000000e008", "type": "scored",
                    "created": "2023-11-14T22:13:20.123464Z", "dataBase64": "/w==", "format": "json",
                    "metadata": {"by": 1},
                    "appendId": "00000000-0000-0000-0000-00000000000a", "retries": 3,
                },
            ],
        })
    );
}

#[test]
fn cloud_events_carry_the_same() {
    let mut raw = given("a b/1", 8, b"\xff");
    raw.event.event.format = Format::Bytes;
    raw.event.event.metadata = Bytes::from_static(b"\xfe");
    let mut told = given("player-1", 7, b"{}");
    told.event.event.metadata = Bytes::from_static(b"{\"by\":1}");
    assert_eq!(
        all(&[told, raw], Form::CloudEvents),
        json!([
            {
                "specversion": "1.0", "id": "6963200000505704448", "source": "/streams/player-1",
                "type": "scored", "subject": "player-1", "time": "2023-11-14T22:13:20.123463Z",
                "datacontenttype": "application/json", "data": {}, "revision": "7",
                "eventid": "00000000-0000-0000-0000-00000000e007",
                "appendid": "00000000-0000-0000-0000-00000000000a", "retries": 3, "metadata": "{\"by\":1}",
            },
            {
                "specversion": "1.0", "id": "6963200000505708544", "source": "/streams/a%20b%2F1",
                "type": "scored", "subject": "a b/1", "time": "2023-11-14T22:13:20.123464Z",
                "datacontenttype": "application/octet-stream", "data_base64": "/w==", "revision": "8",
                "eventid": "00000000-0000-0000-0000-00000000e008",
                "appendid": "00000000-0000-0000-0000-00000000000a", "retries": 3, "metadatabase64": "/g==",
            },
        ])
    );
}

#[test]
fn what_does_not_fit_comes_again_and_what_never_fits_has_failed() {
    let large = format!("\"{}\"", "x".repeat(2000));
    let small = |stream, revision| given(stream, revision, b"1");
    let events = [
        given("a", 0, large.as_bytes()),
        small("a", 1),
        small("b", 0),
        small("b", 1),
        small("b", 2),
        small("c", 0),
    ];
    for form in [Form::Records, Form::CloudEvents] {
        let two = encode(&group(), &events[2..4], form, usize::MAX).body.len();
        let payload = encode(&group(), &events, form, two + 10);
        assert_eq!(payload.body.len(), two);
        serde_json::from_slice::<Value>(&payload.body).unwrap();
        assert_eq!(payload.sent, [2, 3]);
        let Handled::Failed(reason) = &payload.handled[0] else {
            panic!("{:?}", payload.handled[0]);
        };
        assert!(reason.contains("bytes in JSON, and a handler is sent"), "{reason}");
        let handled = payload.with(vec![Handled::Yes; 2]);
        assert_eq!(handled[1..2], [Handled::NotKnown], "it waits for the one before it");
        assert_eq!(handled[2..4], [Handled::Yes, Handled::Yes]);
        assert_eq!(handled[4..], [Handled::NotKnown, Handled::NotKnown]);
    }
}

#[test]
fn a_body_may_be_full_to_the_last_byte() {
    let events = [given("a", 0, b"1"), given("b", 0, b"2")];
    let whole = encode(&group(), &events, Form::Records, usize::MAX).body.len();
    assert_eq!(encode(&group(), &events, Form::Records, whole).sent, [0, 1]);
    assert_eq!(encode(&group(), &events, Form::Records, whole - 1).sent, [0]);
}

#[test]
fn nothing_that_fits_is_nothing_that_is_sent() {
    let payload = encode(&group(), &[given("a", 0, b"1")], Form::Records, 10);
    assert!(payload.sent.is_empty());
    assert!(matches!(payload.handled[..], [Handled::Failed(_)]));
}

/// By hand, and not by a library: the schema is a page for people first.
#[test]
fn the_schema_names_what_is_sent() {
    let schema = include_str!("../../../../docs/handler-payload.schema.json");
    let schema: Value = serde_json::from_str(schema).unwrap();
    let mut raw = given("player-1", 8, b"\xff");
    raw.event.event.metadata = Bytes::from_static(b"\xff");
    let mut told = given("player-1", 9, b"1");
    told.event.event.metadata = Bytes::from_static(b"1");
    let envelope = all(&[raw, told], Form::Records);
    let fits = |object: &Value, schema: &Value| {
        let known = schema["properties"].as_object().unwrap();
        let object = object.as_object().unwrap();
        for name in object.keys() {
            assert!(known.contains_key(name), "{name}: the schema does not have it");
        }
        for name in schema["required"].as_array().unwrap() {
            assert!(object.contains_key(name.as_str().unwrap()), "{name}: it is not sent");
        }
    };
    fits(&envelope, &schema);
    let mut sent = std::collections::BTreeSet::new();
    for record in envelope["records"].as_array().unwrap() {
        fits(record, &schema["$defs"]["record"]);
        sent.extend(record.as_object().unwrap().keys().cloned());
    }
    let known = schema["$defs"]["record"]["properties"].as_object().unwrap();
    assert!(known.keys().all(|name| sent.contains(name)), "{sent:?}");
}
