use std::{future::Future, time::Duration};

use crate::time::WallTime;

/// All that a run can depend on besides the services: time, tasks, randomness.
///
/// Safety never hangs on a clock: one may be skewed, drift, jump or stop, and every promise but *live*
/// still holds.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock. May go backwards.
    fn now(&self) -> WallTime;

    /// Time since an arbitrary moment of this process. Never goes backwards; may run fast or slow.
    fn elapsed(&self) -> Duration;

    /// Ends after about `duration` of [`elapsed`](Clock::elapsed), or later.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + 'static;

    /// Runs a task beside the others until it ends or the process does.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);

    /// 64 random bits.
    fn random(&self) -> u64;

    /// A named point where a simulator may ask for the unlikely branch: a smaller batch, an earlier
    /// timeout. Both branches must be right at all times. In production never true.
    fn buggify(&self, _point: &'static str) -> bool {
        false
    }
}
