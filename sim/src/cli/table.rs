//! Sums over runs, what they leave out, and all of it as text for people.

use std::{fmt::Write as _, time::Duration};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::{
    chaos::{ChaosOptions, ChaosSummary, Limit},
    output::Found,
};
use crate::{
    fault::What,
    oracle::Violation,
    plan::Plan,
    plant::Plant,
    report::{Counts, RunReport},
    scenario::Scenario,
};

/// From so many seeds of chaos on, a fault kind or rare path that never occurred is a gap.
pub const GAP_SEEDS: u64 = 200;
/// Failures that the summary lists once more.
const FAILED_MAX: usize = 10;

/// Sums over runs. A run that was repeated for comparison counts once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Runs.
    pub seeds: u64,
    /// Runs that broke a promise.
    pub violations: u64,
    /// Runs that were run a second time and compared.
    pub twice: u64,
    /// Virtual nanoseconds.
    pub virtual_ns: u64,
    /// Events of the world.
    pub events: u64,
    /// Calls of clients.
    pub calls: u64,
    /// Appends that clients saw committed.
    pub committed: u64,
    /// Faults that struck, by kind.
    pub faults: Counts,
    /// What seldom happens, by name.
    pub rare: Counts,
}

impl Totals {
    /// Adds a run.
    pub fn add(&mut self, report: &RunReport) {
        self.seeds += 1;
        self.violations += u64::from(report.violation.is_some());
        self.virtual_ns += report.virtual_ns;
        self.events += report.events;
        self.calls += report.calls;
        self.committed += report.committed;
        for (sum, counts) in [(&mut self.faults, &report.faults), (&mut self.rare, &report.rare)] {
            for (name, count) in counts {
                *sum.entry(name).or_default() += count;
            }
        }
    }

    /// Virtual seconds.
    pub fn virtual_s(&self) -> f64 {
        self.virtual_ns as f64 / 1e9
    }
}

/// What never occurred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gaps {
    /// Kinds of faults.
    pub faults: Vec<&'static str>,
    /// Rare paths.
    pub rare: Vec<&'static str>,
    /// Whether it should have: chaos plays every kind, given seeds enough.
    pub conclusive: bool,
}

impl Gaps {
    /// What never occurred in runs of a scenario.
    pub fn of(totals: &Totals, scenario: Scenario) -> Self {
        let none = |kind: &&&'static str| totals.faults.get(**kind).is_none_or(|count| *count == 0);
        Gaps {
            faults: What::KINDS.iter().filter(none).copied().collect(),
            rare: totals.rare.iter().filter(|(_, n)| **n == 0).map(|(name, _)| *name).collect(),
            conclusive: scenario == Scenario::Chaos && totals.seeds >= GAP_SEEDS,
        }
    }

    /// In a few lines.
    pub fn text(&self, scenario: Scenario) -> String {
        let count = |names: &[_], what: &str, plural: &str| {
            format!("{} {}", names.len(), if names.len() == 1 { what } else { plural })
        };
        let faults = count(&self.faults, "fault kind", "fault kinds");
        let rare = count(&self.rare, "rare path", "rare paths");
        match (self.faults.is_empty() && self.rare.is_empty(), self.conclusive) {
            (true, _) => "coverage: every fault kind and every rare path occurred".to_owned(),
            (false, true) => {
                let mut text = format!("GAPS IN COVERAGE: {faults} and {rare} never occurred");
                for name in self.faults.iter().chain(&self.rare) {
                    text.push_str(&format!("\n  {name}"));
                }
                text
            }
            (false, false) if scenario == Scenario::Chaos => {
                format!("coverage: {faults} and {rare} did not occur in so few seeds")
            }
            (false, false) => format!(
                "coverage: {faults} and {rare} did not occur; only the chaos scenario plays them all"
            ),
        }
    }
}

/// The end of a chaos run.
pub fn summary(summary: &ChaosSummary) -> String {
    let (totals, options) = (&summary.totals, &summary.options);
    let real_s = summary.elapsed.as_secs_f64().max(1e-9);
    let rate = |count: f64| grouped((count / real_s).round() as u64);
    let mut rows = vec![
        ("seeds", grouped(totals.seeds)),
        ("violations", grouped(totals.violations)),
        ("run twice and compared", grouped(totals.twice)),
        ("real time", format!("{real_s:.1} s")),
        ("virtual time", format!("{:.2} h", totals.virtual_s() / 3600.0)),
        ("virtual s per real s", rate(totals.virtual_s())),
        ("seeds/s", format!("{:.2}", totals.seeds as f64 / real_s)),
        ("calls", grouped(totals.calls)),
        ("committed appends", grouped(totals.committed)),
        ("committed appends/s", rate(totals.committed as f64)),
        ("events", grouped(totals.events)),
        ("events/s", rate(totals.events as f64)),
    ];
    if !options.corpus.is_empty() {
        let (files, failed) = (options.corpus.len(), summary.corpus_failures.len());
        rows.push(("corpus", format!("{files} files, {failed} failed")));
    }
    let mut text = pairs(rows.iter().map(|(name, value)| (*name, value.clone())), 1);
    let counts = |counts: &Counts| -> Vec<(&'static str, String)> {
        counts.iter().map(|(name, count)| (*name, grouped(*count))).collect()
    };
    let _ = write!(text, "\n\nfaults that struck\n{}", pairs(counts(&totals.faults), 3));
    let _ = write!(text, "\n\nrare paths taken\n{}", pairs(counts(&totals.rare), 2));
    let _ = write!(text, "\n\n{}\n", Gaps::of(totals, options.scenario).text(options.scenario));
    let again = again(options, summary.digested());
    let _ = write!(text, "digest {:016x} of: {again}", summary.digest);
    if options.canary {
        let tried = grouped(totals.seeds);
        let _ = match summary.seeds_to_find() {
            Some(seeds) => write!(text, "\ncanary {} found after {seeds} seeds", options.plant),
            None => write!(
                text,
                "\nCANARY NOT FOUND: the oracles are blind to {} in {tried} seeds",
                options.plant
            ),
        };
    }
    let failed: Vec<_> = summary.corpus_failures.iter().chain(&summary.violations).collect();
    for found in failed.iter().take(FAILED_MAX) {
        let _ = write!(text, "\nfailed: {}", found.reproduce());
    }
    if failed.len() > FAILED_MAX {
        let _ = write!(text, "\nfailed: {} more, see above", failed.len() - FAILED_MAX);
    }
    text
}

/// The command that runs the first so many seeds again.
pub fn again(options: &ChaosOptions, seeds: u64) -> String {
    let mut command = format!("cargo sim chaos --seeds {}", range(options.first_seed, seeds));
    command.push_str(&differing(options.scenario, options.plant));
    command
}

/// The options of a scenario and a planted fault, as far as they are not the defaults.
pub fn differing(scenario: Scenario, plant: Plant) -> String {
    let mut text = String::new();
    if scenario != Scenario::Chaos {
        let _ = write!(text, " --scenario {scenario}");
    }
    if plant != Plant::None {
        let _ = write!(text, " --plant {plant}");
    }
    text
}

/// `A..B` as the command takes it.
pub fn range(first: u64, count: u64) -> String {
    format!("{first}..{}", first.saturating_add(count))
}

/// When a chaos run stops.
pub fn limit(limit: Limit, first: u64) -> String {
    match limit {
        Limit::Seeds(count) => format!("seeds {}", range(first, count)),
        Limit::Time(time) => format!("seeds from {first} on for {}", span(time)),
    }
}

/// A span of time as the command takes it.
pub fn span(time: Duration) -> String {
    let ms = time.as_millis();
    for (unit, unit_ms) in [("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if ms >= unit_ms && ms.is_multiple_of(unit_ms) {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    format!("{ms}ms")
}

/// Something that must not be, and how to see it again.
pub fn found(found: &Found) -> String {
    let mut run = format!("{}, seed {}", found.scenario, found.seed);
    if found.plant != Plant::None {
        let _ = write!(run, ", planted {}", found.plant);
    }
    let mut text = match &found.violation {
        Some(violation) => self::violation(violation, &run),
        None => format!("NO VIOLATION, though one was expected: {run}"),
    };
    if let Some((path, problem)) = &found.corpus {
        let _ = write!(text, "\n  corpus    {}: {problem}", path.display());
    }
    if let Some(reason) = &found.unwritten {
        let _ = write!(text, "\n  no file   {reason}");
    }
    let _ = write!(text, "\n  again     {}", found.reproduce());
    if let (Some(_), Some(file)) = (&found.violation, &found.file) {
        let _ = write!(text, "\n  smaller   cargo sim shrink {}", file.display());
    }
    text
}

/// A broken promise: which, in which run, when, what should have been and what was.
pub fn violation(violation: &Violation, run: &str) -> String {
    let seconds = violation.at as f64 / 1e9;
    let indented = |text: &str| text.trim_end().replace('\n', "\n            ");
    format!(
        "VIOLATION of {}: {run}, at {seconds:.6} virtual s\n  expected  {}\n  seen      {}",
        violation.promise,
        indented(&violation.expected),
        indented(&violation.seen)
    )
}

/// Every knob, a group a line, and every fault, one a line.
pub fn plan(plan: &Plan) -> String {
    // The groups are those of the plan's own fields: what is added to the plan is printed too.
    let Ok(serde_json::Value::Object(groups)) = serde_json::to_value(plan) else {
        return format!("{plan:?}");
    };
    let mut text = String::new();
    for (name, value) in groups.iter().filter(|(name, _)| *name != "faults") {
        let mut fields = Vec::new();
        flatten("", value, &mut fields);
        let _ = writeln!(text, "  {name:<15} {}", fields.join(" "));
    }
    let _ = write!(text, "  {:<15} {}", "faults", plan.faults.len());
    for fault in &plan.faults {
        let mut fields = Vec::new();
        if let Ok(serde_json::Value::Object(mut object)) = serde_json::to_value(&fault.what) {
            object.remove("kind");
            flatten("", &serde_json::Value::Object(object), &mut fields);
        }
        let at = format!("{:.3}s +{:.3}s", fault.at_ms as f64 / 1e3, fault.for_ms as f64 / 1e3);
        let line = format!("    {at:>18}  {:<18} {}", fault.what.kind(), fields.join(" "));
        let _ = write!(text, "\n{}", line.trim_end());
    }
    text
}

fn flatten(path: &str, value: &serde_json::Value, fields: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (name, value) in object {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, value, fields);
            }
        }
        value => {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let field = if path.is_empty() { value } else { format!("{path}={value}") };
            fields.push(field);
        }
    }
}

/// Names and values in so many columns, read downwards.
pub fn pairs<'a>(rows: impl IntoIterator<Item = (&'a str, String)>, across: usize) -> String {
    let rows: Vec<_> = rows.into_iter().collect();
    let height = rows.len().div_ceil(across.max(1));
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for line in 0..height {
        let cells = rows.iter().skip(line).step_by(height);
        table.add_row(cells.flat_map(|(name, value)| [format!(" {name}"), value.clone()]));
    }
    for column in (1..across * 2).step_by(2) {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// A number with its thousands apart: 1,234,567.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
