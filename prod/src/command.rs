//! The commands of `stormkeep`.
//!
//! Exit codes: 0 all is well, 1 what was asked for did not happen or was found damaged, 2 the command or its settings
//! make no sense.

mod append;
mod client;
mod cluster;
mod export;
mod import;
mod line;
mod logging;
mod read;
mod stats;
mod subscription;
mod verify;

use std::{
    future::Future,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args as _, FromArgMatches as _, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::{
    config::{Config, ConfigError, Layer, Role},
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
    /// Serve events, from this machine's disk or as a node of a cluster, until SIGTERM or Ctrl-C
    Serve {
        /// A TOML file with settings [default: stormkeep.toml, if there is one]
        #[arg(long, env = "STORMKEEP_CONFIG", value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        flags: Box<Layer>,
    },
    /// Deliver events to the subscriptions of a cluster: `serve` with the role `worker`
    Worker {
        /// A TOML file with settings [default: stormkeep.toml, if there is one]
        #[arg(long, env = "STORMKEEP_CONFIG", value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        flags: Box<Layer>,
    },
    /// The tables of a cluster's store in Cassandra, and its stream on Kinesis
    Schema {
        #[command(subcommand)]
        what: cluster::Schema,
        /// A TOML file with settings [default: stormkeep.toml, if there is one]
        #[arg(long, env = "STORMKEEP_CONFIG", value_name = "FILE", global = true)]
        config: Option<PathBuf>,
    },
    /// Look at all that a node of a cluster needs (reach, permissions, schema, clocks, limits), and say how to mend it
    Doctor {
        /// A TOML file with settings [default: stormkeep.toml, if there is one]
        #[arg(long, env = "STORMKEEP_CONFIG", value_name = "FILE")]
        config: Option<PathBuf>,
    },
    Append(append::AppendArgs),
    Read(read::ReadArgs),
    Follow(read::FollowArgs),
    Stats(stats::StatsArgs),
    /// Groups that are given events: to fetch, or pushed to a Lambda function or a webhook
    Subscription {
        #[command(subcommand)]
        what: Box<subscription::Subscription>,
    },
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
            What::Serve { config, flags } => loaded(config.as_deref(), *flags, serve),
            What::Worker { config, flags } => {
                if flags.role.is_some_and(|role| role != Role::Worker) {
                    return nonsense(
                        "role: this command is that of a worker: leave it out, or use `stormkeep serve`",
                    );
                }
                let flags = Layer { role: Some(Role::Worker), ..*flags };
                loaded(config.as_deref(), flags, serve)
            }
            What::Schema { what, config } => {
                of_cluster(config.as_deref(), |cluster| async move { what.run(&cluster).await })
            }
            What::Doctor { config } => {
                of_cluster(
                    config.as_deref(),
                    |cluster| async move { cluster::doctor(&cluster).await },
                )
            }
            What::Append(args) => shell(args.run()),
            What::Read(args) => shell(args.run()),
            What::Follow(args) => shell(args.run()),
            What::Stats(args) => shell(args.run()),
            What::Subscription { what } => shell(what.run()),
            What::Export(args) => shell(args.run()),
            What::Import(args) => shell(args.run()),
            What::Verify { directory } => verify::run(&directory),
        }
    }
}

fn loaded(file: Option<&Path>, flags: Layer, then: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match load(file, flags) {
        Ok(config) => then(config),
        Err(error) => nonsense(&error.to_string()),
    }
}

fn load(file: Option<&Path>, flags: Layer) -> Result<Config, ConfigError> {
    let environment = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    Config::load(file, flags, environment)
}

/// Does something about a cluster, with the settings that a node would have.
fn of_cluster<F>(file: Option<&Path>, what: impl FnOnce(crate::cluster::Settings) -> F) -> ExitCode
where
    F: Future<Output = Result<(), Failure>>,
{
    // Settings of the environment count here as they do for `serve`.
    let layer = Layer::augment_args(clap::Command::new("stormkeep")).no_binary_name(true);
    let flags = Layer::from_arg_matches(&layer.get_matches_from::<_, &str>([]));
    let config = match flags.map(|flags| load(file, flags)) {
        Ok(Ok(config)) => config,
        Ok(Err(error)) => return nonsense(&error.to_string()),
        Err(error) => return nonsense(&error.to_string()),
    };
    match config.cluster {
        Some(cluster) => shell(what(cluster)),
        None => nonsense(
            "log: disk: there is no cluster to look at: set log = \"kinesis\" and store = \"cassandra\" \
             (a stopped server's files are checked by `stormkeep verify DIR`)",
        ),
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
    let filter = match EnvFilter::try_new(&config.log_level) {
        Ok(filter) => filter,
        Err(error) => return nonsense(&format!("log_level: {error}")),
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
