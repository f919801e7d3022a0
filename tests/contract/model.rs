//! The family of the simulator: models of Kinesis and Cassandra, in virtual time. Every check runs in several worlds.

use std::{sync::Arc, time::Duration, time::Instant};

use stormkeep_core::env::{Env, NodeId};
use stormkeep_sim::{
    adapters::SimEnv,
    fault::{Fault, Place, What},
    host,
    plan::Plan,
    run,
    scenario::Scenario,
    world::{MS, World},
};

use crate::{
    family::{Family, NotShown, Stop, Trouble, Verdict, broken},
    table::{Check, Column, checks},
};

/// Worlds that each check runs in.
const SEEDS: u64 = 12;
/// Where the checks run, a peer, and a machine on which nothing runs.
const HERE: u32 = 0;
const PEER: u32 = 1;
const ABSENT: u32 = 2;
/// How long the log keeps records.
const RETENTION_MS: u64 = 3_600_000;

/// A simulated world.
pub(crate) struct Model {
    world: Arc<World>,
    env: SimEnv,
}

impl Env for Model {
    type Log = <SimEnv as Env>::Log;
    type Store = <SimEnv as Env>::Store;
    type Network = <SimEnv as Env>::Network;
    type Clock = <SimEnv as Env>::Clock;
    type Handler = <SimEnv as Env>::Handler;

    fn log(&self) -> &Self::Log {
        self.env.log()
    }
    fn store(&self) -> &Self::Store {
        self.env.store()
    }
    fn network(&self) -> &Self::Network {
        self.env.network()
    }
    fn clock(&self) -> &Self::Clock {
        self.env.clock()
    }
    fn handler(&self) -> &Self::Handler {
        self.env.handler()
    }
}

impl Family for Model {
    const PATIENCE: Duration = Duration::from_secs(3 * 3600);

    async fn make(&self, trouble: Trouble) -> Result<(), NotShown> {
        let here = Place::Node(HERE);
        let peer = Place::Node(PEER);
        let faults = match trouble {
            Trouble::LogLosesAnswers => vec![What::LogLoseAnswers { per_mille: 1000 }],
            Trouble::LogRepeatsPuts => {
                vec![What::LogRepeatPuts { per_mille: 1000, within_ms: 3000 }]
            }
            Trouble::LogThrottles => vec![What::LogThrottle { per_mille: 20 }],
            Trouble::LogIsGone => vec![What::Cut { from: here, to: Place::Log }],
            Trouble::TokensExpire => {
                self.world.log().expire_tokens(self.world.kernel.now());
                vec![]
            }
            Trouble::RecordsAge => {
                self.world.kernel.sleep((RETENTION_MS + 1) * MS).await;
                vec![]
            }
            Trouble::ReplicaIsDown(replica) => vec![What::ReplicaDown { replica }],
            Trouble::StoreIsDown => {
                vec![What::ReplicaDown { replica: 0 }, What::ReplicaDown { replica: 2 }]
            }
            Trouble::StoreLosesMessages => vec![What::ReplicaLose { per_mille: 250 }],
            Trouble::StoreLosesAnswers => vec![What::CutOneWay { from: Place::Store, to: here }],
            Trouble::PeerIsSilent => vec![What::Cut { from: here, to: peer }],
            Trouble::PeerLosesAnswers => vec![What::CutOneWay { from: peer, to: here }],
        };
        for what in faults {
            self.world.begin(0, Fault { at_ms: 0, for_ms: 0, what });
        }
        Ok(())
    }

    async fn calm(&self) {
        self.world.end(0);
    }

    fn reshards(&self) -> Result<(), NotShown> {
        Ok(())
    }

    async fn peer(&self) -> Result<NodeId, NotShown> {
        host::start(&self.world, PEER);
        Ok(NodeId(PEER))
    }

    fn absent(&self) -> NodeId {
        NodeId(ABSENT)
    }
}

/// A random cluster in which nothing goes wrong by itself.
fn plan(seed: u64) -> Plan {
    let mut plan = Scenario::Calm.plan(seed);
    plan.nodes = 3;
    plan.shards = plan.shards.max(2);
    plan.log.retention_ms = RETENTION_MS;
    // Pages of thousands of rows must be possible within the store's time limit; the core asks for less.
    plan.store.row_us = plan.store.row_us.min(50);
    plan
}

fn run(check: &Check<Model>, number: usize) -> Verdict {
    for seed in 1..=SEEDS {
        let name = check.name;
        let visitor = move |world: Arc<World>| async move {
            let env = SimEnv::new(&world, HERE);
            checks()[number].run(Arc::new(Model { world, env })).await
        };
        let verdict = run::visit(&plan(seed), visitor).unwrap_or_else(broken);
        if let Err(stop) = verdict {
            return match stop {
                Stop::Broken(what) => broken(format!("seed {seed}: {what}")),
                other => {
                    assert!(seed == 1, "{name}: the models show a thing in every world or in none");
                    Err(other)
                }
            };
        }
    }
    Ok(())
}

/// Runs every check.
pub(crate) fn column() -> Column {
    let cells = (0..).zip(checks()).map(|(number, check)| {
        let began = Instant::now();
        (run(&check, number), began.elapsed())
    });
    Column { family: "model", cells: cells.collect() }
}
