//! The APIs: gRPC as the clients of KurrentDB speak it, and HTTP with JSON, on one port.

mod gather;
pub mod grpc;
pub mod http;
pub mod listen;

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use ::http::{Request, Response};
use axum::{
    Router,
    body::{Body, Bytes},
    response::IntoResponse,
    routing::future::RouteFuture,
};
use futures::future::Either;
use stormkeep_core::env::Env;

use crate::{metrics::Metrics, service::Service};

/// Everything that is served, by the path of the request: calls of gRPC, and the routes of HTTP.
pub struct Api<E: Env> {
    calls: grpc::Calls<E>,
    routes: Router,
}

impl<E: Env> Clone for Api<E> {
    fn clone(&self) -> Self {
        Api { calls: self.calls.clone(), routes: self.routes.clone() }
    }
}

impl<E: Env> Api<E> {
    /// With the defaults.
    pub fn new(service: Service<E>) -> Self {
        Api::with(service, http::Options::default(), &Metrics::new())
    }

    /// With these options; requests are counted in `metrics`.
    pub fn with(service: Service<E>, options: http::Options, metrics: &Metrics) -> Self {
        let calls = grpc::Calls::new(service.clone(), metrics);
        let routes = http::router(service, options, metrics.clone()).fallback(not_found);
        Api { calls, routes }
    }
}

impl<E, B> tower::Service<Request<B>> for Api<E>
where
    E: Env,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<grpc::Answering, RouteFuture<Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.calls.answer(request) {
            Either::Left(answering) => Either::Left(answering),
            Either::Right(request) => Either::Right(self.routes.call(request)),
        }
    }
}

/// What nobody knows.
async fn not_found(request: axum::extract::Request) -> axum::response::Response {
    if grpc::is_grpc(request.headers()) {
        return grpc::unimplemented(request.uri());
    }
    http::no_route(request).await.into_response()
}
