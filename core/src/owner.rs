//! The driver of one owned shard: connects the [`Sequencer`] to the log and the store.
//!
//! One put is in flight, and beside it one epoch check for what is confirmed already; what arrives
//! meanwhile is the next batch. Everything that waits is bounded: the queue by its capacity, the
//! questions that wait for a head by the same number, the tail by the sequencer.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{
    FutureExt, StreamExt,
    channel::{mpsc, oneshot},
    future::{BoxFuture, Fuse},
    select_biased,
    stream::FuturesUnordered,
};
use tracing::{debug, info};

use crate::{
    append::{Append, AppendError, Appended, Freshness, Outcome, ReadError},
    ask::{Ask, Grant, Range, shut},
    config::Config,
    entry::Batch,
    env::{Clock, Env, EpochRow, Log, NodeId, Position, PutError, Store},
    head::Head,
    shard::{
        ShardId, ShardInfo,
        sequencer::{Answer, Check, Offer, Sequencer},
    },
    stats::{Counter, Stats},
    stream::StreamName,
    takeover::Taken,
    time::{HybridTime, WallTime},
    wait::{Backoff, may_linger},
};

/// What an owner is told from its own node.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Control {
    /// The store has all entries up to this accepted count.
    Materialized(u64),
    /// Finish what is under way, then let the shard go.
    Release,
    /// The store has this row for the shard: it may have moved on.
    Seen(EpochRow),
    /// Some shard has closed this time. If the clocks there are ahead, the others must follow, or nobody who reads all
    /// shards would see what is there until their own clocks say the same.
    Passed(HybridTime),
}

/// How an epoch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Let go in good order.
    Released,
    /// Another owner took it.
    Fenced,
    /// The shard is closed.
    Closed,
}

/// What the sequencer keeps with a question.
enum Ticket {
    Append(oneshot::Sender<Result<Appended, AppendError>>),
    Read { stream: StreamName, range: Range, reply: oneshot::Sender<Result<Grant, ReadError>> },
}

pub(crate) struct Owner<E: Env> {
    env: Arc<E>,
    node: NodeId,
    config: Arc<Config>,
    stats: Arc<Stats>,
    shard: ShardInfo,
    row: EpochRow,
    last: Option<Position>,
    sequencer: Sequencer<Ticket>,
    /// A reader of all shards waits for the time to be closed up to here.
    close: HybridTime,
    /// The newest time that any shard has closed, as far as this one knows.
    passed: HybridTime,
    /// Questions that the open batch had no room for, in order of arrival. More than one, when several
    /// waited for the same head.
    stalled: VecDeque<Ask>,
    /// Questions that wait for the head of their stream, in order of arrival; the key is no metadata stream.
    cold: BTreeMap<StreamName, Vec<Ask>>,
    cold_count: usize,
}

type Loads = FuturesUnordered<BoxFuture<'static, (StreamName, Option<Head>)>>;

impl<E: Env> Owner<E> {
    /// Takes a shard, and returns the owner that serves it.
    pub(crate) async fn take(
        takeover: &crate::takeover::Takeover<'_, E>,
        config: Arc<Config>,
        shard: ShardInfo,
        ancestors: &BTreeSet<ShardId>,
        seen: EpochRow,
    ) -> Result<Self, crate::takeover::NotTaken> {
        let Taken { row, sequencer, last } = takeover.take(&shard, ancestors, seen).await?;
        Ok(Owner {
            env: takeover.env.clone(),
            node: takeover.me.0,
            config,
            stats: takeover.stats.clone(),
            shard,
            row,
            last,
            sequencer,
            close: HybridTime::default(),
            passed: HybridTime::default(),
            stalled: VecDeque::new(),
            cold: BTreeMap::new(),
            cold_count: 0,
        })
    }

    /// The epoch that it serves.
    pub(crate) fn row(&self) -> EpochRow {
        self.row
    }

    /// The time that its shard is closed up to.
    pub(crate) fn closes(&self) -> HybridTime {
        self.sequencer.closes()
    }

    /// Serves until the epoch ends, and answers everything that waits. `confirmed` is called with each batch that the log
    /// has for its readers.
    pub(crate) async fn serve(
        mut self,
        requests: &mut mpsc::Receiver<Ask>,
        control: &mut mpsc::UnboundedReceiver<Control>,
        confirmed: impl Fn(&Batch),
    ) -> Ended {
        let env = self.env.clone();
        let clock = env.clock();
        let mut put: Fuse<BoxFuture<'static, PutEnd>> = Fuse::terminated();
        let mut put_began = Duration::ZERO;
        // And when it began.
        let mut checking: Option<(Check, Duration)> = None;
        let mut check: Fuse<BoxFuture<'static, EpochRow>> = Fuse::terminated();
        let mut loads = Loads::new();
        let mut idle = clock.sleep(self.config.close_after).boxed().fuse();
        let mut releasing = false;

        let ended = loop {
            if let Some(bytes) = self.sequencer.seal() {
                put_began = clock.elapsed();
                put = self.put(bytes).fuse();
            } else if self.sequencer.closes() < self.close
                && let Some(bytes) = self.sequencer.seal_empty(self.close_at())
            {
                put = self.put(bytes).fuse();
            }
            self.retry_stalled(&mut loads);
            if checking.is_none()
                && let Some(begun) = self.sequencer.begin_check()
            {
                checking = Some((begun, clock.elapsed()));
                check = self.check().fuse();
            }
            if releasing && self.sequencer.is_idle() && self.cold_count == 0 {
                break Ended::Released;
            }
            let takes_requests = self.has_room() && !releasing;

            select_biased! {
                told = control.select_next_some() => match told {
                    Control::Materialized(accepted) => self.sequencer.materialized(accepted),
                    Control::Release => {
                        releasing = true;
                        shut(requests);
                    }
                    Control::Passed(time) => {
                        if time.0 > clock.now().0 && time > self.passed {
                            self.stats.count(Counter::TimesRaised);
                        }
                        self.passed = self.passed.max(time);
                    }
                    // What was seen before this epoch began says nothing.
                    Control::Seen(row) if row.epoch < self.row.epoch || row == self.row => {}
                    Control::Seen(_) => break Ended::Fenced,
                },
                row = check => {
                    if row != self.row {
                        self.stats.count(Counter::ZombiesFenced);
                        info!(node = %self.node, shard = %self.shard.id, epoch = self.row.epoch, now = row.epoch, "fenced");
                        break Ended::Fenced;
                    }
                    self.stats.count(Counter::ChecksPassed);
                    if let Some((begun, at)) = checking.take() {
                        let appends = self.answer(begun);
                        self.took(Counter::AppendCheckMicros, at, appends);
                    }
                },
                end = put => match end {
                    PutEnd::Confirmed(position) => {
                        debug!(node = %self.node, shard = %self.shard.id, epoch = self.row.epoch, %position, "confirmed");
                        self.last = self.last.max(Some(position));
                        if let Some(batch) = self.sequencer.confirmed() {
                            self.took(Counter::AppendPutMicros, put_began, batch.appends.len());
                            confirmed(&batch);
                        }
                        idle = clock.sleep(self.config.close_after).boxed().fuse();
                    }
                    PutEnd::Closed => break Ended::Closed,
                },
                (stream, head) = loads.select_next_some() => {
                    self.stats.count(Counter::HeadsLoaded);
                    self.sequencer.load(stream.clone(), head);
                    for ask in self.cold.remove(&stream).unwrap_or_default() {
                        self.cold_count -= 1;
                        self.ask(ask, &mut loads);
                    }
                },
                ask = next_if(takes_requests, requests).fuse() => match ask {
                    Some(ask) => {
                        self.ask(ask, &mut loads);
                        // Whatever else has arrived belongs to the same batch.
                        while self.has_room() {
                            let Ok(ask) = requests.try_recv() else { break };
                            self.ask(ask, &mut loads);
                        }
                    }
                    None => break Ended::Released,
                },
                () = idle => {
                    if let Some(bytes) = self.sequencer.seal_empty(self.wall()) {
                        put = self.put(bytes).fuse();
                    }
                    idle = clock.sleep(self.config.close_after).boxed().fuse();
                },
            }
        };
        self.step_down(ended, requests);
        ended
    }

    /// The time of the next batch, unless it must be a later one.
    fn wall(&self) -> WallTime {
        WallTime(self.env.clock().now().0.max(self.passed.0))
    }

    /// The time of a batch that closes what a reader waits for.
    fn close_at(&self) -> WallTime {
        WallTime(self.wall().0.max(self.close.0))
    }

    /// Whether another question may be taken: all that wait are bounded, whatever they wait for.
    fn has_room(&self) -> bool {
        self.stalled.is_empty()
            && self.cold_count + self.sequencer.waiting() < self.config.queue_max
    }

    /// Puts a question to the sequencer, behind those that wait for the next batch.
    fn ask(&mut self, ask: Ask, loads: &mut Loads) {
        if !self.stalled.is_empty() {
            return self.stalled.push_back(ask);
        }
        if let Some(stream) = ask.stream_if_waiting(&self.cold) {
            return self.park(stream, ask);
        }
        match ask {
            Ask::Close(time) => self.close = self.close.max(time),
            Ask::Append(_, reply) if reply.is_canceled() => {}
            Ask::Append(append, reply) => {
                let wall = self.wall();
                match self.sequencer.append(wall, append, Ticket::Append(reply)) {
                    Offer::Taken => {}
                    Offer::NeedsHead((append, ticket)) => {
                        let stream = append.stream.described();
                        loads.push(self.load(stream.clone()));
                        self.park(stream, ask_again(append, ticket));
                    }
                    Offer::Full((append, ticket)) => {
                        self.stalled.push_back(ask_again(append, ticket));
                    }
                    Offer::Busy((_, ticket)) => {
                        self.stats.count(Counter::AppendsShed);
                        let retry_after = self.config.retry_after;
                        ticket.append(Err(AppendError::Busy { retry_after }));
                    }
                }
            }
            Ask::Read(stream, range, reply) => {
                let wall = self.env.clock().now();
                let ticket = Ticket::Read { stream: stream.clone(), range, reply };
                if let Offer::NeedsHead(Ticket::Read { stream, range, reply }) =
                    self.sequencer.read(wall, &stream, ticket)
                {
                    loads.push(self.load(stream.described()));
                    self.park(stream.described(), Ask::Read(stream, range, reply));
                }
            }
        }
    }

    fn retry_stalled(&mut self, loads: &mut Loads) {
        let mut stalled = std::mem::take(&mut self.stalled);
        while self.stalled.is_empty()
            && let Some(ask) = stalled.pop_front()
        {
            self.ask(ask, loads);
        }
        self.stalled.append(&mut stalled);
    }

    fn park(&mut self, stream: StreamName, ask: Ask) {
        self.cold.entry(stream).or_default().push(ask);
        self.cold_count += 1;
    }

    /// Counts the time since `began` for so many appends.
    fn took(&self, counter: Counter, began: Duration, appends: usize) {
        let took = self.env.clock().elapsed().saturating_sub(began);
        self.stats.add(counter, took.as_micros() as u64 * appends as u64);
    }

    /// Gives the answers that a check releases. Returns how many appends were answered.
    fn answer(&mut self, check: Check) -> usize {
        let mut appends = 0;
        let answers: Vec<(Ticket, Answer)> = self.sequencer.passed(check).collect();
        for (ticket, answer) in answers {
            match (ticket, answer) {
                (Ticket::Append(reply), Answer::Append(result)) => {
                    appends += 1;
                    self.stats.count(match &result {
                        Ok(appended) if appended.repeated => Counter::AppendsRepeated,
                        Ok(_) => Counter::AppendsCommitted,
                        Err(_) => Counter::AppendsWrongRevision,
                    });
                    let _ = reply.send(result);
                }
                (Ticket::Read { stream, range, reply }, Answer::Shown(shown)) => {
                    let kept = |(low, high)| self.sequencer.tail(&stream, low, high);
                    let tail = range.within(&shown).map_or(Vec::new(), kept);
                    let _ = reply.send(Ok(Grant { shown, tail }));
                }
                _ => debug_assert!(false, "a ticket and its answer are of one kind"),
            }
        }
        appends
    }

    /// Puts a batch until it is confirmed: the identical bytes, so that the accept rule drops repeats.
    fn put(&self, bytes: Bytes) -> BoxFuture<'static, PutEnd> {
        let (env, stats, config) = (self.env.clone(), self.stats.clone(), self.config.clone());
        let (shard, last) = (self.shard.clone(), self.last);
        async move {
            let mut backoff = Backoff::new(&config);
            may_linger(env.clock(), "owner: before the put", config.retry_max).await;
            loop {
                match env.log().put(&shard, last, bytes.clone()).await {
                    Ok(put) if put.shard == shard.id => {
                        stats.count(Counter::BatchesPut);
                        return PutEnd::Confirmed(put.position);
                    }
                    Ok(_) => {
                        stats.count(Counter::PutsMisplaced);
                        return PutEnd::Closed;
                    }
                    Err(PutError::Refused(reason)) => {
                        tracing::error!(shard = %shard.id, reason, "the log refuses a batch");
                        return PutEnd::Closed;
                    }
                    Err(PutError::Throttled) => stats.count(Counter::PutsThrottled),
                    Err(PutError::Unknown) => stats.count(Counter::PutsUnknown),
                }
                backoff.pause(env.clock()).await;
            }
        }
        .boxed()
    }

    /// Reads the epoch row until the store answers.
    fn check(&self) -> BoxFuture<'static, EpochRow> {
        let (env, config, shard) = (self.env.clone(), self.config.clone(), self.shard.id);
        async move {
            let mut backoff = Backoff::new(&config);
            may_linger(env.clock(), "owner: before the epoch check", config.retry_max).await;
            loop {
                match env.store().epoch(shard).await {
                    Ok(row) => return row,
                    Err(_) => backoff.pause(env.clock()).await,
                }
            }
        }
        .boxed()
    }

    fn load(&self, stream: StreamName) -> BoxFuture<'static, (StreamName, Option<Head>)> {
        let (env, config) = (self.env.clone(), self.config.clone());
        async move {
            let mut backoff = Backoff::new(&config);
            loop {
                match env.store().head(&stream, Freshness::Strong).await {
                    Ok(head) => return (stream, head),
                    Err(_) => backoff.pause(env.clock()).await,
                }
            }
        }
        .boxed()
    }

    /// Answers everything that waits: what may have happened is unknown, all else did not happen.
    fn step_down(mut self, ended: Ended, requests: &mut mpsc::Receiver<Ask>) {
        info!(node = %self.node, shard = %self.shard.id, epoch = self.row.epoch, ?ended, "stepped down");
        let stats = self.stats.clone();
        let stalled = std::mem::take(&mut self.stalled);
        for ask in std::mem::take(&mut self.cold).into_values().flatten().chain(stalled) {
            ask.refuse();
        }
        shut(requests);
        for (ticket, outcome) in self.sequencer.step_down() {
            match (ticket, outcome) {
                (Ticket::Append(reply), Outcome::Unknown) => {
                    stats.count(Counter::AppendsUnknown);
                    let _ = reply.send(Err(AppendError::Unknown));
                }
                (Ticket::Append(reply), _) => {
                    let _ = reply.send(Err(AppendError::NotOwner { hint: None }));
                }
                (Ticket::Read { reply, .. }, _) => {
                    let _ = reply.send(Err(ReadError::NotOwner { hint: None }));
                }
            }
        }
    }
}

/// How the puts of one batch ended.
enum PutEnd {
    Confirmed(Position),
    Closed,
}

impl Ticket {
    fn append(self, answer: Result<Appended, AppendError>) {
        if let Ticket::Append(reply) = self {
            let _ = reply.send(answer);
        }
    }
}

fn ask_again(append: Append, ticket: Ticket) -> Ask {
    match ticket {
        Ticket::Append(reply) => Ask::Append(append, reply),
        Ticket::Read { .. } => unreachable!("an append is asked with an append's ticket"),
    }
}

async fn next_if(open: bool, requests: &mut mpsc::Receiver<Ask>) -> Option<Ask> {
    if open { requests.next().await } else { std::future::pending().await }
}
