//! What the shell's commands talk to a server with: plain HTTP.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use axum::body::Body;
use bytes::Bytes;
use clap::Args;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Deserialize;
use serde_json::Value;

use super::Failure;

/// How long one answer may take; the server's own bound is usually less.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(70);
/// The first wait before a request is sent again; it doubles.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// The longest such wait.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Where the server is.
#[derive(Debug, Clone, Args)]
pub(super) struct Server {
    /// The server
    #[arg(long, env = "STORMKEEP_URL", default_value = "http://127.0.0.1:2113")]
    url: String,
}

/// A server.
pub(super) struct Client {
    base: String,
    pool: Pool<HttpConnector, Full<Bytes>>,
    /// It has answered: if it does not now, it may come back. One that never did is a mistake in the address.
    met: AtomicBool,
}

/// A request that can be sent again.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    /// Path and parameters.
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
}

impl Call {
    pub(super) fn get(path: String) -> Self {
        Call { method: Method::GET, path, headers: Vec::new(), body: Bytes::new() }
    }
}

/// What was answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Answer {
    /// Its document.
    pub(super) fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Failure::Failed(format!("the server's answer: {error}")))
    }

    /// What the server says is wrong.
    pub(super) fn detail(&self) -> String {
        let problem = serde_json::from_slice::<Value>(&self.body).ok();
        let detail = problem.as_ref().and_then(|problem| problem["detail"].as_str());
        match detail {
            Some(detail) => format!("{detail} ({})", self.status),
            None => format!("the server answers {}", self.status),
        }
    }

    /// Itself, if all is well.
    pub(super) fn well(self) -> Result<Self, Failure> {
        match self.status.is_success() {
            true => Ok(self),
            false => Err(Failure::Failed(self.detail())),
        }
    }

    fn may_be_sent_again(&self) -> bool {
        matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
    }
}

impl Server {
    /// Makes ready to talk to it.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let connector = HttpConnector::new();
        let pool = Pool::builder(TokioExecutor::new()).build(connector);
        Ok(Client { base: base(&self.url)?, pool, met: AtomicBool::new(false) })
    }
}

/// The beginning of all addresses at a server: of `http://host:port`, or of a client's connection string.
fn base(url: &str) -> Result<String, Failure> {
    let nonsense = |what: &str| Failure::Nonsense(format!("--url: `{url}`: {what}"));
    let no_tls = "these commands speak plain HTTP: use curl, or a gRPC client, with TLS";
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let rest = match scheme {
        "http" => rest,
        "https" => return Err(nonsense(no_tls)),
        "kurrentdb" | "esdb" => match rest.split_once('?') {
            Some((host, parameters)) if parameters.split('&').any(|p| p == "tls=false") => host,
            _ => return Err(nonsense(no_tls)),
        },
        _ => return Err(nonsense("write http://127.0.0.1:2113")),
    };
    let base = format!("http://{}", rest.trim_end_matches('/'));
    let uri: Result<Uri, _> = base.parse();
    match uri {
        Ok(uri) if uri.host().is_some_and(|h| !h.is_empty()) && uri.path() == "/" => Ok(base),
        _ => Err(nonsense("write http://127.0.0.1:2113")),
    }
}

impl Client {
    /// Sends a call once, and reads the head of the answer.
    pub(super) async fn open(&self, call: &Call) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("{}{}", self.base, call.path));
        if !call.body.is_empty() {
            let json = HeaderValue::from_static("application/json");
            request = request.header(header::CONTENT_TYPE, json);
        }
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(call.body.clone()));
        let request = request.map_err(|error| Failure::Nonsense(error.to_string()))?;
        self.pool.request(request).await.map_err(|error| {
            let cause = std::error::Error::source(&error).map(|c| format!(": {c}"));
            let cause = cause.unwrap_or_default();
            Failure::Failed(format!("{}: no answer{cause}; is the server running?", self.base))
        })
    }

    /// Sends a call once.
    pub(super) async fn send(&self, call: &Call) -> Result<Answer, Failure> {
        let answer = async {
            let response = self.open(call).await?;
            let status = response.status();
            let body = response.into_body().collect().await;
            let body =
                body.map_err(|error| Failure::Failed(format!("the answer broke off: {error}")))?;
            Ok(Answer { status, body: body.to_bytes() })
        };
        tokio::time::timeout(ANSWER_TIMEOUT, answer).await.unwrap_or_else(|_| {
            Err(Failure::Failed(format!("{}: no answer in {ANSWER_TIMEOUT:?}", self.base)))
        })
    }

    /// Sends a call again and again while the server is busy or away, for so long. The call must be one that may be
    /// done twice.
    pub(super) async fn insist(&self, call: &Call, patience: Duration) -> Result<Answer, Failure> {
        let began = Instant::now();
        let mut wait = RETRY_MIN;
        loop {
            let answer = self.send(call).await;
            let again = match &answer {
                Ok(answer) => {
                    self.met.store(true, Ordering::Relaxed);
                    answer.may_be_sent_again()
                }
                Err(Failure::Failed(_)) => self.met.load(Ordering::Relaxed),
                Err(_) => false,
            };
            if !again || began.elapsed() + wait > patience {
                return answer;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }
}

/// A part of a path or of a parameter, with everything escaped that is not plain.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// The body of an answer as it comes.
pub(super) fn chunks(response: Response<Incoming>) -> Body {
    Body::new(response.into_body())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood_or_refused() {
        for (url, expected) in [
            ("http://127.0.0.1:2113", "http://127.0.0.1:2113"),
            ("localhost:2113/", "http://localhost:2113"),
            ("kurrentdb://h:1?tls=false&x=y", "http://h:1"),
            ("esdb://[::1]:1?tls=false", "http://[::1]:1"),
        ] {
            assert_eq!(base(url).unwrap(), expected);
        }
        for bad in ["https://h:1", "kurrentdb://h:1", "ftp://h:1", "http://", "http://h:1/path", ""]
        {
            assert!(matches!(base(bad), Err(Failure::Nonsense(_))), "{bad}");
        }
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(escaped("player-42"), "player-42");
        assert_eq!(escaped("$$a/b ü?"), "%24%24a%2Fb%20%C3%BC%3F");
    }
}
