//! The APIs: gRPC as the clients of KurrentDB speak it, and HTTP with JSON, on one port.

pub mod grpc;
pub mod listen;

use axum::{
    Router,
    extract::Request,
    response::{IntoResponse, Response},
};
use stormkeep_core::env::Env;

use crate::service::Service;

/// Everything that is served.
pub fn router<E: Env>(service: Service<E>) -> Router {
    grpc::routes(service).fallback(not_found)
}

/// What nobody knows.
async fn not_found(request: Request) -> Response {
    if grpc::is_grpc(request.headers()) {
        return grpc::unimplemented(request.uri());
    }
    axum::http::StatusCode::NOT_FOUND.into_response()
}
