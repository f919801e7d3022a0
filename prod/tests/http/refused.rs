//! What is refused, and how.

use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use stormkeep::api::http::Options;
use tower::ServiceExt;

use crate::{Server, event};

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
    let api = server.api.clone();
    let slow = tokio::spawn(async move { api.oneshot(slow).await.unwrap() });
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
