//! The clock of a real process: tokio's timers and tasks, the system's wall clock and randomness.

use std::{
    future::Future,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rand::Rng as _;
use stormkeep_core::{env::Clock, time::WallTime};
use tokio::time::Instant;

/// See the module's docs. Make it within a tokio runtime.
#[derive(Debug, Clone)]
pub struct TokioClock {
    began: Instant,
}

impl TokioClock {
    /// A clock whose elapsed time begins now.
    pub fn new() -> Self {
        TokioClock { began: Instant::now() }
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TokioClock {
    fn now(&self) -> WallTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + 'static {
        tokio::time::sleep(duration)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    fn random(&self) -> u64 {
        rand::rng().next_u64()
    }
}
