//! The real server and a real gRPC client over simulated TCP, which is cut, held and repaired while the server
//! crashes and comes back: a client that repeats an append with the ids that it had gets it exactly once.
//!
//! The seed is turmoil's; the log and the store are on a real disk, written in the caller's thread, so that a run
//! depends on nothing else.

#![allow(clippy::unwrap_used)] // a test: what is wrong here must stop it

mod client;
mod net;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use client::{Client, Outcome};
use net::Listener;
use rand::{RngExt as _, SeedableRng, rngs::StdRng};
use stormkeep::{
    api::{Api, listen},
    disk,
    embedded::Machine,
};

/// Clients, and appends of each.
const CLIENTS: u64 = 3;
const APPENDS: u64 = 120;

/// What a client was told: the stream, the event's id, its revision.
type Told = Arc<Mutex<Vec<(String, u128, u64)>>>;

/// How often what the test is about has happened.
#[derive(Debug, Default)]
struct Count {
    /// Appends that were asked again.
    repeated: u32,
    /// Links cut or held.
    cut: u32,
    /// Crashes and restarts of the server.
    crashed: u32,
}

/// What happens to the network and the server, and when it ends.
const ACTS_UNTIL: Duration = Duration::from_secs(20);

fn run(seed: u64, count: &Arc<Mutex<Count>>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .simulation_duration(Duration::from_secs(120))
        .tick_duration(Duration::from_millis(2))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(20))
        .enable_tokio_io()
        .build();
    sim.host("server", move || serve(path.clone()));

    let told: Told = Told::default();
    for number in 0..CLIENTS {
        let (told, count) = (told.clone(), count.clone());
        sim.client(format!("client-{number}"), async move {
            appends(number, seed, told, count).await;
            Ok(())
        });
    }
    let mut random = StdRng::seed_from_u64(seed);
    let mut acts = BTreeMap::new();
    let mut finished = false;
    while !finished {
        finished = sim.step().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        disturb(&mut sim, &mut random, &mut acts, &mut count.lock().unwrap());
    }
    // Nothing is disturbed any more: what is there now is what there is.
    let events: Arc<Mutex<Vec<(String, u128, u64)>>> = Arc::default();
    let seen = events.clone();
    sim.client("reader", async move {
        let mut client = Client::new();
        let all = client.read_everything().await;
        seen.lock().unwrap().extend(all);
        Ok(())
    });
    sim.run().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let (events, told) = (events.lock().unwrap(), told.lock().unwrap());
    judge(seed, &events, &told);
}

async fn serve(path: PathBuf) -> turmoil::Result {
    let options = disk::Options {
        shards: Some(2),
        segment_bytes: disk::SEGMENT_BYTES_MIN,
        inline: true,
        ..disk::Options::default()
    };
    let machine = Machine::start(&path, &options)?;
    let api = Api::new(machine.service().clone());
    let listener = Listener::bind().await?;
    let bounds = listen::Bounds::default();
    listen::serve(listener, api, bounds, Arc::default(), std::future::pending()).await;
    Ok(())
}

/// One client's appends: some to a stream of its own, some to one that all write.
async fn appends(number: u64, seed: u64, told: Told, count: Arc<Mutex<Count>>) {
    let mut client = Client::new();
    for n in 0..APPENDS {
        let stream = if n % 3 == 0 { "shared".to_owned() } else { format!("own-{number}") };
        let id = u128::from(seed) << 64 | u128::from(number) << 32 | u128::from(n) | 1 << 127;
        let mut wait = Duration::from_millis(20);
        loop {
            match client.append(&stream, id, Duration::from_secs(2)).await {
                Outcome::Done(revision) => {
                    told.lock().unwrap().push((stream, id, revision));
                    break;
                }
                Outcome::Refused(reason) => panic!("seed {seed}: {stream}: {reason}"),
                Outcome::Unknown => count.lock().unwrap().repeated += 1,
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_millis(500));
        }
    }
}

/// Draws what happens next, and lets it end some time later.
fn disturb(
    sim: &mut turmoil::Sim<'_>,
    random: &mut StdRng,
    acts: &mut BTreeMap<Duration, Act>,
    count: &mut Count,
) {
    let now = sim.elapsed();
    while let Some((at, act)) = acts.first_key_value().map(|(at, act)| (*at, act.clone())) {
        if at > now {
            break;
        }
        acts.remove(&at);
        match act {
            Act::Repair(host) => sim.repair(host, "server".to_owned()),
            Act::Release(host) => sim.release(host, "server".to_owned()),
            Act::Restart => sim.bounce("server"),
        }
    }
    if now > ACTS_UNTIL || random.random_range(0..100) > 0 {
        return;
    }
    let host = format!("client-{}", random.random_range(0..CLIENTS));
    let end = now + Duration::from_millis(random.random_range(50..3000));
    match random.random_range(0..10) {
        0..4 => {
            count.cut += 1;
            sim.partition(host.clone(), "server".to_owned());
            acts.insert(end, Act::Repair(host));
        }
        4..7 => {
            count.cut += 1;
            sim.hold(host.clone(), "server".to_owned());
            acts.insert(end, Act::Release(host));
        }
        7 => {
            count.crashed += 1;
            sim.bounce("server");
        }
        _ if sim.is_host_running("server") => {
            count.crashed += 1;
            sim.crash("server");
            acts.insert(end, Act::Restart);
        }
        _ => {}
    }
}

#[derive(Debug, Clone)]
enum Act {
    Repair(String),
    Release(String),
    Restart,
}

/// Every append once, where its client was told that it is, and no gap in any stream.
fn judge(seed: u64, events: &[(String, u128, u64)], told: &[(String, u128, u64)]) {
    assert_eq!(told.len() as u64, CLIENTS * APPENDS, "seed {seed}: every client was answered");
    let ids: BTreeSet<u128> = events.iter().map(|(_, id, _)| *id).collect();
    assert_eq!(ids.len(), events.len(), "seed {seed}: an append is there twice");
    assert_eq!(events.len(), told.len(), "seed {seed}: as many events as appends");
    for append in told {
        assert!(
            events.contains(append),
            "seed {seed}: {append:?} is not where its client was told"
        );
    }
    let mut streams: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (stream, _, revision) in events {
        streams.entry(stream).or_default().push(*revision);
    }
    for (stream, mut revisions) in streams {
        revisions.sort_unstable();
        assert!(revisions.iter().copied().eq(0..revisions.len() as u64), "seed {seed}: {stream}");
    }
}

#[test]
fn an_append_that_is_repeated_is_there_once() {
    let count = Arc::default();
    for seed in 1..=6 {
        run(seed, &count);
    }
    let count = count.lock().unwrap();
    println!("{count:?}");
    assert!(count.repeated > 30 && count.cut > 30 && count.crashed > 15, "too little: {count:?}");
}
