//! The files of the log: their format, and reading them.
//!
//! ```text
//! segment   00000000000067108864.log   named by the offset of its first byte in the whole log
//!   header  64 bytes: magic, version, directory, offset, size, CRC-32
//!   frame   32 bytes: magic, length, CRC-32, shard, group, offset; then the record, padded to 8 bytes
//!   …
//!   end     a frame of its own magic: the log goes on in the next segment
//!   zeros   written ahead, so that a flush changes no metadata of the file
//! ```
//!
//! A *group* is what one flush made durable; groups are numbered, and each begins only when the one before it
//! is flushed. A frame names its offset, so that a copy of it elsewhere is no frame. The position of a record is the
//! offset of its frame.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use stormkeep_core::{limits::ENTRY_BYTES_MAX, shard::ShardId};

const SEGMENT_MAGIC: [u8; 8] = *b"SKEEPLOG";
const SEGMENT_VERSION: u32 = 1;
/// Bytes of a segment's header.
pub(crate) const HEADER_BYTES: u64 = 64;
/// Bytes of a frame's header.
pub(crate) const FRAME_BYTES: u64 = 32;
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
    /// The log goes on in the next segment.
    End {
        group: u64,
    },
    /// Nothing was written here yet.
    Blank,
}

/// One segment, open.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
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
        let file =
            File::options().create(true).truncate(true).read(true).write(true).open(&unfinished)?;
        // Real zeros: blocks that are merely reserved cost a change of metadata at their first flush.
        let zeros = vec![0; 1024 * 1024];
        let mut at = 0;
        while at < bytes {
            let count = zeros.len().min((bytes - at) as usize);
            file.write_all_at(&zeros[..count], at)?;
            at += count as u64;
        }
        file.write_all_at(&header(directory, first, bytes), 0)?;
        file.sync_all()?;
        std::fs::rename(&unfinished, &path)?;
        File::open(folder)?.sync_all()?;
        Ok(Segment { path, file, first, bytes })
    }

    /// Opens a segment and checks its header.
    pub(crate) fn open(path: &Path, directory: u128) -> Result<Segment, ReadError> {
        let io = |error| ReadError::Io { file: path.to_owned(), error };
        let file = File::options().read(true).write(true).open(path).map_err(io)?;
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
        Ok(Segment { path: path.to_owned(), file, first, bytes })
    }

    /// The offset behind its last byte.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.bytes
    }

    pub(crate) fn damage(&self, offset: u64, what: impl Into<String>) -> Damage {
        Damage { file: self.path.clone(), at: offset - self.first, what: what.into() }
    }

    /// Bytes of the file from an offset of the log on.
    fn bytes_at(&self, offset: u64, count: u64) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![0; count.min(self.end() - offset) as usize];
        self.file
            .read_exact_at(&mut bytes, offset - self.first)
            .map_err(|error| ReadError::Io { file: self.path.clone(), error })?;
        Ok(bytes)
    }
}

/// Reads the frames of one segment, in order.
pub(crate) struct Frames<'a> {
    segment: &'a Segment,
    /// What was read of the file, and the offset of its first byte.
    chunk: Bytes,
    chunk_at: u64,
    at: u64,
}

impl<'a> Frames<'a> {
    /// Begins at an offset of the log, or with the first frame.
    pub(crate) fn at(segment: &'a Segment, offset: Option<u64>) -> Self {
        let at = offset.unwrap_or(segment.first + HEADER_BYTES);
        Frames { segment, chunk: Bytes::new(), chunk_at: at, at }
    }

    /// The offset of the frame that is read next.
    pub(crate) fn offset(&self) -> u64 {
        self.at
    }

    /// Reads the next frame. A damaged one is read again by the next call.
    pub(crate) fn next(&mut self) -> Result<Frame, ReadError> {
        if self.at + FRAME_BYTES > self.segment.end() {
            // A writer leaves room for the end.
            let damage = self.segment.damage(self.at, "the segment ends without its end frame");
            return Err(damage.into());
        }
        let head = self.take(FRAME_BYTES)?;
        if head.iter().all(|b| *b == 0) {
            return Ok(Frame::Blank);
        }
        let (segment, at) = (self.segment, self.at);
        let damaged = |what: &str| Err(segment.damage(at, what).into());
        let length = u64::from(u32::from_le_bytes(array(&head, 4)));
        let crc = u32::from_le_bytes(array(&head, 8));
        let shard = ShardId(u32::from_le_bytes(array(&head, 12)));
        let group = u64::from_le_bytes(array(&head, 16));
        let magic: [u8; 4] = array(&head, 0);
        if magic != RECORD_MAGIC && magic != END_MAGIC {
            return damaged("this is no frame");
        }
        if u64::from_le_bytes(array(&head, 24)) != self.at {
            return damaged("the frame belongs elsewhere");
        }
        if length > ENTRY_BYTES_MAX as u64 || self.at + FRAME_BYTES + length > self.segment.end() {
            return damaged("the frame's length is beyond all bounds");
        }
        let whole = self.take(FRAME_BYTES + length)?;
        let data = whole.slice(FRAME_BYTES as usize..);
        if checksum(&whole[..FRAME_BYTES as usize], &data) != crc {
            return damaged("the record's checksum does not match");
        }
        if magic == END_MAGIC {
            return Ok(Frame::End { group });
        }
        self.at += padded(FRAME_BYTES + length);
        // A copy, so that one small record does not keep a whole chunk.
        let data = Bytes::copy_from_slice(&data);
        Ok(Frame::Record { shard, group, data, next: self.at })
    }

    /// Bytes from the current offset on, read ahead.
    fn take(&mut self, count: u64) -> Result<Bytes, ReadError> {
        let held = self.chunk_at + self.chunk.len() as u64;
        if self.at < self.chunk_at || self.at + count > held {
            self.chunk = self.segment.bytes_at(self.at, count.max(CHUNK_BYTES))?.into();
            self.chunk_at = self.at;
        }
        let from = (self.at - self.chunk_at) as usize;
        Ok(self.chunk.slice(from..from + count as usize))
    }
}

/// Looks for a whole frame of group `group_min` or later, anywhere from an offset on.
pub(crate) fn find_later(
    segment: &Segment,
    offset: u64,
    group_min: u64,
) -> Result<Option<u64>, ReadError> {
    let bytes = segment.bytes_at(offset, segment.end() - offset)?;
    let starts = (0..bytes.len()).step_by(8);
    for at in starts.filter(|at| {
        let magic = bytes.get(*at..*at + 4);
        magic == Some(&RECORD_MAGIC[..]) || magic == Some(&END_MAGIC[..])
    }) {
        let frame = Frames::at(segment, Some(offset + at as u64)).next();
        if let Ok(Frame::Record { group, .. } | Frame::End { group }) = frame
            && group >= group_min
        {
            return Ok(Some(offset + at as u64));
        }
    }
    Ok(None)
}

/// Appends a record's frame to what is to be written at `offset`.
pub(crate) fn push_record(
    into: &mut Vec<u8>,
    offset: u64,
    shard: ShardId,
    group: u64,
    data: &[u8],
) {
    push(into, RECORD_MAGIC, offset, shard, group, data);
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
