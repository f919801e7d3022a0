//! Groups of consumers: made, consumed, looked at, and what is refused.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{Server, event};

const JSON: (&str, &str) = ("content-type", "application/json");

impl Server {
    async fn put(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.ask("PUT", path, &[JSON], &body.to_string()).await
    }

    /// Sends what is answered without a body.
    async fn done(&self, method: &str, path: &str, body: Value) {
        let request = Request::builder().method(method).uri(path).header(JSON.0, JSON.1);
        let response = self.send(request.body(Body::from(body.to_string())).unwrap()).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT, "{method} {path}");
    }

    /// Fetches events, once there are any.
    async fn fetch(&self, group: &str, consumer: &str, max: u32) -> Value {
        loop {
            let path = format!("{group}/events?consumer={consumer}&max={max}&wait=60");
            let (status, fetched) = self.get(&path).await;
            // Its units may not be there yet.
            if status != StatusCode::SERVICE_UNAVAILABLE {
                assert_eq!(status, StatusCode::OK, "{fetched}");
                return fetched;
            }
        }
    }

    /// Settles what was fetched, each event as `verdict` says.
    async fn settle(&self, group: &str, fetched: &Value, verdict: &str) -> Vec<bool> {
        let of = |given: &Value| {
            json!({
                "place": given["place"], "delivery": given["delivery"],
                "verdict": verdict, "reason": "a test",
            })
        };
        let verdicts: Vec<Value> = events(fetched).iter().map(of).collect();
        let body = json!({
            "consumer": fetched["consumer"], "unit": fetched["unit"], "verdicts": verdicts,
        });
        let (status, settled) = self.post(&format!("{group}/settle"), body).await;
        assert_eq!(status, StatusCode::OK, "{settled}");
        serde_json::from_value(settled["counted"].clone()).unwrap()
    }

    /// Waits until a look at the group shows something.
    async fn until(&self, group: &str, shows: impl Fn(&Value) -> bool) -> Value {
        loop {
            let (status, info) = self.get(group).await;
            assert_eq!(status, StatusCode::OK, "{info}");
            if shows(&info) {
                return info;
            }
            tokio::task::yield_now().await;
        }
    }
}

fn events(fetched: &Value) -> &Vec<Value> {
    fetched["events"].as_array().unwrap()
}

fn revision(given: &Value) -> u64 {
    given["revision"].as_u64().unwrap()
}

const ANN: &str = "00000000-0000-0000-0000-00000000000a";
const BEN: &str = "00000000-0000-0000-0000-00000000000b";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_made_changed_listed_and_deleted() {
    let server = Server::start().await;
    let group = "/subscriptions/$ce-player/scores";
    let body = json!({
        "start": "beginning",
        "filter": { "event_type_prefixes": ["won", "lost"] },
        "settings": { "max_retries": 3, "message_timeout_ms": 1500, "strategy": "pinned" },
    });
    let (status, made) = server.put(group, body.clone()).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!((&made["source"], &made["group"]), (&json!("$ce-player"), &json!("scores")));
    assert_eq!((&made["start"], &made["filter"]), (&body["start"], &body["filter"]));
    assert_eq!(made["target"], "consumers");
    let settings = &made["settings"];
    assert_eq!((&settings["max_retries"], &settings["strategy"]), (&json!(3), &json!("pinned")));
    assert_eq!(
        (&settings["buffer_max"], &settings["in_flight_per_stream"]),
        (&json!(500), &json!(1))
    );
    let (status, kind, _) = server.problem("PUT", group, &[JSON], &body.to_string()).await;
    assert_eq!((status, kind.as_str()), (409, "subscription-exists"));
    let webhook = json!({ "webhook": "http://127.0.0.1:9/", "secret": "hush" });
    let change = json!({ "settings": { "max_retries": 5 }, "target": webhook });
    let (status, changed) = server.post(group, change).await;
    assert_eq!(status, StatusCode::OK, "{changed}");
    assert_eq!(changed["settings"]["max_retries"], 5);
    assert_eq!(changed["settings"]["message_timeout_ms"], 1500, "what is absent stays");
    assert_eq!(
        changed["target"],
        json!({ "webhook": "http://127.0.0.1:9/", "secret": true, "form": "records" })
    );
    let (_, info) = server.get(group).await;
    assert!(info["units"].is_array() && info["parked"] == 0, "{info}");
    let path = format!("{group}/events?wait=60");
    let (status, kind, _) = server.problem("GET", &path, &[], "").await;
    assert_eq!((status, kind.as_str()), (409, "subscription-pushed"));
    server.put("/subscriptions/%24all/every%2Fthing", json!({})).await;
    let (_, list) = server.get("/subscriptions").await;
    let listed: Vec<&Value> = list["subscriptions"].as_array().unwrap().iter().collect();
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().any(|it| it["source"] == "$all" && it["group"] == "every/thing"));
    assert!(listed.iter().any(|it| **it == changed), "{list}");
    server.done("DELETE", group, json!({})).await;
    for (method, path) in [("GET", group), ("POST", group), ("DELETE", group)] {
        let (status, kind, detail) = server.problem(method, path, &[JSON], "{}").await;
        assert_eq!((status, kind.as_str()), (404, "subscription-not-found"), "{detail}");
    }
    server.machine.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_of_a_stream_is_kept_while_an_event_fails() {
    let server = Server::start().await;
    let group = "/subscriptions/$ce-player/scores";
    let settings = json!({
        "backoff_min_ms": 1, "backoff_max_ms": 5, "max_retries": 100, "in_flight_per_stream": 4,
    });
    server.put(group, json!({ "start": "beginning", "settings": settings })).await;
    for n in 0..6 {
        for stream in ["a", "b", "c"] {
            server.post(&format!("/streams/player-{stream}"), event("won", n)).await;
        }
    }
    // The third event of one stream fails three times; what comes behind it waits, and the other streams go on.
    let (mut fails, mut succeeded) = (3, BTreeMap::<String, Vec<u64>>::new());
    while succeeded.values().map(Vec::len).sum::<usize>() < 18 {
        let fetched = server.fetch(group, ANN, 7).await;
        for given in events(&fetched) {
            let stream = given["stream"].as_str().unwrap().to_owned();
            let mut one = fetched.clone();
            one["events"] = json!([given]);
            if stream == "player-b" && revision(given) == 2 && fails > 0 {
                assert_eq!(given["retries"], 3 - fails);
                fails -= 1;
                assert_eq!(server.settle(group, &one, "retry").await, [true]);
            } else if server.settle(group, &one, "ack").await == [true] {
                succeeded.entry(stream).or_default().push(revision(given));
            }
        }
    }
    assert_eq!(fails, 0);
    for (stream, revisions) in succeeded {
        assert!(revisions.iter().copied().eq(0..6), "{stream}: {revisions:?}");
    }
    server.machine.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_deleted_group_gave_settles_nothing_of_the_one_made_after_it() {
    let server = Server::start().await;
    let group = "/subscriptions/player-1/mail";
    server.post("/streams/player-1", event("a", 0)).await;
    server.put(group, json!({ "start": "beginning" })).await;
    let of_first = server.fetch(group, ANN, 1).await;
    server.done("DELETE", group, json!({})).await;
    server.put(group, json!({ "start": "beginning" })).await;
    let of_second = loop {
        // Until the first has ended, it answers.
        let fetched = server.fetch(group, ANN, 1).await;
        if fetched["unit"] != of_first["unit"] && !events(&fetched).is_empty() {
            break fetched;
        }
    };
    let delivery = |fetched: &Value| fetched["events"][0]["delivery"].clone();
    assert_eq!(delivery(&of_first), delivery(&of_second), "both counted from the beginning");
    assert_eq!(server.settle(group, &of_first, "ack").await, [false]);
    assert_eq!(server.settle(group, &of_second, "ack").await, [true]);
    server.machine.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_consumer_leaves_is_given_to_another() {
    let server = Server::start().await;
    let group = "/subscriptions/player-1/mail";
    let settings = json!({ "in_flight_per_stream": 10, "consumers_max": 2 });
    server.put(group, json!({ "start": "beginning", "settings": settings })).await;
    server.post("/streams/player-1", json!([event("a", 0), event("b", 1), event("c", 2)])).await;
    let ann = server.fetch(group, ANN, 10).await;
    assert_eq!(events(&ann).len(), 3);
    assert_eq!(
        server
            .settle(
                group,
                &json!({
                    "consumer": ANN, "unit": ann["unit"], "events": [ann["events"][0]],
                }),
                "ack"
            )
            .await,
        [true]
    );
    server.done("POST", &format!("{group}/leave"), json!({ "consumer": ANN })).await;
    let ben = server.fetch(group, BEN, 10).await;
    assert_eq!(events(&ben).iter().map(revision).collect::<Vec<_>>(), [1, 2]);
    // Of the one that left it is as if it had never said so: it was its turn when it was given.
    assert_eq!(server.settle(group, &ben, "ack").await, [true, true]);
    assert_eq!(server.settle(group, &ben, "ack").await, [false, false], "once");
    let info = server.until(group, |info| info["units"][0]["settled"] == 3).await;
    let consumers = &info["units"][0]["consumers"];
    assert_eq!(*consumers, json!([{ "consumer": BEN, "held": 0 }]), "{info}");
    let gone = json!({
        "consumer": BEN, "unit": "0.0.999999",
        "verdicts": [{ "place": 1, "delivery": 1, "verdict": "ack" }],
    });
    let (status, settled) = server.post(&format!("{group}/settle"), gone).await;
    assert_eq!((status, settled), (StatusCode::OK, json!({ "counted": [false] })), "another lease");
    // A third is one too many.
    server.get(&format!("{group}/events?consumer={ANN}")).await;
    let (status, kind, _) = server.problem("GET", &format!("{group}/events"), &[], "").await;
    assert_eq!((status, kind.as_str()), (409, "too-many-consumers"));
    server.machine.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_parked_is_given_again_when_that_is_asked_for() {
    let server = Server::start().await;
    let group = "/subscriptions/$et-won/prizes";
    let made = server.put(group, json!({ "start": "beginning" })).await;
    assert_eq!(made.0, StatusCode::CREATED);
    for n in 0..4 {
        server.post(&format!("/streams/player-{n}"), event("won", n)).await;
    }
    let mut parked = BTreeSet::new();
    while parked.len() < 4 {
        let fetched = server.fetch(group, ANN, 10).await;
        assert!(server.settle(group, &fetched, "park").await.iter().all(|counted| *counted));
        parked.extend(events(&fetched).iter().map(|given| given["stream"].to_string()));
    }
    server.until(group, |info| info["parked"] == 4).await;
    let (_, links) = server.get("/streams/$persistentsubscription-$et-won::prizes-parked").await;
    let link = &links["events"][0];
    assert_eq!((&link["type"], &link["metadata"]["reason"]), (&json!("$>"), &json!("a test")));
    let (status, _) = server.post(&format!("{group}/replay?stop_at=3"), json!({})).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let mut again = BTreeSet::new();
    while again.len() < 3 {
        let fetched = server.fetch(group, ANN, 10).await;
        assert!(fetched["unit"].as_str().unwrap().ends_with(".replay"), "{fetched}");
        assert!(events(&fetched).iter().all(|given| given["type"] == "won"), "not links");
        server.settle(group, &fetched, "ack").await;
        again.extend(events(&fetched).iter().map(|given| given["stream"].to_string()));
    }
    assert!(again.is_subset(&parked));
    let info = server.until(group, |info| info["parked"] == 1).await;
    assert_eq!(info["replay_below"], 3, "the fourth stays");
    server.machine.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_falls_silent_loses_its_events_and_one_without_a_name_is_told_one() {
    let server = Server::start().await;
    let group = "/subscriptions/player-1/mail";
    let settings = json!({ "message_timeout_ms": 50, "backoff_min_ms": 1, "backoff_max_ms": 1 });
    server.put(group, json!({ "start": { "revision": 1 }, "settings": settings })).await;
    server.post("/streams/player-1", json!([event("a", 0), event("b", 1)])).await;
    let ann = server.fetch(group, ANN, 10).await;
    assert_eq!(revision(&events(&ann)[0]), 1, "where it was told to begin");
    let ben = server.fetch(group, BEN, 10).await;
    assert_eq!((revision(&events(&ben)[0]), &events(&ben)[0]["retries"]), (1, &json!(1)));
    assert_eq!(server.settle(group, &ben, "ack").await, [true]);
    let (status, nothing) = server.get(&format!("{group}/events?wait=0")).await;
    assert_eq!(
        (status, &nothing["events"], &nothing["unit"]),
        (StatusCode::OK, &json!([]), &json!(null))
    );
    assert!(uuid::Uuid::parse_str(nothing["consumer"].as_str().unwrap()).is_ok());
    server.machine.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_dropped_leaves_nobody_behind() {
    let server = Server::start().await;
    let group = "/subscriptions/player-1/mail";
    server.put(group, json!({ "settings": { "consumers_max": 1 } })).await;
    let api = server.api.clone();
    let path = format!("{group}/events?wait=60");
    let waiting = tokio::spawn(async move {
        loop {
            let waits = Request::get(&path).body(Body::empty()).unwrap();
            let response = api.clone().oneshot(waits).await.unwrap();
            assert_eq!(
                response.status(),
                StatusCode::SERVICE_UNAVAILABLE,
                "its unit is not there yet"
            );
        }
    });
    let count = |info: &Value| info["units"][0]["consumers"].as_array().map(Vec::len);
    server.until(group, |info| count(info) == Some(1)).await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    server.until(group, |info| count(info) == Some(0)).await;
    server.machine.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_refused_by_name() {
    let server = Server::start().await;
    let group = "/subscriptions/player-1/mail";
    let settle = format!("{group}/settle");
    for (method, path, body, status, kind, detail) in [
        ("PUT", "/subscriptions/$ce-/mail", "{}", 400, "invalid-request", "source: `$ce-` lacks"),
        ("PUT", group, "[", 400, "invalid-json", "at line 1"),
        ("PUT", group, r#"{"setting":{}}"#, 400, "invalid-json", "did you mean `settings`?"),
        (
            "PUT",
            group,
            r#"{"settings":{"max_retry":1}}"#,
            400,
            "invalid-json",
            "unknown field `max_retry`: did you mean `max_retries`?",
        ),
        (
            "PUT",
            group,
            r#"{"settings":{"buffer_max":0}}"#,
            400,
            "invalid-request",
            "settings.buffer_max = 0: must be from 1",
        ),
        ("PUT", group, r#"{"group":"other"}"#, 400, "invalid-request", "group: `other`"),
        (
            "PUT",
            "/subscriptions/$all/mail",
            r#"{"start":{"revision":1}}"#,
            400,
            "invalid-request",
            "start: a revision is of one stream",
        ),
        ("POST", group, r#"{"start":"end"}"#, 400, "invalid-request", "start: it cannot be"),
        ("GET", "/subscriptions?all=1", "", 400, "invalid-request", "no parameter is known"),
        (
            "POST",
            "/subscriptions/player-1/mail/replay?stop-at=1",
            "",
            400,
            "invalid-request",
            "did you mean `stop_at`?",
        ),
        (
            "GET",
            "/subscriptions/player-1/mail/events?consumer=7",
            "",
            400,
            "invalid-request",
            "consumer: `7` is no UUID",
        ),
        (
            "GET",
            "/subscriptions/player-1/mail/events?wait=1",
            "",
            404,
            "subscription-not-found",
            "create it first",
        ),
        (
            "POST",
            &settle,
            r#"{"consumer":"00000000-0000-0000-0000-00000000000a","unit":"x","verdicts":[]}"#,
            400,
            "invalid-request",
            "unit: `x`",
        ),
        (
            "POST",
            &settle,
            r#"{"consumer":"7","unit":"0.0.1","verdicts":[{"place":1,"delivery":1,"verdict":"acked"}]}"#,
            400,
            "invalid-json",
            "unknown variant `acked`: did you mean `ack`?",
        ),
    ] {
        let found = server.problem(method, path, &[JSON], body).await;
        assert_eq!((found.0, found.1.as_str()), (status, kind), "{method} {path}: {}", found.2);
        assert!(found.2.contains(detail), "{method} {path} {body}: {} lacks {detail}", found.2);
    }
    let (_, list) = server.get("/subscriptions").await;
    assert_eq!(list["subscriptions"], json!([]), "nothing was done");
    server.machine.stop().await.unwrap();
}
