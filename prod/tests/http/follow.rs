//! Waiting, following, and being looked after.

use std::time::Duration;

use axum::body::Body;
use futures::StreamExt;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use stormkeep::api::http::Options;
use tower::ServiceExt;

use crate::{Server, event};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_poll_ends_with_an_event_or_with_its_time() {
    let server = Server::start().await;
    server.post("/streams/a", event("t", 0)).await;
    let api = server.api.clone();
    let waiting = tokio::spawn(async move {
        let get = Request::get("/streams/a?from=1&wait=60").body(Body::empty()).unwrap();
        let response = api.oneshot(get).await.unwrap();
        axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap()
    });
    let api = server.api.clone();
    let waiting_all = tokio::spawn(async move {
        let get =
            Request::get("/all?from=end&wait=60&type-prefix=late").body(Body::empty()).unwrap();
        let response = api.oneshot(get).await.unwrap();
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
