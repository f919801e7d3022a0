//! How long a store with many events takes to come back, and whether all that it acknowledged came back with it.

use std::{
    rc::Rc,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    machine::{Machine, Scratch},
    peer::{
        Connection, Peer, Stream,
        stormkeep::{BUSY, Stormkeep, StreamsConnection},
    },
    process::{resident_bytes, said},
    report::grouped,
    workload::STREAMS,
};

const BATCH: u64 = 500;
const READY_SECONDS_MAX: u64 = 600;
/// Streams whose next append must find exactly the version that was acknowledged.
const CHECKED: usize = 200;

async fn fill(port: u16, events: u64, connections: usize) -> Result<Vec<Stream>> {
    let batches = events.div_ceil(BATCH);
    let used = usize::try_from(batches)?.min(STREAMS);
    let connections = connections.clamp(1, used);
    let done = Rc::new(std::cell::Cell::new(0_u64));
    let mut tasks = JoinSet::new();
    for hand in 0..connections {
        let mut streams: Vec<Stream> =
            (hand..used).step_by(connections).map(|n| Stream::new(format!("s{n}-1"))).collect();
        let mut connection = StreamsConnection::connect(port).await?;
        let done = done.clone();
        tasks.spawn_local(async move {
            let mine = (hand as u64..batches).step_by(connections).count();
            for turn in 0..mine {
                let place = turn % streams.len();
                connection.append(&mut streams[place], BATCH as usize).await?;
                done.set(done.get() + BATCH);
                if done.get().is_multiple_of(1_000_000) {
                    eprintln!("{} events", grouped(done.get() as f64));
                }
            }
            anyhow::Ok(streams)
        });
    }
    let mut streams = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        streams.extend(ended??);
    }
    Ok(streams)
}

async fn first_append(port: u16, stream: &mut Stream) -> Result<()> {
    StreamsConnection::connect(port).await?.append(stream, 1).await
}

pub async fn run(
    scratch: &Scratch,
    events: u64,
    kill: bool,
    connections: usize,
    as_json: bool,
) -> Result<()> {
    ensure!(events > 0, "--fill needs at least one event");
    let place = scratch.place(Stormkeep::NAME)?;
    Stormkeep::install(&place).await?;
    let machine = Machine::look(scratch.data());
    let server = Stormkeep::start(&place).await?;
    let pid = server.program.pid();
    let began = Instant::now();
    let mut streams = fill(server.port, events, connections.min(16)).await?;
    let fill_seconds = began.elapsed().as_secs_f64();
    let filled: u64 = streams.iter().map(|stream| stream.events).sum();
    let rss_mib = resident_bytes(pid)? >> 20;
    let stopping = Instant::now();
    if kill {
        server.program.kill()?;
    } else {
        drop(server);
    }
    let stop_seconds = stopping.elapsed().as_secs_f64();
    let disk = said("du", &["-sm", &place.data.to_string_lossy()]);
    let disk_mib: u64 = disk.split_whitespace().next().unwrap_or_default().parse().unwrap_or(0);

    let log = place.data.join("log-after");
    let started = Instant::now();
    let mut server = Stormkeep::launch(&place.data.join("data"), &log)?;
    let port = server.port;
    server.until_ready(&log, READY_SECONDS_MAX).await?;
    let ready_ms = started.elapsed().as_secs_f64() * 1000.0;
    fastrand::shuffle(&mut streams);
    let last = started + Duration::from_secs(READY_SECONDS_MAX);
    let stream = streams.first_mut().context("nothing was filled")?;
    let mut refused = 0;
    while let Err(error) = first_append(port, stream).await {
        refused += 1;
        ensure!(Instant::now() < last, "no append was acknowledged: {error:#}");
    }
    let append_ms = started.elapsed().as_secs_f64() * 1000.0;
    let checked = streams.len().min(CHECKED);
    let mut connection = StreamsConnection::connect(port).await?;
    for stream in &mut streams[..checked] {
        connection.append(stream, 1).await.context("an acknowledged event is missing")?;
    }
    let rss_after_mib = resident_bytes(server.program.pid())? >> 20;
    let busy = BUSY.load(Ordering::Relaxed);
    let per_second = filled as f64 / fill_seconds;
    if as_json {
        let report = json!({
            "machine": machine, "events": filled, "fill_seconds": fill_seconds, "busy": busy, "killed": kill,
            "stop_seconds": stop_seconds, "data_mib": disk_mib, "rss_mib": rss_mib,
            "ready_ms": ready_ms, "first_append_ms": append_ms, "first_append_tries": refused + 1,
            "rss_after_mib": rss_after_mib, "streams_checked": checked,
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!("{}\n", machine.line());
    println!(
        "- filled {} events of 256 B in {fill_seconds:.0} s, {} a call: {} events/s; data folder {disk_mib} MiB, resident memory {rss_mib} MiB",
        grouped(filled as f64),
        BATCH,
        grouped(per_second)
    );
    let how = if kill { "kill -9" } else { "orderly stop" };
    println!("- the server said {busy} times that it is busy, and the call was sent again");
    println!("- {how} ({stop_seconds:.2} s)");
    println!("- from start to ready: {ready_ms:.0} ms");
    println!(
        "- from start to the first acknowledged append: {append_ms:.0} ms ({refused} tries refused before)"
    );
    println!(
        "- {checked} streams held exactly the acknowledged version; resident memory {rss_after_mib} MiB"
    );
    Ok(())
}
