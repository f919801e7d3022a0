//! A model of Kinesis Data Streams: shards by hash range, order within a shard, limits that throttle,
//! reads that lag, cursors that expire, retention.
//!
//! Limits and their source (Kinesis Data Streams developer guide, "Quotas and limits" and
//! `GetShardIterator`; read 2026-03): 1 MB/s or 1,000 records/s in, 2 MB/s and 5 reads/s out, per shard; 10 MB
//! a read; an iterator expires 5 minutes after it was given. They are knobs of the plan with these values
//! as the usual ones. Throttling answers `ProvisionedThroughputExceededException`, here
//! [`PutError::Throttled`] and [`ReadLogError::Throttled`].

use std::collections::BTreeMap;

use bytes::Bytes;
use stormkeep_core::{
    env::{Cursor, LogError, LogRecord, Page, Position, Put, PutError, ReadLogError},
    limits::ENTRY_BYTES_MAX,
    shard::{HashRange, ShardId, ShardInfo},
};

use crate::{history::Nanos, model::links::sample, plan::LogKnobs, rng::Stream};

/// How long a cursor's token is good for.
const TOKEN_LIFE: Nanos = 300 * 1_000_000_000;
/// Bytes of one read at the most.
const READ_BYTES_MAX: usize = 10_000_000;

struct Stored {
    record: LogRecord,
    put_at: Nanos,
    visible_at: Nanos,
}

/// A limit of so many units a second, with a burst of one second.
struct Bucket {
    level: f64,
    at: Nanos,
}

impl Bucket {
    fn full(rate: u64) -> Self {
        Bucket { level: rate as f64, at: 0 }
    }

    /// Takes `units` if there are any left; a large unit may overdraw, as one read's bytes do.
    fn take(&mut self, now: Nanos, rate: f64, units: f64, overdraw: bool) -> bool {
        self.level = (self.level + (now - self.at) as f64 * rate / 1e9).min(rate.max(1.0));
        self.at = now;
        let enough = if overdraw { self.level > 0.0 } else { self.level >= units };
        if enough {
            self.level -= units;
        }
        enough
    }
}

struct Shard {
    info: ShardInfo,
    stored: Vec<Stored>,
    /// How many of the stored records are past retention.
    trimmed: usize,
    closed_at: Option<Nanos>,
    put_bytes: Bucket,
    put_records: Bucket,
    reads: Bucket,
    read_bytes: Bucket,
    stream: Stream,
}

/// See the module's docs.
pub struct Kinesis {
    seed: u64,
    knobs: LogKnobs,
    shards: Vec<Shard>,
    /// Positions grow over all shards, as sequence numbers do.
    position: u128,
    /// Tokens given before this have expired.
    tokens_expire: Nanos,
    stream: Stream,
}

impl Kinesis {
    /// A log of so many shards.
    pub fn new(seed: u64, knobs: LogKnobs, shards: u32) -> Self {
        // Sequence numbers of the real service have 56 digits: positions must not be taken for small.
        let position = 49_590_338_271_490_256_608_559_692_538_u128;
        let mut kinesis = Kinesis {
            seed,
            knobs,
            shards: Vec::new(),
            position,
            tokens_expire: 0,
            stream: Stream::new(seed, "log", 1 << 40),
        };
        for range in HashRange::split_evenly(shards) {
            kinesis.open(range, Vec::new());
        }
        kinesis
    }

    /// A put arrives: it lands in the open shard that holds the key, or is throttled. `share` is the part
    /// of its limits that the service allows now, `lag` what is added to the read lag; `keep` may change
    /// what is kept (a planted fault does).
    pub fn land(
        &mut self,
        now: Nanos,
        key: u128,
        data: Bytes,
        (share, lag): (f64, Nanos),
        keep: impl FnOnce(Bytes) -> Bytes,
    ) -> Result<Put, PutError> {
        if data.len() > ENTRY_BYTES_MAX {
            return Err(PutError::Refused("the record is larger than an entry may be"));
        }
        let knobs = &self.knobs;
        let Some(shard) =
            self.shards.iter_mut().find(|s| !s.info.closed && s.info.range.contains(key))
        else {
            return Err(PutError::Refused("no shard holds the key"));
        };
        let (bytes, records) =
            (knobs.put_bytes_per_s as f64 * share, knobs.put_records_per_s as f64 * share);
        if !shard.put_records.take(now, records, 1.0, false)
            || !shard.put_bytes.take(now, bytes, data.len() as f64, true)
        {
            return Err(PutError::Throttled);
        }
        self.position += 1 + u128::from(shard.stream.below(1000));
        let position = Position::new(self.position);
        let before = shard.stored.last().map_or(0, |s| s.visible_at);
        let visible_at = before.max(now + sample(knobs.lag, &mut shard.stream) + lag);
        let data = keep(data);
        shard.stored.push(Stored { record: LogRecord { position, data }, put_at: now, visible_at });
        Ok(Put { shard: shard.info.id, position })
    }

    /// How long the next put takes within the service: before it lands, and before its answer leaves.
    pub fn put_takes(&mut self, key: u128) -> (Nanos, Nanos) {
        let knob = self.knobs.put;
        let shard = self.shards.iter_mut().find(|s| !s.info.closed && s.info.range.contains(key));
        let takes = shard.map_or(knob.usual_us * 1000, |s| sample(knob, &mut s.stream));
        (takes / 2, takes - takes / 2)
    }

    /// The randomness of the service as a whole.
    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// Reads a page.
    pub fn read(
        &mut self,
        now: Nanos,
        shard: ShardId,
        from: &Cursor,
        share: f64,
    ) -> Result<Page, ReadLogError> {
        let (knobs, tokens_expire) = (&self.knobs, self.tokens_expire);
        let shard = self.shards.get_mut(shard.0 as usize).ok_or(ReadLogError::Unavailable)?;
        let rate = knobs.reads_per_s as f64;
        if !shard.reads.take(now, rate, 1.0, false) {
            return Err(ReadLogError::Throttled);
        }
        let kept_from = now.saturating_sub(knobs.retention_ms * 1_000_000);
        while shard.stored.get(shard.trimmed).is_some_and(|s| s.put_at < kept_from) {
            shard.trimmed += 1;
        }
        let begin = match from {
            Cursor::Oldest => shard.trimmed,
            Cursor::After(position) => {
                let begin = shard.stored.partition_point(|s| s.record.position <= *position);
                if begin < shard.trimmed {
                    return Err(ReadLogError::Trimmed);
                }
                begin
            }
            Cursor::Token(token) => {
                let (given, begin) = parse_token(token).ok_or(ReadLogError::Expired)?;
                if given < tokens_expire || now - given > TOKEN_LIFE || begin < shard.trimmed {
                    return Err(ReadLogError::Expired);
                }
                begin
            }
        };
        let mut bytes = 0;
        let visible = shard.stored[begin..].iter().take_while(|s| s.visible_at <= now);
        let records: Vec<LogRecord> = visible
            .take_while(|s| {
                bytes += s.record.data.len();
                bytes <= READ_BYTES_MAX
            })
            .map(|s| s.record.clone())
            .collect();
        if !shard.read_bytes.take(now, knobs.read_bytes_per_s as f64 * share, bytes as f64, true) {
            return Err(ReadLogError::Throttled);
        }
        let end = begin + records.len();
        let next = (!shard.info.closed || end < shard.stored.len())
            .then(|| Cursor::Token(format!("{now}:{end}")));
        let at_tip = shard.stored.get(end).is_none_or(|s| s.visible_at > now);
        Ok(Page { records, next, at_tip })
    }

    /// All tokens given so far are of no use from now on.
    pub fn expire_tokens(&mut self, now: Nanos) {
        self.tokens_expire = now + 1;
    }

    /// The shards that are open, or may still hold records.
    pub fn shards(&self, now: Nanos) -> Vec<ShardInfo> {
        let kept_from = now.saturating_sub(self.knobs.retention_ms * 1_000_000);
        let listed = |s: &&Shard| s.closed_at.is_none_or(|at| at >= kept_from);
        self.shards.iter().filter(listed).map(|s| s.info.clone()).collect()
    }

    /// All shards there ever were.
    pub fn all_shards(&self) -> Vec<ShardInfo> {
        self.shards.iter().map(|s| s.info.clone()).collect()
    }

    /// Every record ever put, trimmed ones too.
    pub fn all_records(&self) -> BTreeMap<ShardId, Vec<LogRecord>> {
        let records = |s: &Shard| s.stored.iter().map(|r| r.record.clone()).collect();
        self.shards.iter().map(|s| (s.info.id, records(s))).collect()
    }

    /// The records of a shard from the `from`th on.
    pub fn records_from(&self, shard: ShardId, from: usize) -> impl Iterator<Item = &LogRecord> {
        let stored = self.shards.get(shard.0 as usize).map_or(&[][..], |s| &s.stored);
        stored.iter().skip(from).map(|s| &s.record)
    }

    /// Splits a shard.
    pub fn split(&mut self, now: Nanos, shard: ShardId, at: u128) -> Result<(), LogError> {
        let parent = self.open_shard(shard)?;
        let range = parent.range;
        if at <= range.start || at > range.end {
            return Err(LogError::Refused("the split point is not within the shard"));
        }
        self.close(now, shard);
        self.open(HashRange { start: range.start, end: at - 1 }, vec![shard]);
        self.open(HashRange { start: at, end: range.end }, vec![shard]);
        Ok(())
    }

    /// Merges two neighbours.
    pub fn merge(&mut self, now: Nanos, a: ShardId, b: ShardId) -> Result<(), LogError> {
        let (low, high) = {
            let (a, b) = (self.open_shard(a)?.range, self.open_shard(b)?.range);
            if a.start < b.start { (a, b) } else { (b, a) }
        };
        if low.end.checked_add(1) != Some(high.start) {
            return Err(LogError::Refused("the shards are not neighbours"));
        }
        self.close(now, a);
        self.close(now, b);
        self.open(HashRange { start: low.start, end: high.end }, vec![a, b]);
        Ok(())
    }

    fn open_shard(&self, shard: ShardId) -> Result<&ShardInfo, LogError> {
        let info = self.shards.get(shard.0 as usize).map(|s| &s.info);
        info.filter(|i| !i.closed).ok_or(LogError::Refused("no such open shard"))
    }

    fn close(&mut self, now: Nanos, shard: ShardId) {
        if let Some(shard) = self.shards.get_mut(shard.0 as usize) {
            shard.info.closed = true;
            shard.closed_at = Some(now);
        }
    }

    fn open(&mut self, range: HashRange, parents: Vec<ShardId>) {
        let number = self.shards.len() as u32;
        let knobs = &self.knobs;
        self.shards.push(Shard {
            info: ShardInfo { id: ShardId(number), range, parents, closed: false },
            stored: Vec::new(),
            trimmed: 0,
            closed_at: None,
            put_bytes: Bucket::full(knobs.put_bytes_per_s),
            put_records: Bucket::full(knobs.put_records_per_s),
            reads: Bucket::full(knobs.reads_per_s),
            read_bytes: Bucket::full(knobs.read_bytes_per_s),
            stream: Stream::new(self.seed, "log", u64::from(number)),
        });
    }
}

/// When it was given, and the number of the record that it stands before.
fn parse_token(token: &str) -> Option<(Nanos, usize)> {
    let (given, begin) = token.split_once(':')?;
    Some((given.parse().ok()?, begin.parse().ok()?))
}
