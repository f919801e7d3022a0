use std::{fmt, future::Future, str::FromStr};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::shard::{ShardId, ShardInfo};

/// The place of an entry in its shard's log: up to 192 bits, written in decimal, as the sequence
/// numbers of Kinesis (56 digits) are. Comparable within one shard only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    high: u64,
    low: u128,
}

impl Position {
    /// The position of a log that counts its entries.
    pub const fn new(low: u128) -> Self {
        Position { high: 0, low }
    }

    /// The number that it was made of, if its log counts its entries.
    pub const fn low(self) -> u128 {
        self.low
    }

    /// Its 192 bits, the highest first: bytes that sort as positions do.
    pub fn to_be_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.high.to_be_bytes());
        bytes[8..].copy_from_slice(&self.low.to_be_bytes());
        bytes
    }

    /// The position of these bytes.
    pub fn from_be_bytes(bytes: [u8; 24]) -> Self {
        let (mut high, mut low) = ([0; 8], [0; 16]);
        high.copy_from_slice(&bytes[..8]);
        low.copy_from_slice(&bytes[8..]);
        Position { high: u64::from_be_bytes(high), low: u128::from_be_bytes(low) }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Long division by 10^18 over three 64-bit limbs, high to low.
        const CHUNK: u128 = 1_000_000_000_000_000_000;
        let mut limbs = [self.high, (self.low >> 64) as u64, self.low as u64];
        let mut chunks = Vec::new();
        while limbs != [0; 3] {
            let mut rest = 0u128;
            for limb in &mut limbs {
                let value = (rest << 64) | u128::from(*limb);
                *limb = (value / CHUNK) as u64;
                rest = value % CHUNK;
            }
            chunks.push(rest);
        }
        write!(f, "{}", chunks.pop().unwrap_or(0))?;
        chunks.iter().rev().try_for_each(|chunk| write!(f, "{chunk:018}"))
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{self}")
    }
}

/// Text is not a [`Position`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("position: {0:?} is not a decimal number below 2^192")]
pub struct InvalidPosition(String);

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidPosition(text.to_owned());
        if text.is_empty() {
            return Err(invalid());
        }
        let mut limbs = [0u64; 3];
        for c in text.chars() {
            let mut carry = u128::from(c.to_digit(10).ok_or_else(invalid)?);
            for limb in limbs.iter_mut().rev() {
                let value = u128::from(*limb) * 10 + carry;
                *limb = value as u64;
                carry = value >> 64;
            }
            if carry != 0 {
                return Err(invalid());
            }
        }
        Ok(Position { high: limbs[0], low: (u128::from(limbs[1]) << 64) | u128::from(limbs[2]) })
    }
}

/// Where a read begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    /// At the oldest entry that the log still holds.
    Oldest,
    /// Behind this position.
    After(Position),
    /// Where an earlier read ended: a token of the log's own, which may expire.
    Token(String),
}

/// One record as it was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Its place.
    pub position: Position,
    /// Its bytes.
    pub data: Bytes,
}

/// A part of a shard's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Records in order; may be empty although more follow.
    pub records: Vec<LogRecord>,
    /// Where to go on; `None`: the shard is closed, and this was its end.
    pub next: Option<Cursor>,
    /// Whether the read has reached the newest record that can be read now.
    pub at_tip: bool,
}

/// A put that is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Put {
    /// The shard that the record is in; another than was asked for, if that one was closed.
    pub shard: ShardId,
    /// Its place there.
    pub position: Position,
}

/// Why a put is not confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// *no*: the log refuses it: too large, or no such shard.
    #[error("the log refuses the record: {0}")]
    Refused(&'static str),
    /// *busy*: the shard's limit of bytes or records a second is reached.
    #[error("the log throttles this shard")]
    Throttled,
    /// *unknown*: no answer in time; the record may be there, and may yet appear, even more than once.
    #[error("no answer from the log in time")]
    Unknown,
}

/// Why a read of a log has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadLogError {
    /// The shard's limit of reads or bytes a second is reached; try later.
    #[error("the log throttles reads of this shard")]
    Throttled,
    /// The cursor's token has expired: go on with [`Cursor::After`] the last position read.
    #[error("the cursor has expired")]
    Expired,
    /// The log no longer holds all that follows the position.
    #[error("the log has dropped records behind this position")]
    Trimmed,
    /// The log could not be reached in time.
    #[error("the log could not be reached in time")]
    Unavailable,
}

/// Why the shards of a log cannot be listed or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// *no*: the log refuses the change.
    #[error("the log refuses: {0}")]
    Refused(&'static str),
    /// *unknown*: no answer in time.
    #[error("the log could not be reached in time")]
    Unavailable,
}

/// The ordered, durable record of each shard: the commit point.
///
/// What it must guarantee:
/// - a put to a shard that begins after another put was confirmed there gets a higher position;
///   concurrent puts may land in any order;
/// - a confirmed record is read by every later read that passes its position, once, and at that
///   position, until it is trimmed by age; a read never skips a record that it will show later;
/// - a put that was answered *unknown* may land, once or more, at any later time;
/// - a closed shard takes no record; its children take what is put to it, and their answer names them.
///
/// It need not compare: there is no conditional put.
pub trait Log: Send + Sync + 'static {
    /// All shards that still hold records, closed ones too.
    fn shards(&self) -> impl Future<Output = Result<Vec<ShardInfo>, LogError>> + Send;

    /// Puts one record of at most [`ENTRY_BYTES_MAX`](crate::limits::ENTRY_BYTES_MAX) bytes to a shard.
    /// `after` is the last position known there: the record's will be higher.
    fn put(
        &self,
        shard: &ShardInfo,
        after: Option<Position>,
        data: Bytes,
    ) -> impl Future<Output = Result<Put, PutError>> + Send;

    /// Reads a page of records.
    fn read(
        &self,
        shard: ShardId,
        from: Cursor,
    ) -> impl Future<Output = Result<Page, ReadLogError>> + Send;

    /// Closes a shard and opens two children: keys below `at`, and the rest.
    fn split(&self, shard: ShardId, at: u128) -> impl Future<Output = Result<(), LogError>> + Send;

    /// Closes two neighbouring shards and opens one child of both.
    fn merge(&self, a: ShardId, b: ShardId) -> impl Future<Output = Result<(), LogError>> + Send;
}
