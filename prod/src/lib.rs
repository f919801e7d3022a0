//! Stormkeep, deployed: the adapters that store events for real, the APIs, and the commands.

pub mod api;
pub mod command;
pub mod disk;
