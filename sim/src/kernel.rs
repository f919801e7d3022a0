//! Virtual time: one queue of events for the whole world, on top of madsim's clock.
//!
//! Links, services and clients are events and callbacks, not tasks: an event costs a heap entry and a
//! box. Only the core's own code runs as tasks of madsim, which pauses and kills them by node. One task,
//! [`Drive`], sleeps on madsim's clock until the next event is due.

use std::{
    cmp::Ordering,
    collections::BinaryHeap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use madsim::time::TimeHandle;

use crate::{history::Nanos, virtual_time};

type Callback = Box<dyn FnOnce() + Send>;

enum Action {
    Call(Callback),
    Fire(Arc<Timer>),
}

struct Event {
    at: Nanos,
    /// Events of one moment happen in the order they were scheduled in.
    order: u64,
    action: Action,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    /// The earliest event is the greatest: the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

#[derive(Default)]
struct State {
    now: Nanos,
    order: u64,
    queue: BinaryHeap<Event>,
    driver: Option<Waker>,
    /// When the driver will wake by itself.
    armed: Option<Nanos>,
}

/// See the module's docs.
#[derive(Default)]
pub struct Kernel {
    state: Mutex<State>,
}

impl Kernel {
    /// The virtual time: that of the last event.
    pub fn now(&self) -> Nanos {
        self.lock().now
    }

    /// Calls `callback` after `delay` virtual nanoseconds.
    pub fn after(&self, delay: Nanos, callback: impl FnOnce() + Send + 'static) {
        self.schedule(delay, Action::Call(Box::new(callback)));
    }

    /// Ends after `delay` virtual nanoseconds. Timing starts now, not at the first poll.
    pub fn sleep(&self, delay: Nanos) -> Sleep {
        let timer = Arc::new(Timer::default());
        self.schedule(delay, Action::Fire(timer.clone()));
        Sleep { timer }
    }

    /// Makes everything happen that is due by `now`, which is the time from then on. For a world in real time, which
    /// has no [`drive`](Kernel::drive).
    pub fn catch_up(&self, now: Nanos) {
        self.run_due(now);
        let mut state = self.lock();
        state.now = state.now.max(now);
    }

    /// Makes everything happen that is due. When the next event is.
    fn run_due(&self, due: Nanos) -> Option<Nanos> {
        loop {
            let event = {
                let mut state = self.lock();
                match state.queue.peek() {
                    Some(event) if event.at <= due => {}
                    next => return next.map(|event| event.at),
                }
                let event = state.queue.pop()?;
                state.now = event.at;
                event
            };
            virtual_time::set_now(event.at);
            match event.action {
                Action::Call(callback) => callback(),
                Action::Fire(timer) => timer.fire(),
            }
        }
    }

    /// The task that makes events happen. Spawn it once, outside of the simulated nodes.
    pub fn drive(self: &Arc<Self>) -> Drive {
        let time = TimeHandle::current();
        let base = time.now_instant() - time.elapsed();
        Drive { kernel: self.clone(), time, base, sleep: None }
    }

    /// Forgets all events: the run is over.
    pub fn clear(&self) {
        let events = std::mem::take(&mut self.lock().queue);
        // Dropped outside of the lock: what an event holds may schedule another as it goes.
        drop(events);
    }

    fn schedule(&self, delay: Nanos, action: Action) {
        let mut state = self.lock();
        let at = state.now + delay;
        state.order += 1;
        let order = state.order;
        state.queue.push(Event { at, order, action });
        if state.armed.is_none_or(|armed| at < armed)
            && let Some(driver) = state.driver.take()
        {
            driver.wake();
        }
    }

    /// A callback that panicked ends the run; until then the state is whole, since no callback runs
    /// while it is held.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Kernel::drive`].
pub struct Drive {
    kernel: Arc<Kernel>,
    time: TimeHandle,
    base: Instant,
    sleep: Option<Pin<Box<madsim::time::Sleep>>>,
}

impl Future for Drive {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let due = self.time.elapsed().as_nanos() as Nanos;
            let next = self.kernel.run_due(due);
            let mut state = self.kernel.lock();
            state.driver = Some(cx.waker().clone());
            state.armed = next;
            drop(state);
            let Some(next) = next else { return Poll::Pending };
            // madsim's sleep lasts a millisecond at least, as tokio's does; `reset` takes any deadline.
            let mut sleep = Box::pin(madsim::time::sleep_until(self.base));
            sleep.as_mut().reset(self.base + Duration::from_nanos(next));
            match sleep.as_mut().poll(cx) {
                Poll::Ready(()) => continue,
                Poll::Pending => {
                    self.sleep = Some(sleep);
                    return Poll::Pending;
                }
            }
        }
    }
}

#[derive(Default)]
struct Timer {
    /// Whether it has fired, and whom to wake when it does.
    state: Mutex<(bool, Option<Waker>)>,
}

impl Timer {
    fn fire(&self) {
        let waker = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.0 = true;
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// See [`Kernel::sleep`].
pub struct Sleep {
    timer: Arc<Timer>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.timer.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 {
            return Poll::Ready(());
        }
        match &mut state.1 {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            waker => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.timer.state.lock().unwrap_or_else(PoisonError::into_inner).1 = None;
    }
}
