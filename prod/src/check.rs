//! One thing that `stormkeep doctor` looked at.

/// What was looked at, what was found, and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found.
    pub what: String,
    /// The way out, if it is not.
    pub fix: Option<String>,
}

impl Check {
    pub(crate) fn good(name: &'static str, what: impl Into<String>) -> Self {
        Check { name, ok: true, what: what.into(), fix: None }
    }

    pub(crate) fn bad(name: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Check { name, ok: false, what: what.into(), fix: Some(fix.into()) }
    }
}
