//! A consumer that is connected: it is given events of its group as long as it has slots for them, and says by their ids what became
//! of each.
//!
//! - It never holds more events than it has slots. Of what it takes slowly, one page waits here.
//! - It never stops silently: nodes that cannot be reached and units that change hands are waited for, and every end is
//!   told, [`Ended`].
//! - When it is gone, it leaves, and what it holds is given to others at once.
//! - What it says too late, of an event that is with another by then, is dropped, and nothing else.

use std::{
    collections::{BTreeMap, VecDeque},
    future::pending,
    time::Duration,
};

use futures::{
    FutureExt, Stream, StreamExt,
    future::{BoxFuture, Fuse},
    stream::{BoxStream, FuturesUnordered},
};
use stormkeep_core::{
    consume::{
        ConsumeError, ConsumerId, Fetch, Fetched, Leave, ManageError, Settle, Unit, Verdict,
    },
    env::Env,
    event::RecordedEvent,
    group::{GroupId, Settings},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{page::Pager, service::Service};

mod held;

use held::{Held, Place};

/// How long one fetch waits for events, and so how long it takes at the most until a deleted group is missed.
const WAIT: Duration = Duration::from_secs(2);
/// How long a fetch, or anything else, may take besides.
const CALL_WITHIN: Duration = Duration::from_secs(10);
/// How long a group may take to be worked on before its consumer is taken for connected all the same: without having been
/// counted among those that there may be.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// For how long units may refuse a consumer that had a place: longer than one that was refused, and could not say that it left, is
/// taken for connected.
const REFUSED_WITHIN: Duration = Duration::from_secs(12);
/// How long to wait before a fetch is tried again that could not be done.
const RETRY: Duration = Duration::from_millis(100);
/// A consumer that has no slot free shows this often that it is there, so that it keeps its place in the group.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// How long ago the group may have been looked at when events are taken for overdue.
const LOOKED_WITHIN: Duration = Duration::from_secs(5);
/// Verdicts that are on their way at a time, in batches as they came. Beyond, no more are heard.
const SETTLING_MAX: usize = 64;
/// How long verdicts may be on their way when the consumer is gone.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// A fetch that is under way at a peer when its consumer goes is over by then.
const FETCH_ENDS: Duration = Duration::from_secs(1);

/// An event, and how often it has failed before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The event.
    pub event: RecordedEvent,
    /// How often it has failed before; 0 the first time.
    pub retries: u32,
}

/// What a consumer says of events, by their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Which events.
    pub ids: Vec<u128>,
    /// What became of them.
    pub verdict: Verdict,
}

/// Why a consumer is given no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// There is no such group, or none any more.
    #[error("there is no such group: create it first")]
    NoSuchGroup,
    /// Its events are pushed to a handler.
    #[error("the events of the group are pushed to a handler; nobody fetches them")]
    Pushed,
    /// As many consumers as it may have are there.
    #[error("{0} consumers are there, the most that the group's settings allow")]
    TooManyConsumers(u32),
    /// It asked to stop.
    #[error("the consumer has asked to stop")]
    Stopped,
    /// What it said makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The server closes: consume again, at another node or later.
    #[error("the server is closing: subscribe again")]
    Closing,
}

/// Connects a consumer with so many slots. What it says is heard until it falls silent, which means that it can settle
/// nothing any more; what it is told must be taken by it, and it leaves when that is dropped.
pub async fn consume<E: Env>(
    service: Service<E>,
    group: GroupId,
    slots: u32,
    said: impl Stream<Item = Result<Said, String>> + Send + 'static,
) -> Result<impl Stream<Item = Result<Delivered, Ended>> + Send + 'static, Ended> {
    let consumer = ConsumerId(uuid::Uuid::new_v4().as_u128());
    let closing = service.closing();
    let mut session = Session {
        service,
        group,
        consumer,
        held: Held::new(slots),
        said: Some(said.boxed()),
        outbox: VecDeque::new(),
        pager: Pager::default(),
        fetching: Fuse::terminated(),
        is_fetching: false,
        asked_at: Instant::now(),
        refused_since: None,
        settling: FuturesUnordered::new(),
        looking: Fuse::terminated(),
        is_looking: false,
        looked_at: Instant::now(),
        message_timeout: Settings::default().message_timeout,
    };
    if let Err(ended) = session.hello().await {
        // Some units may have taken it in before one refused it.
        let leave = Leave { group: session.group, consumer };
        let _ = session.service.leave(leave, CALL_WITHIN).await;
        return Err(ended);
    }
    let (told, receiver) = mpsc::channel(1);
    tokio::spawn(session.run(told, closing));
    Ok(tokio_stream::wrappers::ReceiverStream::new(receiver))
}

type Fetching = Fuse<BoxFuture<'static, Result<Fetched, ConsumeError>>>;
type Looking = Fuse<BoxFuture<'static, Result<Duration, ManageError>>>;
type Told = mpsc::Sender<Result<Delivered, Ended>>;

struct Session<E: Env> {
    service: Service<E>,
    group: GroupId,
    consumer: ConsumerId,
    held: Held,
    /// `None`: it has fallen silent, and is given nothing more.
    said: Option<BoxStream<'static, Result<Said, String>>>,
    /// What it is to be told.
    outbox: VecDeque<(Place, u64, Delivered)>,
    pager: Pager,
    /// Never dropped while it is under way: what it gave would be with nobody.
    fetching: Fetching,
    is_fetching: bool,
    asked_at: Instant,
    /// Since when units have refused it that it had a place in.
    refused_since: Option<Instant>,
    /// Each ends with how many slots it frees.
    settling: FuturesUnordered<BoxFuture<'static, usize>>,
    looking: Looking,
    is_looking: bool,
    looked_at: Instant,
    message_timeout: Duration,
}

/// Verdicts on events of one unit, and how many slots they free.
#[derive(Default)]
struct Batch {
    frees: usize,
    verdicts: Vec<(u64, u64, Verdict)>,
}

impl<E: Env> Session<E> {
    /// Shows itself, without taking anything, so that what cannot be is told at once.
    async fn hello(&mut self) -> Result<(), Ended> {
        match self.look().await {
            Ok(timeout) => self.message_timeout = timeout,
            Err(ManageError::NoSuchGroup(_)) => return Err(Ended::NoSuchGroup),
            // The store is slow: the default will do until it is looked at again.
            Err(_) => {}
        }
        let late = Instant::now() + HELLO_WITHIN;
        loop {
            match self.fetch(0, Duration::ZERO, Duration::ZERO).await {
                // It may have been made just now.
                Err(ConsumeError::NotHolder { .. } | ConsumeError::Unavailable)
                    if Instant::now() < late =>
                {
                    sleep(RETRY).await;
                }
                Err(ConsumeError::TooManyConsumers { consumers_max }) => {
                    return Err(Ended::TooManyConsumers(consumers_max));
                }
                fetched => return self.fetched(fetched),
            }
        }
    }

    async fn run(mut self, told: Told, mut closing: watch::Receiver<bool>) {
        let ended = loop {
            match self.step(&told, &mut closing).await {
                Ok(true) => {}
                Ok(false) => break None,
                Err(ended) => break Some(ended),
            }
        };
        let was_fetching = self.is_fetching;
        self.fetching = Fuse::terminated();
        let Session { service, group, consumer, mut settling, .. } = self;
        // In the middle of nothing: what was said before still counts.
        let _ = timeout(LAST_WORDS, async { while settling.next().await.is_some() {} }).await;
        let leave = Leave { group, consumer };
        // Whoever is not told gives the events again when they are overdue.
        let _ = service.leave(leave.clone(), CALL_WITHIN).await;
        if let Some(ended) = ended {
            // It may be gone.
            let _ = told.send(Err(ended)).await;
        }
        if was_fetching {
            sleep(FETCH_ENDS).await;
            let _ = service.leave(leave, CALL_WITHIN).await;
        }
    }

    /// Does the next thing that is to be done. False: the consumer is gone.
    async fn step(
        &mut self,
        told: &Told,
        closing: &mut watch::Receiver<bool>,
    ) -> Result<bool, Ended> {
        self.begin_fetch();
        let due = self.held.due(self.message_timeout).filter(|_| !self.is_looking);
        let rests = !self.is_fetching && self.said.is_some();
        let shows = rests.then(|| self.asked_at + SIGN_OF_LIFE);
        let wake = due.into_iter().chain(shows).min();
        let timer = async {
            match wake {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        let hears = self.settling.len() < SETTLING_MAX;
        let said = &mut self.said;
        let heard = async {
            match said {
                Some(said) if hears => said.next().await,
                _ => pending().await,
            }
        };
        let closes = async {
            let _ = closing.wait_for(|closing| *closing).await;
        };
        let has_more = !self.outbox.is_empty();
        tokio::select! {
            biased;
            () = closes => return Err(Ended::Closing),
            heard = heard => self.hear(heard).await?,
            () = told.closed() => return Ok(false),
            Some(freed) = self.settling.next() => self.held.free(freed),
            permit = told.reserve(), if has_more => match permit {
                Ok(permit) => self.tell(permit),
                Err(_) => return Ok(false),
            },
            fetched = &mut self.fetching, if self.is_fetching => {
                self.is_fetching = false;
                self.fetched(fetched)?;
            }
            looked = &mut self.looking, if self.is_looking => {
                self.is_looking = false;
                self.looked_at = Instant::now();
                self.message_timeout = looked.unwrap_or(self.message_timeout);
            }
            () = timer => self.expire(),
        }
        Ok(true)
    }

    /// Asks for events, if there is room for them and nobody has to take others first; or just shows itself, if it is time.
    fn begin_fetch(&mut self) {
        let room = if self.outbox.is_empty() { self.held.room() } else { 0 };
        let shows = self.asked_at.elapsed() >= SIGN_OF_LIFE;
        if self.is_fetching || self.said.is_none() || (room == 0 && !shows) {
            return;
        }
        let max = room.min(self.pager.limit());
        let wait = if max == 0 { Duration::ZERO } else { WAIT };
        self.fetching = self.fetch(max, wait, Duration::ZERO).fuse();
        self.is_fetching = true;
    }

    fn fetch(
        &self,
        max: u32,
        wait: Duration,
        pause: Duration,
    ) -> BoxFuture<'static, Result<Fetched, ConsumeError>> {
        let (service, group, consumer) = (self.service.clone(), self.group.clone(), self.consumer);
        async move {
            sleep(pause).await;
            service.fetch(Fetch { group, consumer, max, wait }, wait + CALL_WITHIN).await
        }
        .boxed()
    }

    fn fetched(&mut self, fetched: Result<Fetched, ConsumeError>) -> Result<(), Ended> {
        let now = Instant::now();
        self.asked_at = now;
        if fetched.is_ok() {
            self.refused_since = None;
        }
        match fetched {
            Ok(Fetched { unit: Some(unit), events }) => {
                let bytes = events.iter().map(|given| given.event.event.bytes()).sum();
                self.pager.read(bytes, events.len());
                for given in events {
                    let (place, id) = ((unit, given.place), given.event.event.id.0);
                    self.held.given(place, given.delivery, id, now);
                    let delivered = Delivered { event: given.event, retries: given.retries };
                    self.outbox.push_back((place, given.delivery, delivered));
                }
                Ok(())
            }
            Ok(Fetched { unit: None, .. }) => Ok(()),
            Err(ConsumeError::NoSuchGroup(_)) => Err(Ended::NoSuchGroup),
            Err(ConsumeError::Pushed(_)) => Err(Ended::Pushed),
            Err(ConsumeError::TooManyConsumers { consumers_max })
                if self.refused_since.get_or_insert(now).elapsed() >= REFUSED_WITHIN =>
            {
                Err(Ended::TooManyConsumers(consumers_max))
            }
            // Its units are on their way from one node to another, or a node is on its way up, or one that was refused elsewhere
            // has its place for a moment.
            Err(
                ConsumeError::NotHolder { .. }
                | ConsumeError::Unavailable
                | ConsumeError::TooManyConsumers { .. },
            ) => {
                let room = if self.outbox.is_empty() { self.held.room() } else { 0 };
                let max = room.min(self.pager.limit());
                self.fetching = self.fetch(max, WAIT, RETRY).fuse();
                self.is_fetching = true;
                Ok(())
            }
        }
    }

    fn tell(&mut self, permit: mpsc::Permit<'_, Result<Delivered, Ended>>) {
        while let Some((place, delivery, delivered)) = self.outbox.pop_front() {
            // One that waited here for too long is with others.
            if self.held.is_current(place, delivery) {
                return permit.send(Ok(delivered));
            }
        }
    }

    async fn hear(&mut self, said: Option<Result<Said, String>>) -> Result<(), Ended> {
        let Said { ids, verdict } = match said {
            Some(Ok(said)) => said,
            Some(Err(why)) => return Err(Ended::Invalid(why)),
            None => {
                self.fall_silent().await;
                return Ok(());
            }
        };
        if verdict == Verdict::Stop {
            return Err(Ended::Stopped);
        }
        let mut units: BTreeMap<Unit, Batch> = BTreeMap::new();
        for taken in ids.into_iter().filter_map(|id| self.held.take(id)) {
            let (unit, place) = taken.place;
            let batch = units.entry(unit).or_default();
            batch.frees += usize::from(taken.takes);
            batch.verdicts.push((place, taken.delivery, verdict.clone()));
        }
        for (unit, Batch { frees, verdicts }) in units {
            let (group, consumer) = (self.group.clone(), self.consumer);
            let settle = Settle { group, consumer, unit, verdicts };
            let service = self.service.clone();
            self.settling.push(
                async move {
                    // If nobody has it, the events are given again, and this consumer is as free as if it had counted.
                    let _ = service.settle(settle, CALL_WITHIN).await;
                    frees
                }
                .boxed(),
            );
        }
        Ok(())
    }

    /// It can settle nothing any more: others are given what it holds. Its call goes on until it is gone, since it may take the
    /// end of it for a fault.
    async fn fall_silent(&mut self) {
        self.said = None;
        self.outbox.clear();
        self.held = Held::new(0);
        while self.settling.next().await.is_some() {}
        self.fetching = Fuse::terminated();
        let leave = Leave { group: self.group.clone(), consumer: self.consumer };
        let _ = self.service.leave(leave.clone(), CALL_WITHIN).await;
        if std::mem::take(&mut self.is_fetching) {
            sleep(FETCH_ENDS).await;
            let _ = self.service.leave(leave, CALL_WITHIN).await;
        }
    }

    /// Some may be overdue; if the group says so.
    fn expire(&mut self) {
        let now = Instant::now();
        if self.held.due(self.message_timeout).is_none_or(|due| due > now) {
            return;
        }
        if self.looked_at.elapsed() > LOOKED_WITHIN {
            self.looking = self.look().fuse();
            self.is_looking = true;
        } else {
            self.held.expire(self.message_timeout, now);
        }
    }

    /// How long the group gives its consumers over an event.
    fn look(&self) -> BoxFuture<'static, Result<Duration, ManageError>> {
        let (service, group) = (self.service.clone(), self.group.clone());
        async move { Ok(service.group(&group, CALL_WITHIN).await?.settings.message_timeout) }
            .boxed()
    }
}
