//! Seed files: one run, whole. A bare seed loses its meaning when a scenario changes; the plan in the file
//! does not, and a person can edit its schedule of faults.
//!
//! ```toml
//! version = 1
//! commit = "0123abc"            # of the build that wrote it
//! found = "what it was, in a line"
//! expect = "pass"               # what must happen now; or "violation", with promise = "durable"
//! [plan]                        # every knob
//! [[plan.faults]]               # every fault
//! ```

mod near;
pub mod validate;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::{
    oracle::{Promise, Violation},
    plan::Plan,
};
pub(crate) use near::near;

/// The version that this build reads and writes. It grows when an old file would mean something else.
pub const VERSION: u32 = 1;

/// The git commit of this build, or `unknown`.
pub const COMMIT: &str = env!("BUILD_COMMIT");

/// See the module's docs.
#[derive(Debug, Clone, PartialEq)]
pub struct SeedFile {
    /// The commit of the build that wrote it.
    pub commit: String,
    /// What it was: its story in a line.
    pub found: String,
    /// What must happen now.
    pub expect: Expect,
    /// The run.
    pub plan: Plan,
}

/// What must happen when a seed file is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// No promise is broken.
    Pass,
    /// This promise is broken: the file shows that the oracles see it.
    Violation(Promise),
}

impl Expect {
    /// Compares with what happened. The error is a sentence.
    pub fn judge(self, seen: Option<&Violation>) -> Result<(), String> {
        match (self, seen.map(|violation| violation.promise)) {
            (Expect::Pass, None) => Ok(()),
            (Expect::Violation(promise), Some(seen)) if promise == seen => Ok(()),
            (Expect::Pass, Some(seen)) => {
                Err(format!("no promise was to be broken, but {seen} was"))
            }
            (Expect::Violation(promise), None) => {
                Err(format!("{promise} was to be broken, but no promise was"))
            }
            (Expect::Violation(promise), Some(seen)) => {
                Err(format!("{promise} was to be broken, but {seen} was"))
            }
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expect::Pass => f.write_str("pass"),
            Expect::Violation(promise) => write!(f, "violation of {promise}"),
        }
    }
}

/// Why a text is no seed file of this build.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeedFileError {
    /// It is not TOML.
    #[error("not a seed file, since it is not TOML:\n{0}")]
    NotToml(String),
    /// It says no version.
    #[error("version is missing: a seed file begins with `version = {VERSION}`")]
    NoVersion,
    /// It is of another version.
    #[error(
        "version = {0}: this build reads version {VERSION}; replay the file with the build of its commit, \
         or make its plan anew with `cargo sim plan SEED`"
    )]
    OtherVersion(String),
    /// A key or a value is not what it must be.
    #[error("{0}")]
    Malformed(String),
    /// Values are out of range: a line each.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
    /// It cannot be written as TOML.
    #[error("the plan cannot be written as TOML: {0}")]
    Unwritable(String),
}

/// Why a seed file could not be read from or written to a path.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file system's reason.
    #[error("{}: {error}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// What is in it.
    #[error("{}: {error}", .path.display())]
    SeedFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: SeedFileError,
    },
}

/// How it stands in the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    version: u32,
    #[serde(default)]
    commit: String,
    #[serde(default)]
    found: String,
    expect: Word,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    promise: Option<Promise>,
    plan: Plan,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    Pass,
    Violation,
}

impl SeedFile {
    /// A file of a plan that must pass, by this build.
    pub fn of(plan: Plan, found: impl Into<String>) -> Self {
        SeedFile { commit: COMMIT.to_owned(), found: found.into(), expect: Expect::Pass, plan }
    }

    /// Its text.
    pub fn to_toml(&self) -> Result<String, SeedFileError> {
        let (expect, promise) = match self.expect {
            Expect::Pass => (Word::Pass, None),
            Expect::Violation(promise) => (Word::Violation, Some(promise)),
        };
        let (commit, found) = (self.commit.clone(), self.found.clone());
        let form =
            Form { version: VERSION, commit, found, expect, promise, plan: self.plan.clone() };
        toml::to_string(&form).map_err(|error| SeedFileError::Unwritable(error.to_string()))
    }

    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        let text = fs::read_to_string(path)
            .map_err(|error| FileError::Io { path: path.to_owned(), error })?;
        text.parse().map_err(|error| FileError::SeedFile { path: path.to_owned(), error })
    }

    /// Writes a file, and the directory that it is to lie in.
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        let text =
            self.to_toml().map_err(|error| FileError::SeedFile { path: path.to_owned(), error })?;
        path.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(path, text))
            .map_err(|error| FileError::Io { path: path.to_owned(), error })
    }
}

impl FromStr for SeedFile {
    type Err = SeedFileError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The version first: what another version says may be anything.
        #[derive(Deserialize)]
        struct Versioned {
            version: Option<toml::Value>,
        }
        let versioned: Versioned = toml::from_str(text)
            .map_err(|error| SeedFileError::NotToml(error.to_string().trim_end().to_owned()))?;
        let version = versioned.version.ok_or(SeedFileError::NoVersion)?;
        if version.as_integer() != Some(i64::from(VERSION)) {
            return Err(SeedFileError::OtherVersion(version.to_string()));
        }
        let form: Form = toml::from_str(text).map_err(|error| malformed(&error))?;
        let expect = match (form.expect, form.promise) {
            (Word::Pass, None) => Expect::Pass,
            (Word::Violation, Some(promise)) => Expect::Violation(promise),
            (Word::Pass, Some(_)) => {
                let text = "promise: goes with `expect = \"violation\"` only; take it away";
                return Err(SeedFileError::Malformed(text.to_owned()));
            }
            (Word::Violation, None) => {
                let text = "promise is missing: `expect = \"violation\"` needs the promise that \
                            must be broken, such as `promise = \"durable\"`";
                return Err(SeedFileError::Malformed(text.to_owned()));
            }
        };
        validate::validate(&form.plan).map_err(SeedFileError::Invalid)?;
        Ok(SeedFile { commit: form.commit, found: form.found, expect, plan: form.plan })
    }
}

/// The error with its line, and the near word if a word is unknown.
fn malformed(error: &toml::de::Error) -> SeedFileError {
    let mut text = error.to_string().trim_end().to_owned();
    // Words stand in backticks: first the unknown one, then those that would do.
    let mut words = error.message().split('`').skip(1).step_by(2);
    if error.message().starts_with("unknown ")
        && let Some(unknown) = words.next()
        && let Some(near) = near(unknown, words)
    {
        text.push_str(&format!("\ndid you mean `{near}`?"));
    }
    SeedFileError::Malformed(text)
}

#[cfg(test)]
pub(crate) mod tests;
