//! Three real nodes and two workers on real services, killed, stopped and started again: nothing that was acknowledged is lost,
//! nothing is there twice, shards find another owner, and a web address is pushed every event, each stream in its order.
//!
//! ```sh
//! tests/services/up
//! export AWS_ACCESS_KEY_ID=stand-in AWS_SECRET_ACCESS_KEY=stand-in AWS_EC2_METADATA_DISABLED=true
//! cargo test --workspace --test cluster -- --ignored --nocapture
//! ```
//!
//! `CLUSTER_ROUNDS` sets how often a node is killed or stopped, and a worker killed: 6 unless told otherwise.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test: what is wrong here must stop it

mod common;
#[path = "cluster/mirror.rs"]
mod mirror;
#[path = "push/receiver.rs"]
mod receiver;

use std::{
    path::PathBuf,
    process::{Command, Output},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use common::{Appended, Server, append, read};
use mirror::Mirror;
use rand::{RngExt as _, SeedableRng, rngs::StdRng};
use stormkeep::api::grpc::proto::event_store::client::streams::streams_client::StreamsClient;
use tokio::task::JoinSet;

const NODES: usize = 3;
const WORKERS: usize = 2;
const STREAMS: usize = 24;
const SHARDS: &str = "4";

/// Where the nodes are now; one that is down is not there.
type Addresses = Arc<Mutex<Vec<Option<String>>>>;

/// When a writer was answered last.
type Last = Arc<Mutex<Instant>>;

/// A cluster with a stream and a keyspace of its own.
struct Nodes {
    folder: tempfile::TempDir,
    running: Vec<Option<Server>>,
    workers: Vec<Server>,
    addresses: Addresses,
}

impl Nodes {
    fn settings(&self, n: usize) -> PathBuf {
        self.folder.path().join(format!("node-{n}.toml"))
    }

    fn stormkeep(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stormkeep"));
        command.args(arguments).arg("--config").arg(self.settings(0)).output().unwrap()
    }

    fn new(own: u64) -> Nodes {
        let folder = tempfile::tempdir().unwrap();
        let endpoint = std::env::var("KINESIS_ENDPOINT");
        let endpoint = endpoint.unwrap_or_else(|_| "http://127.0.0.1:4568".into());
        for n in 0..NODES + WORKERS {
            let text = format!(
                "log = \"kinesis\"\nstore = \"cassandra\"\nnode_id = {n}\n\n\
                 [kinesis]\nstream = \"cluster-{own:x}\"\nregion = \"us-east-1\"\nendpoint = \"{endpoint}\"\n\n\
                 [cassandra]\ncontact_points = [\"127.0.0.1\", \"127.0.0.2\", \"127.0.0.3\"]\nkeyspace = \"cluster_{own:x}\"\n\
                 local_datacenter = \"dc1\"\nusername = \"cassandra\"\npassword = \"cassandra\"\n\n\
                 [peers]\nlisten = \"127.0.0.1:0\"\n"
            );
            std::fs::write(folder.path().join(format!("node-{n}.toml")), text).unwrap();
        }
        let addresses = Arc::new(Mutex::new(vec![None; NODES]));
        let running = (0..NODES).map(|_| None).collect();
        Nodes { folder, running, workers: Vec::new(), addresses }
    }

    fn process(&self, n: usize, role: &str) -> Server {
        let settings = self.settings(n);
        let settings = settings.to_str().unwrap();
        let flags = ["--config", settings, "--role", role, "--log-level", "warn"];
        Server::launch(&flags).unwrap()
    }

    fn start(&mut self, n: usize) {
        let server = self.process(n, "node");
        self.addresses.lock().unwrap()[n] = Some(server.address.clone());
        self.running[n] = Some(server);
    }

    fn kill(&mut self, n: usize) {
        self.addresses.lock().unwrap()[n] = None;
        if let Some(mut server) = self.running[n].take() {
            server.kill();
        }
    }

    fn start_worker(&mut self) {
        let worker = self.process(NODES + self.workers.len(), "worker");
        self.workers.push(worker);
    }

    fn kill_worker(&mut self, n: usize) {
        self.workers[n].kill();
        self.workers[n] = self.process(NODES + n, "worker");
    }

    /// Has all events pushed to an address.
    fn push_to(&self, address: &str) {
        let server = format!("http://{}", self.running[0].as_ref().unwrap().address);
        let mut command = Command::new(env!("CARGO_BIN_EXE_stormkeep"));
        command.args(["subscription", "create", "$ce-cluster", "mirror", "--url", &server]);
        command.args([
            "--webhook",
            address,
            "--start",
            "beginning",
            "--message-timeout-ms",
            "5000",
        ]);
        done(&command.args(["--backoff-min-ms", "20"]).output().unwrap());
    }

    fn signal(&self, n: usize, signal: &str) {
        let id = self.running[n].as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
}

fn done(output: &Output) {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    println!("{}", text(&output.stdout));
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// One stream and its writer: what is known of it.
struct Writer {
    stream: String,
    known: Vec<u128>,
    unknown: Option<u128>,
    random: StdRng,
    /// When something was acknowledged last.
    last: Last,
}

impl Writer {
    async fn write(&mut self, addresses: &Addresses, stop: &AtomicBool) {
        let mut client = None;
        while !stop.load(Ordering::Relaxed) {
            let Some(here) = &mut client else {
                let up: Vec<String> = addresses.lock().unwrap().iter().flatten().cloned().collect();
                let address = &up[self.random.random_range(0..up.len())];
                client = StreamsClient::connect(format!("http://{address}")).await.ok();
                continue;
            };
            let id = *self.unknown.get_or_insert_with(|| self.random.random());
            let after = (self.known.len() as u64).checked_sub(1);
            match append(here, &self.stream, after, id, self.random.random_range(1..2000)).await {
                Appended::Done(revision) => {
                    assert_eq!(revision, self.known.len() as u64, "{}", self.stream);
                    self.known.push(id);
                    self.unknown = None;
                    *self.last.lock().unwrap() = Instant::now();
                }
                Appended::Wrong(actual) => {
                    panic!("{}: {actual:?} where {after:?} was written last", self.stream)
                }
                // Another node, with the same id.
                Appended::Unknown(..) => client = None,
            }
        }
    }

    async fn check(&self, address: &str) {
        let mut client = StreamsClient::connect(format!("http://{address}")).await.unwrap();
        let events = read(&mut client, &self.stream).await.unwrap();
        assert!(events.iter().map(|e| e.0).eq(0..events.len() as u64), "{}: a gap", self.stream);
        let ids: Vec<u128> = events.into_iter().map(|(_, id)| id).collect();
        let (acknowledged, more) = ids.split_at(self.known.len().min(ids.len()));
        assert_eq!(acknowledged, self.known, "{}", self.stream);
        assert!(more.is_empty() || more == [self.unknown.unwrap()], "{}: {more:?}", self.stream);
    }
}

fn quantile(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

async fn pause(random: &mut StdRng, least_ms: u64, most_ms: u64) {
    tokio::time::sleep(Duration::from_millis(random.random_range(least_ms..most_ms))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the services: tests/services/up"]
async fn nothing_acknowledged_is_lost_when_nodes_are_killed_and_stopped() {
    let rounds: u32 = std::env::var("CLUSTER_ROUNDS").map_or(6, |n| n.parse().unwrap());
    let seed: u64 = rand::random();
    println!("seed {seed}, {rounds} rounds");
    let mut random = StdRng::seed_from_u64(seed);
    let mut nodes = Nodes::new(seed >> 32);
    done(&nodes.stormkeep(&["schema", "apply", "--stream-shards", SHARDS]));
    done(&nodes.stormkeep(&["doctor"]));
    (0..NODES).for_each(|n| nodes.start(n));
    (0..WORKERS).for_each(|_| nodes.start_worker());
    let mirror = Mirror::start(seed).await;
    nodes.push_to(&mirror.receiver.url);

    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    let mut answered = Vec::new();
    for n in 0..STREAMS {
        let last = Arc::new(Mutex::new(Instant::now()));
        answered.push(last.clone());
        let mut writer = Writer {
            stream: format!("cluster-{n}"),
            known: Vec::new(),
            unknown: None,
            random: StdRng::seed_from_u64(seed + n as u64),
            last,
        };
        let (addresses, stop) = (nodes.addresses.clone(), stop.clone());
        tasks.spawn(async move {
            writer.write(&addresses, &stop).await;
            writer
        });
    }
    // All have written something: the shards have owners.
    all_go_on(&answered).await;
    let mut taken = Vec::new();
    for round in 0..rounds {
        let n = random.random_range(0..NODES);
        if round % 3 == 2 {
            // It stands still for longer than a lease, and wakes as a zombie.
            nodes.signal(n, "-STOP");
            pause(&mut random, 6000, 9000).await;
            nodes.signal(n, "-CONT");
            all_go_on(&answered).await;
        } else {
            nodes.kill(n);
            taken.push(all_go_on(&answered).await);
            nodes.start(n);
        }
        nodes.kill_worker(random.random_range(0..WORKERS));
        pause(&mut random, 500, 2500).await;
    }
    all_go_on(&answered).await;
    stop.store(true, Ordering::Relaxed);
    let writers: Vec<Writer> = tasks.join_all().await;
    let addresses: Vec<String> =
        nodes.addresses.lock().unwrap().iter().flatten().cloned().collect();
    for writer in &writers {
        for address in &addresses {
            writer.check(address).await;
        }
    }
    let events: usize = writers.iter().map(|w| w.known.len()).sum();
    println!("{events} acknowledged events, each there once, at every node");
    let mut behind = Duration::ZERO;
    for writer in &writers {
        behind += mirror.has(&writer.stream, &writer.known).await;
    }
    let (requests, again) = mirror.counts();
    println!(
        "all were pushed in order {behind:?} later, with {requests} requests, {again} events again"
    );
    taken.sort();
    if !taken.is_empty() {
        let (median, most) = (quantile(&taken, 0.5), quantile(&taken, 0.99));
        println!(
            "from a kill until every stream was written to again: p50 {median:?}, p99 {most:?}, {} kills",
            taken.len()
        );
    }
    for server in nodes.running.iter_mut().flatten().chain(&mut nodes.workers) {
        assert!(server.stop(), "it ends well when it is asked to");
    }
}

/// Waits until every writer has had an acknowledgement from now on; says how long that took.
async fn all_go_on(answered: &[Last]) -> Duration {
    let began = Instant::now();
    for last in answered {
        while *last.lock().unwrap() <= began {
            assert!(began.elapsed() < Duration::from_secs(120), "nobody takes a shard any more");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    began.elapsed()
}
