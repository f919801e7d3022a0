//! One machine: a log and a store on local disk.
//!
//! The log is the commit point: what it has flushed is there. The store is a fold of the log and needs no flush of its
//! own: what a power cut takes from its end is folded again from the checkpoint that is left, since a checkpoint is
//! written after the rows that it vouches for, and the engine loses nothing but the end of what was written.

mod directory;
mod health;
mod log;
mod recover;
mod row;
mod segment;
mod store;
mod tail;
mod verify;

use std::{fmt, io, path::Path, sync::Arc};

pub use directory::{Directory, DirectoryError, SHARDS_MAX};
pub use health::{Health, State};
pub use log::DiskLog;
pub use recover::OpenError;
pub use segment::{Damage, ReadError};
pub use store::{DiskStore, StoreOpenError};
pub use verify::{Report, verify};

/// Reads how many bytes are free on the disk of a folder.
#[derive(Clone)]
pub struct FreeBytes(Arc<ReadFree>);

type ReadFree = dyn Fn(&Path) -> io::Result<u64> + Send + Sync;

impl FreeBytes {
    /// Asks `read` instead of the operating system.
    pub fn by(read: impl Fn(&Path) -> io::Result<u64> + Send + Sync + 'static) -> Self {
        FreeBytes(Arc::new(read))
    }
}

impl std::ops::Deref for FreeBytes {
    type Target = ReadFree;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl fmt::Debug for FreeBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FreeBytes")
    }
}

/// What may be set about the files of one machine.
#[derive(Debug, Clone)]
pub struct Options {
    /// Shards of a new directory; of one that is there already, the number that it must have. `None`: as it is, or one.
    pub shards: Option<u32>,
    /// Bytes of a segment of the log, made ahead; at least 4 MiB.
    pub segment_bytes: u64,
    /// Bytes of the newest records that are kept in memory for the readers of the log.
    pub recent_bytes: usize,
    /// Bytes of disk that must be free; below it appends are refused.
    pub reserve_bytes: u64,
    /// Bytes of the store's two caches of what was read: one of its files, one of events.
    pub cache_bytes: u64,
    /// Bytes that the store gathers in memory before it writes them out.
    pub write_buffer_bytes: u64,
    /// Flush in the caller of a put, rather than in a thread that gathers many: slower, and the same in every run.
    pub inline: bool,
    /// How the free space is read.
    pub free_bytes: FreeBytes,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            shards: None,
            segment_bytes: 64 * 1024 * 1024,
            recent_bytes: 32 * 1024 * 1024,
            reserve_bytes: 256 * 1024 * 1024,
            cache_bytes: 128 * 1024 * 1024,
            write_buffer_bytes: 64 * 1024 * 1024,
            inline: false,
            free_bytes: FreeBytes::by(|path| fs4::available_space(path)),
        }
    }
}

/// Smallest segment: a record of the largest size must fit several times.
pub const SEGMENT_BYTES_MIN: u64 = 4 * 1024 * 1024;

/// An open data directory with its log and store.
#[derive(Debug)]
pub struct Disk {
    /// The directory.
    pub directory: Arc<Directory>,
    /// The log.
    pub log: Arc<DiskLog>,
    /// The store.
    pub store: Arc<DiskStore>,
    /// How they are.
    pub health: Health,
    /// What was set about them.
    pub(crate) options: Options,
}

/// Opens a data directory, and makes it if it is not there. What a crash left at the end of the log is mended; all other
/// damage is an error that names the file.
pub fn open(path: &Path, options: &Options) -> Result<Disk, OpenError> {
    recover::open(path, options)
}

impl Disk {
    /// How it is, after a look whether there is space again.
    pub fn condition(&self) -> State {
        let state = self.health.state();
        if let State::NearlyFull(_) = state
            && (self.options.free_bytes)(self.directory.path())
                .is_ok_and(|free| free >= self.options.reserve_bytes)
        {
            self.health.recovered();
            return self.health.state();
        }
        state
    }

    /// Flushes everything and says so in the directory, so that the next start can tell whether anything is missing.
    pub fn close(&self) -> io::Result<()> {
        self.store.persist()?;
        if let Some(end) = self.log.close() {
            self.directory.write_clean(directory::Clean { end })?;
        }
        Ok(())
    }
}
