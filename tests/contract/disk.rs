//! The family of one machine: the log and the store on disk, in a directory of each check's own.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use stormkeep::{
    clock::TokioClock,
    disk::{self, Disk, DiskLog, DiskStore},
    embedded::Alone,
};
use stormkeep_core::env::{Env, NoHandler, NodeId};

use crate::{
    family::{Family, NotShown, Trouble, Verdict, broken},
    table::{Check, Column, checks},
};

/// An open data directory.
pub(crate) struct OneMachine {
    disk: Disk,
    clock: TokioClock,
}

impl Env for OneMachine {
    type Log = DiskLog;
    type Store = DiskStore;
    type Network = Alone;
    type Clock = TokioClock;
    type Handler = NoHandler;

    fn log(&self) -> &DiskLog {
        &self.disk.log
    }
    fn store(&self) -> &DiskStore {
        &self.disk.store
    }
    fn network(&self) -> &Alone {
        &Alone
    }
    fn clock(&self) -> &TokioClock {
        &self.clock
    }
    fn handler(&self) -> &NoHandler {
        &NoHandler
    }
}

impl Family for OneMachine {
    const PATIENCE: Duration = Duration::from_secs(60);

    async fn make(&self, trouble: Trouble) -> Result<(), NotShown> {
        Err(NotShown(match trouble {
            Trouble::LogLosesAnswers
            | Trouble::LogIsGone
            | Trouble::LogRepeatsPuts
            | Trouble::StoreLosesAnswers => {
                "log and store are function calls: an answer is lost only with the process (prod/tests/crash.rs)"
            }
            Trouble::LogThrottles => {
                "no limits but space, which prod/tests/disk and prod/tests/full.rs run out of"
            }
            Trouble::TokensExpire => "its cursors are positions and do not expire",
            Trouble::RecordsAge => "it keeps records for ever",
            Trouble::ReplicaIsDown(_) | Trouble::StoreIsDown | Trouble::StoreLosesMessages => {
                "there is one copy"
            }
            Trouble::PeerIsSilent | Trouble::PeerLosesAnswers => NO_PEERS,
        }))
    }

    async fn calm(&self) {}

    fn reshards(&self) -> Result<(), NotShown> {
        Err(NotShown("the shards of one machine are set once"))
    }

    async fn peer(&self) -> Result<NodeId, NotShown> {
        Err(NotShown(NO_PEERS))
    }

    fn absent(&self) -> NodeId {
        NodeId(2)
    }
}

const NO_PEERS: &str = "the one node has no peers";

async fn run(check: &Check<OneMachine>) -> Verdict {
    let folder = tempfile::tempdir().or_else(broken)?;
    let options = disk::Options {
        shards: Some(3),
        segment_bytes: disk::SEGMENT_BYTES_MIN,
        // Little is kept in memory, so that readers go to the files, too.
        recent_bytes: 1024 * 1024,
        reserve_bytes: 0,
        ..disk::Options::default()
    };
    let disk = disk::open(folder.path(), &options).or_else(broken)?;
    check.run(Arc::new(OneMachine { disk, clock: TokioClock::new() })).await
}

/// Runs every check.
pub(crate) fn column() -> Column {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(4).enable_all().build().expect("threads can be made");
    let cells = checks().into_iter().map(|check| {
        let began = Instant::now();
        (runtime.block_on(run(&check)), began.elapsed())
    });
    Column { family: "disk", cells: cells.collect() }
}
