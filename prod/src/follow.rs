//! Following a stream, or all of them: reading pages for ever, and waiting between them.
//!
//! A reader that is slow holds one page and no more, and one that meets a busy shard, or one that changes hands, goes on
//! where it was. It ends when its stream is gone for good or the server closes, and says so.

use std::{future::Future, time::Duration};

use futures::{Stream, stream};
use stormkeep_core::{
    Watch,
    append::{Direction, Freshness, ReadAll, ReadError, ReadStream},
    env::Env,
    event::RecordedEvent,
    stream::StreamName,
    time::GlobalPosition,
};
use tokio::sync::watch;

use crate::{filter::Filter, page::Pager, service::Service};

/// How long a follower waits at the most before it looks again: its stream may be written by another node, which
/// wakes nobody here.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How long one read may take.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it waits after a read that failed.
const RETRY: Duration = Duration::from_millis(50);

/// Where to begin to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From<T> {
    /// With the first event.
    Start,
    /// With what comes next.
    End,
    /// Behind this revision or position.
    After(T),
}

/// What a follower is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// An event.
    Event(RecordedEvent),
    /// Of all streams, with a filter: everything up to here was looked at.
    Checkpoint(GlobalPosition),
    /// There is nothing more for now.
    CaughtUp {
        /// Following a stream: its last revision.
        revision: Option<u64>,
        /// Following all: where the next event will be behind.
        position: Option<GlobalPosition>,
    },
    /// After it had caught up: more came than one page holds.
    FellBehind {
        /// Following a stream: the last revision that was told.
        revision: Option<u64>,
        /// Following all: everything up to here was told.
        position: Option<GlobalPosition>,
    },
}

/// Why following has ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// The stream was ended for ever.
    #[error("the stream is deleted for ever: it has a tombstone")]
    Tombstoned,
    /// The server closes: follow again, at another node or later, from where this one ended.
    #[error("the server is closing: follow again from where this ended")]
    Closing,
}

/// One page of what is followed.
pub(crate) struct Page {
    told: Vec<Followed>,
    /// Bytes and count of the events that were read for it.
    read: (usize, usize),
    /// Whether more can be read at once.
    more: bool,
    /// What to say when there is no more.
    at: (Option<u64>, Option<GlobalPosition>),
}

/// What can be followed.
pub(crate) trait Source: Send + 'static {
    /// Begins to wait for something new.
    fn watch(&self) -> Watch;
    /// Reads on, `limit` events at the most.
    fn page(
        &mut self,
        limit: u32,
    ) -> impl Future<Output = Result<Result<Page, ReadError>, FollowError>> + Send;
}

/// One stream.
pub(crate) struct StreamSource<E: Env> {
    pub(crate) service: Service<E>,
    pub(crate) stream: StreamName,
    /// `None`: at the end, wherever that is.
    pub(crate) next: Option<u64>,
}

impl<E: Env> Source for StreamSource<E> {
    fn watch(&self) -> Watch {
        self.service.node.watch(Some(self.stream.clone()))
    }

    async fn page(&mut self, limit: u32) -> Result<Result<Page, ReadError>, FollowError> {
        let (from, direction, limit) = match self.next {
            Some(from) => (from, Direction::Forwards, limit),
            None => (u64::MAX, Direction::Backwards, 0),
        };
        let stream = self.stream.clone();
        let read = ReadStream { stream, from, limit, direction, freshness: Freshness::Strong };
        let slice = match self.service.read_stream(read, READ_TIMEOUT).await {
            Ok(slice) => slice,
            Err(error) => return Ok(Err(error)),
        };
        if slice.tombstoned {
            return Err(FollowError::Tombstoned);
        }
        let behind = slice.head.map_or(0, |last| last + 1);
        let next = slice.next.filter(|_| self.next.is_some());
        self.next = Some(next.unwrap_or(behind.max(self.next.unwrap_or(0))));
        let read = (bytes_of(&slice.events), slice.events.len());
        let told = slice.events.into_iter().map(Followed::Event).collect();
        Ok(Ok(Page { told, read, more: next.is_some(), at: (slice.head, None) }))
    }
}

/// All streams.
pub(crate) struct AllSource<E: Env> {
    pub(crate) service: Service<E>,
    /// `None`: at the end, wherever that is.
    pub(crate) next: Option<GlobalPosition>,
    pub(crate) filter: Option<Filter>,
    pub(crate) checkpoint_every: u64,
    /// Events looked at since the last checkpoint or event that was told.
    pub(crate) examined: u64,
}

impl<E: Env> Source for AllSource<E> {
    fn watch(&self) -> Watch {
        self.service.node.watch(None)
    }

    async fn page(&mut self, limit: u32) -> Result<Result<Page, ReadError>, FollowError> {
        let (from, direction, limit) = match self.next {
            Some(from) => (from, Direction::Forwards, limit),
            None => (GlobalPosition::END, Direction::Backwards, 1),
        };
        let read = ReadAll { from, limit, direction, freshness: Freshness::Strong };
        let slice = match self.service.read_all(read, READ_TIMEOUT).await {
            Ok(slice) => slice,
            Err(error) => return Ok(Err(error)),
        };
        if self.next.is_none() {
            self.next = Some(slice.watermark);
            let at = (None, Some(last_below(slice.watermark)));
            return Ok(Ok(Page { told: Vec::new(), read: (0, 0), more: false, at }));
        }
        let more = slice.next < slice.watermark;
        let read = (bytes_of(&slice.events), slice.events.len());
        let mut told = Vec::new();
        for event in slice.events {
            let position = event.position();
            self.examined += 1;
            if self.filter.as_ref().is_none_or(|filter| filter.matches(&event)) {
                told.push(Followed::Event(event));
                self.examined = 0;
            } else if self.examined >= self.checkpoint_every.max(1) && self.checkpoint_every > 0 {
                told.push(Followed::Checkpoint(position));
                self.examined = 0;
            }
        }
        let at = last_below(slice.next);
        if self.filter.is_some() && self.examined > 0 && !more {
            told.push(Followed::Checkpoint(at));
            self.examined = 0;
        }
        self.next = Some(slice.next.max(from));
        Ok(Ok(Page { told, read, more, at: (None, Some(at)) }))
    }
}

/// The last position below one that is read next.
fn last_below(next: GlobalPosition) -> GlobalPosition {
    GlobalPosition(next.0.saturating_sub(1))
}

fn bytes_of(events: &[RecordedEvent]) -> usize {
    events.iter().map(|e| e.event.bytes()).sum()
}

/// Where a follower is.
struct Follower<S> {
    source: S,
    closing: watch::Receiver<bool>,
    pager: Pager,
    told: std::vec::IntoIter<Followed>,
    /// The last page said that there is no more, and this was told.
    live: bool,
    /// Where the last page ended.
    at: (Option<u64>, Option<GlobalPosition>),
    /// Begun before the last page was read.
    watch: Option<Watch>,
    ended: bool,
}

/// Follows a source until it ends, or until `closing` says so.
pub(crate) fn follow<S: Source>(
    source: S,
    closing: watch::Receiver<bool>,
) -> impl Stream<Item = Result<Followed, FollowError>> + Send + 'static {
    let follower = Follower {
        source,
        closing,
        pager: Pager::default(),
        told: Vec::new().into_iter(),
        live: false,
        at: (None, None),
        watch: None,
        ended: false,
    };
    stream::unfold(follower, async |mut follower| {
        let told = follower.next().await?;
        follower.ended = told.is_err();
        Some((told, follower))
    })
}

impl<S: Source> Follower<S> {
    async fn next(&mut self) -> Option<Result<Followed, FollowError>> {
        if self.ended {
            return None;
        }
        let mut closing = self.closing.clone();
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => Some(Err(FollowError::Closing)),
            told = self.read_on() => Some(told),
        }
    }

    async fn read_on(&mut self) -> Result<Followed, FollowError> {
        loop {
            if let Some(told) = self.told.next() {
                return Ok(told);
            }
            if let Some(watch) = self.watch.take() {
                // Whatever comes of it: the page says what is new.
                let _ = tokio::time::timeout(LOOK_AGAIN, watch).await;
            }
            let watch = self.source.watch();
            let page = match self.source.page(self.pager.limit()).await? {
                Ok(page) => page,
                Err(_) => {
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            self.pager.read(page.read.0, page.read.1);
            let before = std::mem::replace(&mut self.at, page.at);
            let mut told = page.told;
            if page.more && self.live {
                let (revision, position) = before;
                told.insert(0, Followed::FellBehind { revision, position });
                self.live = false;
            } else if !page.more {
                self.watch = Some(watch);
                if !self.live {
                    let (revision, position) = page.at;
                    told.push(Followed::CaughtUp { revision, position });
                    self.live = true;
                }
            }
            self.told = told.into_iter();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test: what is wrong here must stop it
mod tests {
    use std::sync::Arc;

    use stormkeep_core::{
        append::{Append, AppendId, Expected},
        event::{Event, EventId, Format},
    };

    use super::*;
    use crate::{disk::Options, embedded::Machine};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_follows_is_told_of_an_append_and_need_not_look_again() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::start(folder.path(), &Options::default()).unwrap();
        let (service, timeout) = (machine.service(), Duration::from_secs(20));
        let stream = StreamName::new("player-1").unwrap();
        for n in 0..3 {
            let of_stream = service.node.watch(Some(stream.clone()));
            let of_any = service.node.watch(None);
            let event = Event {
                id: EventId(n),
                kind: "tested".into(),
                format: Format::Bytes,
                data: Default::default(),
                metadata: Default::default(),
            };
            let append = Append {
                stream: stream.clone(),
                expected: Expected::Any,
                described: Expected::Any,
                id: AppendId(n),
                events: Arc::new([event]),
            };
            service.append(append, timeout).await.unwrap();
            tokio::time::timeout(timeout, of_stream).await.unwrap();
            tokio::time::timeout(timeout, of_any).await.unwrap();
        }
        machine.stop().await.unwrap();
    }
}
