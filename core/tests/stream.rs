//! Streams, keys and positions: a stream and its metadata live together; every key has one open shard; a
//! position in a log is a decimal number below 2^192, one in the order of all events fits in 63 bits.

#![allow(clippy::unwrap_used)]

mod common;

use common::{SHARD, cases, stream};
use proptest::prelude::*;
use stormkeep_core::{
    env::Position,
    shard::{HashRange, ShardId, ShardInfo, holder},
    time::{GlobalPosition, HybridTime},
};

proptest! {
    #![proptest_config(cases(256))]

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
    fn global_positions_are_in_the_order_of_times_then_shards(
        a in (0..1u64 << 51, 0..4096u32), b in (0..1u64 << 51, 0..4096u32), same in any::<bool>(),
    ) {
        let b = if same { (a.0, b.1) } else { b };
        let position = |(time, shard)| GlobalPosition::of(HybridTime(time), ShardId(shard));
        let last = GlobalPosition::END.time().0;
        prop_assume!(a.0 < last && b.0 < last);
        prop_assert_eq!(position(a).cmp(&position(b)), a.cmp(&b));
        prop_assert_eq!(position(a).time(), HybridTime(a.0));
        prop_assert!(position(a) < GlobalPosition::behind(HybridTime(a.0)));
        prop_assert_eq!(GlobalPosition::behind(HybridTime(a.0)) > position(b), b.0 <= a.0);
        prop_assert!(GlobalPosition::START <= position(a) && position(a) < GlobalPosition::END);
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
fn a_stream_and_its_metadata_are_neighbours() {
    for name in ["player-42", "$settings", "$", "a", "ünïcode-✓"] {
        let described = stream(name);
        let metadata = described.metadata();
        assert_eq!(metadata.as_str(), format!("$${name}"));
        assert_eq!((described.is_metadata(), metadata.is_metadata()), (false, true));
        assert_eq!(
            (metadata.described(), described.described()),
            (described.clone(), described.clone())
        );
        assert_eq!(metadata.metadata(), metadata);
        assert_eq!(metadata.key(), described.key(), "they live on one shard");
    }
}

#[test]
fn a_global_position_is_time_then_shard_in_63_bits() {
    let at = GlobalPosition::of(HybridTime(5), ShardId(7));
    assert_eq!((at.0, at.to_string().as_str(), at.time()), (5 << 12 | 7, "20487", HybridTime(5)));
    assert_eq!(GlobalPosition::behind(HybridTime(5)), GlobalPosition(6 << 12));
    assert_eq!(at.next(), GlobalPosition(at.0 + 1));
    // Only the low 12 bits of a shard's number are in it.
    assert_eq!(GlobalPosition::of(HybridTime(5), ShardId(4096 + 7)), at);
    let end = GlobalPosition::END;
    assert_eq!(end.0, i64::MAX as u64);
    for time in [end.time().0, 1 << 51, 1 << 52, u64::MAX].map(HybridTime) {
        assert_eq!(
            (GlobalPosition::of(time, ShardId(3)), GlobalPosition::behind(time)),
            (end, end)
        );
    }
    assert_eq!((end.next(), GlobalPosition(u64::MAX).next()), (end, end));
}
