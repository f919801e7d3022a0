//! The APIs: gRPC as the clients of KurrentDB speak it, and HTTP with JSON, on one port.

pub mod grpc;
pub mod listen;
pub mod proto;

use std::time::Duration;

use axum::{Router, extract::Request, http::header::CONTENT_TYPE, response::Response};
use stormkeep_core::env::Env;

use crate::service::Service;

/// What may be set about the APIs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The longest that one call may take.
    pub timeout: Duration,
    /// The address that clients are told to connect to when they ask who there is.
    pub advertise: (String, u16),
}

impl Default for Settings {
    fn default() -> Self {
        Settings { timeout: Duration::from_secs(10), advertise: ("127.0.0.1".into(), 2113) }
    }
}

/// Everything that is served.
pub fn router<E: Env>(service: Service<E>, settings: &Settings) -> Router {
    grpc::routes(service, settings).fallback(not_found)
}

/// What nobody knows.
async fn not_found(request: Request) -> Response {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if kind.is_some_and(|kind| kind.starts_with("application/grpc")) {
        return grpc::unimplemented(request.uri().path());
    }
    let mut response = Response::default();
    *response.status_mut() = axum::http::StatusCode::NOT_FOUND;
    response
}
