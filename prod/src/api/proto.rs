//! The messages and services of the wire protocol, as they are generated from `prod/proto`.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)] // generated

pub mod generated {
    tonic::include_proto!("proto");
}

pub use generated::{
    event_store::client as shared,
    event_store::client::{gossip, server_features, streams},
    google::rpc,
};
