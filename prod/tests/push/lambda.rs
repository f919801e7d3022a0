//! Through what a function does on a bad day: nothing is missing, each stream is in order, and what cannot be handled is parked.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use futures::FutureExt;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Deserialize;
use serde_json::json;
use stormkeep_core::{
    Counter,
    group::{Form, Push, Settings},
};
use tokio::sync::watch;

use super::{
    Stage,
    function::{End, Function, Lambda},
    handlers, quick, to_lambda,
};

/// What a function is sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Envelope {
    version: u32,
    source: String,
    group: String,
    pub(crate) records: Vec<Record>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[allow(dead_code)] // all of them must be there
pub(crate) struct Record {
    pub(crate) stream: String,
    pub(crate) revision: u64,
    pub(crate) position: String,
    id: uuid::Uuid,
    #[serde(rename = "type")]
    kind: String,
    created: String,
    data: serde_json::Value,
    format: String,
    append_id: uuid::Uuid,
    retries: u32,
}

impl Envelope {
    pub(crate) fn read(payload: &[u8]) -> Envelope {
        let envelope: Envelope = serde_json::from_slice(payload).unwrap();
        let Envelope { version, source, group, .. } = &envelope;
        assert_eq!((*version, &**source, &**group), (1, "$ce-player", "scores"));
        envelope
    }
}

/// What has been handled, and in which order for the first time.
#[derive(Default)]
pub(crate) struct Handled {
    /// The next revision of each stream.
    next: BTreeMap<String, u64>,
    pub(crate) first: u64,
    repeated: u64,
    violations: Vec<String>,
}

impl Handled {
    /// Handles an event as one should that must be exact: by its revision. `poison` is never handled.
    pub(crate) fn take(&mut self, record: &Record, poison: Option<(&str, u64)>) {
        let next = self.next.entry(record.stream.clone()).or_default();
        if poison == Some((&record.stream, *next)) {
            *next += 1;
        }
        match record.revision {
            revision if revision < *next => self.repeated += 1,
            revision if revision == *next => {
                *next += 1;
                self.first += 1;
            }
            revision => self
                .violations
                .push(format!("{}: revision {revision} before revision {next}", record.stream)),
        }
    }
}

impl Handled {
    pub(crate) fn assert_exact(&self, first: u64) {
        assert_eq!(self.violations, [""; 0], "each stream is in order");
        assert_eq!(self.first, first, "nothing is missing");
    }
}

#[derive(Default)]
struct Day {
    invokes: AtomicU64,
    events: AtomicU64,
    items_failed: AtomicU64,
    ended_in_the_middle: AtomicU64,
    timed_out: AtomicU64,
    throttled: AtomicU64,
}

const POISON: (&str, u64) = ("player-7", 40);

/// A function that has a bad day: one event in a hundred fails, and of a hundred invocations one ends in the middle, one does
/// its work and says nothing, and one is throttled; and it ends whenever it meets the poisoned event.
fn bad_day(day: Arc<Day>, handled: Arc<Mutex<Handled>>, progress: watch::Sender<u64>) -> Function {
    let chance = Mutex::new(StdRng::seed_from_u64(5));
    Arc::new(move |_, payload: Bytes| {
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        count(&day.invokes);
        let batch = Envelope::read(&payload).records;
        let mut chance = chance.lock().unwrap();
        let fate = chance.random_range(0..100);
        if fate == 0 {
            count(&day.throttled);
            let reason = "ReservedFunctionConcurrentInvocationLimitExceeded";
            let body = json!({ "message": "Rate Exceeded.", "Reason": reason });
            return async { End::Refused(429, "TooManyRequestsException", body) }.boxed();
        }
        day.events.fetch_add(batch.len() as u64, Ordering::Relaxed);
        let ends_at = (fate == 1).then(|| chance.random_range(0..batch.len()));
        let mut failures = Vec::new();
        let mut stopped: Vec<&str> = Vec::new();
        let mut handled = handled.lock().unwrap();
        let mut end = None;
        for (at, record) in batch.iter().enumerate() {
            if (record.stream.as_str(), record.revision) == POISON {
                end = Some(End::Errs("Poisoned", "no such player".into()));
                break;
            }
            if ends_at == Some(at) {
                count(&day.ended_in_the_middle);
                end = Some(End::Errs("Exit", "the process ended".into()));
                break;
            }
            if stopped.contains(&record.stream.as_str()) {
                continue;
            }
            if chance.random_range(0..100) == 0 {
                count(&day.items_failed);
                stopped.push(&record.stream);
                failures.push(json!({ "itemIdentifier": record.position, "reason": "by chance" }));
                continue;
            }
            handled.take(record, Some(POISON));
        }
        progress.send_replace(handled.first);
        if fate == 2 && end.is_none() {
            count(&day.timed_out);
            end = Some(End::Hangs);
        }
        let end = end.unwrap_or_else(|| End::Returns(json!({ "batchItemFailures": failures })));
        async { end }.boxed()
    })
}

async fn through_a_bad_day(streams: u64, of_each: u64) {
    let all = streams * of_each;
    let (day, handled) = (Arc::new(Day::default()), Arc::new(Mutex::new(Handled::default())));
    let (progress, mut progressed) = watch::channel(0);
    let function = Lambda::start(bad_day(day.clone(), handled.clone(), progress)).await;
    let stage = Stage::start(4, handlers(&function.endpoint));
    stage.append(streams, 0..of_each, |_, n| Bytes::from(format!("{{\"points\":{n}}}"))).await;

    let began = Instant::now();
    let group = stage.group(to_lambda(Form::Records), quick()).await;
    progressed.wait_for(|first| *first == all - 1).await.unwrap();
    let took = began.elapsed();
    let info = stage.until_settled(&group, all).await;

    let stats = stage.service().stats();
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{all} events in {:.1} s: {:.0} events/s, {} invokes of {:.1} events, {} items failed, {} ended in the middle, \
         {} timed out, {} throttled, {} batches halved, {} events given again, {} handled again, {} parked",
        took.as_secs_f64(),
        all as f64 / took.as_secs_f64(),
        of(&day.invokes),
        of(&day.events) as f64 / of(&day.invokes) as f64,
        of(&day.items_failed),
        of(&day.ended_in_the_middle),
        of(&day.timed_out),
        of(&day.throttled),
        stats.get(Counter::BatchesHalved),
        stats.get(Counter::EventsGivenAgain),
        handled.lock().unwrap().repeated,
        info.parked,
    );
    for (rare, count) in [
        ("items failed", &day.items_failed),
        ("ended in the middle", &day.ended_in_the_middle),
        ("timed out", &day.timed_out),
        ("throttled", &day.throttled),
    ] {
        assert!(of(count) > 0, "{rare}: it did not happen");
    }
    {
        let handled = handled.lock().unwrap();
        handled.assert_exact(all - 1);
        assert!(handled.next.values().all(|next| *next == of_each));
        assert!(handled.repeated > 0, "what timed out with its work done is given again");
    }
    let parked = stage.parked(&group).await;
    let [(link, why)] = &parked[..] else { panic!("{parked:?}") };
    assert_eq!(*link, format!("{}@{}", POISON.1, POISON.0));
    assert_eq!(why["reason"], "Poisoned: no such player");
    assert_eq!((info.parked, stats.get(Counter::EventsParked)), (1, 1));
    stage.machine.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_events_through_a_bad_day() {
    through_a_bad_day(1000, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: cargo test --package stormkeep --test push -- --ignored --nocapture"]
async fn a_million_events_through_a_bad_day() {
    through_a_bad_day(5000, 200).await;
}

/// The core asks for more than a payload takes: the rest of a batch comes again, and counts as no failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_larger_than_a_payload_comes_in_parts() {
    let handled = Arc::new(Mutex::new(Handled::default()));
    let (progress, mut progressed) = watch::channel(0);
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let (handles, seen) = (handled.clone(), sizes.clone());
    let function = Lambda::start(Arc::new(move |_, payload: Bytes| {
        seen.lock().unwrap().push(payload.len());
        let mut handled = handles.lock().unwrap();
        for record in Envelope::read(&payload).records {
            assert_eq!(record.retries, 0, "nothing has failed");
            handled.take(&record, None);
        }
        progress.send_replace(handled.first);
        async { End::Returns(json!(null)) }.boxed()
    }))
    .await;
    let stage = Stage::start(1, handlers(&function.endpoint));
    let text = Bytes::from(format!("\"{}\"", "x".repeat(150_000)));
    // One at a time: many of this size do not fit in an append.
    for n in 0..5 {
        stage.append(20, n..n + 1, |_, _| text.clone()).await;
    }
    let settings = Settings {
        message_timeout: std::time::Duration::from_secs(20),
        push: Push { batch_bytes_max: 100 * 1024 * 1024, concurrency: 1, ..Push::default() },
        ..quick()
    };
    let group = stage.group(to_lambda(Form::Records), settings).await;
    progressed.wait_for(|first| *first == 100).await.unwrap();
    stage.until_settled(&group, 100).await;
    let handled = handled.lock().unwrap();
    assert_eq!((handled.violations.len(), handled.repeated), (0, 0));
    let sizes = sizes.lock().unwrap();
    assert!(sizes.iter().all(|bytes| *bytes <= 6 * 1024 * 1024), "{sizes:?}");
    assert!(sizes.iter().any(|bytes| *bytes > 6 * 1024 * 1024 - 160_000), "{sizes:?}");
    assert_eq!(stage.service().stats().get(Counter::EventsParked), 0);
}
