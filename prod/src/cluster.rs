//! One node of a cluster: shards on Kinesis, state in Cassandra, peers over HTTP/2.
//!
//! Nothing here waits for a service to be there. A node starts without them, says on its readiness what is missing and how to
//! mend it, and goes on by itself when it is there.

use std::{sync::Arc, time::Duration};

use stormkeep_core::{
    Config, Node, Stats, Worker,
    env::{Env, NodeId},
};
use tokio::task::JoinHandle;

use crate::{
    cassandra::{self, CassandraStore},
    clock::TokioClock,
    config::Role,
    kinesis::{self, KinesisLog},
    peers::{self, Address, Door, PeerNetwork, announce},
    push::{self, Handlers},
    service::{Condition, Health, Service},
};

/// How often a node writes where it is: a third of what the row lives.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(100);

/// What a node of a cluster must be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its number, its own for ever.
    pub node: NodeId,
    /// What it does.
    pub role: Role,
    /// The log.
    pub kinesis: kinesis::Settings,
    /// The store.
    pub cassandra: cassandra::Settings,
    /// Calls between nodes.
    pub peers: peers::Settings,
    /// Pushing events.
    pub push: push::Settings,
}

/// Why a node cannot be started. Whether the services answer is not asked.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log.
    #[error(transparent)]
    Kinesis(#[from] kinesis::OpenError),
    /// The store.
    #[error(transparent)]
    Cassandra(#[from] cassandra::InvalidSettings),
    /// The peers.
    #[error(transparent)]
    Peers(#[from] peers::InvalidSetting),
}

/// The world of a node of a cluster.
pub struct Cluster {
    log: Arc<KinesisLog>,
    store: Arc<CassandraStore>,
    network: PeerNetwork<Arc<CassandraStore>>,
    clock: TokioClock,
    handlers: Handlers,
}

impl Env for Cluster {
    type Log = KinesisLog;
    type Store = CassandraStore;
    type Network = PeerNetwork<Arc<CassandraStore>>;
    type Clock = TokioClock;
    type Handler = Handlers;

    fn log(&self) -> &KinesisLog {
        &self.log
    }

    fn store(&self) -> &CassandraStore {
        &self.store
    }

    fn network(&self) -> &PeerNetwork<Arc<CassandraStore>> {
        &self.network
    }

    fn clock(&self) -> &TokioClock {
        &self.clock
    }

    fn handler(&self) -> &Handlers {
        &self.handlers
    }
}

/// A node that runs.
pub struct Member {
    service: Service<Cluster>,
    /// If it delivers.
    worker: Option<Worker<Cluster>>,
    handlers: Handlers,
    door: Door,
    store: Arc<CassandraStore>,
    announcing: JoinHandle<()>,
}

impl Member {
    /// Starts a node. Call it within a tokio runtime, and serve its [`door`](Member::door) at once.
    pub async fn start(settings: &Settings) -> Result<Member, StartError> {
        let log = Arc::new(KinesisLog::open(settings.kinesis.clone()).await?);
        let store = Arc::new(CassandraStore::new(settings.cassandra.clone())?);
        let network = PeerNetwork::new(&settings.peers, store.clone())?;
        let clock = TokioClock::new();
        let handlers = Handlers::new(settings.push.clone());
        let env = Cluster {
            log: log.clone(),
            store: store.clone(),
            network,
            clock,
            handlers: handlers.clone(),
        };
        let stats = Arc::new(Stats::default());
        let start = if settings.role.owns() { Node::start } else { Node::without_shards };
        let node = start(env, settings.node, Config::default(), stats.clone());
        let serving = node.clone();
        let serve: peers::Serve = Arc::new(move |request, left| serving.serve(request, left));
        let door = Door::new(&settings.peers, settings.node, serve)?;
        let worker = settings.role.delivers().then(|| Worker::beside(&node));
        let here = Address { authority: settings.peers.advertised(), process: rand::random() };
        let announcing = tokio::spawn(announce(store.clone(), settings.node, here, ANNOUNCE_EVERY));
        // Which of the shards are this node's is not for its readiness: another node may have all of them.
        let service = Service::new(node, stats, 0, health(log, store.clone()));
        Ok(Member { service, worker, handlers, door, store, announcing })
    }

    /// What it offers to clients.
    pub fn service(&self) -> &Service<Cluster> {
        &self.service
    }

    /// What it offers to its peers.
    pub fn door(&self) -> Door {
        self.door.clone()
    }

    /// What it pushes events to.
    pub fn handlers(&self) -> &Handlers {
        &self.handlers
    }

    /// Its store, to be looked at.
    pub fn store(&self) -> &Arc<CassandraStore> {
        &self.store
    }

    /// Finishes what is under way and gives the shards back, `limit` at the most: the services may be away.
    pub async fn stop(self, limit: Duration) {
        self.service.close();
        let leave = async {
            // First, since it parks events and writes progress.
            if let Some(worker) = &self.worker {
                worker.drain().await;
            }
            self.service.drain().await;
        };
        if tokio::time::timeout(limit, leave).await.is_err() {
            tracing::warn!("shards are left as they are: they could not be given back in time");
        }
        self.announcing.abort();
    }
}

/// The first thing that keeps a node from its work.
fn health(log: Arc<KinesisLog>, store: Arc<CassandraStore>) -> Health {
    Arc::new(move || {
        if let Some(reason) = store.ailment() {
            return Condition::Failed(format!("cassandra: {reason}"));
        }
        match log.health().ailments().first() {
            Some(ailment) => Condition::Failed(format!(
                "{}: {}: {}",
                ailment.action,
                ailment.what,
                ailment.fix()
            )),
            None => Condition::Well,
        }
    })
}
