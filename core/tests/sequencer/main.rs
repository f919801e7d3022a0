//! The owner's state machine: whatever is asked in whatever order, and however the log, the store and
//! the epoch checks answer meanwhile, it decides as one that knows every append; no answer leaves before
//! its time; and a successor that knows only the log and the store goes on as if nothing had happened.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod world;

use common::{SHARD, batch, batched, cases, event, events, metadata, stream, tombstone};
use proptest::{collection::vec, prelude::*};
use stormkeep_core::{
    append::{Append, AppendId, Expected, Outcome},
    event::Event,
    head::{Change, Head},
    limits::{ENTRY_BYTES_MAX, ENTRY_FRAME_BYTES_MAX},
    shard::{
        Checkpoint,
        sequencer::{Answer, Bounds, Offer, Sequencer},
    },
    stream::StreamName,
    time::{HybridTime, WallTime},
};
use world::{Ask, World};

#[derive(Debug, Clone)]
enum Act {
    Append {
        stream: usize,
        back: Option<usize>,
        expected: usize,
        events: usize,
        bytes: usize,
    },
    /// Metadata of a stream, or an append id that the stream itself may have had.
    Describe {
        stream: usize,
        back: Option<usize>,
        expected: (usize, usize),
        what: What,
    },
    Tombstone {
        stream: usize,
    },
    Read {
        stream: usize,
        metadata: bool,
    },
    Loaded,
    Seal,
    SealEmpty,
    Land,
    Confirm,
    BeginCheck,
    Passed,
    Fold(usize),
    Tell,
    TakeOver {
        lands: bool,
        lag: usize,
    },
}

/// What an append says of a stream.
#[derive(Debug, Clone)]
enum What {
    Delete,
    Truncate(u64),
    Limit(u64, u64),
    /// None of Stormkeep's.
    Other(usize),
}

impl What {
    fn events(&self) -> Vec<Event> {
        match self {
            What::Delete => vec![metadata("{\"$tb\": 9223372036854775807}")],
            What::Truncate(before) => vec![metadata(&format!("{{\"$tb\": {before}}}"))],
            What::Limit(count, age) => {
                vec![
                    event(1, 0),
                    metadata(&format!("{{\"$maxCount\": {count}, \"$maxAge\": {age}}}")),
                ]
            }
            What::Other(count) => events(*count).to_vec(),
        }
    }
}

fn any_what() -> impl Strategy<Value = What> {
    prop_oneof![
        3 => Just(What::Delete),
        1 => (0..60u64).prop_map(What::Truncate),
        1 => (0..5u64, 0..2u64).prop_map(|(count, age)| What::Limit(count, age)),
        1 => (1..3usize).prop_map(What::Other),
    ]
}

fn any_act() -> impl Strategy<Value = Act> {
    // A repeat of a late append, of one about to be forgotten, or none.
    let back = || prop_oneof![6 => Just(None), 2 => (0..4usize).prop_map(Some), 1 => (28..36usize).prop_map(Some)];
    let append = (0..4usize, back(), 0..7usize, 1..4usize, 0..40usize);
    let describe = (0..4usize, back(), (0..7usize, 0..7usize), any_what());
    prop_oneof![
        20 => append.prop_map(|(stream, back, expected, events, bytes)| {
            // Skewed, so that one stream outgrows what its head remembers.
            Act::Append { stream: stream / 2 * stream, back, expected, events, bytes }
        }),
        6 => describe.prop_map(|(stream, back, expected, what)| {
            Act::Describe { stream: stream / 2 * stream, back, expected, what }
        }),
        // Of a stream of its own, or the others would end too soon.
        1 => prop_oneof![9 => Just(5usize), 1 => Just(0)].prop_map(|stream| Act::Tombstone { stream }),
        3 => (0..7usize, any::<bool>()).prop_map(|(stream, metadata)| Act::Read { stream, metadata }),
        8 => Just(Act::Loaded),
        6 => Just(Act::Seal),
        1 => Just(Act::SealEmpty),
        2 => Just(Act::Land),
        6 => Just(Act::Confirm),
        5 => Just(Act::BeginCheck),
        5 => Just(Act::Passed),
        5 => (1..6usize).prop_map(Act::Fold),
        4 => Just(Act::Tell),
        1 => (any::<bool>(), 0..8usize).prop_map(|(lands, lag)| Act::TakeOver { lands, lag }),
    ]
}

fn name(stream: usize) -> StreamName {
    common::stream(&format!("player-{stream}"))
}

fn expected(which: usize, last: Option<u64>) -> Expected {
    match which {
        0..=2 => Expected::Any,
        3 => Expected::NoStream,
        4 => Expected::StreamExists,
        5 => last.map_or(Expected::NoStream, Expected::Exactly),
        _ => Expected::Exactly(last.map_or(0, |last| last + 1)),
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn it_decides_as_one_that_knows_every_append(
        batch_bytes_max in prop_oneof![Just(100), 300..2_000usize, Just(ENTRY_BYTES_MAX)],
        tail_bytes_max in prop_oneof![1_000..6_000usize, Just(1 << 20)],
        heads_max in 0..6usize,
        floor in 0..3_000u64,
        acts in vec((any_act(), 0..5_000u64), 1..500),
    ) {
        let bounds = Bounds { batch_bytes_max, tail_bytes_max, heads_max };
        let mut world = World::new(bounds, HybridTime(floor));
        for (act, wall) in acts {
            let wall = WallTime(wall);
            match act {
                Act::Append { stream, back, expected: which, events, bytes } => {
                    let stream = name(stream);
                    let (id, ticket) = (world.append_id(&stream, back), world.ticket());
                    let expected = expected(which, world.last(&stream));
                    let events: Vec<Event> = (0..events).map(|n| event(n as u128, bytes)).collect();
                    // What it demands of itself a second time is of no matter.
                    let described = Expected::Exactly(99);
                    let append = Append { stream, expected, described, id, events: events.into() };
                    world.ask(wall, Ask::Append(append, ticket));
                }
                Act::Describe { stream, back, expected: (own, of_described), what } => {
                    let (stream, of) = (name(stream).metadata(), name(stream));
                    let (id, ticket) = (world.append_id(&stream, back), world.ticket());
                    let described = expected(of_described, world.last(&of));
                    let expected = expected(own, world.last(&stream));
                    let events = what.events().into();
                    world.ask(wall, Ask::Append(Append { stream, expected, described, id, events }, ticket));
                }
                Act::Tombstone { stream } => {
                    let (stream, ticket) = (name(stream), world.ticket());
                    let (id, any) = (world.append_id(&stream, None), Expected::Any);
                    let events = vec![tombstone()].into();
                    let append = Append { stream, expected: any, described: any, id, events };
                    world.ask(wall, Ask::Append(append, ticket));
                }
                Act::Read { stream, metadata } => {
                    let (stream, ticket) = (name(stream), world.ticket());
                    let stream = if metadata { stream.metadata() } else { stream };
                    world.ask(wall, Ask::Read(stream, ticket));
                }
                Act::Loaded => {
                    world.loaded(wall);
                }
                Act::Seal => {
                    world.seal();
                }
                Act::SealEmpty => {
                    world.seal_empty(wall);
                }
                Act::Land => world.land(),
                Act::Confirm => {
                    world.confirm();
                }
                Act::BeginCheck => {
                    world.begin_check();
                }
                Act::Passed => {
                    world.passed();
                }
                Act::Fold(count) => world.fold(count),
                Act::Tell => world.tell(),
                Act::TakeOver { lands, lag } => world.take_over(lands, lag),
            }
        }
        world.finish();
        // Nothing of it is lost on whoever is next.
        world.take_over(false, 3);
        world.finish();
    }
}

const BOUNDS: Bounds =
    Bounds { batch_bytes_max: ENTRY_BYTES_MAX, tail_bytes_max: 1 << 23, heads_max: 100 };

fn begin(bounds: Bounds) -> Sequencer<u32> {
    let at_fence = Checkpoint { accepted: 1, epoch: 1, ..Checkpoint::default() };
    Sequencer::begin(bounds, SHARD, &at_fence, &[], HybridTime(0))
}

fn append(name: &str, id: u128) -> Append {
    let (any, events) = (Expected::Any, events(1));
    Append { stream: stream(name), expected: any, described: any, id: AppendId(id), events }
}

/// Asks with a stream whose stored head is `stored`.
fn ask(sequencer: &mut Sequencer<u32>, append: Append, ticket: u32, stored: Option<Head>) {
    match sequencer.append(WallTime(0), append, ticket) {
        Offer::NeedsHead((append, ticket)) => {
            sequencer.load(append.stream.described(), stored);
            assert_eq!(sequencer.append(WallTime(0), append, ticket), Offer::Taken);
        }
        offer => assert_eq!(offer, Offer::Taken),
    }
}

/// A message may come twice, and the answer to the second copy may be the only one that arrives.
#[test]
fn a_repeat_is_not_called_a_no_while_its_append_may_be_committed() {
    let mut sequencer = begin(BOUNDS);
    ask(&mut sequencer, append("player-1", 1), 1, None);
    assert!(sequencer.seal().is_some());
    ask(&mut sequencer, append("player-2", 2), 2, None);
    ask(&mut sequencer, append("player-1", 1), 3, None);
    ask(&mut sequencer, append("player-2", 2), 4, None);
    let outcomes: Vec<_> = sequencer.step_down().collect();
    let due = [(1, Outcome::Unknown), (2, Outcome::No), (3, Outcome::Unknown), (4, Outcome::No)];
    assert_eq!(outcomes, due);
}

#[test]
fn an_answer_waits_for_a_check_that_begins_after_its_batch_is_confirmed() {
    let mut sequencer = begin(BOUNDS);
    ask(&mut sequencer, append("player-1", 1), 1, None);
    assert!(sequencer.begin_check().is_none());
    sequencer.seal().unwrap();
    assert!(sequencer.begin_check().is_none());
    ask(&mut sequencer, append("player-1", 2), 2, None);
    sequencer.confirmed();
    let check = sequencer.begin_check().unwrap();
    sequencer.seal().unwrap();
    sequencer.confirmed();
    // The second batch is confirmed now, but this check began before.
    let tickets: Vec<u32> = sequencer.passed(check).map(|(ticket, _)| ticket).collect();
    assert_eq!(tickets, [1]);
    let check = sequencer.begin_check().unwrap();
    assert_eq!(sequencer.passed(check).count(), 1);
}

#[test]
fn a_repeat_beyond_what_a_head_remembers_is_a_new_append() {
    let mut sequencer = begin(BOUNDS);
    (0..33).for_each(|id| ask(&mut sequencer, append("player-1", id), 0, None));
    ask(&mut sequencer, append("player-1", 1), 0, None);
    ask(&mut sequencer, append("player-1", 0), 0, None);
    sequencer.seal().unwrap();
    sequencer.confirmed();
    let check = sequencer.begin_check().unwrap();
    let last: Vec<_> = sequencer.passed(check).skip(33).map(|(_, answer)| answer).collect();
    let (Answer::Append(Ok(known)), Answer::Append(Ok(new))) = (&last[0], &last[1]) else {
        panic!("{last:?}")
    };
    assert_eq!((known.repeated, known.first), (true, 1));
    assert_eq!((new.repeated, new.first), (false, 33));
}

/// All slots are kept for the store, and there are more than may be: the head that was just read stays
/// until it was used.
#[test]
fn a_loaded_head_is_there_when_it_is_asked_for() {
    let mut sequencer = begin(Bounds { heads_max: 1, ..BOUNDS });
    for n in 0..8 {
        ask(&mut sequencer, append(&format!("player-{n}"), n), 0, None);
    }
}

/// The head is read before the store has the tail, and the answer comes when the tail is gone: what the
/// tail said of the stream must not go with it.
#[test]
fn a_head_that_is_being_read_is_not_forgotten_meanwhile() {
    let tail = [(2, batch(1, 0, 1, vec![batched("player-1", 1, 0, 1)]))];
    let at_fence = Checkpoint { accepted: 3, epoch: 2, ..Checkpoint::default() };
    let bounds = Bounds { heads_max: 0, ..BOUNDS };
    let mut sequencer = Sequencer::begin(bounds, SHARD, &at_fence, &tail, HybridTime(9));
    let Offer::NeedsHead(asked) = sequencer.append(WallTime(0), append("player-1", 2), 1) else {
        panic!("the tail alone does not decide")
    };
    (0..3).for_each(|_| sequencer.materialized(3));
    sequencer.load(stream("player-1"), None);
    assert_eq!(sequencer.append(WallTime(0), asked.0, asked.1), Offer::Taken);
    sequencer.seal().unwrap();
    sequencer.confirmed();
    let check = sequencer.begin_check().unwrap();
    let answers: Vec<_> = sequencer.passed(check).map(|(_, answer)| answer).collect();
    assert!(matches!(&answers[..], [Answer::Append(Ok(a))] if a.first == 1), "{answers:?}");
}

#[test]
fn a_head_of_the_tail_is_completed_from_the_store() {
    let change = |id, at| Change::of(&batched("player-1", id, at, 1), SHARD, HybridTime(at + 1));
    let stored = [change(1, 0), change(2, 1)];
    let stored = stored.iter().fold(None, |head, change| Some(Head::extend(head, change)));
    let tail = [(9, batch(1, 0, 50, vec![batched("player-1", 3, 2, 1)]))];
    let closed = HybridTime(50);
    let at_fence = Checkpoint { accepted: 10, epoch: 2, closed, ..Checkpoint::default() };
    let mut sequencer = Sequencer::begin(BOUNDS, SHARD, &at_fence, &tail, HybridTime(80));
    for id in [1, 2, 3] {
        ask(&mut sequencer, append("player-1", id), 0, stored.clone());
    }
    assert!(sequencer.seal().is_none(), "all three are repeats");
    ask(&mut sequencer, append("player-1", 4), 0, None);
    sequencer.seal().unwrap();
    sequencer.confirmed();
    let check = sequencer.begin_check().unwrap();
    let answers: Vec<_> = sequencer.passed(check).map(|(_, answer)| answer).collect();
    let firsts: Vec<(u64, u64)> = answers
        .iter()
        .map(|answer| match answer {
            Answer::Append(Ok(a)) => (a.first, a.time.0),
            answer => panic!("{answer:?}"),
        })
        .collect();
    assert_eq!(firsts, [(0, 1), (1, 2), (2, 50), (3, 81)]);
}

#[test]
fn a_batch_is_full_at_its_bound_and_takes_one_append_of_any_size() {
    let one = append("player-1", 1).encoded_bytes_max();
    let two = ENTRY_FRAME_BYTES_MAX + 2 * one;
    for (batch_bytes_max, fits) in [(two, true), (two - 1, false), (1, false)] {
        let mut sequencer = begin(Bounds { batch_bytes_max, ..BOUNDS });
        ask(&mut sequencer, append("player-1", 1), 1, None);
        let offer = sequencer.append(WallTime(0), append("player-1", 2), 2);
        assert_eq!(offer == Offer::Taken, fits, "{offer:?}");
        if let Offer::Full((append, ticket)) = offer {
            sequencer.seal().unwrap();
            assert_eq!(sequencer.append(WallTime(0), append, ticket), Offer::Taken);
        }
    }
}

#[test]
fn a_full_tail_is_busy_until_the_store_has_it() {
    let one = append("player-1", 1).encoded_bytes_max();
    let tail_bytes_max = ENTRY_FRAME_BYTES_MAX + 2 * one;
    for (tail_bytes_max, fits) in [(tail_bytes_max, true), (tail_bytes_max - 1, false), (1, false)]
    {
        let mut sequencer = begin(Bounds { tail_bytes_max, ..BOUNDS });
        ask(&mut sequencer, append("player-1", 1), 1, None);
        sequencer.seal().unwrap();
        sequencer.confirmed();
        let offer = sequencer.append(WallTime(0), append("player-1", 2), 2);
        assert_eq!(offer == Offer::Taken, fits, "{offer:?}");
        assert_eq!(matches!(offer, Offer::Busy(_)), !fits, "{offer:?}");
        sequencer.materialized(2);
        assert_eq!(sequencer.append(WallTime(0), append("player-1", 3), 3), Offer::Taken);
    }
}
