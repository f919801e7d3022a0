//! Calls between nodes, over real sockets on loopback: what is said of a call is never better than what is known.

#![allow(clippy::unwrap_used)] // a test: what is wrong here must stop it

mod call;
mod fixture;
mod strange;
mod trust;
