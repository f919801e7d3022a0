use bytes::Bytes;

use super::*;
use crate::api::grpc::proto::event_store::client::{
    Empty,
    streams::read_req::options::{
        self, ControlOption, SubscriptionOptions, UuidOption, filter_options::Expression,
    },
};

fn named(name: &[u8]) -> Option<StreamIdentifier> {
    Some(StreamIdentifier { stream_name: Bytes::copy_from_slice(name) })
}

fn why(trouble: Trouble) -> String {
    let Trouble::Invalid(why) = trouble else { panic!("{trouble:?}") };
    why
}

#[test]
fn a_name_is_utf8_and_no_view() {
    assert_eq!(stream_name(named("größe-1".as_bytes())).unwrap().as_str(), "größe-1");
    assert!(why(stream_name(None).unwrap_err()).starts_with("options.stream_identifier: "));
    let bad = why(stream_name(named(&[0xff])).unwrap_err());
    assert!(bad.starts_with("options.stream_identifier.stream_name: not UTF-8"), "{bad}");
    assert!(why(stream_name(named(b"$all")).unwrap_err()).contains("`$all` is no stream"));
    assert!(why(stream_name(named(b"")).unwrap_err()).starts_with("stream: "));
    assert!(why(stream_name(named(b"$$$$x")).unwrap_err()).starts_with("stream: "));
}

fn options(what: StreamOption, count: CountOption) -> Options {
    Options {
        stream_option: Some(what),
        read_direction: 0,
        resolve_links: true,
        count_option: Some(count),
        filter_option: Some(FilterOption::NoFilter(Empty {})),
        uuid_option: Some(UuidOption { content: Some(uuid_option::Content::Structured(Empty {})) }),
        control_option: Some(ControlOption { compatibility: 1 }),
    }
}

fn stream_at(revision: RevisionOption) -> StreamOption {
    let stream_identifier = named(b"player-1");
    StreamOption::Stream(StreamOptions { stream_identifier, revision_option: Some(revision) })
}

fn all_at(commit_position: u64) -> StreamOption {
    let position = options::Position { commit_position, prepare_position: 0 };
    StreamOption::All(AllOptions { all_option: Some(AllOption::Position(position)) })
}

fn subscription() -> CountOption {
    CountOption::Subscription(SubscriptionOptions {})
}

#[test]
fn a_read_begins_at_a_revision_and_a_subscription_behind_it() {
    let read = asked(Some(options(stream_at(RevisionOption::Revision(7)), CountOption::Count(3))));
    let Asked::Read(read) = read.unwrap() else { panic!("no read") };
    assert!(
        matches!(&read.source, Source::Stream { from: 7, stream } if stream.as_str() == "player-1")
    );
    assert_eq!((read.count, read.direction), (3, Direction::Forwards));
    assert_eq!(read.form, Form { structured: true, positions: true });
    let subscribed = asked(Some(options(stream_at(RevisionOption::Revision(7)), subscription())));
    let Asked::Subscription(subscribed) = subscribed.unwrap() else { panic!("no subscription") };
    assert!(matches!(subscribed.followed, Followed::Stream(_, Start::After(7))));
    let beyond = asked(Some(options(all_at(u64::MAX), CountOption::Count(1)))).unwrap();
    let Asked::Read(Read { source: Source::All { from, .. }, .. }) = beyond else {
        panic!("no all")
    };
    assert_eq!(from, GlobalPosition::END);
}

#[test]
fn what_a_read_lacks_is_named() {
    let whole = || options(stream_at(RevisionOption::Start(Empty {})), CountOption::Count(1));
    let broken = |change: &dyn Fn(&mut Options)| {
        let mut options = whole();
        change(&mut options);
        why(asked(Some(options)).unwrap_err())
    };
    assert_eq!(why(asked(None).unwrap_err()), "options: missing");
    assert_eq!(broken(&|o| o.stream_option = None), "options.stream_option: missing");
    assert!(broken(&|o| o.count_option = None).starts_with("options.count_option: missing"));
    assert!(broken(&|o| o.read_direction = 2).starts_with("options.read_direction: 2"));
    let backwards = broken(&|o| {
        o.read_direction = 1;
        o.count_option = Some(subscription());
    });
    assert!(backwards.starts_with("options.read_direction: "), "{backwards}");
    let filter = || {
        let expression = Expression { regex: "(".into(), prefix: vec![] };
        FilterOptions {
            filter: Some(filter_options::Filter::EventType(expression)),
            window: None,
            checkpoint_interval_multiplier: 0,
        }
    };
    let filtered = broken(&|o| o.filter_option = Some(FilterOption::Filter(filter())));
    assert!(filtered.starts_with("options.filter: "), "{filtered}");
    let bad = broken(&|o| {
        o.stream_option = Some(all_at(0));
        o.filter_option = Some(FilterOption::Filter(filter()));
    });
    assert!(bad.starts_with("filter.regex: "), "{bad}");
}

#[test]
fn checkpoints_come_every_window_times_the_multiplier() {
    let every = |window: Option<Window>, multiplier: u32| {
        let expression = Expression { regex: String::new(), prefix: vec!["a".into()] };
        let mut options = options(all_at(0), subscription());
        options.filter_option = Some(FilterOption::Filter(FilterOptions {
            filter: Some(filter_options::Filter::StreamIdentifier(expression)),
            window,
            checkpoint_interval_multiplier: multiplier,
        }));
        let Asked::Subscription(it) = asked(Some(options)).unwrap() else { panic!("no follower") };
        let Followed::All { checkpoint_every, filter: Some(_), .. } = it.followed else {
            panic!("no filter")
        };
        checkpoint_every
    };
    assert_eq!(every(Some(Window::Max(30)), 5), 150);
    assert_eq!(every(Some(Window::Count(Empty {})), 1), 32);
    assert_eq!(every(None, 0), 32);
    assert_eq!(every(Some(Window::Max(u32::MAX)), u32::MAX), u64::from(u32::MAX).pow(2));
}

#[test]
fn a_batch_has_the_time_that_its_deadline_leaves() {
    use batch_append_req::options::DeadlineOption;
    let now = Duration::from_secs(1_700_000_000);
    let at = |seconds| prost_types::Timestamp { seconds, nanos: 0 };
    let span = |seconds| prost_types::Duration { seconds, nanos: 500_000_000 };
    let timeout = |deadline: DeadlineOption| batch_timeout(Some(&deadline), now);
    let left = timeout(DeadlineOption::Deadline21100(at(1_700_000_003)));
    assert_eq!(left, Duration::from_secs(3));
    assert_eq!(timeout(DeadlineOption::Deadline21100(at(1))), Duration::ZERO);
    assert_eq!(timeout(DeadlineOption::Deadline(span(2))), Duration::from_millis(2500));
    assert_eq!(timeout(DeadlineOption::Deadline(span(-2))), Duration::ZERO);
    assert!(timeout(DeadlineOption::Deadline(span(315_576_000_000))) > Duration::from_secs(60));
    assert_eq!(batch_timeout(None, now), Duration::MAX);
}
