//! What only rows in partitions can get wrong.

use std::sync::Arc;

use futures::future::join_all;
use stormkeep::cassandra::CassandraStore;
use stormkeep_core::{
    append::{AppendId, Direction, Freshness},
    env::{EpochRow, NodeId, NodeRow, Position, Role, Row, Store, Swap, Token},
    event::RecordedEvent,
    head::{Head, Remembered},
    limits::{EVENT_BYTES_MAX, REMEMBERED_APPENDS},
    shard::{Checkpoint, ShardId},
    time::HybridTime,
};

use crate::cluster::{event, fresh, stream};

const FORWARDS: Direction = Direction::Forwards;
const BACKWARDS: Direction = Direction::Backwards;

/// A serial read contends with swaps, and may be without an answer as they may.
async fn settled(store: &CassandraStore, shard: ShardId) -> EpochRow {
    loop {
        if let Ok(row) = store.epoch_settled(shard).await {
            return row;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real Cassandra: tests/services/up cassandra"]
async fn eight_swap_one_row_and_each_epoch_has_one_winner() {
    let store = fresh("contention").await;
    let shard = ShardId(3);
    let tasks = (0..8u32).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let (mut won, mut unknown) = (Vec::new(), 0);
            let mut row = store.epoch(shard).await.unwrap();
            while row.epoch < 24 {
                let owner = Some((NodeId(n), Token(u128::from(n) + 1)));
                let to = EpochRow { shard, epoch: row.epoch + 1, owner };
                match store.swap_epoch(row, to).await {
                    Ok(Swap::Done) => {
                        won.push(to.epoch);
                        row = store.epoch(shard).await.unwrap();
                        assert!(row.epoch >= to.epoch, "a quorum read sees a swap that is done");
                    }
                    Ok(Swap::Lost(now)) => row = now,
                    Err(_) => {
                        unknown += 1;
                        row = settled(&store, shard).await;
                        if row == to {
                            won.push(to.epoch);
                        }
                    }
                }
            }
            (won, unknown)
        })
    });
    let ended: Vec<_> = join_all(tasks).await.into_iter().map(|task| task.unwrap()).collect();
    let unknown: u32 = ended.iter().map(|(_, unknown)| unknown).sum();
    let mut won: Vec<u64> = ended.into_iter().flat_map(|(won, _)| won).collect();
    println!("{unknown} swaps had no answer");
    won.sort_unstable();
    let last = *won.last().unwrap();
    // A swap without an answer that was settled as undone may have been done after all, by nobody's count.
    assert!(won.windows(2).all(|two| two[0] < two[1]), "an epoch has two winners: {won:?}");
    assert!(unknown > 0 || won == (1..=last).collect::<Vec<_>>(), "{won:?}");
    let rows = store.epochs(&[ShardId(99), shard]).await.unwrap();
    assert_eq!(rows, [EpochRow::vacant(ShardId(99)), settled(&store, shard).await]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real Cassandra: tests/services/up cassandra"]
async fn a_release_and_a_vacant_row_can_be_taken() {
    let store = fresh("release").await;
    let vacant = EpochRow::vacant(ShardId(1));
    let taken = EpochRow { epoch: 1, owner: Some((NodeId(1), Token(5))), ..vacant };
    let released = EpochRow { owner: None, ..taken };
    let again = EpochRow { epoch: 2, owner: Some((NodeId(2), Token(6))), ..vacant };
    assert_eq!(store.swap_epoch(taken, again).await, Ok(Swap::Lost(vacant)), "there is no row");
    assert_eq!(store.swap_epoch(vacant, taken).await, Ok(Swap::Done));
    assert_eq!(store.swap_epoch(vacant, taken).await, Ok(Swap::Lost(taken)));
    assert_eq!(store.swap_epoch(taken, released).await, Ok(Swap::Done));
    assert_eq!(store.epoch(ShardId(1)).await, Ok(released));
    assert_eq!(store.swap_epoch(released, again).await, Ok(Swap::Done));
    assert_eq!(store.epoch_settled(ShardId(1)).await, Ok(again));
}

fn at(position: u128, ended: bool, accepted: u64) -> Checkpoint {
    let position = Some(Position::new(position));
    Checkpoint { ended, position, accepted, epoch: 2, next: 1, closed: HybridTime(9) }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real Cassandra: tests/services/up cassandra"]
async fn of_two_checkpoints_the_further_one_stays() {
    let store = fresh("further").await;
    // In both orders: fewer entries accepted, and as many accepted but less far.
    let pairs = [
        (at(900, false, 5), at(10, false, 6)),
        (at(10, false, 5), at(256, false, 5)),
        (at(256, false, 5), at(256, true, 5)),
        (at(255, false, 0), at(256, false, 0)),
    ];
    for (n, (near, far)) in (0..).zip(pairs) {
        for (shard, order) in [(2 * n, [&near, &far]), (2 * n + 1, [&far, &near])] {
            for checkpoint in order {
                store.write(&[Row::Checkpoint(ShardId(shard), checkpoint.clone())]).await.unwrap();
            }
            assert_eq!(store.checkpoint(ShardId(shard)).await, Ok(far.clone()), "{order:?}");
        }
    }
    let all = store.checkpoints().await.unwrap();
    assert_eq!(
        all.iter().map(|(shard, _)| shard.0).collect::<Vec<_>>(),
        (0..8).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real Cassandra: tests/services/up cassandra"]
async fn a_stream_is_read_across_its_partitions() {
    let store = fresh("partitions").await;
    let events: Vec<RecordedEvent> =
        (0..1000).map(|n| event("player-1", n, 40_000_000 * (n / 100) + n, 200)).collect();
    let rows: Vec<Row> = events.iter().cloned().map(Row::Event).collect();
    for rows in rows.chunks(64) {
        store.write(rows).await.unwrap();
    }
    let head = Head { revision: Some(999), ..Head::default() };
    store.write(&[Row::Head(stream("player-1"), head.into())]).await.unwrap();
    let name = stream("player-1");
    for (from, limit) in [
        (0u64, 1u32),
        (0, 64),
        (0, 65),
        (63, 2),
        (64, 64),
        (5, 1000),
        (0, 2000),
        (999, 5),
        (1000, 5),
        (u64::MAX, 5),
    ] {
        for freshness in [Freshness::Strong, Freshness::Eventual] {
            let found = store.events(&name, from, limit, FORWARDS, freshness).await.unwrap();
            let first = (from as usize).min(events.len());
            let last = first.saturating_add(limit as usize).min(events.len());
            let wrong =
                found.iter().zip(&events[first..last]).find(|(found, wanted)| found != wanted);
            assert_eq!(wrong, None, "{freshness:?} from {from}, {limit}: {} events", found.len());
            assert_eq!(found.len(), last - first, "{freshness:?} from {from}, {limit}");
            let found = store.events(&name, from, limit, BACKWARDS, freshness).await.unwrap();
            let last = (from.saturating_add(1) as usize).min(events.len());
            let mut wanted = events[last.saturating_sub(limit as usize)..last].to_vec();
            wanted.reverse();
            assert!(found == wanted, "back from {from}, {limit}: {} events", found.len());
        }
    }
    // The shard has ten islands of events, 40 s apart, and an empty time before and behind.
    let time = |n: usize| events[n].time;
    for (times, first, last) in [
        ((HybridTime(0), HybridTime(u64::MAX)), 0, 1000),
        ((time(150), time(849)), 150, 850),
        ((time(5), time(5)), 5, 6),
        ((time(99).plus(1), HybridTime(time(100).0 - 1)), 100, 100),
        ((time(999).plus(1), HybridTime(u64::MAX)), 1000, 1000),
    ] {
        for limit in [1usize, 70, 130, 5000] {
            let found =
                store.shard_events(ShardId(7), times, limit as u32, FORWARDS).await.unwrap();
            assert!(
                found == events[first..last.min(first + limit)],
                "{times:?} {limit}: {}",
                found.len()
            );
            let found =
                store.shard_events(ShardId(7), times, limit as u32, BACKWARDS).await.unwrap();
            let mut wanted = events[first.max(last.saturating_sub(limit))..last].to_vec();
            wanted.reverse();
            assert!(found == wanted, "back {times:?} {limit}: {}", found.len());
        }
    }
    let other = store.shard_events(ShardId(8), (HybridTime(0), HybridTime(u64::MAX)), 9, FORWARDS);
    assert_eq!(other.await, Ok(Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real Cassandra: tests/services/up cassandra"]
async fn the_largest_events_fill_a_partition() {
    let store = fresh("largest").await;
    let events: Vec<_> = (0..70).map(|n| event("big-1", n, n + 1, EVENT_BYTES_MAX - 14)).collect();
    for some in events.chunks(4) {
        store.write(&some.iter().cloned().map(Row::Event).collect::<Vec<_>>()).await.unwrap();
    }
    let found = store.events(&stream("big-1"), 0, 70, FORWARDS, Freshness::Strong).await.unwrap();
    assert!(found == events);
    let times = (HybridTime(0), HybridTime(u64::MAX));
    let found = store.shard_events(ShardId(7), times, 70, FORWARDS).await.unwrap();
    assert!(found == events);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real Cassandra: tests/services/up cassandra"]
async fn heads_and_signs_of_life_come_back_whole() {
    let store = fresh("whole").await;
    let name = stream(&"n".repeat(1024));
    let append = |n: u64| Remembered {
        id: AppendId(u128::MAX - u128::from(n)),
        metadata: n.is_multiple_of(2),
        shard: ShardId(u32::MAX),
        first: u64::MAX / 2 - 100 + n,
        last: u64::MAX / 2 - 100 + n,
        time: HybridTime(1 << 50),
    };
    let remembered = (0..REMEMBERED_APPENDS as u64).map(append).collect();
    let head = Head {
        revision: Some(7),
        metadata: Some(3),
        tombstoned: true,
        remembered,
        ..Head::default()
    };
    let older = Head { revision: Some(6), ..head.clone() };
    store.write(&[Row::Head(name.clone(), head.clone().into())]).await.unwrap();
    store.write(&[Row::Head(name.clone(), older.into())]).await.unwrap();
    assert_eq!(store.head(&name, Freshness::Strong).await, Ok(Some(head)));
    assert_eq!(store.head(&stream("nobody"), Freshness::Eventual).await, Ok(None));
    let node = |token, beat| NodeRow {
        node: NodeId(4),
        role: Role::Owns,
        token: Token(token),
        beat,
        draining: beat > 1,
    };
    let beats = [node(1, 9), node(1, 8), node(u128::MAX, 0)];
    for beat in beats {
        store.write(&[Row::Node(beat)]).await.unwrap();
    }
    let mut nodes = store.nodes().await.unwrap();
    nodes.sort();
    assert_eq!(nodes, [node(1, 9), node(u128::MAX, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real Cassandra: tests/services/up cassandra"]
async fn many_write_at_once() {
    let store = fresh("at_once").await;
    let write = |n: u64| {
        let store: Arc<_> = store.clone();
        tokio::spawn(async move {
            let rows = (0..64).map(|r| Row::Event(event(&format!("s-{n}"), r, n * 64 + r, 300)));
            store.write(&rows.collect::<Vec<_>>()).await
        })
    };
    for done in join_all((0..32).map(write)).await {
        done.unwrap().unwrap();
    }
    let times = (HybridTime(0), HybridTime(u64::MAX));
    let all = store.shard_events(ShardId(7), times, u32::MAX, FORWARDS).await.unwrap();
    assert_eq!(all.len(), 32 * 64);
    assert!(all.is_sorted_by_key(|event| event.time));
    assert_eq!(store.metrics().in_flight, 0);
}
