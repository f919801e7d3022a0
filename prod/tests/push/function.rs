//! A stand-in for Lambda: speaks the invoke API, and runs a function of the test's.
//!
//! Source: AWS Lambda API reference, "Invoke": path, headers, and the shape of errors; read 2026-03.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::Response,
    routing::post,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

/// How an invocation ends.
pub(crate) enum End {
    /// The function returns this.
    Returns(Value),
    /// The function ends with an error of this type and message.
    Errs(&'static str, String),
    /// The service refuses, with this status, error, and these members of its body besides `message`.
    Refused(u16, &'static str, Value),
    /// Nobody answers.
    Hangs,
}

/// A function of the test's: it is given its name and the payload.
pub(crate) type Function = Arc<dyn Fn(String, Bytes) -> BoxFuture<'static, End> + Send + Sync>;

/// The service; it ends when it is dropped.
pub(crate) struct Lambda {
    pub(crate) endpoint: String,
    serving: JoinHandle<()>,
}

impl Lambda {
    pub(crate) async fn start(function: Function) -> Lambda {
        let router = Router::new()
            .route("/2015-03-31/functions/{name}/invocations", post(invoke))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(function);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Lambda { endpoint, serving }
    }
}

impl Drop for Lambda {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn invoke(
    State(function): State<Function>,
    Path(name): Path<String>,
    headers: HeaderMap,
    payload: Bytes,
) -> Response {
    assert_eq!(headers["x-amz-invocation-type"], "RequestResponse");
    let signed = headers[header::AUTHORIZATION].to_str().unwrap();
    assert!(signed.starts_with("AWS4-HMAC-SHA256 Credential=stand-in/"), "{signed}");
    // Of the service: 6 MB.
    if payload.len() > 6_291_456 {
        let error = "RequestTooLargeException";
        return refused(
            413,
            error,
            json!({ "message": "Request must be smaller than 6291456 bytes" }),
        );
    }
    match function(name, payload).await {
        End::Returns(value) => answer(200, Some(("x-amz-executed-version", "$LATEST")), &value),
        End::Errs(kind, message) => {
            let error = json!({ "errorType": kind, "errorMessage": message });
            answer(200, Some(("x-amz-function-error", "Unhandled")), &error)
        }
        End::Refused(status, error, body) => refused(status, error, body),
        End::Hangs => std::future::pending().await,
    }
}

fn refused(status: u16, error: &str, mut body: Value) -> Response {
    let after = body.as_object_mut().and_then(|body| body.remove("retryAfter"));
    let mut response = answer(status, Some(("x-amzn-errortype", error)), &body);
    if let Some(after) = after {
        let after = after.as_u64().unwrap().into();
        response.headers_mut().insert(header::RETRY_AFTER, after);
    }
    response
}

fn answer(status: u16, more: Option<(&'static str, &str)>, body: &Value) -> Response {
    let mut response = Response::builder()
        .status(StatusCode::from_u16(status).unwrap())
        .header(header::CONTENT_TYPE, "application/json")
        .header("x-amzn-requestid", "00000000-0000-4000-8000-000000000000");
    if let Some((name, value)) = more {
        response = response.header(name, value);
    }
    response.body(Body::from(body.to_string())).unwrap()
}
