//! The limits of an append: each at its boundary, and each error's words.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{event, events, stream};
use stormkeep_core::{
    append::{Append, AppendError, AppendId, Expected, Outcome},
    event::Event,
    limits::{self, ENTRY_BYTES_MAX, ENTRY_FRAME_BYTES_MAX, EVENT_BYTES_MAX, InvalidAppend},
    stream::StreamName,
};

fn append(name: &str, events: impl Into<Arc<[Event]>>) -> Append {
    let events = events.into();
    let (stream, any) = (stream(name), Expected::Any);
    Append { stream, expected: any, described: any, id: AppendId(1), events }
}

#[test]
fn an_append_has_an_event() {
    assert_eq!(limits::check(&append("a", [])), Err(InvalidAppend::NoEvents));
    assert_eq!(limits::check(&append("a", events(1))), Ok(()));
    // An event may be empty but for its id.
    let nothing = Event { kind: "".into(), ..event(1, 0) };
    assert_eq!(limits::check(&append("a", [nothing])), Ok(()));
}

#[test]
fn an_append_has_at_most_4096_events() {
    assert_eq!(limits::check(&append("a", events(4096))), Ok(()));
    let error = limits::check(&append("a", events(4097)));
    assert_eq!(error, Err(InvalidAppend::TooManyEvents { count: 4097 }));
}

#[test]
fn an_event_fits_in_an_entry_of_its_own() {
    let longest = "n".repeat(limits::STREAM_NAME_BYTES_MAX);
    // The type is one byte.
    let fits = event(1, EVENT_BYTES_MAX - 1);
    assert_eq!(limits::check(&append(&longest, [fits.clone()])), Ok(()));
    let over = event(2, EVENT_BYTES_MAX);
    let bytes = EVENT_BYTES_MAX + 1;
    assert_eq!(
        limits::check(&append("a", [over.clone()])),
        Err(InvalidAppend::EventTooLarge { index: 0, bytes })
    );
    assert_eq!(
        limits::check(&append("a", [fits, over])),
        Err(InvalidAppend::EventTooLarge { index: 1, bytes })
    );
}

#[test]
fn the_type_and_the_metadata_of_an_event_count() {
    let third = "x".repeat(EVENT_BYTES_MAX / 3);
    let of = |more: &str| Event {
        kind: third.as_str().into(),
        metadata: third.clone().into(),
        data: format!("{third}{more}").into(),
        ..event(1, 0)
    };
    let room = EVENT_BYTES_MAX - third.len() * 3;
    assert_eq!(limits::check(&append("a", [of(&"x".repeat(room))])), Ok(()));
    let error = limits::check(&append("a", [of(&"x".repeat(room + 1))]));
    assert_eq!(error, Err(InvalidAppend::EventTooLarge { index: 0, bytes: EVENT_BYTES_MAX + 1 }));
}

#[test]
fn the_events_of_an_append_fit_in_one_entry_together() {
    let half = EVENT_BYTES_MAX / 2;
    let of = |bytes| append("a", [event(1, half), event(2, bytes)]);
    let frame = of(0).encoded_bytes_max();
    let room = ENTRY_BYTES_MAX - ENTRY_FRAME_BYTES_MAX - frame;
    assert_eq!(limits::check(&of(room)), Ok(()));
    let error = limits::check(&of(room + 1));
    let bytes = ENTRY_BYTES_MAX + 1;
    assert_eq!(error, Err(InvalidAppend::AppendTooLarge { bytes }));
}

#[test]
fn every_error_says_what_to_do_and_that_nothing_happened() {
    let cases = [
        (InvalidAppend::NoEvents, "events: an append needs at least one event"),
        (
            InvalidAppend::TooManyEvents { count: 4097 },
            "events: 4097 events in one append; at most 4096: split it",
        ),
        (
            InvalidAppend::EventTooLarge { index: 2, bytes: 2_000_000 },
            "events[2]: 2000000 bytes of type, data and metadata; at most 1046352: store the payload elsewhere and append a reference",
        ),
        (
            InvalidAppend::AppendTooLarge { bytes: 2_000_000 },
            "events: 2000000 bytes in one append; at most 1047552 with framing: split it",
        ),
    ];
    for (error, words) in cases {
        assert_eq!(error.to_string(), words);
        let error = AppendError::from(error);
        assert_eq!((error.to_string().as_str(), error.outcome()), (words, Outcome::No));
    }
}

const NO_METADATA: &str =
    "stream: `$$` must be followed by the name of a stream that is no metadata stream itself";

#[test]
fn a_stream_has_a_name_of_1_to_1024_printable_bytes() {
    let longest = "n".repeat(1024);
    let fine =
        ["a", "player-42", "$$player-42", "$$$a", "$", "$settings", "spaced out", "-", "ünïcode-✓"];
    for name in fine.into_iter().chain([longest.as_str()]) {
        assert_eq!(StreamName::new(name).map(|n| n.as_str().to_owned()), Ok(name.to_owned()));
    }
    // Bytes count, not characters.
    let cases = [
        (String::new(), "stream: the name is empty; give it at least one character"),
        ("n".repeat(1025), "stream: a name of 1025 bytes; at most 1024"),
        ("ü".repeat(513), "stream: a name of 1026 bytes; at most 1024"),
        ("aü\nb".into(), "stream: control character U+000A at byte 3; use printable characters"),
        ("\u{9f}".into(), "stream: control character U+009F at byte 0; use printable characters"),
        ("$$".into(), NO_METADATA),
        ("$$$$player-42".into(), NO_METADATA),
        ("$$$$".into(), NO_METADATA),
    ];
    for (name, words) in cases {
        assert_eq!(StreamName::new(name).map_err(|e| e.to_string()), Err(words.to_owned()));
    }
}
