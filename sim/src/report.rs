//! What one run came to.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{history::Nanos, oracle::Violation, trace::TraceEvent};

/// Counts by name. A name that is present with 0 is a gap in coverage.
pub type Counts = BTreeMap<&'static str, u64>;

/// What one run came to.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RunReport {
    /// The seed.
    pub seed: u64,
    /// The digest of its trace.
    pub digest: u64,
    /// The first broken promise.
    pub violation: Option<Violation>,
    /// How long it was: virtual nanoseconds.
    pub virtual_ns: Nanos,
    /// Events of the world.
    pub events: u64,
    /// Calls of clients.
    pub calls: u64,
    /// Appends that clients saw committed.
    pub committed: u64,
    /// Faults that struck, by [`What::KINDS`](crate::fault::What::KINDS); every kind is present.
    pub faults: Counts,
    /// What happened on the way that seldom happens; every rare path is present.
    pub rare: Counts,
    /// The events, if they were asked for.
    #[serde(skip)]
    pub trace: Vec<TraceEvent>,
}
