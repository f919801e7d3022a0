//! The log on Kinesis, against a stand-in: what only this adapter does. What every log must do is in `tests/contract`.
//!
//! ```sh
//! export KINESIS_ENDPOINT=$(tests/services/kinesis/up)
//! export AWS_ACCESS_KEY_ID=stand-in AWS_SECRET_ACCESS_KEY=stand-in AWS_EC2_METADATA_DISABLED=true
//! cargo test --workspace --test kinesis -- --ignored --nocapture
//! ```
//!
//! The stand-in neither throttles nor drops old records nor knows permissions; such answers are given by a proxy before it,
//! in the service's words.

#![allow(clippy::unwrap_used)] // a test: what is wrong here must stop it

mod fanout;
mod health;
mod proxy;
mod put;
mod read;

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use stormkeep::kinesis::{KinesisLog, Settings};
use stormkeep_core::{
    env::{Cursor, Log, LogRecord, Position, ReadLogError},
    shard::{ShardId, ShardInfo},
};

/// Where the stand-in is.
fn endpoint() -> String {
    std::env::var("KINESIS_ENDPOINT").unwrap_or_else(|_| "http://127.0.0.1:4568".to_owned())
}

/// The host and port of the stand-in.
fn address() -> String {
    endpoint().trim_start_matches("http://").trim_end_matches('/').to_owned()
}

/// Settings for a stream of its own. Without credentials in the environment the SDK would ask the machine's metadata service
/// for real ones, so there must be some, and that service must be off.
fn settings() -> Settings {
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"] {
        assert!(std::env::var(name).is_ok(), "{name} is not set: see the docs of this test");
    }
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let began = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    Settings {
        stream: format!("test-{}-{began}-{count}", std::process::id()),
        region: Some("us-east-1".to_owned()),
        endpoint: Some(endpoint()),
        // The stand-in does not throttle: tests need not wait.
        reads_per_s: 1000,
        read_bytes_per_s: 1_000_000_000,
        ..Settings::default()
    }
}

async fn open(settings: &Settings) -> KinesisLog {
    KinesisLog::open(settings.clone()).await.unwrap()
}

/// A log with a stream of so many shards, and the shards.
async fn created(settings: &Settings, count: u32) -> (KinesisLog, Vec<ShardInfo>) {
    let log = open(settings).await;
    log.create(count).await.unwrap();
    let shards = log.shards().await.unwrap();
    assert_eq!(shards.len(), count as usize);
    (log, shards)
}

/// The shard as the log lists it now.
async fn shard(log: &KinesisLog, id: ShardId) -> ShardInfo {
    log.shards().await.unwrap().into_iter().find(|shard| shard.id == id).unwrap()
}

/// Puts numbers, each after the one before it.
async fn put_numbers(
    log: &KinesisLog,
    shard: &ShardInfo,
    numbers: std::ops::Range<u32>,
) -> Vec<Position> {
    let mut positions: Vec<Position> = Vec::new();
    for number in numbers {
        let data = Bytes::from(number.to_string());
        let put = log.put(shard, positions.last().copied(), data).await.unwrap();
        assert_eq!(put.shard, shard.id);
        positions.push(put.position);
    }
    positions
}

/// What a reader got.
#[derive(Debug)]
struct Got {
    records: Vec<LogRecord>,
    /// Where it would go on; `None`: the shard has ended.
    next: Option<Cursor>,
}

impl Got {
    fn numbers(&self) -> Vec<u32> {
        let number =
            |record: &LogRecord| std::str::from_utf8(&record.data).unwrap().parse().unwrap();
        self.records.iter().map(number).collect()
    }
}

/// Reads until `count` records are there or the shard has ended. A cursor that expires is opened again, as the core does.
async fn read(log: &KinesisLog, shard: ShardId, from: Cursor, count: usize) -> Got {
    let mut got = Got { records: Vec::new(), next: Some(from.clone()) };
    let reading = async {
        while let Some(next) = got.next.clone() {
            if got.records.len() >= count {
                break;
            }
            match log.read(shard, next).await {
                Ok(page) => {
                    got.records.extend(page.records);
                    got.next = page.next;
                }
                Err(ReadLogError::Expired) => {
                    let last = got.records.last().map(|record| record.position);
                    got.next = Some(last.map_or(from.clone(), Cursor::After));
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    let in_time = tokio::time::timeout(std::time::Duration::from_secs(30), reading).await;
    assert!(in_time.is_ok(), "{shard}: not all in time: {got:?}");
    got
}

/// The middle of a shard.
fn middle(shard: &ShardInfo) -> u128 {
    shard.range.start + (shard.range.end - shard.range.start) / 2
}
