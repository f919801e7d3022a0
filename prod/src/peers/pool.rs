//! A few connections to each peer, kept open: made when they are needed, and again when they broke.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use stormkeep_core::env::NodeId;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;
use tracing::debug;

use super::{
    Settings,
    addresses::Addresses,
    settings::Credentials,
    wire::{NoResponse, Why},
};

/// A connection that says nothing is asked for a sign of life this often, and closed if there is none: a peer whose machine
/// vanished is noticed without a call.
const PING_EVERY: Duration = Duration::from_secs(2);
const PING_MAX: Duration = Duration::from_secs(4);
/// Bytes that one call may send ahead of its reader.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes that all calls of a connection may send ahead of their readers.
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

type Sending = http2::SendRequest<Full<Bytes>>;

/// Why nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotReady {
    #[error("its address is not known")]
    NoAddress,
    #[error("the addresses of the nodes cannot be reached")]
    NoAddresses,
    #[error("no connection to {0}: {1}")]
    NoConnection(String, String),
    #[error("no place among the calls that are under way, or no connection, in time")]
    Late,
}

/// Why a call that was handed over has no answer.
#[derive(Debug)]
pub(super) enum SendError {
    /// Nothing was sent.
    NotSent,
    /// The peer's door turned it away.
    TurnedAway(Why),
    /// Nobody knows what became of it.
    Broken(String),
}

impl From<NoResponse> for SendError {
    fn from(error: NoResponse) -> Self {
        match error {
            NoResponse::TurnedAway(why) => SendError::TurnedAway(why),
            NoResponse::Broken(why) => SendError::Broken(why),
        }
    }
}

/// All peers.
pub(super) struct Peers<A> {
    addresses: A,
    peers: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
    connections: usize,
    calls_max: usize,
    connect_timeout: Duration,
    tls: Option<(TlsConnector, Option<String>)>,
}

struct Peer {
    slots: Vec<tokio::sync::Mutex<Slot>>,
    next: AtomicUsize,
    places: Arc<Semaphore>,
}

/// One connection.
#[derive(Default)]
struct Slot {
    open: Option<(Sending, Arc<str>)>,
    /// When it last could not be made, and why: whoever waited for it meanwhile need not try again.
    failed: Option<(Instant, NotReady)>,
}

/// A connection with a place on it for one call.
pub(super) struct Sender {
    sending: Sending,
    _place: OwnedSemaphorePermit,
}

impl Sender {
    /// Sends a call, and waits for the head of its answer.
    pub(super) async fn send(
        &self,
        call: http::Request<Full<Bytes>>,
    ) -> Result<http::Response<Incoming>, SendError> {
        self.sending.clone().try_send_request(call).await.map_err(|mut error| {
            // What comes back was not sent.
            match error.take_message() {
                Some(_) => SendError::NotSent,
                None => SendError::Broken(error.into_error().to_string()),
            }
        })
    }
}

impl<A: Addresses> Peers<A> {
    pub(super) fn new(settings: &Settings, credentials: &Credentials, addresses: A) -> Self {
        let tls = credentials.client.clone().map(TlsConnector::from);
        Peers {
            addresses,
            peers: Mutex::default(),
            connections: settings.connections,
            calls_max: settings.calls_max,
            connect_timeout: settings.connect_timeout(),
            tls: tls.map(|tls| (tls, settings.tls_name.clone())),
        }
    }

    /// A connection to a peer, and its authority.
    pub(super) async fn sender(
        &self,
        to: NodeId,
        deadline: Instant,
    ) -> Result<(Sender, Arc<str>), NotReady> {
        let began = Instant::now();
        let peer = self.peer(to);
        let ready = async {
            let place = peer.places.clone().acquire_owned().await.map_err(|_| NotReady::Late)?;
            let turn = peer.next.fetch_add(1, Ordering::Relaxed) % peer.slots.len();
            let mut slot = peer.slots[turn].lock().await;
            let open = slot.open.take().filter(|(sending, _)| !sending.is_closed());
            let (sending, authority) = match (open, &slot.failed) {
                (Some(open), _) => open,
                (None, Some((at, why))) if *at > began => return Err(why.clone()),
                (None, _) => match self.connect(to).await {
                    Ok(open) => open,
                    Err(why) => {
                        slot.failed = Some((Instant::now(), why.clone()));
                        return Err(why);
                    }
                },
            };
            slot.open = Some((sending.clone(), authority.clone()));
            Ok((Sender { sending, _place: place }, authority))
        };
        timeout_at(deadline, ready).await.unwrap_or(Err(NotReady::Late))
    }

    /// Closes the connections to a peer: at its address is another node now.
    pub(super) async fn forget(&self, to: NodeId) {
        for slot in &self.peer(to).slots {
            slot.lock().await.open = None;
        }
    }

    /// Connects to where a peer is now.
    async fn connect(&self, to: NodeId) -> Result<(Sending, Arc<str>), NotReady> {
        let connecting = async {
            let address = self.addresses.get(to).await.map_err(|_| NotReady::NoAddresses)?;
            let authority = address.ok_or(NotReady::NoAddress)?.authority;
            let failed = |why: String| NotReady::NoConnection(authority.clone(), why);
            let stream = TcpStream::connect(&authority).await.map_err(|e| failed(e.to_string()))?;
            stream.set_nodelay(true).map_err(|e| failed(e.to_string()))?;
            let sending = match &self.tls {
                None => handshake(stream).await.map_err(|e| failed(e.to_string()))?,
                Some((tls, name)) => {
                    let host = authority.rsplit_once(':').map_or(&*authority, |(host, _)| host);
                    let name = name.as_deref().unwrap_or(host.trim_matches(['[', ']']));
                    let name = ServerName::try_from(name.to_owned());
                    let name = name.map_err(|e| failed(e.to_string()))?;
                    let stream =
                        tls.connect(name, stream).await.map_err(|e| failed(e.to_string()))?;
                    handshake(stream).await.map_err(|e| failed(e.to_string()))?
                }
            };
            Ok((sending, Arc::from(authority)))
        };
        let late = |_| {
            let why = format!("none in {:?}", self.connect_timeout);
            Err(NotReady::NoConnection(to.to_string(), why))
        };
        timeout(self.connect_timeout, connecting).await.unwrap_or_else(late)
    }

    fn peer(&self, to: NodeId) -> Arc<Peer> {
        let new = || {
            let slots = (0..self.connections).map(|_| tokio::sync::Mutex::default()).collect();
            let places = Arc::new(Semaphore::new(self.calls_max));
            Arc::new(Peer { slots, next: AtomicUsize::new(0), places })
        };
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.entry(to).or_insert_with(new).clone()
    }
}

impl<A> Peers<A> {
    /// How many peers were called so far.
    pub(super) fn count(&self) -> usize {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

async fn handshake<I>(io: I) -> Result<Sending, hyper::Error>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sending, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_MAX)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .handshake(TokioIo::new(io))
        .await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(%error, "a connection to a peer ended");
        }
    });
    Ok(sending)
}
