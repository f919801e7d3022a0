//! The `sim` command: what a person or a machine types, and what it gets.
//!
//! Exit codes: 0 all is well; 1 a promise is broken, or what a seed file expects did not happen; 2 the
//! command or a file makes no sense. Nothing here knows how a run works: all go through [`Engine`].

mod args;
pub mod chaos;
pub mod corpus;
pub mod engine;
mod json;
mod live;
pub mod output;
mod progress;
mod replay;
mod shrink;
mod speed;
pub mod table;

use std::{
    fmt::{self, Display},
    hash::{BuildHasher, RandomState},
    io::Write,
    process::ExitCode,
    time::SystemTime,
};

use clap::Parser;

use crate::{scenario::Scenario, seedfile::SeedFile};
use args::{Args, ChaosArgs, Command};
use engine::{Engine, Simulator};
use output::Output;

/// Why a command makes no sense. Its text is for the person who typed it.
#[derive(Debug)]
pub(crate) struct BadInput(String);

impl Display for BadInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for BadInput {
    fn from(error: E) -> Self {
        BadInput(error.to_string())
    }
}

/// Whether all was well.
type Well = bool;

/// The whole command: reads the process's arguments, and answers with its exit code.
pub fn main() -> ExitCode {
    match command(Args::parse().command, &Simulator) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(2)
        }
    }
}

fn command(command: Command, engine: &dyn Engine) -> Result<Well, BadInput> {
    match command {
        Command::Chaos(args) => chaos_command(&args, engine),
        Command::Replay(args) => replay::command(&args, engine),
        Command::Shrink(args) => shrink::command(&args, engine),
        Command::Live(args) => live::command(&args),
        Command::Speed(args) => speed::command(&args, engine),
        Command::Scenarios => {
            for scenario in Scenario::ALL {
                say(format_args!("{:<12} {}", scenario.name(), scenario.sentence()));
            }
            Ok(true)
        }
        Command::Plan(args) => {
            let mut plan = engine.plan(args.scenario, args.seed);
            plan.plant = args.plant;
            let seed = args.seed;
            let file = SeedFile::of(plan, format!("the plan of seed {seed}, to be edited"));
            say("# Edit it, then: cargo sim replay FILE --trace");
            say(file.to_toml()?.trim_end());
            Ok(true)
        }
    }
}

fn chaos_command(args: &ChaosArgs, engine: &dyn Engine) -> Result<Well, BadInput> {
    let options = args.options(fresh_seed())?;
    let mut out: Box<dyn Output> = if args.json {
        Box::new(json::JsonLines::new(std::io::stdout()))
    } else {
        Box::new(progress::Terminal::new(std::io::stdout(), args.is_default()))
    };
    let summary = chaos::chaos_with(engine, &options, out.as_mut());
    Ok(summary.passed())
}

/// A seed that no run before had, short enough to be typed and to survive in a JSON number. The standard
/// library seeds its hashers from the operating system; the time is for a system that repeats itself.
fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    RandomState::new().hash_one((now.as_nanos(), std::process::id())) >> 24
}

/// A line on standard output. A reader that has gone away is no failure.
fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// A line on standard error, for what is not the command's result.
fn note(line: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

#[cfg(test)]
pub(crate) mod fake;
