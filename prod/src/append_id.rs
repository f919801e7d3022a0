//! The id of an append that comes without one.

use md5::{Digest, Md5};
use stormkeep_core::{append::AppendId, event::Event};

/// The MD5 of the ids of the events, in their order: who sends the same events again sends the same append.
pub fn append_id(events: &[Event]) -> AppendId {
    let mut hash = Md5::new();
    for event in events {
        hash.update(event.id.0.to_be_bytes());
    }
    AppendId(u128::from_be_bytes(hash.finalize().into()))
}

#[cfg(test)]
mod tests {
    use stormkeep_core::event::{EventId, Format};

    use super::*;

    fn of(ids: &[u128]) -> AppendId {
        let event = |id: &u128| Event {
            id: EventId(*id),
            kind: "t".into(),
            format: Format::Json,
            data: Default::default(),
            metadata: Default::default(),
        };
        append_id(&ids.iter().map(event).collect::<Vec<_>>())
    }

    #[test]
    fn the_same_events_are_the_same_append() {
        assert_eq!(of(&[1, 2]), of(&[1, 2]));
        assert_ne!(of(&[1, 2]), of(&[2, 1]));
        assert_ne!(of(&[1]), of(&[1, 1]));
        // MD5 of sixteen zero bytes.
        assert_eq!(of(&[0]).0, 0x4ae7_1336_e44b_f9bf_79d2_752e_2348_18a5);
    }
}
