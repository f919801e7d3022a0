//! The heads of the streams that an owner has touched lately.
//!
//! A head may leave the owner's memory only when the store has it. What a replay says of a stream is
//! only the end of its head; it must be completed from the store before it decides anything.

use std::collections::{BTreeMap, VecDeque};

use crate::stream::{Head, Remembered, StreamName};

#[derive(Debug)]
struct Slot {
    head: Option<Head>,
    /// `false`: known from the tail only, to be completed from the store.
    complete: bool,
    /// The store is being read to complete it. Its answer may be older than the tail, so the slot stays
    /// until then, whatever the store has by now.
    loading: bool,
    /// The accepted count of the last batch that changed it: the store has it from there on.
    changed: u64,
    used: bool,
}

/// What is known of a stream.
pub(super) enum Known<'a> {
    /// Its head; `None`: it has no event.
    Head(Option<&'a Head>),
    /// Nothing, or not enough: read the store.
    NeedsStore,
}

/// See the module's docs.
#[derive(Debug)]
pub(super) struct Heads {
    slots: BTreeMap<StreamName, Slot>,
    /// The slots in the order in which they are looked at for eviction (second chance).
    order: VecDeque<StreamName>,
    count_max: usize,
}

impl Heads {
    pub(super) fn new(count_max: usize) -> Self {
        Heads { slots: BTreeMap::new(), order: VecDeque::new(), count_max }
    }

    pub(super) fn get(&mut self, stream: &StreamName) -> Known<'_> {
        match self.slots.get_mut(stream) {
            Some(slot) if slot.complete => {
                slot.used = true;
                Known::Head(slot.head.as_ref())
            }
            Some(slot) => {
                slot.loading = true;
                Known::NeedsStore
            }
            None => Known::NeedsStore,
        }
    }

    /// An append at accepted count `changed`, decided by this owner or replayed.
    pub(super) fn extend(&mut self, stream: &StreamName, append: Remembered, changed: u64) {
        if let Some(slot) = self.slots.get_mut(stream) {
            slot.head = Some(Head::extend(slot.head.take(), append));
            slot.changed = changed;
            slot.used = true;
        } else {
            let head = Some(Head::extend(None, append));
            self.insert(stream.clone(), head, false, changed);
        }
    }

    /// What the store says of a stream. Call it before anything newer is decided for the stream.
    pub(super) fn load(&mut self, stream: StreamName, stored: Option<Head>) {
        if let Some(slot) = self.slots.get_mut(&stream) {
            if !slot.complete {
                slot.head = match slot.head.take() {
                    Some(tail) => Some(Head::merge(tail, stored)),
                    None => stored,
                };
                (slot.complete, slot.loading) = (true, false);
            }
        } else {
            self.insert(stream, stored, true, 0);
        }
    }

    /// Forgets what can be read again, down to the bound: `materialized` is the accepted count that
    /// the store has. It looks at a few slots each time, so that its cost does not grow with a tail that
    /// keeps all of them.
    pub(super) fn evict(&mut self, materialized: u64) {
        let mut looks = 32;
        while self.slots.len() > self.count_max && looks > 0 {
            looks -= 1;
            let Some(stream) = self.order.pop_front() else { break };
            let Some(slot) = self.slots.get_mut(&stream) else { continue };
            if slot.used || slot.loading || slot.changed > materialized {
                slot.used = false;
                self.order.push_back(stream);
            } else {
                self.slots.remove(&stream);
            }
        }
    }

    fn insert(&mut self, stream: StreamName, head: Option<Head>, complete: bool, changed: u64) {
        let slot = Slot { head, complete, loading: false, changed, used: true };
        self.order.push_back(stream.clone());
        self.slots.insert(stream, slot);
    }
}
