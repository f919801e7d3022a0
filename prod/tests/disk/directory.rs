//! The data directory: one process, one version, nothing unknown.

use std::fs;

use stormkeep::disk::{self, Options};
use stormkeep_core::{
    entry::{Entry, Fence},
    env::{EpochRow, NodeId, Store, Swap, Token},
    shard::ShardId,
};

use crate::{change, copy, data, files, last_segment, open, options, put, read, refused, wait};

#[test]
fn one_process_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er");
    let disk = open(&path, 2);
    assert_eq!(
        refused(&path, &options(2)),
        format!(
            "{}: another process uses this data directory: stop it, or give another --data",
            path.join("LOCK").display()
        )
    );
    // Whoever holds the log holds the lock.
    let log = disk.log.clone();
    drop(disk);
    assert!(refused(&path, &options(2)).contains("another process"));
    drop(log);
    open(&path, 2);
}

#[test]
fn its_shards_are_set_once() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path(), 3));
    let format = folder.path().join("FORMAT");
    let error = refused(folder.path(), &options(2));
    assert!(error.starts_with(&format!("{}: shards = 3", format.display())), "{error}");
    let any = Options { shards: None, ..options(1) };
    assert_eq!(disk::open(folder.path(), &any).unwrap().directory.shards().len(), 3);
    let fresh = tempfile::tempdir().unwrap();
    assert_eq!(disk::open(fresh.path(), &any).unwrap().directory.shards().len(), 1);
    for impossible in [0, disk::SHARDS_MAX + 1] {
        let error = refused(&folder.path().join("new"), &options(impossible));
        assert!(error.starts_with("shards: "), "{error}");
        assert!(!folder.path().join("new").exists());
    }
}

#[test]
fn what_it_does_not_know_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["notes.txt", "mine.new"] {
        let foreign = folder.path().join(name);
        fs::write(&foreign, "mine").unwrap();
        let error = refused(folder.path(), &options(1));
        assert!(error.contains(name) && error.contains("--data"), "{error}");
        assert_eq!(files(folder.path()), std::slice::from_ref(&foreign));
        fs::remove_file(foreign).unwrap();
    }
    drop(open(folder.path(), 1));
    for name in ["extra", "log/extra", "log/extra.new", "log/1.log"] {
        let foreign = folder.path().join(name);
        fs::write(&foreign, "mine").unwrap();
        let error = refused(folder.path(), &options(1));
        assert!(error.contains(&*foreign.to_string_lossy()), "{error}");
        assert_eq!(fs::read_to_string(&foreign).unwrap(), "mine");
        fs::remove_file(foreign).unwrap();
    }
    // What a crash leaves of files that are replaced as a whole.
    for name in ["FORMAT.new", "EPOCHS.new", "CLEAN.new", "log/00000000000004194304.new"] {
        fs::write(folder.path().join(name), "unfinished").unwrap();
    }
    drop(open(folder.path(), 1));
    assert!(!files(folder.path()).iter().any(|f| f.extension().is_some_and(|e| e == "new")));
}

#[test]
fn another_version_is_named() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path(), 1));
    let format = folder.path().join("FORMAT");
    // A later version may have fields that this one does not know.
    let body = "version = 2\nsomething = \"new\"";
    let text = format!("{body}\n# crc32 {:08x}\n", crc32fast::hash(body.as_bytes()));
    fs::write(&format, text).unwrap();
    let error = refused(folder.path(), &options(1));
    assert!(error.starts_with(&format!("{}: version 2; this build knows 1", format.display())));
    fs::remove_file(&format).unwrap();
    let error = refused(folder.path(), &options(1));
    assert!(error.contains("FORMAT: it is missing"), "{error}");
}

#[test]
fn a_segment_that_is_gone_or_of_another_log_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path(), 1);
    for n in 0..9 {
        put(&disk.log, 0, data(n, 1_000_000));
    }
    disk.close().unwrap();
    drop(disk);
    let segments = files(&folder.path().join("log"));
    assert_eq!(segments.len(), 3);
    for gone in &segments[..2] {
        let kept = fs::read(gone).unwrap();
        fs::remove_file(gone).unwrap();
        let error = refused(folder.path(), &options(1));
        let place = format!("{}: byte 0: the segment is missing", gone.display());
        assert!(error.starts_with(&place), "{error}");
        fs::write(gone, kept).unwrap();
    }
    let (_, witness) = (fs::remove_file(&segments[2]), folder.path().join("CLEAN"));
    let error = refused(folder.path(), &options(1));
    assert!(error.contains("the log ends here") && error.contains("CLEAN"), "{error}");
    assert!(witness.exists());
    let other = tempfile::tempdir().unwrap();
    let disk = open(other.path(), 1);
    for n in 0..9 {
        put(&disk.log, 0, data(n, 1_000_000));
    }
    drop(disk);
    fs::copy(other.path().join("log").join(segments[2].file_name().unwrap()), &segments[2])
        .unwrap();
    let error = refused(folder.path(), &options(1));
    assert!(error.contains("another data directory"), "{error}");
}

fn taken(shard: u32, epoch: u64) -> EpochRow {
    EpochRow { shard: ShardId(shard), epoch, owner: Some((NodeId(1), Token(u128::from(epoch)))) }
}

#[test]
fn epochs_survive_a_crash_and_the_loss_of_the_store_and_of_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path(), 2);
    let vacant = EpochRow::vacant(ShardId(1));
    assert_eq!(wait(disk.store.epoch(ShardId(1))), Ok(vacant));
    for (from, to) in [(vacant, taken(1, 1)), (taken(1, 1), taken(1, 2))] {
        assert_eq!(wait(disk.store.swap_epoch(from, to)), Ok(Swap::Done));
        let fence = Entry::Fence(Fence { shard: to.shard, epoch: to.epoch });
        put(&disk.log, 1, fence.encode());
    }
    let lost = wait(disk.store.swap_epoch(vacant, taken(1, 1)));
    assert_eq!(lost, Ok(Swap::Lost(taken(1, 2))));
    let crashed = tempfile::tempdir().unwrap();
    copy(folder.path(), crashed.path());
    fs::remove_dir_all(crashed.path().join("store")).unwrap();
    let disk = open(crashed.path(), 2);
    let rows = wait(disk.store.epochs(&[ShardId(0), ShardId(1)]));
    assert_eq!(rows, Ok(vec![EpochRow::vacant(ShardId(0)), taken(1, 2)]));
    drop(disk);
    fs::remove_file(crashed.path().join("EPOCHS")).unwrap();
    let disk = open(crashed.path(), 2);
    let row = wait(disk.store.epoch(ShardId(1)));
    assert_eq!(row, Ok(EpochRow { owner: None, ..taken(1, 2) }));
}

#[test]
fn a_lost_end_is_told_from_a_torn_write_by_what_was_said_about_it() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path(), 1);
    let first = put(&disk.log, 0, data(1, 1000));
    let last = put(&disk.log, 0, data(2, 1000));
    let folded = stormkeep_core::shard::Checkpoint {
        position: Some(last.0),
        accepted: 2,
        ..Default::default()
    };
    let row = stormkeep_core::env::Row::Checkpoint(ShardId(0), folded);
    wait(disk.store.write(&[row])).unwrap();
    disk.close().unwrap();
    drop(disk);
    let (segment, _) = last_segment(folder.path());
    change(&segment, last.0.low() as u64, |bytes| bytes[..1032].fill(0));
    let error = refused(folder.path(), &options(1));
    let place = format!("{}: byte {}: ", segment.display(), last.0.low());
    assert!(error.starts_with(&place) && error.contains("CLEAN"), "{error}");
    let report = disk::verify(folder.path()).unwrap();
    assert_eq!(report.damages[0].file, segment);
    fs::remove_file(folder.path().join("CLEAN")).unwrap();
    let error = refused(folder.path(), &options(1));
    assert!(error.starts_with(&place) && error.contains("store/"), "{error}");
    fs::remove_dir_all(folder.path().join("store")).unwrap();
    assert!(read(&open(folder.path(), 1).log, 0) == [first], "nobody is left who knows");
}
