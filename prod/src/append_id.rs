//! The id of an append that comes without one.

use md5::{Digest, Md5};
use stormkeep_core::{append::AppendId, event::EventId};

/// The MD5 of the ids of the events, in their order: who sends the same events again sends the same append.
pub fn append_id(events: impl IntoIterator<Item = EventId>) -> AppendId {
    let mut hash = Md5::new();
    for id in events {
        hash.update(id.0.to_be_bytes());
    }
    AppendId(u128::from_be_bytes(hash.finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_events_are_the_same_append() {
        let of = |ids: &[u128]| append_id(ids.iter().copied().map(EventId));
        assert_eq!(of(&[1, 2]), of(&[1, 2]));
        assert_ne!(of(&[1, 2]), of(&[2, 1]));
        assert_ne!(of(&[1]), of(&[1, 1]));
        // MD5 of sixteen zero bytes.
        assert_eq!(of(&[0]).0, 0x4ae7_1336_e44b_f9bf_79d2_752e_2348_18a5);
    }
}
