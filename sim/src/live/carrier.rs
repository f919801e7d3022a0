//! Carries the questions of clients to the processes over HTTP, and their answers back.
//!
//! What a carrier does not know, it claims less of. The API tells no watermark of a read of all shards; so the answer names one
//! that is surely right for the oracle (see [`Carrier::watermark_of`]), or, where none is, counts as no answer.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request as HttpRequest, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::de::DeserializeOwned;
use stormkeep_core::{
    append::{
        AllSlice, Append, AppendError, Appended, Direction, ReadAll, ReadError, ReadStream,
        Request, Response, StreamSlice,
    },
    event::RecordedEvent,
    time::GlobalPosition,
};

use super::document::{
    AllPage, Brought, Done, Problem, StreamPage, body, expected, position, recorded,
};

/// Defects that are kept at the most: the first ones say what is wrong.
const DEFECTS_MAX: usize = 20;

/// Why there is no answer that makes sense.
enum Silence {
    /// The connection broke, or there was none.
    Broken,
    /// A problem, in the server's words.
    Problem(Problem),
    /// What never should be; it is written down.
    Defect,
}

/// See the module's docs.
pub(super) struct Carrier {
    http: Client<HttpConnector, Full<Bytes>>,
    nodes: Vec<SocketAddr>,
    /// Events of a page at the most.
    page_max: u32,
    brought: Mutex<Brought>,
    /// The highest watermark that was surely answered.
    established: Mutex<GlobalPosition>,
    defects: Mutex<Vec<String>>,
}

/// Nothing that is done while one of these is held can leave it half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Carrier {
    /// A carrier to nodes at these addresses.
    pub(super) fn new(nodes: Vec<SocketAddr>) -> Self {
        // A request that is sent twice by the transport would make "no" inexact.
        let http = Client::builder(TokioExecutor::new())
            .retry_canceled_requests(false)
            .pool_idle_timeout(Duration::from_secs(20))
            .build_http();
        let (brought, defects) = (Mutex::default(), Mutex::default());
        let established = Mutex::new(GlobalPosition::START);
        Carrier { http, nodes, page_max: 1000, brought, established, defects }
    }

    /// What was answered that never should be.
    pub(super) fn defects(&self) -> Vec<String> {
        lock(&self.defects).clone()
    }

    /// Writes down what never should be.
    pub(super) fn defect(&self, what: impl Into<String>) {
        let mut defects = lock(&self.defects);
        if defects.len() < DEFECTS_MAX {
            defects.push(what.into());
        }
    }

    /// Whether a node says that it is ready.
    pub(super) async fn is_ready(&self, node: u32) -> bool {
        let ready = self.get::<serde_json::Value>(node, "/health/ready").await;
        ready.is_ok()
    }

    /// The answer of a node to a question.
    pub(super) async fn ask(&self, node: u32, request: Request) -> Response {
        match request {
            Request::Append(append) => Response::Append(self.append(node, &append).await),
            Request::ReadStream(read) => Response::ReadStream(self.read(node, &read).await),
            Request::ReadAll(read) => Response::ReadAll(self.read_all(node, &read).await),
            // The plan of a live run asks for nothing else.
            other => {
                self.defect(format!("a live run cannot ask {other:?}"));
                Response::ReadLog(Err(ReadError::Unavailable))
            }
        }
    }

    async fn append(&self, node: u32, append: &Append) -> Result<Appended, AppendError> {
        lock(&self.brought).extend(append.events.iter().map(|event| (event.id, append.id)));
        let sent = async {
            let body = body(append).map_err(|what| self.unexpected("an append", &what))?;
            let request = HttpRequest::builder()
                .method(Method::POST)
                .uri(self.uri(node, &format!("/streams/{}", append.stream)))
                .header("content-type", "application/json")
                .header("idempotency-key", uuid::Uuid::from_u128(append.id.0).to_string())
                .header("stormkeep-expected", expected(append.expected))
                .body(Full::new(body))
                .map_err(|error| self.unexpected("an append", &error.to_string()))?;
            let done: Done = self.call(request).await?;
            done.appended().map_err(|what| self.unexpected("an append", &what))
        };
        sent.await.map_err(|silence| match silence {
            Silence::Broken | Silence::Defect => AppendError::Unknown,
            Silence::Problem(problem) => match problem.name() {
                "wrong-expected-revision" => AppendError::WrongExpectedRevision {
                    expected: append.expected,
                    actual: problem.actual,
                    described: false,
                },
                "stream-tombstoned" => AppendError::Tombstoned,
                "busy" => {
                    let retry_after = Duration::from_millis(problem.retry_after_ms.unwrap_or(500));
                    AppendError::Busy { retry_after }
                }
                // The body was cut off on its way.
                "unavailable" | "request-timeout" => AppendError::Unavailable,
                "unknown-outcome" => AppendError::Unknown,
                _ => {
                    self.unexpected("an append", &format!("{problem:?}"));
                    AppendError::Unknown
                }
            },
        })
    }

    async fn read(&self, node: u32, read: &ReadStream) -> Result<StreamSlice, ReadError> {
        let ReadStream { stream, from, limit, direction, .. } = read;
        let backwards = *direction == Direction::Backwards;
        let from = if backwards && *from == u64::MAX { "end".into() } else { from.to_string() };
        let way = if backwards { "backwards" } else { "forwards" };
        let path = format!("/streams/{stream}?from={from}&limit={limit}&direction={way}");
        let page: StreamPage = match self.get(node, &path).await {
            Ok(page) => page,
            Err(Silence::Problem(problem)) if problem.name() == "stream-not-found" => {
                let head = problem.last_revision;
                return Ok(StreamSlice { head, ..StreamSlice::default() });
            }
            Err(silence) => return Err(self.no_read(silence)),
        };
        let StreamPage { exists, head, events, next, end } = page;
        let next = if end { None } else { next };
        let events = self.recorded(events)?;
        Ok(StreamSlice { head, exists, events, next, ..StreamSlice::default() })
    }

    async fn read_all(&self, node: u32, read: &ReadAll) -> Result<AllSlice, ReadError> {
        if read.limit == 0 {
            // The API has no page of nothing.
            return Err(ReadError::Unavailable);
        }
        let (page, next) = self.all_page(node, read.from, read.limit, read.direction).await?;
        let AllPage { events, end, .. } = page;
        let events = self.recorded(events)?;
        let full = events.len() == read.limit as usize;
        let watermark = self.watermark_of(node, read, &events, (next, end, full)).await?;
        Ok(AllSlice { events, next, watermark })
    }

    /// A watermark for the answer to a read of all shards, of which the oracle claims only what is so:
    /// nothing that was asked for after the answer is below it; the answer shows exactly what is below it and in the read's
    /// way; it is above what the node had answered before.
    async fn watermark_of(
        &self,
        node: u32,
        read: &ReadAll,
        events: &[RecordedEvent],
        (next, end, full): (GlobalPosition, bool, bool),
    ) -> Result<GlobalPosition, ReadError> {
        match read.direction {
            // The page goes on at its watermark.
            Direction::Forwards if end && next > read.from => {
                self.establish(next);
                Ok(next)
            }
            // The watermark is here, or before. If it was here once, it still is.
            Direction::Forwards if end => {
                let established = *lock(&self.established) >= read.from;
                Ok(if established { read.from } else { GlobalPosition::START })
            }
            // A later one is above all that this one had to be above; the page ends before both.
            Direction::Forwards if full => self.watermark(node).await,
            Direction::Forwards => Err(ReadError::Unavailable),
            // From the watermark down: it is behind the first event that is shown.
            Direction::Backwards if read.from == GlobalPosition::END => {
                Ok(events.first().map_or(GlobalPosition::START, |event| event.position().next()))
            }
            // Where the read begins was below a watermark before it was asked; then it was below its own.
            Direction::Backwards if *lock(&self.established) >= read.from => {
                self.watermark(node).await
            }
            Direction::Backwards => Err(ReadError::Unavailable),
        }
    }

    fn establish(&self, watermark: GlobalPosition) {
        let mut established = lock(&self.established);
        *established = watermark.max(*established);
    }

    /// A watermark of a node, from a read of its own.
    async fn watermark(&self, node: u32) -> Result<GlobalPosition, ReadError> {
        let path = "/all?from=end&limit=1&direction=forwards";
        let page: AllPage = self.get(node, path).await.map_err(|silence| self.no_read(silence))?;
        // It shows what is behind one watermark and before another.
        let next = page.next.as_deref().map(position).and_then(Result::ok);
        let shown = self.recorded(page.events)?.first().map(RecordedEvent::position);
        let watermark = shown.or(next).ok_or(ReadError::Unavailable)?;
        self.establish(watermark);
        Ok(watermark)
    }

    /// One page of all shards, and where to go on.
    async fn all_page(
        &self,
        node: u32,
        from: GlobalPosition,
        limit: u32,
        direction: Direction,
    ) -> Result<(AllPage, GlobalPosition), ReadError> {
        let backwards = direction == Direction::Backwards;
        let begin = match (backwards, from) {
            (true, GlobalPosition::END) => "end".into(),
            (false, GlobalPosition::START) => "start".into(),
            _ => from.to_string(),
        };
        let way = if backwards { "backwards" } else { "forwards" };
        let path = format!("/all?from={begin}&limit={limit}&direction={way}");
        let page: AllPage = self.get(node, &path).await.map_err(|silence| self.no_read(silence))?;
        let next = match page.next.as_deref().map(position) {
            Some(Ok(next)) => next,
            None if backwards => GlobalPosition::START,
            Some(Err(what)) => return Err(self.no_read(self.unexpected("a page", &what))),
            None => return Err(self.no_read(self.unexpected("a page", "no next"))),
        };
        Ok((page, next))
    }

    /// All events of all shards up to the watermark, in order.
    pub(super) async fn everything(&self, node: u32) -> Result<Vec<RecordedEvent>, ReadError> {
        let (mut all, mut from) = (Vec::new(), GlobalPosition::START);
        loop {
            let page = self.all_page(node, from, self.page_max, Direction::Forwards).await;
            let (page, next) = page?;
            all.extend(self.recorded(page.events)?);
            if page.end {
                return Ok(all);
            }
            from = next;
        }
    }

    fn recorded(
        &self,
        events: Vec<super::document::Read>,
    ) -> Result<Vec<RecordedEvent>, ReadError> {
        let events = recorded(events, &lock(&self.brought));
        events.map_err(|what| self.no_read(self.unexpected("an event", &what)))
    }

    fn uri(&self, node: u32, path: &str) -> String {
        let address = self.nodes.get(node as usize).copied();
        let address = address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        format!("http://{address}{path}")
    }

    async fn get<T: DeserializeOwned>(&self, node: u32, path: &str) -> Result<T, Silence> {
        let request = HttpRequest::builder().uri(self.uri(node, path)).body(Full::default());
        let request = request.map_err(|error| self.unexpected("a read", &error.to_string()))?;
        self.call(request).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        request: HttpRequest<Full<Bytes>>,
    ) -> Result<T, Silence> {
        let what = format!("{} {}", request.method(), request.uri().path());
        let answer = self.http.request(request).await.map_err(|_| Silence::Broken)?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|_| Silence::Broken)?.to_bytes();
        let said = || format!("{status}: {}", String::from_utf8_lossy(&body));
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|error| self.unexpected(&what, &format!("{error}: {}", said())));
        }
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            return Err(self.unexpected(&what, &said()));
        }
        let problem = serde_json::from_slice(&body);
        Err(problem.map_or_else(|_| self.unexpected(&what, &said()), Silence::Problem))
    }

    fn no_read(&self, silence: Silence) -> ReadError {
        let Silence::Problem(problem) = silence else { return ReadError::Unavailable };
        match problem.name() {
            "busy" => {
                let retry_after = Duration::from_millis(problem.retry_after_ms.unwrap_or(500));
                ReadError::Busy { retry_after }
            }
            "unavailable" | "not-ready" | "request-timeout" => ReadError::Unavailable,
            _ => {
                self.unexpected("a read", &format!("{}: {}", problem.name(), problem.detail));
                ReadError::Unavailable
            }
        }
    }

    fn unexpected(&self, what: &str, seen: &str) -> Silence {
        self.defect(format!("{what} was answered with {seen}"));
        Silence::Defect
    }
}
