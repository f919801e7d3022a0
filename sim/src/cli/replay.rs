//! Replay: one run once more, and what it came to.

use std::path::Path;

use serde_json::json;

use super::{
    BadInput, Well,
    args::ReplayArgs,
    engine::{Engine, run_twice},
    json::{self, JsonLines},
    note,
    output::Found,
    say,
    table::{self, grouped},
};
use crate::{
    report::RunReport,
    seedfile::{COMMIT, SeedFile},
    trace_format,
};

pub(super) fn command(args: &ReplayArgs, engine: &dyn Engine) -> Result<Well, BadInput> {
    let (file, path) = args.file(|scenario, seed| engine.plan(scenario, seed))?;
    // The plan first: a run that never ends, or is killed, must not lose it.
    if args.json {
        JsonLines::new(std::io::stdout()).line(&json!({
            "event": "start",
            "command": "replay",
            "commit": COMMIT,
            "file": path.map(|path| path.display().to_string()),
            "expect": file.expect.to_string(),
            "plan": file.plan,
        }));
    } else {
        say(before(&file, path));
    }
    let log = args.trace.then(|| match args.json {
        true => trace_format::dispatch(std::io::stderr),
        false => trace_format::dispatch(std::io::stdout),
    });
    let report = run_twice(engine, &file.plan, log);
    let problem = file.expect.judge(report.violation.as_ref()).err();
    if args.json {
        let mut out = JsonLines::new(std::io::stdout());
        if report.violation.is_some() {
            out.line(&json::found(&found(&file, path, &report)));
        }
        out.line(&json!({
            "event": "end",
            "passed": problem.is_none(),
            "problem": problem,
            "digest": json::hex(report.digest),
            "virtual_seconds": report.virtual_ns as f64 / 1e9,
            "events": report.events,
            "calls": report.calls,
            "committed": report.committed,
            "faults": report.faults,
            "rare": report.rare,
        }));
    } else {
        say(after(&file, path, &report, problem.as_deref()));
    }
    if problem.is_some() && path.is_some() && file.commit != COMMIT {
        note(format_args!(
            "the file was written by the build of commit {}, this is {COMMIT}: where they differ, one plan \
             may come to another run",
            file.commit
        ));
    }
    Ok(problem.is_none())
}

fn before(file: &SeedFile, path: Option<&Path>) -> String {
    let mut text = String::new();
    if let Some(path) = path {
        text = format!("{}: {}\nexpected: {}\n", path.display(), file.found, file.expect);
    }
    let (scenario, seed) = (file.plan.scenario, file.plan.seed);
    text + &format!(
        "{scenario}, seed {seed}, commit {COMMIT}, plan:\n{}\n",
        table::plan(&file.plan)
    )
}

fn after(
    file: &SeedFile,
    path: Option<&Path>,
    report: &RunReport,
    problem: Option<&str>,
) -> String {
    let occurred = |counts: &crate::report::Counts| -> String {
        let some = counts.iter().filter(|(_, count)| **count > 0);
        some.map(|(name, count)| format!("\n  {:>9} {name}", grouped(*count))).collect()
    };
    let mut text = format!(
        "faults that struck:{}\nrare paths taken:{}\n",
        occurred(&report.faults),
        occurred(&report.rare)
    );
    if report.violation.is_some() {
        text.push_str(&format!("{}\n", table::found(&found(file, path, report))));
    }
    text.push_str(&format!(
        "{:.3} virtual s, {} events, {} calls, {} committed appends\n",
        report.virtual_ns as f64 / 1e9,
        grouped(report.events),
        grouped(report.calls),
        grouped(report.committed)
    ));
    text.push_str(&match problem {
        None if report.violation.is_some() => "as expected: the promise is broken\n".to_owned(),
        None => "no promise broken, in two runs that are the same event for event\n".to_owned(),
        Some(problem) => format!("NOT AS EXPECTED: {problem}\n"),
    });
    text + &format!("digest {}", json::hex(report.digest))
}

fn found(file: &SeedFile, path: Option<&Path>, report: &RunReport) -> Found {
    let mut found = Found::of(&file.plan, report.violation.clone());
    found.file = path.map(Path::to_owned);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::fake, oracle::Promise, seedfile::Expect};

    #[test]
    fn says_before_what_is_run_and_after_what_it_came_to() {
        let file = SeedFile::of(fake::plan(9), "a story");
        let path = Path::new("found/chaos-9.toml");
        let text = before(&file, Some(path));
        assert!(text.starts_with("found/chaos-9.toml: a story\nexpected: pass\n"), "{text}");
        assert!(text.contains("crash              node=1"), "{text}");

        let mut report = fake::report(9);
        let text = after(&file, Some(path), &report, None);
        assert!(text.contains("no promise broken"), "{text}");
        assert!(text.ends_with(&format!("digest {:016x}", report.digest)), "{text}");

        report.violation = Some(fake::violation());
        let problem = file.expect.judge(report.violation.as_ref()).err();
        let text = after(&file, Some(path), &report, problem.as_deref());
        assert!(text.contains("VIOLATION of durable"), "{text}");
        assert!(text.contains("NOT AS EXPECTED: no promise was to be broken"), "{text}");

        let file = SeedFile { expect: Expect::Violation(Promise::Durable), ..file };
        let text = after(&file, None, &report, None);
        assert!(text.contains("as expected: the promise is broken"), "{text}");
    }
}
