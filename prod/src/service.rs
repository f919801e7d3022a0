//! What both APIs offer, over one node: appends, reads, deletions, following a stream or all of them, and groups.
//!
//! Nothing here knows of a protocol, and nothing in a protocol knows of the node.

use std::{sync::Arc, time::Duration};

use futures::Stream;
use stormkeep_core::{
    Node, Stats,
    append::{
        AllSlice, Append, AppendError, AppendId, Appended, Direction, Expected, Freshness, ReadAll,
        ReadError, ReadStream, Request, Response, StreamSlice,
    },
    env::Env,
    event::{Event, EventId, Format},
    head,
    stream::StreamName,
    time::GlobalPosition,
};
use tokio::sync::watch;

use crate::{
    filter::Filter,
    follow::{AllSource, FollowError, Followed, From, StreamSource, follow},
};

mod groups;

/// How often a deletion is tried when the stream's metadata changes under it.
const DELETE_TRIES: u32 = 8;

/// Why a server is not ready to serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// It is on its way down.
    #[error("the server is draining")]
    Draining,
    /// It does not have all its shards yet.
    #[error("{serves} of {shards} shards are served: the others are being taken over and replayed")]
    Shards {
        /// Shards that are served.
        serves: usize,
        /// Shards that should be.
        shards: usize,
    },
    /// The log or the store is not well.
    #[error("{0}")]
    Health(String),
}

/// How the log and the store are, in a sentence if they are not well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Well.
    Well,
    /// There is no room for more: appends are refused, reads go on.
    Full(String),
    /// Something has to be looked at.
    Failed(String),
}

/// What a server asks its adapters for.
pub type Health = Arc<dyn Fn() -> Condition + Send + Sync>;

/// What a client is told to wait when there is no room.
const RETRY_WHEN_FULL: Duration = Duration::from_secs(1);

/// See the module's docs.
pub struct Service<E: Env> {
    pub(crate) node: Node<E>,
    stats: Arc<Stats>,
    /// Shards that this node should serve to be ready.
    shards: usize,
    health: Health,
    closing: watch::Sender<bool>,
}

impl<E: Env> Clone for Service<E> {
    fn clone(&self) -> Self {
        Service {
            node: self.node.clone(),
            stats: self.stats.clone(),
            shards: self.shards,
            health: self.health.clone(),
            closing: self.closing.clone(),
        }
    }
}

impl<E: Env> Service<E> {
    /// Offers a node that should come to serve `shards` shards.
    pub fn new(node: Node<E>, stats: Arc<Stats>, shards: usize, health: Health) -> Self {
        Service { node, stats, shards, health, closing: watch::Sender::new(false) }
    }

    /// What the node counts.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// How many shards the node serves.
    pub fn serves(&self) -> usize {
        self.node.serves().len()
    }

    /// Whether requests can be served, or why not.
    pub fn readiness(&self) -> Result<(), NotReady> {
        if *self.closing.borrow() {
            return Err(NotReady::Draining);
        }
        let (serves, shards) = (self.serves(), self.shards);
        if serves < shards {
            return Err(NotReady::Shards { serves, shards });
        }
        match (self.health)() {
            Condition::Well => Ok(()),
            Condition::Full(reason) | Condition::Failed(reason) => Err(NotReady::Health(reason)),
        }
    }

    /// Says that the server closes: it is not ready any more, and whoever follows is told.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Finishes what is under way and gives all shards back.
    pub async fn drain(&self) {
        self.node.drain().await;
    }

    /// Appends events.
    pub async fn append(&self, append: Append, timeout: Duration) -> Result<Appended, AppendError> {
        // Before anything waits for room behind it: reads wait for the appends that were decided before them.
        if let Condition::Full(_) = (self.health)() {
            return Err(AppendError::Busy { retry_after: RETRY_WHEN_FULL });
        }
        match self.node.handle(Request::Append(append), timeout).await {
            Response::Append(result) => result,
            _ => Err(AppendError::Unknown),
        }
    }

    /// Reads a page of a stream.
    pub async fn read_stream(
        &self,
        read: ReadStream,
        timeout: Duration,
    ) -> Result<StreamSlice, ReadError> {
        match self.node.handle(Request::ReadStream(read), timeout).await {
            Response::ReadStream(result) => result,
            _ => Err(ReadError::Unavailable),
        }
    }

    /// Reads a page of all streams.
    pub async fn read_all(&self, read: ReadAll, timeout: Duration) -> Result<AllSlice, ReadError> {
        match self.node.handle(Request::ReadAll(read), timeout).await {
            Response::ReadAll(result) => result,
            _ => Err(ReadError::Unavailable),
        }
    }

    /// Hides all events of a stream, by its metadata: it counts as no stream until the next append, whose
    /// revision follows the last. `$all` keeps them. A stream that is not there is not deleted, unless that is expected.
    pub async fn delete(
        &self,
        stream: StreamName,
        expected: Expected,
        timeout: Duration,
    ) -> Result<Appended, AppendError> {
        let deadline = tokio::time::Instant::now() + timeout;
        let left = || deadline.saturating_duration_since(tokio::time::Instant::now());
        let mut answer = Err(AppendError::Unavailable);
        for _ in 0..DELETE_TRIES {
            let metadata = self.metadata(&stream, left()).await;
            let Ok((revision, mut object)) = metadata else { return answer };
            object.insert("$tb".into(), i64::MAX.into());
            let data = serde_json::Value::Object(object).to_string();
            let append = Append {
                stream: stream.metadata(),
                expected: revision.map_or(Expected::NoStream, Expected::Exactly),
                described: if expected == Expected::Any {
                    Expected::StreamExists
                } else {
                    expected
                },
                id: AppendId(uuid::Uuid::new_v4().as_u128()),
                events: Arc::new([event(head::METADATA, data)]),
            };
            answer = self.append(append, left()).await;
            // Its metadata was written meanwhile: read it again.
            let error = answer.as_ref().err();
            if !matches!(error, Some(AppendError::WrongExpectedRevision { described: false, .. })) {
                break;
            }
        }
        answer.map_err(|error| match error {
            AppendError::WrongExpectedRevision { actual, described, .. } => {
                AppendError::WrongExpectedRevision { expected, actual, described }
            }
            error => error,
        })
    }

    /// Ends a stream for ever: nothing can be read from it or appended to it any more. `$all` keeps its events.
    pub async fn tombstone(
        &self,
        stream: StreamName,
        expected: Expected,
        timeout: Duration,
    ) -> Result<Appended, AppendError> {
        let append = Append {
            stream,
            expected,
            described: Expected::Any,
            id: AppendId(uuid::Uuid::new_v4().as_u128()),
            events: Arc::new([event(head::TOMBSTONE, "{}".into())]),
        };
        self.append(append, timeout).await
    }

    /// The last metadata of a stream, and its revision; empty if it has none.
    pub async fn metadata(
        &self,
        stream: &StreamName,
        timeout: Duration,
    ) -> Result<(Option<u64>, serde_json::Map<String, serde_json::Value>), ReadError> {
        let last = ReadStream {
            stream: stream.metadata(),
            from: u64::MAX,
            limit: 1,
            direction: Direction::Backwards,
            freshness: Freshness::Strong,
        };
        let slice = self.read_stream(last, timeout).await?;
        let object = slice.events.first().and_then(|e| serde_json::from_slice(&e.event.data).ok());
        Ok((slice.head, object.unwrap_or_default()))
    }

    /// Follows a stream.
    pub fn follow_stream(
        &self,
        stream: StreamName,
        from: From<u64>,
    ) -> impl Stream<Item = Result<Followed, FollowError>> + Send + 'static + use<E> {
        let next = match from {
            From::Start => Some(0),
            From::After(revision) => Some(revision.saturating_add(1)),
            From::End => None,
        };
        let source = StreamSource { service: self.clone(), stream, next };
        follow(source, self.closing.subscribe())
    }

    /// Follows all streams. With a filter, a checkpoint is told at least every `checkpoint_every` events that
    /// were looked at (0: only with the pages), so that a follower can go on from there.
    pub fn follow_all(
        &self,
        from: From<GlobalPosition>,
        filter: Option<Filter>,
        checkpoint_every: u64,
    ) -> impl Stream<Item = Result<Followed, FollowError>> + Send + 'static + use<E> {
        let next = match from {
            From::Start => Some(GlobalPosition::START),
            From::After(position) => Some(GlobalPosition(position.0.saturating_add(1))),
            From::End => None,
        };
        let source =
            AllSource { service: self.clone(), next, filter, checkpoint_every, examined: 0 };
        follow(source, self.closing.subscribe())
    }
}

fn event(kind: &str, data: String) -> Event {
    Event {
        id: EventId(uuid::Uuid::new_v4().as_u128()),
        kind: kind.into(),
        format: Format::Json,
        data: data.into(),
        metadata: bytes::Bytes::new(),
    }
}
