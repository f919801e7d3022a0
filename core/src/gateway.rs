//! The way from a request to its answer: finds the owner of the stream's shard, here or at a peer,
//! follows "not the owner, ask X", and finishes reads from the store.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::channel::oneshot;

use crate::{
    append::{
        Append, AppendError, Appended, Direction, Freshness, LogSlice, ReadError, ReadLog,
        ReadStream, Request, Response, StreamSlice,
    },
    ask::{Ask, Door, Grant, Shut},
    config::Config,
    delivery::Units,
    entry::Entry,
    env::{CallError, Clock, Env, Log, Network, NodeId, ReadLogError, Store},
    limits,
    reader::{LogReader, StepError},
    shard::{self, ShardId, ShardInfo, sequencer::Shown},
    stats::{Counter, Stats},
    time::HybridTime,
    wait::{Backoff, within},
    watch::Watchers,
};

mod slice;

use slice::{range, slice};

/// Where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A client: it is sent on to the owner, wherever that is.
    Client,
    /// A peer, which takes this node for the owner: it is answered here or not at all.
    Peer,
}

/// What the gateway knows of the cluster. All of it may be out of date, and is corrected by answers.
#[derive(Default)]
pub(crate) struct Routes {
    pub(crate) shards: Arc<Vec<ShardInfo>>,
    pub(crate) owners: BTreeMap<ShardId, NodeId>,
    /// The shards that this node serves.
    pub(crate) here: BTreeMap<ShardId, Door>,
    /// The newest time of an append that this node answered.
    pub(crate) newest: HybridTime,
    /// When a request last looked the owner of a shard up (`None`: the shards), in elapsed time.
    looked: BTreeMap<Option<ShardId>, Duration>,
    /// Who delivers the events of each shard, and when that was looked up.
    pub(crate) holders: BTreeMap<ShardId, NodeId>,
    pub(crate) holders_at: Option<Duration>,
    /// Until when those of them that are not this node are asked only if there is nothing here, in elapsed time: they did not
    /// answer.
    pub(crate) deaf_until: Duration,
}

pub(crate) struct Gateway<E: Env> {
    pub(crate) env: Arc<E>,
    pub(crate) node: NodeId,
    pub(crate) config: Arc<Config>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) routes: Mutex<Routes>,
    pub(crate) watchers: Watchers,
    /// What is delivered here.
    pub(crate) units: Units,
}

/// Where the owner of a shard is.
enum Owner {
    Here(Door),
    At(NodeId),
    Nowhere,
}

/// What is asked of an owner.
enum Question {
    Append(Append),
    Read(ReadStream),
}

/// What one try came to.
enum Try<T> {
    Done(T),
    /// Not the owner, surely; ask this one, or look again.
    Redirect(Option<NodeId>),
}

impl<T> Try<T> {
    fn map<R>(self, of: impl FnOnce(T) -> R) -> Try<R> {
        match self {
            Try::Done(answer) => Try::Done(of(answer)),
            Try::Redirect(hint) => Try::Redirect(hint),
        }
    }
}

impl<E: Env> Gateway<E> {
    pub(crate) fn new(env: Arc<E>, node: NodeId, config: Arc<Config>, stats: Arc<Stats>) -> Self {
        Gateway {
            env,
            node,
            config,
            stats,
            routes: Mutex::default(),
            watchers: Watchers::default(),
            units: Units::default(),
        }
    }

    pub(crate) async fn handle(
        &self,
        request: Request,
        timeout: Duration,
        origin: Origin,
    ) -> Response {
        match request {
            Request::Append(append) => Response::Append(self.append(append, timeout, origin).await),
            Request::ReadStream(read) => {
                Response::ReadStream(self.read(read, timeout, origin).await)
            }
            Request::ReadAll(read) => Response::ReadAll(self.read_all(read, timeout).await),
            Request::ReadLog(read) => Response::ReadLog(self.read_log(read, timeout).await),
            Request::Fetch(fetch) => Response::Fetch(self.fetch(fetch, timeout, origin).await),
            Request::Settle(settle) => Response::Settle(self.settle(settle, timeout, origin).await),
            Request::Leave(leave) => Response::Leave(self.leave(leave, timeout, origin).await),
            Request::Manage(manage) => Response::Manage(self.manage(manage, timeout).await),
            Request::Units(group) => Response::Units(self.units.infos(&group, self.node)),
        }
    }

    async fn append(
        &self,
        append: Append,
        timeout: Duration,
        origin: Origin,
    ) -> Result<Appended, AppendError> {
        limits::check(&append)?;
        let question = Question::Append(append);
        let answer = match self.at_owner(&question, timeout, origin).await {
            Ok(Response::Append(answer)) => answer,
            Err(hint) if origin == Origin::Peer => Err(AppendError::NotOwner { hint }),
            Ok(_) | Err(_) => Err(AppendError::Unavailable),
        };
        if let Ok(appended) = &answer {
            self.answered(appended);
        }
        answer
    }

    async fn append_here(
        &self,
        owner: Door,
        append: Append,
        left: Duration,
    ) -> Try<Result<Appended, AppendError>> {
        let (reply, answer) = oneshot::channel();
        match owner.offer(Ask::Append(append, reply)) {
            Ok(()) => {}
            Err(Shut::Gone) => return Try::Redirect(None),
            Err(Shut::Full) => {
                self.stats.count(Counter::AppendsShed);
                return Try::Done(Err(AppendError::Busy { retry_after: self.config.retry_after }));
            }
        }
        let began = self.env.clock().elapsed();
        match within(self.env.clock(), left, answer).await {
            Some(Ok(Err(AppendError::NotOwner { hint }))) => Try::Redirect(hint),
            Some(Ok(result)) => {
                let took = self.env.clock().elapsed().saturating_sub(began);
                self.stats.add(Counter::AppendMicros, took.as_micros() as u64);
                Try::Done(result)
            }
            // Too late, or the owner is gone without an answer: it may have happened.
            Some(Err(oneshot::Canceled)) | None => Try::Done(Err(AppendError::Unknown)),
        }
    }

    async fn append_at(
        &self,
        node: NodeId,
        append: Append,
        left: Duration,
    ) -> Try<Result<Appended, AppendError>> {
        let timeout = left.min(self.config.peer_timeout);
        match self.env.network().call(node, Request::Append(append), timeout).await {
            Ok(Response::Append(Err(AppendError::NotOwner { hint }))) => Try::Redirect(hint),
            Ok(Response::Append(result)) => Try::Done(result),
            Err(CallError::Refused) => Try::Redirect(None),
            Ok(_) | Err(CallError::Unknown) => Try::Done(Err(AppendError::Unknown)),
        }
    }

    async fn read(
        &self,
        read: ReadStream,
        timeout: Duration,
        origin: Origin,
    ) -> Result<StreamSlice, ReadError> {
        if read.freshness == Freshness::Eventual {
            return match within(self.env.clock(), timeout, self.read_stored(&read)).await {
                Some(result) => result,
                None => Err(ReadError::Unavailable),
            };
        }
        match self.at_owner(&Question::Read(read), timeout, origin).await {
            Ok(Response::ReadStream(answer)) => answer,
            Err(hint) if origin == Origin::Peer => Err(ReadError::NotOwner { hint }),
            Ok(_) | Err(_) => Err(ReadError::Unavailable),
        }
    }

    async fn read_here(
        &self,
        owner: Door,
        read: &ReadStream,
        left: Duration,
    ) -> Try<Result<StreamSlice, ReadError>> {
        let (reply, answer) = oneshot::channel();
        match owner.offer(Ask::Read(read.stream.clone(), range(read), reply)) {
            Ok(()) => {}
            Err(Shut::Gone) => return Try::Redirect(None),
            Err(Shut::Full) => {
                return Try::Done(Err(ReadError::Busy { retry_after: self.config.retry_after }));
            }
        }
        let granted = async {
            match answer.await {
                Ok(Ok(grant)) => Try::Done(self.finish(read, grant).await),
                Ok(Err(ReadError::NotOwner { hint })) => Try::Redirect(hint),
                Ok(Err(error)) => Try::Done(Err(error)),
                Err(oneshot::Canceled) => Try::Redirect(None),
            }
        };
        let answer = within(self.env.clock(), left, granted).await;
        answer.unwrap_or(Try::Done(Err(ReadError::Unavailable)))
    }

    async fn read_at(
        &self,
        node: NodeId,
        read: &ReadStream,
        left: Duration,
    ) -> Try<Result<StreamSlice, ReadError>> {
        let timeout = left.min(self.config.peer_timeout);
        match self.env.network().call(node, Request::ReadStream(read.clone()), timeout).await {
            Ok(Response::ReadStream(Err(ReadError::NotOwner { hint }))) => Try::Redirect(hint),
            Ok(Response::ReadStream(result)) => Try::Done(result),
            Ok(_) | Err(CallError::Refused | CallError::Unknown) => Try::Redirect(None),
        }
    }

    /// Joins what the store has with the owner's tail: everything below the tail is in the store.
    async fn finish(&self, read: &ReadStream, grant: Grant) -> Result<StreamSlice, ReadError> {
        let Grant { shown, tail } = grant;
        let Some((low, high)) = range(read).within(&shown) else {
            return Ok(slice(read, shown, None, Vec::new()));
        };
        let below = tail.first().map_or(high + 1, |e| e.revision);
        let mut events = Vec::new();
        if low < below {
            let count = (below - low).min(u64::from(read.limit)) as u32;
            let mut backoff = Backoff::new(&self.config);
            loop {
                let stored = self.env.store().events(
                    &read.stream,
                    low,
                    count,
                    Direction::Forwards,
                    Freshness::Strong,
                );
                match stored.await {
                    Ok(stored) => {
                        events = stored;
                        break;
                    }
                    Err(_) => backoff.pause(self.env.clock()).await,
                }
            }
            // Rows above the head belong to a later state than the one that was granted.
            events.retain(|e| e.revision < below);
        }
        events.extend(tail);
        events.retain(|e| e.time >= shown.oldest);
        if read.direction == Direction::Backwards {
            events.reverse();
        }
        Ok(slice(read, shown, Some((low, high)), events))
    }

    async fn read_stored(&self, read: &ReadStream) -> Result<StreamSlice, ReadError> {
        let (store, now) = (self.env.store(), self.env.clock().now());
        let unavailable = |_| ReadError::Unavailable;
        let described = read.stream.described();
        let head = store.head(&described, Freshness::Eventual).await.map_err(unavailable)?;
        let shown = Shown::of(head.as_ref(), &read.stream, now);
        let Some((low, high)) = range(read).within(&shown) else {
            return Ok(slice(read, shown, None, Vec::new()));
        };
        let (from, limit) = match read.direction {
            Direction::Forwards => (low, high - low + 1),
            Direction::Backwards => (high, high - low + 1),
        };
        let (stream, direction) = (&read.stream, read.direction);
        let events = store.events(stream, from, limit as u32, direction, Freshness::Eventual).await;
        let mut events = events.map_err(unavailable)?;
        // One replica may have a row and not the one before it.
        let expected = |n: u64| match direction {
            Direction::Forwards => low.checked_add(n),
            Direction::Backwards => high.checked_sub(n),
        };
        let gapless = (0..).zip(&events).take_while(|(n, e)| expected(*n) == Some(e.revision));
        let gapless = gapless.count();
        events.truncate(gapless);
        let covered = events.last().map(|last| match direction {
            Direction::Forwards => (low, last.revision),
            Direction::Backwards => (last.revision, high),
        });
        events.retain(|e| e.time >= shown.oldest);
        Ok(slice(read, shown, covered, events))
    }

    async fn read_log(&self, read: ReadLog, timeout: Duration) -> Result<LogSlice, ReadError> {
        let (env, stats) = (self.env.clone(), self.stats.clone());
        let mut reader = LogReader::behind(env, stats, read.shard, read.after);
        let retry_after = self.config.retry_after;
        let step = match within(self.env.clock(), timeout, reader.step()).await {
            Some(Ok(step)) => step,
            Some(Err(StepError::Read(ReadLogError::Throttled))) => {
                return Err(ReadError::Busy { retry_after });
            }
            Some(Err(StepError::Read(ReadLogError::Trimmed))) => return Err(ReadError::Trimmed),
            Some(Err(error)) => {
                if error.is_lasting() {
                    tracing::error!(node = %self.node, shard = %read.shard, %error, "the log cannot be read");
                }
                return Err(ReadError::Unavailable);
            }
            None => return Err(ReadError::Unavailable),
        };
        let mut events = Vec::new();
        for (_, entry) in &step.accepted {
            if let Entry::Batch(batch) = entry {
                for (time, append) in batch.timed() {
                    events.extend(append.recorded(batch.shard, time));
                }
            }
        }
        Ok(LogSlice { events, next: reader.checkpoint().clone() })
    }

    /// One try of a question at an owner.
    async fn attempt(&self, question: &Question, owner: Owner, left: Duration) -> Try<Response> {
        match (question, owner) {
            (_, Owner::Nowhere) => Try::Redirect(None),
            (Question::Append(append), Owner::Here(owner)) => {
                self.append_here(owner, append.clone(), left).await.map(Response::Append)
            }
            (Question::Append(append), Owner::At(node)) => {
                self.append_at(node, append.clone(), left).await.map(Response::Append)
            }
            (Question::Read(read), Owner::Here(owner)) => {
                self.read_here(owner, read, left).await.map(Response::ReadStream)
            }
            (Question::Read(read), Owner::At(node)) => {
                self.read_at(node, read, left).await.map(Response::ReadStream)
            }
        }
    }

    /// Tries at the owner of the stream's shard until one answers or the time is over. `Err`: no owner answered;
    /// the last hint.
    async fn at_owner(
        &self,
        question: &Question,
        timeout: Duration,
        origin: Origin,
    ) -> Result<Response, Option<NodeId>> {
        let key = match question {
            Question::Append(append) => append.stream.key(),
            Question::Read(read) => read.stream.key(),
        };
        let clock = self.env.clock();
        let deadline = clock.elapsed() + timeout;
        let mut backoff = Backoff::new(&self.config);
        // A hint is followed at once, but two nodes may each name the other: then wait, and look again.
        let mut hints_left = 2u32;
        loop {
            let (shard, owner) = self.find(key, origin).await;
            let left = deadline.saturating_sub(clock.elapsed());
            if left.is_zero() {
                return Err(None);
            }
            let hint = match self.attempt(question, owner, left).await {
                Try::Done(answer) => return Ok(answer),
                Try::Redirect(hint) => hint,
            };
            if origin == Origin::Peer {
                return Err(shard.and_then(|s| self.routes().owners.get(&s).copied()));
            }
            self.stats.count(Counter::Redirects);
            let hint = hint.filter(|node| *node != self.node);
            if let Some(shard) = shard {
                match hint {
                    Some(node) => self.routes().owners.insert(shard, node),
                    None => self.routes().owners.remove(&shard),
                };
            }
            if hint.is_some() && hints_left > 0 {
                hints_left -= 1;
            } else {
                hints_left = 2;
                backoff.pause(clock).await;
            }
        }
    }

    /// Finds the owner of a key: among the shards served here, in the cache, or in the store.
    async fn find(&self, key: u128, origin: Origin) -> (Option<ShardId>, Owner) {
        let shards = self.routes().shards.clone();
        let Some(shard) = shard::holder(&shards, key).map(|s| s.id) else {
            if self.may_look(None) {
                self.refresh_shards().await;
            }
            return (None, Owner::Nowhere);
        };
        {
            let routes = self.routes();
            if let Some(owner) = routes.here.get(&shard) {
                return (Some(shard), Owner::Here(owner.clone()));
            }
            if origin == Origin::Peer {
                return (Some(shard), Owner::Nowhere);
            }
            match routes.owners.get(&shard) {
                Some(node) if *node != self.node => return (Some(shard), Owner::At(*node)),
                _ => {}
            }
        }
        // No owner is cached: perhaps the shard is gone, too. One request looks for all that wait.
        if !self.may_look(Some(shard)) {
            return (Some(shard), Owner::Nowhere);
        }
        self.refresh_shards().await;
        match self.env.store().epoch(shard).await {
            Ok(row) => match row.owner {
                Some((node, _)) if node != self.node => {
                    self.routes().owners.insert(shard, node);
                    (Some(shard), Owner::At(node))
                }
                _ => (Some(shard), Owner::Nowhere),
            },
            Err(_) => (Some(shard), Owner::Nowhere),
        }
    }

    /// Whether the owner of a shard may be looked up now: not more often than `look_every`, however many
    /// requests wait for it. Services are not to be asked the more, the worse they are.
    fn may_look(&self, shard: Option<ShardId>) -> bool {
        let now = self.env.clock().elapsed();
        let mut routes = self.routes();
        let due = routes.looked.get(&shard).is_none_or(|at| now >= *at + self.config.look_every);
        if due {
            routes.looked.insert(shard, now);
        }
        due
    }

    /// Lists the shards anew. Whether the log answered.
    pub(crate) async fn refresh_shards(&self) -> bool {
        match self.env.log().shards().await {
            Ok(shards) => {
                self.routes().shards = Arc::new(shards);
                true
            }
            Err(_) => false,
        }
    }

    /// The routes. A panic elsewhere while they were held leaves them usable: every entry is a hint.
    pub(crate) fn routes(&self) -> std::sync::MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
