//! Calls between the nodes of a cluster: one HTTP/2 POST a call, on an address of its own.
//!
//! ```text
//! Node ── PeerNetwork ──(a few connections a peer, kept open)──> listener ── door ── Node::serve
//!             └─ Addresses: NodeId -> host:port, a table in the store, written by each node at its start
//! ```
//!
//! **No or unknown.** A call is [`CallError::Refused`] only where it is certain that the peer's node has not seen the request:
//! nothing was sent (no address, no connection, no place in time), or the peer's door itself says that it turned the request
//! away ([`wire::TURNED_AWAY`]). All else is [`CallError::Unknown`]. Nothing is sent twice.
//!
//! **Who may call.** A node proves itself by a client certificate of the cluster's authority, or by a shared secret over TLS.
//! Without either the door listens on loopback only. A request names the node that it is for, so that an address that has
//! gone to another node does no harm.
//!
//! **Numbers of nodes.** Each node needs a number of its own, `node_id`, that it keeps over restarts: it is what shards are
//! given to, and the last of its processes is told apart from the ones before by a token. Take what already numbers your
//! machines: the ordinal of a StatefulSet's pod (`node_id = 0` for `stormkeep-0`), or the last byte of a fixed address. Two
//! processes with one number do no harm to what is stored, since every commit is fenced by the token, but calls reach only
//! one of them, and both say so loudly ([`announce`]).

mod addresses;
mod door;
mod pool;
mod settings;
mod tls;
mod wire;

use std::{fmt, sync::Arc, time::Duration};

use stormkeep_core::{
    append::{Request, Response},
    env::{CallError, Network, NodeId},
};
use tokio::time::Instant;
use tracing::{debug, error};

pub use self::{
    addresses::{Address, AddressError, Addresses, InMemory, announce},
    door::{Door, Serve},
    settings::{InvalidSetting, Settings},
};
use self::{
    pool::{Peers, SendError},
    settings::Credentials,
    wire::Why,
};

/// The way to the other nodes. Cheap to clone.
pub struct PeerNetwork<A> {
    inner: Arc<Inner<A>>,
}

impl<A> Clone for PeerNetwork<A> {
    fn clone(&self) -> Self {
        PeerNetwork { inner: self.inner.clone() }
    }
}

impl<A> fmt::Debug for PeerNetwork<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerNetwork").field("peers", &self.inner.peers.count()).finish()
    }
}

struct Inner<A> {
    peers: Peers<A>,
    credentials: Credentials,
}

impl<A: Addresses> PeerNetwork<A> {
    /// A network that finds its peers in `addresses`. Nothing is connected before the first call.
    pub fn new(settings: &Settings, addresses: A) -> Result<Self, InvalidSetting> {
        let credentials = settings.credentials()?;
        let peers = Peers::new(settings, &credentials, addresses);
        Ok(PeerNetwork { inner: Arc::new(Inner { peers, credentials }) })
    }
}

impl<A: Addresses> Network for PeerNetwork<A> {
    async fn call(
        &self,
        to: NodeId,
        request: Request,
        timeout: Duration,
    ) -> Result<Response, CallError> {
        let Inner { peers, credentials } = &*self.inner;
        let deadline = Instant::now() + timeout;
        let Ok(body) = wire::encode(&request) else {
            error!(%to, "a request that cannot be encoded");
            return Err(CallError::Refused);
        };
        if body.len() > wire::REQUEST_BYTES_MAX {
            error!(%to, bytes = body.len(), "a request that is larger than a call may be");
            return Err(CallError::Refused);
        }
        let (sender, authority) = match peers.sender(to, deadline).await {
            Ok(found) => found,
            Err(why) => {
                debug!(%to, %why, "a peer cannot be called");
                return Err(CallError::Refused);
            }
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left < Duration::from_millis(1) {
            return Err(CallError::Refused);
        }
        let Ok(call) = wire::call(to, &authority, credentials.secret.as_deref(), left, body) else {
            error!(%to, %authority, "the address of a peer makes no sense");
            return Err(CallError::Refused);
        };
        let sent = async {
            let answer = sender.send(call).await?;
            wire::answer(answer).await.map_err(SendError::from)
        };
        match tokio::time::timeout_at(deadline, sent).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(SendError::NotSent)) => Err(CallError::Refused),
            Ok(Err(SendError::TurnedAway(why))) => {
                if why.is_lasting() {
                    error!(%to, %authority, %why, "a peer turns this node away");
                }
                if why == Why::Misdirected {
                    peers.forget(to).await;
                }
                Err(CallError::Refused)
            }
            Ok(Err(SendError::Broken(why))) => {
                debug!(%to, %authority, why, "a call broke");
                Err(CallError::Unknown)
            }
            Err(_) => Err(CallError::Unknown),
        }
    }
}
