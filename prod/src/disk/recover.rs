//! Opening a data directory: what a crash left is told apart from damage.
//!
//! A crash, or a power cut, can leave the last group half written; nobody was told that it is there, so it is cut
//! off, and zeros are written in its place, so that nothing of it can be taken for what comes next. A group is written only
//! when the one before it is flushed. So if a frame cannot be read, and behind it there is the beginning of the next
//! group, or anything of a later one, then something that was flushed is damaged: that is an error, and nothing is changed.
//!
//! Damage of the very last group looks like a crash. Two witnesses tell it apart: `CLEAN`, which says where the log ended if
//! it was closed, and the store, which cannot be folded further than the log goes.
//!
//! Only the last segment is read. The others are checked as they are read, and by `stormkeep verify`.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use stormkeep_core::{env::EpochRow, shard::ShardId};

use super::{
    Disk, Options, SEGMENT_BYTES_MIN,
    directory::{Directory, DirectoryError},
    log::{DiskLog, Durable, offset_of},
    segment::{Damage, Frame, Frames, HEADER_BYTES, ReadError, Segment},
    store::{DiskStore, StoreOpenError},
    tail::Tail,
};

/// Why a data directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory itself.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The log could not be read.
    #[error(
        "{0}\n  Restore the directory from a backup, or import an export into a new one; `stormkeep verify` lists all damage."
    )]
    Log(#[from] ReadError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreOpenError),
    /// The file system failed.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// The log is shorter than it was.
    #[error("{}: byte {at}: the log ends here, at {end}, but {witness} says that it went to {expected}: its end is lost or damaged. Restore the directory from a backup, or import an export into a new one", file.display())]
    Short {
        /// The segment that it ends in.
        file: PathBuf,
        /// Where in that file.
        at: u64,
        /// Where it ends.
        end: u64,
        /// Where it ended.
        expected: u64,
        /// What says so.
        witness: &'static str,
    },
    /// A setting that cannot be.
    #[error("disk.segment_bytes: {found}; at least {SEGMENT_BYTES_MIN}")]
    Segment {
        /// What was set.
        found: u64,
    },
}

impl From<Damage> for OpenError {
    fn from(damage: Damage) -> Self {
        OpenError::Log(damage.into())
    }
}

pub(super) fn open(path: &Path, options: &Options) -> Result<Disk, OpenError> {
    if options.segment_bytes < SEGMENT_BYTES_MIN {
        return Err(OpenError::Segment { found: options.segment_bytes });
    }
    let directory = Arc::new(Directory::open(path, options.shards)?);
    let clean = directory.clean()?;
    let io = |path: PathBuf| move |error| OpenError::Io { path, error };
    let segments = segments(&directory.log(), directory.id(), true)?;
    let end = recover(&segments)?;
    let short = |expected: u64, witness: &'static str| {
        let (file, at) = end.place(&segments, &directory.log());
        OpenError::Short { file, at, end: end.offset, expected, witness }
    };
    if let Some(clean) = clean
        && clean.end > end.offset
    {
        return Err(short(clean.end, "CLEAN"));
    }
    let epochs = epochs(&directory, &segments, end.offset)?;
    let store = DiskStore::open(directory.clone(), epochs, directory.documents()?, options)?;
    if let Some(expected) = store.folded_to().map(offset_of)
        && expected >= end.offset
    {
        return Err(short(expected, "store/"));
    }
    // From here on the directory is changed.
    directory.remove_clean().map_err(io(path.to_owned()))?;
    let (last, next) = mend(&directory, &segments, &end, options).map_err(io(directory.log()))?;
    let mut all: BTreeMap<u64, Arc<Segment>> =
        segments.into_iter().filter(|s| s.first <= last.first).map(|s| (s.first, s)).collect();
    all.insert(last.first, last.clone());
    let offset = end.offset.max(last.first + HEADER_BYTES);
    let durable = Durable::new(all, offset, &directory.shards(), options.recent_bytes);
    let tail =
        Tail::new(directory.log(), directory.id(), (last, next), end.group, durable, options)
            .map_err(io(directory.log()))?;
    let health = tail.health();
    store.report_to(health.clone());
    let log = DiskLog::new(tail, directory.clone(), options).map_err(io(directory.log()))?;
    Ok(Disk {
        directory,
        log: Arc::new(log),
        store: Arc::new(store),
        health,
        options: options.clone(),
    })
}

/// All segments of a log, in order, their headers checked. `mend`: remove what was never finished.
pub(super) fn segments(
    folder: &Path,
    directory: u128,
    mend: bool,
) -> Result<Vec<Arc<Segment>>, OpenError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |error| OpenError::Io { path, error }
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(io(folder))? {
        let path = entry.map_err(io(folder))?.path();
        match path.extension().and_then(|e| e.to_str()) {
            Some("log") => paths.push(path),
            Some("new") if !is_numbered(&path) => {
                return Err(DirectoryError::Unknown { path }.into());
            }
            Some("new") if mend => fs::remove_file(&path).map_err(io(&path))?,
            Some("new") => {}
            _ => return Err(DirectoryError::Unknown { path }.into()),
        }
    }
    paths.sort();
    let mut segments: Vec<Arc<Segment>> = Vec::new();
    for path in paths {
        let segment = Segment::open(&path, directory)?;
        let expected = segments.last().map_or(0, |before| before.end());
        if segment.first != expected {
            let missing = Segment::path_of(folder, expected);
            let what = "the segment is missing".to_owned();
            return Err(Damage { file: missing, at: 0, what }.into());
        }
        segments.push(Arc::new(segment));
    }
    Ok(segments)
}

/// Whether a file is named as a segment is.
fn is_numbered(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    stem.len() == 20 && stem.bytes().all(|b| b.is_ascii_digit())
}

/// Where a log ends.
#[derive(Debug)]
pub(super) struct End {
    /// Behind the last record that counts.
    pub(super) offset: u64,
    /// The number of the next group.
    pub(super) group: u64,
    /// The segment that it is in.
    segment: Option<Arc<Segment>>,
    /// Something half written follows.
    pub(super) torn: bool,
}

impl End {
    /// The file that it is in, and where there.
    pub(super) fn place(&self, segments: &[Arc<Segment>], folder: &Path) -> (PathBuf, u64) {
        match segments.iter().rev().find(|s| s.first <= self.offset) {
            Some(segment) => (segment.path.clone(), self.offset.min(segment.end()) - segment.first),
            None => (Segment::path_of(folder, 0), 0),
        }
    }
}

/// Finds the end of a log.
pub(super) fn recover(segments: &[Arc<Segment>]) -> Result<End, ReadError> {
    let none = End { offset: HEADER_BYTES, group: 1, segment: None, torn: false };
    let mut later = segments.iter().rev();
    // The last segment that anything was written to.
    let last = loop {
        let Some(segment) = later.next() else { return Ok(none) };
        if !segment.is_blank_from(segment.first + HEADER_BYTES)? {
            break segment;
        }
    };
    let mut frames = Frames::at(last, None);
    let mut group = None;
    loop {
        let offset = frames.offset();
        match frames.next() {
            Ok(Frame::Record { group: of, .. }) => group = Some(of),
            Ok(Frame::End { group: of }) => {
                let offset = last.end() + HEADER_BYTES;
                return Ok(End { offset, group: of + 1, segment: None, torn: false });
            }
            Err(ReadError::Io { file, error }) => return Err(ReadError::Io { file, error }),
            found @ (Ok(Frame::Blank) | Err(ReadError::Damage(_))) => {
                let before = match (group, later.next()) {
                    (Some(group), _) => group,
                    (None, Some(before)) => last_group(before)?,
                    (None, None) => 0,
                };
                // What was written when this place had been flushed.
                let flushed =
                    |group: u64, first: bool| group > before + 1 || group == before + 1 && first;
                if let Some(later) = last.find(offset, flushed)? {
                    let what = match found {
                        Err(ReadError::Damage(damage)) => damage.what,
                        _ => "zeros where a record should be".to_owned(),
                    };
                    let what =
                        format!("{what}, and byte {} holds a later record", later - last.first);
                    return Err(last.damage(offset, what).into());
                }
                let torn = !last.is_blank_from(offset)?;
                let segment = Some(last.clone());
                return Ok(End { offset, group: before + 1, segment, torn });
            }
        }
    }
}

/// The last group of a segment that is full.
fn last_group(segment: &Arc<Segment>) -> Result<u64, ReadError> {
    let mut frames = Frames::at(segment, None);
    loop {
        match frames.next()? {
            Frame::Record { .. } => {}
            Frame::End { group } => return Ok(group),
            Frame::Blank => {
                let what = "zeros where a record should be";
                return Err(segment.damage(frames.offset(), what).into());
            }
        }
    }
}

/// Cuts off what is half written; returns the segment to go on in, and the one behind it, if there is one.
fn mend(
    directory: &Directory,
    segments: &[Arc<Segment>],
    end: &End,
    options: &Options,
) -> io::Result<(Arc<Segment>, Option<Segment>)> {
    let found = |first: u64| segments.iter().find(|s| s.first == first);
    let segment = match &end.segment {
        Some(segment) => {
            if end.torn {
                cut(segment, end.offset)?;
            }
            segment.clone()
        }
        None => {
            let first = end.offset - HEADER_BYTES;
            match found(first) {
                Some(segment) => segment.clone(),
                None => {
                    let (folder, id) = (directory.log(), directory.id());
                    Arc::new(Segment::create(&folder, id, first, options.segment_bytes)?)
                }
            }
        }
    };
    let next = found(segment.end()).map(|next| Segment::clone(next));
    Ok((segment, next))
}

/// Writes zeros over the rest of a segment.
fn cut(segment: &Segment, offset: u64) -> io::Result<()> {
    let from = offset - segment.first;
    tracing::info!(
        file = %segment.path.display(), byte = from,
        "the last flush before a crash was not finished: cut off; nobody was told that it is there"
    );
    let file = segment.writable()?;
    file.write_all_at(&vec![0; (segment.bytes - from) as usize], from)?;
    file.sync_data()
}

/// Who owns each shard. If the file is gone, the fences in the log say which epochs there were: the next one must be
/// above them all.
fn epochs(
    directory: &Directory,
    segments: &[Arc<Segment>],
    end: u64,
) -> Result<BTreeMap<ShardId, EpochRow>, OpenError> {
    let mut epochs = directory.epochs()?;
    if !epochs.is_empty() {
        return Ok(epochs);
    }
    super::verify::walk(segments, end, |shard, _, data| {
        if let Ok(entry) = stormkeep_core::entry::Entry::decode(data) {
            let epoch = match entry {
                stormkeep_core::entry::Entry::Fence(fence) => fence.epoch,
                stormkeep_core::entry::Entry::Batch(batch) => batch.epoch,
            };
            let row = epochs.entry(shard).or_insert(EpochRow::vacant(shard));
            row.epoch = row.epoch.max(epoch);
        }
    })?;
    Ok(epochs)
}
