use std::{fmt, future::Future, time::Duration};

use serde::{Deserialize, Serialize};

use crate::append::{Request, Response};

/// Names one node of the cluster. It survives restarts; a [`Token`](super::Token) does not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// *no*: the peer refused the connection; it has not seen the request.
    #[error("the peer refused the connection")]
    Refused,
    /// *unknown*: no answer in time; the peer may have seen the request, and may yet see it.
    #[error("no answer from the peer in time")]
    Unknown,
}

/// Calls to peer nodes.
///
/// A request may be lost, late, repeated, or overtaken by a later one; so may its answer. It arrives
/// whole or not at all. The answer is that of the copy that arrived first. The peer answers with [`Node::serve`](crate::Node::serve).
pub trait Network: Send + Sync + 'static {
    /// Sends a request and waits for its answer, `timeout` at the most.
    fn call(
        &self,
        to: NodeId,
        request: Request,
        timeout: Duration,
    ) -> impl Future<Output = Result<Response, CallError>> + Send;
}
