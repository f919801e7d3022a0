//! A web server of the test's.

use std::sync::Arc;

use axum::{Router, body::Body, extract::State, response::Response, routing::post};
use bytes::Bytes;
use http::HeaderMap;
use tokio::{net::TcpListener, task::JoinHandle};

/// What is answered to a request; `None`: nothing, ever.
pub(crate) type Answers = Arc<dyn Fn(HeaderMap, Bytes) -> Option<Response<Body>> + Send + Sync>;

/// It ends when it is dropped.
pub(crate) struct Receiver {
    pub(crate) url: String,
    serving: JoinHandle<()>,
}

impl Receiver {
    pub(crate) async fn start(answers: Answers) -> Receiver {
        let router = Router::new()
            .route("/events", post(take))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(answers);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/events", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Receiver { url, serving }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn take(State(answers): State<Answers>, headers: HeaderMap, body: Bytes) -> Response {
    match answers(headers, body) {
        Some(answer) => answer,
        None => std::future::pending().await,
    }
}
