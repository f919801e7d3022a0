//! How long calls take on this machine: figures for docs, no promise.

use std::time::{Duration, Instant};

use stormkeep_core::{
    append::{Direction, Freshness},
    env::{EpochRow, NodeId, Row, Store, Swap, Token},
    shard::ShardId,
};

use crate::cluster::{event, fresh, stream};

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let ms = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1000.0;
    println!(
        "{what}: {} calls, p50 {:.1} ms, p90 {:.1}, p99 {:.1}",
        times.len(),
        ms(50),
        ms(90),
        ms(99)
    );
    assert!(!times.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real Cassandra: tests/services/up cassandra; measures"]
async fn calls_one_after_the_other() {
    let store = fresh("speed").await;
    let shard = ShardId(1);
    let row = |epoch| EpochRow { shard, epoch, owner: Some((NodeId(1), Token(u128::from(epoch)))) };
    assert_eq!(store.swap_epoch(EpochRow::vacant(shard), row(1)).await, Ok(Swap::Done));
    for round in ["cold", "warm"] {
        let (mut reads, mut swaps, mut settled) = (Vec::new(), Vec::new(), Vec::new());
        let (mut writes, mut pages, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..300u64 {
            let begin = Instant::now();
            let now = store.epoch(shard).await.unwrap();
            reads.push(begin.elapsed());
            let begin = Instant::now();
            assert_eq!(store.swap_epoch(now, row(now.epoch + 1)).await, Ok(Swap::Done));
            swaps.push(begin.elapsed());
            let begin = Instant::now();
            store.epoch_settled(shard).await.unwrap();
            settled.push(begin.elapsed());
            // As a fold writes them: ten streams, in one shard.
            let time = |r: u64| 1_000_000 * n + r;
            let rows = (0..64)
                .map(|r| Row::Event(event(&format!("s-{}", r % 10), n * 7 + r / 10, time(r), 256)));
            let begin = Instant::now();
            store.write(&rows.collect::<Vec<_>>()).await.unwrap();
            writes.push(begin.elapsed());
            let begin = Instant::now();
            let (of, fresh) = (stream("s-1"), Freshness::Strong);
            store.events(&of, n * 7, 20, Direction::Forwards, fresh).await.unwrap();
            pages.push(begin.elapsed());
            let begin = Instant::now();
            store.checkpoints().await.unwrap();
            all.push(begin.elapsed());
        }
        println!("{round}:");
        show("epoch, a quorum read", reads);
        show("swap", swaps);
        show("epoch_settled, a serial read", settled);
        show("write of 64 events of 256 B in 10 streams", writes);
        show("events, a page of one partition", pages);
        show("checkpoints", all);
    }
    println!("{:?}", store.metrics());
}
