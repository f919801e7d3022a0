//! What the driver says of itself, for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};

use stormkeep_core::env::StoreError;

/// What a store has done since it was made. Latencies are of the driver, over its last minutes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreMetrics {
    /// Whether there is a connection to the cluster.
    pub connected: bool,
    /// Connections to its nodes.
    pub connections: u64,
    /// Requests under way.
    pub in_flight: u64,
    /// Requests that were sent.
    pub requests: u64,
    /// Requests that failed, as the driver counts.
    pub errors: u64,
    /// Reads that the driver sent once more.
    pub retries: u64,
    /// Requests that had no answer in time.
    pub request_timeouts: u64,
    /// Connections that could not be made in time.
    pub connection_timeouts: u64,
    /// Calls that were answered *no*.
    pub answered_no: u64,
    /// Calls that were answered *busy*.
    pub answered_busy: u64,
    /// Calls that were answered *unknown*.
    pub answered_unknown: u64,
    /// Milliseconds of a request: the median.
    pub latency_p50_ms: u64,
    /// Milliseconds of a request: the 99th percentile.
    pub latency_p99_ms: u64,
}

/// Requests under way, and how calls were answered.
#[derive(Default)]
pub(super) struct Flights {
    now: AtomicU64,
    no: AtomicU64,
    busy: AtomicU64,
    unknown: AtomicU64,
}

/// A request under way, until it is dropped.
pub(super) struct Flight<'a>(&'a Flights);

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Flights {
    pub(super) fn begin(&self) -> Flight<'_> {
        self.now.fetch_add(1, Ordering::Relaxed);
        Flight(self)
    }

    pub(super) fn answered(&self, error: StoreError) {
        let counter = match error {
            StoreError::Unavailable => &self.no,
            StoreError::Busy => &self.busy,
            StoreError::Unknown => &self.unknown,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn fill(&self, metrics: &mut StoreMetrics) {
        metrics.in_flight = self.now.load(Ordering::Relaxed);
        metrics.answered_no = self.no.load(Ordering::Relaxed);
        metrics.answered_busy = self.busy.load(Ordering::Relaxed);
        metrics.answered_unknown = self.unknown.load(Ordering::Relaxed);
    }
}
