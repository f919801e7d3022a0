//! `live`: chaos on the real thing.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    BadInput, Well, args::LiveArgs, fresh_seed, json::JsonLines, note, say, table::grouped,
};
use crate::{
    live::{self, Options, Progress, Report},
    report::Counts,
    seedfile::COMMIT,
};

pub(super) fn command(args: &LiveArgs) -> Result<Well, BadInput> {
    let seed = args.seed.unwrap_or_else(fresh_seed);
    let directory = std::env::temp_dir().join(format!("stormkeep-live-{}", std::process::id()));
    let options = Options {
        seed,
        target: args.target(),
        time: args.time,
        server: args.server.clone().map_or_else(beside_this, Ok)?,
        directory: args.dir.clone().unwrap_or(directory),
        shards: args.shards,
        canary: args.canary,
    };
    let start = serde_json::json!({
        "event": "start", "command": "live", "commit": COMMIT, "seed": seed,
        "target": options.target.name(), "seconds": args.time.as_secs(),
    });
    // First of all: a run that is killed must not lose it.
    let mut lines = args.json.then(|| JsonLines::new(io::stdout()));
    match &mut lines {
        Some(lines) => lines.line(&start),
        None => say(format_args!(
            "live: {} for {:?}, seed {seed}, commit {COMMIT}\nfiles are in {}\nthe same clients and faults again: cargo sim live --seed {seed} --target {} --for {}ms",
            options.target.sentence(),
            args.time,
            options.directory.display(),
            options.target.name(),
            args.time.as_millis(),
        )),
    }
    let report = live::run(&options, &mut |progress| note(line(progress)))?;
    match &mut lines {
        Some(lines) => lines.line(&json(&report, seed)),
        None => say(text(&report)),
    }
    if report.passed() && args.dir.is_none() {
        remove(&options.directory);
    }
    Ok(report.passed())
}

/// The server that was built with this command.
fn beside_this() -> Result<PathBuf, BadInput> {
    let this = std::env::current_exe()?;
    Ok(this.parent().unwrap_or(Path::new(".")).join("stormkeep"))
}

fn remove(directory: &Path) {
    if let Err(error) = fs::remove_dir_all(directory) {
        note(format_args!("{}: {error}", directory.display()));
    }
}

fn line(progress: &Progress) -> String {
    let Progress { elapsed, calls, committed, unknown, faults, healed } = progress;
    format!(
        "{:>5} s  {} calls, {} committed, {} unknown, {} faults{}",
        elapsed.as_secs(),
        grouped(*calls),
        grouped(*committed),
        grouped(*unknown),
        grouped(faults.values().sum()),
        if *healed { ", healed" } else { "" }
    )
}

fn list(counts: &Counts) -> String {
    let lines = counts.iter().map(|(name, count)| format!("  {:>9}  {name}\n", grouped(*count)));
    lines.collect()
}

fn text(report: &Report) -> String {
    let Report { progress, violations, defects, events, rare } = report;
    let mut text = String::new();
    for violation in violations {
        text.push_str(&format!(
            "BROKEN: {}, seen after {:?}\n  expected  {}\n  seen      {}\n",
            violation.promise,
            Duration::from_nanos(violation.at),
            violation.expected,
            violation.seen
        ));
    }
    for defect in defects {
        text.push_str(&format!("DEFECT: {defect}\n"));
    }
    text.push_str(&format!("faults\n{}seldom\n{}", list(&progress.faults), list(rare)));
    text.push_str(&format!(
        "{}; {} events at the end; {}\n",
        line(progress).trim_start(),
        grouped(*events),
        if report.passed() { "no promise is broken" } else { "NOT WELL" }
    ));
    text.push_str(
        "judged: durable, linearizable, gapless, ordered, live, and of fenced what does not speak of epochs\n\
         not judged: faithful, delivered, fenced's epochs (the API does not show them); repeatable (time is real)",
    );
    text
}

fn json(report: &Report, seed: u64) -> serde_json::Value {
    let Report { progress, violations, defects, events, rare } = report;
    serde_json::json!({
        "event": "end", "seed": seed, "passed": report.passed(), "violations": violations,
        "defects": defects, "events": events, "calls": progress.calls,
        "committed": progress.committed, "unknown": progress.unknown,
        "faults": progress.faults, "rare": rare,
        "seconds": progress.elapsed.as_secs_f64(),
    })
}
