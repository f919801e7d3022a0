#![allow(clippy::unwrap_used)] // a test: what is wrong here must stop it

use bytes::Bytes;

use super::*;
use crate::{
    append::AppendId,
    event::{Event, EventId, Format},
    filter::Subject,
    shard::ShardId,
    time::HybridTime,
};

fn event(stream: &str, kind: &str, time: u64) -> RecordedEvent {
    RecordedEvent {
        stream: StreamName::new(stream).unwrap(),
        revision: time,
        shard: ShardId(0),
        time: HybridTime(time),
        append: AppendId(0),
        event: Event {
            id: EventId(0),
            kind: kind.into(),
            format: Format::Json,
            data: Bytes::new(),
            metadata: Bytes::new(),
        },
    }
}

fn group(source: Source) -> Group {
    Group {
        id: GroupId::new(source, "mail").unwrap(),
        number: GroupNumber(1),
        began: Start::Beginning,
        start: GlobalPosition::of(HybridTime(5), ShardId(0)),
        first_revision: 7,
        filter: None,
        target: Target::Consumers,
        settings: Settings::default(),
        replay_below: 0,
    }
}

#[test]
fn a_group_wants_what_its_source_has_from_its_start_on() {
    let of_stream = group(Source::Stream(StreamName::new("player-1").unwrap()));
    assert!(of_stream.wants(&event("player-1", "k", 7)));
    assert!(!of_stream.wants(&event("player-1", "k", 6)), "below the first revision");
    assert!(!of_stream.wants(&event("player-12", "k", 7)));
    let of_category = group(Source::Category("player".into()));
    assert!(of_category.wants(&event("player-1", "k", 5)));
    assert!(!of_category.wants(&event("player-1", "k", 4)), "before the start");
    assert!(!of_category.wants(&event("$$player-1", "k", 9)));
    let of_type = group(Source::EventType("won".into()));
    assert!(of_type.wants(&event("player-1", "won", 5)) && !of_type.wants(&event("won", "k", 5)));
}

#[test]
fn a_group_is_not_given_what_groups_have_parked_unless_it_asks_for_that_stream() {
    let mut all = group(Source::All);
    let parked = all.id.parked().unwrap();
    assert_eq!(parked.as_str(), "$persistentsubscription-$all::mail-parked");
    assert!(all.wants(&event("player-1", "k", 9)) && !all.wants(&event(parked.as_str(), "$>", 9)));
    assert!(!all.wants(&event(parked.metadata().as_str(), "$metadata", 9)));
    assert!(group(Source::Stream(parked.clone())).wants(&event(parked.as_str(), "$>", 9)));
    let prefixes = vec!["shop-".to_owned()];
    all.filter = Some(Filter::prefixes(Subject::StreamName, prefixes).unwrap());
    assert!(all.wants(&event("shop-1", "k", 9)) && !all.wants(&event("player-1", "k", 9)));
}

#[test]
fn groups_are_kept_and_what_an_older_build_did_not_say_is_as_it_was() {
    let groups = Groups { groups: vec![group(Source::All), group(Source::Category("a".into()))] };
    assert_eq!(Groups::decode(&groups.encode()), Ok(groups));
    assert_eq!(Groups::decode(b""), Ok(Groups::default()));
    let old = r#"{"groups":[{"id":{"source":"All","name":"mail"},"number":3,"start":0}]}"#;
    let read = Groups::decode(old.as_bytes()).unwrap();
    assert_eq!(read.groups[0].settings, Settings::default());
    assert!(Groups::decode(b"{").unwrap_err().to_string().contains("upgrade"));
}

#[test]
fn a_bad_name_or_setting_is_refused_by_name() {
    let refused = |name: &str| GroupId::new(Source::All, name).unwrap_err().to_string();
    assert!(refused("").starts_with("group: "));
    assert!(refused("a\nb").contains("control character"));
    assert!(refused(&"x".repeat(2000)).contains("at most 1024"));
    let bad = Settings { backoff_min: ms(20), backoff_max: ms(10), ..Settings::default() };
    let error = bad.check().unwrap_err().to_string();
    assert_eq!(error, "settings.backoff_max = 10: must be from 20 to 86400000");
    assert_eq!(Settings::default().check(), Ok(()));
}
