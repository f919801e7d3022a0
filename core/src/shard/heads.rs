//! The heads of the streams that an owner has touched lately. A stream and its metadata have one head, under the
//! name of the stream.
//!
//! A head may leave the owner's memory only when the store has it. What a replay says of a stream is
//! only the end of its head; it must be completed from the store before it decides anything.

use std::collections::VecDeque;

use crate::{
    head::{Change, Head},
    shard::by_name::ByName,
    stream::StreamName,
};

#[derive(Debug)]
enum State {
    /// The head; `None`: neither events nor metadata.
    Complete(Option<Head>),
    /// Known from the tail only: what its appends do to a head that the store has.
    Partial(Vec<Change>),
}

#[derive(Debug)]
struct Slot {
    state: State,
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
    slots: ByName<Slot>,
    /// The slots in the order in which they are looked at for eviction (second chance).
    order: VecDeque<StreamName>,
    count_max: usize,
}

impl Heads {
    pub(super) fn new(count_max: usize) -> Self {
        Heads { slots: ByName::default(), order: VecDeque::new(), count_max }
    }

    pub(super) fn get(&mut self, stream: &StreamName) -> Known<'_> {
        match self.slots.get_mut(stream) {
            Some(Slot { state: State::Complete(head), used, .. }) => {
                *used = true;
                Known::Head(head.as_ref())
            }
            Some(slot) => {
                slot.loading = true;
                Known::NeedsStore
            }
            None => Known::NeedsStore,
        }
    }

    /// An append at accepted count `changed`, decided by this owner or replayed.
    pub(super) fn extend(&mut self, stream: &StreamName, change: Change, changed: u64) {
        let Some(slot) = self.slots.get_mut(stream) else {
            return self.insert(stream.clone(), State::Partial(vec![change]), changed);
        };
        match &mut slot.state {
            State::Complete(head) => head.get_or_insert_default().apply(&change),
            State::Partial(changes) => changes.push(change),
        }
        slot.changed = changed;
        slot.used = true;
    }

    /// What the store says of a stream. Call it before anything newer is decided for the stream.
    pub(super) fn load(&mut self, stream: StreamName, stored: Option<Head>) {
        let Some(slot) = self.slots.get_mut(&stream) else {
            return self.insert(stream, State::Complete(stored), 0);
        };
        if let State::Partial(changes) = &slot.state {
            slot.state = State::Complete(Head::complete(stored, changes));
            slot.loading = false;
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

    fn insert(&mut self, stream: StreamName, state: State, changed: u64) {
        let slot = Slot { state, loading: false, changed, used: true };
        self.slots.insert(&stream, slot);
        self.order.push_back(stream);
    }
}
