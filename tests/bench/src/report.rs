//! The table: one row a peer, one column a line, each with Stormkeep's ratio to it.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use anyhow::Result;
use comfy_table::{Table, presets::ASCII_MARKDOWN};
use serde::Serialize;
use serde_json::json;

use crate::{
    machine::Machine,
    peer::{EVENT_BYTES, Peer, stormkeep::BUSY},
    workload::{READ_EVENTS, STREAMS, Sample, Settings},
};

/// Everything about one peer.
#[derive(Debug, Serialize)]
pub struct Row {
    pub name: &'static str,
    title: &'static str,
    durable: bool,
    note: &'static str,
    /// The row that it is compared with.
    against: &'static str,
    /// Why there is nothing, if there is nothing.
    pub problem: Option<String>,
    samples: BTreeMap<&'static str, Vec<Sample>>,
    failures: BTreeMap<&'static str, String>,
}

impl Row {
    pub fn new<P: Peer>() -> Self {
        Self {
            name: P::NAME,
            title: P::TITLE,
            durable: P::DURABLE,
            note: P::NOTE,
            against: P::AGAINST,
            problem: None,
            samples: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, round: BTreeMap<&'static str, Result<Sample, String>>) {
        for (line, measured) in round {
            match measured {
                Ok(sample) => self.samples.entry(line).or_default().push(sample),
                Err(failure) => {
                    self.failures.insert(line, failure);
                }
            }
        }
    }

    /// The middle run: of rates by the rate, of latencies by the median latency.
    fn median(&self, line: &str) -> Option<Sample> {
        let mut samples = self.samples.get(line)?.clone();
        let key = |sample: &Sample| sample.per_second.unwrap_or(sample.p50_ms);
        samples.sort_by(|one, other| key(one).total_cmp(&key(other)));
        samples.get(samples.len() / 2).copied()
    }

    /// A progress line about the newest run.
    pub fn latest(&self) -> String {
        let mut said = vec![self.name.to_owned()];
        said.extend(self.problem.clone());
        for (line, samples) in &self.samples {
            said.extend(samples.last().map(|sample| format!("{line} {}", figures(sample))));
        }
        said.extend(self.failures.iter().map(|(line, failure)| format!("{line}: {failure}")));
        said.join("; ")
    }
}

/// A number with commas between its thousands.
pub fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn ms(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

fn figures(sample: &Sample) -> String {
    let times = format!("{}/{}", ms(sample.p50_ms), ms(sample.p99_ms));
    match sample.per_second {
        Some(rate) => format!("{} ({times})", grouped(rate)),
        None => times,
    }
}

/// How many times better Stormkeep is: more calls a second, or less time.
fn ratio(ours: &Sample, theirs: &Sample) -> f64 {
    match (ours.per_second, theirs.per_second) {
        (Some(ours), Some(theirs)) => ours / theirs,
        _ => theirs.p50_ms / ours.p50_ms,
    }
}

fn title(line: &str) -> &'static str {
    match line {
        "appends-64" => "appends/s, c = 64 (p50/p99 ms)",
        "appends-256" => "appends/s, c = 256",
        "reads" => "whole reads/s, c = 64",
        _ => "append to subscriber, p50/p99 ms",
    }
}

/// What a call costs in CPU time: the figure that other work on the machine disturbs least.
fn print_cpu(lines: &[&'static str], rows: &[Row]) {
    let lines: Vec<_> = lines.iter().filter(|line| **line != "latency").collect();
    if lines.is_empty() {
        return;
    }
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    let mut header = vec!["CPU time of one call, µs: server + load".to_owned()];
    header.extend(lines.iter().map(|line| (**line).to_owned()));
    table.set_header(header);
    for row in rows.iter().filter(|row| row.problem.is_none()) {
        let mut cells = vec![row.title.to_owned()];
        for line in &lines {
            let cost = row.median(line).and_then(|s| Some((s.server_cpu_us?, s.load_cpu_us?)));
            cells.push(cost.map_or("-".to_owned(), |(s, l)| format!("{s:.0} + {l:.0}")));
        }
        table.add_row(cells);
    }
    println!("{table}\n");
}

pub fn print(
    machine: &Machine,
    lines: &[&'static str],
    runs: usize,
    settings: Settings,
    rows: &[Row],
    as_json: bool,
) -> Result<()> {
    if as_json {
        let report = json!({
            "machine": machine, "runs": runs, "seconds": settings.seconds,
            "warm_up_seconds": settings.warm_up_seconds, "rows": rows,
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!("{}\n", machine.line());
    println!(
        "Appends: one event of {EVENT_BYTES} B with the exact expected version, {} streams. Reads: {READ_EVENTS} events.\n{} s a run after {} s of warm-up; the median of {runs} run(s).\n`x`: how many times better Stormkeep is \
         (more calls a second; for latency, less time). Above 1 Stormkeep is ahead, below 1 behind; a ceiling is compared with the same calls.\n",
        grouped(STREAMS as f64),
        settings.seconds,
        settings.warm_up_seconds
    );
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    let mut header = vec!["system".to_owned(), "durable".to_owned()];
    header.extend(lines.iter().map(|line| title(line).to_owned()));
    table.set_header(header);
    for row in rows {
        let ours = rows.iter().find(|ours| ours.name == row.against && ours.name != row.name);
        let durable = if row.durable { "yes" } else { "no" };
        let mut cells = vec![row.title.to_owned(), durable.to_owned()];
        for line in lines {
            let cell = match (&row.problem, row.median(line)) {
                (Some(_), _) => "see below".to_owned(),
                (None, None) if row.failures.contains_key(line) => "failed: see below".to_owned(),
                (None, None) => "-".to_owned(),
                (None, Some(theirs)) => match ours.and_then(|ours| ours.median(line)) {
                    Some(ours) => format!("{} x{:.2}", figures(&theirs), ratio(&ours, &theirs)),
                    None => figures(&theirs),
                },
            };
            cells.push(cell);
        }
        table.add_row(cells);
    }
    println!("{table}\n");
    print_cpu(lines, rows);
    for row in rows {
        println!("- {}: {}.", row.title, row.note);
        if let Some(problem) = &row.problem {
            println!("  **{problem}**");
        }
        for (line, failure) in &row.failures {
            println!("  **{line} failed: {failure}**");
        }
    }
    let busy = BUSY.load(Ordering::Relaxed);
    if busy > 0 {
        println!(
            "- Stormkeep said {busy} times that it is busy, and the append was sent again; its times include that."
        );
    }
    println!(
        "- KurrentDB's own server: not installed: it comes as a container image and from package sources that this command does not use."
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::redis::Redis;

    fn sample(per_second: Option<f64>, p50_ms: f64) -> Sample {
        let (server_cpu_us, load_cpu_us) = (None, None);
        Sample { per_second, p50_ms, p99_ms: 9.0, calls: 1, server_cpu_us, load_cpu_us }
    }

    #[test]
    fn thousands_have_commas() {
        let written = [0.0, 999.4, 1000.0, 33_104.0, 1_234_567.0].map(grouped);
        assert_eq!(written, ["0", "999", "1,000", "33,104", "1,234,567"]);
    }

    #[test]
    fn a_ratio_above_one_means_that_stormkeep_is_ahead() {
        assert_eq!(ratio(&sample(Some(300.0), 1.0), &sample(Some(100.0), 9.0)), 3.0);
        assert_eq!(ratio(&sample(None, 2.0), &sample(None, 1.0)), 0.5);
    }

    #[test]
    fn the_median_run_is_shown() {
        let mut row = Row::new::<Redis>();
        for rate in [30.0, 10.0, 20.0] {
            row.add(BTreeMap::from([("reads", Ok(sample(Some(rate), 1.0)))]));
        }
        assert_eq!(row.median("reads").and_then(|sample| sample.per_second), Some(20.0));
        assert!(row.median("latency").is_none());
    }
}
