//! The store of a cluster against a real Cassandra of three nodes: `tests/services/up cassandra`, then
//! `cargo test --workspace --test cassandra -- --ignored --test-threads 1`. What every store must do is in the contract
//! suite; here is what only this one can get wrong.
//!
//! `CASSANDRA_NET` (127.0.0 by default) says where the nodes are. Each test has a keyspace of its own.

#[path = "cassandra/cluster.rs"]
mod cluster;
#[path = "cassandra/connecting.rs"]
mod connecting;
#[path = "cassandra/nodes.rs"]
mod nodes;
#[path = "cassandra/rows.rs"]
mod rows;
#[path = "cassandra/speed.rs"]
mod speed;
