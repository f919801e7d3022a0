//! The protocol of Stormkeep: a sharded event store whose every event is committed by exactly one
//! write, to one log. Everything else is a deterministic fold of that log.
//!
//! ```text
//!  client ─> gateway ──────────────> owner ────put────> Log (one per shard)
//!             │  routes by MD5         │ sequencer          │ read, through
//!             │  follows redirects     │ decides            │ the accept rule
//!             │                        └─epoch check─┐      v
//!             └── rest of a read ──────────────────> Store <─── materializer
//! ```
//!
//! Decisions are pure state machines under [`shard`]; the drivers ([`owner`], [`gateway`], [`node`],
//! …) are thin, async, and generic over [`env::Env`] alone. Nothing here reads a clock, the
//! environment or ambient randomness, prints, or walks a hash map: see `clippy.toml`.

pub mod append;
pub mod config;
pub mod consume;
pub mod entry;
pub mod env;
pub mod event;
pub mod filter;
pub mod group;
pub mod head;
pub mod limits;
pub mod reader;
pub mod shard;
pub mod stats;
pub mod stream;
pub mod time;

mod all;
mod ask;
mod congestion;
mod delivery;
mod gateway;
mod materializer;
mod node;
mod owner;
mod takeover;
mod wait;
mod watch;

pub use config::Config;
pub use delivery::Worker;
pub use node::Node;
pub use stats::{Counter, Stats};
pub use watch::Watch;
