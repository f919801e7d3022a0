//! Three nodes on the services of `tests/services/up`: how fast appends are there, and what they wait for.

use std::{cell::Cell, collections::BTreeMap, fs, net::TcpStream, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    machine::{Machine, Scratch},
    peer::{
        Peer, Place,
        stormkeep::{self, Stormkeep, StreamsConnection, StreamsSubscription},
    },
    process::{self, Program, http_body, http_status},
    report::grouped,
    workload::{self, Settings, Streams},
};

const NODES: usize = 3;
/// Few enough that all of them are soon known, whatever the machine does.
const STREAMS: usize = 1_000;
const SHARDS: &str = "4";
/// What the nodes count, by the names of `/metrics`: their sum over the nodes.
const COUNTED: [&str; 9] = [
    "stormkeep_appends_committed_total",
    "stormkeep_appends_shed_total",
    "stormkeep_append_micros_total",
    "stormkeep_append_put_micros_total",
    "stormkeep_append_check_micros_total",
    "stormkeep_batches_put_total",
    "stormkeep_checks_passed_total",
    "stormkeep_heads_loaded_total",
    "stormkeep_cassandra_requests",
];

/// The nodes; connections go around them.
struct Cluster {
    nodes: Vec<(Program, u16)>,
    next: Cell<usize>,
}

impl Peer for Cluster {
    type Connection = StreamsConnection;
    type Subscription = StreamsSubscription;
    const NAME: &'static str = "cluster";
    const TITLE: &'static str = "Stormkeep, three nodes";
    const NOTE: &'static str = "a stand-in for Kinesis, and three nodes of Cassandra";

    async fn install(place: &Place) -> Result<()> {
        Stormkeep::install(place).await
    }

    async fn start(place: &Place) -> Result<Self> {
        for address in ["127.0.0.1:4568", "127.0.0.1:9042"] {
            ensure!(
                TcpStream::connect(address).is_ok(),
                "nothing answers at {address}: run tests/services/up first"
            );
        }
        let own = std::process::id();
        let file = |n: usize| place.data.join(format!("node-{n}.toml"));
        for n in 0..NODES {
            let text = format!(
                "log = \"kinesis\"\nstore = \"cassandra\"\nnode_id = {n}\nlog_level = \"warn\"\n\n\
                 [kinesis]\nstream = \"peers-{own}\"\nregion = \"us-east-1\"\nendpoint = \"http://127.0.0.1:4568\"\n\n\
                 [cassandra]\ncontact_points = [\"127.0.0.1\", \"127.0.0.2\", \"127.0.0.3\"]\nkeyspace = \"peers_{own}\"\n\
                 local_datacenter = \"dc1\"\nusername = \"cassandra\"\npassword = \"cassandra\"\n\n\
                 [peers]\nlisten = \"127.0.0.1:0\"\n"
            );
            fs::write(file(n), text)?;
        }
        let program = |file: PathBuf| {
            let mut command = Command::new(stormkeep::binary());
            command.env("STORMKEEP_CONFIG", file);
            command.envs([
                ("AWS_ACCESS_KEY_ID", "stand-in"),
                ("AWS_SECRET_ACCESS_KEY", "stand-in"),
                ("AWS_EC2_METADATA_DISABLED", "true"),
            ]);
            command
        };
        let mut schema = program(file(0));
        schema.args(["schema", "apply", "--stream-shards", SHARDS]);
        process::run(&mut schema, &place.data.join("schema")).await.context("schema apply")?;
        let mut nodes = Vec::new();
        for n in 0..NODES {
            let port = process::free_port()?;
            let mut node = program(file(n));
            node.args(["serve", "--listen", &format!("127.0.0.1:{port}")]);
            let log = place.data.join(format!("node-{n}.log"));
            let mut started = Program::start(&mut node, &log, "INT")?;
            let ready = async || http_status(port, "/health/ready") == 200;
            process::until_ready(&mut started, &log, 60, ready).await?;
            nodes.push((started, port));
        }
        Ok(Cluster { nodes, next: Cell::new(0) })
    }

    fn pid(&self) -> u32 {
        self.nodes[0].0.pid()
    }

    async fn connect(&self) -> Result<StreamsConnection> {
        let n = self.next.replace(self.next.get() + 1);
        StreamsConnection::connect(self.nodes[n % NODES].1).await
    }

    async fn subscribe(&self) -> Result<StreamsSubscription> {
        StreamsSubscription::start(self.nodes[0].1).await
    }
}

impl Cluster {
    fn counts(&self) -> Result<BTreeMap<&'static str, f64>> {
        let mut counts: BTreeMap<&'static str, f64> = COUNTED.map(|name| (name, 0.0)).into();
        for (_, port) in &self.nodes {
            let text = http_body(*port, "/metrics")?;
            for (name, value) in text.lines().filter_map(|line| line.split_once(' ')) {
                if let Some(count) = COUNTED.iter().find(|known| **known == name) {
                    *counts.entry(count).or_default() += value.trim().parse::<f64>()?;
                }
            }
        }
        Ok(counts)
    }
}

pub async fn run(scratch: &Scratch, seconds: f64, connections: usize, as_json: bool) -> Result<()> {
    let place = scratch.place(Cluster::NAME)?;
    Cluster::install(&place).await?;
    let machine = Machine::look(scratch.data());
    let cluster = Cluster::start(&place).await?;
    workload::checked(&cluster).await?;
    let settings =
        Settings { seconds, warm_up_seconds: 0.0, latency_samples: 300, latency_seconds_max: 60 };
    let mut streams = Streams::new("s", STREAMS);
    let before = cluster.counts()?;
    workload::touched(&cluster, &mut streams, connections).await?;
    let cold = cluster.counts()?;
    // The services are slow until they have run for a while.
    let warming = Settings { seconds: 30.0, ..settings };
    workload::appends(&cluster, &mut streams, connections, warming).await?;
    let warm = cluster.counts()?;
    let sample = workload::appends(&cluster, &mut streams, connections, settings).await?;
    let after = cluster.counts()?;
    let latency = workload::latency(&cluster, settings).await?;
    let grown = |name: &str| after[name] - warm[name];
    let each = |name: &str, of: &str| grown(name) / grown(of).max(1.0);
    let total = grown("stormkeep_append_micros_total").max(1.0);
    let put = grown("stormkeep_append_put_micros_total") / total;
    let check = grown("stormkeep_append_check_micros_total") / total;
    let (appends, batches) = ("stormkeep_appends_committed_total", "stormkeep_batches_put_total");
    let per_batch = each(appends, batches);
    let checks = each("stormkeep_checks_passed_total", batches);
    let requests = each("stormkeep_cassandra_requests", appends);
    let heads_cold = cold["stormkeep_heads_loaded_total"] - before["stormkeep_heads_loaded_total"];
    let heads_warm = after["stormkeep_heads_loaded_total"] - cold["stormkeep_heads_loaded_total"];
    if as_json {
        let report = json!({
            "machine": machine, "connections": connections, "load": sample, "append_to_subscriber": latency,
            "share_put": put, "share_check": check, "share_waiting": 1.0 - put - check,
            "appends_per_batch": per_batch, "checks_per_batch": checks, "heads_cold": heads_cold,
            "heads_warm": heads_warm, "cassandra_requests_per_append": requests,
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!("{}\n", machine.line());
    println!(
        "Three nodes, {SHARDS} shards, {connections} connections, {} streams, {seconds} s:",
        grouped(STREAMS as f64)
    );
    println!(
        "- {}/s, p50 {:.1} ms, p99 {:.1} ms; append to subscriber p50 {:.1} ms, p99 {:.1} ms, nothing else going on",
        grouped(sample.per_second.unwrap_or(0.0)),
        sample.p50_ms,
        sample.p99_ms,
        latency.p50_ms,
        latency.p99_ms
    );
    println!(
        "- of an append's time at its owner: log put {:.0} %, epoch check {:.0} %, waiting for the batch or check before {:.0} %",
        put * 100.0,
        check * 100.0,
        (1.0 - put - check) * 100.0
    );
    println!("- {per_batch:.1} appends a batch; {checks:.2} epoch checks a batch");
    println!(
        "- heads read by owners: {heads_cold} for the first append to each of {} streams, {heads_warm} for all further ones",
        grouped(STREAMS as f64)
    );
    println!("- {requests:.2} requests to Cassandra an append, folding it into the store included");
    Ok(())
}
