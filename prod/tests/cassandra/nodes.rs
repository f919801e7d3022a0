//! Nodes of Cassandra that go and come back.

use std::time::{Duration, Instant};

use stormkeep_core::{
    append::{Direction, Freshness},
    env::{EpochRow, NodeId, Row, Store, StoreError, Swap, Token},
    shard::ShardId,
};

use crate::cluster::{event, fresh, node, stream};

/// Calls until it answers as wanted; how long that took.
async fn until<T, F: Future<Output = T>>(
    what: &str,
    within: Duration,
    mut call: impl FnMut() -> F,
    wanted: impl Fn(&T) -> bool,
) -> Duration
where
    T: std::fmt::Debug,
{
    let begin = Instant::now();
    let mut seen: Vec<String> = Vec::new();
    loop {
        let answer = call().await;
        let text = format!("{answer:?}");
        if seen.last() != Some(&text) {
            seen.push(text);
        }
        if wanted(&answer) {
            println!("{what}: after {} ms: {}", begin.elapsed().as_millis(), seen.join(" … "));
            return begin.elapsed();
        }
        assert!(begin.elapsed() < within, "{what}: not within {within:?}: {}", seen.join(" … "));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One test, because it takes nodes away from the others.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real Cassandra: tests/services/up cassandra; kills its nodes"]
async fn a_store_outlives_the_nodes_of_cassandra() {
    let store = fresh("outlives").await;
    let shard = ShardId(5);
    let row = |epoch| EpochRow { shard, epoch, owner: Some((NodeId(1), Token(u128::from(epoch)))) };
    assert_eq!(store.swap_epoch(EpochRow::vacant(shard), row(1)).await, Ok(Swap::Done));
    let minute = Duration::from_secs(60);

    // One of three: all goes on, after what was on its way there.
    node("kill", 2);
    until("read with one down", minute, || store.epoch(shard), |r| *r == Ok(row(1))).await;
    let swapped =
        |r: &Result<Swap, StoreError>| matches!(r, Ok(Swap::Done)) || *r == Ok(Swap::Lost(row(2)));
    until("swap with one down", minute, || store.swap_epoch(row(1), row(2)), swapped).await;
    let rows = (0..64).map(|n| Row::Event(event("one-down", n, n + 1, 300))).collect::<Vec<_>>();
    until("write with one down", minute, || store.write(&rows), Result::is_ok).await;
    assert_eq!(store.unreachable(), None);

    // Two of three: no, as soon as Cassandra knows.
    node("kill", 3);
    let no = Err(StoreError::Unavailable);
    until("write with two down", minute, || store.write(&rows), |r| *r == no).await;
    until(
        "swap with two down",
        minute,
        || store.swap_epoch(row(2), row(3)),
        |r| *r == Err(StoreError::Unavailable),
    )
    .await;
    assert_eq!(store.epoch(shard).await, Err(StoreError::Unavailable));
    let name = stream("one-down");
    let one = store.events(&name, 0, 64, Direction::Forwards, Freshness::Eventual);
    assert_eq!(one.await.map(|events| events.len()), Ok(64), "one replica is enough for that");

    // All of them.
    node("kill", 1);
    let none = until("no node at all", minute, || async { store.unreachable() }, Option::is_some);
    none.await;
    assert!(store.epoch(shard).await.is_err());
    assert!(store.write(&rows).await.is_err());

    // Back, without a restart of ours.
    for n in [1, 2, 3] {
        node("launch", n);
    }
    for n in [1, 2, 3] {
        node("wait", n);
    }
    let settled = |r: &Result<EpochRow, StoreError>| *r == Ok(row(2));
    until("settled again", minute, || store.epoch_settled(shard), settled).await;
    until(
        "swap again",
        minute,
        || store.swap_epoch(row(2), row(3)),
        |r| matches!(r, Ok(Swap::Done)) || *r == Ok(Swap::Lost(row(3))),
    )
    .await;
    until("write again", minute, || store.write(&rows), Result::is_ok).await;
    let all = store.events(&name, 0, 99, Direction::Forwards, Freshness::Strong);
    assert_eq!(all.await.map(|events| events.len()), Ok(64));

    // One that hangs: nothing waits for it longer than a request may take.
    node("stop", 2);
    let begin = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut answered = 0;
    while begin.elapsed() < Duration::from_secs(10) {
        let call = Instant::now();
        answered += u32::from(store.epoch(shard).await == Ok(row(3)));
        slowest = slowest.max(call.elapsed());
    }
    node("cont", 2);
    println!(
        "with one that hangs: {answered} epochs in 10 s, the slowest after {} ms",
        slowest.as_millis()
    );
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    assert!(answered > 100, "{answered}");
    until("after it goes on", minute, || store.write(&rows), Result::is_ok).await;
}
