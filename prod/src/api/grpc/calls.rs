//! Which service a call is for. Every call passes here, so it is looked up once, boxed once and counted on the way.

use std::{convert::Infallible, sync::Arc, time::Instant};

use axum::body::{Body, Bytes};
use futures::{
    FutureExt,
    future::{BoxFuture, Either},
};
use http::{Request, Response, header};
use stormkeep_core::env::Env;
use tower::Service as _;

use super::{
    MESSAGE_BYTES_MAX, info,
    persistent::Persistent,
    proto::event_store::client::{
        gossip::gossip_server::GossipServer,
        persistent_subscriptions::persistent_subscriptions_server::PersistentSubscriptionsServer,
        server_features::server_features_server::ServerFeaturesServer,
        streams::streams_server::StreamsServer,
    },
    streams::Streams,
};
use crate::{
    metrics::{Class, Metrics, Route},
    service::Service,
};

/// The services that are here, by the paths of their methods.
pub struct Calls<E: Env> {
    streams: StreamsServer<Streams<E>>,
    persistent: PersistentSubscriptionsServer<Persistent<E>>,
    features: ServerFeaturesServer<info::Features>,
    gossip: GossipServer<info::Gossip<E>>,
    methods: Arc<[Method]>,
}

impl<E: Env> Clone for Calls<E> {
    fn clone(&self) -> Self {
        Calls {
            streams: self.streams.clone(),
            persistent: self.persistent.clone(),
            features: self.features.clone(),
            gossip: self.gossip.clone(),
            methods: self.methods.clone(),
        }
    }
}

struct Method {
    path: String,
    of: Of,
    /// Where it is counted, if it is.
    route: Option<Arc<Route>>,
}

#[derive(Clone, Copy)]
enum Of {
    Streams,
    Persistent,
    Features,
    Gossip,
}

impl<E: Env> Calls<E> {
    /// Calls on a service, counted in `metrics`.
    pub fn new(service: Service<E>, metrics: &Metrics) -> Self {
        let streams = info::STREAMS_METHODS.map(|method| (Of::Streams, info::STREAMS, method));
        let persistent =
            info::PERSISTENT_METHODS.map(|method| (Of::Persistent, info::PERSISTENT, method));
        let others = [
            (Of::Features, info::FEATURES, info::FEATURES_METHOD),
            (Of::Gossip, info::GOSSIP, info::GOSSIP_METHOD),
        ];
        let methods = streams.into_iter().chain(persistent).chain(others);
        let methods = methods.map(|(of, service, method)| Method {
            path: format!("/{service}/{method}"),
            of,
            route: counted(of, method).map(|name| metrics.route("grpc", name)),
        });
        Calls {
            streams: StreamsServer::new(Streams::new(service.clone()))
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            persistent: PersistentSubscriptionsServer::new(Persistent::new(service.clone()))
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            features: ServerFeaturesServer::new(info::Features),
            gossip: GossipServer::new(info::Gossip::new(service)),
            methods: methods.collect(),
        }
    }

    /// Answers a request whose path is that of a method that is here; gives any other back.
    pub fn answer<B>(&mut self, mut request: Request<B>) -> Either<Answering, Request<B>>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError> + Send + 'static,
    {
        let path = request.uri().path();
        let Some(method) = self.methods.iter().find(|method| method.path == path) else {
            return Either::Right(request);
        };
        let began = Instant::now();
        let answer = match method.of {
            Of::Streams => self.streams.call(request),
            Of::Persistent => self.persistent.call(request),
            Of::Features => self.features.call(request),
            Of::Gossip => {
                let asked = asked(&request);
                request.extensions_mut().insert(asked);
                self.gossip.call(request)
            }
        };
        let route = method.route.clone();
        let counted = async move {
            let answer = answer.await?;
            if let Some(route) = route {
                // The head of the answer is there; a call that failed says so in its head.
                route.count(class(&answer), began.elapsed());
            }
            Ok(answer.map(Body::new))
        };
        Either::Left(counted.boxed())
    }
}

/// An answer on its way.
pub type Answering = BoxFuture<'static, Result<Response<Body>, Infallible>>;

/// What the calls of a method are counted as.
fn counted(of: Of, method: &str) -> Option<&'static str> {
    Some(match (of, method) {
        (Of::Streams, "Append") => "append",
        (Of::Streams, "BatchAppend") => "batch-append",
        (Of::Streams, "Read") => "read",
        (Of::Streams, "Delete") => "delete",
        (Of::Streams, "Tombstone") => "tombstone",
        (Of::Persistent, "Create") => "create-subscription",
        (Of::Persistent, "Update") => "update-subscription",
        (Of::Persistent, "Delete") => "delete-subscription",
        (Of::Persistent, "Read") => "consume",
        (Of::Persistent, "GetInfo") => "subscription-info",
        (Of::Persistent, "ReplayParked") => "replay-parked",
        (Of::Persistent, "List") => "list-subscriptions",
        _ => return None,
    })
}

/// What the member says of itself depends on the address where it was asked.
fn asked<B>(request: &Request<B>) -> info::Asked {
    let authority = request.uri().authority().map(|a| a.as_str());
    let host = || request.headers().get(header::HOST)?.to_str().ok();
    info::Asked(Arc::from(authority.or_else(host).unwrap_or_default()))
}

/// By the code of gRPC: what is the server's to mend is *unknown*, *deadline exceeded*, *resource exhausted*,
/// *internal*, *unavailable* and *data loss*.
fn class<B>(answer: &Response<B>) -> Class {
    let code = answer.headers().get("grpc-status").and_then(|value| value.to_str().ok());
    match code {
        None | Some("0") => Class::Success,
        Some("2" | "4" | "8" | "13" | "14" | "15") => Class::Failed,
        Some(_) => Class::Refused,
    }
}
