//! Scenarios: from a seed to a plan. Each is a sentence.

mod chaos;
mod deliver;
mod draw;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::plan::Plan;

/// See the module's docs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Anything may go wrong: a random subset of all faults, at random strength, over a random cluster.
    Chaos,
    /// The crowd comes, up to 20 times the usual load within minutes, and a few things go wrong.
    LaunchDay,
    /// Shards split and merge under load while nodes crash and the log misplaces puts.
    Reshard,
    /// Nothing goes wrong: what the others are compared with.
    Calm,
}

impl Scenario {
    /// All of them.
    pub const ALL: &[Scenario] =
        &[Scenario::Chaos, Scenario::LaunchDay, Scenario::Reshard, Scenario::Calm];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Chaos => "chaos",
            Scenario::LaunchDay => "launch-day",
            Scenario::Reshard => "reshard",
            Scenario::Calm => "calm",
        }
    }

    /// Its sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Scenario::Chaos => {
                "anything may go wrong: a random subset of all faults, over a random cluster"
            }
            Scenario::LaunchDay => "the crowd comes, up to 20 times the usual load within minutes",
            Scenario::Reshard => "shards split and merge under load while nodes crash",
            Scenario::Calm => "nothing goes wrong",
        }
    }

    /// The plan of a seed. The same for ever, for the same version of this crate.
    pub fn plan(self, seed: u64) -> Plan {
        match self {
            Scenario::Chaos => chaos::chaos(seed),
            Scenario::LaunchDay => chaos::launch_day(seed),
            Scenario::Reshard => chaos::reshard(seed),
            Scenario::Calm => chaos::calm(seed),
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Scenario::ALL.iter().copied().find(|s| s.name() == text).ok_or_else(|| {
            let names: Vec<_> = Scenario::ALL.iter().map(|s| s.name()).collect();
            format!("{text:?} is no scenario; there are: {}", names.join(", "))
        })
    }
}
