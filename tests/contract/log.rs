//! What the core needs of a log: see the contract at [`Log`].

pub(crate) mod closing;
pub(crate) mod puts;
pub(crate) mod reads;

use std::{fmt, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use stormkeep_core::{
    env::{Clock, Cursor, Log, LogRecord, Position, Put, PutError, ReadLogError},
    shard::{ShardId, ShardInfo},
};

use crate::family::{Family, PAUSE, Verdict, broken, ensure, random, until_answered};

/// The records of one check: they begin with bytes of their own, so that what else is in the log is not taken for them.
#[derive(Debug, Clone, Copy)]
struct Mark([u8; 16]);

impl Mark {
    fn new<F: Family>(family: &F) -> Self {
        Mark(random(family).to_be_bytes())
    }

    /// The record of this number, of so many bytes (at least 20). No two are the same.
    fn record(self, number: u32, bytes: usize) -> Bytes {
        let mut record = BytesMut::with_capacity(bytes);
        record.put_slice(&self.0);
        record.put_u32(number);
        while record.len() < bytes {
            record.put_u8((number as usize + record.len()) as u8);
        }
        record.freeze()
    }

    fn is_on(self, record: &LogRecord) -> bool {
        record.data.starts_with(&self.0)
    }
}

/// The open shards, in the order of their ranges.
async fn open_shards<F: Family>(family: &F) -> Verdict<Vec<ShardInfo>> {
    let mut shards = until_answered(family, "shards", || family.log().shards()).await?;
    shards.retain(|s| !s.closed);
    shards.sort_by_key(|s| s.range.start);
    ensure!(!shards.is_empty(), "no shard is open");
    Ok(shards)
}

/// The first open shard.
async fn a_shard<F: Family>(family: &F) -> Verdict<ShardInfo> {
    Ok(open_shards(family).await?.remove(0))
}

/// Puts a record where nothing goes wrong: throttling is waited for, and a put must not be unknown.
async fn put<F: Family>(
    family: &F,
    shard: &ShardInfo,
    after: Option<Position>,
    data: &Bytes,
) -> Verdict<Put> {
    let throttled = async || loop {
        match family.log().put(shard, after, data.clone()).await {
            Err(PutError::Throttled) => family.clock().sleep(PAUSE).await,
            answer => return answer,
        }
    };
    throttled().await.or_else(|error| broken(format!("a put of {} bytes: {error}", data.len())))
}

/// Puts a record until a put is confirmed. Each try may land.
async fn put_through<F: Family>(family: &F, shard: &ShardInfo, data: &Bytes) -> Verdict<Put> {
    until_answered(family, "put", || family.log().put(shard, None, data.clone())).await
}

/// Reads the log of a shard, page by page, and keeps the records of one check.
struct Reader<F> {
    family: Arc<F>,
    shard: ShardId,
    mark: Mark,
    /// Where to go on; `None`: the end of a closed shard was reached.
    next: Option<Cursor>,
    /// The last position that was read, of whatever record.
    last: Option<Position>,
    /// What was read of the check's records.
    records: Vec<LogRecord>,
}

impl<F: Family> Reader<F> {
    fn new(family: &Arc<F>, shard: ShardId, mark: Mark, from: Cursor) -> Self {
        let last = match from {
            Cursor::After(position) => Some(position),
            _ => None,
        };
        let (next, records) = (Some(from), Vec::new());
        Reader { family: family.clone(), shard, mark, next, last, records }
    }

    /// Reads a page; throttling is waited for, and where a token has expired it goes on behind the last position.
    /// Positions must grow. Returns whether the page says that it is at the tip.
    async fn page(&mut self) -> Verdict<bool> {
        let Some(cursor) = self.next.clone() else { return Ok(true) };
        let page = match self.family.log().read(self.shard, cursor).await {
            Ok(page) => page,
            Err(ReadLogError::Expired) => {
                self.next = Some(self.last.map_or(Cursor::Oldest, Cursor::After));
                return Ok(false);
            }
            Err(ReadLogError::Throttled | ReadLogError::Unavailable) => {
                self.family.clock().sleep(PAUSE).await;
                return Ok(false);
            }
            Err(error @ ReadLogError::Trimmed) => return broken(format!("a read: {error}")),
        };
        for record in page.records {
            ensure!(
                self.last.is_none_or(|last| record.position > last),
                "{:?} was read behind {:?}",
                record.position,
                self.last
            );
            self.last = Some(record.position);
            if self.mark.is_on(&record) {
                self.records.push(record);
            }
        }
        self.next = page.next;
        Ok(page.at_tip)
    }

    /// Reads on until this holds of the records read, or the shard has ended.
    async fn until(&mut self, what: &str, holds: impl Fn(&[LogRecord]) -> bool) -> Verdict {
        let deadline = self.family.clock().elapsed() + F::PATIENCE / 2;
        while !holds(&self.records) && self.next.is_some() {
            let at_tip = self.page().await?;
            let read = self.records.len();
            ensure!(
                self.family.clock().elapsed() < deadline,
                "{what}: only {read} records are read"
            );
            if at_tip && !holds(&self.records) {
                self.family.clock().sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    /// Reads on until the end of a closed shard.
    async fn read_out(&mut self) -> Verdict {
        self.until("the end of a closed shard", |_| false).await
    }
}

/// The records of a check in a shard, once so many are there.
async fn records<F: Family>(
    family: &Arc<F>,
    shard: ShardId,
    mark: Mark,
    count: usize,
) -> Verdict<Vec<LogRecord>> {
    let mut reader = Reader::new(family, shard, mark, Cursor::Oldest);
    reader.until("all that was put", |records| records.len() >= count).await?;
    Ok(reader.records)
}

/// Whether these are the records that were confirmed, each at its position.
fn same(read: &[LogRecord], confirmed: &[(Position, Bytes)]) -> Verdict {
    let seen: Vec<_> = read.iter().map(|r| (r.position, r.data.clone())).collect();
    ensure!(seen == confirmed, "{}", Difference(&seen, confirmed));
    Ok(())
}

/// Where two lists of records part.
struct Difference<'a>(&'a [(Position, Bytes)], &'a [(Position, Bytes)]);

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference(read, confirmed) = self;
        let at = read.iter().zip(*confirmed).take_while(|(a, b)| a == b).count();
        let position = |records: &[(Position, Bytes)]| records.get(at).map(|(p, _)| *p);
        write!(
            f,
            "{} records are read and {} were confirmed; they part at number {at}: {:?} was read, {:?} was confirmed",
            read.len(),
            confirmed.len(),
            position(read),
            position(confirmed)
        )
    }
}
