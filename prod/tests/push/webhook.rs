//! Webhooks: signatures, every answer that a web server may give, and a bad day of one.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use stormkeep::push::{Handlers, Kind, Outcome, Settings, Via, WebhookSettings, key, sign};
use stormkeep_core::{
    Counter,
    env::{DeliverError, Delivered, Handled, Handler},
    group::{Form, Target},
};
use tokio::sync::watch;

use super::{
    Stage, delivery,
    lambda::{Envelope, Handled as Book},
    quick,
    receiver::Receiver,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SOON: Duration = Duration::from_secs(10);

fn to(url: &str, form: Form) -> Target {
    Target::Webhook { url: url.into(), secret: Some(SECRET.into()), form }
}

fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Option<Response> {
    let mut answer = Response::builder().status(StatusCode::from_u16(status).unwrap());
    for (name, value) in headers {
        answer = answer.header(*name, *value);
    }
    Some(answer.body(body.into()).unwrap())
}

/// Checks a request as its receiver should: the time is near, and the signature is that of the body.
fn check(headers: &HeaderMap, body: &[u8]) {
    let of = |name: &str| headers[name].to_str().unwrap();
    let time_s: u64 = of("webhook-timestamp").parse().unwrap();
    assert!(UNIX_EPOCH.elapsed().unwrap().as_secs().abs_diff(time_s) < 60);
    let signed = sign(&key(SECRET).unwrap(), of("webhook-id"), time_s, body);
    assert_eq!(of("webhook-signature"), signed);
    assert_ne!(sign(b"another", of("webhook-id"), time_s, body), signed);
}

/// Delivers two events to a web server that answers so.
async fn answers(
    with: impl Fn() -> Option<Response> + Send + Sync + 'static,
) -> (Result<Delivered, DeliverError>, Handlers) {
    let receiver = Receiver::start(Arc::new(move |headers, body| {
        check(&headers, &body);
        assert_eq!(headers["content-type"], "application/json");
        with()
    }));
    let receiver = receiver.await;
    let webhook = WebhookSettings { answer_bytes_max: 1000, ..WebhookSettings::default() };
    let handlers = Handlers::new(Settings { webhook, ..Settings::default() });
    let delivery = delivery(to(&receiver.url, Form::Records), 2, Duration::from_secs(3));
    (handlers.deliver(delivery).await, handlers)
}

#[tokio::test]
async fn a_success_tells_of_each_event() {
    let both = vec![Handled::Yes, Handled::Yes];
    let (answered, _) = answers(|| answer(204, &[], "")).await;
    assert_eq!(answered.unwrap().handled, both);
    let (answered, _) = answers(|| answer(200, &[("content-type", "text/html")], "{thanks")).await;
    assert_eq!(answered.unwrap().handled, both);
    let json = [("content-type", "application/json")];
    let first = (1_700_000_000_000_000u64 << 12).to_string();
    let body = json!({ "batchItemFailures": [{ "itemIdentifier": first }] }).to_string();
    let (answered, _) = answers(move || answer(200, &json, body.clone())).await;
    let reason = "the handler named it in batchItemFailures".to_owned();
    assert_eq!(answered.unwrap().handled, [Handled::Failed(reason), Handled::NotKnown]);
    let (answered, handlers) = answers(move || answer(200, &json, "{")).await;
    assert!(matches!(answered, Err(DeliverError::Failed(_))), "{answered:?}");
    assert_eq!(handlers.counts().ailments()[0].kind, Kind::Nonsense);
}

#[tokio::test]
async fn whatever_else_is_answered_has_its_class() {
    let (answered, _) = answers(|| answer(422, &[], "no such player")).await;
    let what = "422 Unprocessable Entity: no such player".to_owned();
    assert_eq!(answered, Err(DeliverError::Failed(what)));
    let (answered, _) = answers(|| answer(500, &[], "")).await;
    assert_eq!(answered, Err(DeliverError::Failed("500 Internal Server Error".into())));
    for status in [429, 503] {
        let (answered, _) = answers(move || answer(status, &[("retry-after", "7")], "")).await;
        let retry_after = Some(Duration::from_secs(7));
        assert_eq!(answered, Err(DeliverError::Throttled { retry_after }));
    }
    let (answered, handlers) = answers(|| answer(302, &[("location", "/elsewhere")], "")).await;
    assert!(matches!(answered, Err(DeliverError::Unreachable(_))), "{answered:?}");
    assert_eq!(handlers.counts().pushes(Via::Webhook, Outcome::Trouble(Kind::Redirected)), 1);
    let (answered, _) = answers(|| None).await;
    assert_eq!(answered, Err(DeliverError::TimedOut));
    // An answer without an end is not read to its end.
    let (answered, _) = answers(|| answer(200, &[], "x".repeat(1001))).await;
    let what = "the answer has more than 1000 bytes".to_owned();
    assert_eq!(answered, Err(DeliverError::Failed(what)));
}

#[tokio::test]
async fn where_nobody_listens_nothing_was_handled() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", nobody.local_addr().unwrap());
    drop(nobody);
    for url in [url.as_str(), "no address", "ftp://host/"] {
        let handlers = Handlers::default();
        let answered = handlers.deliver(delivery(to(url, Form::Records), 1, SOON)).await;
        assert!(matches!(answered, Err(DeliverError::Unreachable(_))), "{url}: {answered:?}");
    }
}

#[tokio::test]
async fn cloud_events_come_as_a_signed_batch() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sees = seen.clone();
    let receiver = Receiver::start(Arc::new(move |headers, body| {
        check(&headers, &body);
        assert_eq!(headers["content-type"], "application/cloudevents-batch+json");
        let batch: Vec<Value> = serde_json::from_slice(&body).unwrap();
        let kept =
            |event: &Value| json!([event["specversion"], event["source"], event["revision"]]);
        sees.lock().unwrap().extend(batch.iter().map(kept));
        answer(200, &[], "")
    }))
    .await;
    let delivery = delivery(to(&receiver.url, Form::CloudEvents), 2, SOON);
    Handlers::default().deliver(delivery).await.unwrap();
    let expected =
        [json!(["1.0", "/streams/player-1", "0"]), json!(["1.0", "/streams/player-1", "1"])];
    assert_eq!(*seen.lock().unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_events_through_a_bad_day() {
    const POISON: (&str, u64) = ("player-3", 20);
    let book = Arc::new(Mutex::new(Book::default()));
    let (progress, mut progressed) = watch::channel(0);
    let (requests, busy) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let chance = Mutex::new(StdRng::seed_from_u64(7));
    let (keeps, counts, is_busy) = (book.clone(), requests.clone(), busy.clone());
    let receiver = Receiver::start(Arc::new(move |headers, body: Bytes| {
        check(&headers, &body);
        // Each happens, however few requests it takes.
        let fate = counts.fetch_add(1, Ordering::Relaxed) % 25;
        let mut chance = chance.lock().unwrap();
        if fate == 0 {
            is_busy.fetch_add(1, Ordering::Relaxed);
            return answer(503, &[("retry-after", "0")], "");
        }
        let mut failures = Vec::new();
        let mut stopped = Vec::new();
        let mut book = keeps.lock().unwrap();
        for record in Envelope::read(&body).records {
            if (record.stream.as_str(), record.revision) == POISON {
                return answer(422, &[], "no such player");
            }
            if stopped.contains(&record.stream) {
                continue;
            }
            if chance.random_range(0..100) == 0 {
                failures.push(json!({ "itemIdentifier": record.position }));
                stopped.push(record.stream);
                continue;
            }
            book.take(&record, Some(POISON));
        }
        progress.send_replace(book.first);
        match fate {
            1 => None,
            _ => {
                let body = json!({ "batchItemFailures": failures }).to_string();
                answer(200, &[("content-type", "application/json")], body)
            }
        }
    }))
    .await;
    let stage = Stage::start(2, Handlers::default());
    stage.append(100, 0..50, |_, n| Bytes::from(n.to_string())).await;
    let group = stage.group(to(&receiver.url, Form::Records), quick()).await;
    progressed.wait_for(|first| *first == 4999).await.unwrap();
    let info = stage.until_settled(&group, 5000).await;
    println!(
        "5000 events: {} requests, {} busy, {} batches halved, {} parked",
        requests.load(Ordering::Relaxed),
        busy.load(Ordering::Relaxed),
        stage.service().stats().get(Counter::BatchesHalved),
        info.parked
    );
    assert!(busy.load(Ordering::Relaxed) > 0);
    book.lock().unwrap().assert_exact(4999);
    let parked = stage.parked(&group).await;
    let [(link, why)] = &parked[..] else { panic!("{parked:?}") };
    assert_eq!(*link, "20@player-3");
    assert_eq!(why["reason"], "422 Unprocessable Entity: no such player");
    stage.machine.stop().await.unwrap();
}
