//! Puts: their order, their answers, and what becomes of those that have none.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use stormkeep_core::{
    env::{Clock, Log, LogError, PutError, ReadLogError},
    limits::ENTRY_BYTES_MAX,
};

use super::{Cursor, Mark, Reader, a_shard, open_shards, put, put_through, records, same};
use crate::family::{Family, Trouble, Verdict, broken, ensure, together};

/// One after the other, in two shards in turn, with and without a word of what came before.
pub(crate) async fn order<F: Family>(family: Arc<F>) -> Verdict {
    let mark = Mark::new(&*family);
    let shards = open_shards(&*family).await?;
    let mut confirmed = vec![Vec::new(); shards.len().min(2)];
    for number in 0..30 {
        let which = number as usize % confirmed.len();
        let data = mark.record(number, 20 + number as usize * 11);
        let last = confirmed[which].last().map(|(position, _)| *position);
        let after = last.filter(|_| number % 3 > 0);
        let done = put(&*family, &shards[which], after, &data).await?;
        ensure!(
            done.shard == shards[which].id,
            "a put to {} landed in {}",
            shards[which].id,
            done.shard
        );
        ensure!(Some(done.position) > last, "{:?} was answered after {last:?}", done.position);
        confirmed[which].push((done.position, data));
    }
    for (shard, confirmed) in shards.iter().zip(&confirmed) {
        same(&records(&family, shard.id, mark, confirmed.len()).await?, confirmed)?;
    }
    Ok(())
}

/// Many at once, to one shard.
pub(crate) async fn concurrent<F: Family>(family: Arc<F>) -> Verdict {
    let mark = Mark::new(&*family);
    let shard = a_shard(&*family).await?;
    let puts = together(&family, 24, |family, task| {
        let shard = shard.clone();
        async move {
            let mut confirmed = Vec::new();
            for number in 0..3 {
                let data = mark.record(task * 3 + number, 100);
                confirmed.push((put(&*family, &shard, None, &data).await?.position, data));
            }
            ensure!(confirmed.is_sorted_by_key(|(p, _)| *p), "one writer's positions do not grow");
            Ok(confirmed)
        }
    });
    let mut confirmed = puts.await?.concat();
    confirmed.sort();
    same(&records(&family, shard.id, mark, confirmed.len()).await?, &confirmed)
}

/// The largest entry, and one byte more.
pub(crate) async fn largest<F: Family>(family: Arc<F>) -> Verdict {
    let mark = Mark::new(&*family);
    let shard = a_shard(&*family).await?;
    let data = mark.record(0, ENTRY_BYTES_MAX);
    let first = put(&*family, &shard, None, &data).await?;
    let more = mark.record(1, ENTRY_BYTES_MAX + 1);
    let refused = loop {
        match family.log().put(&shard, None, more.clone()).await {
            Err(PutError::Throttled) => family.clock().sleep(crate::family::PAUSE).await,
            answer => break answer,
        }
    };
    ensure!(
        matches!(refused, Err(PutError::Refused(_))),
        "a record of {} bytes was not refused: {refused:?}",
        ENTRY_BYTES_MAX + 1
    );
    let small = mark.record(2, 20);
    let second = put(&*family, &shard, Some(first.position), &small).await?;
    let expected = [(first.position, data), (second.position, small)];
    same(&records(&family, shard.id, mark, expected.len()).await?, &expected)
}

/// Answers are lost, and the same records are put until they are confirmed.
pub(crate) async fn unknown<F: Family>(family: Arc<F>) -> Verdict {
    let mark = Mark::new(&*family);
    let shard = a_shard(&*family).await?;
    let before = put(&*family, &shard, None, &mark.record(0, 100)).await?;
    family.make(Trouble::LogLosesAnswers).await?;
    for number in 1..=8 {
        let answer = family.log().put(&shard, None, mark.record(number, 100)).await;
        ensure!(answer == Err(PutError::Unknown), "without its answer a put is {answer:?}");
    }
    family.calm().await;
    let mut confirmed = BTreeMap::new();
    for number in (1..=8).rev() {
        let data = mark.record(number, 100);
        let done = put_through(&*family, &shard, &data).await?;
        ensure!(done.position > before.position, "{done:?} after {before:?}");
        confirmed.insert(done.position, data);
    }
    // Behind the last one that is known to be confirmed, all that was is read.
    let end = put_through(&*family, &shard, &mark.record(9, 100)).await?;
    let mut reader = Reader::new(&family, shard.id, mark, Cursor::Oldest);
    reader.until("the end", |r| r.last().is_some_and(|r| r.position >= end.position)).await?;
    for (position, data) in &confirmed {
        let there = reader.records.iter().filter(|r| r.position == *position);
        let there: Vec<&Bytes> = there.map(|r| &r.data).collect();
        ensure!(there == [data], "{position:?} was confirmed; {} records are there", there.len());
    }
    let landed = reader.records.len();
    ensure!(landed > 10, "no put landed whose answer was lost: {landed} records are read");
    Ok(())
}

/// What is put lands again later.
pub(crate) async fn repeated<F: Family>(family: Arc<F>) -> Verdict {
    let mark = Mark::new(&*family);
    let shard = a_shard(&*family).await?;
    family.make(Trouble::LogRepeatsPuts).await?;
    let mut confirmed = Vec::new();
    for number in 0..10 {
        let data = mark.record(number, 100);
        confirmed.push((put(&*family, &shard, None, &data).await?.position, data));
    }
    ensure!(confirmed.is_sorted_by_key(|(p, _)| *p), "positions do not grow");
    let read = records(&family, shard.id, mark, 20).await?;
    for (position, data) in &confirmed {
        let copies: Vec<_> = read.iter().filter(|r| r.data == *data).map(|r| r.position).collect();
        ensure!(copies.len() == 2, "a record landed {} times instead of twice", copies.len());
        ensure!(copies.contains(position), "{position:?} was confirmed; copies are at {copies:?}");
    }
    Ok(())
}

/// A burst that is too much.
pub(crate) async fn throttled<F: Family>(family: Arc<F>) -> Verdict {
    let mark = Mark::new(&*family);
    let shard = a_shard(&*family).await?;
    family.make(Trouble::LogThrottles).await?;
    let burst = together(&family, 60, |family, number| {
        let shard = shard.clone();
        async move {
            let data = mark.record(number, 5000);
            Ok((family.log().put(&shard, None, data.clone()).await, data))
        }
    });
    let (mut confirmed, mut throttled) = (Vec::new(), 0);
    for (answer, data) in burst.await? {
        match answer {
            Ok(put) => confirmed.push((put.position, data)),
            Err(PutError::Throttled) => throttled += 1,
            Err(error) => return broken(format!("a put: {error}")),
        }
    }
    ensure!(throttled > 0, "of {} puts none was throttled", confirmed.len());
    family.calm().await;
    let end = mark.record(60, 20);
    confirmed.push((put(&*family, &shard, None, &end).await?.position, end));
    confirmed.sort();
    same(&records(&family, shard.id, mark, confirmed.len()).await?, &confirmed)
}

/// Nothing gets to the log.
pub(crate) async fn unreachable<F: Family>(family: Arc<F>) -> Verdict {
    let mark = Mark::new(&*family);
    let shard = a_shard(&*family).await?;
    let first = mark.record(0, 100);
    let mut confirmed = vec![(put(&*family, &shard, None, &first).await?.position, first)];
    family.make(Trouble::LogIsGone).await?;
    let answer = family.log().put(&shard, None, mark.record(1, 100)).await;
    ensure!(answer == Err(PutError::Unknown), "a put is {answer:?}");
    let page = family.log().read(shard.id, Cursor::Oldest).await;
    ensure!(page == Err(ReadLogError::Unavailable), "a read is {page:?}");
    let listed = family.log().shards().await;
    ensure!(listed == Err(LogError::Unavailable), "the list of shards is {listed:?}");
    family.calm().await;
    let last = mark.record(2, 100);
    confirmed.push((put(&*family, &shard, None, &last).await?.position, last));
    let mut reader = Reader::new(&family, shard.id, mark, Cursor::Oldest);
    reader.until("what was confirmed", |r| r.len() >= 2).await?;
    // The put without an answer may have landed.
    reader.records.retain(|r| r.data != mark.record(1, 100));
    reader.until("what was confirmed", |r| r.len() >= 2).await?;
    reader.records.retain(|r| r.data != mark.record(1, 100));
    same(&reader.records, &confirmed)
}
