//! Reads: pages, cursors, and readers beside writers.

use std::sync::Arc;

use stormkeep_core::{
    env::{Clock, Cursor, Log, Page, ReadLogError},
    shard::ShardId,
};

use super::{Mark, Reader, a_shard, put, records, same};
use crate::family::{Family, PAUSE, Trouble, Verdict, broken, ensure, together};

/// A page; throttling is waited for.
async fn page<F: Family>(family: &F, shard: ShardId, from: &Cursor) -> Verdict<Page> {
    loop {
        match family.log().read(shard, from.clone()).await {
            Err(ReadLogError::Throttled) => family.clock().sleep(PAUSE).await,
            Ok(page) => return Ok(page),
            Err(error) => return broken(format!("a read from {from:?}: {error}")),
        }
    }
}

/// Three writers, and a reader that is always at the tip.
pub(crate) async fn no_skips<F: Family>(family: Arc<F>) -> Verdict {
    const WRITERS: u32 = 3;
    const PUTS: u32 = 40;
    let mark = Mark::new(&*family);
    let shard = a_shard(&*family).await?;
    let all = together(&family, WRITERS + 1, |family, task| {
        let shard = shard.clone();
        async move {
            if task == WRITERS {
                return records(&family, shard.id, mark, (WRITERS * PUTS) as usize)
                    .await
                    .map(|read| read.into_iter().map(|r| (r.position, r.data)).collect());
            }
            let mut confirmed = Vec::new();
            for number in 0..PUTS {
                let data = mark.record(task * PUTS + number, 50);
                confirmed.push((put(&*family, &shard, None, &data).await?.position, data));
            }
            Ok(confirmed)
        }
    });
    let mut all = all.await?;
    let beside = all.pop().unwrap_or_default();
    let mut confirmed = all.concat();
    confirmed.sort();
    ensure!(beside == confirmed, "{}", super::Difference(&beside, &confirmed));
    same(&records(&family, shard.id, mark, confirmed.len()).await?, &confirmed)
}

/// More than a page.
pub(crate) async fn pages<F: Family>(family: Arc<F>) -> Verdict {
    let mark = Mark::new(&*family);
    let shard = a_shard(&*family).await?;
    let mut confirmed = Vec::new();
    for number in 0..40 {
        let data = mark.record(number, 60_000 * (1 + number as usize % 3));
        confirmed.push((put(&*family, &shard, None, &data).await?.position, data));
    }
    same(&records(&family, shard.id, mark, confirmed.len()).await?, &confirmed)?;
    // All of it has been seen: no read may be at the tip before.
    let mut reader = Reader::new(&family, shard.id, mark, Cursor::Oldest);
    let mut pages = 0;
    while reader.records.len() < confirmed.len() {
        let at_tip = reader.page().await?;
        pages += 1;
        let read = reader.records.len();
        ensure!(
            !at_tip || read == confirmed.len(),
            "page {pages} was at the tip after {read} of {} records that another reader had seen",
            confirmed.len()
        );
    }
    same(&reader.records, &confirmed)?;
    // At the end there is nothing, again and again, and it is known to be the end.
    let mut next = reader.next;
    for _ in 0..3 {
        let Some(from) = next else { return broken("an open shard has ended") };
        let empty = page(&*family, shard.id, &from).await?;
        ensure!(empty.records.is_empty(), "{} records behind the last", empty.records.len());
        ensure!(empty.at_tip, "the end is not the tip");
        next = empty.next;
    }
    Ok(())
}

/// From every record on, by position; and twice from where a read ended.
pub(crate) async fn cursors<F: Family>(family: Arc<F>) -> Verdict {
    let mark = Mark::new(&*family);
    let shard = a_shard(&*family).await?;
    let mut confirmed = Vec::new();
    for number in 0..6 {
        let data = mark.record(number, 200);
        confirmed.push((put(&*family, &shard, None, &data).await?.position, data));
    }
    let mut first = Reader::new(&family, shard.id, mark, Cursor::Oldest);
    first.until("all that was put", |r| r.len() >= confirmed.len()).await?;
    same(&first.records, &confirmed)?;
    for (number, (position, _)) in (1..).zip(&confirmed) {
        let mut reader = Reader::new(&family, shard.id, mark, Cursor::After(*position));
        reader.until("the rest", |r| r.len() >= confirmed.len() - number).await?;
        same(&reader.records, &confirmed[number..])?;
    }
    let Some(ended) = first.next else { return broken("an open shard has ended") };
    let more = mark.record(6, 30);
    let behind = [(put(&*family, &shard, None, &more).await?.position, more)];
    for _ in 0..2 {
        let mut again = Reader::new(&family, shard.id, mark, ended.clone());
        again.until("what came behind it", |r| !r.is_empty()).await?;
        same(&again.records, &behind)?;
    }
    Ok(())
}

/// A token that has expired.
pub(crate) async fn expired<F: Family>(family: Arc<F>) -> Verdict {
    let mark = Mark::new(&*family);
    let shard = a_shard(&*family).await?;
    let mut confirmed = Vec::new();
    for number in 0..10 {
        let data = mark.record(number, 100);
        confirmed.push((put(&*family, &shard, None, &data).await?.position, data));
    }
    let mut reader = Reader::new(&family, shard.id, mark, Cursor::Oldest);
    reader.until("the first half", |r| r.len() >= 5).await?;
    let Some(token @ Cursor::Token(_)) = reader.next.clone() else {
        family.make(Trouble::TokensExpire).await?;
        return broken("a family whose tokens expire gave none");
    };
    family.make(Trouble::TokensExpire).await?;
    let answer = loop {
        match family.log().read(shard.id, token.clone()).await {
            Err(ReadLogError::Throttled) => family.clock().sleep(PAUSE).await,
            answer => break answer,
        }
    };
    ensure!(answer == Err(ReadLogError::Expired), "an expired token reads {answer:?}");
    // The reader goes on behind the last position by itself.
    reader.until("the second half", |r| r.len() >= confirmed.len()).await?;
    same(&reader.records, &confirmed)
}

/// A reader that asks too often.
pub(crate) async fn throttled<F: Family>(family: Arc<F>) -> Verdict {
    let mark = Mark::new(&*family);
    let shard = a_shard(&*family).await?;
    let mut confirmed = Vec::new();
    for number in 0..5 {
        let data = mark.record(number, 100);
        confirmed.push((put(&*family, &shard, None, &data).await?.position, data));
    }
    family.make(Trouble::LogThrottles).await?;
    let reads = together(&family, 30, |family, _| {
        let id = shard.id;
        async move { Ok(family.log().read(id, Cursor::Oldest).await) }
    });
    let reads = reads.await?;
    let throttled = reads.iter().filter(|r| **r == Err(ReadLogError::Throttled)).count();
    ensure!(throttled > 0, "of {} reads at once none was throttled", reads.len());
    family.calm().await;
    same(&records(&family, shard.id, mark, confirmed.len()).await?, &confirmed)
}

/// Records that are older than the log keeps them.
pub(crate) async fn trimmed<F: Family>(family: Arc<F>) -> Verdict {
    let mark = Mark::new(&*family);
    let shard = a_shard(&*family).await?;
    let old = put(&*family, &shard, None, &mark.record(0, 100)).await?;
    let mid = put(&*family, &shard, None, &mark.record(1, 100)).await?;
    family.make(Trouble::RecordsAge).await?;
    let young = mark.record(2, 100);
    let left = [(put(&*family, &shard, None, &young).await?.position, young)];
    same(&records(&family, shard.id, mark, 1).await?, &left)?;
    let behind = |position| family.log().read(shard.id, Cursor::After(position));
    let gone = behind(old.position).await;
    ensure!(
        gone == Err(ReadLogError::Trimmed),
        "a record behind it is gone, but it reads {gone:?}"
    );
    // Behind the last that is gone nothing is missing.
    let mut reader = Reader::new(&family, shard.id, mark, Cursor::After(mid.position));
    reader.until("what is left", |r| !r.is_empty()).await?;
    same(&reader.records, &left)
}
