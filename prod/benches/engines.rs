//! What a durable group commit costs: our segments, and the engines that could stand in their place. Every figure is of one
//! group of records of 400 bytes, all of them durable when it ends. The ratios are in `docs/adr/0004`:
//!
//! ```text
//! cargo bench -p stormkeep --bench engines
//! ```

#![allow(clippy::unwrap_used, missing_docs)] // a measurement: what is wrong here must stop it

use std::{fs::File, io::Write as _, path::Path, time::Duration};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::future::join_all;
use stormkeep::disk::{self, Options};
use stormkeep_core::env::Log;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const RECORD_BYTES: usize = 400;
const GROUPS: [usize; 2] = [64, 256];

/// On the disk that the build is on: the folder for temporary files may be memory.
fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn record() -> Vec<u8> {
    (0..RECORD_BYTES).map(|n| (n * 31) as u8).collect()
}

/// One batch of the core: all events of the group are one record of the log. `inline`: without the handover to the thread
/// that flushes, which costs little but on a busy machine.
fn segments_batch(runtime: &Runtime, path: &Path, count: usize, inline: bool) -> impl FnMut() {
    let disk = disk::open(path, &Options { inline, ..Options::default() }).unwrap();
    let shard = runtime.block_on(disk.log.shards()).unwrap().remove(0);
    let batch = Bytes::from(record().repeat(count));
    move || {
        runtime.block_on(disk.log.put(&shard, None, batch.clone())).unwrap();
    }
}

/// Each event is a record of its own, put at once with the others: one flush, or two.
fn segments_puts(runtime: &Runtime, path: &Path, count: usize) -> impl FnMut() {
    let disk = disk::open(path, &Options::default()).unwrap();
    let shard = runtime.block_on(disk.log.shards()).unwrap().remove(0);
    let record = Bytes::from(record());
    move || {
        let puts = (0..count).map(|_| disk.log.put(&shard, None, record.clone()));
        for put in runtime.block_on(join_all(puts)) {
            put.unwrap();
        }
    }
}

fn growing_file(path: &Path, count: usize) -> impl FnMut() {
    let mut file = File::create(path.join("file")).unwrap();
    let group = record().repeat(count);
    move || {
        file.write_all(&group).unwrap();
        file.sync_data().unwrap();
    }
}

fn fjall(path: &Path, count: usize) -> impl FnMut() {
    let database = fjall::Database::builder(path).manual_journal_persist(true).open().unwrap();
    let keyspace = database.keyspace("log", fjall::KeyspaceCreateOptions::default).unwrap();
    let (record, mut next) = (record(), 0u64);
    move || {
        let mut batch = database.batch().durability(Some(fjall::PersistMode::SyncData));
        for _ in 0..count {
            batch.insert(&keyspace, next.to_be_bytes(), &record[..]);
            next += 1;
        }
        batch.commit().unwrap();
    }
}

fn redb(path: &Path, count: usize) -> impl FnMut() {
    const TABLE: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("log");
    let database = redb::Database::create(path.join("file")).unwrap();
    let (record, mut next) = (record(), 0u64);
    move || {
        let transaction = database.begin_write().unwrap();
        {
            let mut table = transaction.open_table(TABLE).unwrap();
            for _ in 0..count {
                table.insert(next, &record[..]).unwrap();
                next += 1;
            }
        }
        transaction.commit().unwrap();
    }
}

fn engines(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut group = c.benchmark_group("durable group commit");
    group.sample_size(20).warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(4));
    for count in GROUPS {
        group.throughput(Throughput::Elements(count as u64));
        let mut measure = |name: &str, commit: &mut dyn FnMut()| {
            group.bench_function(BenchmarkId::new(name, count), |b| b.iter(&mut *commit));
        };
        // One after the other, so that none waits for what another writes in the background.
        for (name, inline) in [("segments, one batch", false), ("segments, inline", true)] {
            measure(name, &mut segments_batch(&runtime, folder().path(), count, inline));
        }
        measure("segments, puts", &mut segments_puts(&runtime, folder().path(), count));
        measure("growing file", &mut growing_file(folder().path(), count));
        measure("fjall", &mut fjall(folder().path(), count));
        measure("redb", &mut redb(folder().path(), count));
    }
    group.finish();
}

criterion_group!(benches, engines);
criterion_main!(benches);
