//! Writes of rows: each at its logical timestamp, those of one partition together, many at once.
//!
//! Rows of one partition go in unlogged batches, which Cassandra carries out as one mutation. A batch stays below the 5 KB at
//! which Cassandra warns by default (50 KB: refused), and below the 30 rows that Amazon Keyspaces takes; a larger row goes alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use futures::{
    StreamExt,
    future::{BoxFuture, FutureExt},
    stream,
};
use scylla::{
    serialize::row::SerializeRow,
    statement::{
        batch::{Batch, BatchType},
        prepared::PreparedStatement,
    },
};
use stormkeep_core::env::{Row, StoreError};
use uuid::Uuid;

use super::{
    CassandraStore,
    connect::Connected,
    failure::Asked,
    rows::{
        Damaged, bigint, bucket_of_revision, bucket_of_time, encode_checkpoint, encode_head,
        encode_of_shard, encode_of_stream, encode_progress, era_of_bucket, number_of_role,
        part_of_shard,
    },
};

/// Bytes of one batch at the most, as estimated here: Cassandra counts up to a fifth more.
const BATCH_BYTES_MAX: usize = 4096;
const BATCH_ROWS_MAX: usize = 30;
/// What a row weighs besides its value: keys, timestamps and framing.
const ROW_BYTES: usize = 48;
/// Statements of one write that are under way at the most.
const CONCURRENCY: usize = 32;
/// Buckets that are known to be listed.
const LISTED_MAX: usize = 4096;

type EventValues = (String, i64, i64, Vec<u8>, i64);
type ShardEventValues = (i64, i64, i64, Vec<u8>, i64);
type Bucket = (i64, i64, i64);

/// The values of a write, by table.
#[derive(Default)]
struct Sorted {
    events: BTreeMap<(String, i64), Vec<EventValues>>,
    shard_events: BTreeMap<(i64, i64), Vec<ShardEventValues>>,
    buckets: BTreeSet<Bucket>,
    heads: Vec<(String, Vec<u8>, i64)>,
    checkpoints: Vec<(i32, i64, Vec<u8>, i64)>,
    progress: Vec<(i64, i64, Vec<u8>, i64)>,
    nodes: Vec<(i64, Uuid, i32, i64, bool, i64)>,
}

impl Sorted {
    fn of(rows: &[Row]) -> Result<Self, Damaged> {
        let mut sorted = Sorted::default();
        for row in rows {
            sorted.take(row)?;
        }
        Ok(sorted)
    }

    fn take(&mut self, row: &Row) -> Result<(), Damaged> {
        // Never 0, and far below any clock: whatever was written with a clock's time would hide these rows for ever.
        let timestamp = bigint(row.timestamp().saturating_add(1));
        match row {
            Row::Event(event) => {
                let (revision, time) = (bigint(event.revision), bigint(event.time.0));
                let (stream, shard) = (event.stream.as_str().to_owned(), i64::from(event.shard.0));
                let by_stream = bucket_of_revision(revision);
                let by_time = bucket_of_time(event.time);
                let values = encode_of_stream(event)?;
                self.events
                    .entry((stream.clone(), by_stream))
                    .or_default()
                    .push((stream, by_stream, revision, values, timestamp));
                let values = encode_of_shard(event)?;
                self.shard_events
                    .entry((shard, by_time))
                    .or_default()
                    .push((shard, by_time, time, values, timestamp));
                self.buckets.insert((shard, era_of_bucket(by_time), by_time));
            }
            Row::Head(stream, head) => {
                let head = encode_head(head)?;
                self.heads.push((stream.as_str().to_owned(), head, timestamp));
            }
            Row::Checkpoint(shard, at) => {
                let (part, checkpoint) = (part_of_shard(*shard), encode_checkpoint(at));
                self.checkpoints.push((part, i64::from(shard.0), checkpoint, timestamp));
            }
            Row::Progress(shard, group, progress) => {
                let (shard, group) = (i64::from(shard.0), bigint(group.0));
                self.progress.push((shard, group, encode_progress(progress), timestamp));
            }
            Row::Node(row) => {
                let (node, token) = (i64::from(row.node.0), Uuid::from_u128(row.token.0));
                let (role, beat) = (number_of_role(row.role), bigint(row.beat));
                self.nodes.push((node, token, role, beat, row.draining, timestamp));
            }
        }
        Ok(())
    }
}

/// Cuts rows of one partition into batches.
fn batches<T>(rows: Vec<T>, bytes: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut cut: Vec<Vec<T>> = Vec::new();
    let mut weight = 0;
    for row in rows {
        let more = bytes(&row) + ROW_BYTES;
        match cut.last_mut() {
            Some(last) if last.len() < BATCH_ROWS_MAX && weight + more <= BATCH_BYTES_MAX => {
                weight += more;
                last.push(row);
            }
            _ => {
                weight = more;
                cut.push(vec![row]);
            }
        }
    }
    cut
}

/// What several statements of one write come to. *No* and *busy* promise that nothing was written: that holds only
/// if it holds for all of them.
fn verdict(results: &[Result<(), StoreError>]) -> Result<(), StoreError> {
    let mut errors = results.iter().filter_map(|result| result.err());
    match errors.next() {
        None => Ok(()),
        Some(first) => {
            let alike = results.iter().all(|result| *result == Err(first));
            Err(if alike { first } else { StoreError::Unknown })
        }
    }
}

/// Buckets of `shard_events` that are surely in the list: they are not listed again with every write.
#[derive(Default)]
pub(super) struct Listed(Mutex<BTreeSet<Bucket>>);

impl Listed {
    fn has(&self, bucket: &Bucket) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(bucket)
    }

    fn add(&self, buckets: impl IntoIterator<Item = Bucket>) {
        let mut listed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if listed.len() > LISTED_MAX {
            listed.clear();
        }
        listed.extend(buckets);
    }
}

type Writing<'a> = BoxFuture<'a, Result<(), StoreError>>;

impl CassandraStore {
    pub(super) async fn write_rows(&self, rows: &[Row]) -> Result<(), StoreError> {
        let mut sorted =
            Sorted::of(rows).map_err(|error| self.damaged("a row to write", &error))?;
        sorted.buckets.retain(|bucket| !self.listed.has(bucket));
        let buckets = sorted.buckets.clone();
        let here = self.link.get().await?;
        let statements = self.statements(&here, sorted);
        let results: Vec<_> =
            stream::iter(statements).buffer_unordered(CONCURRENCY).collect().await;
        verdict(&results)?;
        self.listed.add(buckets);
        Ok(())
    }

    fn statements<'a>(&'a self, here: &'a Connected, sorted: Sorted) -> Vec<Writing<'a>> {
        let of = &here.statements;
        let mut all: Vec<Writing<'a>> = Vec::new();
        for rows in sorted.events.into_values() {
            // Each row of a batch has the stream's name again.
            for batch in batches(rows, |row| row.0.len() + row.3.len()) {
                all.push(self.put_together(here, &of.put_event, batch).boxed());
            }
        }
        for rows in sorted.shard_events.into_values() {
            for batch in batches(rows, |row| row.3.len()) {
                all.push(self.put_together(here, &of.put_shard_event, batch).boxed());
            }
        }
        for bucket in sorted.buckets {
            all.push(self.put(here, &of.put_shard_bucket, bucket).boxed());
        }
        for head in sorted.heads {
            all.push(self.put(here, &of.put_head, head).boxed());
        }
        for checkpoint in sorted.checkpoints {
            all.push(self.put(here, &of.put_checkpoint, checkpoint).boxed());
        }
        for progress in sorted.progress {
            all.push(self.put(here, &of.put_progress, progress).boxed());
        }
        for node in sorted.nodes {
            all.push(self.put(here, &of.put_node, node).boxed());
        }
        all
    }

    async fn put(
        &self,
        here: &Connected,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<(), StoreError> {
        let _room = self.writes.acquire().await;
        self.execute(here, statement, values, Asked::Plain).await.map(drop)
    }

    async fn put_together<T: SerializeRow>(
        &self,
        here: &Connected,
        statement: &PreparedStatement,
        mut rows: Vec<T>,
    ) -> Result<(), StoreError> {
        if rows.len() == 1
            && let Some(row) = rows.pop()
        {
            return self.put(here, statement, row).await;
        }
        let _room = self.writes.acquire().await;
        let mut batch = Batch::new(BatchType::Unlogged);
        for _ in &rows {
            batch.append_statement(statement.clone());
        }
        let _flight = self.flights.begin();
        let answer = here.session.batch(&batch, rows).await;
        answer.map(drop).map_err(|error| self.failed(&error, Asked::Plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_bounded_by_bytes_and_by_rows() {
        let small = batches(vec![10usize; 64], |bytes| *bytes);
        assert_eq!(small.iter().map(Vec::len).collect::<Vec<_>>(), [30, 30, 4]);
        let mixed = batches(vec![1000, 1000, 1_000_000, 1000, 2900, 95, 5], |bytes| *bytes);
        assert_eq!(mixed, [vec![1000, 1000], vec![1_000_000], vec![1000, 2900], vec![95, 5]]);
        for batch in &mixed {
            let bytes: usize = batch.iter().map(|bytes| bytes + ROW_BYTES).sum();
            assert!(batch.len() == 1 || bytes <= BATCH_BYTES_MAX);
        }
    }

    #[test]
    fn a_write_that_is_partly_done_is_unknown() {
        use StoreError::{Busy, Unavailable, Unknown};
        assert_eq!(verdict(&[Ok(()), Ok(())]), Ok(()));
        assert_eq!(verdict(&[Err(Unavailable), Err(Unavailable)]), Err(Unavailable));
        assert_eq!(verdict(&[Err(Busy), Err(Busy)]), Err(Busy));
        assert_eq!(verdict(&[Ok(()), Err(Unavailable)]), Err(Unknown));
        assert_eq!(verdict(&[Err(Busy), Err(Unavailable)]), Err(Unknown));
        assert_eq!(verdict(&[Err(Unavailable), Err(Unknown)]), Err(Unknown));
    }
}
