//! What was pushed, how it ended, and which groups' handlers ail now.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use stormkeep_core::group::{GROUPS_MAX, GroupId};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::trouble::{Kind, Trouble};
use crate::metrics::{head, line};

/// What has not been seen for so long ails no more: its group is gone, or is pushed by another process.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// What carries a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    /// Lambda.
    Lambda,
    /// HTTP POST.
    Webhook,
}

impl Via {
    const ALL: [Via; 2] = [Via::Lambda, Via::Webhook];

    /// Its name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Via::Lambda => "lambda",
            Via::Webhook => "webhook",
        }
    }
}

/// How a push ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All events are handled.
    Handled,
    /// The handler named events that are not.
    Partial,
    /// The core waited no longer, or gave the shard away.
    Abandoned,
    /// There is no outcome by event.
    Trouble(Kind),
}

impl Outcome {
    const COUNT: usize = 3 + Kind::ALL.len();

    fn all() -> impl Iterator<Item = Outcome> {
        let troubles = Kind::ALL.iter().map(|kind| Outcome::Trouble(*kind));
        [Outcome::Handled, Outcome::Partial, Outcome::Abandoned].into_iter().chain(troubles)
    }

    fn index(self) -> usize {
        match self {
            Outcome::Handled => 0,
            Outcome::Partial => 1,
            Outcome::Abandoned => 2,
            Outcome::Trouble(kind) => 3 + kind as usize,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Outcome::Handled => "handled",
            Outcome::Partial => "partial",
            Outcome::Abandoned => "abandoned",
            Outcome::Trouble(kind) => kind.label(),
        }
    }
}

/// A group whose handler did not handle the last batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ailment {
    /// The group.
    pub group: GroupId,
    /// What carries its events.
    pub via: Via,
    /// Of what kind the trouble is.
    pub kind: Kind,
    /// The words of whoever said so.
    pub what: String,
    /// When it was last seen.
    pub seen: Instant,
}

#[derive(Debug)]
struct Sent {
    pushes: [AtomicU64; Outcome::COUNT],
    events: AtomicU64,
    bytes: AtomicU64,
    under_way: AtomicU64,
    took_us: AtomicU64,
}

impl Default for Sent {
    fn default() -> Self {
        Sent {
            pushes: std::array::from_fn(|_| AtomicU64::new(0)),
            events: AtomicU64::default(),
            bytes: AtomicU64::default(),
            under_way: AtomicU64::default(),
            took_us: AtomicU64::default(),
        }
    }
}

/// See the module's docs.
#[derive(Debug, Default)]
pub struct Counts {
    sent: [Sent; 2],
    ailing: Mutex<BTreeMap<GroupId, Ailment>>,
}

/// A push that is under way. One that is dropped was abandoned.
pub(super) struct Attempt<'a> {
    sent: &'a Sent,
    began: Instant,
    outcome: Outcome,
}

impl Attempt<'_> {
    pub(super) fn sends(&self, events: usize, bytes: usize) {
        self.sent.events.fetch_add(events as u64, Ordering::Relaxed);
        self.sent.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn ended(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.sent.under_way.fetch_sub(1, Ordering::Relaxed);
        self.sent.pushes[self.outcome.index()].fetch_add(1, Ordering::Relaxed);
        let took_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.sent.took_us.fetch_add(took_us, Ordering::Relaxed);
    }
}

impl Counts {
    /// Pushes that ended so.
    pub fn pushes(&self, via: Via, outcome: Outcome) -> u64 {
        self.sent[via as usize].pushes[outcome.index()].load(Ordering::Relaxed)
    }

    /// The groups whose handlers did not handle their last batches.
    pub fn ailments(&self) -> Vec<Ailment> {
        let mut ailing = self.ailing();
        ailing.retain(|_, ailment| ailment.seen.elapsed() < FORGOTTEN_AFTER);
        ailing.values().cloned().collect()
    }

    pub(super) fn begin(&self, via: Via) -> Attempt<'_> {
        let sent = &self.sent[via as usize];
        sent.under_way.fetch_add(1, Ordering::Relaxed);
        Attempt { sent, began: Instant::now(), outcome: Outcome::Abandoned }
    }

    /// The handler of a group answered by event.
    pub(super) fn works(&self, group: &GroupId) {
        if let Some(was) = self.ailing().remove(group) {
            info!(%group, was = was.kind.label(), "the handler works again");
        }
    }

    /// It did not. Once it is told loudly, and then with every try of the core.
    pub(super) fn ails(&self, group: &GroupId, via: Via, trouble: &Trouble) {
        let Trouble { kind, what, .. } = trouble;
        let ailment = Ailment {
            group: group.clone(),
            via,
            kind: *kind,
            what: what.clone(),
            seen: Instant::now(),
        };
        let before = {
            let mut ailing = self.ailing();
            if ailing.len() >= GROUPS_MAX && !ailing.contains_key(group) {
                ailing.pop_first();
            }
            ailing.insert(group.clone(), ailment)
        };
        let (via, kind_label, fix) = (via.label(), kind.label(), kind.fix());
        if before.is_some_and(|before| before.kind == *kind) {
            debug!(%group, via, kind = kind_label, what, "the handler does not handle events");
        } else if kind.is_lasting() {
            error!(%group, via, kind = kind_label, what, fix, "the handler cannot be reached");
        } else {
            warn!(%group, via, kind = kind_label, what, fix, "the handler does not handle events");
        }
    }

    /// Everything, in the text format of Prometheus 0.0.4.
    pub fn render(&self, text: &mut String) {
        let name = "stormkeep_pushes_total";
        head(text, name, "counter", "batches pushed to handlers, by how they ended");
        for via in Via::ALL {
            for outcome in Outcome::all() {
                let labels = format!("target=\"{}\",outcome=\"{}\"", via.label(), outcome.label());
                line(text, name, &format!("{{{labels}}}"), self.pushes(via, outcome) as f64);
            }
        }
        type Figure = (&'static str, &'static str, &'static str, fn(&Sent) -> &AtomicU64, f64);
        let figures: [Figure; 4] = [
            ("stormkeep_push_events_total", "counter", "events pushed", |sent| &sent.events, 1.0),
            ("stormkeep_push_bytes_total", "counter", "bytes pushed", |sent| &sent.bytes, 1.0),
            (
                "stormkeep_push_seconds_total",
                "counter",
                "time that pushes took together",
                |sent| &sent.took_us,
                1e6,
            ),
            ("stormkeep_push_under_way", "gauge", "pushes under way", |sent| &sent.under_way, 1.0),
        ];
        for (name, kind, help, figure, unit) in figures {
            head(text, name, kind, help);
            for via in Via::ALL {
                let value = figure(&self.sent[via as usize]).load(Ordering::Relaxed) as f64 / unit;
                line(text, name, &format!("{{target=\"{}\"}}", via.label()), value);
            }
        }
        let name = "stormkeep_push_ailing";
        let help = "1 for each group whose handler did not handle its last batch, and why";
        head(text, name, "gauge", help);
        for ailment in self.ailments() {
            let group = escaped(&ailment.group.to_string());
            let (via, kind) = (ailment.via.label(), ailment.kind.label());
            let labels = format!("{{group=\"{group}\",target=\"{via}\",why=\"{kind}\"}}");
            line(text, name, &labels, 1.0);
        }
    }

    fn ailing(&self) -> MutexGuard<'_, BTreeMap<GroupId, Ailment>> {
        self.ailing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A label's value, as Prometheus wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::{super::payload::tests::group, *};

    #[test]
    fn every_outcome_has_a_series_of_its_own() {
        let labels: std::collections::BTreeSet<_> = Outcome::all().map(Outcome::label).collect();
        let indices: std::collections::BTreeSet<_> = Outcome::all().map(Outcome::index).collect();
        assert_eq!((labels.len(), indices.len()), (Outcome::COUNT, Outcome::COUNT));
        assert_eq!(indices.last(), Some(&(Outcome::COUNT - 1)));
    }

    #[tokio::test]
    async fn what_is_dropped_was_abandoned_and_an_ailment_stays_until_it_works() {
        let counts = Counts::default();
        drop(counts.begin(Via::Lambda));
        let mut attempt = counts.begin(Via::Webhook);
        attempt.sends(3, 100);
        attempt.ended(Outcome::Trouble(Kind::Denied));
        drop(attempt);
        counts.ails(&group(), Via::Webhook, &Trouble::new(Kind::Denied, "not allowed"));
        let mut text = String::new();
        counts.render(&mut text);
        for line in [
            "stormkeep_pushes_total{target=\"lambda\",outcome=\"abandoned\"} 1",
            "stormkeep_pushes_total{target=\"webhook\",outcome=\"denied\"} 1",
            "stormkeep_pushes_total{target=\"webhook\",outcome=\"handled\"} 0",
            "stormkeep_push_events_total{target=\"webhook\"} 3",
            "stormkeep_push_under_way{target=\"webhook\"} 0",
            "stormkeep_push_ailing{group=\"$ce-player::scores\",target=\"webhook\",why=\"denied\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert_eq!(counts.ailments()[0].what, "not allowed");
        counts.works(&group());
        assert_eq!(counts.ailments(), []);
    }

    #[test]
    fn a_label_cannot_end_its_line() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
