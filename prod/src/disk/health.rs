//! How the files of one machine are.

use std::sync::{Arc, Mutex};

use super::log::lock;

/// How they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum State {
    /// Well.
    #[default]
    Well,
    /// There is too little space: appends are refused, reads go on. Ends by itself when there is space.
    NearlyFull(String),
    /// Something failed or is damaged: it must be looked at, and the process started anew.
    Failed(String),
}

/// Shared by all that may find out.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<State>>);

impl Health {
    /// How they are now.
    pub fn state(&self) -> State {
        lock(&self.0).clone()
    }

    pub(super) fn is_nearly_full(&self) -> bool {
        matches!(*lock(&self.0), State::NearlyFull(_))
    }

    /// The first failure stays: what comes after it may be its consequence.
    pub(super) fn fail(&self, reason: String) {
        let mut state = lock(&self.0);
        if !matches!(*state, State::Failed(_)) {
            tracing::error!("{reason}");
            *state = State::Failed(reason);
        }
    }

    pub(super) fn nearly_full(&self, reason: String) {
        let mut state = lock(&self.0);
        if *state == State::Well {
            tracing::warn!("{reason}");
            *state = State::NearlyFull(reason);
        }
    }

    pub(super) fn recovered(&self) {
        let mut state = lock(&self.0);
        if matches!(*state, State::NearlyFull(_)) {
            tracing::info!("there is space on the disk again: appends are taken");
            *state = State::Well;
        }
    }
}
