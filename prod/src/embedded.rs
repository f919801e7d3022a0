//! One machine: the whole system in one process, on a log and a store in a directory.

use std::{path::Path, sync::Arc, time::Duration};

use stormkeep_core::{
    Config, Node, Stats, Worker,
    append::{Request, Response},
    env::{CallError, Env, Network, NodeId},
};

use crate::{
    clock::TokioClock,
    disk::{self, Disk, DiskLog, DiskStore, OpenError, State},
    push::Handlers,
    service::{Condition, Health, Service},
};

/// The only node.
const NODE: NodeId = NodeId(1);

/// The network of a node that is alone: there is nobody to call.
#[derive(Debug, Clone, Copy)]
pub struct Alone;

impl Network for Alone {
    async fn call(&self, _: NodeId, _: Request, _: Duration) -> Result<Response, CallError> {
        Err(CallError::Refused)
    }
}

/// The world of one machine.
pub struct Embedded {
    log: Arc<DiskLog>,
    store: Arc<DiskStore>,
    clock: TokioClock,
    handlers: Handlers,
}

impl Env for Embedded {
    type Log = DiskLog;
    type Store = DiskStore;
    type Network = Alone;
    type Clock = TokioClock;
    type Handler = Handlers;

    fn log(&self) -> &DiskLog {
        &self.log
    }

    fn store(&self) -> &DiskStore {
        &self.store
    }

    fn network(&self) -> &Alone {
        &Alone
    }

    fn clock(&self) -> &TokioClock {
        &self.clock
    }

    fn handler(&self) -> &Handlers {
        &self.handlers
    }
}

/// A machine that runs: its files, and what it offers.
pub struct Machine {
    disk: Arc<Disk>,
    service: Service<Embedded>,
    worker: Worker<Embedded>,
    handlers: Handlers,
}

impl Machine {
    /// Opens a data directory and starts the one node. Call it within a tokio runtime.
    pub fn start(path: &Path, options: &disk::Options) -> Result<Machine, OpenError> {
        Machine::with(path, options, Handlers::default())
    }

    /// The same, and pushes events to these handlers.
    pub fn with(
        path: &Path,
        options: &disk::Options,
        handlers: Handlers,
    ) -> Result<Machine, OpenError> {
        let disk = disk::open(path, options)?;
        let (log, store, clock) = (disk.log.clone(), disk.store.clone(), TokioClock::new());
        let env = Embedded { log, store, clock, handlers: handlers.clone() };
        let stats = Arc::new(Stats::default());
        let node = Node::start(env, NODE, config(), stats.clone());
        let worker = Worker::beside(&node);
        let disk = Arc::new(disk);
        let looked = disk.clone();
        let health: Health = Arc::new(move || match looked.condition() {
            State::Well => Condition::Well,
            State::NearlyFull(reason) => Condition::Full(reason),
            State::Failed(reason) => Condition::Failed(reason),
        });
        let service = Service::new(node, stats, disk.directory.shards().len(), health);
        Ok(Machine { disk, service, worker, handlers })
    }

    /// What it offers.
    pub fn service(&self) -> &Service<Embedded> {
        &self.service
    }

    /// What it pushes events to.
    pub fn handlers(&self) -> &Handlers {
        &self.handlers
    }

    /// Its files.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Finishes what is under way and closes the files. The service must not be used any more.
    pub async fn stop(self) -> std::io::Result<()> {
        self.service.close();
        // First, since it parks events and writes progress.
        self.worker.drain().await;
        self.service.drain().await;
        self.disk.close()?;
        let store = Arc::downgrade(&self.disk.store);
        drop(self);
        // The node's tasks end by themselves, and the last one gives the directory free.
        for _ in 0..1000 {
            if store.strong_count() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }
}

/// The core's settings where a log and a store are a function call away: nothing is polled that can be told, and
/// the one node takes its shards at once.
pub fn config() -> Config {
    Config {
        heartbeat: Duration::from_millis(250),
        dead_after: Duration::from_millis(1000),
        take_grace: Duration::ZERO,
        poll: Duration::from_millis(100),
        poll_min: Duration::ZERO,
        // Readers of all shards ask for it; an idle machine writes nothing.
        close_after: Duration::from_secs(24 * 3600),
        retry_min: Duration::from_millis(5),
        retry_max: Duration::from_millis(250),
        tail_bytes_max: 32 * 1024 * 1024,
        heads_max: 50_000,
        queue_max: 16 * 1024,
        write_rows_max: 4096,
        ..Config::default()
    }
}
