//! The commands of `stormkeep`.
//!
//! Exit codes: 0 all is well, 1 what was asked for did not happen or was found damaged, 2 the command or its settings
//! make no sense.

mod verify;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use tracing_subscriber::{EnvFilter, fmt};

use crate::{
    config::{Config, Layer},
    serve,
};

/// A sharded event store for back ends that get a launch day.
#[derive(Debug, Parser)]
#[command(name = "stormkeep", version, about)]
pub struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Serve events from this machine's disk, until SIGTERM or Ctrl-C
    Serve {
        /// A TOML file with settings [default: stormkeep.toml, if there is one]
        #[arg(long, env = "STORMKEEP_CONFIG", value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        flags: Box<Layer>,
    },
    /// Check the files of a stopped server: every checksum, and that the store is what the log says
    Verify {
        /// The data directory
        directory: PathBuf,
    },
}

impl Command {
    /// Does it.
    pub fn run(self) -> ExitCode {
        match self.what {
            What::Serve { config, flags } => {
                let environment = std::env::vars_os().filter_map(|(k, _)| k.into_string().ok());
                match Config::load(config.as_deref(), *flags, environment) {
                    Ok(config) => serve(config),
                    Err(error) => nonsense(&error),
                }
            }
            What::Verify { directory } => verify::run(&directory),
        }
    }
}

fn nonsense(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(2)
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

fn serve(config: Config) -> ExitCode {
    let filter = match EnvFilter::try_new(&config.log) {
        Ok(filter) => filter,
        Err(error) => return nonsense(&format!("log: {error}")),
    };
    fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = config.threads {
        runtime.worker_threads(threads);
    }
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match runtime.block_on(serve::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}
