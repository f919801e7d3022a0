//! The trace of a run: every event of the world in order, and its digest. Two runs of one seed have the
//! same trace; where they part is what *repeatable* names.

use serde::Serialize;

use crate::history::Nanos;

/// One event of the world: something arrived, landed, fired or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TraceEvent {
    /// When: virtual nanoseconds.
    pub at: Nanos,
    /// What.
    pub what: &'static str,
    /// Where: a node's number, or [`TraceEvent::NOWHERE`].
    pub node: u32,
    /// What distinguishes it: a size, an id, an outcome.
    pub detail: u64,
}

impl TraceEvent {
    /// The event is of no node.
    pub const NOWHERE: u32 = u32::MAX;
}

/// Gathers a trace: always its digest and length; the events only if asked.
#[derive(Debug, Default)]
pub struct Trace {
    digest: u64,
    count: u64,
    kept: Option<Vec<TraceEvent>>,
}

impl Trace {
    /// A trace that keeps its events, or not.
    pub fn new(keep: bool) -> Self {
        Trace { digest: 0xcbf2_9ce4_8422_2325, count: 0, kept: keep.then(Vec::new) }
    }

    /// Adds an event.
    pub fn push(&mut self, event: TraceEvent) {
        self.count += 1;
        let mix = |code: u32, byte: u8| code.rotate_left(5) ^ u32::from(byte);
        let code = u64::from(event.what.bytes().fold(0, mix));
        for word in [event.at, u64::from(event.node) << 32 | code, event.detail] {
            self.digest = (self.digest.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        if let Some(kept) = &mut self.kept {
            kept.push(event);
        }
    }

    /// The digest of all events so far.
    pub fn digest(&self) -> u64 {
        self.digest ^ (self.digest >> 29)
    }

    /// How many events there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The kept events.
    pub fn into_kept(self) -> Vec<TraceEvent> {
        self.kept.unwrap_or_default()
    }
}
