use std::{future::Future, time::Duration};

use crate::{
    consume::{Given, Unit},
    group::{GroupId, Target},
};

/// Events for one handler: of one shard, in the order of its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The group that they are given to.
    pub group: GroupId,
    /// What they are of, and under which lease: a failure that an earlier holder of the shard saw is not known to this one.
    pub unit: Unit,
    /// Where to.
    pub target: Target,
    /// The events. Each carries stream, revision and append id, so that a handler can be exact, and how often it has failed
    /// before. Those of one stream are in its order; a handler that fails one should not go on with later ones of its
    /// stream, which are given again.
    pub events: Vec<Given>,
    /// How long the core waits for the outcome: the group's message timeout.
    pub within: Duration,
}

/// What became of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handled {
    /// It is handled.
    Yes,
    /// It failed, and why: it is given again, or parked after too many tries.
    Failed(String),
    /// It was not come to, or nobody knows: it is given again, and this does not count as a failure.
    NotKnown,
}

/// What became of each event of a [`Delivery`], in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// For each event. What is missing at its end is [not known](Handled::NotKnown).
    pub handled: Vec<Handled>,
}

/// Why a delivery has no outcome by event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliverError {
    /// *busy*: the handler's concurrency is used up; nothing was handled. It counts against no event.
    #[error("the handler is throttled")]
    Throttled {
        /// When to try again, if the handler says so.
        retry_after: Option<Duration>,
    },
    /// *no*: the handler could not be reached, or a service on the way to it is not well: no event is to blame, and it counts
    /// against none. They all come again.
    #[error("the handler cannot be reached: {0}")]
    Unreachable(String),
    /// *unknown*: it failed as a whole, as by a crash; any of the events may have been handled. One of them may be
    /// the reason: they come again in halves.
    #[error("the handler failed: {0}")]
    Failed(String),
    /// *unknown*: no answer in time; any of the events may have been handled. The same follows.
    #[error("no answer from the handler in time")]
    TimedOut,
}

/// Where events are pushed: a function, a webhook. At least once: an event may come again after an unknown
/// outcome, or when its shard changes hands; even while an earlier delivery of it is still under way.
pub trait Handler: Send + Sync + 'static {
    /// Delivers events and waits for the outcome of each. An adapter has its own time limit, which should be below the group's
    /// message timeout: after that the core waits no more, and takes it for [`DeliverError::TimedOut`].
    fn deliver(
        &self,
        delivery: Delivery,
    ) -> impl Future<Output = Result<Delivered, DeliverError>> + Send;
}

/// A world that has no handlers: pushed groups stand still, and say so.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHandler;

impl Handler for NoHandler {
    async fn deliver(&self, _delivery: Delivery) -> Result<Delivered, DeliverError> {
        Err(DeliverError::Unreachable("this process has no handlers".into()))
    }
}
