//! What a crash in the middle of a flush leaves.

use std::{fs, path::Path, sync::LazyLock};

use futures::future::join_all;
use proptest::prelude::*;
use stormkeep::disk::{self, Options};
use stormkeep_core::env::Log;
use tempfile::TempDir;

use crate::{Records, change, copy, data, last_segment, open, options, put, read, shard, wait};

/// A log of several groups of several records, as it is after a crash.
struct Fixture {
    folder: TempDir,
    records: Records,
    /// The number of the group of each record.
    groups: Vec<u64>,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let (open, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let disk = disk::open(open.path(), &Options { inline: false, ..options(1) }).unwrap();
    let shard = shard(&disk.log, 0);
    let mut records = Vec::new();
    for burst in 0..4u64 {
        let burst: Vec<_> =
            (0..40).map(|n| data(burst * 40 + n, (n * 61 % 700) as usize)).collect();
        let puts = burst.iter().map(|data| disk.log.put(&shard, None, data.clone()));
        for (put, data) in wait(join_all(puts)).into_iter().zip(&burst) {
            records.push((put.unwrap().position, data.clone()));
        }
    }
    copy(open.path(), folder.path());
    let (segment, first) = last_segment(folder.path());
    let bytes = fs::read(segment).unwrap();
    let group = |at: usize| u64::from_le_bytes(bytes[at + 16..at + 24].try_into().unwrap());
    let groups = records.iter().map(|(at, _)| group((at.low() as u64 - first) as usize)).collect();
    Fixture { folder, records, groups }
});

impl Fixture {
    /// How many records are in all groups but the last.
    fn before_last(&self) -> usize {
        self.groups.partition_point(|group| group < self.groups.last().unwrap())
    }

    /// Where a record begins in the file; behind the last one, where the log ends.
    fn at(&self, record: usize) -> u64 {
        match self.records.get(record) {
            Some((position, _)) => position.low() as u64,
            None => {
                let (position, data) = self.records.last().unwrap();
                (position.low() as u64 + 32 + data.len() as u64).next_multiple_of(8)
            }
        }
    }
}

/// Everything in full groups is there, what follows is a part of what was put, and the log goes on.
fn must_hold(path: &Path) {
    let fixture = &*FIXTURE;
    let disk = open(path, 1);
    let found = read(&disk.log, 0);
    assert!(found.len() >= fixture.before_last(), "{} records of those flushed", found.len());
    assert!(found == fixture.records[..found.len()]);
    let more = put(&disk.log, 0, data(9999, 300));
    // A crash again.
    drop(disk);
    let disk = open(path, 1);
    let again = read(&disk.log, 0);
    assert!(again.last() == Some(&more) && again[..found.len()] == found);
    let report = {
        disk.close().unwrap();
        drop(disk);
        disk::verify(path).unwrap()
    };
    assert_eq!((report.records, report.torn), (again.len() as u64, false));
}

/// How the last group is left.
#[derive(Debug, Clone)]
enum Torn {
    /// The disk has only its beginning.
    Zeros(f64),
    /// The disk has its beginning, and rubbish behind it.
    Rubbish(f64, u64),
    /// The disk has some of its sectors: one bit each.
    Sectors(u64),
}

fn torn() -> impl Strategy<Value = Torn> {
    prop_oneof![
        (0.0..1.0).prop_map(Torn::Zeros),
        (0.0..1.0, any::<u64>()).prop_map(|(from, seed)| Torn::Rubbish(from, seed)),
        any::<u64>().prop_map(Torn::Sectors),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_torn_last_group_takes_nothing_else_with_it(torn in torn()) {
        let fixture = &*FIXTURE;
        let folder = tempfile::tempdir().unwrap();
        copy(fixture.folder.path(), folder.path());
        let (segment, _) = last_segment(folder.path());
        let from = fixture.at(fixture.before_last());
        let bytes = (fixture.at(fixture.records.len()) - from) as usize;
        let part = |part: f64| (bytes as f64 * part) as usize;
        change(&segment, from, |group| match torn {
            Torn::Zeros(cut) => group[part(cut)..bytes].fill(0),
            Torn::Rubbish(cut, seed) => {
                let cut = part(cut);
                group[cut..bytes].copy_from_slice(&data(seed, bytes - cut));
            }
            Torn::Sectors(kept) => {
                for (at, byte) in (from as usize..).zip(&mut group[..bytes]) {
                    if kept >> (at / 512 % 64) & 1 == 0 {
                        *byte = 0;
                    }
                }
            }
        });
        must_hold(folder.path());
    }

    #[test]
    fn damage_of_any_group_but_the_last_is_no_torn_write(record in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let fixture = &*FIXTURE;
        let folder = tempfile::tempdir().unwrap();
        copy(fixture.folder.path(), folder.path());
        let (segment, _) = last_segment(folder.path());
        let record = record.index(fixture.before_last());
        let bytes = 32 + fixture.records[record].1.len();
        let at = fixture.at(record) + at.index(bytes) as u64;
        change(&segment, at, |bytes| bytes[0] ^= 1 << bit);
        let before = fs::read(&segment).unwrap();
        let error = crate::refused(folder.path(), &options(1));
        let place = format!("{}: byte {}: ", segment.display(), fixture.at(record));
        prop_assert!(error.starts_with(&place), "{error}, where {place} is damaged");
        prop_assert!(error.contains("stormkeep verify") && error.contains("Restore"));
        prop_assert!(before == fs::read(&segment).unwrap(), "it is left as it was found");
    }
}

#[test]
fn a_torn_write_over_nothing_but_the_end_of_a_segment_goes_on_in_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path(), 1);
    let mut expected = Vec::new();
    // The fifth is the first of the second segment.
    for n in 0..5 {
        expected.push(put(&disk.log, 0, data(n, 1_000_000)));
    }
    drop(disk);
    let (segment, first) = last_segment(folder.path());
    assert!(first > 0);
    for cut in [96, 64] {
        change(&segment, cut, |bytes| bytes[..1_000_064].fill(0));
        let disk = open(folder.path(), 1);
        assert!(read(&disk.log, 0) == expected[..4]);
        drop(disk);
    }
    let disk = open(folder.path(), 1);
    let more = put(&disk.log, 0, data(100, 1_000_000));
    expected[4] = more;
    drop(disk);
    assert!(read(&open(folder.path(), 1).log, 0) == expected);
}
