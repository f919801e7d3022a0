//! What does not work now, for the server's readiness: the last trouble of each action, until the action works again. Trouble that
//! may pass by itself is over, too, when it did not come again for a while: a node that gave its shards away does not try again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{debug, error, info};

use super::trouble::{Kind, Trouble};

/// Trouble that may pass by itself is over when it was not repeated for so long: a node lists the shards more often.
const LASTS: Duration = Duration::from_secs(10);

/// An action of the service that does not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ailment {
    /// The action, by the service's name, as in an IAM policy.
    pub action: &'static str,
    /// Of what kind the trouble is.
    pub kind: Kind,
    /// The service's words.
    pub what: String,
}

impl Ailment {
    /// What to do about it.
    pub fn fix(&self) -> &'static str {
        self.kind.fix()
    }
}

/// An ailment, and when it came last.
type Noted = (Ailment, Instant);

/// Shared by all that may find out.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, Noted>>>);

impl Health {
    /// What does not work now: what lasts until it is mended comes first. Empty: all is well, as far as was tried.
    pub fn ailments(&self) -> Vec<Ailment> {
        let mut ailments: Vec<Ailment> =
            self.all().values().map(|(ailment, _)| ailment.clone()).collect();
        ailments.sort_by_key(|ailment| !ailment.kind.is_lasting());
        ailments
    }

    /// An action worked.
    pub(super) fn works(&self, action: &'static str) {
        if let Some((was, _)) = self.all().remove(action) {
            info!(action, was = ?was.kind, "the log service works again");
        }
    }

    /// An action did not work. A limit that is reached, and what readers mend themselves, is no ailment.
    pub(super) fn ails(&self, action: &'static str, trouble: &Trouble) {
        let Trouble { kind, what } = trouble;
        let passes = matches!(
            kind,
            Kind::Throttled | Kind::Limit | Kind::Early | Kind::Expired | Kind::InUse
        );
        if passes {
            return debug!(action, ?kind, what, "the log service is busy");
        }
        let ailment = Ailment { action, kind: *kind, what: what.clone() };
        let before = self.all().insert(action, (ailment, Instant::now()));
        // Once, and not with every try.
        if before.is_none_or(|(before, _)| before.kind != *kind) {
            error!(action, what, fix = kind.fix(), "the log service does not do what it should");
        }
    }

    /// What does not work now.
    fn all(&self) -> MutexGuard<'_, BTreeMap<&'static str, Noted>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (ailment, last)| stands(ailment.kind, last.elapsed()));
        all
    }
}

/// Whether trouble of this kind still counts, so long after it came last.
fn stands(kind: Kind, since: Duration) -> bool {
    kind.is_lasting() || since < LASTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ailment_stays_until_its_action_works() {
        let health = Health::default();
        health.ails("GetRecords", &Trouble::new(Kind::Silent, "no answer"));
        health.ails("PutRecord", &Trouble::new(Kind::Denied, "not allowed"));
        health.ails("ListShards", &Trouble::new(Kind::Throttled, "too fast"));
        let kinds = |health: &Health| -> Vec<_> {
            health.ailments().iter().map(|ailment| (ailment.action, ailment.kind)).collect()
        };
        assert_eq!(kinds(&health), [("PutRecord", Kind::Denied), ("GetRecords", Kind::Silent)]);
        health.works("GetRecords");
        assert_eq!(kinds(&health), [("PutRecord", Kind::Denied)]);
        health.works("PutRecord");
        assert_eq!(kinds(&health), []);
    }

    #[test]
    fn what_may_pass_is_over_when_it_was_not_repeated() {
        let moment = LASTS - Duration::from_millis(1);
        assert!(stands(Kind::Silent, moment) && stands(Kind::Unreachable, moment));
        assert!(!stands(Kind::Silent, LASTS) && !stands(Kind::Unreachable, LASTS));
        assert!(stands(Kind::Denied, LASTS * 1000), "until somebody mends it");
    }
}
