//! Rows, written and read.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use stormkeep_core::{
    append::{AppendId, Direction, Freshness},
    entry::BatchedAppend,
    env::{Document, DocumentKey, Position, Progress, Rewritten, Row, Store},
    event::{Event, EventId, Format, RecordedEvent},
    group::GroupNumber,
    head::{Change, Head},
    shard::{Checkpoint, ShardId},
    stream::StreamName,
    time::HybridTime,
};

use crate::{open, options, refused, wait};

const SHARD: ShardId = ShardId(1);

fn name(stream: &str) -> StreamName {
    StreamName::new(stream).unwrap()
}

/// An append of `count` events from a revision on, at a time: its rows, and what it does to the head.
fn append(stream: &str, first: u64, count: u64, time: u64) -> (Vec<RecordedEvent>, Change) {
    let event = |n: u64| Event {
        id: EventId(u128::from(time + n)),
        kind: "tested".into(),
        format: Format::Bytes,
        data: Bytes::from(format!("{stream} {}", first + n)),
        metadata: Bytes::new(),
    };
    let events: Arc<[Event]> = (0..count).map(event).collect();
    let append =
        BatchedAppend { stream: name(stream), id: AppendId(u128::from(time)), first, events };
    let time = HybridTime(time);
    (append.recorded(SHARD, time).collect(), Change::of(&append, SHARD, time))
}

#[test]
fn what_was_written_is_read_in_both_directions_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    // One name is the beginning of the other, and the appends of both alternate.
    let streams = ["player-1", "player-10", "$$player-1"];
    let (mut events, mut heads) = (vec![Vec::new(); 3], [None, None]);
    let disk = open(folder.path(), 2);
    for n in 0..120u64 {
        let which = (n % 3) as usize;
        let (rows, change) = append(streams[which], n / 3 * 2, 2, 10 + n * 2);
        let described = which % 2;
        let head = Head::extend(heads[described].take(), &change);
        heads[described] = Some(head.clone());
        events[which].extend(rows.clone());
        let mut rows: Vec<Row> = rows.into_iter().map(Row::Event).collect();
        rows.push(Row::Head(name(streams[described]), head.into()));
        let closed = events[which].last().unwrap().time;
        rows.push(Row::Checkpoint(
            SHARD,
            Checkpoint { accepted: n, closed, ..Checkpoint::default() },
        ));
        wait(disk.store.write(&rows)).unwrap();
    }
    disk.close().unwrap();
    let reopened = {
        drop(disk);
        open(folder.path(), 2)
    };
    let store = &reopened.store;
    let (fresh, forwards, backwards) =
        (Freshness::Strong, Direction::Forwards, Direction::Backwards);
    for (stream, events) in streams.iter().zip(&events) {
        let read = |from, limit, direction| {
            wait(store.events(&name(stream), from, limit, direction, fresh)).unwrap()
        };
        assert!(read(0, 1000, forwards) == *events, "{stream}");
        assert!(read(5, 7, forwards) == events[5..12]);
        let turned: Vec<_> = events[..6].iter().rev().cloned().collect();
        assert!(read(5, 1000, backwards) == turned);
        assert!(read(u64::MAX, 1, backwards) == events[events.len() - 1..]);
        assert!(read(1000, 10, forwards).is_empty());
    }
    for (stream, head) in streams.iter().zip(&heads) {
        assert_eq!(wait(store.head(&name(stream), fresh)).unwrap(), *head);
    }
    assert_eq!(wait(store.head(&name("player"), fresh)), Ok(None));
    let mut all: Vec<_> = events.concat();
    all.sort_by_key(|e| e.time);
    let shard_events = |from, to, limit, direction| {
        wait(store.shard_events(SHARD, (HybridTime(from), HybridTime(to)), limit, direction))
            .unwrap()
    };
    assert!(shard_events(0, u64::MAX, 1000, forwards) == all);
    let some: Vec<_> = all.iter().filter(|e| (20..=30).contains(&e.time.0)).cloned().collect();
    assert!(shard_events(20, 30, 1000, forwards) == some);
    let turned: Vec<_> = some.iter().rev().take(3).cloned().collect();
    assert!(shard_events(20, 30, 3, backwards) == turned);
    assert_eq!(
        wait(store.shard_events(ShardId(0), (HybridTime(0), HybridTime(99)), 9, forwards)),
        Ok(vec![])
    );
}

#[test]
fn the_head_of_a_stream_is_what_its_rows_say_up_to_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path(), 2);
    let head = || wait(disk.store.head(&name("player-1"), Freshness::Strong)).unwrap();
    let checkpoint = |accepted, closed| {
        let closed = HybridTime(closed);
        let at = Checkpoint { accepted, closed, ..Checkpoint::default() };
        wait(disk.store.write(&[Row::Checkpoint(SHARD, at)])).unwrap();
    };
    let (first, change) = append("player-1", 0, 2, 10);
    let older = Head::extend(None, &change);
    let (second, change) = append("player-1", 2, 1, 20);
    let (third, _) = append("player-1", 3, 1, 30);
    let newer = Head::extend(Some(older.clone()), &change);
    // A part of a fold's step: the last append is there, and not the one before it.
    for events in [&first, &third] {
        let rows: Vec<_> = events.iter().cloned().map(Row::Event).collect();
        wait(disk.store.write(&rows)).unwrap();
    }
    assert_eq!(head(), None);
    checkpoint(1, 11);
    assert_eq!(head(), Some(older));
    wait(disk.store.write(&[Row::Event(second[0].clone())])).unwrap();
    checkpoint(2, 29);
    assert_eq!(head(), Some(newer));
}

/// A stream's events, its tombstone and the checkpoint are written while its head is read.
#[test]
fn a_head_is_never_one_that_was_not() {
    const STREAMS: u64 = 5000;
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path(), 2);
    let (store, written) = (&disk.store, AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..STREAMS {
                let stream = format!("player-{n}");
                let (rows, mut change) = append(&stream, 0, 3, 1 + n * 10);
                change.tombstone = true;
                let mut rows: Vec<_> = rows.into_iter().map(Row::Event).collect();
                rows.push(Row::Head(name(&stream), Head::extend(None, &change).into()));
                wait(store.write(&rows)).unwrap();
                let closed = HybridTime(3 + n * 10);
                let at = Checkpoint { accepted: n + 1, closed, ..Checkpoint::default() };
                wait(store.write(&[Row::Checkpoint(SHARD, at)])).unwrap();
                written.store(n + 1, Ordering::Release);
            }
        });
        // More than there are cores, so that some are held up between two looks.
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let n = written.load(Ordering::Acquire);
                    let stream = name(&format!("player-{n}"));
                    let head = wait(store.head(&stream, Freshness::Strong)).unwrap();
                    assert!(head.is_none_or(|head| head.tombstoned), "{stream}: no tombstone");
                    if n == STREAMS {
                        break;
                    }
                }
            });
        }
    });
}

#[test]
fn a_store_of_the_first_format_is_taken_and_its_rows_of_all_heads_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path(), 2);
    let (events, change) = append("player-1", 0, 3, 1);
    let head = Head::extend(None, &change);
    let mut rows: Vec<Row> = events.into_iter().map(Row::Event).collect();
    let at = Checkpoint { accepted: 1, closed: HybridTime(3), ..Checkpoint::default() };
    rows.push(Row::Checkpoint(SHARD, at));
    wait(disk.store.write(&rows)).unwrap();
    drop(disk);
    {
        let engine = fjall::Database::builder(folder.path().join("store")).open().unwrap();
        let keyspace = |name| engine.keyspace(name, fjall::KeyspaceCreateOptions::default).unwrap();
        keyspace("about").insert("version", "1").unwrap();
        // Revision 0 and nothing else, in postcard behind its checksum.
        let row = [1, 0, 0, 0, 0, 0, 0];
        let row = [&crc32fast::hash(&row).to_le_bytes()[..], &row].concat();
        keyspace("heads").insert("player-1", row).unwrap();
        engine.persist(fjall::PersistMode::SyncAll).unwrap();
    }
    let disk = open(folder.path(), 2);
    assert_eq!(wait(disk.store.head(&name("player-1"), Freshness::Strong)), Ok(Some(head)));
}

#[test]
fn an_older_row_never_takes_the_place_of_a_newer_one() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path(), 2);
    let store = &disk.store;
    let (first, change) = append("$$player-1", 0, 1, 1);
    let older = Head::extend(None, &change);
    let (second, change) = append("player-1", 0, 1, 2);
    let newer = Head::extend(Some(older.clone()), &change);
    let at = |accepted: u64, position: u128| Checkpoint {
        accepted,
        position: Some(Position::new(position)),
        ..Checkpoint::default()
    };
    let rows = |head: &Head, checkpoint: &Checkpoint| {
        let events = first.iter().chain(&second).cloned().map(Row::Event);
        let more = [
            Row::Head(name("player-1"), head.clone().into()),
            Row::Checkpoint(SHARD, checkpoint.clone()),
        ];
        events.chain(more).collect::<Vec<_>>()
    };
    wait(store.write(&rows(&newer, &at(5, 50)))).unwrap();
    for late in [at(4, 90), at(5, 49)] {
        wait(store.write(&rows(&older, &late))).unwrap();
        assert_eq!(wait(store.checkpoint(SHARD)), Ok(at(5, 50)));
        let head = wait(store.head(&name("player-1"), Freshness::Strong));
        assert_eq!(head, Ok(Some(newer.clone())));
    }
    wait(store.write(&rows(&newer, &at(5, 51)))).unwrap();
    assert_eq!(wait(store.checkpoints()), Ok(vec![(SHARD, at(5, 51))]));
    assert_eq!(wait(store.checkpoint(ShardId(0))), Ok(Checkpoint::default()));
}

#[test]
fn a_store_of_another_version_is_refused_and_one_that_is_gone_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path(), 2);
    let rows = append("player-1", 0, 1, 1).0.into_iter().map(Row::Event).collect::<Vec<_>>();
    wait(disk.store.write(&rows)).unwrap();
    drop(disk);
    let store = folder.path().join("store");
    {
        let engine = fjall::Database::builder(&store).open().unwrap();
        let about = engine.keyspace("about", fjall::KeyspaceCreateOptions::default).unwrap();
        about.insert("version", "77").unwrap();
        engine.persist(fjall::PersistMode::SyncAll).unwrap();
    }
    let error = refused(folder.path(), &options(2));
    assert!(error.starts_with(&store.display().to_string()) && error.contains("77"), "{error}");
    assert!(error.contains("delete this folder"), "{error}");
    fs::remove_dir_all(store).unwrap();
    let disk = open(folder.path(), 2);
    let (stream, forwards) = (name("player-1"), Direction::Forwards);
    let events = disk.store.events(&stream, 0, 9, forwards, Freshness::Strong);
    assert_eq!(wait(events), Ok(vec![]));
}

#[test]
fn documents_are_compared_and_outlive_a_restart_and_the_stores_folder() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path(), 2);
    let key = DocumentKey::Delivery(SHARD);
    let blank = Document::blank(key);
    let first = blank.next(Bytes::from_static(b"[1,2]"));
    let second = first.next(Bytes::new());
    let rewrite =
        |from: &Document, to: &Document| wait(disk.store.rewrite(from.clone(), to.clone()));
    assert_eq!(rewrite(&blank, &first).unwrap(), Rewritten::Done);
    assert_eq!(rewrite(&blank, &first).unwrap(), Rewritten::Lost(first.clone()));
    assert_eq!(rewrite(&first, &second).unwrap(), Rewritten::Done);
    let groups = Document::blank(DocumentKey::Groups);
    let some = groups.next(Bytes::from_static(b"{\"groups\":[]}"));
    assert_eq!(rewrite(&groups, &some).unwrap(), Rewritten::Done);
    disk.close().unwrap();
    drop(disk);
    fs::remove_dir_all(folder.path().join("store")).unwrap();
    let disk = open(folder.path(), 2);
    let read = wait(disk.store.documents(&[DocumentKey::Groups, key])).unwrap();
    assert_eq!(read, [some, second]);
}

#[test]
fn the_furthest_progress_wins_whoever_writes_last() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path(), 2);
    let at = |next, ended| Progress { next: HybridTime(next), ended };
    let write = |shard, group, progress| {
        wait(disk.store.write(&[Row::Progress(ShardId(shard), GroupNumber(group), progress)]))
    };
    for (shard, group, progress) in
        [(1, 7, at(20, false)), (1, 7, at(10, true)), (1, 8, at(5, false)), (0, 7, at(9, false))]
    {
        write(shard, group, progress).unwrap();
    }
    let read = wait(disk.store.progress(SHARD)).unwrap();
    assert_eq!(read, [(GroupNumber(7), at(20, false)), (GroupNumber(8), at(5, false))]);
    write(1, 7, at(20, true)).unwrap();
    write(1, 7, at(20, false)).unwrap();
    let read = wait(disk.store.progress(SHARD)).unwrap();
    assert_eq!(read[0], (GroupNumber(7), at(20, true)));
}
