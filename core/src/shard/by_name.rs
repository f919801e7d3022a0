//! A map by stream name that is looked into and never walked.

use std::collections::BTreeMap;

use crate::stream::StreamName;

/// Ordered by a checksum of the name, then by the name: a search compares numbers that lie side by side instead of
/// texts that lie anywhere, which is most of what an owner and a fold do for each append.
#[derive(Debug)]
pub(crate) struct ByName<V>(BTreeMap<(u32, StreamName), V>);

impl<V> Default for ByName<V> {
    fn default() -> Self {
        ByName(BTreeMap::new())
    }
}

impl<V> ByName<V> {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn contains(&self, name: &StreamName) -> bool {
        self.0.contains_key(&key(name))
    }

    pub(crate) fn get(&self, name: &StreamName) -> Option<&V> {
        self.0.get(&key(name))
    }

    pub(crate) fn get_mut(&mut self, name: &StreamName) -> Option<&mut V> {
        self.0.get_mut(&key(name))
    }

    pub(crate) fn get_or_insert(&mut self, name: &StreamName) -> &mut V
    where
        V: Default,
    {
        self.0.entry(key(name)).or_default()
    }

    pub(crate) fn insert(&mut self, name: &StreamName, value: V) {
        self.0.insert(key(name), value);
    }

    pub(crate) fn remove(&mut self, name: &StreamName) {
        self.0.remove(&key(name));
    }
}

fn key(name: &StreamName) -> (u32, StreamName) {
    (crc32fast::hash(name.as_str().as_bytes()), name.clone())
}
