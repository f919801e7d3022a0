//! The `stormkeep` command.
fn main() {}
