//! Shrink: the same broken promise with fewer faults, in less time, by fewer clients and nodes. What is
//! left is what a person has to understand.

use std::path::{Path, PathBuf};

use super::{
    BadInput, Well,
    args::ShrinkArgs,
    engine::{Engine, run_twice},
    note, say,
};
use crate::{
    oracle::{Promise, Violation},
    plan::Plan,
    run::Options,
    seedfile::{SeedFile, validate::validate},
};

pub(super) fn command(args: &ShrinkArgs, engine: &dyn Engine) -> Result<Well, BadInput> {
    let mut file = SeedFile::load(&args.file)?;
    let out = args.out.clone().unwrap_or_else(|| beside(&args.file));
    note(format_args!("runs the plan of {} first: {}", args.file.display(), size(&file.plan)));
    let Some(violation) = broken(engine, &file.plan, true) else {
        let file = args.file.display();
        return Err(BadInput(format!("{file}: its run breaks no promise; nothing to shrink")));
    };
    let before = size(&file.plan);
    let mut shrinker = Shrinker {
        engine,
        promise: violation.promise,
        plan: file.plan,
        runs: 1,
        told: &mut |plan, runs| note(format_args!("after {runs:>4} runs: {}", size(plan))),
    };
    shrinker.shrink();
    let (plan, runs) = (shrinker.plan, shrinker.runs);
    say(format_args!("{} is still broken after {runs} runs", violation.promise));
    say(format_args!("  before  {before}\n  now     {}", size(&plan)));
    file.plan = plan;
    file.found = format!("{} (shrunk from {before})", file.found);
    file.save(&out)?;
    say(format_args!("cargo sim replay {} --trace", out.display()));
    Ok(true)
}

fn beside(file: &Path) -> PathBuf {
    file.with_extension("small.toml")
}

fn size(plan: &Plan) -> String {
    let count = |n: u64, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    format!(
        "{}, {} ms, {}, {}",
        count(plan.faults.len() as u64, "fault"),
        plan.chaos_ms,
        count(u64::from(plan.workload.clients), "client"),
        count(u64::from(plan.nodes), "node")
    )
}

/// The promise that a plan's run breaks. Whether it is repeatable is asked only where that matters.
fn broken(engine: &dyn Engine, plan: &Plan, twice: bool) -> Option<Violation> {
    match twice {
        true => run_twice(engine, plan, None).violation,
        false => engine.run(plan, &Options::default()).violation,
    }
}

/// Tries smaller plans, and keeps each that breaks the same promise.
struct Shrinker<'a> {
    engine: &'a dyn Engine,
    promise: Promise,
    plan: Plan,
    runs: u64,
    /// Told of each smaller plan, and of the runs so far.
    told: &'a mut dyn FnMut(&Plan, u64),
}

impl Shrinker<'_> {
    fn shrink(&mut self) {
        loop {
            let before = self.plan.clone();
            self.fewer_faults();
            self.lower(
                100,
                |plan| plan.chaos_ms,
                |plan, ms| {
                    plan.chaos_ms = ms;
                    plan.faults.retain(|fault| fault.at_ms <= ms);
                },
            );
            self.lower(
                1,
                |plan| u64::from(plan.workload.clients),
                |plan, clients| {
                    plan.workload.clients = clients as u32;
                },
            );
            self.lower(1, |plan| u64::from(plan.nodes), |plan, nodes| plan.nodes = nodes as u32);
            // What is smaller in one way may be made smaller in another; if not, this is all.
            if self.plan == before {
                return;
            }
        }
    }

    /// Delta debugging: takes away halves, then quarters, down to single faults, until none can go.
    fn fewer_faults(&mut self) {
        let mut piece = self.plan.faults.len();
        while piece > 0 {
            let (mut start, mut removed) = (0, false);
            while start < self.plan.faults.len() {
                let mut smaller = self.plan.clone();
                let end = (start + piece).min(smaller.faults.len());
                smaller.faults.drain(start..end);
                if self.keep_if_broken(smaller) {
                    removed = true;
                } else {
                    start = end;
                }
            }
            // One fault may have been needed only by one that went after it.
            if piece > 1 || !removed {
                piece /= 2;
            }
        }
    }

    /// The lowest number that will do, to within `grain`, by halving. From 1 upwards.
    fn lower(&mut self, grain: u64, get: impl Fn(&Plan) -> u64, set: impl Fn(&mut Plan, u64)) {
        let mut too_low = 0;
        while get(&self.plan).saturating_sub(too_low) > grain {
            let middle = too_low + (get(&self.plan) - too_low) / 2;
            let mut smaller = self.plan.clone();
            set(&mut smaller, middle.max(1));
            if smaller == self.plan || !self.keep_if_broken(smaller) {
                too_low = middle.max(1);
            }
        }
    }

    /// Runs a plan; keeps it if it is valid and breaks the promise.
    fn keep_if_broken(&mut self, plan: Plan) -> bool {
        // A fault may name a node that is no more.
        if validate(&plan).is_err() {
            return false;
        }
        self.runs += 1;
        let seen = broken(self.engine, &plan, self.promise == Promise::Repeatable);
        let keep = seen.is_some_and(|violation| violation.promise == self.promise);
        if keep {
            self.plan = plan;
            (self.told)(&self.plan, self.runs);
        }
        keep
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::fake::{self, Fake},
        fault::{Fault, What},
    };

    fn crash(at_ms: u64, node: u32) -> Fault {
        Fault { at_ms, for_ms: 10, what: What::Crash { node } }
    }

    fn shrunk(plan: Plan, broken: impl Fn(&Plan) -> bool + Sync) -> (Plan, u64) {
        let engine = Fake(broken);
        let mut sizes = Vec::new();
        let mut told = |plan: &Plan, _| sizes.push((plan.faults.len(), plan.chaos_ms));
        let mut shrinker =
            Shrinker { engine: &engine, promise: Promise::Durable, plan, runs: 0, told: &mut told };
        shrinker.shrink();
        let (plan, runs) = (shrinker.plan, shrinker.runs);
        assert!(sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
        (plan, runs)
    }

    #[test]
    fn leaves_the_faults_that_matter_and_no_more_of_anything() {
        let mut plan = fake::plan(1);
        plan.faults = (0..40).map(|n| crash(1000 + n * 1000, (n % 5) as u32)).collect();
        let matters = [crash(8000, 2), crash(31_000, 0)];
        let broken = |plan: &Plan| {
            matters.iter().all(|fault| plan.faults.contains(fault))
                && plan.chaos_ms >= 40_000
                && plan.workload.clients >= 3
        };
        let (small, runs) = shrunk(plan, broken);
        assert_eq!(small.faults, matters);
        assert!((40_000..=40_100).contains(&small.chaos_ms), "{}", small.chaos_ms);
        assert_eq!(small.workload.clients, 3);
        // Crashed node 2 is there still.
        assert_eq!(small.nodes, 3);
        assert!(runs < 100, "{runs}");
    }

    #[test]
    fn a_fault_that_another_one_needed_goes_as_well() {
        let mut plan = fake::plan(1);
        plan.faults = vec![crash(1, 0), crash(2, 1), crash(3, 2)];
        // The first can go only when the second has gone.
        let broken = |plan: &Plan| {
            let has = |ms| plan.faults.iter().any(|fault| fault.at_ms == ms);
            has(3) && (has(1) || !has(2))
        };
        assert_eq!(shrunk(plan, broken).0.faults, [crash(3, 2)]);
    }

    #[test]
    fn what_cannot_be_smaller_stays() {
        let plan = fake::plan(1);
        let same = plan.clone();
        assert_eq!(shrunk(plan.clone(), |plan| *plan == same).0, plan);
        let (least, _) = shrunk(plan, |_| true);
        assert_eq!((least.faults.len(), least.nodes, least.workload.clients), (0, 1, 1));
        assert!(least.chaos_ms <= 100);
    }

    #[test]
    fn the_command_writes_the_smaller_file_beside_the_first() {
        let dir = std::env::temp_dir().join(format!("stormkeep-shrink-{}", std::process::id()));
        let path = dir.join("chaos-1.toml");
        SeedFile::of(fake::plan(1), "a story").save(&path).unwrap();
        let args = ShrinkArgs { file: path, out: None };
        let broken = Fake(|plan: &Plan| plan.faults.iter().any(|f| f.what.kind() == "crash"));
        assert!(command(&args, &broken).unwrap());
        let small = SeedFile::load(&dir.join("chaos-1.small.toml")).unwrap();
        assert_eq!(small.plan.faults.len(), 1);
        assert_eq!(small.found, "a story (shrunk from 5 faults, 60000 ms, 8 clients, 5 nodes)");
        let whole = Fake(|_: &Plan| false);
        let error = command(&args, &whole).unwrap_err().to_string();
        assert!(error.contains("breaks no promise"), "{error}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
