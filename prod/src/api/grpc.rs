//! The gRPC API: the client protocol of KurrentDB, so that its clients work unchanged.
//!
//! | service | what there is |
//! | --- | --- |
//! | `event_store.client.streams.Streams` | all of it: append, batches, reads, subscriptions, deletion, tombstones |
//! | `event_store.client.persistent_subscriptions.PersistentSubscriptions` | all of it, but for truncating what was parked and `Stop`, which came later: see [`persistent`] |
//! | `event_store.client.server_features.ServerFeatures` | the methods that are here |
//! | `event_store.client.gossip.Gossip` | one member, the leader, where the client reached it |
//!
//! Everything else (projections, users, operations, monitoring, the second version of the
//! streams) answers `UNIMPLEMENTED` and names what was called: see [`unimplemented`].
//!
//! What differs from the server that the protocol comes from:
//! - **There are no users.** `authorization` is accepted and not looked at, whatever it says.
//! - **Links are not resolved.** `resolve_links` is accepted; only what was parked is
//!   kept as links, and what a client writes as a link is read as it was written.
//! - **A repeated append is recognised by the ids of its events, in their order**: they make its append id (see
//!   [`append_id`](crate::append_id::append_id)). It answers as the first time, if it is among the last 32 appends to its stream.
//! - Both halves of a position are the same number. A position need not be that of an event.
//! - A read sees what was there when it began; it does not chase a stream that grows.
//!
//! Every call is bounded by its `grpc-timeout`, or by ten seconds. What a client is sent is made when it can take it:
//! one that reads slowly costs a page, and one that sends too much is told so before it is held.

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Response, Uri, header};
use stormkeep_core::limits::ENTRY_BYTES_MAX;

mod batch;
mod calls;
mod deadline;
mod expected;
mod info;
mod persistent;
pub mod proposed;
mod read;
pub mod request;
pub mod response;
mod streams;
mod subscribe;
pub mod trouble;

/// The messages, servers and clients of `proto/`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod proto {
    tonic::include_proto!("proto");
}

pub use calls::{Answering, Calls};

/// Bytes of one message that a client may send: above what an append may have, so that one that has too much is
/// refused by name, and above the 3 MiB of the parts in which the Node client sends a batch.
pub const MESSAGE_BYTES_MAX: usize = 4 * ENTRY_BYTES_MAX;

/// Whether a request speaks gRPC, by its content type.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

/// The answer to a gRPC request for what is not here.
pub fn unimplemented(uri: &Uri) -> Response<Body> {
    let (service, method) = uri.path().trim_start_matches('/').rsplit_once('/').unwrap_or_default();
    let message = format!(
        "{service}/{method} is not part of this server; it has {} ({}), {} ({}), {} and {}",
        info::STREAMS,
        info::STREAMS_METHODS.join(", "),
        info::PERSISTENT,
        info::PERSISTENT_METHODS.join(", "),
        info::FEATURES,
        info::GOSSIP,
    );
    tonic::Status::unimplemented(message).into_http()
}

#[cfg(test)]
#[path = "grpc/served_tests.rs"]
mod served_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_here_is_named() {
        let uri = Uri::from_static("/event_store.client.users.Users/Create");
        let response = unimplemented(&uri);
        assert_eq!(response.status(), 200);
        let status = tonic::Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), tonic::Code::Unimplemented);
        let named = "event_store.client.users.Users/Create is not part of this server";
        assert!(status.message().starts_with(named), "{}", status.message());
        assert!(unimplemented(&Uri::from_static("/")).headers().contains_key("grpc-status"));
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        let mut headers = HeaderMap::new();
        assert!(!is_grpc(&headers));
        headers.insert("content-type", HeaderValue::from_static("application/grpc+proto"));
        assert!(is_grpc(&headers));
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        assert!(!is_grpc(&headers));
    }
}
