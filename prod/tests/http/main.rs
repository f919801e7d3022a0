//! HTTP and JSON over a real machine: what is answered, and every error that a client can bring about.

#![allow(clippy::unwrap_used)] // a test: what is wrong here must stop it

mod follow;
mod refused;
mod subscriptions;

use axum::body::Body;
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use stormkeep::{
    api::{Api, http::Options},
    disk,
    embedded::{Embedded, Machine},
    metrics::Metrics,
};
use tower::ServiceExt;

struct Server {
    machine: Machine,
    api: Api<Embedded>,
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
        let api = Api::with(machine.service().clone(), options, &Metrics::new());
        Server { machine, api, _directory: directory }
    }

    async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.api.clone().oneshot(request).await.unwrap()
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
