//! The end of the log, where it is written: groups of puts, each made durable by one flush.

use std::{
    io,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, PoisonError, RwLock, mpsc},
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

/// How often the free space is looked at.
const SPACE_EVERY: Duration = Duration::from_secs(1);
/// Puts that may wait for the flush; one of each shard is usual.
const QUEUE_MAX: usize = 8192;

/// A put that waits for its flush.
pub(super) struct Waiting {
    shard: ShardId,
    data: Bytes,
    reply: oneshot::Sender<Result<u64, PutError>>,
}

/// Puts that wait.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<(Vec<Waiting>, bool)>,
    arrived: Condvar,
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
        if waiting.1 {
            return Err(PutError::Refused("the log is closed"));
        }
        if waiting.0.len() >= QUEUE_MAX {
            return Err(PutError::Throttled);
        }
        waiting.0.push(Waiting { shard, data, reply });
        drop(waiting);
        self.arrived.notify_one();
        Ok(answer)
    }

    /// No put is taken any more; those that wait are still flushed.
    pub(super) fn close(&self) {
        lock(&self.waiting).1 = true;
        self.arrived.notify_one();
    }

    /// All that waits; `None` when there will be no more.
    fn take(&self) -> Option<Vec<Waiting>> {
        let mut waiting = lock(&self.waiting);
        while waiting.0.is_empty() {
            if waiting.1 {
                return None;
            }
            waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        Some(std::mem::take(&mut waiting.0))
    }
}

/// See the module's docs.
#[derive(Debug)]
pub(super) struct Tail {
    folder: PathBuf,
    directory: u128,
    segment: Arc<Segment>,
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
    /// The next segment, while it is made ready.
    next: Option<mpsc::Receiver<io::Result<Segment>>>,
    inline: bool,
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
    ) -> Self {
        let at = durable.end;
        let health = Health::default();
        let mut tail = Tail {
            folder,
            directory,
            segment,
            at,
            group,
            durable: Arc::new(RwLock::new(durable)),
            health,
            segment_bytes: options.segment_bytes,
            reserve_bytes: options.reserve_bytes,
            free_bytes: options.free_bytes.clone(),
            looked: None,
            next: None,
            inline: options.inline,
        };
        match next {
            Some(next) => {
                let (done, made) = mpsc::channel();
                let _ = done.send(Ok(next));
                tail.next = Some(made);
            }
            None => tail.prepare(),
        }
        tail
    }

    pub(super) fn durable(&self) -> Arc<RwLock<Durable>> {
        self.durable.clone()
    }

    pub(super) fn health(&self) -> Health {
        self.health.clone()
    }

    /// Flushes groups until the queue is closed.
    pub(super) fn run(&mut self, queue: &Queue) {
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
        if self.health.is_failed() {
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
        let written = self.segment.file.write_all_at(&bytes, self.at - self.segment.first);
        if let Err(error) = written.and_then(|()| self.segment.file.sync_data()) {
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

    /// Goes on in the next segment.
    fn go_on(&mut self) -> Result<(), PutError> {
        let made = match self.next.take().map(|made| made.recv()) {
            Some(Ok(made)) => made,
            // It was not begun, or its maker is gone.
            Some(Err(_)) | None => Segment::create(
                &self.folder,
                self.directory,
                self.segment.end(),
                self.segment_bytes,
            ),
        };
        let segment = match made {
            Ok(segment) => Arc::new(segment),
            Err(error) => {
                // The end frame is there, and the next try will find the segment full again: it is written twice, at
                // the same place, with the same meaning.
                let reason = format!("{}: the next segment: {error}", self.folder.display());
                self.health.nearly_full(reason);
                return Err(PutError::Throttled);
            }
        };
        self.at = segment.first + HEADER_BYTES;
        let mut durable = self.durable.write().unwrap_or_else(PoisonError::into_inner);
        durable.end = self.at;
        durable.segments.insert(segment.first, segment.clone());
        drop(durable);
        self.segment = segment;
        self.prepare();
        Ok(())
    }

    /// Begins to make the next segment, beside the flushes.
    fn prepare(&mut self) {
        if self.inline {
            return;
        }
        let (done, made) = mpsc::channel();
        let (folder, directory) = (self.folder.clone(), self.directory);
        let (first, bytes) = (self.segment.end(), self.segment_bytes);
        let make = move || {
            // Nobody waits for it if the process ends: the file has no name of a segment until it is whole.
            let _ = done.send(Segment::create(&folder, directory, first, bytes));
        };
        if std::thread::Builder::new().name("log-next".into()).spawn(make).is_ok() {
            self.next = Some(made);
        }
    }

    fn look_for_space(&mut self) -> Result<(), PutError> {
        let now = Instant::now();
        let due = self.looked.is_none_or(|looked| now.duration_since(looked) >= SPACE_EVERY);
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
                    return Err(PutError::Throttled);
                }
                Ok(_) => self.health.recovered(),
                Err(error) => tracing::warn!(%error, "the free space of the disk cannot be read"),
            }
        }
        Ok(())
    }

    fn fail(&self, error: &io::Error) -> PutError {
        let file = self.segment.path.display();
        self.health.fail(format!(
            "{file}: a flush failed: {error}: look at the disk, then start the server anew"
        ));
        // It may be on the disk: what is read at the next start decides.
        PutError::Unknown
    }
}
