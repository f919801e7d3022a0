//! The simulator: the core, unchanged, in a world that fails on purpose.
//!
//! ```text
//!  seed ─ scenario ─> plan (knobs + schedule of faults)
//!                       │
//!   crowd of clients ─> world: nodes running the core ─ links ─ model of Kinesis, of Cassandra
//!        │                │
//!     history          trace, what log and store hold ─> oracles ─> report, or a violation and its seed
//! ```
//!
//! One run is one OS thread, one madsim runtime, and no state beyond it: see [`run`](mod@run).

#[cfg(not(madsim))]
compile_error!(
    "the simulator needs `--cfg madsim`. `.cargo/config.toml` sets it, but an environment RUSTFLAGS \
     replaces that: run `unset RUSTFLAGS`, or add `--cfg madsim` to it."
);

pub mod adapters;
pub mod cli;
pub mod crowd;
pub mod fault;
pub mod history;
pub mod host;
pub mod kernel;
pub mod live;
pub mod model;
pub mod oracle;
pub mod plan;
pub mod plant;
pub mod report;
pub mod rng;
pub mod run;
pub mod scenario;
pub mod schedule;
pub mod seedfile;
pub mod trace;
pub mod trace_format;
pub mod virtual_time;
pub mod world;
