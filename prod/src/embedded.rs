//! One machine: the whole system in one process, on a log and a store in a directory.

use std::{convert::Infallible, io, path::Path, sync::Arc, time::Duration};

use stormkeep_core::{
    Config, Node, Stats,
    append::{Request, Response},
    env::{CallError, Env, Network, NodeId},
};

use crate::{
    clock::TokioClock,
    disk::{self, DiskLog, DiskStore},
    service::Service,
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
}

impl Env for Embedded {
    type Log = DiskLog;
    type Store = DiskStore;
    type Network = Alone;
    type Clock = TokioClock;
    type Handler = Infallible;

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
