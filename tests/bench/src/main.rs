//! `cargo peers`: Stormkeep beside its peers, on this machine, in one run.
//!
//! Installs and starts each peer on 127.0.0.1, runs the same closed loops against each in turn, stops it, and prints one table.
//! A peer that cannot be installed is a line that says why. `docs/BENCHMARKS.md` says how to read the figures.

mod cluster;
mod delivery;
mod grpc;
mod machine;
mod peer;
mod process;
mod report;
mod resp;
mod restart;
mod rounds;
mod soak;
mod workload;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    task::LocalSet,
};

/// The ceiling has the allocator that Stormkeep has; the load has it for every peer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The messages of `proto/`, generated.
#[allow(clippy::all, missing_docs)]
mod proto {
    pub mod client {
        tonic::include_proto!("event_store.client");
        pub mod streams {
            tonic::include_proto!("event_store.client.streams");
        }
    }
    pub use client::streams;
}

/// Measures Stormkeep and its peers on this machine, one after the other, under the same load.
#[derive(Parser, Debug)]
#[command(name = "peers")]
pub struct Arguments {
    /// One short run of every line instead of the median of three.
    #[arg(long)]
    quick: bool,
    /// Measure only these, by the names in the first column. Ratios need `stormkeep` among them.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,
    /// Measure only these lines: appends-64, appends-256, reads, latency.
    #[arg(long, value_delimiter = ',', value_name = "LINE")]
    lines: Vec<String>,
    /// Measured seconds of each run of a line, after its warm-up.
    #[arg(long, value_name = "N")]
    seconds: Option<f64>,
    /// Runs of each line; the table shows the median one.
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
    /// Print JSON, with every run, instead of the table.
    #[arg(long)]
    json: bool,
    /// Instead: append to Stormkeep at full speed for so long, and watch its memory.
    #[arg(long, value_name = "MINUTES")]
    soak: Option<f64>,
    /// Instead: append so many events to Stormkeep, stop it, and time its start.
    #[arg(long, value_name = "EVENTS", num_args = 0..=1, default_missing_value = "10000000")]
    fill: Option<u64>,
    /// With --fill: kill -9 instead of an orderly stop.
    #[arg(long, requires = "fill")]
    kill: bool,
    /// Instead: append to three nodes on the services of tests/services/up, which must be up, and say what an append waits for.
    #[arg(long, conflicts_with_all = ["soak", "fill"])]
    cluster: bool,
    /// Instead: push so many events from Stormkeep to a web address, for 1, 10 and 100 subscriptions together each.
    #[arg(long, value_name = "EVENTS", num_args = 0..=1, default_missing_value = "200000", conflicts_with_all = ["soak", "fill", "cluster"])]
    delivery: Option<u64>,
    /// Connections of --soak, --fill and --cluster.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Where programs are kept from run to run, and data during one. A disk, if flushes are to mean anything.
    #[arg(long, value_name = "FOLDER")]
    scratch: Option<PathBuf>,
    #[command(subcommand)]
    inner: Option<Inner>,
}

#[derive(Subcommand, Debug)]
enum Inner {
    /// The ceiling's server, in a process of its own.
    #[command(hide = true)]
    CeilingServer { port: u16 },
}

async fn chosen(arguments: &Arguments) -> Result<()> {
    let scratch = machine::Scratch::open(arguments.scratch.clone())?;
    if let Some(minutes) = arguments.soak {
        return soak::run(&scratch, minutes, arguments.connections, arguments.json).await;
    }
    if let Some(events) = arguments.fill {
        let Arguments { kill, connections, json, .. } = *arguments;
        return restart::run(&scratch, events, kill, connections, json).await;
    }
    if let Some(events) = arguments.delivery {
        return delivery::run(&scratch, events, arguments.json).await;
    }
    if arguments.cluster {
        let Arguments { seconds, connections, json, .. } = *arguments;
        return cluster::run(&scratch, seconds.unwrap_or(20.0), connections, json).await;
    }
    rounds::run(&scratch, arguments).await
}

/// Ctrl-C and an orderly stop drop what runs, and with it every program that was started.
async fn interrupted() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = tokio::signal::ctrl_c() => ended?,
        _ = terminate.recv() => {}
    }
    bail!("interrupted: what was started is stopped")
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    if let Some(Inner::CeilingServer { port }) = arguments.inner {
        let runtime = Builder::new_multi_thread().enable_all().build()?;
        return runtime.block_on(peer::ceiling::serve(port));
    }
    // One thread for the load: it shares the machine with the server that it measures.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        tokio::select! {
            done = chosen(&arguments) => done,
            stopped = interrupted() => stopped,
        }
    })
}
