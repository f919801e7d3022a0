//! Speed: how fast seeds run on one core, and beside it, in the same minute, how fast the bare runtime
//! beneath carries messages. Machines differ and are busy with other things; the ratio of the two stays.

use std::{
    thread,
    time::{Duration, Instant},
};

use futures::{StreamExt, channel::mpsc, future::join_all};
use madsim::{
    runtime::Runtime,
    time::{Duration as VirtualDuration, sleep},
};
use serde_json::json;

use super::{
    BadInput, Well,
    args::SpeedArgs,
    engine::Engine,
    json::JsonLines,
    note, say,
    table::{self, Totals, grouped},
};
use crate::{run::Options, scenario::Scenario, seedfile::COMMIT};

/// Tasks that send messages to one another.
const TASKS: u64 = 10;
/// A message's virtual latency.
const LATENCY: VirtualDuration = VirtualDuration::from_millis(1);

/// What was done in what real time.
struct Measured {
    seconds: f64,
    totals: Totals,
    broken: Vec<u64>,
    echo_seconds: f64,
    messages: u64,
}

pub(super) fn command(args: &SpeedArgs, engine: &dyn Engine) -> Result<Well, BadInput> {
    let time = Duration::from_secs(args.seconds);
    if args.json {
        JsonLines::new(std::io::stdout()).line(&json!({
            "event": "start", "command": "speed", "commit": COMMIT, "seconds": args.seconds,
        }));
    } else {
        note(format_args!("chaos, seeds from 0 on, one at a time, for {} s", args.seconds));
    }
    let (totals, broken, seconds) = seeds(engine, time);
    let (messages, echo_seconds) = echo(time.div_f64(4.0).min(Duration::from_secs(5)));
    let measured = Measured { seconds, totals, broken, echo_seconds, messages };
    if args.json {
        JsonLines::new(std::io::stdout()).line(&measured.json());
    } else {
        say(measured.text());
    }
    Ok(measured.totals.violations == 0)
}

/// Seeds from 0 on, one after another: the same seeds in every build, so that builds can be compared.
fn seeds(engine: &dyn Engine, time: Duration) -> (Totals, Vec<u64>, f64) {
    let (mut totals, mut broken) = (Totals::default(), Vec::new());
    let started = Instant::now();
    for seed in 0.. {
        let report = engine.run(&engine.plan(Scenario::Chaos, seed), &Options::default());
        totals.add(&report);
        if report.violation.is_some() {
            broken.push(seed);
        }
        if started.elapsed() >= time {
            break;
        }
    }
    (totals, broken, started.elapsed().as_secs_f64())
}

/// Messages that the bare runtime carries in about this time, and the exact time.
fn echo(time: Duration) -> (u64, f64) {
    let (mut messages, mut rounds) = (0, 100);
    let started = Instant::now();
    // Within the runtime all clocks are virtual, so time is taken outside, between ever longer pieces.
    while started.elapsed() < time {
        // A thread that cannot be had or that fails carries nothing; the figure shows it.
        let piece = thread::spawn(move || echo_piece(rounds));
        messages += piece.join().unwrap_or_default();
        rounds = (rounds * 2).min(50_000);
    }
    (messages, started.elapsed().as_secs_f64())
}

/// A ring of tasks, a message for each: who gets one waits for the latency and passes it on, so many times.
/// A message costs a timer, a send and a wake-up; no simulation on this runtime can have it for less.
fn echo_piece(rounds: u64) -> u64 {
    Runtime::with_seed_and_config(0, madsim::Config::default()).block_on(async move {
        let (mut senders, receivers): (Vec<_>, Vec<_>) =
            (0..TASKS).map(|_| mpsc::unbounded::<()>()).unzip();
        for sender in &senders {
            // The receiver is in this very list.
            let _ = sender.unbounded_send(());
        }
        senders.rotate_left(1);
        let tasks = senders.into_iter().zip(receivers).map(|(to, mut from)| {
            madsim::task::spawn(async move {
                let mut carried = 0;
                while carried < rounds && from.next().await.is_some() {
                    sleep(LATENCY).await;
                    // The last one finds nobody.
                    let _ = to.unbounded_send(());
                    carried += 1;
                }
                carried
            })
        });
        let carried = join_all(tasks.collect::<Vec<_>>()).await;
        carried.into_iter().map(Result::unwrap_or_default).sum()
    })
}

impl Measured {
    fn per_second(&self, count: f64) -> f64 {
        count / self.seconds.max(1e-9)
    }

    fn echo_per_second(&self) -> f64 {
        self.messages as f64 / self.echo_seconds.max(1e-9)
    }

    fn ratio(&self) -> f64 {
        self.per_second(self.totals.events as f64) / self.echo_per_second().max(1e-9)
    }

    fn text(&self) -> String {
        let rate = |count: f64| grouped(count.round() as u64);
        let totals = &self.totals;
        let rows = [
            ("seeds", grouped(totals.seeds)),
            ("violations", grouped(totals.violations)),
            ("real time", format!("{:.1} s", self.seconds)),
            ("seeds/s", format!("{:.2}", self.per_second(totals.seeds as f64))),
            ("committed appends/s", rate(self.per_second(totals.committed as f64))),
            ("virtual s per real s", rate(self.per_second(totals.virtual_s()))),
            ("events/s", rate(self.per_second(totals.events as f64))),
            ("bare runtime's messages/s", rate(self.echo_per_second())),
            ("events/s to bare messages/s", format!("{:.3}", self.ratio())),
        ];
        let failed = self.broken.iter().map(|seed| format!("\nfailed: cargo sim replay {seed}"));
        table::pairs(rows, 1) + &failed.collect::<String>()
    }

    fn json(&self) -> serde_json::Value {
        let totals = &self.totals;
        json!({
            "event": "end",
            "seeds": totals.seeds,
            "violations": totals.violations,
            "failed_seeds": self.broken,
            "real_seconds": self.seconds,
            "seeds_per_second": self.per_second(totals.seeds as f64),
            "committed_per_second": self.per_second(totals.committed as f64),
            "virtual_per_real": self.per_second(totals.virtual_s()),
            "events_per_second": self.per_second(totals.events as f64),
            "bare_messages_per_second": self.echo_per_second(),
            "ratio": self.ratio(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fake::Fake;

    #[test]
    fn every_message_makes_its_rounds() {
        let carried = thread::spawn(|| echo_piece(20)).join().unwrap();
        assert_eq!(carried, TASKS * 20);
    }

    #[test]
    fn measures_both() {
        let engine = Fake(|_: &crate::plan::Plan| false);
        let (totals, broken, seconds) = seeds(&engine, Duration::from_millis(1));
        let (messages, echo_seconds) = echo(Duration::from_millis(1));
        assert!(totals.seeds > 0 && messages > 0);
        let measured = Measured { seconds, totals, broken, echo_seconds, messages };
        assert!(measured.ratio() > 0.0);
        assert!(measured.text().contains("bare runtime's messages/s"));
        assert_eq!(measured.json()["seeds"], measured.totals.seeds);
    }
}
