//! Puts and reads.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use stormkeep::disk::{self, FreeBytes, Options, State};
use stormkeep_core::{
    env::{Cursor, EpochRow, Log, LogError, PutError, ReadLogError, Store},
    limits::ENTRY_BYTES_MAX,
    shard::ShardId,
};

use crate::{change, copy, data, open, options, put, read, read_to_error, refused, shard, wait};

#[test]
fn what_is_put_is_read_from_memory_and_from_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected = [Vec::new(), Vec::new()];
    for start in 0..3u64 {
        let options = Options {
            // The second start keeps nothing in memory, the third less than a page.
            recent_bytes: [64 << 20, 0, 700_000][start as usize],
            ..options(2)
        };
        let disk = disk::open(folder.path(), &options).unwrap();
        for n in 0..14 {
            let of = (n % 3 == 0) as u32;
            // More than a segment.
            let bytes = data(start * 100 + n, 300_000 + n as usize);
            expected[of as usize].push(put(&disk.log, of, bytes));
        }
        for of in 0..2 {
            let records = read(&disk.log, of);
            assert!(records.is_sorted_by_key(|(position, _)| *position));
            assert!(records == expected[of as usize], "shard {of}, start {start}");
            // From everywhere.
            for (n, (position, _)) in records.iter().enumerate() {
                let page = wait(disk.log.read(ShardId(of), Cursor::After(*position))).unwrap();
                let next = page.records.first().map(|r| r.position);
                assert_eq!(next, records.get(n + 1).map(|(position, _)| *position));
                assert!(!page.at_tip || n + page.records.len() + 1 == records.len());
            }
        }
        disk.close().unwrap();
        let late = wait(disk.log.put(&shard(&disk.log, 0), None, Bytes::new()));
        assert!(matches!(late, Err(PutError::Refused(_))), "{late:?}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path(), 2);
    let mut stranger = shard(&disk.log, 1);
    stranger.id = ShardId(2);
    let strange = wait(disk.log.put(&stranger, None, Bytes::new()));
    assert!(matches!(strange, Err(PutError::Refused(_))));
    let large = Bytes::from(vec![0; ENTRY_BYTES_MAX + 1]);
    let large = wait(disk.log.put(&shard(&disk.log, 0), None, large));
    assert!(matches!(large, Err(PutError::Refused(_))));
    let largest = put(&disk.log, 0, Bytes::from(vec![7; ENTRY_BYTES_MAX]));
    let empty = put(&disk.log, 0, Bytes::new());
    assert!(read(&disk.log, 0) == [largest, empty]);
    let token = wait(disk.log.read(ShardId(0), Cursor::Token("x".into())));
    assert_eq!(token, Err(ReadLogError::Expired));
    assert!(matches!(wait(disk.log.split(ShardId(0), 1)), Err(LogError::Refused(_))));
    assert!(matches!(wait(disk.log.merge(ShardId(0), ShardId(1))), Err(LogError::Refused(_))));
    drop(disk);
    let small = Options { segment_bytes: 1024, ..options(2) };
    assert!(refused(folder.path(), &small).starts_with("disk.segment_bytes"));
}

#[test]
fn many_put_at_once_and_a_crash_keeps_all_that_was_answered() {
    const TASKS: u64 = 8;
    const PUTS: u64 = 150;
    let folder = tempfile::tempdir().unwrap();
    let options = Options { inline: false, ..options(4) };
    let disk = disk::open(folder.path(), &options).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let log = disk.log.clone();
            runtime.spawn(async move {
                let shard = log.shards().await.unwrap()[(task % 4) as usize].clone();
                let mut answered = Vec::new();
                for n in 0..PUTS {
                    let data = data(task * PUTS + n, 10 + (n * 97 % 9000) as usize);
                    let put = log.put(&shard, None, data.clone()).await.unwrap();
                    answered.push((put.position, data));
                }
                assert!(answered.is_sorted_by_key(|(position, _)| *position));
                answered
            })
        })
        .collect();
    let mut expected = vec![Vec::new(); 4];
    for (task, answered) in (0..).zip(tasks) {
        expected[task % 4].extend(runtime.block_on(answered).unwrap());
    }
    for records in &mut expected {
        records.sort();
    }
    let crashed = tempfile::tempdir().unwrap();
    copy(folder.path(), crashed.path());
    for path in [folder.path(), crashed.path()] {
        // The first is still open: its own memory and its copy must say the same.
        let other = (path == crashed.path()).then(|| disk::open(path, &options).unwrap());
        let log = other.as_ref().map_or(&disk.log, |other| &other.log);
        for (of, records) in (0..).zip(&expected) {
            assert!(read(log, of) == *records, "shard {of}");
        }
    }
}

#[test]
fn too_little_space_refuses_puts_until_there_is_more() {
    let folder = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(0));
    let asked = free.clone();
    let options = Options {
        reserve_bytes: 1000,
        free_bytes: FreeBytes::by(move |_| Ok(asked.load(Ordering::Relaxed))),
        ..options(1)
    };
    free.store(1000, Ordering::Relaxed);
    let disk = disk::open(folder.path(), &options).unwrap();
    let first = put(&disk.log, 0, data(1, 100));
    drop(disk);
    free.store(499, Ordering::Relaxed);
    let disk = disk::open(folder.path(), &options).unwrap();
    for _ in 0..2 {
        let full = wait(disk.log.put(&shard(&disk.log, 0), None, data(2, 100)));
        assert_eq!(full, Err(PutError::Throttled));
        let State::NearlyFull(reason) = disk.health.state() else { panic!("{:?}", disk.health) };
        assert!(reason.contains("log"), "{reason}");
        assert!(read(&disk.log, 0) == [first.clone()], "reads go on");
    }
    free.store(1000, Ordering::Relaxed);
    let second = put(&disk.log, 0, data(3, 100));
    assert_eq!(disk.health.state(), State::Well);
    assert!(read(&disk.log, 0) == [first, second]);
}

#[test]
fn no_space_for_the_next_segment_refuses_puts_until_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path(), 1);
    let mut expected: Vec<_> = (0..4).map(|n| put(&disk.log, 0, data(n, 1_000_000))).collect();
    // Whatever is written there finds the disk full.
    let next = folder.path().join("log/00000000000004194304.new");
    std::os::unix::fs::symlink("/dev/full", &next).unwrap();
    let more = data(4, 1_000_000);
    let full = wait(disk.log.put(&shard(&disk.log, 0), None, more.clone()));
    assert_eq!(full, Err(PutError::Throttled));
    let State::NearlyFull(reason) = disk.health.state() else { panic!("{:?}", disk.health) };
    assert!(reason.contains("log") && reason.contains("segment"), "{reason}");
    assert!(!next.exists(), "a part of a segment does not keep the space");
    assert!(read(&disk.log, 0) == expected, "reads go on");
    let position = loop {
        match wait(disk.log.put(&shard(&disk.log, 0), None, more.clone())) {
            Ok(put) => break put.position,
            Err(error) => assert_eq!(error, PutError::Throttled),
        }
    };
    expected.push((position, more));
    assert_eq!(disk.health.state(), State::Well);
    drop(disk);
    assert!(read(&open(folder.path(), 1).log, 0) == expected);
}

#[test]
fn a_log_that_failed_takes_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path(), 1);
    let expected: Vec<_> = (0..4).map(|n| put(&disk.log, 0, data(n, 1_000_000))).collect();
    let (log, gone) = (folder.path().join("log"), folder.path().join("gone"));
    fs::rename(&log, &gone).unwrap();
    let more = data(4, 1_000_000);
    let failed = wait(disk.log.put(&shard(&disk.log, 0), None, more.clone()));
    assert_eq!(failed, Err(PutError::Unknown));
    fs::rename(&gone, &log).unwrap();
    let State::Failed(reason) = disk.health.state() else { panic!("{:?}", disk.health) };
    assert!(reason.contains(".log"), "{reason}");
    let late = wait(disk.log.put(&shard(&disk.log, 0), None, more));
    assert!(matches!(late, Err(PutError::Refused(_))), "{late:?}");
    assert!(read(&disk.log, 0) == expected, "reads go on");
    disk.close().unwrap();
    assert!(!folder.path().join("CLEAN").exists(), "it was no clean close");
    drop(disk);
    assert!(read(&open(folder.path(), 1).log, 0) == expected);
}

#[test]
fn a_damaged_record_of_an_earlier_segment_is_neither_read_nor_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path(), 1);
    let expected: Vec<_> = (0..9).map(|n| put(&disk.log, 0, data(n, 1_000_000))).collect();
    // Without an owner, a start looks for fences in the whole log.
    let vacant = EpochRow::vacant(ShardId(0));
    wait(disk.store.swap_epoch(vacant, EpochRow { epoch: 1, ..vacant })).unwrap();
    drop(disk);
    let segment = folder.path().join("log/00000000000000000000.log");
    let at = expected[2].0.low() as u64;
    change(&segment, at + 500, |bytes| bytes[0] ^= 1);
    let disk = open(folder.path(), 1);
    let (records, error) = read_to_error(&disk.log, 0);
    assert!(records == expected[..2], "{} records", records.len());
    assert_eq!(error, Some(ReadLogError::Unavailable));
    let State::Failed(reason) = disk.health.state() else { panic!("{:?}", disk.health) };
    assert!(reason.starts_with(&format!("{}: byte {at}: ", segment.display())), "{reason}");
    // What is whole is read, and more is taken.
    let behind = wait(disk.log.read(ShardId(0), Cursor::After(expected[5].0))).unwrap();
    assert_eq!(behind.records.first().map(|r| &r.data), Some(&expected[6].1));
    put(&disk.log, 0, data(9, 100));
}
