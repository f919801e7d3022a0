//! The load: closed loops, the same for every peer. A connection has one call in flight and sends the next when the answer is
//! there, so a rate and its latencies belong to a number of connections and not to a rate that was wished for.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    peer::{Connection, LATENCY, Peer, Stream, Subscription},
    process::cpu_ticks,
};

/// Streams that the append lines append to.
pub const STREAMS: usize = 10_000;
/// Streams that the read line reads, and events in each.
const READ_STREAMS: usize = 1_000;
pub const READ_EVENTS: u64 = 20;
/// Connections of the read line.
pub const READERS: usize = 64;
/// How long after its acknowledgement an event must be there for a read.
const READABLE_WITHIN: Duration = Duration::from_secs(10);
/// See `cpu_ticks`.
const TICK_US: f64 = 10_000.0;

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Measured time of a line, after its warm-up.
    pub seconds: f64,
    pub warm_up_seconds: f64,
    /// Appends of the latency line, and the time after which it is content with fewer.
    pub latency_samples: usize,
    pub latency_seconds_max: u64,
}

/// One run of one line.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// Calls per second; none for the latency line.
    pub per_second: Option<f64>,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Calls that were measured.
    pub calls: u64,
    /// CPU time of the server's processes for one call, microseconds; none for the latency line. Other work on the machine
    /// moves it much less than it moves a rate.
    pub server_cpu_us: Option<f64>,
    /// The same of this process, the load.
    pub load_cpu_us: Option<f64>,
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

fn micros(time: Duration) -> u64 {
    time.as_micros().clamp(1, 60_000_000) as u64
}

fn sample(histogram: &Histogram<u64>, seconds: Option<f64>) -> Sample {
    let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
    Sample {
        per_second: seconds.map(|seconds| histogram.len() as f64 / seconds),
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        calls: histogram.len(),
        server_cpu_us: None,
        load_cpu_us: None,
    }
}

/// The streams of the append lines. Each belongs to one connection at a time, which knows its version.
pub struct Streams(Vec<Stream>);

impl Streams {
    pub fn new(prefix: &str, count: usize) -> Self {
        Self((0..count).map(|n| Stream::new(format!("{prefix}{n}-1"))).collect())
    }

    fn dealt(&mut self, hands: usize) -> Vec<Vec<Stream>> {
        let mut dealt = vec![Vec::new(); hands];
        for (n, stream) in self.0.drain(..).enumerate() {
            dealt[n % hands].push(stream);
        }
        dealt
    }
}

/// What one connection's loop does next.
trait Step<C>: 'static {
    async fn step(&mut self, connection: &mut C) -> Result<()>;
}

struct Append(Vec<Stream>);

impl<C: Connection> Step<C> for Append {
    async fn step(&mut self, connection: &mut C) -> Result<()> {
        let chosen = fastrand::usize(..self.0.len());
        connection.append(&mut self.0[chosen], 1).await
    }
}

struct Read(Rc<Vec<Stream>>);

impl<C: Connection> Step<C> for Read {
    async fn step(&mut self, connection: &mut C) -> Result<()> {
        let stream = &self.0[fastrand::usize(..self.0.len())];
        let events = connection.read(stream).await?;
        ensure!(events as u64 == READ_EVENTS, "{} has {events} events", stream.name);
        Ok(())
    }
}

/// Runs one loop per step, each on a connection of its own, and gives the steps back.
async fn closed_loop<P: Peer, S: Step<P::Connection>>(
    peer: &P,
    steps: Vec<S>,
    settings: Settings,
) -> Result<(Sample, Vec<S>)> {
    let mut loops = JoinSet::new();
    let mut connections = Vec::new();
    for _ in 0..steps.len() {
        connections.push(peer.connect().await.context("cannot connect")?);
    }
    let begin = Instant::now() + Duration::from_secs_f64(settings.warm_up_seconds);
    let end = begin + Duration::from_secs_f64(settings.seconds);
    for (mut connection, mut step) in connections.into_iter().zip(steps) {
        loops.spawn_local(async move {
            let mut times = histogram()?;
            loop {
                let sent = Instant::now();
                step.step(&mut connection).await?;
                let answered = Instant::now();
                if answered >= end {
                    return anyhow::Ok((times, step));
                }
                if answered >= begin {
                    times.record(micros(answered - sent))?;
                }
            }
        });
    }
    let used = || (cpu_ticks(peer.pid(), true), cpu_ticks(std::process::id(), false));
    let cpu = async {
        tokio::time::sleep_until(begin.into()).await;
        let before = used();
        tokio::time::sleep_until(end.into()).await;
        let after = used();
        (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1))
    };
    let (server, load) = cpu.await;
    let mut all = histogram()?;
    let mut steps = Vec::new();
    while let Some(ended) = loops.join_next().await {
        let (times, step) = ended??;
        all.add(times)?;
        steps.push(step);
    }
    let mut sample = sample(&all, Some(settings.seconds));
    let each = |ticks: u64| Some(ticks as f64 * TICK_US / sample.calls.max(1) as f64);
    (sample.server_cpu_us, sample.load_cpu_us) = (each(server), each(load));
    Ok((sample, steps))
}

/// Single-event appends with the exact expected version.
pub async fn appends<P: Peer>(
    peer: &P,
    streams: &mut Streams,
    connections: usize,
    settings: Settings,
) -> Result<Sample> {
    let steps = streams.dealt(connections).into_iter().map(Append).collect();
    let (sample, steps) = closed_loop(peer, steps, settings).await?;
    streams.0 = steps.into_iter().flat_map(|step| step.0).collect();
    Ok(sample)
}

/// Appends once to every stream, so that nothing about them is cold.
pub async fn touched<P: Peer>(peer: &P, streams: &mut Streams, connections: usize) -> Result<()> {
    let mut tasks = JoinSet::new();
    for mut hand in streams.dealt(connections) {
        let mut connection = peer.connect().await?;
        tasks.spawn_local(async move {
            for stream in &mut hand {
                connection.append(stream, 1).await?;
            }
            anyhow::Ok(hand)
        });
    }
    while let Some(hand) = tasks.join_next().await {
        streams.0.extend(hand??);
    }
    Ok(())
}

/// A peer that does not check versions, or does not keep what it acknowledged, is not measured.
pub async fn checked<P: Peer>(peer: &P) -> Result<()> {
    let mut stream = Stream::new("checked-1".to_owned());
    let mut absent = stream.clone();
    let mut connection = peer.connect().await?;
    connection.append(&mut stream, 1).await.context("the first append")?;
    let mut stale = stream.clone();
    connection.append(&mut stream, 1).await.context("the second append")?;
    let refused = peer.connect().await?.append(&mut stale, 1).await;
    ensure!(refused.is_err(), "an append with a wrong version was taken");
    let refused = peer.connect().await?.append(&mut absent, 1).await;
    ensure!(refused.is_err(), "an append that expects no stream was taken where there is one");
    until_readable(&mut connection, &stream).await
}

/// Some peers acknowledge an event a moment before a read finds it.
async fn until_readable(connection: &mut impl Connection, stream: &Stream) -> Result<()> {
    let last = Instant::now() + READABLE_WITHIN;
    loop {
        let events = connection.read(stream).await?;
        if events as u64 == stream.events {
            return Ok(());
        }
        let (name, all) = (&stream.name, stream.events);
        ensure!(Instant::now() < last, "{name}: {events} events of {all} were read");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Whole reads of streams of `READ_EVENTS` events.
pub async fn reads<P: Peer>(peer: &P, filled: Vec<Stream>, settings: Settings) -> Result<Sample> {
    let streams = Rc::new(filled);
    let steps = (0..READERS).map(|_| Read(streams.clone())).collect();
    Ok(closed_loop(peer, steps, settings).await?.0)
}

/// Fills the streams that the read line reads, over several connections.
pub async fn filled<P: Peer>(peer: &P) -> Result<Vec<Stream>> {
    let mut tasks = JoinSet::new();
    for mut hand in Streams::new("r", READ_STREAMS).dealt(16) {
        let mut connection = peer.connect().await?;
        tasks.spawn_local(async move {
            for stream in &mut hand {
                connection.append(stream, READ_EVENTS as usize).await?;
            }
            if P::KEEPS {
                for stream in &hand {
                    until_readable(&mut connection, stream).await?;
                }
            }
            anyhow::Ok(hand)
        });
    }
    let mut streams = Vec::new();
    while let Some(hand) = tasks.join_next().await {
        streams.extend(hand??);
    }
    Ok(streams)
}

/// From just before an append is sent until a subscriber has the event, nothing else going on.
pub async fn latency<P: Peer>(peer: &P, settings: Settings) -> Result<Sample> {
    let mut subscription = peer.subscribe().await?;
    let mut appender = peer.connect().await?;
    let mut stream = Stream::new(LATENCY.to_owned());
    let (tell, mut arrivals) = mpsc::unbounded_channel();
    let listening = tokio::task::spawn_local(async move {
        loop {
            let events = subscription.next().await;
            let over = events.is_err();
            if tell.send((Instant::now(), events)).is_err() || over {
                return;
            }
        }
    });
    let mut times = histogram()?;
    let mut seen = 0;
    let end = Instant::now() + Duration::from_secs(settings.latency_seconds_max);
    // The first few find cold caches and the subscription still starting.
    for round in 0..settings.latency_samples + 20 {
        let sent = Instant::now();
        appender.append(&mut stream, 1).await?;
        while seen < stream.events {
            let wait = Duration::from_secs(10);
            let arrival = tokio::time::timeout(wait, arrivals.recv()).await;
            let (at, events) =
                arrival.context("no event within 10 s")?.context("the subscription ended")?;
            seen += events? as u64;
            if seen == stream.events && round >= 20 {
                times.record(micros(at - sent))?;
            }
        }
        if Instant::now() > end {
            break;
        }
        let pause_us = fastrand::u64(1000..=P::PAUSE_MS_MAX * 1000);
        tokio::time::sleep(Duration::from_micros(pause_us)).await;
    }
    listening.abort();
    ensure!(!times.is_empty(), "no append was measured in the time");
    Ok(sample(&times, None))
}
