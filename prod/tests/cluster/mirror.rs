//! A web address that is pushed all events, and keeps what it was told of every stream.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{body::Body, response::Response};
use rand::{RngExt as _, SeedableRng, rngs::StdRng};
use serde::Deserialize;
use uuid::Uuid;

use crate::receiver::Receiver;

/// Of a hundred requests, so many fail before anything is done, and so many after it.
const FAILS: u32 = 3;

/// How long the last events may take.
const BEHIND_MAX: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
struct Batch {
    records: Vec<Record>,
}

#[derive(Deserialize)]
struct Record {
    stream: String,
    revision: u64,
    id: Uuid,
}

#[derive(Default)]
struct Known {
    streams: BTreeMap<String, Vec<u128>>,
    requests: u64,
    /// Events that came again.
    again: u64,
    /// What must not be: an event before one that its stream has earlier, or another in its place.
    wrong: Vec<String>,
}

impl Known {
    fn learn(&mut self, record: Record) {
        let events = self.streams.entry(record.stream.clone()).or_default();
        let (at, id) = (record.revision as usize, record.id.as_u128());
        match events.get(at) {
            None if at == events.len() => events.push(id),
            None => self.wrong.push(format!("{}@{at} after {}", record.stream, events.len())),
            Some(known) if *known == id => self.again += 1,
            Some(_) => self.wrong.push(format!("{}@{at} is another event", record.stream)),
        }
    }
}

/// It ends when it is dropped.
pub(crate) struct Mirror {
    pub(crate) receiver: Receiver,
    known: Arc<Mutex<Known>>,
}

impl Mirror {
    pub(crate) async fn start(seed: u64) -> Mirror {
        let known = Arc::new(Mutex::new(Known::default()));
        let (taking, random) = (known.clone(), Mutex::new(StdRng::seed_from_u64(seed)));
        let receiver = Receiver::start(Arc::new(move |_, body| {
            let fate = random.lock().unwrap().random_range(0..100);
            let mut known = taking.lock().unwrap();
            known.requests += 1;
            if fate >= FAILS {
                let batch: Batch = serde_json::from_slice(&body).unwrap();
                batch.records.into_iter().for_each(|record| known.learn(record));
            }
            let status = if fate < 2 * FAILS { 500 } else { 204 };
            Some(Response::builder().status(status).body(Body::empty()).unwrap())
        }));
        Mirror { receiver: receiver.await, known }
    }

    /// Waits until it has all of these events, each in its place; says how long that took.
    pub(crate) async fn has(&self, stream: &str, events: &[u128]) -> Duration {
        let began = Instant::now();
        loop {
            {
                let known = self.known.lock().unwrap();
                assert!(known.wrong.is_empty(), "{:?}", known.wrong);
                let seen = known.streams.get(stream).map_or(&[][..], Vec::as_slice);
                if seen.len() >= events.len() {
                    assert_eq!(seen[..events.len()], *events, "{stream}");
                    return began.elapsed();
                }
                let waited = began.elapsed();
                assert!(waited < BEHIND_MAX, "{stream}: {} of {}", seen.len(), events.len());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Requests so far, and events that came again.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let known = self.known.lock().unwrap();
        (known.requests, known.again)
    }
}
