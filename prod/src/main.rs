//! The `stormkeep` command.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

/// Many small values cross threads on every call: the system's allocator takes a fifth of the server's time for them
/// (docs/BENCHMARKS.md).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    stormkeep::command::Command::parse().run()
}
