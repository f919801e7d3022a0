//! The store of one machine: what the log says, as rows of an embedded engine.
//!
//! ```text
//! events       shard, time            -> the event: keys grow, so that nothing is rewritten when more comes
//! streams      name, 0, revision      -> shard, time, append: the way to the event, and what a head remembers
//! heads        name                   -> revisions, limits, tombstone, of a stream that has metadata or was ended
//! checkpoints  shard                  -> how far it is folded
//! progress     shard, group           -> how far it is settled for a group
//! ```
//!
//! Values have checksums of their own. The rows of one write are written all or none, and rows that were written later are
//! never kept without earlier ones: the engine has one journal for all of them, and flushes it before it writes any table. So
//! a checkpoint that is there vouches for rows that are there, whatever a power cut took. Who owns a shard is no fold
//! of anything: it is kept in a file of its own, and a change of it is durable before it is answered. So are documents. Progress
//! is no fold either, but a group whose progress is lost is given again what it has had: no more than that is promised.
//!
//! Most streams have only events. The head of such a stream is what its rows say up to the checkpoint of its shard, so that an
//! append costs two rows and not three.
//!
//! Calls block for a read or a write of the engine, mostly of memory.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    slice,
    sync::{Arc, Mutex, OnceLock},
};

use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, PersistMode,
    config::{FilterPolicy, PinningPolicy},
};
use stormkeep_core::{
    append::{Direction, Freshness},
    entry::Batch,
    env::{
        Document, DocumentKey, EpochRow, NodeId, NodeRow, Position, Progress, Rewritten, Row,
        Store, StoreError, Swap, Token,
    },
    event::RecordedEvent,
    group::GroupNumber,
    head::Head,
    shard::{Checkpoint, ShardId},
    stream::StreamName,
    time::HybridTime,
};

mod cache;
mod read;

use cache::EventCache;

use super::{
    Health, Options,
    directory::Directory,
    log::lock,
    row::{HeadRow, RowError, Way, damaged, decode, encode, event_key, progress_key, stream_key},
    tail::is_full,
};

const VERSION: &[u8] = b"2";
/// The first format had a row of every head; what it has too many is passed over.
const VERSION_BEFORE: &[u8] = b"1";
/// Bytes that an event's row takes besides its texts and payload, about.
const EVENT_FRAME_BYTES: usize = 80;
/// Bytes of any other row, about.
const ROW_BYTES: usize = 64;
const WAY_OUT: &str =
    "stop the server, delete this folder, and start: it is built again from the log";

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{folder}: {what}: {WAY_OUT}")]
pub struct StoreOpenError {
    folder: String,
    what: String,
}

/// See the module's docs.
pub struct DiskStore {
    directory: Arc<Directory>,
    database: Database,
    events: Keyspace,
    streams: Keyspace,
    heads: Keyspace,
    checkpoints: Keyspace,
    progress: Keyspace,
    /// Held while rows are compared and written, which may take long when the engine is behind.
    writing: Mutex<()>,
    /// The checkpoints that are written; held for a moment.
    written: Mutex<Arc<BTreeMap<ShardId, Checkpoint>>>,
    cache: EventCache,
    epochs: Mutex<BTreeMap<ShardId, EpochRow>>,
    documents: Mutex<BTreeMap<DocumentKey, Document>>,
    nodes: Mutex<BTreeMap<(NodeId, Token), NodeRow>>,
    health: OnceLock<Health>,
}

impl std::fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskStore").field("folder", &self.directory.store()).finish_non_exhaustive()
    }
}

impl DiskStore {
    pub(super) fn open(
        directory: Arc<Directory>,
        epochs: BTreeMap<ShardId, EpochRow>,
        documents: BTreeMap<DocumentKey, Document>,
        options: &Options,
    ) -> Result<Self, StoreOpenError> {
        let folder = directory.store();
        let wrong = |what: String| StoreOpenError { folder: folder.display().to_string(), what };
        let broken = |error: fjall::Error| wrong(error.to_string());
        let database = Database::builder(&folder)
            .cache_size(options.cache_bytes / 2)
            .max_journaling_size(options.write_buffer_bytes.max(64 * 1024 * 1024) * 4)
            // What is lost with the process is folded again.
            .manual_journal_persist(true);
        // What is damaged makes the engine panic here and there.
        let database = catch_unwind(AssertUnwindSafe(|| database.open()))
            .map_err(|_| wrong("the engine gave up on what it found".to_owned()))?
            .map_err(broken)?;
        let about = database.keyspace("about", KeyspaceCreateOptions::default).map_err(broken)?;
        match about.get("version").map_err(broken)? {
            Some(version) if *version == *VERSION => {}
            Some(version) if *version != *VERSION_BEFORE => {
                let found = String::from_utf8_lossy(&version).into_owned();
                return Err(wrong(format!("format {found:?} of the store is not known")));
            }
            _ => about.insert("version", VERSION).map_err(broken)?,
        }
        let memtable = options.write_buffer_bytes / 4;
        let keyspace = |name: &str, options: &KeyspaceCreateOptions| {
            database.keyspace(name, || options.clone()).map_err(broken)
        };
        let options_of_all = KeyspaceCreateOptions::default().max_memtable_size(memtable);
        // Files of growing keys are moved down as they are, and would keep all of their filters and indexes in memory. What is
        // looked for in them is there. A store that is there already keeps the options that it was made with.
        let options_of_growing = options_of_all
            .clone()
            .filter_policy(FilterPolicy::disabled())
            .index_block_pinning_policy(PinningPolicy::disabled());
        let events = keyspace("events", &options_of_growing)?;
        let streams = keyspace("streams", &options_of_all)?;
        let heads = keyspace("heads", &options_of_all)?;
        let checkpoints = keyspace("checkpoints", &options_of_all)?;
        let progress = keyspace("progress", &options_of_all)?;
        let mut written = BTreeMap::new();
        for row in checkpoints.iter() {
            let (key, value) = row.into_inner().map_err(broken)?;
            let (shard, checkpoint) = key
                .as_ref()
                .try_into()
                .ok()
                .and_then(|key| Some((ShardId(u32::from_be_bytes(key)), decode(&value).ok()?)))
                .ok_or_else(|| wrong("a checkpoint is damaged".into()))?;
            written.insert(shard, checkpoint);
        }
        Ok(DiskStore {
            directory,
            database,
            events,
            streams,
            heads,
            checkpoints,
            progress,
            writing: Mutex::default(),
            written: Mutex::new(Arc::new(written)),
            cache: EventCache::new(options.cache_bytes / 2),
            epochs: Mutex::new(epochs),
            documents: Mutex::new(documents),
            nodes: Mutex::default(),
            health: OnceLock::new(),
        })
    }

    pub(super) fn report_to(&self, health: Health) {
        // Only the first one counts; there is only one.
        let _ = self.health.set(health);
    }

    fn written(&self) -> Arc<BTreeMap<ShardId, Checkpoint>> {
        lock(&self.written).clone()
    }

    /// The furthest position that any shard is folded to.
    pub(super) fn folded_to(&self) -> Option<Position> {
        self.written().values().filter_map(|c| c.position).max()
    }

    /// Makes everything that was written durable.
    pub(super) fn persist(&self) -> std::io::Result<()> {
        self.database.persist(PersistMode::SyncAll).map_err(std::io::Error::other)
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.database.disk_space().unwrap_or(0)
    }

    /// Whether the rows of a batch are as they should be, if the store is folded that far; says how many events were
    /// looked at, or what is wrong.
    pub(super) fn check(&self, batch: &Batch, at: &Checkpoint) -> Result<u64, String> {
        let written = self.written().get(&batch.shard).map_or(0, |c| c.accepted);
        if at.accepted > written {
            return Ok(0);
        }
        for (time, append) in batch.timed() {
            for expected in append.recorded(batch.shard, time) {
                let ways = [(expected.revision, Way::to(&expected))];
                let row = self.events_at(&expected.stream, &ways);
                let way = self.streams.get(stream_key(&expected.stream, expected.revision));
                let there = way.ok().flatten().and_then(|way| Way::decode(&way).ok());
                let name = format!("{} revision {}", expected.stream, expected.revision);
                match row {
                    Ok(row)
                        if row == slice::from_ref(&expected)
                            && there == Some(Way::to(&expected)) => {}
                    Ok(_) => return Err(format!("{name}: the store has not what the log says")),
                    Err(error) => return Err(format!("{name}: {error}")),
                }
            }
        }
        Ok(batch.event_count())
    }

    /// What an error means to the core; it is said aloud.
    fn failed(&self, error: impl Into<RowError>) -> StoreError {
        let error = error.into();
        if let Some(health) = self.health.get() {
            let way_out = match &error {
                RowError::Engine(fjall::Error::Io(error)) if is_full(error) => {
                    "the disk is full: make space, and start the server anew"
                }
                _ => WAY_OUT,
            };
            health.fail(format!("{}: {error}: {way_out}", self.directory.store().display()));
        }
        StoreError::Unavailable
    }

    fn write_rows(&self, rows: &[Row]) -> Result<(), RowError> {
        let _writing = lock(&self.writing);
        let written = self.written();
        let mut batch = self.database.batch();
        let mut checkpoints = BTreeMap::new();
        for row in rows {
            match row {
                Row::Event(event) => {
                    let way = Way::to(event).encode();
                    batch.insert(&self.streams, stream_key(&event.stream, event.revision), way);
                    let key = event_key(event.shard, event.time);
                    let bytes =
                        event.stream.as_str().len() + event.event.bytes() + EVENT_FRAME_BYTES;
                    batch.insert(&self.events, key, encode(event, bytes)?);
                }
                Row::Head(stream, head) => {
                    let Some(row) = HeadRow::of(head) else { continue };
                    if let Some(stored) = self.heads.get(stream.as_str())?
                        && decode::<HeadRow>(&stored)?.version() > row.version()
                    {
                        continue;
                    }
                    batch.insert(&self.heads, stream.as_str(), encode(&row, ROW_BYTES)?);
                }
                Row::Checkpoint(shard, checkpoint) => {
                    let newer =
                        |c: &Checkpoint| (c.accepted, c) > (checkpoint.accepted, checkpoint);
                    if written.get(shard).is_none_or(|stored| !newer(stored)) {
                        batch.insert(
                            &self.checkpoints,
                            shard.0.to_be_bytes(),
                            encode(checkpoint, ROW_BYTES)?,
                        );
                        checkpoints.insert(*shard, checkpoint.clone());
                    }
                }
                Row::Progress(shard, group, progress) => {
                    let key = progress_key(*shard, *group);
                    if let Some(stored) = self.progress.get(key)? {
                        let stored: Progress = decode(&stored)?;
                        if stored > *progress {
                            continue;
                        }
                    }
                    batch.insert(&self.progress, key, encode(progress, ROW_BYTES)?);
                }
                // One process has the directory, so a sign of life need not outlive it.
                Row::Node(sign) => {
                    let mut nodes = lock(&self.nodes);
                    let stored = nodes.entry((sign.node, sign.token)).or_insert(*sign);
                    if sign.beat >= stored.beat {
                        *stored = *sign;
                    }
                }
            }
        }
        if !batch.is_empty() {
            batch.commit()?;
        }
        if !checkpoints.is_empty() {
            let mut written = BTreeMap::clone(&written);
            written.append(&mut checkpoints);
            *lock(&self.written) = Arc::new(written);
        }
        Ok(())
    }
}

impl Store for DiskStore {
    async fn epoch(&self, shard: ShardId) -> Result<EpochRow, StoreError> {
        Ok(lock(&self.epochs).get(&shard).copied().unwrap_or(EpochRow::vacant(shard)))
    }

    async fn epochs(&self, shards: &[ShardId]) -> Result<Vec<EpochRow>, StoreError> {
        let rows = lock(&self.epochs);
        let row = |shard: &ShardId| rows.get(shard).copied().unwrap_or(EpochRow::vacant(*shard));
        Ok(shards.iter().map(row).collect())
    }

    async fn epoch_settled(&self, shard: ShardId) -> Result<EpochRow, StoreError> {
        self.epoch(shard).await
    }

    async fn swap_epoch(&self, from: EpochRow, to: EpochRow) -> Result<Swap, StoreError> {
        let mut rows = lock(&self.epochs);
        let row = rows.get(&from.shard).copied().unwrap_or(EpochRow::vacant(from.shard));
        if row != from {
            return Ok(Swap::Lost(row));
        }
        let mut next = rows.clone();
        next.insert(to.shard, to);
        if let Err(error) = self.directory.write_epochs(&next) {
            tracing::error!(%error, "EPOCHS cannot be written");
            return Err(StoreError::Unknown);
        }
        *rows = next;
        Ok(Swap::Done)
    }

    async fn write(&self, rows: &[Row]) -> Result<(), StoreError> {
        self.write_rows(rows).map_err(|error| self.failed(error))
    }

    async fn head(
        &self,
        stream: &StreamName,
        _freshness: Freshness,
    ) -> Result<Option<Head>, StoreError> {
        self.read_head(stream).map_err(|error| self.failed(error))
    }

    async fn events(
        &self,
        stream: &StreamName,
        from: u64,
        limit: u32,
        direction: Direction,
        _freshness: Freshness,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        let events = match direction {
            Direction::Forwards => self.read_forwards(stream, from, limit),
            Direction::Backwards => self.read_rows(stream, (0, from), limit, direction),
        };
        events.map_err(|error| self.failed(error))
    }

    async fn shard_events(
        &self,
        shard: ShardId,
        (from, to): (HybridTime, HybridTime),
        limit: u32,
        direction: Direction,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        let range = self.events.range(event_key(shard, from)..=event_key(shard, to));
        let rows: Box<dyn Iterator<Item = fjall::Guard>> = match direction {
            Direction::Forwards => Box::new(range),
            Direction::Backwards => Box::new(range.rev()),
        };
        let rows = rows.take(limit as usize);
        let events = rows.map(|row| {
            let (key, value) = row.into_inner()?;
            let event: RecordedEvent = decode(&value)?;
            if *key != event_key(event.shard, event.time) {
                return Err(damaged("an event is in the place of another"));
            }
            Ok(event)
        });
        events.collect::<Result<_, RowError>>().map_err(|error| self.failed(error))
    }

    async fn checkpoint(&self, shard: ShardId) -> Result<Checkpoint, StoreError> {
        Ok(self.written().get(&shard).cloned().unwrap_or_default())
    }

    async fn checkpoints(&self) -> Result<Vec<(ShardId, Checkpoint)>, StoreError> {
        Ok(self.written().iter().map(|(id, at)| (*id, at.clone())).collect())
    }

    async fn documents(&self, keys: &[DocumentKey]) -> Result<Vec<Document>, StoreError> {
        let documents = lock(&self.documents);
        let document = |key: &DocumentKey| {
            documents.get(key).cloned().unwrap_or_else(|| Document::blank(*key))
        };
        Ok(keys.iter().map(document).collect())
    }

    async fn rewrite(&self, from: Document, to: Document) -> Result<Rewritten, StoreError> {
        let mut documents = lock(&self.documents);
        let now = documents.get(&from.key).cloned().unwrap_or_else(|| Document::blank(from.key));
        if now != from {
            return Ok(Rewritten::Lost(now));
        }
        let mut next = documents.clone();
        next.insert(to.key, to);
        if let Err(error) = self.directory.write_documents(&next) {
            tracing::error!(%error, "DOCUMENTS cannot be written");
            return Err(StoreError::Unknown);
        }
        *documents = next;
        Ok(Rewritten::Done)
    }

    async fn progress(&self, shard: ShardId) -> Result<Vec<(GroupNumber, Progress)>, StoreError> {
        let rows = self.progress.range(
            progress_key(shard, GroupNumber(0))..=progress_key(shard, GroupNumber(u64::MAX)),
        );
        let rows = rows.map(|row| {
            let (key, value) = row.into_inner()?;
            let group = key.last_chunk().ok_or_else(|| damaged("a key is too short"))?;
            Ok((GroupNumber(u64::from_be_bytes(*group)), decode(&value)?))
        });
        rows.collect::<Result<_, RowError>>().map_err(|error| self.failed(error))
    }

    async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        Ok(lock(&self.nodes).values().copied().collect())
    }
}
