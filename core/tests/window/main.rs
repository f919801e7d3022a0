//! The delivery window, held against what it promises by a world that fails, forgets, is late and crashes.

#![allow(clippy::unwrap_used)] // a test: what is wrong here must stop it

#[path = "../common/mod.rs"]
mod common;
mod world;

use std::time::Duration;

use proptest::{collection::vec, prelude::*};
use stormkeep_core::{
    consume::{ConsumeError, ConsumerId, Verdict},
    group::{Settings, Strategy as Turns},
    shard::window::{ASKS_WITHIN, Mark, Moment, Want, Window},
};
use world::{Step, World, ms, recorded};

fn settings() -> Settings {
    Settings {
        message_timeout: ms(500),
        max_retries: 3,
        backoff_min: ms(10),
        backoff_max: ms(100),
        buffer_max: 8,
        read_batch: 4,
        checkpoint_after: ms(100),
        checkpoint_min: 2,
        checkpoint_max: 5,
        ..Settings::default()
    }
}

fn turns() -> impl Strategy<Value = Turns> {
    prop_oneof![Just(Turns::RoundRobin), Just(Turns::DispatchToSingle), Just(Turns::Pinned)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Read),
        6 => (0..3u8, 1..6u32, any::<bool>())
            .prop_map(|(consumer, max, shares)| Step::Take { consumer, max, shares }),
        8 => (any::<u16>(), 0..6u8).prop_map(|(nth, verdict)| Step::Settle { nth, verdict }),
        2 => any::<u16>().prop_map(|nth| Step::Late { nth }),
        2 => (0..400u64).prop_map(|by_ms| Step::Pass { by_ms }),
        1 => (0..3u8).prop_map(|consumer| Step::Leave { consumer }),
        1 => (0..3u8).prop_map(|consumer| Step::FailTogether { consumer }),
        1 => (0..3u8).prop_map(|consumer| Step::GiveBack { consumer }),
        3 => Just(Step::Parked),
        3 => Just(Step::Checkpoint),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(common::cases(600))]

    /// Whatever happens: what is given is in its turn, the mark is below all that is not settled, memory is bounded; and when
    /// the world calms down, every event is settled.
    #[test]
    fn the_window_keeps_its_promises(
        streams in vec(0..4u8, 1..40),
        steps in vec(step(), 0..250),
        in_flight_per_stream in 1..4u32,
        buffer_max in 1..12u32,
        strategy in turns(),
    ) {
        let settings = Settings { in_flight_per_stream, buffer_max, strategy, ..settings() };
        let mut world = World::new(&streams, settings);
        for step in steps {
            world.step(step)?;
        }
        world.calm_down()?;
    }

    /// A stream whose first event always fails keeps no other stream from its end, as long as the buffer has room beside it.
    #[test]
    fn healthy_streams_go_on_beside_a_poisoned_one(
        healthy in vec(1..5u8, 1..60),
        poisoned in 1..7usize,
        in_flight_per_stream in 1..4u32,
    ) {
        // Stream 0 is poisoned; what waits behind it leaves one place of the buffer at the least.
        let streams: Vec<u8> = std::iter::repeat_n(0, poisoned).chain(healthy).collect();
        let mut world = World::new(&streams, Settings { max_retries: 1_000_000, in_flight_per_stream, ..settings() });
        for _ in 0..200 {
            world.step(Step::Read)?;
            world.serve_all_but(0)?;
        }
        prop_assert!(world.unsettled().all(|stream| stream == 0));
        prop_assert_eq!(world.mark().next, 0);
    }
}

#[test]
fn an_event_that_keeps_failing_is_parked_with_its_reason_and_the_next_one_comes() {
    let me = ConsumerId(1);
    let mut window = Window::new(settings(), Mark::default(), ms(0));
    window.push(vec![(0, recorded("a-1", 0)), (1, recorded("a-1", 1))], 2, true);
    let mut now = ms(0);
    for retries in 0..=3 {
        let given = window.take(me, Want::share(9), now).unwrap();
        assert_eq!(given.iter().map(|g| (g.place, g.retries)).collect::<Vec<_>>(), [(0, retries)]);
        let nack = Verdict::Retry(format!("try {retries}"));
        let moment = Moment { now, random: 7 };
        assert!(window.settle(me, (0, given[0].delivery), nack, moment));
        assert_eq!(window.take(me, Want::share(9), now).unwrap(), []);
        now += ms(100);
        window.tick(Moment { now, random: 7 });
    }
    let parks = window.take_parks();
    assert_eq!(parks.len(), 1);
    assert_eq!((parks[0].place, parks[0].failures, &*parks[0].reason), (0, 4, "try 3"));
    assert_eq!(window.mark(), Mark { next: 0, ended: false });
    window.parked(0);
    assert_eq!(window.mark(), Mark { next: 1, ended: false });
    let given = window.take(me, Want::share(9), now).unwrap();
    assert_eq!(given[0].place, 1);
    assert!(window.settle(me, (1, given[0].delivery), Verdict::Ack, Moment { now, random: 7 }));
    assert_eq!(window.mark(), Mark { next: 2, ended: true });
    assert_eq!((window.counts().settled, window.counts().parked), (2, 1));
}

#[test]
fn what_is_said_of_an_event_behind_a_failed_one_does_not_count() {
    let (me, now) = (ConsumerId(1), Moment { now: ms(0), random: 0 });
    let settings = Settings { in_flight_per_stream: 3, ..settings() };
    let mut window = Window::new(settings, Mark::default(), ms(0));
    window.push((0..3).map(|n| (n, recorded("a-1", n))).collect(), 3, false);
    let given = window.take(me, Want::share(9), ms(0)).unwrap();
    assert_eq!(given.len(), 3);
    let of = |n: usize| (given[n].place, given[n].delivery);
    assert!(window.settle(me, of(1), Verdict::Ack, now));
    assert!(window.settle(me, of(0), Verdict::Retry("no".into()), now));
    assert!(!window.settle(me, of(2), Verdict::Ack, now));
    window.tick(Moment { now: ms(10), random: 0 });
    let again = window.take(me, Want::share(9), ms(10)).unwrap();
    assert_eq!(again.iter().map(|g| g.place).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(!window.settle(me, of(1), Verdict::Ack, now), "of the first delivery");
}

#[test]
fn an_answer_to_a_consumer_is_bounded_in_bytes() {
    let mut window = Window::new(settings(), Mark::default(), ms(0));
    let large = |n: u64| {
        let mut event = recorded(&format!("a-{n}"), n);
        event.event.data = vec![0; 3 * 1024 * 1024].into();
        (n, event)
    };
    window.push((0..3).map(large).collect(), 3, false);
    for n in 0..3 {
        let given = window.take(ConsumerId(1), Want::share(9), ms(0)).unwrap();
        assert_eq!(given.iter().map(|given| given.place).collect::<Vec<_>>(), [n]);
    }
}

#[test]
fn an_answer_that_comes_late_counts_if_it_was_the_events_turn() {
    let me = ConsumerId(1);
    let mut window = Window::new(settings(), Mark::default(), ms(0));
    window.push(vec![(0, recorded("a-1", 0))], 1, false);
    let given = window.take(me, Want::share(9), ms(0)).unwrap();
    window.tick(Moment { now: ms(500), random: 0 });
    assert_eq!((window.counts().timed_out, window.held().retrying), (1, 1));
    let late = Moment { now: ms(501), random: 0 };
    assert!(window.settle(me, (0, given[0].delivery), Verdict::Ack, late));
    assert!(!window.settle(me, (0, given[0].delivery), Verdict::Ack, late), "once");
    assert_eq!(window.mark().next, 1);
}

#[test]
fn a_batch_that_fails_as_a_whole_comes_in_halves_until_the_poison_is_alone() {
    let me = ConsumerId(1);
    let want = Want { events_max: 100, bytes_max: usize::MAX, shares: false };
    let mut window = Window::new(
        Settings { buffer_max: 100, max_retries: 0, ..settings() },
        Mark::default(),
        ms(0),
    );
    window.push((0..16).map(|n| (n, recorded(&format!("a-{n}"), n))).collect(), 16, false);
    let (mut now, mut batches) = (ms(0), Vec::new());
    while window.held().all > 0 {
        window.tick(Moment { now, random: 3 });
        let given = window.take(me, want, now).unwrap();
        now += ms(100);
        if given.is_empty() {
            let parks = window.take_parks();
            parks.iter().for_each(|park| window.parked(park.place));
            continue;
        }
        batches.push(given.len());
        let batch: Vec<(u64, u64)> = given.iter().map(|g| (g.place, g.delivery)).collect();
        let moment = Moment { now, random: 3 };
        if given.iter().any(|g| g.place == 5) {
            window.failed_together(me, &batch, "crashed", moment);
        } else {
            batch.iter().for_each(|one| assert!(window.settle(me, *one, Verdict::Ack, moment)));
        }
    }
    assert_eq!(batches[..2], [16, 8]);
    assert!(batches.len() <= 10, "{batches:?}");
    assert_eq!((window.counts().parked, window.counts().settled), (1, 16));
}

#[test]
fn round_robin_gives_each_its_share_and_a_single_one_all_until_it_asks_no_more() {
    let (a, b) = (ConsumerId(1), ConsumerId(2));
    let fill = |strategy| {
        let settings = Settings { strategy, buffer_max: 100, ..settings() };
        let mut window = Window::new(settings, Mark::default(), ms(0));
        for consumer in [a, b] {
            assert_eq!(window.take(consumer, Want::share(9), ms(0)).unwrap(), []);
        }
        window.push((0..8).map(|n| (n, recorded(&format!("a-{n}"), n))).collect(), 8, false);
        window
    };
    let take = |window: &mut Window, consumer, now| {
        window.take(consumer, Want::share(3), now).unwrap().len()
    };
    let mut turns = fill(Turns::RoundRobin);
    assert_eq!((take(&mut turns, a, ms(1)), take(&mut turns, b, ms(1))), (3, 3));
    let mut single = fill(Turns::DispatchToSingle);
    assert_eq!((take(&mut single, b, ms(1)), take(&mut single, a, ms(1))), (0, 3));
    let later = ms(2) + ASKS_WITHIN;
    assert_eq!(take(&mut single, b, later), 3);
    let mut pinned = fill(Turns::Pinned);
    let (mine, other) = (
        pinned.take(a, Want::share(9), ms(1)).unwrap(),
        pinned.take(b, Want::share(9), ms(1)).unwrap(),
    );
    assert_eq!(mine.len() + other.len(), 8);
    assert!(!mine.is_empty() && !other.is_empty());
}

/// One that takes events and settles none was given the same one each time, if it asked first: it was parked, and nobody else had
/// seen it. Found by a client that forgot to unsubscribe.
#[test]
fn what_one_did_not_settle_in_time_is_given_to_another_that_waits() {
    let [first, second, third] = [1, 2, 3].map(ConsumerId);
    let mut window = Window::new(settings(), Mark::default(), ms(0));
    window.push(vec![(0, recorded("a-1", 0))], 1, false);
    // Those who take events and settle none ask first, each time.
    let mut turn = |at: u64| {
        window.tick(Moment { now: ms(at - 100), random: 0 });
        window.tick(Moment { now: ms(at), random: 0 });
        [first, second, third].map(|id| window.take(id, Want::share(9), ms(at)).unwrap().len())
    };
    assert_eq!(turn(100), [1, 0, 0]);
    assert_eq!(turn(700), [0, 1, 0]);
    assert_eq!(turn(1300), [0, 0, 1]);
    // All have had it: then anyone may.
    assert_eq!(turn(1900), [1, 0, 0]);
}

#[test]
fn who_waits_for_no_events_keeps_none_from_another() {
    let (slow, full) = (ConsumerId(1), ConsumerId(2));
    let mut window = Window::new(settings(), Mark::default(), ms(0));
    window.push(vec![(0, recorded("a-1", 0))], 1, false);
    let take =
        |window: &mut Window, id, max, now| window.take(id, Want::share(max), now).unwrap().len();
    assert_eq!((take(&mut window, slow, 9, ms(0)), take(&mut window, full, 9, ms(0))), (1, 0));
    let later = ms(1) + ASKS_WITHIN;
    window.tick(Moment { now: ms(500), random: 0 });
    window.tick(Moment { now: later, random: 0 });
    // A sign of life.
    assert_eq!(take(&mut window, full, 0, later), 0);
    assert_eq!(take(&mut window, slow, 9, later), 1);
}

/// It had the stream for ever, when nothing else rang: found by the simulator, as a lag that did not end.
#[test]
fn who_is_pinned_and_gone_gives_way_although_nothing_else_happens() {
    let mut window = Window::new(
        Settings { strategy: Turns::Pinned, buffer_max: 100, ..settings() },
        Mark::default(),
        ms(0),
    );
    let (gone, here) = (ConsumerId(1), ConsumerId(2));
    assert_eq!(window.take(gone, Want::share(9), ms(0)), Ok(vec![]));
    window.push((0..8).map(|n| (n, recorded(&format!("a-{n}"), n))).collect(), 8, false);
    let mine = window.take(here, Want::share(9), ms(1)).unwrap();
    assert!(mine.len() < 8, "some belong to the other one");
    let rest = window.take(here, Want::share(9), Duration::from_secs(11)).unwrap();
    assert_eq!(mine.len() + rest.len(), 8);
}

#[test]
fn more_consumers_than_the_settings_allow_are_refused() {
    let settings = Settings { consumers_max: 1, ..settings() };
    let mut window = Window::new(settings, Mark::default(), ms(0));
    assert_eq!(window.take(ConsumerId(1), Want::share(1), ms(0)), Ok(vec![]));
    let refused = window.take(ConsumerId(2), Want::share(1), ms(0));
    assert_eq!(refused, Err(ConsumeError::TooManyConsumers { consumers_max: 1 }));
    assert!(window.leave(ConsumerId(1)));
    assert_eq!(window.take(ConsumerId(2), Want::share(1), ms(0)), Ok(vec![]));
}

#[test]
fn checkpoints_wait_for_enough_events_or_enough_time() {
    let me = ConsumerId(1);
    let mut window = Window::new(settings(), Mark::default(), ms(0));
    window.push((0..4).map(|n| (n, recorded(&format!("a-{n}"), n))).collect(), 4, false);
    let given = window.take(me, Want::share(9), ms(0)).unwrap();
    let moment = |now: Duration| Moment { now, random: 0 };
    assert!(window.settle(me, (0, given[0].delivery), Verdict::Ack, moment(ms(1))));
    assert_eq!(window.checkpoint(ms(100)), None, "one is less than two");
    assert_eq!(window.checkpoint(ms(1000)), Some(Mark { next: 1, ended: false }));
    assert_eq!(window.checkpoint_due(), Some(ms(1000)));
    assert!(window.settle(me, (1, given[1].delivery), Verdict::Ack, moment(ms(2))));
    assert_eq!(window.checkpoint_due(), Some(ms(100)));
    assert_eq!(window.checkpoint(ms(99)), None);
    assert_eq!(window.checkpoint(ms(100)), Some(Mark { next: 2, ended: false }));
    window.written(Mark { next: 2, ended: false }, ms(100));
    assert_eq!(window.checkpoint(ms(10_000)), None);
}

#[test]
fn a_reason_that_is_a_book_is_parked_short() {
    let mut window = Window::new(settings(), Mark::default(), ms(0));
    window.push(vec![(0, recorded("a-1", 0))], 1, false);
    let consumer = ConsumerId(1);
    let given = window.take(consumer, Want::share(1), ms(0)).unwrap();
    let why = Verdict::Park("\u{7}".repeat(2_000_000));
    let moment = Moment { now: ms(1), random: 0 };
    assert!(window.settle(consumer, (given[0].place, given[0].delivery), why, moment));
    let park = window.take_parks().remove(0);
    assert!(park.reason.len() < 4_000, "{}", park.reason.len());
}
