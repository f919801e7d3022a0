//! The log and the store of one machine, in their files: what was answered is there after a crash, and what is damaged is
//! found, named, and never served.
//!
//! What happens to a flipped byte:
//!
//! | in | what happens |
//! | --- | --- |
//! | `FORMAT`, `EPOCHS`, `CLEAN` | refused at the start: its checksum |
//! | the header of a segment | refused at the start: its checksum |
//! | a record of the last segment, not of its last group | refused at the start: later groups follow |
//! | the last group, after a clean close | refused at the start: `CLEAN` says that the log went on |
//! | the last group, after a crash | cut off like a torn write, if the store was not folded further |
//! | a record of an earlier segment | found when it is read, and by `verify`; the reader stops there |
//! | bytes between records | nothing: they are not read; behind the end they are zeros again at the next start |
//! | the store | an error that names it, at the start or when the row is read; or the engine folds less of it, and the log heals it |

#![allow(clippy::unwrap_used)] // a test: what is wrong here must stop it

mod directory;
mod flipped;
mod log;
mod store;
mod torn;

use std::{fs, future::Future, io::ErrorKind, path::Path};

use bytes::Bytes;
use stormkeep::disk::{self, Disk, DiskLog, Options};
use stormkeep_core::{
    env::{Cursor, Log, Position, ReadLogError},
    shard::{ShardId, ShardInfo},
};

/// Waits for something that never waits for long.
fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Small files, and each put flushed by its caller.
fn options(shards: u32) -> Options {
    Options {
        shards: Some(shards),
        segment_bytes: disk::SEGMENT_BYTES_MIN,
        reserve_bytes: 0,
        cache_bytes: 8 * 1024 * 1024,
        write_buffer_bytes: 8 * 1024 * 1024,
        inline: true,
        ..Options::default()
    }
}

fn open(path: &Path, shards: u32) -> Disk {
    disk::open(path, &options(shards)).unwrap()
}

/// Why it cannot be opened.
fn refused(path: &Path, options: &Options) -> String {
    disk::open(path, options).expect_err("it was opened").to_string()
}

fn shard(log: &DiskLog, id: u32) -> ShardInfo {
    wait(log.shards()).unwrap().into_iter().find(|s| s.id == ShardId(id)).unwrap()
}

/// Bytes that tell one record from another.
fn data(seed: u64, count: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..count).map(|_| next()).collect()
}

type Records = Vec<(Position, Bytes)>;

fn put(log: &DiskLog, to: u32, data: Bytes) -> (Position, Bytes) {
    let put = wait(log.put(&shard(log, to), None, data.clone())).unwrap();
    assert_eq!(put.shard, ShardId(to));
    (put.position, data)
}

/// All records of a shard, page by page; or those up to where it cannot be read.
fn read_to_error(log: &DiskLog, of: u32) -> (Records, Option<ReadLogError>) {
    let (mut records, mut cursor) = (Vec::new(), Cursor::Oldest);
    loop {
        match wait(log.read(ShardId(of), cursor)) {
            Ok(page) => {
                records.extend(page.records.into_iter().map(|r| (r.position, r.data)));
                if page.at_tip {
                    return (records, None);
                }
                cursor = page.next.unwrap();
            }
            Err(error) => return (records, Some(error)),
        }
    }
}

fn read(log: &DiskLog, of: u32) -> Records {
    let (records, error) = read_to_error(log, of);
    assert_eq!(error, None);
    records
}

/// A copy of a data directory as a crash leaves it: whatever its process does later is not in it.
fn copy(from: &Path, to: &Path) {
    // The process gives a file that it has made ahead its name whenever it likes: then once more.
    while let Err(error) = copied(from, to) {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        fs::remove_dir_all(to).unwrap();
    }
}

fn copied(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copied(&from, &to)?;
        } else {
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}

/// The files in a folder and below, in order.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// The last segment of a log that is not blank, and its first offset.
fn last_segment(path: &Path) -> (std::path::PathBuf, u64) {
    let mut segments = files(&path.join("log"));
    segments.retain(|s| fs::read(s).unwrap()[64..].iter().any(|b| *b != 0));
    let last = segments.pop().unwrap();
    let first = last.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    (last, first)
}

/// Changes some bytes of a file.
fn change(file: &Path, at: u64, change: impl FnOnce(&mut [u8])) {
    let mut bytes = fs::read(file).unwrap();
    change(&mut bytes[at as usize..]);
    fs::write(file, bytes).unwrap();
}
