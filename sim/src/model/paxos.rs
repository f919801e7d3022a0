//! Compare-and-set as Cassandra does it: single-decree Paxos by row, over three replicas, with messages
//! that are late or lost between any two steps. Unknown outcomes are not made up here: they come about.
//!
//! The steps, after `StorageProxy.cas` and `Paxos` of Cassandra 4.1: prepare at a quorum; finish what
//! another left half-done, and begin again; bring the quorum to the newest commit; compare; propose; commit
//! at a quorum. A read at `SERIAL`, and a swap that does not match, propose an empty update, so
//! that what a minority accepted before cannot come back later (CASSANDRA-12126).

use std::{
    future::{Future, poll_fn},
    sync::{Arc, Mutex, PoisonError},
    task::{Poll, Waker},
};

use stormkeep_core::{
    env::{Document, DocumentKey, EpochRow, Rewritten, StoreError, Swap},
    shard::ShardId,
};

use crate::{
    model::{cassandra::QUORUM, effects::REPLICAS},
    world::{MS, World},
};

/// Orders proposals for a row.
pub type Ballot = u64;

/// Names a row that is written by compare-and-set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CasKey {
    /// Who owns a shard.
    Epoch(ShardId),
    /// A document.
    Document(DocumentKey),
}

/// What such a row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CasValue {
    /// Of [`CasKey::Epoch`].
    Epoch(EpochRow),
    /// Of [`CasKey::Document`].
    Document(Document),
}

impl CasValue {
    /// What a row says that was never written.
    pub fn blank(key: CasKey) -> Self {
        match key {
            CasKey::Epoch(shard) => CasValue::Epoch(EpochRow::vacant(shard)),
            CasKey::Document(key) => CasValue::Document(Document::blank(key)),
        }
    }
}

/// What one replica knows of one row.
#[derive(Debug, Clone)]
pub struct PaxosRow {
    promised: Ballot,
    /// The last proposal it accepted; `None` within: an empty one.
    accepted: Option<(Ballot, Option<CasValue>)>,
    committed: (Ballot, CasValue),
}

impl PaxosRow {
    fn new(key: CasKey) -> Self {
        PaxosRow { promised: 0, accepted: None, committed: (0, CasValue::blank(key)) }
    }

    /// The newest commit that this replica knows of.
    pub fn committed(&self) -> (Ballot, CasValue) {
        self.committed.clone()
    }

    fn commit(&mut self, ballot: Ballot, row: CasValue) {
        if ballot > self.committed.0 {
            self.committed = (ballot, row);
        }
        if self.accepted.as_ref().is_some_and(|(accepted, _)| *accepted <= ballot) {
            self.accepted = None;
        }
    }
}

/// Compare-and-set.
pub async fn swap(world: Arc<World>, from: EpochRow, to: EpochRow) -> Result<Swap, StoreError> {
    let before = CasValue::Epoch(from);
    match compare_and_set(&world, CasKey::Epoch(from.shard), before, CasValue::Epoch(to)).await? {
        None => Ok(Swap::Done),
        Some(now) => Ok(Swap::Lost(epoch(now)?)),
    }
}

/// Compare-and-set of a document.
pub async fn rewrite(
    world: Arc<World>,
    from: Document,
    to: Document,
) -> Result<Rewritten, StoreError> {
    let key = CasKey::Document(from.key);
    let (from, to) = (CasValue::Document(from), CasValue::Document(to));
    match compare_and_set(&world, key, from, to).await? {
        None => Ok(Rewritten::Done),
        Some(now) => Ok(Rewritten::Lost(document(now)?)),
    }
}

/// A read at `SERIAL`.
pub async fn read_serial(world: Arc<World>, shard: ShardId) -> Result<EpochRow, StoreError> {
    epoch(decide(&world, CasKey::Epoch(shard), |_| None).await?)
}

/// What a row of [`CasKey::Epoch`] says; it never holds anything else.
pub fn epoch(value: CasValue) -> Result<EpochRow, StoreError> {
    match value {
        CasValue::Epoch(row) => Ok(row),
        CasValue::Document(_) => Err(StoreError::Unknown),
    }
}

/// What a row of [`CasKey::Document`] says; it never holds anything else.
pub fn document(value: CasValue) -> Result<Document, StoreError> {
    match value {
        CasValue::Document(document) => Ok(document),
        CasValue::Epoch(_) => Err(StoreError::Unknown),
    }
}

/// `None`: it is done; else the row as it is.
async fn compare_and_set(
    world: &Arc<World>,
    key: CasKey,
    from: CasValue,
    to: CasValue,
) -> Result<Option<CasValue>, StoreError> {
    let outcome = decide(world, key, |now| (*now == from).then(|| to.clone())).await;
    match outcome {
        Ok(now) if now == from => Ok(None),
        Ok(now) => Ok(Some(now)),
        Err(error) => {
            if error == StoreError::Unknown {
                world.rare("compare-and-sets with an unknown outcome");
            }
            Err(error)
        }
    }
}

/// One round of Paxos, or several under contention. Returns the row as it was when decided.
async fn decide(
    world: &Arc<World>,
    key: CasKey,
    update: impl Fn(&CasValue) -> Option<CasValue>,
) -> Result<CasValue, StoreError> {
    for _ in 0..8 {
        // Ballots grow with time. Two that are equal do no harm: a replica promises each but once.
        let ballot = (world.kernel.now() / 1000) << 16 | (world.store().draw() & 0xffff);
        let promises = ask_all(world, move |world, number| {
            on(world, number, key, |row| {
                let newer = ballot > row.promised;
                if newer {
                    row.promised = ballot;
                }
                newer.then(|| (row.accepted.clone(), row.committed()))
            })
        })
        .await;
        let promises = match promises {
            Ok(promises) => promises,
            Err(StoreError::Busy) => {
                let wait = world.store().draw() % (30 * MS);
                world.kernel.sleep(wait).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        let newest = promises.iter().map(|(_, committed)| committed.clone()).max_by_key(|c| c.0);
        let Some((newest_ballot, newest_row)) = newest else { return Err(StoreError::Unknown) };
        let half_done =
            promises.iter().filter_map(|(accepted, _)| accepted.clone()).max_by_key(|a| a.0);
        if let Some((left, Some(row))) = half_done
            && left > newest_ballot
        {
            propose(world, key, ballot, Some(row.clone())).await?;
            commit(world, key, ballot, row).await?;
            world.rare("half-done compare-and-sets finished by another");
            continue;
        }
        if promises.iter().any(|(_, committed)| committed.0 < newest_ballot) {
            commit(world, key, newest_ballot, newest_row.clone()).await?;
        }
        let update = update(&newest_row);
        propose(world, key, ballot, update.clone()).await?;
        if let Some(row) = update {
            commit(world, key, ballot, row).await?;
        }
        return Ok(newest_row);
    }
    Err(StoreError::Unknown)
}

async fn propose(
    world: &Arc<World>,
    key: CasKey,
    ballot: Ballot,
    update: Option<CasValue>,
) -> Result<(), StoreError> {
    let accepted = ask_all(world, move |world, number| {
        on(world, number, key, |row| {
            let current = ballot >= row.promised;
            if current {
                row.promised = ballot;
                row.accepted = Some((ballot, update.clone()));
            }
            current.then_some(())
        })
    });
    // A minority may have accepted: whether it happens is open.
    accepted.await.map(drop).map_err(|_| StoreError::Unknown)
}

async fn commit(
    world: &Arc<World>,
    key: CasKey,
    ballot: Ballot,
    update: CasValue,
) -> Result<(), StoreError> {
    let done = ask_all(world, move |world, number| {
        on(world, number, key, |row| {
            row.commit(ballot, update.clone());
            Some(())
        })
    });
    done.await.map(drop).map_err(|_| StoreError::Unknown)
}

fn on<T>(world: &Arc<World>, number: u32, key: CasKey, step: impl FnOnce(&mut PaxosRow) -> T) -> T {
    let mut store = world.store();
    step(store.replica(number).paxos.entry(key).or_insert_with(|| PaxosRow::new(key)))
}

struct Votes<T> {
    yes: Vec<T>,
    no: usize,
    waker: Option<Waker>,
    late: bool,
}

/// Asks every replica and waits for a quorum that agrees. `Busy`: a quorum cannot agree any more.
fn ask_all<T: Send + 'static, F>(
    world: &Arc<World>,
    step: F,
) -> impl Future<Output = Result<Vec<T>, StoreError>> + Send + use<T, F>
where
    F: Fn(&Arc<World>, u32) -> Option<T> + Send + Sync + 'static,
{
    let effects = world.effects();
    let votes = Arc::new(Mutex::new(Votes { yes: Vec::new(), no: 0, waker: None, late: false }));
    let step = Arc::new(step);
    let up = REPLICAS as usize - effects.replicas_down.len().min(REPLICAS as usize);
    let lose = effects.replica_lose.max(effects.swap_lose);
    let kind = if effects.swap_lose >= effects.replica_lose { "swap-lose" } else { "replica-lose" };
    for number in (0..REPLICAS).filter(|n| !effects.replicas_down.contains(n)) {
        let Some(delay) = world.store().hop(number, &effects, lose) else {
            world.struck(kind);
            continue;
        };
        let (here, step, votes) = (world.clone(), step.clone(), votes.clone());
        world.kernel.after(delay, move || {
            let effects = here.effects();
            if effects.replicas_down.contains(&number) {
                return;
            }
            let work = here.store().work(number, here.kernel.now(), 1, &effects);
            let Some(work) = work else { return here.rare("work dropped by a replica") };
            let vote = step(&here, number);
            let Some(delay) = here.store().hop(number, &effects, lose) else {
                return here.struck(kind);
            };
            here.kernel.after(work + delay, move || {
                let mut votes = votes.lock().unwrap_or_else(PoisonError::into_inner);
                match vote {
                    Some(vote) => votes.yes.push(vote),
                    None => votes.no += 1,
                }
                if let Some(waker) = votes.waker.take() {
                    waker.wake();
                }
            });
        });
    }
    let timer = votes.clone();
    world.kernel.after(world.plan.store.timeout_ms * MS, move || {
        let mut votes = timer.lock().unwrap_or_else(PoisonError::into_inner);
        votes.late = true;
        if let Some(waker) = votes.waker.take() {
            waker.wake();
        }
    });
    poll_fn(move |cx| {
        if up < QUORUM {
            return Poll::Ready(Err(StoreError::Unavailable));
        }
        let mut votes = votes.lock().unwrap_or_else(PoisonError::into_inner);
        if votes.yes.len() >= QUORUM {
            return Poll::Ready(Ok(std::mem::take(&mut votes.yes)));
        }
        if votes.no > up - QUORUM {
            return Poll::Ready(Err(StoreError::Busy));
        }
        if votes.late {
            return Poll::Ready(Err(StoreError::Unknown));
        }
        votes.waker = Some(cx.waker().clone());
        Poll::Pending
    })
}
