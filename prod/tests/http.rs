//! HTTP and JSON over a real machine: what is answered, and every error that a client can bring about.

#![allow(clippy::unwrap_used)] // a test: what is wrong here must stop it

use std::time::Duration;

use axum::{Router, body::Body};
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use stormkeep::{
    api::{http::Options, router_with},
    disk,
    embedded::Machine,
    metrics::Metrics,
};
use tower::ServiceExt;

struct Server {
    machine: Machine,
    router: Router,
    _directory: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        Server::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = disk::Options {
            segment_bytes: 4 * 1024 * 1024,
            reserve_bytes: 0,
            shards: Some(2),
            ..disk::Options::default()
        };
        let machine = Machine::start(directory.path(), &files).unwrap();
        let router = router_with(machine.service().clone(), options, &Metrics::new());
        Server { machine, router, _directory: directory }
    }

    async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// Sends, and reads a JSON answer.
    async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.send(request.body(Body::from(body.to_owned())).unwrap()).await;
        let status = response.status();
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        let is_problem = status.is_client_error() || status.is_server_error();
        let expected = if is_problem { "application/problem+json" } else { "application/json" };
        assert_eq!(kind, expected, "{method} {path}");
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let document: Value = serde_json::from_slice(&bytes).unwrap();
        if is_problem {
            assert_eq!(document["status"], status.as_u16());
            assert!(document["type"].as_str().unwrap().starts_with("urn:stormkeep:problem:"));
            assert!(document["title"].is_string() && document["detail"].is_string());
        }
        (status, document)
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.ask("GET", path, &[], "").await
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.ask("POST", path, &[("content-type", "application/json")], &body.to_string()).await
    }

    /// The problem that a request meets: its status, the end of its type, its detail.
    async fn problem(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, String, String) {
        let (status, document) = self.ask(method, path, headers, body).await;
        let kind = document["type"].as_str().unwrap_or_default();
        let kind = kind.trim_start_matches("urn:stormkeep:problem:").to_owned();
        (status.as_u16(), kind, document["detail"].as_str().unwrap_or_default().to_owned())
    }
}

fn event(kind: &str, n: u64) -> Value {
    json!({ "type": kind, "data": { "n": n } })
}

fn numbers(page: &Value) -> Vec<u64> {
    page["events"].as_array().unwrap().iter().map(|e| e["revision"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_appended_and_read() {
    let server = Server::start().await;
    let id = "6d63d7a4-3bd8-4f6a-93a3-5f9d3c5f2d11";
    let first = json!({ "id": id, "type": "joined", "data": { "z": 1, "a": [1.50] }, "metadata": { "by": "test" } });
    let bytes = json!({ "type": "blob", "dataBase64": "/wA=" });
    let (status, answer) = server.post("/streams/player-1", json!([first, bytes])).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(
        (&answer["stream"], &answer["firstRevision"], &answer["lastRevision"], &answer["repeated"]),
        (&json!("player-1"), &json!(0), &json!(1), &json!(false))
    );
    let (status, page) = server.get("/streams/player-1").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&page["exists"], &page["head"], &page["end"], &page["next"]),
        (&json!(true), &json!(1), &json!(true), &json!(2))
    );
    let shown = &page["events"][0];
    assert_eq!(shown["id"], id);
    assert_eq!(shown["type"], "joined");
    assert_eq!(shown["data"], first["data"]);
    assert_eq!(shown["metadata"], first["metadata"]);
    assert_eq!(
        (&page["events"][1]["dataBase64"], &page["events"][1]["format"]),
        (&json!("/wA="), &json!("bytes"))
    );
    assert_eq!(page["events"][1]["position"], answer["position"]);
    // One that is not in a list, and lines.
    server.post("/streams/player-1", event("moved", 2)).await;
    let lines = "{\"type\":\"moved\",\"data\":3}\n\n{\"type\":\"moved\",\"data\":4}\n";
    let kind = [("content-type", "application/x-ndjson; charset=utf-8")];
    let (status, answer) = server.ask("POST", "/streams/player-1", &kind, lines).await;
    assert_eq!(
        (status, &answer["firstRevision"], &answer["lastRevision"]),
        (StatusCode::CREATED, &json!(3), &json!(4))
    );
    for (query, revisions, next, end) in [
        ("?from=1&limit=2", vec![1, 2], json!(3), false),
        ("?from=3", vec![3, 4], json!(5), true),
        ("?from=9", vec![], json!(9), true),
        ("?from=end", vec![], json!(5), true),
        ("?direction=backwards&limit=2", vec![4, 3], json!(2), false),
        ("?direction=backwards&from=1", vec![1, 0], json!(null), true),
        ("?direction=backwards&from=start", vec![0], json!(null), true),
    ] {
        let (_, page) = server.get(&format!("/streams/player-1{query}")).await;
        assert_eq!(
            (numbers(&page), &page["next"], &page["end"]),
            (revisions, &next, &json!(end)),
            "{query}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_is_sent_again_is_done_once() {
    let server = Server::start().await;
    let key = [
        ("content-type", "application/json"),
        ("idempotency-key", "2c9fd5a0-1c9e-4d92-8a8e-1c7e3f6a2b10"),
        ("stormkeep-expected", "no-stream"),
    ];
    let body = event("moved", 1).to_string();
    let (_, first) = server.ask("POST", "/streams/a", &key, &body).await;
    let (status, again) = server.ask("POST", "/streams/a", &key, &body).await;
    assert_eq!((status, &again["repeated"]), (StatusCode::CREATED, &json!(true)));
    assert_eq!(first["position"], again["position"]);
    // Without a key, the ids of the events say that it is the same.
    let named = json!({ "id": "6d63d7a4-3bd8-4f6a-93a3-5f9d3c5f2d12", "type": "t", "data": null });
    assert_eq!(server.post("/streams/b", named.clone()).await.1["repeated"], false);
    assert_eq!(server.post("/streams/b", named).await.1["repeated"], true);
    assert_eq!(server.get("/streams/b").await.1["events"][0]["data"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_streams_have_one_order_and_filters() {
    let server = Server::start().await;
    for n in 0..6u64 {
        let kind = if n % 2 == 0 { "even" } else { "odd" };
        server.post(&format!("/streams/s-{}", n % 3), event(kind, n)).await;
    }
    let order = |page: &Value| -> Vec<u64> {
        page["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["data"]["n"].as_u64().unwrap())
            .collect()
    };
    let (_, page) = server.get("/all").await;
    assert_eq!((order(&page), &page["end"]), (vec![0, 1, 2, 3, 4, 5], &json!(true)));
    let (_, first) = server.get("/all?limit=2").await;
    let next = first["next"].as_str().unwrap();
    assert_eq!((order(&first), &first["end"]), (vec![0, 1], &json!(false)));
    assert_eq!(order(&server.get(&format!("/all?from={next}&limit=2")).await.1), [2, 3]);
    let (_, last) = server.get("/all?direction=backwards&limit=2").await;
    assert_eq!(order(&last), [5, 4]);
    let next = last["next"].as_str().unwrap();
    let (_, rest) = server.get(&format!("/all?direction=backwards&from={next}")).await;
    assert_eq!(
        (order(&rest), &rest["next"], &rest["end"]),
        (vec![3, 2, 1, 0], &json!(null), &json!(true))
    );
    for (filter, found) in [
        ("type-prefix=ev", vec![0, 2, 4]),
        ("type-prefix=ev&type-prefix=odd&limit=2", vec![0, 1]),
        ("stream-prefix=s-1", vec![1, 4]),
        ("type-regex=%5Eo", vec![1, 3, 5]),
        ("stream-regex=-%5B02%5D%24&direction=backwards&limit=3", vec![5, 3, 2]),
    ] {
        assert_eq!(order(&server.get(&format!("/all?{filter}")).await.1), found, "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_limits_and_deletion_hides_a_stream() {
    let server = Server::start().await;
    let json_type = [("content-type", "application/json")];
    for n in 0..4 {
        server.post("/streams/a", event("t", n)).await;
    }
    let (status, none) = server.get("/streams/a/metadata").await;
    assert_eq!(
        (status, &none["revision"], &none["metadata"]),
        (StatusCode::OK, &json!(null), &json!({}))
    );
    let metadata = r#"{"$maxCount":2,"owner":"x"}"#;
    let (status, set) =
        server.ask("PUT", "/streams/a/metadata?expected=none", &json_type, metadata).await;
    assert_eq!((status, &set["lastRevision"]), (StatusCode::OK, &json!(0)));
    let (_, read) = server.get("/streams/a/metadata").await;
    assert_eq!(read["metadata"], json!({ "$maxCount": 2, "owner": "x" }));
    assert_eq!(numbers(&server.get("/streams/a").await.1), [2, 3]);
    let (status, _) = server.ask("DELETE", "/streams/a?expected=3", &[], "").await;
    assert_eq!(status, StatusCode::OK);
    let (status, kind, detail) = server.problem("GET", "/streams/a", &[], "").await;
    assert_eq!((status, kind.as_str()), (404, "stream-not-found"));
    assert!(detail.contains("goes on at revision 4"), "{detail}");
    let (status, _, _) = server.problem("DELETE", "/streams/a", &[], "").await;
    assert_eq!(status, 404, "it is deleted already");
    assert_eq!(server.post("/streams/a", event("t", 4)).await.1["firstRevision"], 4);
    let (status, _) = server.ask("DELETE", "/streams/a?tombstone=true", &[], "").await;
    assert_eq!(status, StatusCode::OK);
    for (method, path, body) in [
        ("GET", "/streams/a", ""),
        ("GET", "/streams/a?follow=sse", ""),
        ("POST", "/streams/a", r#"{"type":"t","data":1}"#),
        ("DELETE", "/streams/a?tombstone=true", ""),
    ] {
        let (status, kind, detail) = server.problem(method, path, &json_type, body).await;
        assert_eq!((status, kind.as_str()), (410, "stream-tombstoned"), "{method} {path}");
        assert!(detail.contains("use another name"), "{detail}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_refused_by_name() {
    let server = Server::start().await;
    let json_type = ("content-type", "application/json");
    let good = r#"{"type":"t","data":1}"#;
    let bad_key = ("idempotency-key", "7");
    let long = format!("/streams/{}", "x".repeat(1025));
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a str, &'a str);
    let cases: &[Case<'_>] = &[
        ("GET", "/nothing", &[], "", 404, "no-such-route", "/nothing"),
        ("GET", "/streams/", &[], "", 404, "no-such-route", "/streams/"),
        ("GET", "/streams/none", &[], "", 404, "stream-not-found", "none: it has no events"),
        ("PATCH", "/streams/a", &[], "", 405, "method-not-allowed", "PATCH /streams/a"),
        ("POST", "/all", &[json_type], good, 405, "method-not-allowed", "POST /all"),
        ("GET", "/streams/a", &[("accept", "text/html")], "", 406, "not-acceptable", "text/html"),
        ("GET", "/streams/a?form=1", &[], "", 400, "invalid-request", "did you mean `from`?"),
        ("GET", "/streams/a?from=x", &[], "", 400, "invalid-request", "from: `x`"),
        (
            "GET",
            "/streams/a?from=1&from=2",
            &[],
            "",
            400,
            "invalid-request",
            "from: it is given 2 times",
        ),
        ("GET", "/streams/a?limit=0", &[], "", 400, "invalid-request", "limit: `0`"),
        ("GET", "/streams/a?limit=1001", &[], "", 400, "invalid-request", "from 1 to 1000"),
        ("GET", "/streams/a?wait=61", &[], "", 400, "invalid-request", "wait: `61`"),
        ("GET", "/streams/a?direction=up", &[], "", 400, "invalid-request", "direction: `up`"),
        ("GET", "/streams/a?direction=backwards&wait=1", &[], "", 400, "invalid-request", "wait: "),
        (
            "GET",
            "/streams/a?direction=backwards&follow=sse",
            &[],
            "",
            400,
            "invalid-request",
            "direction: ",
        ),
        ("GET", "/streams/a?follow=x", &[], "", 400, "invalid-request", "follow: `x`"),
        (
            "GET",
            "/streams/a?follow=sse",
            &[("last-event-id", "x")],
            "",
            400,
            "invalid-request",
            "Last-Event-ID: `x`",
        ),
        ("GET", "/streams/%FF", &[], "", 400, "invalid-request", "stream: "),
        ("GET", "/streams/a%00", &[], "", 400, "invalid-request", "control character U+0000"),
        ("GET", "/streams/$$$$a", &[], "", 400, "invalid-request", "stream: "),
        ("GET", long.as_str(), &[], "", 400, "invalid-request", "1025 bytes"),
        ("GET", "/all?type-regex=(", &[], "", 400, "invalid-request", "type-regex: "),
        (
            "GET",
            "/all?type-prefix=a&stream-regex=b",
            &[],
            "",
            400,
            "invalid-request",
            "give either",
        ),
        (
            "GET",
            "/streams/$$a/metadata",
            &[],
            "",
            400,
            "invalid-request",
            "is itself the metadata of a",
        ),
        (
            "PUT",
            "/streams/a/metadata",
            &[json_type],
            "[1]",
            400,
            "invalid-request",
            "must be an object",
        ),
        (
            "PUT",
            "/streams/a/metadata",
            &[json_type],
            r#"{"$maxCount":"5"}"#,
            400,
            "invalid-request",
            "$maxCount: `\"5\"`",
        ),
        (
            "PUT",
            "/streams/a/metadata",
            &[json_type],
            r#"{"$acl":5}"#,
            400,
            "invalid-request",
            "$acl",
        ),
        (
            "PUT",
            "/streams/a/metadata",
            &[("content-type", "application/x-ndjson")],
            "{}",
            415,
            "unsupported-media-type",
            "one document",
        ),
        ("DELETE", "/streams/none", &[], "", 404, "stream-not-found", "none: "),
        (
            "DELETE",
            "/streams/none?tombstone=maybe",
            &[],
            "",
            400,
            "invalid-request",
            "tombstone: `maybe`",
        ),
        (
            "POST",
            "/streams/a",
            &[("content-type", "text/plain")],
            good,
            415,
            "unsupported-media-type",
            "application/json",
        ),
        ("POST", "/streams/a", &[json_type], "[]", 400, "invalid-request", "at least one event"),
        ("POST", "/streams/a", &[json_type], "", 400, "invalid-json", "line 1, column 0"),
        (
            "POST",
            "/streams/a",
            &[json_type],
            "{\n\"type\":}",
            400,
            "invalid-json",
            "line 2, column 8",
        ),
        (
            "POST",
            "/streams/a",
            &[json_type],
            r#"{"typ":"t","data":1}"#,
            400,
            "invalid-json",
            "unknown field `typ`",
        ),
        (
            "POST",
            "/streams/a",
            &[json_type],
            r#"[{"type":"t","data":1},{"type":"t"}]"#,
            400,
            "invalid-request",
            "events[1].data: it is missing",
        ),
        (
            "POST",
            "/streams/a",
            &[("content-type", "application/x-ndjson")],
            "{\"type\":\"t\",\"data\":1}\n{",
            400,
            "invalid-json",
            "line 2, column 1",
        ),
        (
            "POST",
            "/streams/a",
            &[json_type, bad_key],
            good,
            400,
            "invalid-request",
            "Idempotency-Key: `7`",
        ),
        (
            "POST",
            "/streams/a?expected=some",
            &[json_type],
            good,
            400,
            "invalid-request",
            "expected: `some`",
        ),
        (
            "POST",
            "/streams/a?expected=1",
            &[json_type, ("stormkeep-expected", "1")],
            good,
            400,
            "invalid-request",
            "expected: give either",
        ),
    ];
    for (method, path, headers, body, status, kind, detail) in cases {
        let found = server.problem(method, path, headers, body).await;
        assert_eq!(
            (found.0, found.1.as_str()),
            (*status, *kind),
            "{method} {path} {body}: {}",
            found.2
        );
        assert!(found.2.contains(detail), "{method} {path} {body}: {} lacks {detail}", found.2);
    }
    assert_eq!(server.get("/all").await.1["events"], json!([]), "nothing was done");
    let put = Request::builder().method("PUT").uri("/all").body(Body::empty()).unwrap();
    let response = server.send(put).await;
    assert!(response.headers()["allow"].to_str().unwrap().contains("GET"));
    // A gRPC client is answered in its own words.
    let call =
        Request::builder().method("POST").uri("/x.Y/Z").header("content-type", "application/grpc");
    let response = server.send(call.body(Body::empty()).unwrap()).await;
    assert_eq!(response.headers()["grpc-status"], "12");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_expectation_tells_what_there_is() {
    let server = Server::start().await;
    server.post("/streams/a", event("t", 0)).await;
    for (stream, expected, wanted, actual) in [
        ("a", "5", json!(5), json!(0)),
        ("a", "no-stream", json!("no-stream"), json!(0)),
        ("b", "exists", json!("exists"), json!(null)),
        ("b", "0", json!(0), json!(null)),
    ] {
        let path = format!("/streams/{stream}?expected={expected}");
        let (status, problem) = server.post(&path, event("t", 1)).await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert_eq!(problem["type"], "urn:stormkeep:problem:wrong-expected-revision");
        assert_eq!((&problem["expected"], &problem["actual"]), (&wanted, &actual), "{path}");
    }
    let (status, _) = server.post("/streams/a?expected=0", event("t", 1)).await;
    assert_eq!(status, StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_refused_before_it_is_held() {
    let options =
        Options { body_bytes_max: 2_000_000, bodies_bytes_max: 3_000_000, ..Options::default() };
    let server = Server::with(options).await;
    let json_type = ("content-type", "application/json");
    let large = json!({ "type": "t", "data": "x".repeat(1_100_000) }).to_string();
    let (status, kind, detail) = server.problem("POST", "/streams/a", &[json_type], &large).await;
    assert_eq!((status, kind.as_str()), (413, "too-large"));
    assert!(detail.starts_with("events[0]: 1100003 bytes"), "{detail}");
    let many = Value::Array(vec![event("t", 0); 4097]);
    let (status, problem) = server.post("/streams/a", many).await;
    assert_eq!((status, &problem["limitEvents"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!(4096)));
    let huge = "x".repeat(2_000_001);
    let length = ("content-length", "2000001");
    for headers in [&[json_type][..], &[json_type, length][..]] {
        let (status, kind, detail) = server.problem("POST", "/streams/a", headers, &huge).await;
        assert_eq!((status, kind.as_str()), (413, "too-large"));
        assert!(detail.contains("more than 2000000 bytes"), "{detail}");
    }
    // A body that does not end holds its room; a second one finds none.
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<bytes::Bytes, std::io::Error>>(1);
    let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let slow = Request::builder().method("POST").uri("/streams/slow").body(body).unwrap();
    let router = server.router.clone();
    let slow = tokio::spawn(async move { router.oneshot(slow).await.unwrap() });
    // It is taken from the channel only while the body is read, when the room is held.
    sender.send(Ok("{\"type\":\"t\",".into())).await.unwrap();
    sender.send(Ok("\"data\":1".into())).await.unwrap();
    let (status, kind, _) = server.problem("POST", "/streams/a", &[json_type], "{}").await;
    // A small one fits beside it, if it says its length; this one does not.
    assert_eq!((status, kind.as_str()), (503, "busy"));
    sender.send(Ok("}".into())).await.unwrap();
    drop(sender);
    assert_eq!(slow.await.unwrap().status(), StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_poll_ends_with_an_event_or_with_its_time() {
    let server = Server::start().await;
    server.post("/streams/a", event("t", 0)).await;
    let router = server.router.clone();
    let waiting = tokio::spawn(async move {
        let get = Request::get("/streams/a?from=1&wait=60").body(Body::empty()).unwrap();
        let response = router.oneshot(get).await.unwrap();
        axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap()
    });
    let router = server.router.clone();
    let waiting_all = tokio::spawn(async move {
        let get =
            Request::get("/all?from=end&wait=60&type-prefix=late").body(Body::empty()).unwrap();
        let response = router.oneshot(get).await.unwrap();
        axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap()
    });
    // Whether the second was quick enough to see it, nobody knows: it is told again until it has.
    while !(waiting.is_finished() && waiting_all.is_finished()) {
        server.post("/streams/a", event("late", 1)).await;
    }
    let page: Value = serde_json::from_slice(&waiting.await.unwrap()).unwrap();
    assert_eq!(page["events"][0]["revision"], 1);
    let page: Value = serde_json::from_slice(&waiting_all.await.unwrap()).unwrap();
    assert_eq!(page["events"][0]["type"], "late");
    let (status, page) = server.get("/all?from=end&wait=1&type-prefix=never").await;
    assert_eq!((status, &page["events"]), (StatusCode::OK, &json!([])));
    assert_eq!(server.get("/streams/none?wait=1").await.0, StatusCode::NOT_FOUND);
}

/// Reads frames until one begins so.
async fn until(body: &mut axum::body::BodyDataStream, beginning: &str) -> String {
    loop {
        let frame = body.next().await.unwrap().unwrap();
        let frame = String::from_utf8(frame.to_vec()).unwrap();
        if frame.starts_with(beginning) {
            return frame;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_are_told_in_order_and_can_come_back() {
    let options = Options { heartbeat: Duration::from_millis(20), ..Options::default() };
    let server = Server::with(options).await;
    server.post("/streams/a", json!([event("t", 0), event("t", 1)])).await;
    let follow = Request::get("/streams/a").header("accept", "text/event-stream");
    let response = server.send(follow.body(Body::empty()).unwrap()).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body().into_data_stream();
    assert_eq!(until(&mut body, "retry").await, "retry: 1000\n\n");
    assert!(until(&mut body, "id: 0\ndata: {").await.ends_with("}\n\n"));
    until(&mut body, "id: 1\ndata: {").await;
    assert_eq!(
        until(&mut body, "event: caught-up").await,
        "event: caught-up\ndata: {\"revision\":1}\n\n"
    );
    assert_eq!(until(&mut body, ":").await, ": still here\n\n");
    server.post("/streams/a", event("t", 2)).await;
    until(&mut body, "id: 2\n").await;
    let metrics = server.send(Request::get("/metrics").body(Body::empty()).unwrap()).await;
    let metrics = axum::body::to_bytes(metrics.into_body(), usize::MAX).await.unwrap();
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    for line in ["stormkeep_subscriptions 1", "stormkeep_shards_served 2", "stormkeep_ready 1"] {
        assert!(metrics.lines().any(|l| l == line), "{line}");
    }
    assert!(metrics.contains(
        "stormkeep_requests_total{protocol=\"http\",route=\"append\",class=\"2xx\"} 2\n"
    ));
    // It comes back behind what it has seen; that is stronger than what the address says.
    let again = Request::get("/streams/a?follow=sse&from=0").header("last-event-id", "1");
    let mut again =
        server.send(again.body(Body::empty()).unwrap()).await.into_body().into_data_stream();
    let frame = until(&mut again, "id: ").await;
    assert!(frame.starts_with("id: 2\n"), "{frame}");
    // All streams, filtered: what is passed over is told as a checkpoint.
    let all = Request::get("/all?follow=sse&type-prefix=none").body(Body::empty()).unwrap();
    let mut all = server.send(all).await.into_body().into_data_stream();
    assert!(until(&mut all, "event: checkpoint\nid: ").await.contains("{\"position\":\""));
    server.ask("DELETE", "/streams/a?tombstone=true", &[], "").await;
    let error = until(&mut body, "event: error").await;
    assert!(error.contains("urn:stormkeep:problem:stream-tombstoned"), "{error}");
    assert!(body.next().await.is_none());
    server.machine.service().close();
    let error = until(&mut all, "event: error").await;
    assert!(error.contains("the server is closing") && error.contains("503"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_are_told_why_not() {
    let server = Server::start().await;
    server.post("/streams/a", event("t", 0)).await;
    assert_eq!(server.get("/health/live").await.1["status"], "live");
    assert_eq!(server.get("/").await.1["name"], "stormkeep");
    // Both shards are taken by now or soon: a strong read of all waits for them.
    server.get("/all").await;
    let (status, ready) = server.get("/health/ready").await;
    assert_eq!((status, ready), (StatusCode::OK, json!({ "status": "ready", "shards": 2 })));
    server.machine.service().close();
    let request = Request::get("/health/ready").body(Body::empty()).unwrap();
    let response = server.send(request).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    let (_, kind, detail) = server.problem("GET", "/health/ready", &[], "").await;
    assert_eq!((kind.as_str(), detail.as_str()), ("not-ready", "the server is draining"));
}
