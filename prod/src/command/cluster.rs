//! `stormkeep schema` and `stormkeep doctor`: what an operator of a cluster does before a node starts, and when one does not
//! work.

use clap::Subcommand;

use super::{Failure, say};
use crate::{
    cassandra::{self, schema},
    check::Check,
    cluster::Settings,
    kinesis::{self, KinesisLog},
};

/// What is done with the schema.
#[derive(Debug, Subcommand)]
pub(super) enum Schema {
    /// Make or change the tables in Cassandra; any number of nodes may do it at once, and again
    Apply {
        /// Make the Kinesis stream with so many shards as well, unless it is there
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        stream_shards: Option<u32>,
    },
    /// Print the CQL of all tables, and the version
    Show,
}

impl Schema {
    pub(super) async fn run(&self, cluster: &Settings) -> Result<(), Failure> {
        match self {
            Schema::Show => say(schema::show(&cluster.cassandra).trim_end()),
            Schema::Apply { stream_shards } => {
                // Whether anybody reads it is no matter to the schema.
                let tell = |line: &str| drop(say(&format!("cassandra: {line}")));
                let applied = schema::apply(&cluster.cassandra, tell).await;
                let applied = applied.map_err(|error| Failure::Failed(error.to_string()))?;
                say(&match applied.from == applied.to {
                    true => format!("cassandra: the schema is at version {}", applied.to),
                    false => format!(
                        "cassandra: the schema went from version {} to {}",
                        applied.from, applied.to
                    ),
                })?;
                match stream_shards {
                    Some(shards) => make_stream(cluster, *shards).await,
                    None => Ok(()),
                }
            }
        }
    }
}

async fn make_stream(cluster: &Settings, shards: u32) -> Result<(), Failure> {
    let failed = |error: String| Failure::Failed(format!("kinesis: {error}"));
    let log = KinesisLog::open(cluster.kinesis.clone()).await;
    let log = log.map_err(|error| failed(error.to_string()))?;
    let made = log
        .create(shards)
        .await
        .map_err(|trouble| failed(format!("{}: {}", trouble.what, trouble.kind.fix())))?;
    say(&format!(
        "kinesis: stream {} is {} with {} open shards",
        cluster.kinesis.stream, made.status, made.open_shards
    ))
}

/// Looks at everything that a node needs.
pub(super) async fn doctor(cluster: &Settings) -> Result<(), Failure> {
    let mut checks = kinesis::probe(&cluster.kinesis).await;
    checks.extend(cassandra::probe(&cluster.cassandra).await);
    let broken = checks.iter().filter(|check| !check.ok).count();
    for check in &checks {
        say(&line(check))?;
        if let Some(fix) = &check.fix {
            say(&format!("      -> {fix}"))?;
        }
    }
    match broken {
        0 => say("all is well"),
        1 => Err(Failure::Failed("one thing is not as it must be".into())),
        n => Err(Failure::Failed(format!("{n} things are not as they must be"))),
    }
}

fn line(check: &Check) -> String {
    let mark = if check.ok { "ok  " } else { "FAIL" };
    format!("{mark}  {}: {}", check.name, check.what)
}
