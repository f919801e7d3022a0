//! Epochs: compare-and-set, and what is seen of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use stormkeep_core::{
    env::{Clock, EpochRow, NodeId, Store, StoreError, Swap, Token},
    shard::ShardId,
};

use super::a_shard;
use crate::family::{Family, Trouble, Verdict, ensure, random, together, until_answered};

/// The row that a node of this number would take from another.
fn taken<F: Family>(family: &F, from: EpochRow, number: u32) -> EpochRow {
    let owner = Some((NodeId(number), Token(random(family) | 1 << 127)));
    EpochRow { shard: from.shard, epoch: from.epoch + 1, owner }
}

/// Swaps, where nothing goes wrong.
async fn swap<F: Family>(family: &F, from: EpochRow, to: EpochRow) -> Verdict<Swap> {
    until_answered(family, "swap_epoch", || family.store().swap_epoch(from, to)).await
}

/// A swap that must be done.
async fn done<F: Family>(family: &F, from: EpochRow, to: EpochRow) -> Verdict {
    let swap = swap(family, from, to).await?;
    ensure!(swap == Swap::Done, "the swap from {from:?} to {to:?} is {swap:?}");
    Ok(())
}

/// The row as all three reads see it.
async fn seen<F: Family>(family: &F, shard: ShardId) -> Verdict<[EpochRow; 3]> {
    let one = [shard];
    let plain = until_answered(family, "epoch", || family.store().epoch(shard)).await?;
    let settled =
        until_answered(family, "epoch_settled", || family.store().epoch_settled(shard)).await?;
    let many = until_answered(family, "epochs", || family.store().epochs(&one)).await?;
    ensure!(many.len() == 1, "epochs answers {} rows for one", many.len());
    Ok([plain, settled, many[0]])
}

async fn is<F: Family>(family: &F, row: EpochRow) -> Verdict {
    let seen = seen(family, row.shard).await?;
    ensure!(seen == [row; 3], "epoch, epoch_settled, epochs are {seen:?} instead of {row:?}");
    Ok(())
}

/// Before any owner, and many at a time.
pub(crate) async fn vacant<F: Family>(family: Arc<F>) -> Verdict {
    let shards: Vec<ShardId> = (0..30).map(|_| a_shard(&*family)).collect();
    is(&*family, EpochRow::vacant(shards[0])).await?;
    let mut rows: Vec<EpochRow> = shards.iter().copied().map(EpochRow::vacant).collect();
    for n in (0..30).step_by(3) {
        let to = taken(&*family, rows[n], u32::MAX - n as u32);
        done(&*family, rows[n], to).await?;
        rows[n] = to;
    }
    // Released: the epoch stays, nobody owns it.
    let to = EpochRow { owner: None, ..rows[3] };
    done(&*family, rows[3], to).await?;
    rows[3] = to;
    is(&*family, to).await?;
    let read = until_answered(&*family, "epochs", || family.store().epochs(&shards)).await?;
    ensure!(read == rows, "epochs answers {read:?} instead of {rows:?}");
    let none = until_answered(&*family, "epochs", || family.store().epochs(&[])).await?;
    ensure!(none.is_empty(), "epochs of nothing is {none:?}");
    Ok(())
}

/// The same swap again and again.
pub(crate) async fn identical<F: Family>(family: Arc<F>) -> Verdict {
    let from = EpochRow::vacant(a_shard(&*family));
    let to = taken(&*family, from, 1);
    done(&*family, from, to).await?;
    for _ in 0..3 {
        let again = swap(&*family, from, to).await?;
        ensure!([Swap::Done, Swap::Lost(to)].contains(&again), "asked again it is {again:?}");
        is(&*family, to).await?;
    }
    let next = taken(&*family, to, 2);
    done(&*family, to, next).await?;
    for late in [(from, to), (from, taken(&*family, from, 3))] {
        let lost = swap(&*family, late.0, late.1).await?;
        ensure!(lost == Swap::Lost(next), "a swap from a row that is gone is {lost:?}");
        is(&*family, next).await?;
    }
    // The same epoch with another owner, or another incarnation, is another row.
    let other = EpochRow { owner: taken(&*family, to, 2).owner, ..next };
    let lost = swap(&*family, other, taken(&*family, other, 4)).await?;
    ensure!(lost == Swap::Lost(next), "a swap from another owner's row is {lost:?}");
    Ok(())
}

/// One swaps; many look as soon as it is done.
pub(crate) async fn visible<F: Family>(family: Arc<F>) -> Verdict {
    let shard = a_shard(&*family);
    let mut row = EpochRow::vacant(shard);
    for number in 0..20 {
        let to = taken(&*family, row, number);
        done(&*family, row, to).await?;
        row = to;
        together(&family, 6, |family, _| async move { is(&*family, row).await }).await?;
    }
    Ok(())
}

/// What one task did or saw, and when.
#[derive(Debug, Clone, Copy)]
struct Act {
    began: Duration,
    ended: Duration,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    /// A plain read saw this.
    Read(EpochRow),
    /// A settled read, or a swap that was lost, saw this.
    Settled(EpochRow),
    /// A swap was done.
    Done(EpochRow, EpochRow),
    /// A swap has no answer: it may happen, then or later.
    Open(EpochRow),
}

/// Takes the next epoch again and again, from whatever row is there.
async fn contend<F: Family>(
    family: Arc<F>,
    shard: ShardId,
    number: u32,
    goal: u64,
) -> Verdict<Vec<Act>> {
    let (clock, store) = (family.clock(), family.store());
    let mut acts = Vec::new();
    loop {
        let began = clock.elapsed();
        let from = until_answered(&*family, "epoch", || store.epoch(shard)).await?;
        acts.push(Act { began, ended: clock.elapsed(), what: What::Read(from) });
        if from.epoch >= goal {
            return Ok(acts);
        }
        let to = taken(&*family, from, number);
        // So that others read the same row, however fast the store is.
        clock.sleep(Duration::from_millis(clock.random() % 20)).await;
        let began = clock.elapsed();
        let answer = store.swap_epoch(from, to).await;
        let ended = clock.elapsed();
        match answer {
            Ok(Swap::Done) => acts.push(Act { began, ended, what: What::Done(from, to) }),
            Ok(Swap::Lost(row)) => acts.push(Act { began, ended, what: What::Settled(row) }),
            Err(StoreError::Unavailable | StoreError::Busy) => {}
            Err(StoreError::Unknown) => {
                acts.push(Act { began, ended, what: What::Open(to) });
                let began = clock.elapsed();
                let row = until_answered(&*family, "epoch_settled", || store.epoch_settled(shard))
                    .await?;
                acts.push(Act { began, ended: clock.elapsed(), what: What::Settled(row) });
            }
        }
        // So that no one has the row for itself.
        clock.sleep(Duration::from_millis(clock.random() % 20)).await;
    }
}

/// All acts are those of one register whose value is a chain of epochs: each was made by one swap, from the one before
/// it, and nothing was seen before it was asked for, nor missed after it was seen or answered.
fn judge(shard: ShardId, acts: &[Act]) -> Verdict {
    // By epoch: the row, and when the swap that made it began.
    let mut rows = BTreeMap::from([(0, (EpochRow::vacant(shard), Duration::ZERO))]);
    for act in acts {
        if let What::Done(from, to) = act.what {
            ensure!(to.epoch == from.epoch + 1, "{act:?}");
            if let Some((winner, _)) = rows.insert(to.epoch, (to, act.began)) {
                ensure!(false, "epoch {} has two winners: {winner:?} and {to:?}", to.epoch);
            }
        }
    }
    // What was seen and nobody was told of, must be a swap without an answer.
    let seen = acts.iter().map(|act| match act.what {
        What::Read(row) | What::Settled(row) => row,
        What::Done(from, _) => from,
        What::Open(to) => EpochRow::vacant(to.shard),
    });
    for row in seen {
        let open = acts.iter().find(|act| matches!(act.what, What::Open(to) if to == row));
        let (known, _) = *rows
            .entry(row.epoch)
            .or_insert_with(|| (row, open.map_or(Duration::MAX, |act| act.began)));
        ensure!(known == row, "epoch {} was seen as {row:?} and as {known:?}", row.epoch);
    }
    for (row, began) in rows.values() {
        ensure!(*began < Duration::MAX, "{row:?} was seen, and nobody asked for it");
    }
    for act in acts {
        let row = match act.what {
            What::Read(row) | What::Settled(row) => row,
            What::Done(from, _) => from,
            What::Open(_) => continue,
        };
        let asked = rows[&row.epoch].1;
        ensure!(asked < act.ended || row.epoch == 0, "{act:?} saw what was asked for later");
        for before in acts.iter().filter(|before| before.ended < act.began) {
            let known = match (before.what, act.what) {
                (What::Done(_, to), _) => to,
                (What::Settled(row), What::Settled(_) | What::Done(..)) => row,
                _ => continue,
            };
            ensure!(row.epoch >= known.epoch, "{act:?} missed {before:?}");
        }
    }
    Ok(())
}

/// Many at once; how many swaps had no answer.
async fn contention<F: Family>(family: &Arc<F>, goal: u64) -> Verdict<usize> {
    let shard = a_shard(&**family);
    let acts = together(family, 8, |family, number| contend(family, shard, number, goal));
    let acts = acts.await?.concat();
    judge(shard, &acts)?;
    let done = acts.iter().filter(|act| matches!(act.what, What::Done(..))).count();
    let open = acts.iter().filter(|act| matches!(act.what, What::Open(_))).count();
    let lost = acts.iter().filter(|act| matches!(act.what, What::Settled(_))).count();
    ensure!(done + open >= goal as usize, "{done} swaps were done, {open} open, for {goal} epochs");
    ensure!(lost > 0, "nobody ever lost: there was no contention");
    Ok(open)
}

/// Many at once, where nothing goes wrong.
pub(crate) async fn contended<F: Family>(family: Arc<F>) -> Verdict {
    contention(&family, 30).await.map(drop)
}

/// Many at once while messages get lost.
pub(crate) async fn lossy<F: Family>(family: Arc<F>) -> Verdict {
    family.make(Trouble::StoreLosesMessages).await?;
    let mut open = 0;
    for _ in 0..4 {
        open += contention(&family, 15).await?;
    }
    ensure!(open > 0, "no swap was ever unknown");
    Ok(())
}

/// Answers are lost: whoever asks again finds its own row.
pub(crate) async fn unanswered<F: Family>(family: Arc<F>) -> Verdict {
    let shard = a_shard(&*family);
    let mut row = EpochRow::vacant(shard);
    for number in 0..5 {
        let to = taken(&*family, row, number);
        family.make(Trouble::StoreLosesAnswers).await?;
        let answer = family.store().swap_epoch(row, to).await;
        ensure!(answer == Err(StoreError::Unknown), "without its answer a swap is {answer:?}");
        family.calm().await;
        let settled =
            until_answered(&*family, "epoch_settled", || family.store().epoch_settled(shard));
        let settled = settled.await?;
        ensure!(settled == to, "{to:?} was asked for and not answered; settled it is {settled:?}");
        let again = swap(&*family, row, to).await?;
        ensure!([Swap::Done, Swap::Lost(to)].contains(&again), "asked again it is {again:?}");
        is(&*family, to).await?;
        row = to;
    }
    Ok(())
}
