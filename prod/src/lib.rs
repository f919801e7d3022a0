//! Stormkeep, deployed: the adapters that store events for real, the APIs, and the commands.

pub mod api;
pub mod append_id;
pub mod clock;
pub mod command;
pub mod config;
pub mod disk;
pub mod embedded;
pub mod filter;
pub mod follow;
pub mod metrics;
pub mod near;
pub mod page;
pub mod serve;
pub mod service;
