//! The APIs: gRPC as the clients of KurrentDB speak it, and HTTP with JSON, on one port.

pub mod grpc;
pub mod http;
pub mod listen;

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use stormkeep_core::env::Env;

use crate::{
    metrics::{Class, Metrics, Route},
    service::Service,
};

/// Everything that is served, with the defaults.
pub fn router<E: Env>(service: Service<E>) -> Router {
    router_with(service, http::Options::default(), &Metrics::new())
}

/// Everything that is served.
pub fn router_with<E: Env>(
    service: Service<E>,
    options: http::Options,
    metrics: &Metrics,
) -> Router {
    let counted = CallRoutes::of(metrics);
    let calls = grpc::routes(service.clone())
        .layer(middleware::from_fn_with_state(Arc::new(counted), count_call));
    http::router(service, options, metrics.clone()).merge(calls).fallback(not_found)
}

/// What nobody knows.
async fn not_found(request: Request) -> Response {
    if grpc::is_grpc(request.headers()) {
        return grpc::unimplemented(request.uri());
    }
    http::no_route(request).await.into_response()
}

/// What is counted of gRPC: each kind of call, by the end of its path.
struct CallRoutes(Vec<(&'static str, Arc<Route>)>);

impl CallRoutes {
    fn of(metrics: &Metrics) -> Self {
        let names = [
            ("streams.Streams/Append", "append"),
            ("streams.Streams/BatchAppend", "batch-append"),
            ("streams.Streams/Read", "read"),
            ("streams.Streams/Delete", "delete"),
            ("streams.Streams/Tombstone", "tombstone"),
            ("PersistentSubscriptions/Create", "create-subscription"),
            ("PersistentSubscriptions/Update", "update-subscription"),
            ("PersistentSubscriptions/Delete", "delete-subscription"),
            ("PersistentSubscriptions/Read", "consume"),
            ("PersistentSubscriptions/GetInfo", "subscription-info"),
            ("PersistentSubscriptions/ReplayParked", "replay-parked"),
            ("PersistentSubscriptions/List", "list-subscriptions"),
        ];
        let names = names.into_iter();
        CallRoutes(names.map(|(method, name)| (method, metrics.route("grpc", name))).collect())
    }
}

/// Counts a call when the head of its answer is there; one that failed says so in its head.
async fn count_call(
    State(routes): State<Arc<CallRoutes>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let route = routes.0.iter().find(|(method, _)| path.ends_with(method));
    let route = route.map(|(_, route)| route.clone());
    let began = Instant::now();
    let response = next.run(request).await;
    if let Some(route) = route {
        route.count(class_of_call(&response), began.elapsed());
    }
    response
}

/// By the code of gRPC: what is the server's to mend is *unknown*, *deadline exceeded*, *resource exhausted*,
/// *internal*, *unavailable* and *data loss*.
fn class_of_call(response: &Response) -> Class {
    let code = response.headers().get("grpc-status").and_then(|value| value.to_str().ok());
    match code {
        None | Some("0") => Class::Success,
        Some("2" | "4" | "8" | "13" | "14" | "15") => Class::Failed,
        Some(_) => Class::Refused,
    }
}
