//! What machines read: one JSON object a line, for the start, each violation, and the end.

use std::io::Write;

use serde_json::{Value, json};

use super::{
    chaos::{ChaosOptions, ChaosSummary, Limit},
    output::{Found, Output},
    table::Gaps,
};
use crate::seedfile::COMMIT;

/// Writes lines of JSON.
#[derive(Debug)]
pub(crate) struct JsonLines<W>(W);

impl<W: Write> JsonLines<W> {
    pub(crate) fn new(out: W) -> Self {
        JsonLines(out)
    }

    /// A line, at once: who reads must have the start before a run can be killed.
    pub(crate) fn line(&mut self, value: &Value) {
        // A reader that has gone away is no failure.
        let _ = writeln!(self.0, "{value}").and_then(|()| self.0.flush());
    }
}

impl<W: Write> Output for JsonLines<W> {
    fn start(&mut self, options: &ChaosOptions) {
        let (seeds, seconds) = match options.limit {
            Limit::Seeds(count) => (Some(count), None),
            Limit::Time(time) => (None, Some(time.as_secs_f64())),
        };
        self.line(&json!({
            "event": "start",
            "command": "chaos",
            "commit": COMMIT,
            "scenario": options.scenario,
            "plant": options.plant,
            "first_seed": options.first_seed,
            "seeds": seeds,
            "seconds": seconds,
            "jobs": options.jobs,
            "stop_at_first": options.stop_at_first,
            "canary": options.canary,
            "corpus": options.corpus.iter().map(|entry| entry.path.display().to_string())
                .collect::<Vec<_>>(),
        }));
    }

    fn found(&mut self, found: &Found) {
        self.line(&self::found(found));
    }

    fn end(&mut self, summary: &ChaosSummary) {
        let (totals, options) = (&summary.totals, &summary.options);
        let gaps = Gaps::of(totals, options.scenario);
        let real_s = summary.elapsed.as_secs_f64();
        self.line(&json!({
            "event": "end",
            "passed": summary.passed(),
            "seeds": totals.seeds,
            "violations": totals.violations,
            "corpus_failures": summary.corpus_failures.len(),
            "canary_found": options.canary.then(|| summary.seeds_to_find().is_some()),
            "seeds_to_find": summary.seeds_to_find(),
            "twice": totals.twice,
            "digest": hex(summary.digest),
            "real_seconds": real_s,
            "virtual_seconds": totals.virtual_s(),
            "virtual_per_real": totals.virtual_s() / real_s.max(1e-9),
            "seeds_per_second": totals.seeds as f64 / real_s.max(1e-9),
            "calls": totals.calls,
            "committed": totals.committed,
            "committed_per_second": totals.committed as f64 / real_s.max(1e-9),
            "events": totals.events,
            "events_per_second": totals.events as f64 / real_s.max(1e-9),
            "faults": totals.faults,
            "rare": totals.rare,
            "gaps": if gaps.conclusive { [gaps.faults, gaps.rare].concat() } else { Vec::new() },
        }));
    }
}

/// A violation, or a file of the corpus that expects one in vain.
pub(crate) fn found(found: &Found) -> Value {
    let violation = found.violation.as_ref();
    json!({
        "event": if violation.is_some() { "violation" } else { "no violation" },
        "seed": found.seed,
        "scenario": found.scenario,
        "plant": found.plant,
        "promise": violation.map(|violation| violation.promise),
        "expected": violation.map(|violation| &violation.expected),
        "seen": violation.map(|violation| &violation.seen),
        "at_ns": violation.map(|violation| violation.at),
        "file": found.file.as_ref().map(|file| file.display().to_string()),
        "problem": found.corpus.as_ref().map(|(_, problem)| problem).or(found.unwritten.as_ref()),
        "reproduce": found.reproduce(),
    })
}

/// A digest: as a number it would lose digits in some readers.
pub(crate) fn hex(digest: u64) -> String {
    format!("{digest:016x}")
}
