//! One bit, flipped in any file: found, named, or healed; never served.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use stormkeep::{disk, embedded::Machine};
use stormkeep_core::{
    append::{Append, AppendId, Direction, Expected, Freshness, ReadStream},
    event::{Event, EventId, Format, RecordedEvent},
    stream::StreamName,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{copy, data, files, options};

const STREAMS: u64 = 6;
const TIMEOUT: Duration = Duration::from_secs(20);

fn name(stream: u64) -> StreamName {
    StreamName::new(format!("player-{stream}")).unwrap()
}

type Streams = BTreeMap<u64, Vec<RecordedEvent>>;

/// What a machine says that the streams are; none for those that it cannot read.
async fn read(machine: &Machine, timeout: Duration) -> Streams {
    let mut found = BTreeMap::new();
    for stream in 0..STREAMS {
        let (direction, freshness) = (Direction::Forwards, Freshness::Strong);
        let read = ReadStream { stream: name(stream), from: 0, limit: 1000, direction, freshness };
        if let Ok(slice) = machine.service().read_stream(read, timeout).await {
            found.insert(stream, slice.events);
        }
    }
    found
}

/// A directory with more than a segment, closed cleanly.
static FIXTURE: LazyLock<(TempDir, Streams)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let streams = runtime.block_on(async {
        let machine = Machine::start(folder.path(), &options(2)).unwrap();
        for n in 0..120u64 {
            let event = Event {
                id: EventId(n.into()),
                kind: "tested".into(),
                format: Format::Bytes,
                data: data(n, 50_000),
                metadata: Bytes::new(),
            };
            let append = Append {
                stream: name(n % STREAMS),
                expected: Expected::Any,
                described: Expected::Any,
                id: AppendId(n.into()),
                events: Arc::new([event]),
            };
            machine.service().append(append, TIMEOUT).await.unwrap();
        }
        let streams = read(&machine, TIMEOUT).await;
        machine.stop().await.unwrap();
        streams
    });
    assert_eq!(streams.values().map(Vec::len).sum::<usize>(), 120);
    (folder, streams)
});

/// What became of a flipped bit.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// The machine does not start, and says why.
    Refused(String),
    /// It starts. Whether all streams can be read; those that can are right.
    Started { whole: bool },
}

/// Flips a bit of one file of a copy; says what `verify` found, and what a start does.
fn flip(file: &Path, at: usize) -> (Result<disk::Report, String>, Outcome) {
    let (fixture, expected) = &*FIXTURE;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    copy(fixture.path(), path);
    let flipped = path.join(file);
    let mut bytes = fs::read(&flipped).unwrap();
    bytes[at] ^= 1 << (at % 8);
    fs::write(&flipped, bytes).unwrap();
    // It may mend the store's journal: on a copy.
    let checked = tempfile::tempdir().unwrap();
    copy(path, checked.path());
    let report = disk::verify(checked.path()).map_err(|error| error.to_string());
    let runtime = Runtime::new().unwrap();
    let outcome = runtime.block_on(async {
        match Machine::start(path, &options(2)) {
            Err(error) => {
                Outcome::Refused(error.to_string().replace(&path.display().to_string(), "DIR"))
            }
            Ok(machine) => {
                let found = read(&machine, Duration::from_millis(700)).await;
                for (stream, events) in &found {
                    assert!(*events == expected[stream], "{}: byte {at}", file.display());
                }
                Outcome::Started { whole: found.len() == expected.len() }
            }
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(10));
    (report, outcome)
}

/// The files below a part of the directory that hold anything.
fn of(part: &str) -> Vec<(PathBuf, usize)> {
    let root = FIXTURE.0.path();
    let part = root.join(part);
    let found = if part.is_dir() { files(&part) } else { vec![part] };
    let found = found.into_iter().map(|file| {
        // Behind it there are only zeros.
        let used = fs::read(&file).unwrap().iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
        (file.strip_prefix(root).unwrap().to_owned(), used)
    });
    found.filter(|(_, used)| *used > 0).collect()
}

#[test]
fn in_the_small_files_it_is_named() {
    for name in ["FORMAT", "EPOCHS", "CLEAN"] {
        let (file, used) = of(name).remove(0);
        for at in [0, used / 3, used / 2, used - 3, used - 1] {
            let (report, outcome) = flip(&file, at);
            let Outcome::Refused(error) = outcome else { panic!("{name}: byte {at}: {outcome:?}") };
            assert!(error.starts_with(&format!("DIR/{name}: ")), "{error}");
            assert!(report.is_err());
        }
    }
}

#[test]
fn in_the_log_it_is_found() {
    let segments = of("log");
    assert_eq!(segments.len(), 2, "{segments:?}");
    for (n, (file, used)) in segments.iter().enumerate() {
        for at in [0, 20, 63] {
            let (report, outcome) = flip(file, at);
            let Outcome::Refused(error) = outcome else { panic!("byte {at}: {outcome:?}") };
            assert!(error.starts_with(&format!("DIR/{}: byte 0: ", file.display())), "{error}");
            assert!(report.is_err());
        }
        // The last byte but 8, since a record is padded.
        for at in [64, 75, 90, 100, used / 2, used - 9] {
            let (report, outcome) = flip(file, at);
            let report = report.unwrap();
            let place = report.damages.first().map(|d| d.file.ends_with(file));
            assert_eq!(place, Some(true), "{}: byte {at}", file.display());
            match outcome {
                Outcome::Refused(error) => {
                    assert!(
                        error.starts_with(&format!("DIR/{}: byte ", file.display())),
                        "{error}"
                    );
                }
                // It is folded, so that no start reads it.
                Outcome::Started { .. } => assert!(n == 0, "{}: byte {at}", file.display()),
            }
        }
    }
}

#[test]
fn in_the_store_it_is_found_or_healed() {
    let mut started = 0;
    let mut cases = 0;
    for (file, used) in of("store") {
        for at in [used / 3, used - 1] {
            let (report, outcome) = flip(&file, at);
            cases += 1;
            match outcome {
                Outcome::Refused(error) => {
                    let way_out = "delete this folder, and start";
                    assert!(error.starts_with("DIR/store: ") && error.contains(way_out), "{error}");
                    let report = report.unwrap();
                    assert!(report.damages.is_empty() && !report.store.is_empty(), "{report:?}");
                }
                Outcome::Started { .. } => started += 1,
            }
        }
    }
    assert!(cases > 10 && started < cases, "{started} of {cases}");
}
