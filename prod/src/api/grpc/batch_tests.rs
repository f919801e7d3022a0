use bytes::Bytes;
use prost::Message;

use super::*;
use crate::api::grpc::{
    proposed::Proposed,
    proto::event_store::client::{
        StreamIdentifier,
        streams::batch_append_req::{self, options::ExpectedStreamPosition},
        uuid,
    },
};

fn id(n: u128) -> Option<Uuid> {
    Some(Uuid { value: Some(uuid::Value::String(::uuid::Uuid::from_u128(n).to_string())) })
}

fn part(correlation: u128, options: bool, bytes: &[usize], is_final: bool) -> BatchAppendReq {
    let stream_name = Bytes::from_static(b"player-1");
    let options = options.then(|| batch_append_req::Options {
        stream_identifier: Some(StreamIdentifier { stream_name }),
        expected_stream_position: Some(ExpectedStreamPosition::NoStream(())),
        deadline_option: None,
    });
    let proposed = |bytes: &usize| {
        let proposed = Proposed {
            id: id(*bytes as u128),
            kind: Some(Bytes::from_static(b"joined")),
            content_type: Some(Bytes::from_static(b"application/octet-stream")),
            custom_metadata: Bytes::new(),
            data: Bytes::from(vec![0; *bytes]),
        };
        proposed.encode_to_vec().into()
    };
    let proposed_messages = bytes.iter().map(proposed).collect();
    BatchAppendReq { correlation_id: id(correlation), options, proposed_messages, is_final }
}

fn refused(taken: Result<Taken, Trouble>) -> String {
    let Ok(Taken::Refused(resp)) = taken else { panic!("it is not refused") };
    let Some(batch_append_resp::Result::Error(error)) = resp.result else { panic!("no error") };
    assert!(resp.correlation_id.is_some() && resp.stream_identifier.is_some());
    error.message
}

#[test]
fn parts_of_several_appends_may_mix() {
    let mut parts = Parts::default();
    assert!(matches!(parts.take(part(1, true, &[10, 11], false)), Ok(Taken::More)));
    assert!(matches!(parts.take(part(2, true, &[20], false)), Ok(Taken::More)));
    assert!(matches!(parts.take(part(1, false, &[], false)), Ok(Taken::More)));
    let Ok(Taken::Whole(first)) = parts.take(part(1, false, &[12], true)) else { panic!("parts") };
    let bytes: Vec<usize> = first.events.done().iter().map(|e| e.data.len()).collect();
    assert_eq!(bytes, [10, 11, 12]);
    assert_eq!((first.stream.as_str(), first.expected), ("player-1", Expected::NoStream));
    let Ok(Taken::Whole(second)) = parts.take(part(2, false, &[], true)) else { panic!("parts") };
    assert_eq!(second.events.done().len(), 1);
    assert_eq!((parts.partial.len(), parts.bytes), (0, 0));
}

#[test]
fn the_rest_of_what_was_refused_is_dropped() {
    let mut parts = Parts::default();
    let why = refused(parts.take(part(1, false, &[1], false)));
    assert!(why.starts_with("options: missing"), "{why}");
    assert!(matches!(parts.take(part(1, false, &[1], true)), Ok(Taken::More)));
    let why = refused(parts.take(part(2, true, &[2_000_000], false)));
    assert!(why.starts_with("Maximum Append Size of "), "{why}");
    assert!(matches!(parts.take(part(2, false, &[1], true)), Ok(Taken::More)));
    assert_eq!((parts.partial.len(), parts.bytes), (0, 0));
    assert!(matches!(parts.take(part(2, true, &[1], true)), Ok(Taken::Whole(_))));
}

#[test]
fn what_nobody_can_be_told_of_ends_the_call() {
    let mut parts = Parts::default();
    let mut nameless = part(1, true, &[1], true);
    nameless.correlation_id = None;
    let Err(Trouble::Invalid(why)) = parts.take(nameless) else { panic!("it is taken") };
    assert_eq!(why, "correlation_id: missing");
}

#[test]
fn unfinished_appends_are_bounded_in_number_and_bytes() {
    let mut parts = Parts::default();
    for n in 0..PARTIAL_MAX as u128 {
        assert!(matches!(parts.take(part(n, true, &[1], false)), Ok(Taken::More)));
    }
    assert!(matches!(parts.take(part(1000, true, &[1], false)), Err(Trouble::Invalid(_))));
    let mut parts = Parts::default();
    let mut taken = 0;
    while matches!(parts.take(part(taken, true, &[1_000_000], false)), Ok(Taken::More)) {
        taken += 1;
    }
    assert_eq!(taken, 8);
}

#[test]
fn a_broken_event_refuses_its_append_and_no_other() {
    let mut parts = Parts::default();
    assert!(matches!(parts.take(part(1, true, &[1], false)), Ok(Taken::More)));
    let mut broken = part(2, true, &[1, 1], false);
    broken.proposed_messages.insert(1, Bytes::from_static(b"\xff"));
    let why = refused(parts.take(broken));
    assert!(why.contains("events[1]: "), "{why}");
    assert!(matches!(parts.take(part(2, false, &[1], true)), Ok(Taken::More)), "the rest of it");
    let Ok(Taken::Whole(whole)) = parts.take(part(1, false, &[1], true)) else {
        panic!("the other is whole")
    };
    assert_eq!(whole.events.done().len(), 2);
    assert_eq!(parts.bytes, 0);
    assert!(parts.partial.is_empty());
}
