//! The fold of a log into the store: however many folds there are, however late, from whatever
//! checkpoint, and in whatever order their writes reach the store, the store is the same.

#![allow(clippy::unwrap_used)]

mod common;

use std::{collections::BTreeMap, sync::Arc};

use common::{SHARD, batch, batched, cases, stream};
use proptest::{collection::vec, prelude::*};
use stormkeep_core::{
    entry::Batch,
    env::Row,
    event::RecordedEvent,
    head::Head,
    shard::fold::{Fold, StreamGap},
    stream::StreamName,
};

const STREAMS: [&str; 4] = ["player-1", "player-2", "match-7", "$$player-1"];

/// A log: for each batch its appends, each a stream and a number of events.
fn log(batches: &[Vec<(usize, usize)>]) -> Vec<Batch> {
    let mut next = [0; STREAMS.len()];
    let (mut id, mut time) = (0, 0);
    let build = (0..).zip(batches).map(|(index, appends)| {
        let begin = time + 1;
        let appends = appends.iter().map(|&(stream, events)| {
            let first = next[stream];
            next[stream] += events as u64;
            id += 1;
            time += events as u64;
            batched(STREAMS[stream], id, first, events)
        });
        let appends: Vec<_> = appends.collect();
        time = time.max(begin);
        batch(1, index, begin, appends)
    });
    build.collect()
}

/// A store that keeps, of two writes of one row, the one of the higher timestamp.
#[derive(Debug, Clone, Default, PartialEq)]
struct Store {
    events: BTreeMap<(StreamName, u64), (u64, RecordedEvent)>,
    heads: BTreeMap<StreamName, (u64, Head)>,
}

impl Store {
    fn write(&mut self, row: Row) {
        let at = row.timestamp();
        match row {
            Row::Event(event) => {
                let row = self
                    .events
                    .entry((event.stream.clone(), event.revision))
                    .or_insert((at, event.clone()));
                assert_eq!(row, &(at, event), "an event is written as it was written before");
            }
            Row::Head(stream, head) => {
                let head = Arc::unwrap_or_clone(head);
                let row = self.heads.entry(stream).or_insert((at, head.clone()));
                assert!(row.0 != at || row.1 == head, "one revision, one head");
                if at > row.0 {
                    *row = (at, head);
                }
            }
            row => panic!("a fold writes events and heads: {row:?}"),
        }
    }

    fn head(&self, stream: &StreamName) -> Option<Head> {
        self.heads.get(stream).map(|(_, head)| head.clone())
    }
}

/// One fold: where it is in the log, what it keeps in memory, and rows that it has not written yet.
#[derive(Debug, Default)]
struct Folder {
    at: usize,
    fold: Fold,
    unwritten: Vec<Row>,
}

impl Folder {
    /// Folds the next `count` batches; their rows stay unwritten.
    fn step(&mut self, log: &[Batch], count: usize, store: &Store) -> Result<(), StreamGap> {
        let batches = &log[self.at..log.len().min(self.at + count)];
        for stream in self.fold.needs(batches) {
            self.fold.load(stream.clone(), store.head(&stream));
        }
        assert!(self.fold.needs(batches).is_empty());
        self.unwritten.extend(self.fold.rows(batches)?);
        self.at += batches.len();
        Ok(())
    }

    /// Writes its rows, in an order of its own.
    fn write(&mut self, store: &mut Store, salt: usize) {
        let mut rows = std::mem::take(&mut self.unwritten);
        if !rows.is_empty() {
            let turn = salt % rows.len();
            rows.rotate_left(turn);
        }
        rows.into_iter().for_each(|row| store.write(row));
    }
}

fn once(log: &[Batch]) -> Store {
    let (mut store, mut folder) = (Store::default(), Folder::default());
    folder.step(log, log.len(), &store.clone()).unwrap();
    folder.write(&mut store, 0);
    store
}

fn any_log() -> impl Strategy<Value = Vec<Batch>> {
    vec(vec((0..STREAMS.len(), 1..4usize), 0..6), 1..30).prop_map(|batches| log(&batches))
}

#[derive(Debug, Clone)]
enum Act {
    /// A folder folds some batches.
    Fold { who: usize, count: usize },
    /// A folder's rows reach the store.
    Write { who: usize, salt: usize },
    /// A folder crashes, its rows with it, and begins again at the checkpoint.
    Restart { who: usize },
    /// A folder forgets its heads.
    Forget { who: usize },
}

fn any_act() -> impl Strategy<Value = Act> {
    let who = || 0..3usize;
    prop_oneof![
        4 => (who(), 1..6usize).prop_map(|(who, count)| Act::Fold { who, count }),
        4 => (who(), 0..100usize).prop_map(|(who, salt)| Act::Write { who, salt }),
        1 => who().prop_map(|who| Act::Restart { who }),
        1 => who().prop_map(|who| Act::Forget { who }),
    ]
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn many_folds_make_the_store_of_one(log in any_log(), acts in vec(any_act(), 0..80)) {
        let (mut store, mut checkpoint) = (Store::default(), 0);
        let mut folders: [Folder; 3] = Default::default();
        let settle = |folder: &mut Folder, store: &mut Store, salt, checkpoint: &mut usize| {
            folder.write(store, salt);
            // Rows first, then the checkpoint, at a timestamp that a late fold cannot lower it by.
            *checkpoint = folder.at.max(*checkpoint);
        };
        for act in acts {
            match act {
                Act::Fold { who, count } => folders[who].step(&log, count, &store).unwrap(),
                Act::Write { who, salt } => settle(&mut folders[who], &mut store, salt, &mut checkpoint),
                Act::Restart { who } => folders[who] = Folder { at: checkpoint, ..Folder::default() },
                Act::Forget { who } => {
                    // What it has folded but not written can be loaded again only when it is written.
                    settle(&mut folders[who], &mut store, 0, &mut checkpoint);
                    folders[who].fold.bound(0);
                }
            }
            prop_assert!(holds(&store, &log[..checkpoint]), "all up to the checkpoint is in the store");
        }
        // Whoever begins at the checkpoint finishes it; then the zombies' rows come in.
        let mut last = Folder { at: checkpoint, ..Folder::default() };
        last.step(&log, log.len(), &store).unwrap();
        last.write(&mut store, 0);
        prop_assert_eq!(&store, &once(&log));
        for folder in &mut folders {
            folder.write(&mut store, 1);
            folder.step(&log, 7, &store).unwrap();
            folder.write(&mut store, 2);
        }
        prop_assert_eq!(&store, &once(&log));
    }

    #[test]
    fn the_store_holds_what_the_log_says(log in any_log()) {
        let store = once(&log);
        let recorded =
            log.iter().flat_map(|b| b.timed()).flat_map(|(time, a)| a.recorded(SHARD, time));
        let mut times = Vec::new();
        for event in recorded {
            times.push(event.time);
            let key = (event.stream.clone(), event.revision);
            prop_assert_eq!(&store.events[&key].1, &event);
        }
        prop_assert_eq!(times.len(), store.events.len(), "nothing else is in it");
        prop_assert!(times.windows(2).all(|w| w[0] < w[1]), "each event has a time of its own");
        for (stream, (_, head)) in &store.heads {
            prop_assert!(!stream.is_metadata(), "a stream and its metadata have one head");
            let last = |name| store.events.keys().filter(|(s, _)| *s == name).map(|(_, r)| *r).max();
            prop_assert_eq!(head.revision, last(stream.clone()));
            prop_assert_eq!(head.metadata, last(stream.metadata()));
        }
    }
}

fn holds(store: &Store, log: &[Batch]) -> bool {
    let whole = once(log);
    let heads =
        whole.heads.iter().all(|(s, (at, _))| store.heads.get(s).is_some_and(|h| h.0 >= *at));
    heads && whole.events.iter().all(|(key, event)| store.events.get(key) == Some(event))
}

#[test]
fn a_log_that_is_not_the_stores_is_told() {
    let mut fold = Fold::default();
    let ahead = batch(1, 0, 1, vec![batched("player-1", 1, 5, 2)]);
    let name = stream("player-1");
    let gap = StreamGap { stream: name.clone(), found: 5, expected: 0 };
    assert_eq!(fold.rows([&ahead]), Err(gap.clone()));
    assert_eq!(
        gap.to_string(),
        "stream player-1: revision 5 where 0 was next: the store and the log do not belong together"
    );
    fold.load(name.clone(), once(&log(&[vec![(0, 5)]])).head(&name));
    assert_eq!(fold.rows([&ahead]).map(|rows| rows.len()), Ok(3));
}
