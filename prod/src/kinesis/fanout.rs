//! Reading by enhanced fan-out (`SubscribeToShard`): the service sends what is new within about 70 ms, and the reads take
//! nothing of the five a second that all polling readers share.
//!
//! A consumer has one subscription to a shard, in the whole cluster. So each process keeps at most one for a shard, and gives
//! it to a reader that polling has brought to the tip: that is the shard's fold, since whoever replays ends there. Other
//! readers go on polling. A subscription lives for five minutes; when it is over, breaks, or is taken over by another node, what
//! has arrived can still be read, and then the reader is told that its cursor has expired: it polls a page behind its last
//! record, which also proves that nothing is missing, and subscribes again.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_sdk_kinesis::types::{
    ConsumerStatus, ShardIteratorType, StartingPosition, SubscribeToShardEvent,
    SubscribeToShardEventStream,
};
use stormkeep_core::{
    env::{LogRecord, Page, Position, ReadLogError},
    shard::ShardId,
};
use tokio::{
    sync::{OnceCell, mpsc},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tracing::debug;

use super::{
    client::Clients,
    health::Health,
    read, shards,
    token::{At, Token},
    trouble::{Kind, Trouble},
};

/// Events of a subscription that wait for their reader; each holds at most what a shard takes in a moment.
const EVENTS_MAX: usize = 4;
/// Bytes of one page, about.
const PAGE_BYTES: usize = 2_000_000;
/// A subscription without an event for so long is broken: the service sends an empty one every few seconds.
const QUIET_MAX: Duration = Duration::from_secs(30);
/// A subscription whose reader has not come for so long may be given to another reader.
const UNUSED_MAX: Duration = Duration::from_secs(3);
/// How long a subscription that could not be had, or broke, is not asked for again. The service refuses a second one of
/// the same consumer within five seconds.
const AGAIN_AFTER: Duration = Duration::from_secs(6);
/// How long a reader that has not caught up waits for the next event.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How long a new consumer may take to become `ACTIVE`.
const REGISTER_MAX: Duration = Duration::from_secs(60);

/// What a subscription has sent.
struct Event {
    records: Vec<LogRecord>,
    caught_up: bool,
    /// The shard is closed, and this was its end.
    end: bool,
}

/// A reader's end of a subscription.
struct Feed {
    number: u64,
    used: Mutex<Instant>,
    reader: tokio::sync::Mutex<Reader>,
    task: JoinHandle<()>,
}

struct Reader {
    events: mpsc::Receiver<Event>,
    /// Pages that were read.
    next: u64,
    last: Position,
    caught_up: bool,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Default)]
struct Feeds {
    running: BTreeMap<ShardId, Arc<Feed>>,
    not_before: BTreeMap<ShardId, Instant>,
}

/// See the module's docs.
pub(super) struct FanOut {
    clients: Arc<Clients>,
    health: Health,
    stream: String,
    consumer: String,
    arn: Arc<OnceCell<String>>,
    feeds: Mutex<Feeds>,
    count: AtomicU64,
}

impl FanOut {
    pub(super) fn new(
        clients: Arc<Clients>,
        health: Health,
        stream: String,
        consumer: String,
    ) -> Self {
        FanOut {
            clients,
            health,
            stream,
            consumer,
            arn: Arc::default(),
            feeds: Mutex::default(),
            count: AtomicU64::new(0),
        }
    }

    /// Gives a reader that has read up to `last`, and is at the tip, the shard's subscription, if no other reader uses it:
    /// where it goes on.
    pub(super) fn begin(&self, shard: ShardId, last: Position) -> Option<Token> {
        let mut feeds = self.feeds();
        let now = Instant::now();
        let in_use = feeds.running.get(&shard).is_some_and(|feed| {
            let used = *feed.used.lock().unwrap_or_else(PoisonError::into_inner);
            now - used < UNUSED_MAX && !feed.task.is_finished()
        });
        if in_use || feeds.not_before.get(&shard).is_some_and(|at| now < *at) {
            return None;
        }
        feeds.not_before.insert(shard, now + AGAIN_AFTER);
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let subscription = Subscription {
            clients: self.clients.clone(),
            health: self.health.clone(),
            stream: self.stream.clone(),
            consumer: self.consumer.clone(),
            arn: self.arn.clone(),
            shard,
        };
        let task = tokio::spawn(async move {
            if let Err(trouble) = subscription.run(last, sender).await {
                debug!(%shard, %trouble, "a subscription ended");
            }
        });
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let reader = tokio::sync::Mutex::new(Reader { events, next: 0, last, caught_up: false });
        let feed = Feed { number, used: Mutex::new(now), reader, task };
        feeds.running.insert(shard, Arc::new(feed));
        Some(Token { shard, last: Some(last), at: At::Subscription { number, next: 0 } })
    }

    /// Reads what a subscription has sent.
    pub(super) async fn read(
        &self,
        shard: ShardId,
        number: u64,
        next: u64,
    ) -> Result<Page, ReadLogError> {
        let feed = self.feeds().running.get(&shard).filter(|feed| feed.number == number).cloned();
        let feed = feed.ok_or(ReadLogError::Expired)?;
        *feed.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let mut reader = feed.reader.lock().await;
        // A page that was read and then dropped is read again in another way.
        if reader.next != next {
            return Err(ReadLogError::Expired);
        }
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut end = false;
        while bytes < PAGE_BYTES && !end {
            let event = match reader.events.try_recv() {
                Ok(event) => event,
                Err(mpsc::error::TryRecvError::Empty) if reader.next > next || reader.caught_up => {
                    break;
                }
                Err(mpsc::error::TryRecvError::Empty) => {
                    match timeout(WAIT_MAX, reader.events.recv()).await {
                        Ok(Some(event)) => event,
                        Ok(None) => continue,
                        Err(_) => break,
                    }
                }
                Err(mpsc::error::TryRecvError::Disconnected) if reader.next > next => break,
                Err(mpsc::error::TryRecvError::Disconnected) => return Err(ReadLogError::Expired),
            };
            reader.next = next + 1;
            reader.caught_up = event.caught_up;
            end = event.end;
            bytes += event.records.iter().map(|record| record.data.len()).sum::<usize>();
            records.extend(event.records);
        }
        if let Some(last) = records.last() {
            reader.last = last.position;
        }
        let at = At::Subscription { number, next: reader.next };
        let next = (!end).then(|| read::cursor(shard, Some(reader.last), at));
        let at_tip = reader.caught_up && reader.events.is_empty();
        Ok(Page { records, next, at_tip })
    }

    fn feeds(&self) -> MutexGuard<'_, Feeds> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task behind a subscription.
struct Subscription {
    clients: Arc<Clients>,
    health: Health,
    stream: String,
    consumer: String,
    arn: Arc<OnceCell<String>>,
    shard: ShardId,
}

impl Subscription {
    /// Subscribes behind a position, until the subscription or the shard ends or something is wrong.
    async fn run(&self, last: Position, events: mpsc::Sender<Event>) -> Result<(), Trouble> {
        let register = || register(&self.clients, &self.stream, &self.consumer);
        let arn = self.arn.get_or_try_init(register).await?;
        let position = StartingPosition::builder()
            .r#type(ShardIteratorType::AfterSequenceNumber)
            .sequence_number(last.to_string())
            .build()
            .map_err(|error| Trouble::new(Kind::Invalid, error.to_string()))?;
        let mut answer = self
            .clients
            .call("SubscribeToShard", |client| {
                let request = client.subscribe_to_shard().consumer_arn(arn);
                request.shard_id(shards::name(self.shard)).starting_position(position).send()
            })
            .await?;
        let mut caught_up = false;
        loop {
            let event = match timeout(QUIET_MAX, answer.event_stream.recv()).await {
                Ok(Ok(Some(SubscribeToShardEventStream::SubscribeToShardEvent(it)))) => event(it)?,
                Ok(Ok(Some(_))) => continue,
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => return Err(self.ails(Trouble::of_event(&error))),
                Err(_) => {
                    let what = "SubscribeToShard: no event, not even an empty one";
                    return Err(self.ails(Trouble::new(Kind::Silent, what)));
                }
            };
            let end = event.end;
            // An empty event that says nothing new would only take a place.
            if end || !event.records.is_empty() || event.caught_up != caught_up {
                caught_up = event.caught_up;
                if events.send(event).await.is_err() {
                    return Ok(());
                }
            }
            if end {
                return Ok(());
            }
        }
    }

    fn ails(&self, trouble: Trouble) -> Trouble {
        self.health.ails("SubscribeToShard", &trouble);
        trouble
    }
}

fn event(event: SubscribeToShardEvent) -> Result<Event, Trouble> {
    // The children are named by the last event of a closed shard, and by no other.
    let end = !event.child_shards().is_empty();
    let caught_up = event.millis_behind_latest <= 0;
    let records = event.records.into_iter().map(read::record).collect::<Result<_, _>>();
    let records = records.map_err(|error| Trouble::new(Kind::Silent, error.to_string()))?;
    Ok(Event { records, caught_up, end })
}

/// The full name of the consumer, which is registered if it is not there.
pub(super) async fn register(
    clients: &Clients,
    stream: &str,
    consumer: &str,
) -> Result<String, Trouble> {
    let stream_arn = shards::describe(clients, stream).await?.arn;
    let began = Instant::now();
    loop {
        let described = clients
            .quiet(|client| {
                let request = client.describe_stream_consumer().stream_arn(&stream_arn);
                request.consumer_name(consumer).send()
            })
            .await;
        match described.map(|answer| answer.consumer_description) {
            Ok(Some(it)) if it.consumer_status == ConsumerStatus::Active => {
                return Ok(it.consumer_arn);
            }
            Ok(_) => {}
            Err(trouble) if trouble.kind == Kind::Missing => {
                let registered = clients
                    .call("RegisterStreamConsumer", |client| {
                        let request = client.register_stream_consumer().stream_arn(&stream_arn);
                        request.consumer_name(consumer).send()
                    })
                    .await;
                match registered {
                    Ok(_) => {}
                    // Another node was faster.
                    Err(trouble) if trouble.kind == Kind::InUse => {}
                    Err(trouble) => return Err(trouble),
                }
            }
            Err(trouble) => return Err(trouble),
        }
        if began.elapsed() > REGISTER_MAX {
            let what = format!("the consumer {consumer:?} does not become ACTIVE");
            return Err(Trouble::new(Kind::Silent, what));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_kinesis::{
        primitives::Blob,
        types::{ChildShard, HashKeyRange, Record},
    };

    use super::*;

    /// The stand-in never sends the last event of a shard.
    #[test]
    fn the_last_event_of_a_shard_names_its_children() {
        let builder = || {
            let record = Record::builder().sequence_number("7").partition_key("0");
            SubscribeToShardEvent::builder()
                .continuation_sequence_number("7")
                .records(record.data(Blob::new("x")).build().expect("a record"))
        };
        let usual = builder().millis_behind_latest(20).build().expect("an event");
        let usual = event(usual).expect("it makes sense");
        assert_eq!((usual.records.len(), usual.caught_up, usual.end), (1, false, false));
        let keys = HashKeyRange::builder().starting_hash_key("0").ending_hash_key("9").build();
        let child = ChildShard::builder().shard_id("shardId-000000000001");
        let child = child.parent_shards("shardId-000000000000").hash_key_range(keys.expect("keys"));
        let last = builder().millis_behind_latest(0).child_shards(child.build().expect("a child"));
        let last = event(last.build().expect("an event")).expect("it makes sense");
        assert_eq!((last.records.len(), last.caught_up, last.end), (1, true, true));
    }
}
