//! For probes, for Prometheus, and for who looks in.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::header;
use serde_json::json;
use stormkeep_core::env::Env;

use super::{Http, Kind, Problem};

pub(super) async fn index() -> Response {
    let document = json!({
        "name": "stormkeep",
        "version": env!("CARGO_PKG_VERSION"),
        "append": "POST /streams/{stream}",
        "read": "GET /streams/{stream}{?from,direction,limit,wait,follow}",
        "delete": "DELETE /streams/{stream}{?tombstone,expected}",
        "metadata": "GET, PUT /streams/{stream}/metadata",
        "all": "GET /all{?from,direction,limit,wait,follow,type-prefix,stream-prefix,type-regex,stream-regex}",
        "subscriptions": "GET /subscriptions",
        "subscription": "GET, PUT, POST, DELETE /subscriptions/{source}/{group}",
        "consume": [
            "GET /subscriptions/{source}/{group}/events{?consumer,max,wait}",
            "POST /subscriptions/{source}/{group}/settle",
            "POST /subscriptions/{source}/{group}/leave",
            "POST /subscriptions/{source}/{group}/replay{?stop_at}",
        ],
        "health": ["GET /health/live", "GET /health/ready"],
        "metrics": "GET /metrics",
    });
    json_response(document.to_string())
}

pub(super) async fn live() -> Response {
    json_response(json!({ "status": "live" }).to_string())
}

pub(super) async fn ready<E: Env>(State(http): State<Http<E>>) -> Result<Response, Problem> {
    let ready = http.service.readiness();
    ready.map_err(|reason| Problem::new(Kind::NotReady, reason.to_string()))?;
    let document = json!({ "status": "ready", "shards": http.service.serves() });
    Ok(json_response(document.to_string()))
}

pub(super) async fn metrics<E: Env>(State(http): State<Http<E>>) -> Response {
    let mut text = http.metrics.render(http.service.stats());
    let ready = u8::from(http.service.readiness().is_ok());
    for (name, help, value) in [
        ("stormkeep_ready", "whether requests can be served", usize::from(ready)),
        ("stormkeep_shards_served", "shards that this node serves", http.service.serves()),
    ] {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"));
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

pub(super) fn json_response(document: impl IntoResponse) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}
