//! Waiting: for a time limit, and between two tries.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use futures::{FutureExt, select_biased, task::AtomicWaker};

use crate::{config::Config, env::Clock};

/// The future's output, or `None` if `limit` passes first.
pub(crate) async fn within<C: Clock, T>(
    clock: &C,
    limit: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = pin!(future.fuse());
    let mut late = pin!(clock.sleep(limit).fuse());
    select_biased! {
        output = future => Some(output),
        () = late => None,
    }
}

/// Waits that double, with jitter, so that nodes that failed together do not try again together.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    min: Duration,
    max: Duration,
}

impl Backoff {
    pub(crate) fn new(config: &Config) -> Self {
        Backoff { next: config.retry_min, min: config.retry_min, max: config.retry_max }
    }

    /// As after so many failures.
    pub(crate) fn after(config: &Config, failures: u32) -> Self {
        let next = config.retry_min.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX));
        Backoff { next: next.min(config.retry_max), ..Backoff::new(config) }
    }

    /// Waits between half and all of the current wait.
    pub(crate) async fn pause<C: Clock>(&mut self, clock: &C) {
        let wait = self.next;
        self.next = (wait * 2).min(self.max);
        let half = wait / 2;
        let spread = half.as_micros().max(1) as u64;
        clock.sleep(half + Duration::from_micros(clock.random() % spread)).await;
    }

    /// The next wait is the first again.
    pub(crate) fn reset(&mut self) {
        self.next = self.min;
    }
}

/// Wakes one task that waits for work. Ringing before it waits is not lost; ringing twice is as good as once.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    waiter: AtomicWaker,
}

impl Bell {
    pub(crate) fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        self.waiter.wake();
    }

    /// Ends when it was rung since the last time.
    pub(crate) fn rung(&self) -> impl Future<Output = ()> + '_ {
        poll_fn(|context| {
            self.waiter.register(context.waker());
            if self.rung.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
        })
    }
}

/// Wakes all who wait for a change. Take the [count](Signal::count), look, then wait for [another](Signal::after) one.
#[derive(Debug, Default)]
pub(crate) struct Signal(Mutex<(u64, Vec<Waker>)>);

impl Signal {
    pub(crate) fn ring(&self) {
        let wakers = {
            let mut state = self.lock();
            state.0 += 1;
            std::mem::take(&mut state.1)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// How often it was rung.
    pub(crate) fn count(&self) -> u64 {
        self.lock().0
    }

    /// Ends when it was rung more often than `seen`.
    pub(crate) fn after(&self, seen: u64) -> impl Future<Output = ()> + '_ {
        poll_fn(move |context| {
            let mut state = self.lock();
            if state.0 > seen {
                return Poll::Ready(());
            }
            if !state.1.iter().any(|waker| waker.will_wake(context.waker())) {
                state.1.push(context.waker().clone());
            }
            Poll::Pending
        })
    }

    /// A panic elsewhere while it was held leaves it usable: it is a number, and who to wake.
    fn lock(&self) -> MutexGuard<'_, (u64, Vec<Waker>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A named point where a simulator may let time pass: whatever happens meanwhile must be safe.
pub(crate) async fn may_linger<C: Clock>(clock: &C, point: &'static str, wait: Duration) {
    if clock.buggify(point) {
        clock.sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_that_was_rung_before_anybody_waits_is_heard_once() {
        let bell = Bell::default();
        assert_eq!(bell.rung().now_or_never(), None);
        bell.ring();
        bell.ring();
        assert_eq!(bell.rung().now_or_never(), Some(()));
        assert_eq!(bell.rung().now_or_never(), None);
    }

    #[test]
    fn a_signal_wakes_all_who_have_not_seen_it() {
        let signal = Signal::default();
        let seen = signal.count();
        let (mut one, mut two) = (Box::pin(signal.after(seen)), Box::pin(signal.after(seen)));
        assert_eq!(((&mut one).now_or_never(), (&mut two).now_or_never()), (None, None));
        signal.ring();
        assert_eq!(((&mut one).now_or_never(), (&mut two).now_or_never()), (Some(()), Some(())));
        assert_eq!(signal.after(signal.count()).now_or_never(), None);
        assert_eq!(signal.after(seen).now_or_never(), Some(()));
    }

    #[test]
    fn who_waits_hears_it() {
        let bell = Bell::default();
        let mut waits = Box::pin(bell.rung());
        assert_eq!((&mut waits).now_or_never(), None);
        bell.ring();
        assert_eq!((&mut waits).now_or_never(), Some(()));
    }
}
