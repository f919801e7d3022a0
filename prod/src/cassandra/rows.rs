//! Rows as bytes, and the partition that each lies in.
//!
//! A value holds what its key does not say, in postcard, behind a checksum and a format's number. A checkpoint is
//! of fixed width instead, so that its bytes sort as checkpoints do.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use stormkeep_core::{
    append::AppendId,
    env::{Position, Progress, Role},
    event::{Event, RecordedEvent},
    head::Head,
    shard::{Checkpoint, ShardId},
    stream::StreamName,
    time::HybridTime,
};

/// Revisions of one partition of `events`: at the most 64 events of 1 MiB each, so 64 MiB.
pub(super) const REVISIONS: i64 = 64;

/// Bits of time in one partition of `shard_events`: 2^25 microseconds are 33.5 s, in which a shard of Kinesis takes
/// 34 MB at the most (1 MB/s). Cassandra's own bytes for each row and the stream's name in it come on top: a shard must be at
/// its limit all the time with events below 100 bytes to reach 100 MB.
const BUCKET_BITS: u32 = 25;

/// Bits of time in one partition of `shard_buckets`: 2^47 microseconds are 4.5 years, or 4.2 million rows of about
/// 13 bytes.
const ERA_BITS: u32 = 47;

/// The last time that has a global position: 51 bits.
const TIME_MAX: u64 = (1 << 51) - 1;

/// Partitions of `checkpoints`. A fold writes its shard's about four times a second, so that one partition for all would
/// be hot with some hundred shards; and sixteen are still read in one query.
const CHECKPOINT_PARTS: u32 = 16;

const FORMAT: u8 = 1;

/// Why a row cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Damaged(String);

fn damaged(what: impl Into<String>) -> Damaged {
    Damaged(what.into())
}

/// A number as Cassandra's `bigint`, which is signed. Above its range there is nothing.
pub(super) fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that was a `bigint`.
pub(super) fn unsigned(number: i64) -> Result<u64, Damaged> {
    u64::try_from(number).map_err(|_| damaged(format!("{number} is below zero")))
}

pub(super) fn shard_of(number: i64) -> Result<ShardId, Damaged> {
    let number = u32::try_from(number).map_err(|_| damaged(format!("{number} is no shard")))?;
    Ok(ShardId(number))
}

/// The partition of a revision.
pub(super) fn bucket_of_revision(revision: i64) -> i64 {
    revision / REVISIONS
}

/// The partition of a time.
pub(super) fn bucket_of_time(time: HybridTime) -> i64 {
    bigint(time.0.min(TIME_MAX) >> BUCKET_BITS)
}

/// The partition of a bucket in the list of a shard's buckets.
pub(super) fn era_of_bucket(bucket: i64) -> i64 {
    bucket >> (ERA_BITS - BUCKET_BITS)
}

/// The partition of a shard's checkpoint.
pub(super) fn part_of_shard(shard: ShardId) -> i32 {
    (shard.0 % CHECKPOINT_PARTS) as i32
}

/// All partitions of checkpoints, as CQL.
pub(super) fn checkpoint_parts() -> String {
    let parts: Vec<String> = (0..CHECKPOINT_PARTS).map(|part| part.to_string()).collect();
    parts.join(", ")
}

/// Puts a checksum in front.
fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn encode<T: Serialize>(value: &T, size: usize) -> Result<Vec<u8>, Damaged> {
    let mut bytes = Vec::with_capacity(size + 64);
    bytes.extend_from_slice(&[0, 0, 0, 0, FORMAT]);
    postcard::to_extend(value, bytes).map(seal).map_err(|error| damaged(error.to_string()))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Damaged> {
    let (crc, body) = bytes.split_first_chunk().ok_or_else(|| damaged("too short"))?;
    if u32::from_le_bytes(*crc) != crc32fast::hash(body) {
        return Err(damaged("its checksum does not match"));
    }
    match body.split_first() {
        Some((&FORMAT, body)) => {
            postcard::from_bytes(body).map_err(|error| damaged(error.to_string()))
        }
        format => {
            let format = format.map_or(0, |(format, _)| *format);
            Err(damaged(format!("format {format}; this release reads {FORMAT}: use a newer one")))
        }
    }
}

/// An event, without what the key of `events` says.
#[derive(Serialize, Deserialize)]
struct OfStream<E> {
    shard: ShardId,
    time: HybridTime,
    append: AppendId,
    event: E,
}

/// An event, without what the key of `shard_events` says.
#[derive(Serialize, Deserialize)]
struct OfShard<S, E> {
    stream: S,
    revision: u64,
    append: AppendId,
    event: E,
}

pub(super) fn encode_of_stream(event: &RecordedEvent) -> Result<Vec<u8>, Damaged> {
    let RecordedEvent { shard, time, append, event, .. } = event;
    let row = OfStream { shard: *shard, time: *time, append: *append, event };
    encode(&row, event.bytes())
}

pub(super) fn decode_of_stream(
    stream: &StreamName,
    revision: i64,
    bytes: &[u8],
) -> Result<RecordedEvent, Damaged> {
    let OfStream { shard, time, append, event } = decode::<OfStream<Event>>(bytes)?;
    let revision = unsigned(revision)?;
    Ok(RecordedEvent { stream: stream.clone(), revision, shard, time, append, event })
}

pub(super) fn encode_of_shard(event: &RecordedEvent) -> Result<Vec<u8>, Damaged> {
    let RecordedEvent { stream, revision, append, event, .. } = event;
    let row = OfShard { stream, revision: *revision, append: *append, event };
    encode(&row, event.bytes() + stream.as_str().len())
}

pub(super) fn decode_of_shard(
    shard: ShardId,
    time: i64,
    bytes: &[u8],
) -> Result<RecordedEvent, Damaged> {
    let OfShard { stream, revision, append, event } = decode::<OfShard<StreamName, Event>>(bytes)?;
    let time = HybridTime(unsigned(time)?);
    Ok(RecordedEvent { stream, revision, shard, time, append, event })
}

pub(super) fn encode_head(head: &Head) -> Result<Vec<u8>, Damaged> {
    encode(head, 48 * head.remembered.len())
}

pub(super) fn decode_head(bytes: &[u8]) -> Result<Head, Damaged> {
    decode(bytes)
}

/// Bytes that compare, unsigned and from the left, as checkpoints of one shard do: Cassandra keeps the larger of two
/// cells of the same timestamp. The format's number comes last, so that it decides nothing.
pub(super) fn encode_checkpoint(at: &Checkpoint) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(CHECKPOINT_BYTES);
    bytes.push(at.ended.into());
    bytes.push(at.position.is_some().into());
    bytes.extend_from_slice(&at.position.map_or([0; 24], Position::to_be_bytes));
    for number in [at.accepted, at.epoch, at.next, at.closed.0] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes.push(FORMAT);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

const CHECKPOINT_BYTES: usize = 2 + 24 + 4 * 8 + 1 + 4;

pub(super) fn decode_checkpoint(bytes: &[u8]) -> Result<Checkpoint, Damaged> {
    let (body, crc) = bytes.split_last_chunk().ok_or_else(|| damaged("too short"))?;
    if u32::from_le_bytes(*crc) != crc32fast::hash(body) {
        return Err(damaged("its checksum does not match"));
    }
    if bytes.len() != CHECKPOINT_BYTES || body.last() != Some(&FORMAT) {
        return Err(damaged("a format of another release: use a newer one"));
    }
    let number = |at: usize| {
        let mut eight = [0; 8];
        eight.copy_from_slice(&body[at..at + 8]);
        u64::from_be_bytes(eight)
    };
    let (accepted, epoch, next) = (number(26), number(34), number(42));
    let closed = HybridTime(number(50));
    let mut position = [0; 24];
    position.copy_from_slice(&body[2..26]);
    let position = (body[1] == 1).then(|| Position::from_be_bytes(position));
    Ok(Checkpoint { ended: body[0] == 1, position, accepted, epoch, next, closed })
}

/// Bytes of one cell; `ended` is what differs at one timestamp.
pub(super) fn encode_progress(progress: &Progress) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PROGRESS_BYTES);
    bytes.push(progress.ended.into());
    bytes.extend_from_slice(&progress.next.0.to_be_bytes());
    bytes.push(FORMAT);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

const PROGRESS_BYTES: usize = 1 + 8 + 1 + 4;

pub(super) fn decode_progress(bytes: &[u8]) -> Result<Progress, Damaged> {
    let (body, crc) = bytes.split_last_chunk().ok_or_else(|| damaged("too short"))?;
    if u32::from_le_bytes(*crc) != crc32fast::hash(body) {
        return Err(damaged("its checksum does not match"));
    }
    match body {
        [ended, next @ .., FORMAT] if next.len() == 8 => {
            let next = next.iter().fold(0, |next, byte| next << 8 | u64::from(*byte));
            Ok(Progress { ended: *ended == 1, next: HybridTime(next) })
        }
        _ => Err(damaged("a format of another release: use a newer one")),
    }
}

/// A role as a number.
pub(super) fn number_of_role(role: Role) -> i32 {
    match role {
        Role::Owns => 0,
        Role::Delivers => 1,
    }
}

pub(super) fn role_of(number: i32) -> Result<Role, Damaged> {
    match number {
        0 => Ok(Role::Owns),
        1 => Ok(Role::Delivers),
        _ => Err(damaged("a role of another release: use a newer one")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(ended: bool, position: Option<&str>, accepted: u64) -> Checkpoint {
        let position = position.map(|text| text.parse().unwrap());
        Checkpoint { ended, position, accepted, epoch: 3, next: 5, closed: HybridTime(77) }
    }

    #[test]
    fn progress_and_roles_come_back_as_they_went() {
        for (ended, next) in [(false, 0), (true, 0), (false, 1 << 50), (true, u64::MAX)] {
            let progress = Progress { ended, next: HybridTime(next) };
            let mut bytes = encode_progress(&progress);
            assert_eq!(decode_progress(&bytes).unwrap(), progress);
            bytes[3] ^= 1;
            assert!(decode_progress(&bytes).is_err());
        }
        for role in [Role::Owns, Role::Delivers] {
            assert_eq!(role_of(number_of_role(role)).unwrap(), role);
        }
        assert!(role_of(2).is_err());
    }

    #[test]
    fn bytes_of_checkpoints_sort_as_checkpoints_do() {
        // Sequence numbers of Kinesis have 56 digits.
        let far = "49590338271490256608559692538361571095921575989136588898";
        let mut all = vec![
            Checkpoint::default(),
            checkpoint(false, Some("9"), 1),
            checkpoint(false, Some("10"), 1),
            checkpoint(false, Some("255"), 1),
            checkpoint(false, Some("256"), 1),
            checkpoint(false, Some(far), 1),
            checkpoint(true, Some("10"), 1),
            checkpoint(true, None, 9),
            checkpoint(false, Some("10"), 2),
        ];
        all.sort();
        let bytes: Vec<Vec<u8>> = all.iter().map(encode_checkpoint).collect();
        assert!(bytes.is_sorted());
        for (at, bytes) in all.iter().zip(&bytes) {
            assert_eq!(decode_checkpoint(bytes).as_ref(), Ok(at));
        }
    }

    #[test]
    fn a_flipped_bit_is_found() {
        let mut checkpoint = encode_checkpoint(&Checkpoint::default());
        checkpoint[30] ^= 1;
        assert!(decode_checkpoint(&checkpoint).is_err());
        let mut head = encode_head(&Head { revision: Some(7), ..Head::default() }).unwrap();
        assert_eq!(decode_head(&head).unwrap().revision, Some(7));
        let last = head.len() - 1;
        head[last] ^= 1;
        assert_eq!(decode_head(&head), Err(damaged("its checksum does not match")));
        assert!(decode_head(&[]).is_err());
    }

    #[test]
    fn a_newer_format_is_told() {
        let mut bytes = vec![0, 0, 0, 0, FORMAT + 1, 1, 2, 3];
        bytes = seal(bytes);
        assert!(decode_head(&bytes).unwrap_err().to_string().contains("use a newer one"));
    }

    #[test]
    fn buckets_hold_what_they_should() {
        assert_eq!((bucket_of_revision(63), bucket_of_revision(64)), (0, 1));
        let last = HybridTime((1 << BUCKET_BITS) - 1);
        assert_eq!((bucket_of_time(last), bucket_of_time(last.plus(1))), (0, 1));
        assert_eq!(bucket_of_time(HybridTime(u64::MAX)), bigint(TIME_MAX >> BUCKET_BITS));
        assert_eq!(era_of_bucket(bucket_of_time(HybridTime((1 << ERA_BITS) - 1))), 0);
        assert_eq!(era_of_bucket(bucket_of_time(HybridTime(u64::MAX))), 15);
    }
}
