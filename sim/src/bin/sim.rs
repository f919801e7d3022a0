//! The `sim` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    stormkeep_sim::cli::main()
}
