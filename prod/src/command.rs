//! The commands of `stormkeep`.
//!
//! Exit codes: 0 all is well, 1 what was asked for did not happen or was found damaged, 2 the command or its settings
//! make no sense.

mod append;
mod client;
mod export;
mod import;
mod line;
mod logging;
mod read;
mod stats;
mod verify;

use std::{
    future::Future,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

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
    Append(append::AppendArgs),
    Read(read::ReadArgs),
    Follow(read::FollowArgs),
    Stats(stats::StatsArgs),
    Export(export::ExportArgs),
    Import(import::ImportArgs),
    /// Check the files of a stopped server: every checksum, and that the store is what the log says
    Verify {
        /// The data directory
        directory: PathBuf,
    },
}

/// Why a command of the shell ends early.
#[derive(Debug)]
enum Failure {
    /// It makes no sense.
    Nonsense(String),
    /// It did not happen.
    Failed(String),
    /// Nobody reads what it says any more, which is no failure: `stormkeep read … | head`.
    Unread,
}

impl Failure {
    fn of_output(error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::Unread,
            _ => Failure::Failed(format!("output: {error}")),
        }
    }

    fn of_file(path: &Path, error: &io::Error) -> Failure {
        Failure::Failed(format!("{}: {error}", path.display()))
    }
}

/// Prints a line.
fn say(line: &str) -> Result<(), Failure> {
    writeln!(io::stdout().lock(), "{line}").map_err(|error| Failure::of_output(&error))
}

impl Command {
    /// Does it.
    pub fn run(self) -> ExitCode {
        match self.what {
            What::Serve { config, flags } => {
                let environment = std::env::vars_os().filter_map(|(k, _)| k.into_string().ok());
                match Config::load(config.as_deref(), *flags, environment) {
                    Ok(config) => serve(config),
                    Err(error) => nonsense(&error.to_string()),
                }
            }
            What::Append(args) => shell(args.run()),
            What::Read(args) => shell(args.run()),
            What::Follow(args) => shell(args.run()),
            What::Stats(args) => shell(args.run()),
            What::Export(args) => shell(args.run()),
            What::Import(args) => shell(args.run()),
            What::Verify { directory } => verify::run(&directory),
        }
    }
}

fn nonsense(error: &str) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(2)
}

fn failed(error: &str) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

fn shell(command: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => Err(Failure::Failed(error.to_string())),
    };
    match ended {
        Ok(()) | Err(Failure::Unread) => ExitCode::SUCCESS,
        Err(Failure::Nonsense(error)) => nonsense(&error),
        Err(Failure::Failed(error)) => failed(&error),
    }
}

fn serve(config: Config) -> ExitCode {
    let filter = match EnvFilter::try_new(&config.log) {
        Ok(filter) => filter,
        Err(error) => return nonsense(&format!("log: {error}")),
    };
    logging::start(filter, config.log_format);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = config.threads {
        runtime.worker_threads(threads);
    }
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    match runtime.block_on(serve::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error.to_string()),
    }
}

#[cfg(test)]
mod tests;
