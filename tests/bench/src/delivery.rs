//! Delivery: events pushed to a web address in this process, for 1, 10 and 100 subscriptions to all events.

use std::{
    cell::RefCell,
    convert::Infallible,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Notify};

use crate::{
    machine::{Machine, Scratch},
    peer::{
        Connection, KIND, Peer, Stream,
        stormkeep::{Stormkeep, StreamsConnection},
    },
    process::{cpu_ticks, http_put},
    report::grouped,
};

const SUBSCRIPTIONS: [usize; 3] = [1, 10, 100];
const STREAMS: usize = 1_000;
/// Events of one call while the streams are filled.
const BATCH: usize = 50;
/// Appends of the latency line.
const SAMPLES: usize = 200;
/// What is longer than this does not come any more.
const PATIENCE: Duration = Duration::from_secs(120);

/// What has arrived, and a word to who waits for it.
#[derive(Default)]
struct Arrived {
    /// By subscription: events, and when the last one came.
    by: RefCell<Vec<(u64, Option<Instant>)>>,
    more: Notify,
    requests: std::cell::Cell<u64>,
}

impl Arrived {
    fn begin(&self, subscriptions: usize) {
        *self.by.borrow_mut() = vec![(0, None); subscriptions];
        self.requests.set(0);
    }

    fn least(&self) -> u64 {
        self.by.borrow().iter().map(|(events, _)| *events).min().unwrap_or(0)
    }

    async fn until(&self, events: u64) -> Result<()> {
        let last = Instant::now() + PATIENCE;
        while self.least() < events {
            let waited = tokio::time::timeout_at(last.into(), self.more.notified()).await;
            ensure!(
                waited.is_ok() || self.least() >= events,
                "{} of {events} events came in {PATIENCE:?}",
                self.least()
            );
        }
        Ok(())
    }
}

/// Answers every delivery with success. `/17` is the address of the subscription 17.
async fn handler(arrived: Rc<Arrived>) -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::task::spawn_local(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let _ = socket.set_nodelay(true);
            let arrived = arrived.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let arrived = arrived.clone();
                async move { Ok::<_, Infallible>(handle(&arrived, request).await) }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
            tokio::task::spawn_local(async move { drop(connection.await) });
        }
    });
    Ok(port)
}

async fn handle(arrived: &Arrived, request: Request<Incoming>) -> Response<Empty<Bytes>> {
    let subscription = request.uri().path().trim_start_matches('/').parse::<usize>();
    let (Ok(n), Ok(body)) = (subscription, request.into_body().collect().await) else {
        return status(400);
    };
    // Every event names its type, and nothing else does.
    let events = count(&body.to_bytes(), format!("\"type\":\"{KIND}\"").as_bytes());
    arrived.requests.set(arrived.requests.get() + 1);
    if let Some((all, at)) = arrived.by.borrow_mut().get_mut(n) {
        *all += events;
        *at = Some(Instant::now());
    }
    arrived.more.notify_one();
    status(200)
}

fn status(code: u16) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    response
}

fn count(text: &[u8], word: &[u8]) -> u64 {
    text.windows(word.len()).filter(|window| *window == word).count() as u64
}

/// What one number of subscriptions came to.
struct Line {
    subscriptions: usize,
    events: u64,
    per_second: f64,
    requests: u64,
    server_cpu_us: f64,
    p50_ms: f64,
    p99_ms: f64,
}

async fn measure(scratch: &Scratch, subscriptions: usize, deliveries: u64) -> Result<Line> {
    let place = scratch.place(Stormkeep::NAME)?;
    let server = Stormkeep::start(&place).await?;
    let arrived = Rc::new(Arrived::default());
    let port = handler(arrived.clone()).await?;
    let mut connection = StreamsConnection::connect(server.port).await?;
    let calls = (deliveries / subscriptions as u64).div_ceil(BATCH as u64);
    let mut streams: Vec<Stream> =
        (0..STREAMS.min(calls as usize)).map(|n| Stream::new(format!("s{n}-1"))).collect();
    for call in 0..calls as usize {
        let place = call % streams.len();
        connection.append(&mut streams[place], BATCH).await?;
    }
    let mut events = calls * BATCH as u64;
    arrived.begin(subscriptions);
    let (began, cpu) = (Instant::now(), cpu_ticks(server.pid(), true));
    for n in 0..subscriptions {
        let group = json!({
            "start": "beginning",
            "target": {"webhook": format!("http://127.0.0.1:{port}/{n}")},
        });
        let made = http_put(server.port, &format!("/subscriptions/$all/g{n}"), &group.to_string())?;
        ensure!(made == 201, "subscription {n}: HTTP status {made}");
    }
    arrived.until(events).await.context("catching up")?;
    let seconds = began.elapsed().as_secs_f64();
    let all = events * subscriptions as u64;
    let server_cpu_us = (cpu_ticks(server.pid(), true) - cpu) as f64 * 10_000.0 / all as f64;
    let requests = arrived.requests.get();

    let mut times = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
    let mut stream = Stream::new("latency-1".to_owned());
    for _ in 0..SAMPLES {
        let sent = Instant::now();
        connection.append(&mut stream, 1).await?;
        events += 1;
        arrived.until(events).await.context("latency")?;
        for (_, at) in arrived.by.borrow().iter() {
            let at = at.context("an event without a time")?;
            times.record((at - sent).as_micros().clamp(1, 60_000_000) as u64)?;
        }
        tokio::time::sleep(Duration::from_micros(fastrand::u64(1000..10_000))).await;
    }
    scratch.clear(Stormkeep::NAME);
    let ms = |quantile| times.value_at_quantile(quantile) as f64 / 1000.0;
    let per_second = all as f64 / seconds;
    let (p50_ms, p99_ms) = (ms(0.5), ms(0.99));
    Ok(Line { subscriptions, events: all, per_second, requests, server_cpu_us, p50_ms, p99_ms })
}

pub async fn run(scratch: &Scratch, deliveries: u64, as_json: bool) -> Result<()> {
    Stormkeep::install(&scratch.place(Stormkeep::NAME)?).await?;
    let machine = Machine::look(scratch.data());
    let mut lines = Vec::new();
    for subscriptions in SUBSCRIPTIONS {
        let line = measure(scratch, subscriptions, deliveries).await;
        lines.push(line.with_context(|| format!("{subscriptions} subscriptions"))?);
    }
    if as_json {
        let rows: Vec<Value> = lines
            .iter()
            .map(|line| {
                json!({
                    "subscriptions": line.subscriptions, "deliveries": line.events, "per_second": line.per_second,
                    "requests": line.requests, "server_cpu_us": line.server_cpu_us,
                    "append_to_handler_ms": {"p50": line.p50_ms, "p99": line.p99_ms},
                })
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&json!({"machine": machine, "lines": rows}))?);
        return Ok(());
    }
    println!("{}\n", machine.line());
    println!(
        "Events of 256 B, pushed to a web address by HTTP POST, each subscription reads all:\n"
    );
    for line in &lines {
        println!(
            "- {} subscriptions: {} deliveries in {} requests, {}/s, {:.0} us of the server's CPU each; append to handler p50 {:.2} ms, p99 {:.2} ms",
            line.subscriptions,
            grouped(line.events as f64),
            grouped(line.requests as f64),
            grouped(line.per_second),
            line.server_cpu_us,
            line.p50_ms,
            line.p99_ms
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_by_their_type() {
        assert_eq!(count(b"a ab abab b", b"ab"), 3);
        assert_eq!(count(b"", b"ab"), 0);
    }
}
