//! The format of the log: what is written is read back; what is damaged, foreign or of another version
//! is told from what is whole, and named; and the bounds that an owner fills its batches by are honest.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{any_batch, any_entry, batch, batched, cases, event, fence};
use proptest::{collection::vec, prelude::*};
use stormkeep_core::{
    append::{Append, AppendId, Expected},
    entry::{Batch, BatchedAppend, Entry, InvalidEntry},
    event::{Event, EventId, Format},
    limits::{
        self, APPEND_FRAME_BYTES_MAX, ENTRY_BYTES_MAX, ENTRY_FRAME_BYTES_MAX, EVENT_BYTES_MAX,
        EVENT_FRAME_BYTES_MAX, EVENTS_PER_APPEND_MAX, STREAM_NAME_BYTES_MAX,
    },
    shard::ShardId,
    stream::StreamName,
    time::HybridTime,
};

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn an_entry_is_read_back_as_it_was_written(entry in any_entry()) {
        prop_assert_eq!(Entry::decode(&entry.encode()), Ok(entry));
    }

    #[test]
    fn the_encoding_keeps_its_bound(batch in any_batch()) {
        let bound = batch.encoded_bytes_max();
        prop_assert!(Entry::Batch(batch).encode().len() <= bound);
    }

    #[test]
    fn arbitrary_bytes_are_an_error(bytes in vec(any::<u8>(), 0..200)) {
        // A record of another writer that happens to begin with the magic and a right checksum is not
        // to be expected of random bytes.
        prop_assert!(Entry::decode(&bytes).is_err());
    }

    #[test]
    fn an_arbitrary_body_under_a_right_checksum_does_no_harm(body in vec(any::<u8>(), 0..200)) {
        if let Ok(Entry::Batch(batch)) = Entry::decode(&sealed(&body)) {
            prop_assert!(batch.appends.iter().all(|a| !a.events.is_empty()));
        }
    }

    #[test]
    fn a_body_with_one_byte_changed_under_a_right_checksum_does_no_harm(
        entry in any_entry(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut body = entry.encode()[9..].to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        let _ = Entry::decode(&sealed(&body));
    }
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn every_flipped_bit_is_an_error(entry in any_entry()) {
        let mut bytes = entry.encode().to_vec();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Entry::decode(&bytes).is_err(), "bit {}", bit);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn every_truncation_and_every_tail_is_an_error(entry in any_entry(), more in vec(any::<u8>(), 1..20)) {
        let mut bytes = entry.encode().to_vec();
        for length in 0..bytes.len() {
            prop_assert!(Entry::decode(&bytes[..length]).is_err(), "length {}", length);
        }
        bytes.extend(more);
        prop_assert!(Entry::decode(&bytes).is_err());
    }
}

/// A body in a whole header.
fn sealed(body: &[u8]) -> Vec<u8> {
    let mut bytes = b"SKE\x01".to_vec();
    bytes.extend(crc32fast::hash(body).to_le_bytes());
    bytes.push(0);
    bytes.extend(body);
    bytes
}

#[test]
fn what_is_no_entry_is_named() {
    let whole = fence(3).encode().to_vec();
    let with = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        Entry::decode(&bytes)
    };
    assert_eq!(Entry::decode(b""), Err(InvalidEntry::Alien { bytes: 0 }));
    assert_eq!(Entry::decode(b"{\"a\": \"record\"}"), Err(InvalidEntry::Alien { bytes: 15 }));
    assert_eq!(with(0, b'X'), Err(InvalidEntry::Alien { bytes: whole.len() }));
    assert_eq!(with(3, 2), Err(InvalidEntry::Version { version: 2 }));
    assert_eq!(with(8, 1), Err(InvalidEntry::Reserved { found: 1 }));
    assert!(matches!(with(10, 99), Err(InvalidEntry::Checksum { .. })));

    let empty = BatchedAppend { events: Arc::new([]), ..batched("a", 1, 0, 1) };
    let empty = Entry::Batch(batch(1, 0, 1, vec![empty])).encode();
    let Err(error) = Entry::decode(&empty) else { panic!("an append without events was read") };
    assert_eq!(error.to_string(), "entry: the body cannot be read: an append without events");

    let mut long = whole[9..].to_vec();
    long.push(0);
    let Err(error) = Entry::decode(&sealed(&long)) else { panic!("a longer body was read") };
    assert_eq!(error.to_string(), "entry: the body cannot be read: 1 bytes too many");
}

/// Changing these is changing the format: raise the version, and read the old one too.
#[test]
fn the_format_is_the_one_of_version_one() {
    let event = Event {
        id: EventId(0x1234),
        kind: "moved".into(),
        format: Format::Json,
        data: b"{}".as_slice().into(),
        metadata: b"m".as_slice().into(),
    };
    let append = BatchedAppend {
        stream: StreamName::new("player-42").unwrap(),
        id: AppendId(u128::MAX),
        first: 300,
        events: [event].into(),
    };
    let golden = [
        (fence(5), FENCE),
        (Entry::Batch(batch(5, 2, 1_700_000_000_000_000, vec![append])), BATCH),
    ];
    for (entry, hex) in golden {
        let encoded: String = entry.encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(encoded, hex);
    }
}

const FENCE: &str = "534b45015abb6ac000000705";
const BATCH: &str = "534b4501532b114c00010705028080f9c0c1c482030109706c617965722d3432ffffffffffffffffffffffffffffffffffff03ac0201b424056d6f76656401027b7d016d";

/// Every number at its longest.
fn largest(name_bytes: usize, events: Vec<Event>) -> Batch {
    let append = BatchedAppend {
        stream: StreamName::new("n".repeat(name_bytes)).unwrap(),
        id: AppendId(u128::MAX),
        first: u64::MAX,
        events: events.into(),
    };
    Batch {
        shard: ShardId(u32::MAX),
        epoch: u64::MAX,
        index: u64::MAX,
        time: HybridTime(u64::MAX),
        appends: vec![append],
    }
}

#[test]
fn the_bounds_hold_at_the_extremes() {
    let tiny = || Event { kind: "".into(), ..event(u128::MAX, 0) };
    let big = || event(u128::MAX, EVENT_BYTES_MAX - 1);
    let batches = [
        largest(1, vec![tiny()]),
        largest(1, (0..EVENTS_PER_APPEND_MAX).map(|_| tiny()).collect()),
        largest(STREAM_NAME_BYTES_MAX, vec![big()]),
        Batch { appends: Vec::new(), ..largest(1, vec![tiny()]) },
    ];
    for batch in batches {
        let bound = batch.encoded_bytes_max();
        let entry = Entry::Batch(batch);
        let bytes = entry.encode();
        assert!(bytes.len() <= bound, "{} > {bound}", bytes.len());
        assert!(bytes.len() <= ENTRY_BYTES_MAX);
        assert_eq!(Entry::decode(&bytes), Ok(entry));
    }
    assert!(fence(u64::MAX).encode().len() <= ENTRY_FRAME_BYTES_MAX);
}

#[test]
fn many_appends_of_one_tiny_event_keep_the_bound() {
    let one = ENTRY_FRAME_BYTES_MAX + APPEND_FRAME_BYTES_MAX + EVENT_FRAME_BYTES_MAX + 1;
    let mut batch = largest(1, vec![Event { kind: "".into(), ..event(u128::MAX, 0) }]);
    assert_eq!(batch.encoded_bytes_max(), one);
    let append = batch.appends[0].clone();
    while batch.encoded_bytes_max() + append.encoded_bytes_max() <= ENTRY_BYTES_MAX {
        batch.appends.push(append.clone());
    }
    let bound = batch.encoded_bytes_max();
    assert!(Entry::Batch(batch).encode().len() <= bound);
}

/// The owner of an append counts its bytes before it is decided; the batch counts them afterwards.
#[test]
fn an_append_counts_the_same_before_and_after_it_is_decided() {
    let batch = largest(STREAM_NAME_BYTES_MAX, vec![event(1, EVENT_BYTES_MAX - 1)]);
    let batched = &batch.appends[0];
    let append = Append {
        stream: batched.stream.clone(),
        expected: Expected::Any,
        described: Expected::Any,
        id: batched.id,
        events: batched.events.clone(),
    };
    assert_eq!(append.encoded_bytes_max(), batched.encoded_bytes_max());
    assert_eq!(limits::check(&append), Ok(()));
}
