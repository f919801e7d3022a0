//! The log of one machine: all shards in one sequence of segments, so that one flush makes many puts durable.
//!
//! A put is answered after the flush that it was part of. What waits while a flush is under way is the next group:
//! the more load, the more puts share a flush. A flush that fails is never tried again, since the kernel may have
//! dropped what it could not write: the log is then failed until the process starts anew and has looked at what is
//! there. A disk that is nearly full is another matter: puts are refused until there is space again.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use stormkeep_core::{
    env::{Cursor, Log, LogError, LogRecord, Page, Position, Put, PutError, ReadLogError},
    limits::ENTRY_BYTES_MAX,
    shard::{ShardId, ShardInfo},
};
use tracing::error;

use super::{
    Health, Options,
    directory::Directory,
    segment::{Frame, Frames, ReadError, Segment},
    tail::{CLOSED, Queue, Tail},
};

/// Bytes of records that one read returns, about.
const PAGE_BYTES: usize = 1024 * 1024;
/// Bytes of the log that one read goes through at the most, if they are mostly of other shards.
const SCAN_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes that a recent record takes besides its own.
const RECENT_BYTES: usize = 96;

/// What readers see of the log: only what is durable.
#[derive(Debug)]
pub(super) struct Durable {
    /// By the offset of its first byte.
    pub(super) segments: BTreeMap<u64, Arc<Segment>>,
    /// The offset behind the last durable record.
    pub(super) end: u64,
    /// The newest records of each shard.
    recent: BTreeMap<ShardId, VecDeque<LogRecord>>,
    /// Of each shard: all records at this offset or behind it are among the recent ones.
    recent_from: BTreeMap<ShardId, u64>,
    /// In which order the recent records came.
    order: VecDeque<ShardId>,
    recent_bytes: usize,
    recent_bytes_max: usize,
}

impl Durable {
    pub(super) fn new(
        segments: BTreeMap<u64, Arc<Segment>>,
        end: u64,
        shards: &[ShardInfo],
        recent_bytes_max: usize,
    ) -> Self {
        Durable {
            segments,
            end,
            recent: BTreeMap::new(),
            recent_from: shards.iter().map(|s| (s.id, end)).collect(),
            order: VecDeque::new(),
            recent_bytes: 0,
            recent_bytes_max,
        }
    }

    pub(super) fn push(&mut self, shard: ShardId, offset: u64, data: Bytes) {
        self.recent_bytes += data.len() + RECENT_BYTES;
        let position = Position::new(offset.into());
        self.recent.entry(shard).or_default().push_back(LogRecord { position, data });
        self.order.push_back(shard);
        while self.recent_bytes > self.recent_bytes_max
            && let Some(oldest) = self.order.pop_front()
        {
            let records = self.recent.entry(oldest).or_default();
            if let Some(gone) = records.pop_front() {
                self.recent_bytes -= gone.data.len() + RECENT_BYTES;
                // Whatever comes behind it is still there.
                self.recent_from.insert(oldest, offset_of(gone.position) + 1);
            }
        }
    }

    /// The recent records behind a position, if none is missing between.
    fn recent_after(&self, shard: ShardId, after: Option<u64>) -> Option<Page> {
        let from = after.map_or(0, |at| at + 1);
        if from < *self.recent_from.get(&shard)? {
            return None;
        }
        let none = VecDeque::new();
        let records = self.recent.get(&shard).unwrap_or(&none);
        let begin = records.partition_point(|r| offset_of(r.position) < from);
        let mut bytes = 0;
        let within = |record: &&LogRecord| {
            bytes += record.data.len();
            bytes <= PAGE_BYTES + ENTRY_BYTES_MAX
        };
        let page: Vec<LogRecord> = records.range(begin..).take_while(within).cloned().collect();
        let at_tip = begin + page.len() == records.len();
        let last = page.last().map(|r| r.position).or(after.map(|at| Position::new(at.into())));
        Some(Page { records: page, next: Some(cursor(last)), at_tip })
    }
}

/// See the module's docs.
#[derive(Debug)]
pub struct DiskLog {
    shards: Vec<ShardInfo>,
    durable: Arc<RwLock<Durable>>,
    writer: Writer,
    health: Health,
    closed: AtomicBool,
    /// Locked as long as anything may be written to it.
    _directory: Arc<Directory>,
}

#[derive(Debug)]
enum Writer {
    /// A thread flushes what waits.
    Thread(Arc<Queue>, Mutex<Option<std::thread::JoinHandle<Tail>>>),
    /// The caller flushes its own put.
    Inline(Mutex<Tail>),
}

impl DiskLog {
    pub(super) fn new(
        tail: Tail,
        directory: Arc<Directory>,
        options: &Options,
    ) -> std::io::Result<Self> {
        let shards = directory.shards();
        let (durable, health) = (tail.durable(), tail.health());
        let writer = if options.inline {
            Writer::Inline(Mutex::new(tail))
        } else {
            let queue = Arc::new(Queue::default());
            let (thread, mut tail) = (queue.clone(), tail);
            let run = move || {
                tail.run(&thread);
                tail
            };
            let thread = std::thread::Builder::new().name("log".into()).spawn(run)?;
            Writer::Thread(queue, Mutex::new(Some(thread)))
        };
        let closed = AtomicBool::new(false);
        Ok(DiskLog { shards, durable, writer, health, closed, _directory: directory })
    }

    /// Flushes what waits and says where the log ends, once; puts are refused from then on.
    pub(super) fn close(&self) -> Option<u64> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return None;
        }
        // Of a log that failed, or whose thread panicked, nobody can say where it ends.
        let sound = match &self.writer {
            Writer::Thread(queue, thread) => {
                queue.close();
                let thread = lock(thread).take();
                thread?.join().ok()?.is_sound()
            }
            Writer::Inline(tail) => lock(tail).is_sound(),
        };
        sound.then(|| self.end())
    }

    /// The offset behind the last durable record: the bytes of the log.
    pub fn end(&self) -> u64 {
        self.durable().end
    }

    fn durable(&self) -> std::sync::RwLockReadGuard<'_, Durable> {
        self.durable.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn scan(&self, shard: ShardId, after: Option<u64>) -> Result<Page, ReadError> {
        let (end, mut segment) = {
            let durable = self.durable();
            let segment = match after {
                Some(at) => durable.segments.range(..=at).next_back(),
                None => durable.segments.iter().next(),
            };
            (durable.end, segment.map(|(_, s)| s.clone()))
        };
        if after.is_some_and(|at| at >= end) {
            return Ok(Page {
                records: Vec::new(),
                next: Some(cursor(after.map(|at| Position::new(at.into())))),
                at_tip: true,
            });
        }
        let (mut records, mut bytes) = (Vec::new(), 0);
        let (mut at, mut scanned, mut skip) = (after, 0, after.is_some());
        while let Some(current) = segment {
            let mut frames =
                Frames::at(&current, at.filter(|at| *at < current.end() && *at > current.first));
            loop {
                let offset = frames.offset();
                if offset >= end {
                    let next = Some(cursor(at.map(|at| Position::new(at.into()))));
                    return Ok(Page { records, next, at_tip: true });
                }
                match frames.next()? {
                    Frame::Record { shard: of, data, next, .. } => {
                        scanned += next - offset;
                        if std::mem::take(&mut skip) {
                            continue;
                        }
                        at = Some(offset);
                        if of == shard {
                            bytes += data.len();
                            records
                                .push(LogRecord { position: Position::new(offset.into()), data });
                        }
                        if bytes >= PAGE_BYTES || scanned >= SCAN_BYTES {
                            let at_tip = next >= end;
                            let next = Some(cursor(Some(Position::new(offset.into()))));
                            return Ok(Page { records, next, at_tip });
                        }
                    }
                    Frame::End { .. } => break,
                    Frame::Blank => {
                        return Err(current
                            .damage(offset, "zeros where a record should be")
                            .into());
                    }
                }
            }
            segment = self.durable().segments.get(&current.end()).cloned();
            if segment.is_none() {
                let what = "the segment behind this one is missing: restore it from a backup";
                return Err(current.damage(frames.offset(), what).into());
            }
        }
        Ok(Page { records, next: Some(cursor(None)), at_tip: true })
    }
}

impl Drop for DiskLog {
    /// Waits for what is being written, so that the directory can be opened again; it is not a clean close.
    fn drop(&mut self) {
        self.close();
    }
}

impl Log for DiskLog {
    async fn shards(&self) -> Result<Vec<ShardInfo>, LogError> {
        Ok(self.shards.clone())
    }

    async fn put(
        &self,
        shard: &ShardInfo,
        _after: Option<Position>,
        data: Bytes,
    ) -> Result<Put, PutError> {
        if data.len() > ENTRY_BYTES_MAX {
            return Err(PutError::Refused("the record is larger than an entry may be"));
        }
        if !self.shards.iter().any(|s| s.id == shard.id) {
            return Err(PutError::Refused("there is no such shard"));
        }
        let offset = match &self.writer {
            Writer::Inline(tail) => {
                let mut tail = lock(tail);
                if self.closed.load(Ordering::Acquire) {
                    return Err(CLOSED);
                }
                tail.put(shard.id, data)?
            }
            Writer::Thread(queue, _) => {
                let answer = queue.offer(shard.id, data)?;
                // The thread ends without an answer only when it panicked.
                answer.await.unwrap_or(Err(PutError::Unknown))?
            }
        };
        Ok(Put { shard: shard.id, position: Position::new(offset.into()) })
    }

    async fn read(&self, shard: ShardId, from: Cursor) -> Result<Page, ReadLogError> {
        let after = match from {
            Cursor::Oldest => None,
            Cursor::After(position) => Some(offset_of(position)),
            Cursor::Token(_) => return Err(ReadLogError::Expired),
        };
        if let Some(page) = self.durable().recent_after(shard, after) {
            return Ok(page);
        }
        self.scan(shard, after).map_err(|error| {
            error!(%shard, %error, "the log cannot be read: restore the data directory from a backup or an export");
            self.health.fail(error.to_string());
            ReadLogError::Unavailable
        })
    }

    async fn split(&self, _shard: ShardId, _at: u128) -> Result<(), LogError> {
        Err(LogError::Refused(NO_RESHARDING))
    }

    async fn merge(&self, _a: ShardId, _b: ShardId) -> Result<(), LogError> {
        Err(LogError::Refused(NO_RESHARDING))
    }
}

const NO_RESHARDING: &str =
    "the shards of one machine are set once: export, and import into a new directory";

/// The offset that a position is, of a log that this module wrote.
pub(super) fn offset_of(position: Position) -> u64 {
    // A position of another log is beyond all that this one has.
    u64::try_from(position.low()).unwrap_or(u64::MAX)
}

fn cursor(after: Option<Position>) -> Cursor {
    after.map_or(Cursor::Oldest, Cursor::After)
}

/// A panic elsewhere while it was held would have failed the flush: see [`Health`].
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
