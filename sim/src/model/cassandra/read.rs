//! Reads: from one replica, or from a quorum with speculative retry and read repair.

use std::sync::{Arc, Mutex};

use stormkeep_core::env::StoreError;

use super::{Heard, QUORUM, Replica, Rows, SPECULATE_AFTER, heard_by, lock, reconcile, refused};
use crate::{
    model::paxos::{Ballot, CasKey, CasValue},
    world::{Reply, World},
};

/// What a read asks of each replica, and makes of the answers.
pub trait Query: Send + Sync + 'static {
    /// What one replica answers.
    type Answer: Send + 'static;
    /// What the answers come to.
    type Outcome: Send + 'static;

    /// One replica's answer, and how many rows it had to touch.
    fn ask(&self, replica: &Replica) -> (Self::Answer, usize);

    /// What the answers come to; `replica, answer`.
    fn finish(&self, world: &Arc<World>, answers: Vec<(u32, Self::Answer)>) -> Self::Outcome;
}

/// Rows of the plain tables: the newest cell of each.
pub struct Find {
    /// Finds rows at a replica.
    pub find: Box<dyn Fn(&Rows) -> Rows + Send + Sync>,
}

impl Query for Find {
    type Answer = Rows;
    type Outcome = Rows;

    fn ask(&self, replica: &Replica) -> (Rows, usize) {
        let rows = (self.find)(&replica.rows);
        let touched = rows.len().max(1);
        (rows, touched)
    }

    fn finish(&self, world: &Arc<World>, answers: Vec<(u32, Rows)>) -> Rows {
        let mut merged = Rows::new();
        for (key, cell) in answers.iter().flat_map(|(_, rows)| rows) {
            reconcile(&mut merged, key, cell);
        }
        if answers.len() >= QUORUM && world.plan.store.read_repair {
            let mut store = world.store();
            for (number, seen) in &answers {
                for (key, cell) in &merged {
                    if seen.get(key) != Some(cell)
                        && reconcile(&mut store.replica(*number).rows, key, cell)
                    {
                        world.rare("rows repaired by a read");
                    }
                }
            }
        }
        merged
    }
}

/// Rows of compare-and-set, as a plain read sees them: the newest commit of each.
pub struct Committed(pub Vec<CasKey>);

impl Query for Committed {
    type Answer = Vec<(Ballot, CasValue)>;
    type Outcome = Vec<CasValue>;

    fn ask(&self, replica: &Replica) -> (Self::Answer, usize) {
        let committed = |key: &CasKey| match replica.paxos.get(key) {
            Some(row) => row.committed(),
            None => (0, CasValue::blank(*key)),
        };
        (self.0.iter().map(committed).collect(), self.0.len())
    }

    fn finish(&self, _: &Arc<World>, answers: Vec<(u32, Self::Answer)>) -> Vec<CasValue> {
        let newest = |n: usize| answers.iter().map(|(_, rows)| &rows[n]).max_by_key(|row| row.0);
        (0..self.0.len()).filter_map(newest).map(|(_, row)| row.clone()).collect()
    }
}

/// Reads from `need` replicas.
pub fn read<Q: Query>(
    world: &Arc<World>,
    need: usize,
    query: Arc<Q>,
    reply: Reply<Result<Q::Outcome, StoreError>>,
) {
    let effects = world.effects();
    if let Some(error) = refused(world, need, &effects) {
        return reply.send(world, Err(error));
    }
    let (mut order, draw) = {
        let mut store = world.store();
        (store.up(&effects), store.draw())
    };
    let turn = (draw % order.len() as u64) as usize;
    order.rotate_left(turn);
    let spare = order.split_off(need.min(order.len()));
    let reading = Arc::new(Reading { need, query, heard: heard_by(reply) });
    for number in order {
        ask(world, number, &reading);
    }
    if let Some(number) = spare.first().copied() {
        let here = world.clone();
        world.kernel.after(SPECULATE_AFTER, move || {
            if lock(&reading.heard).reply.is_some() {
                ask(&here, number, &reading);
            }
        });
    }
}

struct Reading<Q: Query> {
    need: usize,
    query: Arc<Q>,
    heard: Mutex<Heard<Q::Answer, Q::Outcome>>,
}

fn ask<Q: Query>(world: &Arc<World>, number: u32, reading: &Arc<Reading<Q>>) {
    let effects = world.effects();
    let hop = world.store().hop(number, &effects, effects.replica_lose);
    let Some(delay) = hop else {
        return world.struck("replica-lose");
    };
    let (here, reading) = (world.clone(), reading.clone());
    world.kernel.after(delay, move || {
        let effects = here.effects();
        if effects.replicas_down.contains(&number) {
            return here.struck("replica-down");
        }
        let (answer, back) = {
            let mut store = here.store();
            let (answer, rows) = reading.query.ask(&store.replicas[number as usize]);
            let work = store.work(number, here.kernel.now(), rows, &effects);
            let Some(work) = work else { return here.rare("work dropped by a replica") };
            let hop = store.hop(number, &effects, effects.replica_lose);
            (answer, hop.map(|hop| work + hop))
        };
        let Some(back) = back else { return here.struck("replica-lose") };
        let there = here.clone();
        here.kernel.after(back, move || {
            let (reply, answers) = {
                let mut heard = lock(&reading.heard);
                heard.answers.push((number, answer));
                if heard.answers.len() < reading.need {
                    return;
                }
                let Some(reply) = heard.reply.take() else { return };
                (reply, std::mem::take(&mut heard.answers))
            };
            let outcome = reading.query.finish(&there, answers);
            reply.send(&there, Ok(outcome));
        });
    });
}
