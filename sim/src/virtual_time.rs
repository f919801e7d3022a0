//! The virtual time of the run on this thread, for the trace's lines.

use std::cell::Cell;

use crate::history::Nanos;

thread_local! {
    static NOW: Cell<Nanos> = const { Cell::new(0) };
}

/// Sets the virtual time of the run on this thread.
pub fn set_now(now: Nanos) {
    NOW.set(now);
}

/// The virtual time of the run on this thread.
pub fn now() -> Nanos {
    NOW.get()
}
