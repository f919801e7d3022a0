//! The end of the log, where it is written: groups of puts, each made durable by one flush.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, PoisonError, RwLock},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::channel::oneshot;
use stormkeep_core::{env::PutError, shard::ShardId};

use super::{
    Health, Options,
    log::{Durable, lock},
    segment::{FRAME_BYTES, HEADER_BYTES, Segment, push_end, push_record, record_bytes},
};

/// How often the free space is looked at: a fast disk fills by tens of MB between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How soon a segment is tried again for which there was no space.
const SPACE_EVERY: Duration = Duration::from_secs(1);
/// Puts that may wait for the flush; one of each shard is usual.
const QUEUE_MAX: usize = 8192;
/// Bytes that may wait for the flush.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A put that waits for its flush.
pub(super) struct Waiting {
    shard: ShardId,
    data: Bytes,
    reply: oneshot::Sender<Result<u64, PutError>>,
}

/// Puts that wait.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Puts>,
    arrived: Condvar,
}

#[derive(Default)]
struct Puts {
    puts: Vec<Waiting>,
    bytes: usize,
    closed: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl Queue {
    pub(super) fn offer(
        &self,
        shard: ShardId,
        data: Bytes,
    ) -> Result<oneshot::Receiver<Result<u64, PutError>>, PutError> {
        let (reply, answer) = oneshot::channel();
        let mut waiting = lock(&self.waiting);
        if waiting.closed {
            return Err(CLOSED);
        }
        if waiting.puts.len() >= QUEUE_MAX || waiting.bytes >= QUEUE_BYTES_MAX {
            return Err(PutError::Throttled);
        }
        waiting.bytes += data.len();
        waiting.puts.push(Waiting { shard, data, reply });
        drop(waiting);
        self.arrived.notify_one();
        Ok(answer)
    }

    /// No put is taken any more; those that wait are still flushed.
    pub(super) fn close(&self) {
        lock(&self.waiting).closed = true;
        self.arrived.notify_one();
    }

    /// All that waits; `None` when there will be no more.
    fn take(&self) -> Option<Vec<Waiting>> {
        let mut waiting = lock(&self.waiting);
        while waiting.puts.is_empty() {
            if waiting.closed {
                return None;
            }
            waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        waiting.bytes = 0;
        Some(std::mem::take(&mut waiting.puts))
    }
}

/// Sees to it that nobody waits for a thread that is gone, if it panicked.
struct Ending<'a>(&'a Queue, Health);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.1.fail("the log's thread panicked: start the server anew".to_owned());
            self.0.close();
            // Their senders go: unknown.
            drop(self.0.take());
        }
    }
}

/// A put to a log that was closed.
pub(super) const CLOSED: PutError = PutError::Refused("the log is closed");

/// The segment that comes next.
#[derive(Debug)]
enum Next {
    Made(Segment),
    Making(JoinHandle<io::Result<Segment>>),
    /// There was no space, or no thread: it is made when it is needed.
    Later,
}

/// See the module's docs.
#[derive(Debug)]
pub(super) struct Tail {
    folder: PathBuf,
    directory: u128,
    segment: Arc<Segment>,
    /// Its file, to write to.
    file: File,
    /// Where the next record goes.
    at: u64,
    /// The number of the next group.
    group: u64,
    durable: Arc<RwLock<Durable>>,
    health: Health,
    segment_bytes: u64,
    reserve_bytes: u64,
    free_bytes: super::FreeBytes,
    looked: Option<Instant>,
    next: Next,
    /// When there was no space for the next segment.
    no_space: Option<Instant>,
    inline: bool,
    /// A write or flush failed: nothing is written any more.
    failed: bool,
}

impl Tail {
    /// Goes on behind the last record of a log.
    pub(super) fn new(
        folder: PathBuf,
        directory: u128,
        (segment, next): (Arc<Segment>, Option<Segment>),
        group: u64,
        durable: Durable,
        options: &Options,
    ) -> io::Result<Self> {
        let file = segment.writable()?;
        let at = durable.end;
        let health = Health::default();
        let mut tail = Tail {
            folder,
            directory,
            segment,
            file,
            at,
            group,
            durable: Arc::new(RwLock::new(durable)),
            health,
            segment_bytes: options.segment_bytes,
            reserve_bytes: options.reserve_bytes,
            free_bytes: options.free_bytes.clone(),
            looked: None,
            next: Next::Later,
            no_space: None,
            inline: options.inline,
            failed: false,
        };
        match next {
            Some(next) => tail.next = Next::Made(next),
            None => tail.prepare(),
        }
        Ok(tail)
    }

    /// Whether all that was answered is there, and nothing else can be.
    pub(super) fn is_sound(&self) -> bool {
        !self.failed
    }

    pub(super) fn durable(&self) -> Arc<RwLock<Durable>> {
        self.durable.clone()
    }

    pub(super) fn health(&self) -> Health {
        self.health.clone()
    }

    /// Flushes groups until the queue is closed.
    pub(super) fn run(&mut self, queue: &Queue) {
        let _ending = Ending(queue, self.health.clone());
        while let Some(waiting) = queue.take() {
            let mut waiting = waiting.into_iter().peekable();
            while waiting.peek().is_some() {
                let mut group = Vec::new();
                let outcome = self.flush(|room| {
                    let put = waiting.next_if(|put| record_bytes(put.data.len()) <= room)?;
                    let record = (put.shard, put.data.clone());
                    group.push(put);
                    Some(record)
                });
                match outcome {
                    Ok(offsets) => {
                        for (put, offset) in group.into_iter().zip(offsets) {
                            let _ = put.reply.send(Ok(offset));
                        }
                    }
                    Err(error) => {
                        // Those that were not tried yet fare no better.
                        for put in group.into_iter().chain(waiting.by_ref()) {
                            let _ = put.reply.send(Err(error));
                        }
                    }
                }
            }
        }
    }

    /// Flushes one put.
    pub(super) fn put(&mut self, shard: ShardId, data: Bytes) -> Result<u64, PutError> {
        let mut record = Some((shard, data));
        loop {
            let fits = |room: u64| record.take_if(|(_, data)| record_bytes(data.len()) <= room);
            if let Some(offset) = self.flush(fits)?.first() {
                return Ok(*offset);
            }
        }
    }

    /// Makes one group durable: as many records as `next` gives for the room that is left in the segment.
    fn flush(
        &mut self,
        mut next: impl FnMut(u64) -> Option<(ShardId, Bytes)>,
    ) -> Result<Vec<u64>, PutError> {
        if self.failed {
            return Err(PutError::Refused("the log has failed: see the server's health"));
        }
        self.look_for_space()?;
        let (mut bytes, mut records, mut at) = (Vec::new(), Vec::new(), self.at);
        // Room for the frame that ends the segment is always left.
        let end = self.segment.end() - FRAME_BYTES;
        while let Some((shard, data)) = next(end.saturating_sub(at)) {
            push_record(&mut bytes, at, shard, self.group, &data);
            let offset = at;
            at += record_bytes(data.len());
            records.push((shard, offset, data));
        }
        let full = records.is_empty();
        if full {
            push_end(&mut bytes, at, self.group);
        }
        let written = self.file.write_all_at(&bytes, self.at - self.segment.first);
        if let Err(error) = written.and_then(|()| self.file.sync_data()) {
            return Err(self.fail(&error));
        }
        self.group += 1;
        self.at = at;
        if full {
            self.go_on()?;
            return Ok(Vec::new());
        }
        let mut durable = self.durable.write().unwrap_or_else(PoisonError::into_inner);
        durable.end = at;
        let offsets = records.iter().map(|(_, offset, _)| *offset).collect();
        for (shard, offset, data) in records {
            durable.push(shard, offset, data);
        }
        Ok(offsets)
    }

    /// Goes on in the next segment. If there is no space for it, the next try finds this segment full again: its end
    /// frame is written twice, at the same place, with the same meaning.
    fn go_on(&mut self) -> Result<(), PutError> {
        let made = match std::mem::replace(&mut self.next, Next::Later) {
            Next::Made(segment) => Ok(segment),
            Next::Making(thread) => {
                thread.join().unwrap_or_else(|_| Err(io::Error::other("its maker panicked")))
            }
            Next::Later => {
                let (first, bytes) = (self.segment.end(), self.segment_bytes);
                Segment::create(&self.folder, self.directory, first, bytes)
            }
        };
        let opened = made.and_then(|segment| Ok((segment.writable()?, segment)));
        let (file, segment) = match opened {
            Ok((file, segment)) => (file, Arc::new(segment)),
            Err(error) if is_full(&error) => {
                self.no_space = Some(Instant::now());
                self.health.nearly_full(format!(
                    "{}: no space for the next segment: {error}: appends are refused until there is",
                    self.folder.display()
                ));
                return Err(PutError::Throttled);
            }
            Err(error) => return Err(self.fail(&error)),
        };
        if self.no_space.take().is_some() {
            self.health.recovered();
        }
        self.at = segment.first + HEADER_BYTES;
        let mut durable = self.durable.write().unwrap_or_else(PoisonError::into_inner);
        durable.end = self.at;
        durable.segments.insert(segment.first, segment.clone());
        drop(durable);
        (self.segment, self.file) = (segment, file);
        self.prepare();
        Ok(())
    }

    /// Begins to make the next segment, beside the flushes.
    fn prepare(&mut self) {
        if self.inline {
            return;
        }
        let (folder, directory) = (self.folder.clone(), self.directory);
        let (first, bytes) = (self.segment.end(), self.segment_bytes);
        let make = move || Segment::create(&folder, directory, first, bytes);
        if let Ok(thread) = std::thread::Builder::new().name("log-next".into()).spawn(make) {
            self.next = Next::Making(thread);
        }
    }

    fn look_for_space(&mut self) -> Result<(), PutError> {
        let now = Instant::now();
        if self.no_space.is_some_and(|at| now.duration_since(at) < SPACE_EVERY) {
            return Err(PutError::Throttled);
        }
        let due = self.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK_EVERY);
        if due || self.health.is_nearly_full() {
            self.looked = Some(now);
            match (self.free_bytes)(&self.folder) {
                Ok(free) if free < self.reserve_bytes => {
                    let mib = |bytes: u64| bytes / (1024 * 1024);
                    self.health.nearly_full(format!(
                        "{}: {} MiB of disk are free, fewer than the reserve of {} MiB: appends are refused until there is space",
                        self.folder.display(),
                        mib(free),
                        mib(self.reserve_bytes),
                    ));
                    // Who appends is refused from here on. What is under way is finished with half of the reserve, so
                    // that nothing waits behind it.
                    if free < self.reserve_bytes / 2 {
                        return Err(PutError::Throttled);
                    }
                }
                // Full is full, whatever the file system counts as free: the next segment decides.
                Ok(_) if self.no_space.is_none() => self.health.recovered(),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the free space of the disk cannot be read"),
            }
        }
        Ok(())
    }

    fn fail(&mut self, error: &io::Error) -> PutError {
        self.failed = true;
        let file = self.segment.path.display();
        self.health.fail(format!(
            "{file}: a flush failed: {error}: look at the disk, then start the server anew"
        ));
        // It may be on the disk: what is read at the next start decides.
        PutError::Unknown
    }
}

impl Drop for Tail {
    /// Waits for the maker of the next segment, which would else go on writing in a folder that is closed.
    fn drop(&mut self) {
        if let Next::Making(thread) = std::mem::replace(&mut self.next, Next::Later) {
            let _ = thread.join();
        }
    }
}

/// Whether an error says that the disk, or the share of it that this user may have, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
