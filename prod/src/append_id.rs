//! The id of an append that its client gave none: made of the ids of its events.

use md5::{Digest, Md5};
use stormkeep_core::{append::AppendId, event::Event};

/// The MD5 of the ids of the events, in their order: the same events, sent again, are the same append.
pub fn of(events: &[Event]) -> AppendId {
    let mut hash = Md5::new();
    for event in events {
        hash.update(event.id.0.to_be_bytes());
    }
    AppendId(u128::from_be_bytes(hash.finalize().into()))
}
