use std::collections::BTreeMap;

use stormkeep_core::limits::EVENT_BYTES_MAX;

use super::*;
use crate::api::grpc::proto::event_store::client::uuid;

fn text_id(id: &str) -> Option<Uuid> {
    Some(Uuid { value: Some(uuid::Value::String(id.into())) })
}

fn why(trouble: Trouble) -> String {
    let Trouble::Invalid(why) = trouble else { panic!("{trouble:?}") };
    why
}

fn proposed(id: u128, bytes: usize) -> Proposed {
    let text = ::uuid::Uuid::from_u128(id).to_string();
    Proposed {
        id: text_id(&text),
        kind: Some(Bytes::from_static(b"joined")),
        content_type: Some(Bytes::from_static(b"application/json")),
        custom_metadata: Bytes::new(),
        data: Bytes::from(vec![b'x'; bytes]),
    }
}

fn property<'a>(of: &'a mut Proposed, name: &str) -> &'a mut Option<Bytes> {
    if name == "type" { &mut of.kind } else { &mut of.content_type }
}

#[test]
fn what_an_event_lacks_is_named() {
    let mut events = Events::default();
    events.push(proposed(1, 2)).unwrap();
    let mut no_id = proposed(1, 2);
    no_id.id = None;
    assert_eq!(why(events.push(no_id).unwrap_err()), "events[1].id: missing");
    let mut bad_id = proposed(1, 2);
    bad_id.id = text_id("7");
    assert!(why(events.push(bad_id).unwrap_err()).starts_with("events[1].id: `7` is no UUID"));
    for name in ["type", "content-type"] {
        let mut lacking = proposed(1, 2);
        *property(&mut lacking, name) = None;
        assert_eq!(events.push(lacking).unwrap_err(), Trouble::MissingProperty(name));
    }
    let bad: [(_, &[u8], _); 5] = [
        ("type", b"", "empty"),
        ("type", b"$streamDeleted", "`$streamDeleted`"),
        ("type", b"\xff", "not UTF-8"),
        ("content-type", b"text/x", "`text/x`"),
        ("content-type", b"\xff", "not UTF-8"),
    ];
    for (name, value, what) in bad {
        let mut bad = proposed(1, 2);
        *property(&mut bad, name) = Some(Bytes::from_static(value));
        let why = why(events.push(bad).unwrap_err());
        assert!(why.starts_with(&format!("events[1].metadata[{name}]: {what}")), "{why}");
    }
}

#[test]
fn a_proposed_event_is_the_protocols() {
    // As any client writes it: entries of a map in any order, with keys that mean nothing here.
    #[derive(Clone, PartialEq, Message)]
    struct Wire {
        #[prost(message, optional, tag = "1")]
        id: Option<Uuid>,
        #[prost(btree_map = "string, string", tag = "2")]
        metadata: BTreeMap<String, String>,
        #[prost(bytes = "bytes", tag = "3")]
        custom_metadata: Bytes,
        #[prost(bytes = "bytes", tag = "4")]
        data: Bytes,
        #[prost(uint32, tag = "9")]
        unknown: u32,
    }
    let mut wire = Wire {
        id: proposed(1, 0).id,
        metadata: BTreeMap::from([
            ("type".into(), "joined".into()),
            ("content-type".into(), "application/json".into()),
        ]),
        custom_metadata: Bytes::from_static(b"{}"),
        data: Bytes::from_static(b"xxx"),
        unknown: 0,
    };
    let ours = Proposed { custom_metadata: wire.custom_metadata.clone(), ..proposed(1, 3) };
    assert_eq!(Wire::decode(ours.encode_to_vec().as_slice()).unwrap(), wire);
    wire.metadata.insert("a".into(), "b".into());
    wire.metadata.insert(String::new(), String::new());
    wire.unknown = 7;
    assert_eq!(Proposed::decode(wire.encode_to_vec().as_slice()).unwrap(), ours);
    // Of two entries with one key the last holds.
    let again = [ours.encode_to_vec(), b"\x12\x09\x0a\x04type\x12\x01x".to_vec()].concat();
    let kind = Some(Bytes::from_static(b"x"));
    assert_eq!(Proposed::decode(again.as_slice()).unwrap(), Proposed { kind, ..ours });
}

#[test]
fn events_are_refused_before_too_many_are_held() {
    let mut events = Events::default();
    assert!(matches!(events.push(proposed(1, 2_000_000)), Err(Trouble::TooLarge(_))));
    assert_eq!(events.done().len(), 0);
    let mut events = Events::default();
    events.push(proposed(1, EVENT_BYTES_MAX - 6)).unwrap();
    assert_eq!(events.bytes(), EVENT_BYTES_MAX);
    assert!(matches!(events.push(proposed(2, 100_000)), Err(Trouble::TooLarge(_))));
    let mut events = Events::default();
    for id in 0..4096 {
        events.push(proposed(id, 0)).unwrap();
    }
    assert!(why(events.push(proposed(0, 0)).unwrap_err()).starts_with("events: 4097 events"));
}

#[test]
fn the_same_events_are_the_same_append() {
    let append = |ids: &[u128], bytes: usize| {
        let mut events = Events::default();
        ids.iter().for_each(|id| events.push(proposed(*id, bytes)).unwrap());
        crate::append_id::append_id(&events.done())
    };
    assert_eq!(append(&[1, 2], 3), append(&[1, 2], 4));
    assert_ne!(append(&[1, 2], 3), append(&[2, 1], 3));
    assert_ne!(append(&[1], 3), append(&[1, 2], 3));
    // Never to change: a client may repeat an append to a newer server. The MD5 of 15 bytes of 0 and one of 1.
    assert_eq!(append(&[1], 0).0, 0xcf40_4dc8_0617_8c24_5b5b_4fe2_531e_6d8c);
}

#[test]
fn what_is_no_event_is_named() {
    let mut events = Events::default();
    events.push_encoded(proposed(1, 2).encode_to_vec().into()).unwrap();
    let why = why(events.push_encoded(Bytes::from_static(b"\xff")).unwrap_err());
    assert!(why.starts_with("events[1]: "), "{why}");
}
