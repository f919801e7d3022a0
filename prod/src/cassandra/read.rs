//! Reads of heads, events, checkpoints and signs of life.
//!
//! Events are read bucket by bucket: the first one alone, then as many at once as their size allows. A stream's rows have no
//! gap up to where it is folded, so a read forwards ends at the first bucket whose last place is empty; what lies behind a
//! gap that a fold has yet to fill is shown once it is filled. A read backwards from beyond the end asks the
//! head where the end is. A shard's times do have gaps, so its buckets are listed in a table of their own.

use futures::{StreamExt, TryStreamExt, stream};
use scylla::{
    deserialize::row::DeserializeRow,
    response::{PagingState, PagingStateResponse},
    serialize::value::SerializeValue,
    statement::prepared::PreparedStatement,
};
use stormkeep_core::{
    append::{Direction, Freshness},
    env::{NodeId, NodeRow, StoreError, Token},
    event::RecordedEvent,
    head::Head,
    shard::{Checkpoint, ShardId},
    stream::StreamName,
    time::HybridTime,
};
use uuid::Uuid;

use super::{
    CassandraStore,
    connect::Connected,
    failure::Asked,
    rows::{
        REVISIONS, bigint, bucket_of_revision, bucket_of_time, decode_checkpoint, decode_head,
        decode_of_shard, decode_of_stream, era_of_bucket, part_of_shard, role_of, shard_of,
        unsigned,
    },
    statements::Fresh,
};

/// Bytes that one answer should have: Cassandra builds it in memory.
const PART_BYTES: usize = 4 * 1024 * 1024;
/// Rows of the first answer of a read, whose size nobody knows.
const FIRST_PART: usize = 32;
/// Rows of an answer at the most.
const PART_MAX: usize = 1000;
/// Buckets that are read at once at the most.
const BUCKETS_MAX: usize = 8;
/// Buckets that are asked for without looking at the list.
const GUESSED_MAX: i64 = 4;
/// Buckets of one look at the list.
const LIST_MAX: i32 = 64;

/// How large the rows of a read have been so far.
#[derive(Clone, Copy, Default)]
struct Sizes {
    rows: usize,
    bytes: usize,
}

impl Sizes {
    fn mean(self) -> Option<usize> {
        (self.rows > 0).then(|| (self.bytes / self.rows).max(64))
    }

    /// Rows to ask for at once.
    fn part(self) -> usize {
        self.mean().map_or(FIRST_PART, |mean| (PART_BYTES / mean).clamp(4, PART_MAX))
    }

    /// Buckets to read at once, if each has that many rows.
    fn buckets(self, rows: usize) -> usize {
        self.mean().map_or(1, |mean| (2 * PART_BYTES / (mean * rows.max(1))).clamp(1, BUCKETS_MAX))
    }
}

/// One bucket's rows, and how large they were.
struct Found {
    events: Vec<RecordedEvent>,
    sizes: Sizes,
}

fn chosen(statement: &Fresh, freshness: Freshness) -> &PreparedStatement {
    match freshness {
        Freshness::Strong => &statement.strong,
        Freshness::Eventual => &statement.eventual,
    }
}

/// A part of one partition of events.
struct Partition<'a, K> {
    statement: &'a PreparedStatement,
    key: K,
    bucket: i64,
    low: i64,
    high: i64,
    direction: Direction,
}

impl CassandraStore {
    /// Rows of one partition, key and value, in the order of the read: part by part, so that none is too large.
    ///
    /// Parts go by key, not by paging state: Cassandra ignores a paging state once the page is as large as the limit.
    async fn partition<K: SerializeValue + Clone>(
        &self,
        here: &Connected,
        partition: Partition<'_, K>,
        limit: usize,
        mut sizes: Sizes,
        mut take: impl FnMut(i64, &[u8]) -> Result<(), StoreError>,
    ) -> Result<Sizes, StoreError> {
        let Partition { statement, key, bucket, mut low, mut high, direction } = partition;
        let mut left = limit;
        while left > 0 && low <= high {
            let wanted = sizes.part().min(left);
            let values = (key.clone(), bucket, low, high, wanted as i32);
            let answer = self.rows(here, statement, values, Asked::Plain).await?;
            sizes.rows += answer.rows_num();
            sizes.bytes += answer.rows_bytes_size();
            let rows = answer.rows::<(i64, &[u8])>();
            for row in rows.map_err(|error| self.damaged("an answer", &error))? {
                let (at, value) = row.map_err(|error| self.damaged("a row", &error))?;
                take(at, value)?;
                match direction {
                    Direction::Forwards => low = at.saturating_add(1),
                    Direction::Backwards => high = at - 1,
                }
            }
            if answer.rows_num() < wanted {
                break;
            }
            left -= wanted;
        }
        Ok(sizes)
    }

    /// All rows of a small table.
    async fn all<R>(
        &self,
        here: &Connected,
        statement: &PreparedStatement,
        mut take: impl FnMut(R) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>
    where
        R: for<'r> DeserializeRow<'r, 'r>,
    {
        let mut state = PagingState::start();
        loop {
            let (answer, next) = self.page(here, statement, (), state).await?;
            let rows = answer.rows::<R>().map_err(|error| self.damaged("an answer", &error))?;
            for row in rows {
                take(row.map_err(|error| self.damaged("a row", &error))?)?;
            }
            match next {
                PagingStateResponse::HasMorePages { state: next } => state = next,
                PagingStateResponse::NoMorePages => return Ok(()),
            }
        }
    }

    pub(super) async fn read_head(
        &self,
        stream: &StreamName,
        freshness: Freshness,
    ) -> Result<Option<Head>, StoreError> {
        let here = self.link.get().await?;
        let statement = chosen(&here.statements.head, freshness);
        let answer = self.rows(&here, statement, (stream.as_str(),), Asked::Plain).await?;
        let row = answer.maybe_first_row::<(&[u8],)>();
        let row = row.map_err(|error| self.damaged("a head", &error))?;
        let decode = |(bytes,): (&[u8],)| {
            decode_head(bytes).map_err(|e| self.damaged(&format!("the head of {stream}"), &e))
        };
        row.map(decode).transpose()
    }

    pub(super) async fn read_events(
        &self,
        stream: &StreamName,
        from: u64,
        limit: u32,
        direction: Direction,
        freshness: Freshness,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        let limit = limit as usize;
        if limit == 0 || (direction == Direction::Forwards && from > i64::MAX as u64) {
            return Ok(Vec::new());
        }
        let mut read = StreamRead { store: self, stream, direction, freshness, limit };
        let mut from = bigint(from);
        let mut first = read.bucket(bucket_of_revision(from), from, Sizes::default()).await?;
        if first.events.is_empty() && direction == Direction::Backwards {
            let head = self.read_head(&stream.described(), freshness).await?;
            let last = head.and_then(|head| head.last(stream)).map(bigint);
            let Some(last) =
                last.filter(|last| bucket_of_revision(*last) < bucket_of_revision(from))
            else {
                return Ok(Vec::new());
            };
            from = last;
            first = read.bucket(bucket_of_revision(from), from, Sizes::default()).await?;
        }
        read.rest(bucket_of_revision(from), first).await
    }

    pub(super) async fn read_shard_events(
        &self,
        shard: ShardId,
        (from, to): (HybridTime, HybridTime),
        limit: u32,
        direction: Direction,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        if limit == 0 || from > to {
            return Ok(Vec::new());
        }
        let here = self.link.get().await?;
        let times = (bigint(from.0), bigint(to.0));
        let read = ShardRead { store: self, here: &here, shard, times, direction };
        let (low, high) = (bucket_of_time(from), bucket_of_time(to));
        let (mut found, mut sizes) = (Vec::new(), Sizes::default());
        if high - low < GUESSED_MAX {
            let buckets = in_order((low..=high).collect(), direction);
            read.all(&buckets, limit as usize, &mut found, &mut sizes).await?;
            return Ok(found);
        }
        let eras = in_order((era_of_bucket(low)..=era_of_bucket(high)).collect(), direction);
        let lists = stream::iter(eras)
            .map(|era| async move { Ok::<_, StoreError>((era, read.list(era, low, high).await?)) });
        let lists: Vec<_> = lists.buffered(BUCKETS_MAX).try_collect().await?;
        for (era, mut list) in lists {
            let (mut low, mut high) = (low, high);
            while let Some(last) = list.last().copied() {
                read.all(&list, limit as usize, &mut found, &mut sizes).await?;
                if found.len() >= limit as usize {
                    return Ok(found);
                }
                match direction {
                    Direction::Forwards => low = last + 1,
                    Direction::Backwards => high = last - 1,
                }
                let more = list.len() == LIST_MAX as usize;
                list = if more { read.list(era, low, high).await? } else { Vec::new() };
            }
        }
        Ok(found)
    }

    pub(super) async fn read_checkpoint(&self, shard: ShardId) -> Result<Checkpoint, StoreError> {
        let here = self.link.get().await?;
        let values = (part_of_shard(shard), i64::from(shard.0));
        let statement = &here.statements.checkpoint;
        let answer = self.rows(&here, statement, values, Asked::Plain).await?;
        let row = answer.maybe_first_row::<(&[u8],)>();
        let row = row.map_err(|error| self.damaged("a checkpoint", &error))?;
        let decode = |(bytes,): (&[u8],)| {
            decode_checkpoint(bytes)
                .map_err(|e| self.damaged(&format!("checkpoint of {shard}"), &e))
        };
        Ok(row.map(decode).transpose()?.unwrap_or_default())
    }

    pub(super) async fn read_checkpoints(&self) -> Result<Vec<(ShardId, Checkpoint)>, StoreError> {
        let here = self.link.get().await?;
        let mut found = Vec::new();
        let of = &here.statements.checkpoints;
        self.all::<(i64, Vec<u8>)>(&here, of, |(shard, bytes)| {
            let wrong = |error| self.damaged("a row of checkpoints", &error);
            let checkpoint = decode_checkpoint(&bytes).map_err(wrong)?;
            found.push((shard_of(shard).map_err(wrong)?, checkpoint));
            Ok(())
        })
        .await?;
        found.sort_by_key(|(shard, _)| *shard);
        Ok(found)
    }

    pub(super) async fn read_nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        let here = self.link.get().await?;
        let mut found = Vec::new();
        let of = &here.statements.nodes;
        self.all::<(i64, Uuid, i32, i64, bool)>(&here, of, |row| {
            let (node, token, role, beat, draining) = row;
            let wrong = |error| self.damaged("a row of nodes", &error);
            let node = NodeId(shard_of(node).map_err(wrong)?.0);
            let (token, beat) = (Token(token.as_u128()), unsigned(beat).map_err(wrong)?);
            let role = role_of(role).map_err(wrong)?;
            found.push(NodeRow { node, role, token, beat, draining });
            Ok(())
        })
        .await?;
        Ok(found)
    }
}

fn in_order(mut numbers: Vec<i64>, direction: Direction) -> Vec<i64> {
    if direction == Direction::Backwards {
        numbers.reverse();
    }
    numbers
}

/// A read of a stream.
struct StreamRead<'a> {
    store: &'a CassandraStore,
    stream: &'a StreamName,
    direction: Direction,
    freshness: Freshness,
    limit: usize,
}

impl StreamRead<'_> {
    async fn bucket(&self, bucket: i64, from: i64, sizes: Sizes) -> Result<Found, StoreError> {
        let here = self.store.link.get().await?;
        let (first, last) =
            (bucket * REVISIONS, bucket.saturating_mul(REVISIONS) + (REVISIONS - 1));
        let (statement, low, high) = match self.direction {
            Direction::Forwards => (&here.statements.events, from.max(first), last),
            Direction::Backwards => (&here.statements.events_back, first, from.min(last)),
        };
        let partition = Partition {
            statement: chosen(statement, self.freshness),
            key: self.stream.as_str(),
            bucket,
            low,
            high,
            direction: self.direction,
        };
        let mut events = Vec::new();
        let of = self.stream;
        let take = |revision, value: &[u8]| {
            let wrong = |e| self.store.damaged(&format!("{of} revision {revision}"), &e);
            events.push(decode_of_stream(of, revision, value).map_err(wrong)?);
            Ok(())
        };
        let sizes = self.store.partition(&here, partition, self.limit, sizes, take).await?;
        Ok(Found { events, sizes })
    }

    /// Whether the stream may go on behind a bucket.
    fn goes_on(&self, bucket: i64, events: &[RecordedEvent]) -> bool {
        let last = events.last().map(|event| bigint(event.revision));
        match self.direction {
            Direction::Forwards => last == Some(bucket * REVISIONS + (REVISIONS - 1)),
            Direction::Backwards => bucket > 0 && !events.is_empty(),
        }
    }

    async fn rest(&mut self, bucket: i64, first: Found) -> Result<Vec<RecordedEvent>, StoreError> {
        let Found { mut events, sizes } = first;
        let mut goes_on = self.goes_on(bucket, &events);
        let mut at = bucket;
        while goes_on && events.len() < self.limit {
            let wanted = (self.limit - events.len()).div_ceil(REVISIONS as usize);
            let count = sizes.buckets(REVISIONS as usize).min(wanted) as i64;
            let buckets: Vec<i64> = match self.direction {
                Direction::Forwards => (at + 1..=at + count).collect(),
                Direction::Backwards => (at - count..at).rev().filter(|b| *b >= 0).collect(),
            };
            let this = &*self;
            let from = match self.direction {
                Direction::Forwards => 0,
                Direction::Backwards => i64::MAX,
            };
            let found = stream::iter(buckets)
                .map(|bucket| async move {
                    Ok::<_, StoreError>((bucket, this.bucket(bucket, from, sizes).await?))
                })
                .buffered(BUCKETS_MAX);
            let found: Vec<_> = found.try_collect().await?;
            for (bucket, found) in found {
                if goes_on {
                    goes_on = self.goes_on(bucket, &found.events);
                    at = bucket;
                    events.extend(found.events);
                }
            }
        }
        events.truncate(self.limit);
        Ok(events)
    }
}

/// A read of a shard.
#[derive(Clone, Copy)]
struct ShardRead<'a> {
    store: &'a CassandraStore,
    here: &'a Connected,
    shard: ShardId,
    times: (i64, i64),
    direction: Direction,
}

impl ShardRead<'_> {
    /// The next buckets of an era that hold something.
    async fn list(&self, era: i64, low: i64, high: i64) -> Result<Vec<i64>, StoreError> {
        let of = &self.here.statements;
        let statement = match self.direction {
            Direction::Forwards => &of.shard_buckets,
            Direction::Backwards => &of.shard_buckets_back,
        };
        let values = (i64::from(self.shard.0), era, low, high, LIST_MAX);
        let answer = self.store.rows(self.here, statement, values, Asked::Plain).await?;
        let rows = answer.rows::<(i64,)>().map_err(|e| self.store.damaged("an answer", &e))?;
        let buckets = rows.map(|row| row.map(|(bucket,)| bucket));
        buckets.collect::<Result<_, _>>().map_err(|e| self.store.damaged("a bucket", &e))
    }

    async fn bucket(&self, bucket: i64, limit: usize, sizes: Sizes) -> Result<Found, StoreError> {
        let of = &self.here.statements;
        let statement = match self.direction {
            Direction::Forwards => &of.shard_events,
            Direction::Backwards => &of.shard_events_back,
        };
        let shard = self.shard;
        let (low, high) = self.times;
        let (key, direction) = (i64::from(shard.0), self.direction);
        let partition = Partition { statement, key, bucket, low, high, direction };
        let mut events = Vec::new();
        let take = |time, value: &[u8]| {
            let wrong = |e| self.store.damaged(&format!("{shard} time {time}"), &e);
            events.push(decode_of_shard(shard, time, value).map_err(wrong)?);
            Ok(())
        };
        let sizes = self.store.partition(self.here, partition, limit, sizes, take).await?;
        Ok(Found { events, sizes })
    }

    /// Reads buckets, in their order, until `limit` events are found.
    async fn all(
        &self,
        buckets: &[i64],
        limit: usize,
        found: &mut Vec<RecordedEvent>,
        sizes: &mut Sizes,
    ) -> Result<(), StoreError> {
        let mut rest = buckets;
        while !rest.is_empty() && found.len() < limit {
            let left = limit - found.len();
            // Nobody knows how many events a bucket has: as if each had all that are wanted.
            let (now, later) = rest.split_at(sizes.buckets(left).min(rest.len()));
            let before = *sizes;
            let parts = stream::iter(now.to_vec())
                .map(|bucket| self.bucket(bucket, left, before))
                .buffered(BUCKETS_MAX);
            let parts: Vec<Found> = parts.try_collect().await?;
            for part in parts {
                sizes.rows += part.events.len();
                sizes.bytes += part.sizes.bytes - before.bytes;
                found.extend(part.events);
            }
            rest = later;
        }
        found.truncate(limit);
        Ok(())
    }
}
