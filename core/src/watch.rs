//! Waking those who wait for something new in a stream, or in any.
//!
//! It is a hint, from this node's own folds alone: who waits must look again now and then all the same, since
//! the shard of its stream may be folded by another node.

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

/// All who wait at one node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watchers(Arc<Mutex<Waiting>>);

impl Watchers {
    /// Begins to wait for a stream, or for any. What the store shows before this call may be missed, so call it, then
    /// read, then wait.
    pub(crate) fn watch(&self, stream: Option<StreamName>) -> Watch {
        let mut waiting = self.lock();
        waiting.number += 1;
        let key = (stream, waiting.number);
        waiting.waiters.insert(key.clone(), None);
        Watch { watchers: self.clone(), key }
    }

    /// Wakes those who wait for one of these streams, and those who wait for any.
    pub(crate) fn changed<'a>(&self, streams: impl IntoIterator<Item = &'a StreamName>) {
        let mut woken = Vec::new();
        {
            let mut waiting = self.lock();
            let keys = streams.into_iter().map(Some).chain([None]);
            for stream in keys.map(|s| s.cloned()) {
                let from = (stream.clone(), 0);
                let to = (stream, u64::MAX);
                let range = waiting.waiters.range(from..=to).map(|(key, _)| key.clone());
                for key in range.collect::<Vec<_>>() {
                    woken.extend(waiting.waiters.remove(&key).flatten());
                }
            }
        }
        woken.into_iter().for_each(Waker::wake);
    }

    /// A panic elsewhere while it was held leaves it usable: every entry stands for itself.
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends when something new is in the store: see [`Node::watch`](crate::Node::watch).
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
