//! Reading by polling (`GetRecords`).
//!
//! **Retention.** The service does not say that it has dropped what a reader asks for: an iterator behind a dropped position
//! begins at the oldest record, or answers with empty pages for ever. So a reader that goes on behind a position is opened
//! *at* it, and must see that very record again before any other: then nothing between is missing. If another record
//! comes first, or none for long, the answer is [`ReadLogError::Trimmed`].
//!
//! This proves that nothing is lost, but it cannot tell whether a dropped position was the last one that mattered: where
//! exactly this record, and nothing behind it, has been dropped, the answer is `Trimmed` too. That happens only when a shard
//! has taken no record for the whole retention, that is, when all nodes were stopped so long; `accept_trimmed` is for that.
//!
//! An iterator that was given a moment ago may still fall behind the oldest record if its reader lags by nearly the
//! retention. A reader that is so late is opened anew for each page.

use std::time::Duration;

use bytes::Bytes;
use stormkeep_core::{
    env::{Cursor, LogRecord, Page, Position, ReadLogError},
    shard::ShardId,
};
use tracing::{error, warn};

use aws_sdk_kinesis::types::{Record, ShardIteratorType};

use super::{
    KinesisLog, shards,
    token::{At, Token},
    trouble::Kind,
};

/// A reader that lags by the retention less this is opened anew for each page. An iterator lives for five minutes.
const RETENTION_MARGIN: Duration = Duration::from_secs(600);
/// Empty pages, while the last position is not seen again, after which it counts as dropped: about five seconds.
const UNSEEN_MAX: u32 = 25;

/// What is known of a reader before its next page.
struct From {
    last: Option<Position>,
    iterator: String,
    unseen: Option<u32>,
}

/// Reads one page.
pub(super) async fn read(
    log: &KinesisLog,
    shard: ShardId,
    from: Cursor,
) -> Result<Page, ReadLogError> {
    log.pace(shard).await?;
    let From { last, iterator, mut unseen } = match from {
        Cursor::Oldest => oldest(log, shard, None).await?,
        Cursor::After(position) => open(log, shard, position).await?,
        Cursor::Token(token) => match token.parse::<Token>() {
            Ok(Token { shard: of, last, at: At::Iterator { iterator, unseen } }) if of == shard => {
                From { last, iterator, unseen }
            }
            _ => return Err(ReadLogError::Expired),
        },
    };
    let answer = log
        .clients
        .call("GetRecords", |client| {
            let limit = i32::try_from(log.settings.read_records_max).unwrap_or(i32::MAX);
            client.get_records().shard_iterator(iterator).limit(limit).send()
        })
        .await
        .map_err(|trouble| match trouble.kind {
            // Of a position that is gone, or of a stream that was made anew: opened again, it says more.
            Kind::Invalid => ReadLogError::Expired,
            kind => kind.into(),
        })?;
    let bytes = answer.records().iter().map(|record| record.data().as_ref().len()).sum();
    log.spent(shard, bytes);
    let mut records = answer.records.into_iter().map(record).collect::<Result<Vec<_>, _>>()?;
    let behind = Duration::from_millis(answer.millis_behind_latest.unwrap_or(0).max(0) as u64);

    if let Some(pages) = unseen {
        match records.first() {
            Some(first) if Some(first.position) == last => {
                records.remove(0);
                unseen = None;
            }
            None if pages < UNSEEN_MAX && answer.next_shard_iterator.is_some() => {
                unseen = Some(pages + 1);
            }
            _ => return Err(trimmed(log, shard, last, records.first())),
        }
    } else if log.settings.accept_trimmed {
        // Begun at the oldest record, since the last position is gone.
        records.retain(|record| Some(record.position) > last);
    }
    let last = records.last().map(|record| record.position).or(last);
    let late = log.retention().is_some_and(|all| behind + RETENTION_MARGIN > all);
    let next = answer.next_shard_iterator.map(|iterator| match last {
        Some(last) if late && unseen.is_none() => Cursor::After(last),
        _ => cursor(shard, last, At::Iterator { iterator, unseen }),
    });
    let at_tip = behind.is_zero() && unseen.is_none();
    Ok(Page { records, next, at_tip })
}

/// Begins at a position, to see it again.
async fn open(log: &KinesisLog, shard: ShardId, last: Position) -> Result<From, ReadLogError> {
    if log.accepts_trimmed(shard, last) {
        return oldest(log, shard, Some(last)).await;
    }
    let iterator = iterator(log, shard, Some(last)).await?;
    Ok(From { last: Some(last), iterator, unseen: Some(0) })
}

async fn oldest(
    log: &KinesisLog,
    shard: ShardId,
    last: Option<Position>,
) -> Result<From, ReadLogError> {
    Ok(From { last, iterator: iterator(log, shard, None).await?, unseen: None })
}

async fn iterator(
    log: &KinesisLog,
    shard: ShardId,
    at: Option<Position>,
) -> Result<String, ReadLogError> {
    let answer = log
        .clients
        .call("GetShardIterator", |client| {
            let kind = match at {
                Some(_) => ShardIteratorType::AtSequenceNumber,
                None => ShardIteratorType::TrimHorizon,
            };
            client
                .get_shard_iterator()
                .stream_name(&log.settings.stream)
                .shard_id(shards::name(shard))
                .shard_iterator_type(kind)
                .set_starting_sequence_number(at.map(|at| at.to_string()))
                .send()
        })
        .await
        .map_err(|trouble| ReadLogError::from(trouble.kind))?;
    answer.shard_iterator.ok_or(ReadLogError::Unavailable)
}

/// The position is gone: a loud answer, or, if it is wanted so, from the oldest record on next time.
fn trimmed(
    log: &KinesisLog,
    shard: ShardId,
    last: Option<Position>,
    first: Option<&LogRecord>,
) -> ReadLogError {
    if log.settings.accept_trimmed
        && let Some(last) = last
    {
        warn!(%shard, ?last, ?first, "the log has dropped records: going on at the oldest, as kinesis.accept_trimmed says");
        log.accept_trimmed(shard, last);
        return ReadLogError::Expired;
    }
    error!(
        %shard, ?last, first = ?first.map(|first| first.position),
        "the log has dropped the record to go on behind, so what follows it may be incomplete: if all nodes were \
         stopped for longer than its retention, set kinesis.accept_trimmed for one start; raise the retention"
    );
    ReadLogError::Trimmed
}

pub(super) fn cursor(shard: ShardId, last: Option<Position>, at: At) -> Cursor {
    Cursor::Token(Token { shard, last, at }.to_string())
}

/// A record as the core knows it.
pub(super) fn record(record: Record) -> Result<LogRecord, ReadLogError> {
    let Ok(position) = record.sequence_number.parse() else {
        error!(number = record.sequence_number, "a sequence number that makes no sense");
        return Err(ReadLogError::Unavailable);
    };
    let data: Bytes = record.data.into_bytes();
    Ok(LogRecord { position, data })
}
