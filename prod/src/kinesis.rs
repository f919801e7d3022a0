//! The log on Amazon Kinesis Data Streams: one stream, whose shards are the shards of the cluster.
//!
//! **Puts.** One entry is one record, put by an explicit hash key that lies in the shard. The SDK repeats nothing, so an
//! unknown outcome is said to be unknown. The answer names the shard that the record is in: a child, if the shard was closed.
//! `SequenceNumberForOrdering` makes the record's position higher than the last one that the owner knows.
//!
//! **Reads.** By polling ([`mod@self::read`]), within what the service allows of a shard ([`pace`]), and, if a consumer is set,
//! at the tip by enhanced fan-out ([`fanout`]). A dropped record is noticed ([`mod@self::read`]).
//!
//! **Errors.** Each is *no*, *busy* or *unknown* ([`trouble`]). What lasts until somebody mends it (a missing stream, a
//! permission, credentials) is said once in the log, with its fix, and kept in [`Health`] until the action works again;
//! nothing has to be started anew.

mod client;
mod fanout;
mod health;
mod pace;
mod probe;
mod read;
mod settings;
mod shards;
mod token;
mod trouble;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_sdk_kinesis::primitives::Blob;
use bytes::Bytes;
use stormkeep_core::{
    env::{Cursor, Log, LogError, Page, Position, Put, PutError, ReadLogError},
    limits::ENTRY_BYTES_MAX,
    shard::{ShardId, ShardInfo},
};
use tokio::time::Instant;
use tracing::error;

use self::{
    client::Clients,
    fanout::FanOut,
    pace::Pace,
    token::{At, Token},
};
pub use self::{
    health::{Ailment, Health},
    probe::probe,
    settings::{InvalidSetting, Settings},
    shards::Description,
    trouble::{Kind, Trouble},
};

/// How long the service may refuse to order by the last position of a shard.
const EARLY_MAX: Duration = Duration::from_secs(5);

/// Why a log cannot be opened. Whether the service answers is not asked: see [`probe`] and [`Health`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// A setting makes no sense.
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    /// No region is set anywhere.
    #[error(
        "kinesis.region: not set, and neither AWS_REGION, the profile nor the machine says one: set it"
    )]
    NoRegion,
}

/// See the module's docs. Make it within a tokio runtime.
pub struct KinesisLog {
    settings: Settings,
    clients: Arc<Clients>,
    health: Health,
    fan_out: Option<FanOut>,
    began: Instant,
    pace: Mutex<Pace>,
    /// Milliseconds that the stream keeps records; 0: not known yet.
    retention_ms: AtomicU64,
    /// Since when the service refuses to order by a shard's last position.
    early: Mutex<BTreeMap<ShardId, Instant>>,
    /// Positions that are gone, and that readers may go on behind all the same.
    accepted: Mutex<BTreeSet<(ShardId, Position)>>,
}

impl KinesisLog {
    /// A log that has not spoken to the service yet, except, perhaps, to learn its region.
    pub async fn open(settings: Settings) -> Result<Self, OpenError> {
        settings.check()?;
        let health = Health::default();
        let clients = Arc::new(Clients::new(&settings, health.clone()).await?);
        let fan_out = settings.consumer.clone().map(|consumer| {
            FanOut::new(clients.clone(), health.clone(), settings.stream.clone(), consumer)
        });
        let pace = Mutex::new(Pace::new(settings.reads_per_s, settings.read_bytes_per_s));
        Ok(KinesisLog {
            settings,
            clients,
            health,
            fan_out,
            began: Instant::now(),
            pace,
            retention_ms: AtomicU64::new(0),
            early: Mutex::default(),
            accepted: Mutex::default(),
        })
    }

    /// What does not work now.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Describes the stream.
    pub async fn describe(&self) -> Result<Description, Trouble> {
        let description = shards::describe(&self.clients, &self.settings.stream).await?;
        self.learn(&description);
        Ok(description)
    }

    /// Creates the stream with so many shards, unless it is there, and waits until it is `ACTIVE`. A stream that is there
    /// keeps the shards that it has.
    pub async fn create(&self, count: u32) -> Result<Description, Trouble> {
        let description = shards::create(&self.clients, &self.settings.stream, count).await?;
        self.learn(&description);
        Ok(description)
    }

    /// Waits until the stream is `ACTIVE`, `limit` at the most.
    pub async fn wait_active(&self, limit: Duration) -> Result<Description, Trouble> {
        let stream = &self.settings.stream;
        let description = shards::wait_active(&self.clients, stream, limit).await?;
        self.learn(&description);
        Ok(description)
    }

    fn learn(&self, description: &Description) {
        let ms = u64::try_from(description.retention.as_millis()).unwrap_or(u64::MAX);
        self.retention_ms.store(ms, Ordering::Relaxed);
    }

    fn retention(&self) -> Option<Duration> {
        let ms = self.retention_ms.load(Ordering::Relaxed);
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    /// Waits for this process's turn to read a shard.
    async fn pace(&self, shard: ShardId) -> Result<(), ReadLogError> {
        let now = self.began.elapsed();
        let wait = lock(&self.pace).reserve(shard, now).ok_or(ReadLogError::Throttled)?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    fn spent(&self, shard: ShardId, bytes: usize) {
        lock(&self.pace).spent(shard, bytes);
    }

    /// The service refuses to order by the last position of a shard. It passes in a new shard; where it does not, the stream
    /// was made anew and the position is of the old one, so that its owner has to begin anew as well.
    fn early(&self, shard: ShardId) -> PutError {
        let since = *lock(&self.early).entry(shard).or_insert_with(Instant::now);
        let kind = if since.elapsed() < EARLY_MAX { Kind::Early } else { Kind::Invalid };
        kind.into()
    }

    fn accept_trimmed(&self, shard: ShardId, last: Position) {
        lock(&self.accepted).insert((shard, last));
    }

    fn accepts_trimmed(&self, shard: ShardId, last: Position) -> bool {
        lock(&self.accepted).contains(&(shard, last))
    }
}

impl fmt::Debug for KinesisLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KinesisLog").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Log for KinesisLog {
    async fn shards(&self) -> Result<Vec<ShardInfo>, LogError> {
        if self.retention().is_none() {
            // Readers need it only when they lag by hours; the next listing asks again.
            let _ = self.describe().await;
        }
        let listed = shards::list(&self.clients, &self.settings.stream).await;
        listed.map_err(|trouble| trouble.kind.into())
    }

    async fn put(
        &self,
        shard: &ShardInfo,
        after: Option<Position>,
        data: Bytes,
    ) -> Result<Put, PutError> {
        // It fits in a record: the settings were checked.
        if data.len() > ENTRY_BYTES_MAX {
            return Err(PutError::Refused("the record is larger than an entry of the log may be"));
        }
        let answer = self
            .clients
            .put("PutRecord", |client| {
                client
                    .put_record()
                    .stream_name(&self.settings.stream)
                    .partition_key(shard.id.0.to_string())
                    .explicit_hash_key(shard.range.start.to_string())
                    .set_sequence_number_for_ordering(after.map(|after| after.to_string()))
                    .data(Blob::from_maybe_shared(data))
                    .send()
            })
            .await
            .map_err(|trouble| match trouble.kind {
                Kind::Early => self.early(shard.id),
                kind => kind.into(),
            })?;
        lock(&self.early).remove(&shard.id);
        let (Some(shard), Ok(position)) =
            (shards::id(answer.shard_id()), answer.sequence_number().parse())
        else {
            error!(?answer, "an answer to a put that makes no sense");
            return Err(PutError::Unknown);
        };
        Ok(Put { shard, position })
    }

    async fn read(&self, shard: ShardId, from: Cursor) -> Result<Page, ReadLogError> {
        let Some(fan_out) = &self.fan_out else {
            return read::read(self, shard, from).await;
        };
        if let Cursor::Token(token) = &from
            && let Ok(Token { shard: of, at: At::Subscription { number, next }, .. }) =
                token.parse()
        {
            if of != shard {
                return Err(ReadLogError::Expired);
            }
            return fan_out.read(shard, number, next).await;
        }
        let mut page = read::read(self, shard, from).await?;
        if page.at_tip
            && let Some(Cursor::Token(token)) = &page.next
            && let Ok(Token { last: Some(last), .. }) = token.parse()
            && let Some(token) = fan_out.begin(shard, last)
        {
            page.next = Some(Cursor::Token(token.to_string()));
        }
        Ok(page)
    }

    async fn split(&self, shard: ShardId, at: u128) -> Result<(), LogError> {
        // A stand-in takes a split that leaves one child without a key.
        let listed = self.shards().await?;
        let range = listed.iter().find(|s| s.id == shard && !s.closed).map(|s| s.range);
        if !range.is_some_and(|range| range.start < at && at <= range.end) {
            return Err(LogError::Refused(shards::NO_SPLIT));
        }
        shards::split(&self.clients, &self.settings.stream, shard, at).await
    }

    async fn merge(&self, a: ShardId, b: ShardId) -> Result<(), LogError> {
        shards::merge(&self.clients, &self.settings.stream, a, b).await
    }
}

/// Nothing that is done while one of these is held can leave it half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
