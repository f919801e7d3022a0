//! One run: a plan in, a report out.

use crate::{plan::Plan, report::RunReport};

/// What to gather besides the report.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Keep the trace's events in the report.
    pub keep_trace: bool,
}

/// Runs a plan, on a fresh OS thread (a second run on one thread would differ: the standard library
/// keeps its hash keys by thread). Never panics: a panic within is a violation of *no-panic*.
pub fn run(_plan: &Plan, _options: Options) -> RunReport {
    RunReport::default()
}
