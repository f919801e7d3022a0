//! The files of the log: their format, and reading them.
//!
//! ```text
//! segment   00000000000067108864.log   named by the offset of its first byte in the whole log
//!   header  64 bytes: magic, version, directory, offset, size, CRC-32
//!   frame   32 bytes: magic, length, CRC-32, shard, group, offset; then the record, padded to 8 bytes;
//!           the first frame of a group has a magic of its own
//!   …
//!   end     a frame of its own magic: the log goes on in the next segment
//!   zeros   written ahead, so that a flush changes no metadata of the file
//! ```
//!
//! A *group* is what one flush made durable; groups are numbered, and each begins only when the one before it
//! is flushed. A frame names its offset, so that a copy of it elsewhere is no frame. The position of a record is the
//! offset of its frame.
//!
//! A segment is open only while it is read or written: a log may have more of them than a process may have open files.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use stormkeep_core::{limits::ENTRY_BYTES_MAX, shard::ShardId};

use super::directory::sync_folder;

const SEGMENT_MAGIC: [u8; 8] = *b"SKEEPLOG";
const SEGMENT_VERSION: u32 = 1;
/// Bytes of a segment's header.
pub(crate) const HEADER_BYTES: u64 = 64;
/// Bytes of a frame's header.
pub(crate) const FRAME_BYTES: u64 = 32;
/// The first record of a group.
const FIRST_MAGIC: [u8; 4] = *b"SKG1";
const RECORD_MAGIC: [u8; 4] = *b"SKR1";
const END_MAGIC: [u8; 4] = *b"SKE1";
/// Bytes that a reader asks the file for at once.
const CHUNK_BYTES: u64 = 512 * 1024;

/// Damage: bytes that are not what was written there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: byte {at}: {what}", file.display())]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// The offset in it.
    pub at: u64,
    /// What is wrong.
    pub what: String,
}

/// Why a part of the log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file system failed.
    #[error("{}: {error}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// See [`Damage`].
    #[error(transparent)]
    Damage(#[from] Damage),
}

/// What stands at a place of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Record {
        shard: ShardId,
        group: u64,
        data: Bytes,
        next: u64,
    },
    /// The log goes on in the next segment. A group of its own.
    End {
        group: u64,
    },
    /// Nothing was written here yet.
    Blank,
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    /// The offset of its first byte in the whole log.
    pub(crate) first: u64,
    pub(crate) bytes: u64,
}

impl Segment {
    pub(crate) fn path_of(folder: &Path, first: u64) -> PathBuf {
        folder.join(format!("{first:020}.log"))
    }

    /// Creates a segment of zeros, whole and durable before it has its name.
    pub(crate) fn create(
        folder: &Path,
        directory: u128,
        first: u64,
        bytes: u64,
    ) -> io::Result<Segment> {
        let path = Segment::path_of(folder, first);
        let unfinished = path.with_extension("new");
        let made = fill(&unfinished, bytes, &header(directory, first, bytes))
            .and_then(|()| std::fs::rename(&unfinished, &path));
        if made.is_err() {
            // A part of a segment must not take the space that is missing.
            let _ = std::fs::remove_file(&unfinished);
        }
        made?;
        sync_folder(folder)?;
        Ok(Segment { path, first, bytes })
    }

    /// Finds a segment and checks its header.
    pub(crate) fn open(path: &Path, directory: u128) -> Result<Segment, ReadError> {
        let io = |error| ReadError::Io { file: path.to_owned(), error };
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut found = [0; HEADER_BYTES as usize];
        let damage = |what: String| Damage { file: path.to_owned(), at: 0, what };
        if length < HEADER_BYTES {
            return Err(damage(format!("{length} bytes are no segment")).into());
        }
        file.read_exact_at(&mut found, 0).map_err(io)?;
        let version = u32::from_le_bytes(array(&found, 8));
        if found[..8] != SEGMENT_MAGIC {
            return Err(damage("this is no segment of a log of Stormkeep".into()).into());
        }
        if version != SEGMENT_VERSION {
            let what = format!("format {version}; this build knows {SEGMENT_VERSION}: upgrade it");
            return Err(damage(what).into());
        }
        let (first, bytes) =
            (u64::from_le_bytes(array(&found, 32)), u64::from_le_bytes(array(&found, 40)));
        let expected = header(u128::from_le_bytes(array(&found, 16)), first, bytes);
        if found != expected {
            return Err(damage("the header's checksum does not match".into()).into());
        }
        if u128::from_le_bytes(array(&found, 16)) != directory {
            return Err(damage("the segment belongs to another data directory".into()).into());
        }
        if bytes != length || Segment::path_of(path.parent().unwrap_or(path), first) != path {
            let what = format!(
                "the header says offset {first} and {bytes} bytes, the file has another name or size ({length} bytes)"
            );
            return Err(damage(what).into());
        }
        Ok(Segment { path: path.to_owned(), first, bytes })
    }

    /// The offset behind its last byte.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.bytes
    }

    pub(crate) fn damage(&self, offset: u64, what: impl Into<String>) -> Damage {
        Damage { file: self.path.clone(), at: offset - self.first, what: what.into() }
    }

    /// The file, to write to it.
    pub(crate) fn writable(&self) -> io::Result<File> {
        File::options().write(true).open(&self.path)
    }

    fn failed(&self, error: io::Error) -> ReadError {
        ReadError::Io { file: self.path.clone(), error }
    }

    /// Bytes of the file from an offset of the log on, `count` at the most.
    fn bytes_at(&self, file: &File, offset: u64, count: u64) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![0; count.min(self.end().saturating_sub(offset)) as usize];
        file.read_exact_at(&mut bytes, offset - self.first).map_err(|error| self.failed(error))?;
        Ok(bytes)
    }

    /// Whether there are only zeros from an offset of the log on.
    pub(crate) fn is_blank_from(&self, offset: u64) -> Result<bool, ReadError> {
        let file = File::open(&self.path).map_err(|error| self.failed(error))?;
        let mut at = offset;
        while at < self.end() {
            let bytes = self.bytes_at(&file, at, CHUNK_BYTES)?;
            if bytes.iter().any(|b| *b != 0) {
                return Ok(false);
            }
            at += bytes.len() as u64;
        }
        Ok(true)
    }

    /// Looks for a whole frame that is `wanted` by its group, and by whether it is the first of it, anywhere from an
    /// offset on.
    pub(crate) fn find(
        &self,
        offset: u64,
        wanted: impl Fn(u64, bool) -> bool,
    ) -> Result<Option<u64>, ReadError> {
        let file = File::open(&self.path).map_err(|error| self.failed(error))?;
        let bytes = self.bytes_at(&file, offset, self.bytes)?;
        for start in (0..bytes.len()).step_by(8) {
            let at = offset + start as u64;
            let Some(head) = bytes[start..].first_chunk() else { break };
            if let Ok(Some(head)) = Head::read(head, at, self.end())
                && bytes.get(start..start + head.whole() as usize).is_some_and(|b| head.sums(b))
                && wanted(head.group, head.magic != RECORD_MAGIC)
            {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }
}

/// Writes a file of zeros behind a header, durably.
fn fill(path: &Path, bytes: u64, header: &[u8]) -> io::Result<()> {
    let file = File::options().create(true).truncate(true).write(true).open(path)?;
    // Real zeros: blocks that are merely reserved cost a change of metadata at their first flush.
    let zeros = vec![0; 1024 * 1024];
    let mut at = 0;
    while at < bytes {
        let count = zeros.len().min((bytes - at) as usize);
        file.write_all_at(&zeros[..count], at)?;
        at += count as u64;
    }
    file.write_all_at(header, 0)?;
    file.sync_all()
}

/// The header of a frame.
struct Head {
    magic: [u8; 4],
    length: u64,
    crc: u32,
    shard: ShardId,
    group: u64,
}

impl Head {
    /// Reads the header of the frame at an offset; `None`: there are only zeros.
    fn read(
        bytes: &[u8; FRAME_BYTES as usize],
        at: u64,
        end: u64,
    ) -> Result<Option<Head>, &'static str> {
        if bytes.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let head = Head {
            magic: array(bytes, 0),
            length: u32::from_le_bytes(array(bytes, 4)).into(),
            crc: u32::from_le_bytes(array(bytes, 8)),
            shard: ShardId(u32::from_le_bytes(array(bytes, 12))),
            group: u64::from_le_bytes(array(bytes, 16)),
        };
        if ![FIRST_MAGIC, RECORD_MAGIC, END_MAGIC].contains(&head.magic) {
            return Err("this is no frame");
        }
        if u64::from_le_bytes(array(bytes, 24)) != at {
            return Err("the frame belongs elsewhere");
        }
        if head.length > ENTRY_BYTES_MAX as u64 || at + head.whole() > end {
            return Err("the frame's length is beyond all bounds");
        }
        Ok(Some(head))
    }

    /// Bytes of the frame, without what pads it.
    fn whole(&self) -> u64 {
        FRAME_BYTES + self.length
    }

    /// Whether the checksum of the whole frame is right.
    fn sums(&self, whole: &[u8]) -> bool {
        let (head, data) = whole.split_at(FRAME_BYTES as usize);
        checksum(head, data) == self.crc
    }
}

/// Reads the frames of one segment, in order.
pub(crate) struct Frames<'a> {
    segment: &'a Segment,
    file: Option<File>,
    /// What was read of the file, and the offset of its first byte.
    chunk: Bytes,
    chunk_at: u64,
    at: u64,
}

impl<'a> Frames<'a> {
    /// Begins at an offset of the log, or with the first frame.
    pub(crate) fn at(segment: &'a Segment, offset: Option<u64>) -> Self {
        let at = offset.unwrap_or(segment.first + HEADER_BYTES);
        Frames { segment, file: None, chunk: Bytes::new(), chunk_at: at, at }
    }

    /// The offset of the frame that is read next.
    pub(crate) fn offset(&self) -> u64 {
        self.at
    }

    /// Reads the next frame. A damaged one is read again by the next call.
    pub(crate) fn next(&mut self) -> Result<Frame, ReadError> {
        let (segment, at) = (self.segment, self.at);
        let damaged = |what: &str| ReadError::from(segment.damage(at, what));
        if at + FRAME_BYTES > segment.end() {
            // A writer leaves room for the end.
            return Err(damaged("the segment ends without its end frame"));
        }
        let head = array(&self.take(FRAME_BYTES)?, 0);
        let Some(head) = Head::read(&head, at, segment.end()).map_err(damaged)? else {
            return Ok(Frame::Blank);
        };
        let whole = self.take(head.whole())?;
        if !head.sums(&whole) {
            return Err(damaged("the record's checksum does not match"));
        }
        let Head { magic, shard, group, .. } = head;
        if magic == END_MAGIC {
            return Ok(Frame::End { group });
        }
        self.at += padded(head.whole());
        // A copy, so that one small record does not keep a whole chunk.
        let data = Bytes::copy_from_slice(&whole[FRAME_BYTES as usize..]);
        Ok(Frame::Record { shard, group, data, next: self.at })
    }

    /// Bytes from the current offset on, read ahead. The caller has made sure that the segment has as many.
    fn take(&mut self, count: u64) -> Result<Bytes, ReadError> {
        let held = self.chunk_at + self.chunk.len() as u64;
        if self.at < self.chunk_at || self.at + count > held {
            let file = match self.file.take() {
                Some(file) => file,
                None => File::open(&self.segment.path).map_err(|e| self.segment.failed(e))?,
            };
            let chunk = self.segment.bytes_at(&file, self.at, count.max(CHUNK_BYTES))?;
            (self.file, self.chunk, self.chunk_at) = (Some(file), chunk.into(), self.at);
        }
        let from = (self.at - self.chunk_at) as usize;
        Ok(self.chunk.slice(from..from + count as usize))
    }
}

/// Appends a record's frame, to be written at `offset`, to those of its group.
pub(crate) fn push_record(
    into: &mut Vec<u8>,
    offset: u64,
    shard: ShardId,
    group: u64,
    data: &[u8],
) {
    let magic = if into.is_empty() { FIRST_MAGIC } else { RECORD_MAGIC };
    push(into, magic, offset, shard, group, data);
}

/// Appends the frame that says that the log goes on in the next segment.
pub(crate) fn push_end(into: &mut Vec<u8>, offset: u64, group: u64) {
    push(into, END_MAGIC, offset, ShardId(0), group, &[]);
}

fn push(into: &mut Vec<u8>, magic: [u8; 4], offset: u64, shard: ShardId, group: u64, data: &[u8]) {
    let mut head = [0; FRAME_BYTES as usize];
    head[..4].copy_from_slice(&magic);
    head[4..8].copy_from_slice(&(data.len() as u32).to_le_bytes());
    head[12..16].copy_from_slice(&shard.0.to_le_bytes());
    head[16..24].copy_from_slice(&group.to_le_bytes());
    head[24..32].copy_from_slice(&offset.to_le_bytes());
    let crc = checksum(&head, data);
    head[8..12].copy_from_slice(&crc.to_le_bytes());
    into.extend_from_slice(&head);
    into.extend_from_slice(data);
    into.resize(into.len().next_multiple_of(8), 0);
}

/// Bytes that a record takes.
pub(crate) fn record_bytes(data: usize) -> u64 {
    padded(FRAME_BYTES + data as u64)
}

fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(8)
}

/// The CRC-32 of a frame, but for the field that holds it.
fn checksum(head: &[u8], data: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[..8]);
    hasher.update(&head[12..]);
    hasher.update(data);
    hasher.finalize()
}

fn header(directory: u128, first: u64, bytes: u64) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..8].copy_from_slice(&SEGMENT_MAGIC);
    header[8..12].copy_from_slice(&SEGMENT_VERSION.to_le_bytes());
    header[16..32].copy_from_slice(&directory.to_le_bytes());
    header[32..40].copy_from_slice(&first.to_le_bytes());
    header[40..48].copy_from_slice(&bytes.to_le_bytes());
    let crc = crc32fast::hash(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// `N` bytes from an index on, which the caller has made sure of.
fn array<const N: usize>(bytes: &[u8], from: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[from..from + N]);
    array
}
