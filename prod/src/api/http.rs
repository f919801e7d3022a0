//! HTTP and JSON, for people, scripts and probes.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /streams/{stream}` | appends events, all or none |
//! | `GET /streams/{stream}` | a page of a stream; `wait` for more, or follow it as server-sent events |
//! | `DELETE /streams/{stream}` | deletes a stream; `tombstone=true` for ever |
//! | `GET`, `PUT /streams/{stream}/metadata` | the limits of a stream and whatever else is kept with it |
//! | `GET /all` | a page of all streams in their one order, filtered; or follow them |
//! | `GET /subscriptions` | all groups of consumers, which are called subscriptions here |
//! | `GET`, `PUT`, `POST`, `DELETE /subscriptions/{source}/{group}` | looks at, makes, changes, deletes a group |
//! | `POST /subscriptions/{source}/{group}/replay` | gives what it has parked again |
//! | `GET /subscriptions/{source}/{group}/events` | gives a consumer events |
//! | `POST /subscriptions/{source}/{group}/settle`, `…/leave` | settles events; leaves |
//! | `GET /health/live`, `/health/ready` | for probes |
//! | `GET /metrics` | for Prometheus |
//! | `GET /` | this list |
//!
//! Parameters, headers and errors are in `docs/OPERATIONS.md`. What is not known is refused: a parameter that is
//! misspelt does not silently mean its default. All bodies that are under way together are bounded, so that slow
//! clients cannot fill the memory.

mod append;
mod body;
mod consume;
mod event;
mod follow;
mod manage;
mod operate;
mod problem;
mod query;
mod read;
mod subscriptions;

use std::{any::Any, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get, post, put},
};
use stormkeep_core::env::Env;
use tokio::{sync::Semaphore, time::Instant};
use tower_http::catch_panic::CatchPanicLayer;

pub use event::{EventInput, FormatName, date_time, event_json, uuid};
pub(crate) use event::{EventOutput, present};
pub use problem::{Kind, Problem, expected_text};
pub use query::parse_expected;

use crate::{
    metrics::{Class, Metrics, Route},
    service::Service,
};

/// What may be set.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a request may take, its body included; what waits or follows apart.
    pub request_timeout: Duration,
    /// Events of one page at the most.
    pub page_events_max: u32,
    /// Bytes of one body at the most.
    pub body_bytes_max: usize,
    /// Bytes of all bodies that are under way at the most; more are refused as busy.
    pub bodies_bytes_max: usize,
    /// A follower that is told nothing gets a comment this often, so that its connection is seen to live.
    pub heartbeat: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            request_timeout: Duration::from_secs(10),
            page_events_max: 1000,
            body_bytes_max: 4 * 1024 * 1024,
            bodies_bytes_max: 256 * 1024 * 1024,
            heartbeat: Duration::from_secs(15),
        }
    }
}

/// What every request is served from.
struct Http<E: Env> {
    service: Service<E>,
    options: Arc<Options>,
    metrics: Metrics,
    /// Room for bodies, in KiB.
    bodies: Arc<Semaphore>,
}

impl<E: Env> Clone for Http<E> {
    fn clone(&self) -> Self {
        Http {
            service: self.service.clone(),
            options: self.options.clone(),
            metrics: self.metrics.clone(),
            bodies: self.bodies.clone(),
        }
    }
}

/// The routes, without a fallback, so that they can be merged with others: give the whole [`no_route`].
pub fn router<E: Env>(service: Service<E>, options: Options, metrics: Metrics) -> Router {
    let bodies = Arc::new(Semaphore::new(options.bodies_bytes_max.div_ceil(1024)));
    let counted = |name: &'static str| metrics.route("http", name);
    let stream = measured(post(append::append::<E>), counted("append"))
        .merge(measured(get(read::stream::<E>), counted("read-stream")))
        .merge(measured(delete(manage::delete::<E>), counted("delete")));
    let metadata = measured(get(manage::metadata::<E>), counted("read-metadata"))
        .merge(measured(put(manage::set_metadata::<E>), counted("set-metadata")));
    let all = measured(get(read::all::<E>), counted("read-all"));
    let group = measured(get(subscriptions::info::<E>), counted("subscription-info"))
        .merge(measured(put(subscriptions::create::<E>), counted("create-subscription")))
        .merge(measured(post(subscriptions::update::<E>), counted("update-subscription")))
        .merge(measured(delete(subscriptions::delete::<E>), counted("delete-subscription")));
    let groups = measured(get(subscriptions::list::<E>), counted("list-subscriptions"));
    let replay = measured(post(subscriptions::replay::<E>), counted("replay-parked"));
    let events = measured(get(consume::fetch::<E>), counted("fetch"));
    let settle = measured(post(consume::settle::<E>), counted("settle"));
    let leave = measured(post(consume::leave::<E>), counted("leave"));
    let state = Http { service, options: Arc::new(options), metrics, bodies };
    Router::new()
        .route("/", get(operate::index))
        .route("/streams/{stream}", stream)
        .route("/streams/{stream}/metadata", metadata)
        .route("/all", all)
        .route("/subscriptions", groups)
        .route("/subscriptions/{source}/{group}", group)
        .route("/subscriptions/{source}/{group}/replay", replay)
        .route("/subscriptions/{source}/{group}/events", events)
        .route("/subscriptions/{source}/{group}/settle", settle)
        .route("/subscriptions/{source}/{group}/leave", leave)
        .route("/health/live", get(operate::live))
        .route("/health/ready", get(operate::ready::<E>))
        .route("/metrics", get(operate::metrics::<E>))
        .method_not_allowed_fallback(no_method)
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(state)
}

fn measured<S: Clone + Send + Sync + 'static>(
    routes: MethodRouter<S>,
    route: Arc<Route>,
) -> MethodRouter<S> {
    routes.route_layer(middleware::from_fn_with_state(route, measure))
}

async fn measure(State(route): State<Arc<Route>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let response = next.run(request).await;
    route.count(Class::of(response.status()), began.elapsed());
    response
}

/// What a path that leads nowhere is answered.
pub async fn no_route(request: Request) -> Problem {
    let path = request.uri().path();
    Problem::new(Kind::NoRoute, format!("{path}: there is nothing here; GET / lists what there is"))
}

async fn no_method(request: Request) -> Problem {
    let (method, path) = (request.method(), request.uri().path());
    let detail = format!("{method} {path}: see the header Allow for what it takes");
    Problem::new(Kind::Method, detail)
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let what = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words");
    tracing::error!(what, "a request met a defect");
    let detail =
        "the request met a defect of the server, which has logged it; an append may have happened";
    Problem::new(Kind::Internal, detail).into_response()
}
