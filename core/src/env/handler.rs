use std::{convert::Infallible, future::Future};

use crate::event::RecordedEvent;

/// Events for one handler: of one shard, in the order of its log.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The events; each carries stream, revision and append id, so that a handler can be exact.
    pub events: Vec<RecordedEvent>,
}

/// What became of each event of a [`Delivery`], in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// `true`: handled.
    pub handled: Vec<bool>,
}

/// Why a delivery has no outcome by event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeliverError {
    /// *busy*: the handler's concurrency is used up.
    #[error("the handler is throttled")]
    Throttled,
    /// *unknown*: no answer in time; any of the events may have been handled.
    #[error("no answer from the handler in time")]
    Unknown,
}

/// Where events are delivered: a function, a webhook, a client's subscription. At least once: an
/// event may come again after an unknown outcome, or when its shard changes hands.
pub trait Handler: Send + Sync + 'static {
    /// Delivers events and waits for the outcome of each.
    fn deliver(
        &self,
        delivery: Delivery,
    ) -> impl Future<Output = Result<Delivered, DeliverError>> + Send;
}

/// A world that delivers nothing.
impl Handler for Infallible {
    async fn deliver(&self, _delivery: Delivery) -> Result<Delivered, DeliverError> {
        match *self {}
    }
}
