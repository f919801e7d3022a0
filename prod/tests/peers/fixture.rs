//! Nodes that listen, each on a runtime of its own, so that they can be killed as a process is.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use stormkeep::{
    api::listen,
    peers::{Address, Addresses, Door, InMemory, PeerNetwork, Settings},
};
use stormkeep_core::{
    append::{
        Append, AppendError, AppendId, Expected, Freshness, ReadError, ReadStream, Request,
        Response,
    },
    env::{CallError, Network, NodeId},
    event::{Event, EventId, Format},
    stream::StreamName,
};
use tokio::runtime::Runtime;

pub(crate) const PEER: NodeId = NodeId(7);

/// What a node does with a request.
pub(crate) type Answer = fn(Request, Duration) -> BoxFuture<'static, Response>;

/// A node that listens.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    /// Requests that its node has seen.
    pub(crate) seen: Arc<AtomicUsize>,
    runtime: Option<Runtime>,
}

impl Listening {
    pub(crate) fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }

    /// Ends it at once: what it was doing is lost, and its connections with it.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts a node at an address (a port of 0: any).
pub(crate) fn listen_at(
    address: SocketAddr,
    settings: &Settings,
    node: NodeId,
    answer: Answer,
) -> Listening {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    let serve = move |request, left| {
        counted.fetch_add(1, Ordering::SeqCst);
        answer(request, left)
    };
    let door = Door::new(settings, node, Arc::new(serve)).unwrap();
    listen_with(address, door.tls(), door.router(), seen)
}

pub(crate) fn listen_with(
    address: SocketAddr,
    tls: Option<tokio_rustls::TlsAcceptor>,
    router: axum::Router,
    seen: Arc<AtomicUsize>,
) -> Listening {
    let socket = TcpListener::bind(address).unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.spawn(async move {
        let socket = tokio::net::TcpListener::from_std(socket).unwrap();
        let bounds = listen::Bounds { tls, ..listen::Bounds::default() };
        listen::serve(socket, router, bounds, Arc::default(), std::future::pending()).await;
    });
    Listening { address, seen, runtime: Some(runtime) }
}

pub(crate) fn listen(settings: &Settings, answer: Answer) -> Listening {
    listen_at(anywhere(), settings, PEER, answer)
}

pub(crate) fn anywhere() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// A network that knows one peer.
pub(crate) async fn network(
    settings: &Settings,
    at: SocketAddr,
) -> (PeerNetwork<InMemory>, InMemory) {
    let addresses = InMemory::default();
    move_to(&addresses, at).await;
    (PeerNetwork::new(settings, addresses.clone()).unwrap(), addresses)
}

/// The peer is at another address from now on.
pub(crate) async fn move_to(addresses: &InMemory, at: SocketAddr) {
    addresses.put(PEER, Address { authority: at.to_string(), process: 1 }).await.unwrap();
}

pub(crate) async fn call(
    network: &PeerNetwork<InMemory>,
    request: Request,
) -> Result<Response, CallError> {
    network.call(PEER, request, Duration::from_secs(5)).await
}

/// A read, told apart by its `from`.
pub(crate) fn read(from: u64) -> Request {
    Request::ReadStream(ReadStream {
        stream: StreamName::new("player-42").unwrap(),
        from,
        limit: 10,
        direction: stormkeep_core::append::Direction::Forwards,
        freshness: Freshness::Strong,
    })
}

/// An append of so many bytes.
pub(crate) fn append(bytes: usize) -> Request {
    Request::Append(Append {
        stream: StreamName::new("player-42").unwrap(),
        expected: Expected::Any,
        described: Expected::Any,
        id: AppendId(1),
        events: vec![Event {
            id: EventId(1),
            kind: "played".into(),
            format: Format::Bytes,
            data: vec![7; bytes].into(),
            metadata: Bytes::new(),
        }]
        .into(),
    })
}

/// Answers a read with its `from`, and an append with its bytes.
pub(crate) fn echo(request: Request, _: Duration) -> BoxFuture<'static, Response> {
    let response = match request {
        Request::Append(append) => {
            let retry_after = Duration::from_micros(append.events[0].data.len() as u64);
            Response::Append(Err(AppendError::Busy { retry_after }))
        }
        Request::ReadStream(read) => {
            let hint = Some(NodeId(read.from as u32));
            Response::ReadStream(Err(ReadError::NotOwner { hint }))
        }
        _ => Response::ReadAll(Err(ReadError::Unavailable)),
    };
    async { response }.boxed()
}

pub(crate) fn echoed(from: u32) -> Result<Response, CallError> {
    Ok(Response::ReadStream(Err(ReadError::NotOwner { hint: Some(NodeId(from)) })))
}
