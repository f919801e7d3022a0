//! Stormkeep, deployed: the adapters that store events for real, the APIs, and the commands.

pub mod api;
pub mod append_id;
mod aws;
pub mod cassandra;
pub mod check;
pub mod clock;
pub mod cluster;
pub mod command;
pub mod config;
pub mod consumer;
pub mod disk;
pub mod embedded;
pub mod follow;
pub mod group;
pub mod kinesis;
pub mod metrics;
pub mod near;
pub mod page;
pub mod peers;
pub mod push;
pub mod serve;
pub mod service;
pub mod subscription;

pub use stormkeep_core::filter;
