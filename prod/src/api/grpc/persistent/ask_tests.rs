use super::*;
use crate::api::grpc::proto::event_store::client::Empty;

fn identifier(name: &str) -> Option<StreamIdentifier> {
    Some(StreamIdentifier { stream_name: name.as_bytes().to_vec().into() })
}

/// As the Python client sends them.
fn told() -> create_req::Settings {
    create_req::Settings {
        max_retry_count: 10,
        min_checkpoint_count: 10,
        max_checkpoint_count: 1000,
        max_subscriber_count: 5,
        live_buffer_size: 500,
        read_batch_size: 200,
        history_buffer_size: 700,
        consumer_strategy: "DispatchToSingle".into(),
        message_timeout: Some(create_req::settings::MessageTimeout::MessageTimeoutMs(1500)),
        checkpoint_after: Some(create_req::settings::CheckpointAfter::CheckpointAfterTicks(10_000)),
        ..create_req::Settings::default()
    }
}

fn stream(name: &str, settings: create_req::Settings) -> create_req::Options {
    let stream = create_req::StreamOptions {
        stream_identifier: identifier(name),
        revision_option: Some(create_req::stream_options::RevisionOption::End(Empty {})),
    };
    create_req::Options {
        stream_option: Some(create_req::options::StreamOption::Stream(stream)),
        group_name: "mail".into(),
        settings: Some(settings),
        ..create_req::Options::default()
    }
}

fn refused(settings: create_req::Settings) -> String {
    match new_group(stream("s", settings)) {
        Err(Trouble::Invalid(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_setting_is_understood() {
    let new = new_group(stream("$ce-player", told())).unwrap();
    assert_eq!(new.id.to_string(), "$ce-player::mail");
    assert_eq!(new.id.source, Source::Category("player".into()));
    assert_eq!((new.start, new.target), (Start::End, Target::Consumers));
    let expected = Settings {
        strategy: Strategy::DispatchToSingle,
        message_timeout: Duration::from_millis(1500),
        max_retries: 10,
        buffer_max: 700,
        read_batch: 200,
        checkpoint_after: Duration::from_millis(1),
        checkpoint_min: 10,
        checkpoint_max: 1000,
        consumers_max: 5,
        in_flight_per_stream: 700,
        ..Settings::default()
    };
    assert_eq!(new.settings, expected);
    // As the Node client says where: in fields of older times.
    let older = create_req::Options {
        stream_identifier: identifier("s"),
        group_name: "mail".into(),
        settings: Some(create_req::Settings {
            revision: u64::MAX,
            consumer_strategy: String::new(),
            named_consumer_strategy: 2,
            ..told()
        }),
        stream_option: None,
    };
    let new = new_group(older.clone()).unwrap();
    assert_eq!((new.start, new.settings.strategy), (Start::End, Strategy::Pinned));
    let at = |revision| {
        let settings = Some(create_req::Settings { revision, ..told() });
        new_group(create_req::Options { settings, ..older.clone() }).unwrap().start
    };
    assert_eq!((at(0), at(7)), (Start::Beginning, Start::Revision(7)));
}

#[test]
fn all_is_filtered_and_begins_at_a_position() {
    use all_options::{AllOption, FilterOption, filter_options};
    let all = |at: AllOption| create_req::Options {
        stream_option: Some(create_req::options::StreamOption::All(create_req::AllOptions {
            all_option: Some(at),
            filter_option: Some(FilterOption::Filter(all_options::FilterOptions {
                filter: Some(filter_options::Filter::StreamIdentifier(
                    filter_options::Expression {
                        regex: String::new(),
                        prefix: vec!["player-".into()],
                    },
                )),
                ..all_options::FilterOptions::default()
            })),
        })),
        group_name: "mail".into(),
        ..create_req::Options::default()
    };
    let at = |commit_position| {
        AllOption::Position(create_req::Position { commit_position, prepare_position: 0 })
    };
    let new = new_group(all(at(7))).unwrap();
    assert_eq!((new.id.source, new.start), (Source::All, Start::Position(GlobalPosition(7))));
    let prefixes = Filter::prefixes(Subject::StreamName, vec!["player-".into()]);
    assert_eq!(new.filter, Some(prefixes.unwrap()));
    assert_eq!(new.settings, Settings { in_flight_per_stream: 500, ..Settings::default() });
    assert_eq!(new_group(all(at(u64::MAX))).unwrap().start, Start::End);
}

#[test]
fn what_makes_no_sense_is_named_in_the_protocols_words() {
    for (settings, why) in [
        (
            create_req::Settings { consumer_strategy: "PinnedByCorrelation".into(), ..told() },
            "settings.consumer_strategy: `PinnedByCorrelation` is not there; did you mean `Pinned`?",
        ),
        (
            create_req::Settings {
                consumer_strategy: String::new(),
                named_consumer_strategy: 3,
                ..told()
            },
            "settings.named_consumer_strategy: 3",
        ),
        (create_req::Settings { max_retry_count: -1, ..told() }, "settings.max_retry_count: -1"),
        (
            create_req::Settings { read_batch_size: 0, ..told() },
            "settings.read_batch_size = 0: must be from 1",
        ),
        (
            create_req::Settings {
                message_timeout: Some(create_req::settings::MessageTimeout::MessageTimeoutTicks(
                    -1,
                )),
                ..told()
            },
            "settings.message_timeout: it is negative",
        ),
    ] {
        let told = refused(settings);
        assert!(told.starts_with(why), "{told}");
    }
    assert!(matches!(slots(0), Err(Trouble::Invalid(_))));
    assert_eq!((slots(10), slots(i32::MAX)), (Ok(10), Ok(BUFFER_MAX)));
}

#[test]
fn a_time_of_zero_never_comes_and_what_is_not_told_stays() {
    let never = create_req::Settings {
        message_timeout: Some(create_req::settings::MessageTimeout::MessageTimeoutMs(0)),
        checkpoint_after: None,
        ..told()
    };
    let settings = new_group(stream("s", never)).unwrap().settings;
    assert_eq!(
        (settings.message_timeout, settings.checkpoint_after),
        (NEVER, Duration::from_secs(2))
    );
    let now = Settings { in_flight_per_stream: 3, backoff_max: NEVER, ..Settings::default() };
    let update = update_req::Options {
        stream_option: Some(update_req::options::StreamOption::All(
            update_req::AllOptions::default(),
        )),
        group_name: "mail".into(),
        settings: Some(update_req::Settings {
            max_retry_count: 1,
            live_buffer_size: 9,
            read_batch_size: 9,
            max_checkpoint_count: 1,
            named_consumer_strategy: 1,
            ..update_req::Settings::default()
        }),
        ..update_req::Options::default()
    };
    let (id, asked) = updated_group(update).unwrap();
    let updated = super::settings(asked, &now).unwrap();
    assert_eq!(id.to_string(), "$all::mail");
    assert_eq!((updated.in_flight_per_stream, updated.backoff_max), (3, NEVER));
    assert_eq!((updated.max_retries, updated.buffer_max), (1, 9));
    assert_eq!(updated.message_timeout, now.message_timeout);
}
