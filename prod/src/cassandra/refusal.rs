//! What Cassandra refuses, and will go on to refuse until somebody mends it: said aloud once, told by readiness while it lasts.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use scylla::errors::{DbError, ExecutionError};

use super::failure::answer;

/// A refusal is over when it was not repeated for so long: a node writes its sign of life more often.
const LASTS: Duration = Duration::from_secs(10);

/// The last refusal: what it was, and when it came last.
#[derive(Default)]
pub(super) struct Refusals(Mutex<Option<(String, Instant)>>);

impl Refusals {
    /// Notes a refusal. Whether it is news.
    pub(super) fn note(&self, why: &str) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.as_ref().is_some_and(|(known, at)| known == why && at.elapsed() < LASTS);
        *last = Some((why.to_owned(), Instant::now()));
        !known
    }

    /// What is refused now.
    pub(super) fn now(&self) -> Option<String> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|(_, at)| at.elapsed() < LASTS).map(|(why, _)| why.clone())
    }
}

/// What a refusal means, and the way out.
pub(super) fn explain(error: &ExecutionError, keyspace: &str) -> String {
    let said = error.to_string();
    match answer(error) {
        Some(DbError::Unauthorized) => {
            format!(
                "the user may not do that: GRANT SELECT, MODIFY on keyspace {keyspace} ({said})"
            )
        }
        // The guardrail `data_disk_usage_percentage_fail_threshold`, conf/cassandra.yaml of 4.1 and later.
        Some(DbError::Invalid) if said.contains("disk usage") => {
            format!("its disks are full: make room there, or add nodes ({said})")
        }
        _ => format!("{said}: `stormkeep doctor` says more"),
    }
}

#[cfg(test)]
mod tests {
    use scylla::errors::RequestAttemptError;

    use super::*;

    #[test]
    fn a_refusal_is_news_once() {
        let refusals = Refusals::default();
        assert_eq!(refusals.now(), None);
        assert!(refusals.note("no"));
        assert!(!refusals.note("no"));
        assert_eq!(refusals.now().as_deref(), Some("no"));
        assert!(refusals.note("another"));
        assert_eq!(refusals.now().as_deref(), Some("another"));
    }

    #[test]
    fn each_is_told_with_its_way_out() {
        let said = |error, text: &str| {
            let error = RequestAttemptError::DbError(error, text.into());
            explain(&ExecutionError::LastAttemptError(error), "games")
        };
        let denied = said(DbError::Unauthorized, "User x has no MODIFY permission");
        assert!(denied.contains("GRANT SELECT, MODIFY on keyspace games"), "{denied}");
        let full = said(DbError::Invalid, "Write request failed because disk usage exceeds …");
        assert!(full.contains("disks are full"), "{full}");
        let other = said(DbError::Invalid, "Unknown identifier");
        assert!(other.contains("Unknown identifier") && other.contains("doctor"), "{other}");
    }
}
