#![allow(clippy::unwrap_used)] // a test: what is wrong here must stop it

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    what: Subscription,
}

fn parse(line: &str) -> Result<Subscription, String> {
    let words = std::iter::once("subscription").chain(line.split(' '));
    Line::try_parse_from(words).map(|line| line.what).map_err(|error| error.to_string())
}

fn body(line: &str) -> Result<Value, Failure> {
    match parse(line).unwrap() {
        Subscription::Create(args) => args.body(),
        Subscription::Update(args) => args.body(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_group_is_made_as_the_api_wants_it() {
    assert_eq!(body("create $all g").unwrap(), json!({ "start": "end" }));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "whsec_AAE=\n").unwrap();
    let line = format!(
        "create $ce-player g --webhook https://h/p --secret-file {} --form cloudevents --start position:5 \
         --type-prefix a --type-prefix b --max-retries 3 --batch-wait-ms 7 --strategy pinned",
        file.display()
    );
    assert_eq!(
        body(&line).unwrap(),
        json!({
            "start": { "position": 5 },
            "filter": { "event_type_prefixes": ["a", "b"] },
            "target": { "webhook": "https://h/p", "secret": "whsec_AAE=", "form": "cloudevents" },
            "settings": { "strategy": "pinned", "max_retries": 3, "push": { "batch_wait_ms": 7 } },
        })
    );
}

#[test]
fn an_update_says_only_what_is_given() {
    assert_eq!(
        body("update player-1 g --lambda f --concurrency 2").unwrap(),
        json!({ "target": { "lambda": "f" }, "settings": { "push": { "concurrency": 2 } } })
    );
    assert_eq!(body("update player-1 g --consumers").unwrap(), json!({ "target": "consumers" }));
    assert!(matches!(body("update player-1 g"), Err(Failure::Nonsense(_))));
}

#[test]
fn what_makes_no_sense_is_refused() {
    for line in [
        "create $all",
        "create $all g --lambda f --webhook http://h",
        "create $all g --secret-file f",
        "create $all g --start 5",
        "create $all g --start revision:x",
        "create $all g --type-prefix a --stream-regex b",
        "create $all g --form xml --lambda f",
        "update $all g --consumers --lambda f",
        "replay $all g --stop-at x",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
    assert!(matches!(body("create $all g --form records"), Err(Failure::Nonsense(_))));
}

#[test]
fn paths_are_escaped() {
    let Subscription::Replay { name, stop_at } =
        parse("replay $ce-a/b g --stop-at 7 --url http://h:1").unwrap()
    else {
        panic!("it is a replay");
    };
    assert_eq!(stop_at, Some(7));
    let call = name.call(Method::POST, "/replay", None);
    assert_eq!(call.path, "/subscriptions/%24ce-a%2Fb/g/replay");
}

#[test]
fn a_group_is_shown_in_lines() {
    let group = json!({
        "source": "$ce-player", "group": "scores", "start": { "position": 5 }, "filter": null,
        "target": { "lambda": "f", "form": "cloudevents" },
        "settings": { "max_retries": 3, "push": { "concurrency": 4 } },
        "units": [{ "shard": 0, "settled": 7 }], "parked": 1, "partial": true,
    });
    assert_eq!(
        shown(&group),
        [
            "$ce-player::scores  lambda f (cloudevents)",
            "  start position 5",
            "  max_retries 3",
            "  push concurrency 4",
            "  unit settled 7, shard 0",
            "  parked 1",
            "  somebody who works on it could not be asked: the units are not all",
        ]
    );
    assert_eq!(
        line(&json!({ "source": "a", "group": "g", "target": "consumers" })),
        "a::g  consumers"
    );
}
