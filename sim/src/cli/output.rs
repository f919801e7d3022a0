//! What `chaos` tells while it runs: to a terminal, to a machine, or to nobody.

use std::{path::PathBuf, time::Duration};

use super::{
    chaos::{ChaosOptions, ChaosSummary},
    table::{self, Totals},
};
use crate::{oracle::Violation, plan::Plan, plant::Plant, scenario::Scenario};

/// A listener of a chaos run. All calls come from the thread that called `chaos`.
pub trait Output {
    /// Before the first run.
    fn start(&mut self, _options: &ChaosOptions) {}
    /// Now and then.
    fn progress(&mut self, _now: &Progress<'_>) {}
    /// A promise was broken, or a file of the corpus did not do what it must: at once.
    fn found(&mut self, _found: &Found) {}
    /// After the last run.
    fn end(&mut self, _summary: &ChaosSummary) {}
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Output for Silent {}

/// How far a chaos run is.
#[derive(Debug)]
pub struct Progress<'a> {
    /// The options.
    pub options: &'a ChaosOptions,
    /// Since the start.
    pub elapsed: Duration,
    /// Of the seeds that are done.
    pub totals: &'a Totals,
    /// The seeds whose runs are under way.
    pub running: Vec<u64>,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// The scenario.
    pub scenario: Scenario,
    /// The planted fault.
    pub plant: Plant,
    /// The broken promise; `None`: a file of the corpus expects a violation, and none was seen.
    pub violation: Option<Violation>,
    /// The file of the corpus, and how it differs from what it expects; `None`: a seed of this run.
    pub corpus: Option<(PathBuf, String)>,
    /// The seed file: of the corpus, or the one that was written.
    pub file: Option<PathBuf>,
    /// Why none was written, though it should have been.
    pub unwritten: Option<String>,
}

impl Found {
    /// What was found in a run of a plan.
    pub fn of(plan: &Plan, violation: Option<Violation>) -> Self {
        Found {
            seed: plan.seed,
            scenario: plan.scenario,
            plant: plan.plant,
            violation,
            corpus: None,
            file: None,
            unwritten: None,
        }
    }

    /// What the run is called in one word: the name of its seed file, without its end.
    pub fn name(&self) -> String {
        match self.plant {
            Plant::None => format!("{}-{}", self.scenario, self.seed),
            plant => format!("{}-{plant}-{}", self.scenario, self.seed),
        }
    }

    /// The command that runs it again.
    pub fn reproduce(&self) -> String {
        if let Some(file) = &self.file {
            return format!("cargo sim replay {}", file.display());
        }
        let options = table::differing(self.scenario, self.plant);
        format!("cargo sim replay {}{options}", self.seed)
    }
}
