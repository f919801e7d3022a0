//! Rows that are written with a logical timestamp: seen when they are confirmed, and never taken back.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use stormkeep_core::{
    append::{Direction, Freshness},
    env::{Clock, NodeId, NodeRow, Position, Role, Row, Store, StoreError, Token},
    event::Format,
    head::{METADATA, TOMBSTONE},
    limits::{EVENT_BYTES_MAX, REMEMBERED_APPENDS},
    shard::{Checkpoint, ShardId},
    time::HybridTime,
};

use super::{Past, a_name, a_shard, event, events, head, is_there, same_events, write};
use crate::family::{Family, PAUSE, Trouble, Verdict, ensure, random, together, until_answered};

/// A checkpoint as a real one is: positions of Kinesis have 56 digits.
fn checkpoint(accepted: u64, position: &str) -> Checkpoint {
    let position: Option<Position> = Some(position.parse().unwrap_or_else(|e| panic!("{e}")));
    // Behind all events that a past has by then.
    let closed = HybridTime(super::BEGAN_US + accepted * 1_000_000);
    Checkpoint { ended: false, position, accepted, epoch: 3, next: accepted, closed }
}

/// Every order of these.
fn orders<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for n in 0..items.len() {
        let mut rest = items.to_vec();
        let first = rest.remove(n);
        for mut order in orders(&rest) {
            order.insert(0, first.clone());
            all.push(order);
        }
    }
    all
}

/// Many writers, each of which reads what it wrote.
pub(crate) async fn visible<F: Family>(family: Arc<F>) -> Verdict {
    let done = together(&family, 12, |family, _| async move {
        let (shard, stream) = (a_shard(&*family), a_name(&*family, "visible"));
        let mut past = Past::new(shard);
        for accepted in 1..=6 {
            let mut rows = past.append(&stream, accepted % 3 + 1);
            rows.push(Row::Checkpoint(shard, checkpoint(accepted, "7")));
            write(&*family, rows).await?;
            is_there(&*family, &past, &stream).await?;
            let at =
                until_answered(&*family, "checkpoint", || family.store().checkpoint(shard)).await?;
            ensure!(at == checkpoint(accepted, "7"), "the checkpoint is {at:?} after {accepted}");
        }
        Ok(())
    });
    done.await.map(drop)
}

/// Every pair of replicas: one is down at the write, another one at the read.
pub(crate) async fn any_replica<F: Family>(family: Arc<F>) -> Verdict {
    for (written, read) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
        let (shard, stream) = (a_shard(&*family), a_name(&*family, "replicas"));
        let mut past = Past::new(shard);
        family.make(Trouble::ReplicaIsDown(written)).await?;
        let rows = past.append(&stream, 5);
        write(&*family, rows).await?;
        family.calm().await;
        family.make(Trouble::ReplicaIsDown(read)).await?;
        is_there(&*family, &past, &stream).await?;
        family.calm().await;
    }
    Ok(())
}

/// The rows of a fold, of one that lags and of one that is a zombie, in every order.
pub(crate) async fn every_order<F: Family>(family: Arc<F>) -> Verdict {
    for order in orders(&[0, 1, 2, 3]) {
        let (shard, stream) = (a_shard(&*family), a_name(&*family, "orders"));
        let mut past = Past::new(shard);
        let writes: Vec<Vec<Row>> = (1..=4)
            .map(|accepted| {
                let to = if accepted == 2 { stream.metadata() } else { stream.clone() };
                let mut rows = past.append(&to, 2);
                // Positions fall: the count alone decides.
                let position = (100 - accepted).to_string();
                rows.push(Row::Checkpoint(shard, checkpoint(accepted, &position)));
                rows
            })
            .collect();
        for which in &order {
            write(&*family, writes[*which].clone()).await?;
        }
        is_there(&*family, &past, &stream).await?;
        let at =
            until_answered(&*family, "checkpoint", || family.store().checkpoint(shard)).await?;
        ensure!(at == checkpoint(4, "96"), "{order:?}: the checkpoint is {at:?}");
        // And once more, each of them: nothing changes.
        for rows in writes {
            write(&*family, rows).await?;
        }
        is_there(&*family, &past, &stream).await?;
    }
    Ok(())
}

/// Two checkpoints of one count differ by ignored entries at their end.
pub(crate) async fn ties<F: Family>(family: Arc<F>) -> Verdict {
    let long = "49590338271490256608559692538361571095921575989136588898";
    // As texts, or as numbers of too few bits, these compare in another way. No position is before all.
    let positions = ["9", "10", "18446744073709551616", long];
    let mut further: Vec<Checkpoint> = positions.iter().map(|p| checkpoint(8, p)).collect();
    further.insert(0, Checkpoint { position: None, ..checkpoint(8, "0") });
    // The end of the shard is behind every position; and a tie must not mix the columns of two rows.
    further.push(Checkpoint { ended: true, ..checkpoint(8, "9") });
    further.push(Checkpoint { ended: true, ..checkpoint(8, long) });
    for (n, less) in further.iter().enumerate() {
        for more in &further[n + 1..] {
            for order in orders(&[less, more]) {
                let shard = a_shard(&*family);
                for at in &order {
                    write(&*family, vec![Row::Checkpoint(shard, (*at).clone())]).await?;
                }
                let read =
                    until_answered(&*family, "checkpoint", || family.store().checkpoint(shard));
                let read = read.await?;
                ensure!(read == *more, "{order:?} were written, and {read:?} is left");
            }
        }
    }
    Ok(())
}

/// A stream's whole life: more appends than are remembered, metadata, limits, and its end.
pub(crate) async fn heads<F: Family>(family: Arc<F>) -> Verdict {
    let (shard, stream) = (a_shard(&*family), a_name(&*family, "heads"));
    let unknown = head(&*family, &stream).await?;
    ensure!(unknown.is_none(), "a stream that never was has a head: {unknown:?}");
    let mut past = Past::new(shard);
    // Metadata may be there before the stream is.
    let mut rows = past.append(&stream.metadata(), 1);
    let mut appends = 0;
    for round in 0..12u64 {
        for n in 0..5 {
            rows.extend(past.append(&stream, n + 1));
            appends += 1;
        }
        let limits = format!("{{\"$tb\":{round},\"$maxCount\":{},\"$maxAge\":3600}}", round + 1);
        let limits = event(past.time, METADATA, Format::Json, limits.into());
        rows.extend(past.append_events(&stream.metadata(), vec![limits]));
        appends += 1;
        write(&*family, std::mem::take(&mut rows)).await?;
        is_there(&*family, &past, &stream).await?;
        is_there(&*family, &past, &stream.metadata()).await?;
    }
    ensure!(appends > REMEMBERED_APPENDS, "too few appends to forget one");
    let end = event(past.time, TOMBSTONE, Format::Bytes, Bytes::new());
    let rows = past.append_events(&stream, vec![end]);
    write(&*family, rows).await?;
    is_there(&*family, &past, &stream).await?;
    let ended = head(&*family, &stream).await?;
    ensure!(ended.as_ref().is_some_and(|h| h.tombstoned), "the tombstone is not there: {ended:?}");
    // An eventual read comes to the same in the end.
    let deadline = family.clock().elapsed() + F::PATIENCE / 2;
    loop {
        let read = until_answered(&*family, "eventual head", || {
            family.store().head(&stream, Freshness::Eventual)
        });
        if read.await? == ended {
            return Ok(());
        }
        ensure!(family.clock().elapsed() < deadline, "eventual reads never see the last head");
        // In Cassandra a strong read may repair what an eventual one saw behind.
        head(&*family, &stream).await?;
        family.clock().sleep(PAUSE).await;
    }
}

/// Checkpoints of many shards.
pub(crate) async fn checkpoints<F: Family>(family: Arc<F>) -> Verdict {
    let none =
        until_answered(&*family, "checkpoint", || family.store().checkpoint(a_shard(&*family)));
    let none = none.await?;
    ensure!(none == Checkpoint::default(), "a shard that was never folded is at {none:?}");
    let long = "6277101735386680763835789423207666416102355444464034512895";
    let written: Vec<(ShardId, Checkpoint)> = (1..=40u64)
        .map(|n| {
            let at = checkpoint(n, if n % 2 == 0 { long } else { "0" });
            let position = if n % 5 == 0 { None } else { at.position };
            (a_shard(&*family), Checkpoint { ended: n % 3 == 0, position, next: n << 40, ..at })
        })
        .collect();
    for chunk in written.chunks(7) {
        let rows = chunk.iter().map(|(shard, at)| Row::Checkpoint(*shard, at.clone()));
        write(&*family, rows.collect()).await?;
    }
    let all = until_answered(&*family, "checkpoints", || family.store().checkpoints()).await?;
    let shards: BTreeSet<ShardId> = all.iter().map(|(shard, _)| *shard).collect();
    ensure!(shards.len() == all.len(), "a shard has two checkpoints");
    for (shard, expected) in &written {
        let listed = all.iter().find(|(id, _)| id == shard).map(|(_, at)| at);
        ensure!(
            listed == Some(expected),
            "{shard} is listed at {listed:?} instead of {expected:?}"
        );
        let alone =
            until_answered(&*family, "checkpoint", || family.store().checkpoint(*shard)).await?;
        ensure!(alone == *expected, "{shard} is at {alone:?} instead of {expected:?}");
    }
    Ok(())
}

/// Nodes, each with several incarnations.
pub(crate) async fn nodes<F: Family>(family: Arc<F>) -> Verdict {
    let mut expected = Vec::new();
    for number in [7, 1_000_000_007, u32::MAX] {
        for incarnation in 0..2 {
            let node = NodeId(number);
            // A token has 128 bits; the highest is in use.
            let token = Token(random(&*family) | 1 << 127);
            let beats = [(1, false), (2, false), (30 + incarnation, incarnation == 0)];
            let signs = beats.map(|(beat, draining)| NodeRow {
                node,
                role: Role::Owns,
                token,
                beat,
                draining,
            });
            for sign in [signs[1], signs[2], signs[0], signs[1]] {
                write(&*family, vec![Row::Node(sign)]).await?;
            }
            expected.push(signs[2]);
        }
    }
    let all = until_answered(&*family, "nodes", || family.store().nodes()).await?;
    for sign in expected {
        let listed: Vec<&NodeRow> =
            all.iter().filter(|r| (r.node, r.token) == (sign.node, sign.token)).collect();
        ensure!(listed == [&sign], "{sign:?} is listed as {listed:?}");
    }
    Ok(())
}

/// Many rows in one write.
pub(crate) async fn many<F: Family>(family: Arc<F>) -> Verdict {
    let shard = a_shard(&*family);
    let streams: Vec<_> = (0..20).map(|_| a_name(&*family, "many")).collect();
    let mut past = Past::new(shard);
    let mut rows = Vec::new();
    for n in 0..50u64 {
        for stream in &streams {
            let data = Bytes::from(vec![n as u8; 500]);
            let event = event(past.time, "large", Format::Bytes, data);
            rows.extend(past.append_events(stream, vec![event]));
        }
    }
    write(&*family, rows).await?;
    for stream in &streams {
        is_there(&*family, &past, stream).await?;
    }
    Ok(())
}

/// The largest event that there may be, and the smallest.
pub(crate) async fn largest<F: Family>(family: Arc<F>) -> Verdict {
    let (shard, stream) = (a_shard(&*family), a_name(&*family, "largest"));
    let mut past = Past::new(shard);
    let kind = "k".repeat(1000);
    // Of an even time, so that there is no metadata beside it.
    past.wait_us(past.time % 2);
    let all: Vec<u8> = (0..=255).cycle().take(EVENT_BYTES_MAX - kind.len()).collect();
    let large = event(past.time, &kind, Format::Bytes, all.into());
    let mut rows = past.append_events(&stream, vec![large]);
    let empty = event(past.time + 1, "", Format::Json, Bytes::new());
    rows.extend(past.append_events(&stream, vec![empty]));
    write(&*family, rows).await?;
    is_there(&*family, &past, &stream).await
}

/// Writers beside readers while messages get lost.
pub(crate) async fn lossy<F: Family>(family: Arc<F>) -> Verdict {
    family.make(Trouble::StoreLosesMessages).await?;
    let done = together(&family, 6, |family, _| async move {
        let (shard, stream) = (a_shard(&*family), a_name(&*family, "lossy"));
        let mut past = Past::new(shard);
        for accepted in 1..=10 {
            let mut rows = past.append(&stream, 2);
            rows.push(Row::Checkpoint(shard, checkpoint(accepted, "5")));
            write(&*family, rows).await?;
            is_there(&*family, &past, &stream).await?;
            let at =
                until_answered(&*family, "checkpoint", || family.store().checkpoint(shard)).await?;
            ensure!(at == checkpoint(accepted, "5"), "the checkpoint is {at:?} after {accepted}");
        }
        Ok(())
    });
    done.await.map(drop)
}

/// Most of the store is down.
pub(crate) async fn down<F: Family>(family: Arc<F>) -> Verdict {
    let (shard, stream) = (a_shard(&*family), a_name(&*family, "down"));
    let mut past = Past::new(shard);
    let mut rows = past.append(&stream, 3);
    rows.push(past.checkpoint());
    write(&*family, rows).await?;
    let (there, head_there) = (past.of(&stream), past.heads.get(&stream).cloned());
    family.make(Trouble::StoreIsDown).await?;
    let more = past.append(&stream, 3);
    let answer = family.store().write(&more).await;
    ensure!(answer == Err(StoreError::Unavailable), "a write is {answer:?}");
    let answer = family.store().head(&stream, Freshness::Strong).await;
    ensure!(answer == Err(StoreError::Unavailable), "a strong read is {answer:?}");
    family.calm().await;
    for _ in 0..10 {
        let read = events(&*family, &stream, 0, 100, Direction::Forwards).await?;
        same_events("after a write that was refused", &read, &there)?;
        let read = head(&*family, &stream).await?;
        ensure!(read == head_there, "after a write that was refused the head is {read:?}");
        family.clock().sleep(PAUSE * 10).await;
    }
    Ok(())
}
