//! gRPC, as the clients of KurrentDB speak it: written from its published client protocol.
//!
//! | service | built |
//! | --- | --- |
//! | `event_store.client.streams.Streams` | all of it; links are not resolved, since nothing makes any |
//! | `event_store.client.server_features.ServerFeatures` | all of it |
//! | `event_store.client.gossip.Gossip` | `Read`: this node, which is the leader |
//! | all others | `UNIMPLEMENTED`, with the name of what was asked for |
//!
//! Credentials are accepted and not looked at: there are no users. Positions are [`GlobalPosition`]s, both as commit and
//! as prepare position. An append is named by the ids of its events (see [`append_id`](crate::append_id)), so a client
//! that repeats one with the same ids is answered as the first time.
//!
//! [`GlobalPosition`]: stormkeep_core::time::GlobalPosition

mod append;
mod batch;
mod features;
mod message;
mod read;
mod status;
mod streams;

pub use super::proto::generated as proto;

use std::time::Duration;

use axum::{Router, http, response::IntoResponse};
use stormkeep_core::{env::Env, limits::ENTRY_BYTES_MAX};
use tonic::{Code, Status, service::Routes};

use super::{
    Settings,
    proto::{
        gossip::gossip_server::GossipServer,
        server_features::server_features_server::ServerFeaturesServer,
        streams::streams_server::StreamsServer,
    },
};
use crate::service::Service;

/// Bytes of one message that is taken in: more than an append may have, so that one that is too large is told so in the
/// terms of its client, and clients that send it in parts do so in parts of 3 MiB.
const MESSAGE_BYTES_MAX: usize = 4 * ENTRY_BYTES_MAX;

/// All services of the protocol.
pub(super) fn routes<E: Env>(service: Service<E>, settings: &Settings) -> Router {
    let streams = streams::Api::new(service, settings.timeout);
    let streams = StreamsServer::new(streams)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(usize::MAX);
    Routes::new(streams)
        .add_service(ServerFeaturesServer::new(features::Features))
        .add_service(GossipServer::new(features::Members::new(settings.advertise.clone())))
        .into_axum_router()
        .reset_fallback()
}

/// The answer to a call of a method that is not built.
pub(super) fn unimplemented(path: &str) -> http::Response<axum::body::Body> {
    let message = format!(
        "{path} is not built: this server offers Streams, ServerFeatures and Gossip of event_store.client"
    );
    Status::new(Code::Unimplemented, message).into_http::<axum::body::Body>().into_response()
}

/// How long a call may take: what its client gave it, if that is not more than the server allows.
fn timeout_of<T>(request: &tonic::Request<T>, longest: Duration) -> Duration {
    let given = request.metadata().get("grpc-timeout").and_then(|value| {
        let value = value.to_str().ok()?;
        let (number, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
        let number: u64 = number.parse().ok()?;
        Some(match unit {
            "H" => Duration::from_secs(number.saturating_mul(3600)),
            "M" => Duration::from_secs(number.saturating_mul(60)),
            "S" => Duration::from_secs(number),
            "m" => Duration::from_millis(number),
            "u" => Duration::from_micros(number),
            "n" => Duration::from_nanos(number),
            _ => return None,
        })
    });
    given.map_or(longest, |given| given.min(longest))
}
