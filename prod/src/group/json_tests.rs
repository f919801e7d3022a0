use stormkeep_core::group::{GroupId, GroupNumber, Source};

use super::*;

fn group() -> Group {
    Group {
        id: GroupId::new(Source::Category("player".into()), "scores").unwrap(),
        number: GroupNumber(7),
        began: Start::End,
        start: GlobalPosition(5),
        first_revision: 0,
        filter: None,
        target: Target::Consumers,
        settings: Settings::default(),
        replay_below: 3,
    }
}

fn input(value: &Value) -> GroupInput {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn what_is_shown_can_be_made_again() {
    let webhook = |secret: Option<&str>| Target::Webhook {
        url: "http://localhost/".into(),
        secret: secret.map(Into::into),
        form: Form::Records,
    };
    let prefixes = Filter::prefixes(Subject::StreamName, vec!["a".into(), "b".into()]).unwrap();
    let groups = [
        group(),
        Group { began: Start::Beginning, filter: Some(prefixes), ..group() },
        Group {
            began: Start::Revision(5),
            filter: Some(Filter::expression(Subject::EventType, "^won").unwrap()),
            target: Target::Lambda { function: "arn:aws:lambda:x".into(), form: Form::CloudEvents },
            ..group()
        },
        Group {
            began: Start::Position(GlobalPosition(1 << 60)),
            target: webhook(None),
            settings: Settings {
                strategy: Strategy::Pinned,
                message_timeout: Duration::from_millis(7),
                in_flight_per_stream: 9,
                push: Push { batch_wait: Duration::from_millis(250), ..Push::default() },
                ..Settings::default()
            },
            ..group()
        },
    ];
    for group in groups {
        let shown = Value::Object(group_json(&group));
        let told = input(&shown);
        assert_eq!(told.check_id("$ce-player", "scores"), Ok(()));
        assert_eq!(told.start(), Ok(group.began), "{shown}");
        assert_eq!(told.filter(), Ok(group.filter.clone()), "{shown}");
        assert_eq!(told.target(&Target::Consumers), Ok(group.target.clone()), "{shown}");
        assert_eq!(told.settings(&Settings::default()), Ok(group.settings.clone()), "{shown}");
    }
    let secret = Group { target: webhook(Some("hush")), ..group() };
    let shown = Value::Object(group_json(&secret));
    let target = json!({ "webhook": "http://localhost/", "secret": true, "form": "records" });
    assert_eq!(shown["target"], target);
    // It stays where it is there, and cannot be made up where it is not.
    assert_eq!(input(&shown).target(&secret.target), Ok(secret.target.clone()));
    assert!(input(&shown).target(&Target::Consumers).unwrap_err().starts_with("target.secret: "));
    let none = json!({ "target": { "webhook": "http://localhost/", "secret": null } });
    assert_eq!(input(&none).target(&secret.target), Ok(webhook(None)));
}

#[test]
fn what_is_absent_stays() {
    let now = Settings { max_retries: 3, buffer_max: 77, ..Settings::default() };
    let told = input(&json!({ "settings": { "max_retries": 5, "push": { "concurrency": 9 } } }));
    let settings = told.settings(&now).unwrap();
    assert_eq!((settings.max_retries, settings.buffer_max, settings.push.concurrency), (5, 77, 9));
    let lambda = Target::Lambda { function: "f".into(), form: Form::Records };
    assert_eq!(told.target(&lambda), Ok(lambda));
    let other = Target::Lambda { function: "other".into(), form: Form::CloudEvents };
    let moved = input(&json!({ "target": { "lambda": "f" } })).target(&other);
    assert_eq!(moved, Ok(Target::Lambda { function: "f".into(), form: Form::CloudEvents }));
    assert_eq!(input(&json!({})).start(), Ok(Start::End));
}

#[test]
fn what_makes_no_sense_is_named() {
    let error = |value: Value| {
        let told = input(&value);
        let all = [
            told.check_id("$all", "g").err(),
            told.start().err(),
            told.filter().err(),
            told.target(&Target::Consumers).err(),
            told.settings(&Settings::default()).err(),
        ];
        all.into_iter().flatten().next().unwrap()
    };
    for (value, why) in [
        (json!({ "group": "h" }), "group: `h`, but the address says `g`"),
        (json!({ "start": "middle" }), "start: `\"middle\"`; one of"),
        (json!({ "start": { "revision": -1 } }), "start: `{\"revision\":-1}`"),
        (json!({ "filter": {} }), "filter: an object with one of event_type_prefixes"),
        (
            json!({ "filter": { "stream_prefix": [] } }),
            "filter.stream_prefix: this filter is not known; did you mean `stream_prefixes`?",
        ),
        (json!({ "filter": { "event_type_regex": "(" } }), "filter.event_type_regex: "),
        (json!({ "filter": { "stream_prefixes": [1] } }), "filter.stream_prefixes: a list"),
        (json!({ "target": "lambda" }), "target: `\"lambda\"`; one of"),
        (json!({ "target": { "lambda": "" } }), "target.lambda: a text"),
        (json!({ "target": { "webhook": "u", "sekret": 1 } }), "target.sekret: this field"),
        (json!({ "target": { "webhook": "host" } }), "target.webhook: `host` is no address"),
        (
            json!({ "target": { "lambda": "f", "form": "cloudevent" } }),
            "target.form: `\"cloudevent\"` is not known; did you mean `cloudevents`?",
        ),
        (
            json!({ "settings": { "strategy": "roundrobin" } }),
            "settings.strategy: `roundrobin` is not known; did you mean `round-robin`?",
        ),
    ] {
        let told = error(value);
        assert!(told.starts_with(why), "{told}");
    }
    let change = input(&json!({ "start": "end" })).check_change().unwrap_err();
    assert!(change.starts_with("start: it cannot be changed"), "{change}");
}
