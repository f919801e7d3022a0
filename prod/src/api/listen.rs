//! One listener for both protocols: accepts connections, bounds them, and sees them off.
//!
//! The server is generic over what accepts, so that the very same code runs over real and over simulated TCP.
//!
//! A connection that neither sends nor takes a byte for the idle time is closed: one that never says anything
//! costs a task and a few KiB until then. Whoever follows a stream is kept alive by HTTP/2 pings and by comments
//! in server-sent events.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::Instant,
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::gather;

/// Where connections come from.
pub trait Accept: Send + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Waits for the next one.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, SocketAddr)>> + Send;
}

impl Accept for TcpListener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        // Answers are small, and each is waited for.
        stream.set_nodelay(true)?;
        Ok((stream, peer))
    }
}

/// The bounds of a listener.
#[derive(Clone)]
pub struct Bounds {
    /// Connections at a time; further ones wait to be accepted.
    pub connections_max: usize,
    /// A connection without a byte for so long is closed.
    pub idle: Duration,
    /// How long a client may take for a TLS handshake or the head of a request.
    pub head: Duration,
    /// How long requests may take to finish when the server closes.
    pub finish: Duration,
    /// TLS, if it is to be spoken.
    pub tls: Option<TlsAcceptor>,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            connections_max: 20_000,
            idle: Duration::from_secs(300),
            head: Duration::from_secs(10),
            finish: Duration::from_secs(10),
            tls: None,
        }
    }
}

impl std::fmt::Debug for Bounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bounds")
            .field("connections_max", &self.connections_max)
            .field("idle", &self.idle)
            .field("finish", &self.finish)
            .finish_non_exhaustive()
    }
}

/// Streams of one HTTP/2 connection at a time. More wait at the client.
const HTTP2_STREAMS_MAX: u32 = 1000;
/// Bytes that one HTTP/2 stream may send ahead of its reader: one append of the largest size needs two rounds.
const HTTP2_STREAM_WINDOW_BYTES: u32 = 512 * 1024;
/// Bytes that all streams of a connection may send ahead of their readers.
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// Bytes of what is sent that one HTTP/2 stream buffers.
const HTTP2_SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Bytes of the head of a request.
const HEAD_BYTES_MAX: u32 = 32 * 1024;

/// How many connections there are.
pub type Connections = Arc<AtomicUsize>;

/// What answers the requests of all connections.
pub trait Answer:
    tower::Service<
        http::Request<hyper::body::Incoming>,
        Response = http::Response<axum::body::Body>,
        Error = Infallible,
        Future: Send,
    > + Clone
    + Send
    + 'static
{
}

impl<T> Answer for T where
    T: tower::Service<
            http::Request<hyper::body::Incoming>,
            Response = http::Response<axum::body::Body>,
            Error = Infallible,
            Future: Send,
        > + Clone
        + Send
        + 'static
{
}

/// Serves connections until `closing` ends; then lets requests finish, within bounds.
pub async fn serve<A: Accept>(
    mut accept: A,
    answer: impl Answer,
    bounds: Bounds,
    connections: Connections,
    closing: impl Future<Output = ()> + Send,
) {
    let builder = Arc::new(builder(&bounds));
    let places = Arc::new(Semaphore::new(bounds.connections_max.max(1)));
    let graceful = GracefulShutdown::new();
    let mut closing = std::pin::pin!(closing);
    loop {
        let place = tokio::select! {
            () = &mut closing => break,
            place = places.clone().acquire_owned() => place,
        };
        let Ok(place) = place else { break };
        let (io, peer) = tokio::select! {
            () = &mut closing => break,
            accepted = accept.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file handles, or a client that was gone at once: the next may fare better.
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        connections.fetch_add(1, Ordering::Relaxed);
        let (builder, answer, bounds) = (builder.clone(), answer.clone(), bounds.clone());
        let (watcher, connections) = (graceful.watcher(), connections.clone());
        tokio::spawn(async move {
            let activity = Arc::new(Activity::new());
            let io = Watched { io, activity: activity.clone() };
            let served = async {
                match &bounds.tls {
                    None => serve_one(&builder, io, answer, watcher).await,
                    Some(tls) => match tokio::time::timeout(bounds.head, tls.accept(io)).await {
                        Ok(Ok(io)) => serve_one(&builder, io, answer, watcher).await,
                        Ok(Err(error)) => debug!(%peer, %error, "no TLS handshake"),
                        Err(_) => debug!(%peer, "no TLS handshake in time"),
                    },
                }
            };
            tokio::select! {
                () = served => {}
                () = activity.idle(bounds.idle) => debug!(%peer, "idle: closed"),
            }
            connections.fetch_sub(1, Ordering::Relaxed);
            drop(place);
        });
    }
    drop(accept);
    if tokio::time::timeout(bounds.finish, graceful.shutdown()).await.is_err() {
        warn!("some requests did not finish in time and are cut off");
    }
}

fn builder(bounds: &Bounds) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(64 * 1024)
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(bounds.idle / 4)
        .keep_alive_timeout(bounds.idle / 4)
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(HTTP2_SEND_BUFFER_BYTES)
        .max_header_list_size(HEAD_BYTES_MAX);
    builder
}

async fn serve_one<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    builder: &auto::Builder<TokioExecutor>,
    io: I,
    answer: impl Answer,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let service = TowerToHyperService::new(answer);
    let connect =
        |io| watcher.watch(builder.serve_connection(TokioIo::new(io), service).into_owned());
    match gather::turns(io, connect).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a connection ended"),
        Err(error) => debug!(%error, "a connection ended"),
    }
}

/// When a connection was last used.
struct Activity {
    began: Instant,
    last_ms: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Activity { began: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    fn touch(&self) {
        let now_ms = self.began.elapsed().as_millis() as u64;
        self.last_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Ends when nothing was touched for `idle`.
    async fn idle(&self, idle: Duration) {
        loop {
            let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
            let due = self.began + last + idle;
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

/// A connection that notes when it is used.
struct Watched<I> {
    io: I,
    activity: Arc<Activity>,
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        if read.is_ready() {
            self.activity.touch();
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        if written.is_ready() {
            self.activity.touch();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        if written.is_ready() {
            self.activity.touch();
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
