//! From the core's answers to the protocol's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost_types::Timestamp;
use stormkeep_core::{
    append::{Appended, Expected},
    event::{Format, RecordedEvent},
    stream::StreamName,
    time::GlobalPosition,
};

use super::{
    proto::event_store::client::{
        AllStreamPosition, Empty, Property, StreamIdentifier, Uuid, WrongExpectedVersion,
        streams::{
            AppendResp, DeleteResp, ReadResp, TombstoneResp,
            append_resp::{self, success::CurrentRevisionOption, success::PositionOption},
            batch_append_resp, delete_resp, read_resp, tombstone_resp,
        },
        uuid,
    },
    request::Form,
};
use crate::follow::Followed;

/// Units of `created` in a microsecond: it is in units of 100 ns since 1970-01-01 UTC.
const TICKS_PER_MICROSECOND: u64 = 10;

/// An event.
pub(crate) fn event(event: RecordedEvent, form: Form) -> ReadResp {
    let position = event.position().0;
    let metadata = properties(&event);
    let RecordedEvent { stream, revision, event, .. } = event;
    let recorded = read_resp::read_event::RecordedEvent {
        id: Some(id(event.id.0, form)),
        stream_identifier: Some(identifier(&stream)),
        stream_revision: revision,
        prepare_position: position,
        commit_position: position,
        metadata,
        custom_metadata: event.metadata,
        data: event.data,
    };
    content(read_resp::Content::Event(read_resp::ReadEvent {
        event: Some(recorded),
        link: None,
        position: Some(read_resp::read_event::Position::CommitPosition(position)),
    }))
}

/// What is told of an event besides what its writer gave it: its type, what its payload is, and when it was committed.
pub(crate) fn properties(recorded: &RecordedEvent) -> Vec<Property> {
    let content_type: &[u8] = match recorded.event.format {
        Format::Json => b"application/json",
        Format::Bytes => b"application/octet-stream",
    };
    let created = recorded.time.0.saturating_mul(TICKS_PER_MICROSECOND);
    let property = |key: &'static [u8], value| Property { key: Bytes::from_static(key), value };
    vec![
        property(b"type", Bytes::copy_from_slice(recorded.event.kind.as_bytes())),
        property(b"content-type", Bytes::from_static(content_type)),
        property(b"created", created.to_string().into()),
    ]
}

/// What a subscription is told.
pub(crate) fn followed(followed: Followed, form: Form) -> ReadResp {
    let timestamp = Some(now());
    let revision = |revision: Option<u64>| revision.map(|revision| revision as i64);
    let at = |position: Option<GlobalPosition>| {
        position.map(|at| read_resp::Position { commit_position: at.0, prepare_position: at.0 })
    };
    match followed {
        Followed::Event(recorded) => event(recorded, form),
        Followed::Checkpoint(GlobalPosition(at)) => {
            content(read_resp::Content::Checkpoint(read_resp::Checkpoint {
                commit_position: at,
                prepare_position: at,
                timestamp,
            }))
        }
        Followed::CaughtUp { revision: last, position } => {
            content(read_resp::Content::CaughtUp(read_resp::CaughtUp {
                timestamp,
                stream_revision: revision(last),
                position: at(position),
            }))
        }
        Followed::FellBehind { revision: last, position } => {
            content(read_resp::Content::FellBehind(read_resp::FellBehind {
                timestamp,
                stream_revision: revision(last),
                position: at(position),
            }))
        }
    }
}

/// The first thing that a subscription is told.
pub(crate) fn confirmation(subscription_id: String) -> ReadResp {
    let confirmation = read_resp::SubscriptionConfirmation { subscription_id };
    content(read_resp::Content::Confirmation(confirmation))
}

/// There is no such stream.
pub(crate) fn not_found(stream: &StreamName) -> ReadResp {
    let stream_identifier = Some(identifier(stream));
    content(read_resp::Content::StreamNotFound(read_resp::StreamNotFound { stream_identifier }))
}

/// The first revision that a stream shows.
pub(crate) fn first_position(revision: u64) -> ReadResp {
    content(read_resp::Content::FirstStreamPosition(revision))
}

/// The last revision of a stream.
pub(crate) fn last_position(revision: u64) -> ReadResp {
    content(read_resp::Content::LastStreamPosition(revision))
}

/// An append was committed.
pub(crate) fn appended(appended: &Appended) -> AppendResp {
    let GlobalPosition(at) = appended.position();
    let position = append_resp::Position { commit_position: at, prepare_position: at };
    let success = append_resp::Success {
        current_revision_option: Some(CurrentRevisionOption::CurrentRevision(appended.last)),
        position_option: Some(PositionOption::Position(position)),
    };
    AppendResp { result: Some(append_resp::Result::Success(success)) }
}

/// An append met another state than it expected.
pub(crate) fn wrong_expected(expected: Expected, actual: Option<u64>) -> AppendResp {
    use append_resp::wrong_expected_version::{
        CurrentRevisionOption as Current, ExpectedRevisionOption as Demand,
    };
    let current = actual.map_or(Current::CurrentNoStream(Empty {}), Current::CurrentRevision);
    let demand = match expected {
        Expected::Exactly(revision) => Demand::ExpectedRevision(revision),
        Expected::Any => Demand::ExpectedAny(Empty {}),
        Expected::StreamExists => Demand::ExpectedStreamExists(Empty {}),
        Expected::NoStream => Demand::ExpectedNoStream(Empty {}),
    };
    let wrong = append_resp::WrongExpectedVersion {
        current_revision_option: Some(current),
        expected_revision_option: Some(demand),
    };
    AppendResp { result: Some(append_resp::Result::WrongExpectedVersion(wrong)) }
}

/// The same of an append of a batch.
pub(crate) fn wrong_expected_detail(
    expected: Expected,
    actual: Option<u64>,
) -> WrongExpectedVersion {
    use super::proto::event_store::client::wrong_expected_version::{
        CurrentStreamRevisionOption as Current, ExpectedStreamPositionOption as Demand,
    };
    let current = actual.map_or(Current::CurrentNoStream(()), Current::CurrentStreamRevision);
    let demand = match expected {
        Expected::Exactly(revision) => Demand::ExpectedStreamPosition(revision),
        Expected::Any => Demand::ExpectedAny(()),
        Expected::StreamExists => Demand::ExpectedStreamExists(()),
        Expected::NoStream => Demand::ExpectedNoStream(()),
    };
    WrongExpectedVersion {
        current_stream_revision_option: Some(current),
        expected_stream_position_option: Some(demand),
    }
}

/// An append of a batch was committed.
pub(crate) fn batch_appended(appended: &Appended) -> batch_append_resp::Success {
    use batch_append_resp::success::{
        CurrentRevisionOption as Revision, PositionOption as Position,
    };
    let GlobalPosition(at) = appended.position();
    let position = AllStreamPosition { commit_position: at, prepare_position: at };
    batch_append_resp::Success {
        current_revision_option: Some(Revision::CurrentRevision(appended.last)),
        position_option: Some(Position::Position(position)),
    }
}

/// A stream was deleted.
pub(crate) fn deleted(appended: &Appended) -> DeleteResp {
    let GlobalPosition(at) = appended.position();
    let position = delete_resp::Position { commit_position: at, prepare_position: at };
    DeleteResp { position_option: Some(delete_resp::PositionOption::Position(position)) }
}

/// A stream was ended for ever.
pub(crate) fn tombstoned(appended: &Appended) -> TombstoneResp {
    let GlobalPosition(at) = appended.position();
    let position = tombstone_resp::Position { commit_position: at, prepare_position: at };
    TombstoneResp { position_option: Some(tombstone_resp::PositionOption::Position(position)) }
}

/// The name of a stream.
pub(crate) fn identifier(stream: &StreamName) -> StreamIdentifier {
    StreamIdentifier { stream_name: Bytes::copy_from_slice(stream.as_str().as_bytes()) }
}

/// The time since 1970-01-01 UTC.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn now() -> Timestamp {
    let now = since_epoch();
    Timestamp { seconds: now.as_secs() as i64, nanos: now.subsec_nanos() as i32 }
}

/// An id, in the form that the client asked for.
pub(crate) fn id(id: u128, form: Form) -> Uuid {
    let value = if form.structured {
        uuid::Value::Structured(uuid::Structured {
            most_significant_bits: (id >> 64) as i64,
            least_significant_bits: id as i64,
        })
    } else {
        uuid::Value::String(::uuid::Uuid::from_u128(id).to_string())
    };
    Uuid { value: Some(value) }
}

fn content(content: read_resp::Content) -> ReadResp {
    ReadResp { content: Some(content) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stormkeep_core::{
        append::AppendId,
        event::{Event, EventId},
        shard::ShardId,
        time::HybridTime,
    };

    use super::*;
    use crate::api::grpc::request;

    fn recorded() -> RecordedEvent {
        let event = Event {
            id: EventId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            kind: Arc::from("joined"),
            format: Format::Json,
            data: Bytes::from_static(b"{}"),
            metadata: Bytes::from_static(b"m"),
        };
        let stream = StreamName::new("player-1").unwrap();
        let (shard, time) = (ShardId(3), HybridTime(1_700_000_000_000_001));
        RecordedEvent { stream, revision: 7, shard, time, append: AppendId(1), event }
    }

    #[test]
    fn an_event_has_all_that_clients_look_for() {
        let form = Form { structured: false, positions: false };
        let Some(read_resp::Content::Event(read)) = event(recorded(), form).content else {
            panic!("no event")
        };
        let at = recorded().position().0;
        assert_eq!(read.position, Some(read_resp::read_event::Position::CommitPosition(at)));
        let it = read.event.unwrap();
        assert_eq!(request::id("id", it.id.as_ref()).unwrap(), recorded().event.id.0);
        assert_eq!(it.id, Some(id(recorded().event.id.0, form)));
        assert_eq!(it.stream_identifier.unwrap().stream_name.as_ref(), b"player-1");
        assert_eq!((it.stream_revision, it.commit_position, it.prepare_position), (7, at, at));
        let properties: Vec<_> = it.metadata.iter().map(|p| (&*p.key, &*p.value)).collect();
        let expected: [(&[u8], &[u8]); 3] = [
            (b"type", b"joined"),
            (b"content-type", b"application/json"),
            (b"created", b"17000000000000010"),
        ];
        assert_eq!(properties, expected);
        assert_eq!((it.data.as_ref(), it.custom_metadata.as_ref()), (&b"{}"[..], &b"m"[..]));
    }

    #[test]
    fn an_id_is_the_same_in_both_forms() {
        for n in [0, 1, u128::MAX, 1 << 127, 0x8000_0000_0000_0000] {
            for structured in [false, true] {
                let sent = id(n, Form { structured, positions: false });
                assert_eq!(request::id("id", Some(&sent)).unwrap(), n);
            }
        }
    }

    #[test]
    fn a_wrong_version_repeats_what_was_expected() {
        use append_resp::wrong_expected_version::*;
        let resp = wrong_expected(Expected::NoStream, Some(4));
        let Some(append_resp::Result::WrongExpectedVersion(wrong)) = resp.result else {
            panic!("no error")
        };
        assert_eq!(wrong.current_revision_option, Some(CurrentRevisionOption::CurrentRevision(4)));
        let demand = Some(ExpectedRevisionOption::ExpectedNoStream(Empty {}));
        assert_eq!(wrong.expected_revision_option, demand);
        let resp = wrong_expected(Expected::Exactly(1), None);
        let Some(append_resp::Result::WrongExpectedVersion(wrong)) = resp.result else {
            panic!("no error")
        };
        let none = Some(CurrentRevisionOption::CurrentNoStream(Empty {}));
        assert_eq!(wrong.current_revision_option, none);
    }

    #[test]
    fn being_caught_up_carries_a_place_and_a_time() {
        let form = Form { structured: false, positions: false };
        let at = Followed::CaughtUp { revision: None, position: Some(GlobalPosition(9)) };
        let Some(read_resp::Content::CaughtUp(told)) = followed(at, form).content else {
            panic!("not told")
        };
        assert_eq!(told.position.unwrap().commit_position, 9);
        assert!(told.timestamp.unwrap().seconds > 1_600_000_000);
        assert_eq!(told.stream_revision, None);
    }
}
