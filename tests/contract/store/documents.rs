//! Documents and progress: what delivery keeps in the store.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use stormkeep_core::{
    env::{Clock, Document, DocumentKey, Progress, Rewritten, Row, Store},
    group::GroupNumber,
    shard::ShardId,
    time::HybridTime,
};

use super::{BEGAN_US, a_shard, write};
use crate::family::{Family, Verdict, ensure, random, together, until_answered};

fn a_key<F: Family>(family: &F) -> DocumentKey {
    DocumentKey::Delivery(a_shard(family))
}

async fn read<F: Family>(family: &F, key: DocumentKey) -> Verdict<Document> {
    let keys = [key];
    let mut found = until_answered(family, "documents", || family.store().documents(&keys)).await?;
    ensure!(found.len() == 1, "documents answers {} for one", found.len());
    Ok(found.remove(0))
}

async fn rewrite<F: Family>(family: &F, from: &Document, to: &Document) -> Verdict<Rewritten> {
    until_answered(family, "rewrite", || family.store().rewrite(from.clone(), to.clone())).await
}

/// Before they are written, one after the other, again, and in the order of the question.
pub(crate) async fn one_by_one<F: Family>(family: Arc<F>) -> Verdict {
    let keys: Vec<DocumentKey> = (0..5).map(|_| a_key(&*family)).collect();
    let mut expected: Vec<Document> = keys.iter().copied().map(Document::blank).collect();
    for round in 0..3u8 {
        for document in expected.iter_mut().step_by(2) {
            let body = vec![round; 20_000 * usize::from(round)];
            let next = document.next(Bytes::from(body));
            let done = rewrite(&*family, document, &next).await?;
            ensure!(done == Rewritten::Done, "version {} is {done:?}", next.version);
            let again = rewrite(&*family, document, &next).await?;
            let lost = [Rewritten::Done, Rewritten::Lost(next.clone())].contains(&again);
            ensure!(lost, "asked again, version {} is {again:?}", next.version);
            let late =
                rewrite(&*family, document, &document.next(Bytes::from_static(b"late"))).await?;
            ensure!(late == Rewritten::Lost(next.clone()), "a late change is {late:?}");
            *document = next;
        }
        let read =
            until_answered(&*family, "documents", || family.store().documents(&keys)).await?;
        ensure!(read == expected, "documents answers {read:?} instead of {expected:?}");
    }
    Ok(())
}

/// Many at once change one document.
pub(crate) async fn contended<F: Family>(family: Arc<F>) -> Verdict {
    const GOAL: u64 = 20;
    let key = a_key(&*family);
    let changes = together(&family, 6, |family, _| async move {
        let (mut won, mut lost) = (Vec::<(Document, Document)>::new(), Vec::new());
        loop {
            let from = read(&*family, key).await?;
            if let Some((_, last)) = won.last() {
                ensure!(from.version >= last.version, "version {} is not seen", last.version);
            }
            if from.version >= GOAL {
                return Ok((won, lost));
            }
            let to = from.next(format!("{:x}", random(&*family)).into());
            match rewrite(&*family, &from, &to).await? {
                Rewritten::Done => won.push((from, to)),
                // An attempt before this one was done, and not answered.
                Rewritten::Lost(now) if now == to => won.push((from, to)),
                // Or it was done and not answered, and others went on from it.
                Rewritten::Lost(_) => lost.push((from, to)),
            }
            family.clock().sleep(Duration::from_millis(family.clock().random() % 20)).await;
        }
    });
    let (mut versions, mut lost) = (BTreeMap::new(), Vec::new());
    let (winners, losers): (Vec<_>, Vec<_>) = changes.await?.into_iter().unzip();
    lost.extend(losers.concat());
    for (from, to) in winners.concat() {
        let version = to.version;
        ensure!(
            versions.insert(version, (from, to)).is_none(),
            "version {version} has two winners"
        );
    }
    // Each was made from the one before it, as its winner or a loser that others went on from wanted it.
    let mut before = Document::blank(key);
    for (version, (from, to)) in versions {
        let mut at = from.clone();
        while at != before {
            let step = lost.iter().find(|(_, to)| *to == at);
            ensure!(
                step.is_some(),
                "version {version} was made from {from:?} instead of {before:?}"
            );
            at = step.map_or(before.clone(), |(from, _)| from.clone());
        }
        before = to;
    }
    ensure!(before.version >= GOAL, "version {} is the last", before.version);
    Ok(())
}

/// In every order, of several groups.
pub(crate) async fn progress<F: Family>(family: Arc<F>) -> Verdict {
    let (shard, other) = (a_shard(&*family), ShardId(7));
    let at = |n: u64, ended| Progress { next: HybridTime(BEGAN_US + n), ended };
    let steps = [at(1, false), at(2, false), at(9, false), at(9, true)];
    let orders = [[0, 1, 2, 3], [3, 2, 1, 0], [2, 3, 0, 1], [1, 3, 2, 0]];
    let mut expected = BTreeMap::new();
    for (number, order) in (0u64..).zip(orders) {
        let group = GroupNumber(1 << 40 | number);
        for step in order {
            write(&*family, vec![Row::Progress(shard, group, steps[step])]).await?;
        }
        expected.insert(group, steps[3]);
    }
    write(&*family, vec![Row::Progress(other, GroupNumber(1), steps[0])]).await?;
    let read = until_answered(&*family, "progress", || family.store().progress(shard)).await?;
    let count = read.len();
    let read: BTreeMap<GroupNumber, Progress> = read.into_iter().collect();
    ensure!(
        count == read.len() && read == expected,
        "progress is {read:?} instead of {expected:?}"
    );
    let none = a_shard(&*family);
    let none = until_answered(&*family, "progress", || family.store().progress(none)).await?;
    ensure!(none.is_empty(), "a shard that nobody has begun has {none:?}");
    Ok(())
}
