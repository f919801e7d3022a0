//! Waking those who wait for something new: in a stream, as soon as the log has confirmed it to its owner, whose strong reads show
//! it; in any, as soon as it is folded, since readers of all shards read what is folded.
//!
//! It is a hint, from the shards of this node alone: who waits must look again now and then all the same, since the shard of
//! its stream may be owned by another node.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::stream::StreamName;

/// Who waits; the key is `None` for those who wait for any stream.
#[derive(Debug, Default)]
struct Waiting {
    number: u64,
    waiters: BTreeMap<(Option<StreamName>, u64), Option<Waker>>,
}

impl Waiting {
    /// Those who wait for this need not any more.
    fn take(&mut self, stream: Option<StreamName>) -> Vec<Waker> {
        let (from, to) = ((stream.clone(), 0), (stream, u64::MAX));
        let range = self.waiters.range(from..=to).map(|(key, _)| key.clone());
        let keys: Vec<_> = range.collect();
        keys.iter().filter_map(|key| self.waiters.remove(key).flatten()).collect()
    }
}

/// All who wait at one node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watchers(Arc<Mutex<Waiting>>);

impl Watchers {
    /// Begins to wait for a stream, or for any. What a read shows before this call may be missed, so call it, then
    /// read, then wait.
    pub(crate) fn watch(&self, stream: Option<StreamName>) -> Watch {
        let mut waiting = self.lock();
        waiting.number += 1;
        let key = (stream, waiting.number);
        waiting.waiters.insert(key.clone(), None);
        Watch { watchers: self.clone(), key }
    }

    /// Wakes those who wait for one of these streams.
    pub(crate) fn appended<'a>(&self, streams: impl IntoIterator<Item = &'a StreamName>) {
        let mut woken = Vec::new();
        {
            let mut waiting = self.lock();
            // Those who wait for any are first.
            if waiting.waiters.last_key_value().is_some_and(|((stream, _), _)| stream.is_some()) {
                streams.into_iter().for_each(|s| woken.extend(waiting.take(Some(s.clone()))));
            }
        }
        woken.into_iter().for_each(Waker::wake);
    }

    /// Wakes those who wait for any stream.
    pub(crate) fn folded(&self) {
        let woken = self.lock().take(None);
        woken.into_iter().for_each(Waker::wake);
    }

    /// A panic elsewhere while it was held leaves it usable: every entry stands for itself.
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends when something new is there: see [`Node::watch`](crate::Node::watch).
#[derive(Debug)]
pub struct Watch {
    watchers: Watchers,
    key: (Option<StreamName>, u64),
}

impl Future for Watch {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match self.watchers.lock().waiters.get_mut(&self.key) {
            Some(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watchers.lock().waiters.remove(&self.key);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test: what is wrong here must stop it
mod tests {
    use futures::FutureExt;

    use super::*;

    fn stream(name: &str) -> StreamName {
        StreamName::new(name).unwrap()
    }

    #[test]
    fn who_waits_for_a_stream_is_woken_by_it_alone_and_who_waits_for_any_by_a_fold() {
        let watchers = Watchers::default();
        let (one, two) = (stream("player-1"), stream("player-2"));
        let mut of_one = watchers.watch(Some(one.clone()));
        let mut again = watchers.watch(Some(one.clone()));
        let mut of_two = watchers.watch(Some(two.clone()));
        let mut of_any = watchers.watch(None);
        watchers.appended([&two]);
        assert_eq!((&mut of_one).now_or_never(), None);
        assert_eq!((&mut of_two).now_or_never(), Some(()));
        assert_eq!((&mut of_any).now_or_never(), None);
        watchers.folded();
        assert_eq!((&mut of_any).now_or_never(), Some(()));
        assert_eq!((&mut of_one).now_or_never(), None);
        watchers.appended([&one, &two]);
        assert_eq!((&mut of_one).now_or_never(), Some(()));
        assert_eq!((&mut again).now_or_never(), Some(()));
        // What is over stays over.
        assert_eq!((&mut of_two).now_or_never(), Some(()));
    }

    #[test]
    fn a_task_that_waits_is_woken() {
        let watchers = Watchers::default();
        let mut waits = watchers.watch(None);
        let (waker, woken) = waker();
        let mut context = Context::from_waker(&waker);
        assert!(waits.poll_unpin(&mut context).is_pending());
        assert!(waits.poll_unpin(&mut context).is_pending());
        watchers.folded();
        assert_eq!(woken.count(), 1);
        assert!(waits.poll_unpin(&mut context).is_ready());
    }

    #[test]
    fn nobody_is_kept_who_waits_no_more() {
        let watchers = Watchers::default();
        let kept: Vec<Watch> = (0..9).map(|_| watchers.watch(None)).collect();
        assert_eq!(watchers.lock().waiters.len(), 9);
        drop(kept);
        let done = watchers.watch(Some(stream("player-1")));
        watchers.appended([&stream("player-1")]);
        assert_eq!(watchers.lock().waiters.len(), 0);
        drop(done);
    }

    struct Woken(std::sync::atomic::AtomicU32);

    impl Woken {
        fn count(&self) -> u32 {
            self.0.load(std::sync::atomic::Ordering::Relaxed)
        }
    }

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    fn waker() -> (Waker, Arc<Woken>) {
        let woken = Arc::new(Woken(std::sync::atomic::AtomicU32::new(0)));
        (Waker::from(woken.clone()), woken)
    }
}
