//! Splits and merges: parents close and are read to their ends, children go on.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use stormkeep_core::{
    env::{Clock, Cursor, Log, LogError, Position},
    shard::{HashRange, ShardId, ShardInfo},
};

use super::{Mark, Reader, open_shards, put, records, same};
use crate::family::{Family, PAUSE, Verdict, ensure, until_answered};

type Confirmed = Vec<(Position, Bytes)>;

/// Puts a few records.
async fn put_some<F: Family>(
    family: &F,
    shard: &ShardInfo,
    mark: Mark,
    numbers: std::ops::Range<u32>,
) -> Verdict<Confirmed> {
    let mut confirmed = Vec::new();
    for number in numbers {
        let data = mark.record(number, 100);
        let done = put(family, shard, None, &data).await?;
        ensure!(done.shard == shard.id, "a put to open {} landed in {}", shard.id, done.shard);
        confirmed.push((done.position, data));
    }
    Ok(confirmed)
}

/// Waits until all of these are listed as closed and their children are open, and returns the children by range.
async fn children<F: Family>(family: &F, parents: &BTreeSet<ShardId>) -> Verdict<Vec<ShardInfo>> {
    let deadline = family.clock().elapsed() + F::PATIENCE / 2;
    loop {
        let shards = until_answered(family, "shards", || family.log().shards()).await?;
        let closed = shards.iter().filter(|s| s.closed && parents.contains(&s.id)).count();
        let mut children: Vec<_> =
            shards.into_iter().filter(|s| s.parents.iter().any(|p| parents.contains(p))).collect();
        if closed == parents.len() && !children.is_empty() {
            children.sort_by_key(|s| s.range.start);
            return Ok(children);
        }
        ensure!(family.clock().elapsed() < deadline, "the parents never close");
        family.clock().sleep(PAUSE).await;
    }
}

/// A closed parent is read to its end, from its beginning and from behind each record; nothing more lands in it.
async fn ends<F: Family>(
    family: &Arc<F>,
    parent: &ShardInfo,
    mark: Mark,
    confirmed: &[(Position, Bytes)],
) -> Verdict {
    let froms = confirmed.iter().map(|(position, _)| Cursor::After(*position));
    for (skipped, from) in std::iter::once(Cursor::Oldest).chain(froms).enumerate() {
        let mut reader = Reader::new(family, parent.id, mark, from);
        reader.read_out().await?;
        same(&reader.records, &confirmed[skipped..])?;
    }
    Ok(())
}

/// What is put to a closed parent is in a child, which the answer names.
async fn lands_in_a_child<F: Family>(
    family: &Arc<F>,
    parent: &ShardInfo,
    children: &[ShardInfo],
    mark: Mark,
    number: u32,
) -> Verdict {
    let data = mark.record(number, 100);
    let done = put(&**family, parent, None, &data).await?;
    let child = children.iter().find(|c| c.id == done.shard);
    ensure!(child.is_some(), "a put to closed {} landed in {}", parent.id, done.shard);
    let mut reader = Reader::new(family, done.shard, mark, Cursor::Oldest);
    reader.until("what landed", |r| r.iter().any(|r| r.data == data)).await?;
    let at = reader.records.iter().find(|r| r.data == data).map(|r| r.position);
    ensure!(at == Some(done.position), "{:?} was answered, it is at {at:?}", done.position);
    Ok(())
}

/// One becomes two.
pub(crate) async fn split<F: Family>(family: Arc<F>) -> Verdict {
    family.reshards()?;
    let mark = Mark::new(&*family);
    let parent = open_shards(&*family).await?.remove(0);
    let before = put_some(&*family, &parent, mark, 0..5).await?;
    let middle = parent.range.start + (parent.range.end - parent.range.start) / 2;
    until_answered(&*family, "split", || family.log().split(parent.id, middle)).await?;
    let children = children(&*family, &[parent.id].into()).await?;
    let ranges: Vec<HashRange> = children.iter().map(|c| c.range).collect();
    let HashRange { start, end } = parent.range;
    let expected = [HashRange { start, end: middle - 1 }, HashRange { start: middle, end }];
    ensure!(ranges == expected, "the children have {ranges:?} instead of {expected:?}");
    for child in &children {
        ensure!(child.parents == [parent.id], "a child's parents are {:?}", child.parents);
        ensure!(!child.closed, "a child is closed");
    }
    lands_in_a_child(&family, &parent, &children, mark, 10).await?;
    ends(&family, &parent, mark, &before).await?;
    for (number, child) in (100..).step_by(10).zip(&children) {
        let mark = Mark::new(&*family);
        let own = put_some(&*family, child, mark, number..number + 3).await?;
        same(&records(&family, child.id, mark, own.len()).await?, &own)?;
    }
    Ok(())
}

/// Two become one.
pub(crate) async fn merge<F: Family>(family: Arc<F>) -> Verdict {
    family.reshards()?;
    let mark = Mark::new(&*family);
    let open = open_shards(&*family).await?;
    ensure!(open.len() >= 2, "only {} shards are open", open.len());
    let (low, high) = (&open[0], &open[1]);
    let of_low = put_some(&*family, low, mark, 0..4).await?;
    let of_high = put_some(&*family, high, mark, 4..8).await?;
    until_answered(&*family, "merge", || family.log().merge(low.id, high.id)).await?;
    let parents = BTreeSet::from([low.id, high.id]);
    let children = children(&*family, &parents).await?;
    ensure!(children.len() == 1, "a merge made {} shards", children.len());
    let child = &children[0];
    let named: BTreeSet<ShardId> = child.parents.iter().copied().collect();
    ensure!(named == parents, "the child's parents are {named:?} instead of {parents:?}");
    let expected = HashRange { start: low.range.start, end: high.range.end };
    ensure!(child.range == expected, "the child has {:?} instead of {expected:?}", child.range);
    lands_in_a_child(&family, low, &children, mark, 10).await?;
    lands_in_a_child(&family, high, &children, mark, 11).await?;
    ends(&family, low, mark, &of_low).await?;
    ends(&family, high, mark, &of_high).await
}

/// Changes that make no sense, of a log that may be changed or not.
pub(crate) async fn refused<F: Family>(family: Arc<F>) -> Verdict {
    let open = open_shards(&*family).await?;
    let (first, last) = (&open[0], &open[open.len() - 1]);
    let mut answers = vec![
        ("a split at its start", family.log().split(first.id, first.range.start).await),
        ("a merge with itself", family.log().merge(first.id, first.id).await),
    ];
    if open.len() > 2 {
        let outside = last.range.start + 1;
        answers.push(("a split outside", family.log().split(first.id, outside).await));
        answers.push(("a merge of no neighbours", family.log().merge(first.id, last.id).await));
    }
    for (what, answer) in answers {
        ensure!(matches!(answer, Err(LogError::Refused(_))), "{what} is {answer:?}");
    }
    let after = open_shards(&*family).await?;
    ensure!(after == open, "shards changed: {after:?}");
    Ok(())
}
