//! Heads: one for a stream and its metadata, a function of their log alone, however it was put together; and
//! what it shows of the stream as limits, deletions and tombstones come and go.

#![allow(clippy::unwrap_used)]

mod common;

use common::{SHARD, cases, event, events, metadata, stream, tombstone};
use proptest::{collection::vec, prelude::*};
use stormkeep_core::{
    append::{AppendId, Expected},
    entry::BatchedAppend,
    event::Event,
    head::{Change, Head, Limits, Remembered},
    limits::REMEMBERED_APPENDS,
    shard::sequencer::Shown,
    time::{HybridTime, WallTime},
};

const NAME: &str = "player-1";
const META: &str = "$$player-1";

/// What may be appended to a stream or to its metadata.
#[derive(Debug, Clone)]
enum Act {
    Events(usize),
    /// `$tb`, `$maxCount`, `$maxAge`.
    Limits(Option<u64>, Option<u64>, Option<u64>),
    Delete,
    /// An event of the metadata stream that is none of Stormkeep's.
    Other,
    Tombstone,
}

fn any_act() -> impl Strategy<Value = Act> {
    let some = |range| prop::option::of(range);
    prop_oneof![
        12 => (1..5usize).prop_map(Act::Events),
        4 => (some(0..40u64), some(0..10u64), some(0..10u64))
            .prop_map(|(before, count, age)| Act::Limits(before, count, age)),
        3 => Just(Act::Delete),
        2 => Just(Act::Other),
        1 => Just(Act::Tombstone),
    ]
}

fn json(before: Option<u64>, count: Option<u64>, age: Option<u64>) -> String {
    let field = |name: &str, value: Option<u64>| value.map(|n| format!("\"{name}\": {n}"));
    let fields = [field("$tb", before), field("$maxCount", count), field("$maxAge", age)];
    format!("{{{}}}", fields.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

/// The appends of a stream and its metadata, each with the time of its first event.
fn history(acts: &[Act]) -> Vec<(HybridTime, BatchedAppend)> {
    let mut next = [0u64; 2];
    let mut time = 1;
    let appends = (0..).zip(acts).map(|(id, act)| {
        let events: Vec<Event> = match act {
            Act::Events(count) => events(*count).to_vec(),
            Act::Limits(before, count, age) => vec![metadata(&json(*before, *count, *age))],
            Act::Delete => vec![metadata(&format!("{{\"$tb\": {}}}", i64::MAX))],
            Act::Other => vec![event(5, 3)],
            Act::Tombstone => vec![tombstone()],
        };
        let meta = matches!(act, Act::Limits(..) | Act::Delete | Act::Other);
        let first = next[usize::from(meta)];
        next[usize::from(meta)] += events.len() as u64;
        let at = HybridTime(time);
        time += events.len() as u64;
        let stream = stream(if meta { META } else { NAME });
        (at, BatchedAppend { stream, id: AppendId(id), first, events: events.into() })
    });
    appends.collect()
}

fn changes(acts: &[Act]) -> Vec<Change> {
    history(acts).iter().map(|(time, append)| Change::of(append, SHARD, *time)).collect()
}

fn head(changes: &[Change]) -> Option<Head> {
    changes.iter().fold(None, |head, change| Some(Head::extend(head, change)))
}

fn shown(head: Option<&Head>) -> Shown {
    Shown::of(head, &stream(NAME), WallTime(0))
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_head_remembers_the_last_appends_to_either(acts in vec(any_act(), 1..100)) {
        let changes = changes(&acts);
        let head = head(&changes).unwrap();
        let kept = changes.len().saturating_sub(REMEMBERED_APPENDS);
        prop_assert!(head.remembered.iter().eq(changes[kept..].iter().map(|c| &c.append)));
        for (n, Change { append, .. }) in changes.iter().enumerate() {
            let (own, other) = if append.metadata { (META, NAME) } else { (NAME, META) };
            prop_assert_eq!(head.recall(&stream(own), append.id), (n >= kept).then_some(append));
            // The same id on the other stream is another append.
            prop_assert_eq!(head.recall(&stream(other), append.id), None);
        }
        let last = |meta| changes.iter().rev().find(|c| c.append.metadata == meta).map(|c| c.append.last);
        prop_assert_eq!((head.revision, head.metadata), (last(false), last(true)));
        prop_assert_eq!((head.last(&stream(NAME)), head.last(&stream(META))), (last(false), last(true)));
        let events: usize = history(&acts).iter().map(|(_, a)| a.events.len()).sum();
        prop_assert_eq!(head.version(), events as u64);
    }

    /// What the store has and what the tail has, put together, is the head of the whole, if nothing is
    /// missing between them: whichever of the two is ahead, and however much both have.
    #[test]
    fn a_head_put_together_is_the_head_of_the_whole(
        acts in vec(any_act(), 1..100), stored in any::<prop::sample::Index>(),
        begin in any::<prop::sample::Index>(), end in any::<prop::sample::Index>(),
    ) {
        let changes = changes(&acts);
        let stored = stored.index(changes.len() + 1);
        let begin = begin.index(stored + 1);
        let end = begin + end.index(changes.len() - begin + 1);
        let put_together = Head::complete(head(&changes[..stored]), &changes[begin..end]);
        prop_assert_eq!(put_together, head(&changes[..end.max(stored)]));
    }

    /// Against a list of the stream's events, of which limits take some away for as long as they hold, and a
    /// truncation for ever, or until another one comes.
    #[test]
    fn a_stream_shows_what_its_limits_leave(acts in vec(any_act(), 1..60)) {
        let (mut count, mut before, mut most) = (0u64, 0u64, u64::MAX);
        let mut ended = false;
        let all = changes(&acts);
        for (n, act) in acts.iter().enumerate() {
            match act {
                Act::Events(events) => count += *events as u64,
                Act::Limits(truncate, max, _) => {
                    before = truncate.unwrap_or(0).min(count);
                    most = max.filter(|n| *n > 0).unwrap_or(u64::MAX);
                }
                Act::Delete => (before, most) = (count, u64::MAX),
                Act::Other => {}
                Act::Tombstone => (count, ended) = (count + 1, true),
            }
            let shows = (0..count).filter(|r| *r >= before && count - r <= most).count() as u64;
            let head = head(&all[..=n]);
            let shown = shown(head.as_ref());
            prop_assert_eq!(shown.head, count.checked_sub(1));
            prop_assert_eq!(count - shown.first, shows);
            prop_assert_eq!((shown.exists, shown.tombstoned), (shows > 0, ended));
            let meets = |expected| Head::meets(head.as_ref(), &stream(NAME), expected);
            prop_assert_eq!((meets(Expected::NoStream), meets(Expected::StreamExists)), (shows == 0, shows > 0));
            prop_assert_eq!(count > 0 && meets(Expected::Exactly(count.saturating_sub(1))), count > 0);
            // Metadata shows itself whole, and is never deleted.
            let meta = Shown::of(head.as_ref(), &stream(META), WallTime(u64::MAX));
            prop_assert_eq!((meta.first, meta.exists, meta.tombstoned), (0, meta.head.is_some(), false));
            prop_assert_eq!(meta.oldest, HybridTime(0));
        }
    }

    #[test]
    fn metadata_of_any_content_does_no_harm(bytes in vec(any::<u8>(), 0..60), text in "\\{\"\\$tb\": .{0,20}\\}") {
        for data in [bytes, text.into_bytes()] {
            let event = Event { data: data.into(), ..metadata("") };
            let head = head_of(META, vec![event], head(&changes(&[Act::Events(3)])));
            prop_assert!(head.limits.truncate_before <= 3);
        }
    }
}

/// The head after one more append.
fn head_of(name: &str, events: Vec<Event>, before: Option<Head>) -> Head {
    let name = stream(name);
    let first = before.as_ref().and_then(|h| h.last(&name)).map_or(0, |last| last + 1);
    let append = BatchedAppend { stream: name, id: AppendId(999), first, events: events.into() };
    Head::extend(before, &Change::of(&append, SHARD, HybridTime(5000)))
}

#[test]
fn limits_are_numbers_in_their_place_and_all_else_sets_none() {
    let set = |json: &str| {
        let head = head_of(META, vec![metadata(json)], head(&changes(&[Act::Events(9)])));
        let Limits { truncate_before, max_count, max_age_s } = head.limits;
        (truncate_before, max_count, max_age_s)
    };
    let cases = [
        (r#"{"$tb": 3, "$maxCount": 5, "$maxAge": 60}"#, (3, Some(5), Some(60))),
        (r#"{"$maxCount": 5}"#, (0, Some(5), None)),
        (r#"{"$acl": {"$r": "all"}, "mine": [1, 2], "$tb": 9}"#, (9, None, None)),
        (r#"{"$tb": 10}"#, (9, None, None)),
        (r#"{"$tb": 9223372036854775807}"#, (9, None, None)),
        (r#"{"$tb": "3", "$maxCount": -5, "$maxAge": 1.5}"#, (0, None, None)),
        (r#"{"$tb": null, "$maxCount": 0, "$maxAge": 0}"#, (0, None, None)),
        ("{}", (0, None, None)),
        ("[3]", (0, None, None)),
        ("", (0, None, None)),
    ];
    for (json, limits) in cases {
        assert_eq!(set(json), limits, "{json}");
    }
    // The last one of an append counts; one of another type, or of a stream that is no metadata stream, sets none.
    let two = vec![metadata(r#"{"$tb": 1}"#), metadata(r#"{"$maxCount": 2}"#), event(1, 1)];
    let head = head_of(META, two, head(&changes(&[Act::Events(9)])));
    assert_eq!(head.limits, Limits { max_count: Some(2), ..Limits::default() });
    let head = head_of(NAME, vec![metadata(r#"{"$tb": 1}"#)], None);
    assert_eq!(head.limits, Limits::default());
    let other = Event { kind: "$other".into(), ..metadata(r#"{"$tb": 1}"#) };
    assert_eq!(head_of(META, vec![other], None).limits, Limits::default());
}

#[test]
fn a_deleted_stream_is_none_until_the_next_append_and_its_revisions_go_on() {
    let mut acts = vec![Act::Events(3), Act::Delete];
    let gone = head(&changes(&acts));
    let exactly = Expected::Exactly(2);
    assert_eq!((shown(gone.as_ref()).head, shown(gone.as_ref()).exists), (Some(2), false));
    for (expected, met) in
        [(Expected::NoStream, true), (Expected::StreamExists, false), (exactly, true)]
    {
        assert_eq!(Head::meets(gone.as_ref(), &stream(NAME), expected), met, "{expected:?}");
        // The metadata stream has one event, whatever it says of the other one.
        let of_metadata = Head::meets(gone.as_ref(), &stream(META), expected);
        assert_eq!(of_metadata, expected == Expected::StreamExists, "{expected:?}");
    }
    acts.push(Act::Events(2));
    let back = shown(head(&changes(&acts)).as_ref());
    assert_eq!((back.head, back.exists, back.first), (Some(4), true, 3));
    // A stream can be deleted before it has an event, which hides nothing.
    let early = head(&changes(&[Act::Delete, Act::Events(2)])).unwrap();
    assert_eq!((early.first_shown(&stream(NAME)), early.is_deleted()), (0, false));
}

#[test]
fn a_tombstone_is_for_ever_and_only_in_the_stream_itself() {
    let acts = [Act::Events(2), Act::Tombstone, Act::Limits(Some(3), None, None)];
    let head = head(&changes(&acts)).unwrap();
    assert!(head.tombstoned && shown(Some(&head)).tombstoned);
    assert!(!head_of(META, vec![tombstone()], None).tombstoned);
    assert!(head_of(NAME, vec![event(1, 1), tombstone(), event(2, 1)], None).tombstoned);
}

#[test]
fn age_is_judged_by_the_wall_clock() {
    let head = head(&changes(&[Act::Events(1), Act::Limits(None, None, Some(60))])).unwrap();
    let oldest = |now| Shown::of(Some(&head), &stream(NAME), WallTime(now)).oldest;
    assert_eq!(oldest(100_000_000), HybridTime(40_000_000));
    assert_eq!(oldest(5), HybridTime(0));
    let longest = Head { limits: Limits { max_age_s: Some(u64::MAX), ..head.limits }, ..head };
    assert_eq!(longest.oldest_shown(&stream(NAME), WallTime(u64::MAX)), HybridTime(0));
}

#[test]
fn what_an_append_expects_of_its_stream() {
    let some = head(&changes(&[Act::Events(3)])).unwrap();
    let only_metadata = head(&changes(&[Act::Other])).unwrap();
    let cases = [
        (Expected::Any, true, true),
        (Expected::NoStream, true, false),
        (Expected::StreamExists, false, true),
        (Expected::Exactly(2), false, true),
        (Expected::Exactly(1), false, false),
        (Expected::Exactly(3), false, false),
        (Expected::Exactly(u64::MAX), false, false),
    ];
    let name = stream(NAME);
    for (expected, of_none, of_some) in cases {
        assert_eq!(Head::meets(None, &name, expected), of_none, "{expected:?}");
        assert_eq!(Head::meets(Some(&only_metadata), &name, expected), of_none, "{expected:?}");
        assert_eq!(Head::meets(Some(&some), &name, expected), of_some, "{expected:?}");
    }
}

#[test]
fn a_head_knows_what_it_lacks() {
    let all = changes(&[Act::Events(2), Act::Other, Act::Events(1), Act::Other]);
    let part = head(&all[..2]).unwrap();
    let lacks: Vec<bool> = all.iter().map(|c| part.lacks(&c.append)).collect();
    assert_eq!(lacks, [false, false, true, true]);
    let nothing = Head::default();
    let first = Remembered { metadata: false, ..all[0].append.clone() };
    assert!(nothing.lacks(&first));
}
