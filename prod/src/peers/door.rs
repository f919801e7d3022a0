//! Where the calls of peers come in: checks who calls and for whom, and hands the request to the node.

use std::{convert::Infallible, fmt, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request as HttpRequest, State},
    response::Response as HttpResponse,
    routing::post,
};
use futures::future::BoxFuture;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use stormkeep_core::{
    append::{Request, Response},
    env::NodeId,
};
use subtle::ConstantTimeEq;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, error, warn};

use super::{
    InvalidSetting, Settings,
    wire::{self, ANSWER_BYTES_MAX, LEFT_MS, PATH, REQUEST_BYTES_MAX, TO, TURNED_AWAY, Why},
};

/// The longest that a caller may be waited for, whatever it says.
const LEFT_MAX: Duration = Duration::from_secs(60);

/// Answers a request within a time: `Node::serve`.
pub type Serve = Arc<dyn Fn(Request, Duration) -> BoxFuture<'static, Response> + Send + Sync>;

/// See the module's docs. Cheap to clone.
#[derive(Clone)]
pub struct Door {
    node: NodeId,
    serve: Serve,
    secret: Option<Arc<str>>,
    tls: Option<TlsAcceptor>,
    places: Arc<Semaphore>,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Door {
    /// A door of a node.
    pub fn new(settings: &Settings, node: NodeId, serve: Serve) -> Result<Self, InvalidSetting> {
        let credentials = settings.credentials()?;
        let tls = credentials.server.map(TlsAcceptor::from);
        let places = Arc::new(Semaphore::new(settings.calls_max));
        Ok(Door { node, serve, secret: credentials.secret, tls, places })
    }

    /// The TLS that its listener speaks, if any.
    pub fn tls(&self) -> Option<TlsAcceptor> {
        self.tls.clone()
    }

    /// What its listener serves.
    pub fn router(self) -> Router {
        Router::new().route(PATH, post(knock)).with_state(self)
    }

    async fn take(&self, call: HttpRequest) -> Result<HttpResponse, Why> {
        let began = Instant::now();
        let headers = call.headers();
        if !self.knows(headers) {
            warn!("somebody called without the secret of the cluster");
            return Err(Why::Stranger);
        }
        if wire::number(headers, TO) != Some(self.node.0) {
            return Err(Why::Misdirected);
        }
        let left = wire::number(headers, LEFT_MS).map(Duration::from_millis).ok_or(Why::Garbled)?;
        let deadline = began + left.min(LEFT_MAX);
        let _place = self.places.try_acquire().map_err(|_| Why::Busy)?;
        let body = Limited::new(call.into_body(), REQUEST_BYTES_MAX).collect();
        let body = match timeout_at(deadline, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) => {
                debug!(error, "a call that is too large or broke off");
                return Err(Why::Garbled);
            }
            // Nobody waits for the answer any more.
            Err(_) => return Err(Why::Busy),
        };
        let request: Request = wire::decode(&body).map_err(|error| {
            warn!(%error, "a call that cannot be read");
            Why::Garbled
        })?;
        drop(body);
        let left = deadline.saturating_duration_since(Instant::now());
        // From here on the node has seen it.
        let Ok(response) = timeout_at(deadline, (self.serve)(request, left)).await else {
            return Ok(plain(StatusCode::GATEWAY_TIMEOUT));
        };
        match wire::encode(&response) {
            Ok(bytes) if bytes.len() <= ANSWER_BYTES_MAX => {
                Ok(HttpResponse::new(Body::from(bytes)))
            }
            Ok(bytes) => {
                error!(bytes = bytes.len(), "an answer that is larger than a call may be");
                Ok(plain(StatusCode::INTERNAL_SERVER_ERROR))
            }
            Err(error) => {
                error!(%error, "an answer that cannot be encoded");
                Ok(plain(StatusCode::INTERNAL_SERVER_ERROR))
            }
        }
    }

    /// Whether a caller knows the secret, if there is one. It takes as long for a wrong secret as for a right one of its length.
    fn knows(&self, headers: &HeaderMap) -> bool {
        let Some(secret) = &self.secret else { return true };
        let said = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
        let said = said.and_then(|value| value.strip_prefix(b"Bearer ")).unwrap_or_default();
        said.ct_eq(secret.as_bytes()).into()
    }
}

async fn knock(State(door): State<Door>, call: HttpRequest) -> Result<HttpResponse, Infallible> {
    Ok(door.take(call).await.unwrap_or_else(|why| {
        let mut away = plain(why.status());
        away.headers_mut().insert(TURNED_AWAY, why.header());
        away
    }))
}

fn plain(status: StatusCode) -> HttpResponse {
    let mut response = HttpResponse::new(Body::empty());
    *response.status_mut() = status;
    response
}
