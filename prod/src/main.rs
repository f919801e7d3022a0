//! The `stormkeep` command.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    stormkeep::command::Command::parse().run()
}
