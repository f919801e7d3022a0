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
    env::{EpochRow, StoreError, Swap},
    shard::ShardId,
};

use crate::{
    model::{cassandra::QUORUM, effects::REPLICAS},
    world::{MS, World},
};

/// Orders proposals for a row.
pub type Ballot = u64;

/// What one replica knows of one row.
#[derive(Debug, Clone)]
pub struct PaxosRow {
    promised: Ballot,
    /// The last proposal it accepted; `None` within: an empty one.
    accepted: Option<(Ballot, Option<EpochRow>)>,
    committed: (Ballot, EpochRow),
}

impl PaxosRow {
    fn new(shard: ShardId) -> Self {
        PaxosRow { promised: 0, accepted: None, committed: (0, EpochRow::vacant(shard)) }
    }

    /// The newest commit that this replica knows of.
    pub fn committed(&self) -> (Ballot, EpochRow) {
        self.committed
    }

    fn commit(&mut self, ballot: Ballot, row: EpochRow) {
        if ballot > self.committed.0 {
            self.committed = (ballot, row);
        }
        if self.accepted.is_some_and(|(accepted, _)| accepted <= ballot) {
            self.accepted = None;
        }
    }
}

/// Compare-and-set.
pub async fn swap(world: Arc<World>, from: EpochRow, to: EpochRow) -> Result<Swap, StoreError> {
    let outcome = decide(&world, from.shard, |now| (now == from).then_some(to)).await;
    match outcome {
        Ok(now) if now == from => Ok(Swap::Done),
        Ok(now) => Ok(Swap::Lost(now)),
        Err(error) => {
            if error == StoreError::Unknown {
                world.rare("compare-and-sets with an unknown outcome");
            }
            Err(error)
        }
    }
}

/// A read at `SERIAL`.
pub async fn read_serial(world: Arc<World>, shard: ShardId) -> Result<EpochRow, StoreError> {
    decide(&world, shard, |_| None).await
}

/// One round of Paxos, or several under contention. Returns the row as it was when decided.
async fn decide(
    world: &Arc<World>,
    shard: ShardId,
    update: impl Fn(EpochRow) -> Option<EpochRow>,
) -> Result<EpochRow, StoreError> {
    for _ in 0..8 {
        // Ballots grow with time. Two that are equal do no harm: a replica promises each but once.
        let ballot = (world.kernel.now() / 1000) << 16 | (world.store().draw() & 0xffff);
        let promises = ask_all(world, move |world, number| {
            on(world, number, shard, |row| {
                let newer = ballot > row.promised;
                if newer {
                    row.promised = ballot;
                }
                newer.then_some((row.accepted, row.committed))
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
        let newest = promises.iter().map(|(_, committed)| *committed).max_by_key(|c| c.0);
        let Some((newest_ballot, newest_row)) = newest else { return Err(StoreError::Unknown) };
        let half_done = promises.iter().filter_map(|(accepted, _)| *accepted).max_by_key(|a| a.0);
        if let Some((left, Some(row))) = half_done
            && left > newest_ballot
        {
            propose(world, shard, ballot, Some(row)).await?;
            commit(world, shard, ballot, row).await?;
            world.rare("half-done compare-and-sets finished by another");
            continue;
        }
        if promises.iter().any(|(_, committed)| committed.0 < newest_ballot) {
            commit(world, shard, newest_ballot, newest_row).await?;
        }
        let update = update(newest_row);
        propose(world, shard, ballot, update).await?;
        if let Some(row) = update {
            commit(world, shard, ballot, row).await?;
        }
        return Ok(newest_row);
    }
    Err(StoreError::Unknown)
}

async fn propose(
    world: &Arc<World>,
    shard: ShardId,
    ballot: Ballot,
    update: Option<EpochRow>,
) -> Result<(), StoreError> {
    let accepted = ask_all(world, move |world, number| {
        on(world, number, shard, |row| {
            let current = ballot >= row.promised;
            if current {
                row.promised = ballot;
                row.accepted = Some((ballot, update));
            }
            current.then_some(())
        })
    });
    // A minority may have accepted: whether it happens is open.
    accepted.await.map(drop).map_err(|_| StoreError::Unknown)
}

async fn commit(
    world: &Arc<World>,
    shard: ShardId,
    ballot: Ballot,
    update: EpochRow,
) -> Result<(), StoreError> {
    let done = ask_all(world, move |world, number| {
        on(world, number, shard, |row| {
            row.commit(ballot, update);
            Some(())
        })
    });
    done.await.map(drop).map_err(|_| StoreError::Unknown)
}

fn on<T>(
    world: &Arc<World>,
    number: u32,
    shard: ShardId,
    step: impl FnOnce(&mut PaxosRow) -> T,
) -> T {
    let mut store = world.store();
    step(store.replica(number).paxos.entry(shard).or_insert_with(|| PaxosRow::new(shard)))
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
