//! The answer to a read of a stream, from what it went through.

use crate::{
    append::{Direction, ReadStream, StreamSlice},
    ask::Range,
    event::RecordedEvent,
    shard::sequencer::Shown,
};

/// What a read asks of an owner.
pub(super) fn range(read: &ReadStream) -> Range {
    Range { from: read.from, limit: read.limit, direction: read.direction }
}

/// `covered`: the lowest and the highest revision that the read went through.
pub(super) fn slice(
    read: &ReadStream,
    shown: Shown,
    covered: Option<(u64, u64)>,
    events: Vec<RecordedEvent>,
) -> StreamSlice {
    let next = covered.and_then(|(low, high)| match read.direction {
        Direction::Forwards => shown.head.filter(|last| high < *last).map(|_| high + 1),
        Direction::Backwards => (low > shown.first).then(|| low - 1),
    });
    StreamSlice {
        next,
        head: shown.head,
        exists: shown.exists,
        tombstoned: shown.tombstoned,
        first_shown: shown.first,
        events,
    }
}
