//! One machine, through its service: what was answered is there after a clean close; all streams have one order;
//! deletions hold. What a crash leaves is the business of the crash tests.

#![allow(clippy::unwrap_used)] // a test: what is wrong here must stop it

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use stormkeep::{
    disk::Options,
    embedded::Machine,
    follow::{Followed, From},
};
use stormkeep_core::{
    append::{
        Append, AppendError, AppendId, Direction, Expected, Freshness, ReadAll, ReadStream,
        StreamSlice,
    },
    event::{Event, EventId, Format},
    stream::StreamName,
    time::GlobalPosition,
};

const TIMEOUT: Duration = Duration::from_secs(20);

fn options() -> Options {
    Options { segment_bytes: 4 * 1024 * 1024, shards: Some(4), ..Options::default() }
}

async fn start(path: &Path) -> Machine {
    Machine::start(path, &options()).unwrap()
}

fn name(stream: &str) -> StreamName {
    StreamName::new(stream).unwrap()
}

fn append(stream: &str, id: u128, expected: Expected, bytes: usize) -> Append {
    let event = Event {
        id: EventId(id),
        kind: "tested".into(),
        format: Format::Bytes,
        data: Bytes::from(vec![b'x'; bytes]),
        metadata: Bytes::new(),
    };
    let described = Expected::Any;
    Append {
        stream: name(stream),
        expected,
        described,
        id: AppendId(id),
        events: Arc::new([event]),
    }
}

async fn read(machine: &Machine, stream: &str, from: u64, direction: Direction) -> StreamSlice {
    let freshness = Freshness::Strong;
    let read = ReadStream { stream: name(stream), from, limit: 10_000, direction, freshness };
    machine.service().read_stream(read, TIMEOUT).await.unwrap()
}

fn revisions(slice: &StreamSlice) -> Vec<u64> {
    slice.events.iter().map(|e| e.revision).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut next = 0u64;
    for end in 0..4 {
        let machine = start(directory.path()).await;
        let slice = read(&machine, "player-1", 0, Direction::Forwards).await;
        assert!(revisions(&slice).into_iter().eq(0..next), "start {end}");
        // More than a segment, so that the log goes on in the next one.
        for n in 0..120 {
            let expected = if next == 0 { Expected::NoStream } else { Expected::Exactly(next - 1) };
            let asked = append("player-1", u128::from(next) + 1, expected, 50_000);
            let appended = machine.service().append(asked.clone(), TIMEOUT).await.unwrap();
            assert_eq!((appended.first, appended.repeated), (next, false));
            if n % 40 == 0 {
                let again = machine.service().append(asked, TIMEOUT).await.unwrap();
                assert_eq!((again.first, again.repeated), (next, true));
            }
            next += 1;
        }
        let backwards = read(&machine, "player-1", u64::MAX, Direction::Backwards).await;
        assert!(revisions(&backwards).into_iter().eq((0..next).rev()));
        machine.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_streams_are_read_in_one_order() {
    let directory = tempfile::tempdir().unwrap();
    let machine = start(directory.path()).await;
    let mut told = Box::pin(machine.service().follow_all(From::Start, None, 0));
    let mut answered = Vec::new();
    for n in 0..200u128 {
        let stream = format!("player-{}", n % 17);
        let appended =
            machine.service().append(append(&stream, n, Expected::Any, 10), TIMEOUT).await;
        answered.push(appended.unwrap().position());
        let from = GlobalPosition::START;
        let (direction, freshness) = (Direction::Forwards, Freshness::Strong);
        let read = ReadAll { from, limit: 1000, direction, freshness };
        let slice = machine.service().read_all(read, TIMEOUT).await.unwrap();
        let seen: Vec<_> = slice.events.iter().map(|e| e.position()).collect();
        assert!(
            seen.is_sorted() && seen.len() as u128 == n + 1,
            "it sees what was answered before"
        );
    }
    answered.sort_unstable();
    let mut followed = Vec::new();
    while followed.len() < answered.len() {
        match told.next().await.unwrap().unwrap() {
            Followed::Event(event) => followed.push(event.position()),
            Followed::CaughtUp { .. } | Followed::FellBehind { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(followed, answered);
    machine.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_stream_comes_back_and_an_ended_one_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let machine = start(directory.path()).await;
    let service = machine.service();
    for n in 0..3 {
        service.append(append("player-1", n, Expected::Any, 10), TIMEOUT).await.unwrap();
    }
    let wrong = service.delete(name("player-1"), Expected::Exactly(7), TIMEOUT).await.unwrap_err();
    let expected = Expected::Exactly(7);
    let described = true;
    assert_eq!(wrong, AppendError::WrongExpectedRevision { expected, actual: Some(2), described });
    service.delete(name("player-1"), Expected::Exactly(2), TIMEOUT).await.unwrap();
    let slice = read(&machine, "player-1", 0, Direction::Forwards).await;
    assert!(!slice.exists && slice.events.is_empty());
    service.delete(name("player-1"), Expected::NoStream, TIMEOUT).await.unwrap();
    let again = append("player-1", 10, Expected::NoStream, 10);
    assert_eq!(service.append(again, TIMEOUT).await.unwrap().first, 3);
    let slice = read(&machine, "player-1", 0, Direction::Forwards).await;
    assert_eq!((revisions(&slice), slice.first_shown, slice.exists), (vec![3], 3, true));
    service.tombstone(name("player-1"), Expected::Any, TIMEOUT).await.unwrap();
    let ended = service.append(append("player-1", 11, Expected::Any, 10), TIMEOUT).await;
    assert_eq!(ended, Err(AppendError::Tombstoned));
    machine.stop().await.unwrap();
}
