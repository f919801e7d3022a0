//! Streams, heads, keys and positions: a head is a function of its stream's log alone, however it was
//! put together; every key has one open shard; a position is a decimal number below 2^192.

#![allow(clippy::unwrap_used)]

mod common;

use common::{SHARD, cases, stream};
use proptest::{collection::vec, prelude::*};
use stormkeep_core::{
    append::{AppendId, Expected},
    env::Position,
    limits::REMEMBERED_APPENDS,
    shard::{HashRange, ShardId, ShardInfo, holder},
    stream::{Head, Remembered},
    time::HybridTime,
};

/// A stream's appends, by how many events each has.
fn history(sizes: &[u64]) -> Vec<Remembered> {
    let mut next = 0;
    let appends = (0..).zip(sizes).map(|(id, size)| {
        let first = next;
        next += size;
        Remembered {
            id: AppendId(id),
            shard: ShardId(0),
            first,
            last: next - 1,
            time: HybridTime(first + 1),
        }
    });
    appends.collect()
}

fn head(appends: &[Remembered]) -> Option<Head> {
    appends.iter().cloned().fold(None, |head, append| Some(Head::extend(head, append)))
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_head_remembers_the_last_appends(sizes in vec(1..5u64, 1..100)) {
        let appends = history(&sizes);
        let head = head(&appends).unwrap();
        prop_assert_eq!(head.revision, sizes.iter().sum::<u64>() - 1);
        let kept = appends.len().min(REMEMBERED_APPENDS);
        prop_assert!(head.remembered.iter().eq(&appends[appends.len() - kept..]));
        for (n, append) in appends.iter().enumerate() {
            let known = n + REMEMBERED_APPENDS >= appends.len();
            prop_assert_eq!(head.recall(append.id), known.then_some(append));
        }
    }

    /// What the store has and what the tail has, put together, is the head of the whole, if nothing is
    /// missing between them: whichever of the two is ahead, and however much both have.
    #[test]
    fn a_head_put_together_is_the_head_of_the_whole(
        sizes in vec(1..5u64, 1..100), stored in any::<prop::sample::Index>(),
        begin in any::<prop::sample::Index>(), end in any::<prop::sample::Index>(),
    ) {
        let appends = history(&sizes);
        let stored = stored.index(appends.len() + 1);
        let begin = begin.index(stored.min(appends.len() - 1) + 1);
        let end = begin + 1 + end.index(appends.len() - begin);
        let tail = head(&appends[begin..end]).unwrap();
        let merged = Head::merge(tail, head(&appends[..stored]));
        prop_assert_eq!(Some(merged), head(&appends[..end.max(stored)]));
    }

    #[test]
    fn a_position_is_written_and_read_in_decimal(high in any::<u64>(), low in any::<u128>(), short in any::<u128>()) {
        // high * 2^128 + low, by way of its decimal digits.
        let mut digits = vec![0u8];
        for bit in (0..192).rev() {
            let set = if bit < 128 { low >> bit & 1 } else { u128::from(high >> (bit - 128) & 1) };
            let mut carry = set as u8;
            for digit in digits.iter_mut() {
                let doubled = *digit * 2 + carry;
                (*digit, carry) = (doubled % 10, doubled / 10);
            }
            if carry > 0 {
                digits.push(carry);
            }
        }
        let text: String = digits.iter().rev().map(|d| char::from(b'0' + d)).collect();
        let position: Position = text.parse().unwrap();
        prop_assert_eq!(position.to_string(), text);
        prop_assert_eq!(Position::new(short).to_string(), short.to_string());
        prop_assert_eq!(short.to_string().parse(), Ok(Position::new(short)));
        prop_assert_eq!(position < Position::new(short), high == 0 && low < short);
    }

    #[test]
    fn text_that_is_no_number_is_no_position(text in "\\PC{0,70}") {
        let number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && text.len() < 58;
        prop_assert_eq!(text.parse::<Position>().is_ok(), number);
    }

    #[test]
    fn every_key_has_one_holder(count in 1..=64u32, key in any::<u128>()) {
        let shards: Vec<ShardInfo> = (0..).zip(HashRange::split_evenly(count)).map(open).collect();
        let holders: Vec<_> = shards.iter().filter(|s| s.range.contains(key)).collect();
        prop_assert_eq!(&holders, &[holder(&shards, key).unwrap()]);
    }
}

fn open((id, range): (u32, HashRange)) -> ShardInfo {
    ShardInfo { id: ShardId(id), range, parents: Vec::new(), closed: false }
}

#[test]
fn positions_end_below_2_to_the_192() {
    let last = "6277101735386680763835789423207666416102355444464034512895";
    let position: Position = last.parse().unwrap();
    assert_eq!(position.to_string(), last);
    assert_eq!(format!("{position:?}"), format!("@{last}"));
    for beyond in
        ["6277101735386680763835789423207666416102355444464034512896", &format!("{last}0")]
    {
        let error = beyond.parse::<Position>().unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("position: {beyond:?} is not a decimal number below 2^192")
        );
    }
    assert_eq!("000".parse(), Ok(Position::new(0)));
    assert_eq!(Position::new(0).to_string(), "0");
    for text in ["", "-1", "+1", "1.0", "0x10", "١"] {
        assert!(text.parse::<Position>().is_err(), "{text}");
    }
}

#[test]
fn the_key_space_is_cut_without_gap_or_overlap() {
    for count in 1..=64 {
        let ranges: Vec<HashRange> = HashRange::split_evenly(count).collect();
        assert_eq!(ranges.len(), count as usize);
        assert_eq!((ranges[0].start, ranges[ranges.len() - 1].end), (0, u128::MAX));
        assert!(ranges.windows(2).all(|w| w[0].end + 1 == w[1].start), "{count}");
        let sizes = ranges.iter().map(|r| r.end - r.start);
        let spread = sizes.clone().max().unwrap() - sizes.min().unwrap();
        assert!(spread <= u128::from(count), "{count}: {spread}");
    }
    assert_eq!(HashRange::split_evenly(0).count(), 1);
}

#[test]
fn a_closed_shard_holds_no_key() {
    let whole = HashRange { start: 0, end: u128::MAX };
    let parent = ShardInfo { closed: true, ..open((0, whole)) };
    let mut shards = vec![parent];
    assert_eq!(holder(&shards, 5), None);
    for half in (1..).zip(HashRange::split_evenly(2)).map(open) {
        shards.push(ShardInfo { parents: vec![ShardId(0)], ..half });
    }
    assert_eq!(holder(&shards, 0).map(|s| s.id), Some(ShardId(1)));
    assert_eq!(holder(&shards, u128::MAX).map(|s| s.id), Some(ShardId(2)));
}

#[test]
fn a_stream_has_a_category_and_the_md5_of_its_name_for_a_key() {
    for (name, category) in
        [("player-42", "player"), ("player-42-pet", "player"), ("world", "world"), ("-x", "")]
    {
        assert_eq!(stream(name).category(), category);
    }
    // `printf a | md5sum`
    assert_eq!(stream("a").key(), 0x0cc1_75b9_c0f1_b6a8_31c3_99e2_6977_2661);
    assert_eq!(SHARD.to_string(), "s7");
}

#[test]
fn what_an_append_expects_of_its_stream() {
    let some = head(&history(&[3])).unwrap();
    let cases = [
        (Expected::Any, true, true),
        (Expected::NoStream, true, false),
        (Expected::StreamExists, false, true),
        (Expected::Exactly(2), false, true),
        (Expected::Exactly(1), false, false),
        (Expected::Exactly(3), false, false),
        (Expected::Exactly(u64::MAX), false, false),
    ];
    for (expected, of_none, of_some) in cases {
        assert_eq!(Head::meets(None, expected), of_none, "{expected:?}");
        assert_eq!(Head::meets(Some(&some), expected), of_some, "{expected:?}");
    }
}
