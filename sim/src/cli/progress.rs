//! What people read while chaos runs: a bar on a terminal, a line every few seconds elsewhere. The bar and
//! those lines are on standard error; the start, the violations and the summary on standard output.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{
    chaos::{ChaosOptions, ChaosSummary, Limit},
    note,
    output::{Found, Output, Progress},
    table::{self, grouped},
};
use crate::{plant::Plant, seedfile::COMMIT};

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Steps of the bar.
const STEPS: u64 = 1000;

/// See the module's docs.
pub(crate) struct Terminal<W> {
    out: W,
    hint: bool,
    bar: Option<ProgressBar>,
    said: Instant,
}

impl<W: Write> Terminal<W> {
    /// `hint`: say at the end how to do more.
    pub(crate) fn new(out: W, hint: bool) -> Self {
        Terminal { out, hint, bar: None, said: Instant::now() }
    }

    fn say(&mut self, text: &str) {
        let out = &mut self.out;
        // A reader that has gone away is no failure.
        let mut write = || {
            let _ = writeln!(out, "{text}").and_then(|()| out.flush());
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

impl<W: Write> Output for Terminal<W> {
    fn start(&mut self, options: &ChaosOptions) {
        let mut text = format!(
            "{}: {}, {} at a time, commit {COMMIT}",
            options.scenario,
            table::limit(options.limit, options.first_seed),
            options.jobs
        );
        if options.plant != Plant::None {
            text.push_str(&format!(", planted {}", options.plant));
        }
        match options.corpus.len() {
            0 => text.push_str("\nno corpus"),
            1 => text.push_str("\ncorpus: 1 seed file"),
            files => text.push_str(&format!("\ncorpus: {files} seed files")),
        }
        // All that a killed run leaves behind: seeds follow one another, so this is all it takes.
        let first = options.first_seed;
        let options = table::differing(options.scenario, options.plant);
        text.push_str(&format!(
            "\nif it is killed: cargo sim chaos --seeds {first}..B{options}, B above the last seed shown"
        ));
        self.say(&text);
        if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(STEPS), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{bar:24} {wide_msg}") {
                bar.set_style(style);
            }
            self.bar = Some(bar);
        }
        self.said = Instant::now();
    }

    fn progress(&mut self, now: &Progress<'_>) {
        if let Some(bar) = &self.bar {
            bar.set_position((share(now) * STEPS as f64) as u64);
            bar.set_message(line(now));
        } else if self.said.elapsed() >= LINE_EVERY {
            self.said = Instant::now();
            note(line(now));
        }
    }

    fn found(&mut self, found: &Found) {
        self.say(&table::found(found));
    }

    fn end(&mut self, summary: &ChaosSummary) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.say(&format!("\n{}", table::summary(summary)));
        if self.hint {
            self.say(
                "more: cargo sim chaos --for 10m | --seeds 0..1000 | --scenario launch-day | --canary; \
                 cargo sim --help",
            );
        }
    }
}

/// How much of it is done, from 0 to 1.
fn share(now: &Progress<'_>) -> f64 {
    let share = match now.options.limit {
        Limit::Seeds(count) => now.totals.seeds as f64 / count.max(1) as f64,
        Limit::Time(time) => now.elapsed.as_secs_f64() / time.as_secs_f64().max(1e-9),
    };
    share.clamp(0.0, 1.0)
}

fn line(now: &Progress<'_>) -> String {
    let (totals, real_s) = (now.totals, now.elapsed.as_secs_f64().max(1e-9));
    let seeds = match now.options.limit {
        Limit::Seeds(count) => format!("{}/{} seeds", grouped(totals.seeds), grouped(count)),
        Limit::Time(_) => format!("{} seeds", grouped(totals.seeds)),
    };
    let running: Vec<String> = now.running.iter().map(u64::to_string).collect();
    let mut line = format!(
        "{real_s:.0}s  {seeds}  {:.1}/s  {} virtual s/s  {} calls  {} faults",
        totals.seeds as f64 / real_s,
        grouped((totals.virtual_s() / real_s).round() as u64),
        grouped(totals.calls),
        grouped(totals.faults.values().sum()),
    );
    if totals.violations > 0 {
        line.push_str(&format!("  {} VIOLATIONS", totals.violations));
    }
    if !running.is_empty() {
        line.push_str(&format!("  running {}", running.join(" ")));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{chaos::chaos_with, fake::Fake};

    #[test]
    fn start_violations_and_end_can_be_read_without_a_terminal() {
        let options = ChaosOptions {
            scenario: crate::scenario::Scenario::Chaos,
            plant: Plant::None,
            first_seed: 100,
            limit: Limit::Seeds(20),
            jobs: 2,
            stop_at_first: false,
            canary: false,
            corpus: Vec::new(),
            found: None,
        };
        let mut kept = Vec::new();
        let engine = Fake(|plan: &crate::plan::Plan| plan.seed == 107);
        chaos_with(&engine, &options, &mut Terminal::new(&mut kept, true));
        let text = String::from_utf8(kept).unwrap();
        for words in [
            "chaos: seeds 100..120, 2 at a time",
            "VIOLATION of durable: chaos, seed 107, at 1.500000 virtual s",
            "again     cargo sim replay 107",
            "takeovers",
            "every fault kind",
            "of: cargo sim chaos --seeds 100..120",
            "failed: cargo sim replay 107",
            "more: cargo sim chaos --for 10m",
        ] {
            assert!(text.contains(words), "{words:?} is not in:\n{text}");
        }
    }

    #[test]
    fn the_line_shows_how_far_it_is() {
        let options = ChaosOptions {
            scenario: crate::scenario::Scenario::Chaos,
            plant: Plant::None,
            first_seed: 0,
            limit: Limit::Time(Duration::from_secs(10)),
            jobs: 1,
            stop_at_first: false,
            canary: false,
            corpus: Vec::new(),
            found: None,
        };
        let totals = table::Totals { seeds: 50, virtual_ns: 500_000_000_000, ..Default::default() };
        let elapsed = Duration::from_secs(5);
        let now = Progress { options: &options, elapsed, totals: &totals, running: vec![50] };
        assert_eq!(
            line(&now),
            "5s  50 seeds  10.0/s  100 virtual s/s  0 calls  0 faults  running 50"
        );
        assert_eq!(share(&now), 0.5);
    }
}
