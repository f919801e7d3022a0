//! Why a batch has no outcome by event, what the core makes of it, and how it is mended.
//!
//! The line that matters is whether an event may be to blame. If it may, the batch comes again in halves, until an event that
//! fails alone is parked. What is between here and the handler fails all events alike: then the batch comes again whole, later,
//! and counts against none of them, or an hour without permission would park all that was appended in it. Whether anything was
//! handled is not always known then, and need not be: events come at least once.

use std::time::Duration;

use stormkeep_core::env::DeliverError;

/// The longest wait that is taken from a header `Retry-After`: whoever says more is asked again nevertheless.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What the core makes of a trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// *busy*: fewer at a time, later.
    Busy,
    /// What is between here and the handler is not well: later, whole.
    Unreached,
    /// *unknown*, and an event may be to blame: in halves.
    Failed,
    /// The same, and nothing was answered.
    Silent,
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $name:ident = $class:ident $label:literal $fix:literal,)+) => {
        /// The kinds of trouble.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind { $($(#[doc = $doc])+ $name,)+ }

        impl Kind {
            /// All of them.
            pub const ALL: &[Kind] = &[$(Kind::$name,)+];

            /// Its name in metrics.
            pub fn label(self) -> &'static str {
                match self { $(Kind::$name => $label,)+ }
            }

            /// What to do about it.
            pub fn fix(self) -> &'static str {
                match self { $(Kind::$name => $fix,)+ }
            }

            fn class(self) -> Class {
                match self { $(Kind::$name => Class::$class,)+ }
            }
        }
    };
}

kinds! {
    /// The function's reserved concurrency is used up.
    Reserved = Busy "reserved-concurrency"
        "raise the function's reserved concurrency, or lower the group's push.concurrency; with a reserve of 0 the function is switched off",
    /// The account's concurrency is used up.
    Concurrency = Busy "account-concurrency"
        "the concurrent executions of the account are used up in this region: have the quota raised, or reserve some of it for this function",
    /// Calls a second are used up.
    Rate = Busy "rate"
        "Lambda is called too often: send larger batches (push.batch_events_max, push.batch_wait_ms), or have the quota raised",
    /// Environments of the function cannot be made as fast as they are asked for, or not yet.
    Starting = Busy "starting"
        "none if it passes; else look at the function's state, and the free addresses and network interfaces of its subnets",
    /// The handler says that it is busy.
    Busy = Busy "busy"
        "give the handler more room, or lower the group's push.concurrency",
    /// There is no such function.
    Missing = Unreached "missing"
        "create the function, or give the group the ARN of one that is there; lambda.region says where a plain name is looked for",
    /// The credentials do not allow the call.
    Denied = Unreached "denied"
        "allow lambda:InvokeFunction on the function in the IAM policy of this process's role",
    /// There are no credentials, or they are expired or unknown.
    Credentials = Unreached "credentials"
        "give this process credentials (environment, lambda.profile or the machine's role), or renew them; they are read anew by themselves",
    /// The clock of this machine is wrong, so that its signatures are not taken.
    Clock = Unreached "clock"
        "set the clock of this machine: run an NTP client",
    /// A setting of this process or of the group makes no sense.
    Settings = Unreached "settings"
        "set it right: stormkeep subscription update, or the configuration file",
    /// The function cannot be started for a reason of its own settings.
    Function = Unreached "function-settings"
        "mend the function's own settings (key, network, file system, runtime): the text says which",
    /// The service has an error of its own.
    Service = Unreached "service"
        "none if it passes; else look at the service's health",
    /// No connection.
    Unreachable = Unreached "unreachable"
        "check that the handler runs, and the network, name and port to it; for Lambda in a VPC an endpoint for lambda",
    /// It is elsewhere, it says.
    Redirected = Unreached "redirected"
        "redirects are not followed: give the group the address that it leads to",
    /// The request is not taken as it is.
    Refused = Failed "refused"
        "look at the event that is parked, and at the group's push.batch_bytes_max",
    /// The function ended with an error.
    FunctionError = Failed "function-error"
        "look at the function's log; the event that it is about is parked when it fails alone",
    /// The handler answered with a status that is no success.
    Status = Failed "status"
        "look at the handler's log; the event that it is about is parked when it fails alone",
    /// The answer makes no sense.
    Nonsense = Failed "nonsense"
        "answer nothing, or batchItemFailures with the positions of what failed: docs/HANDLERS.md",
    /// The connection broke while the request was under way.
    Broken = Failed "broken"
        "none if it passes; else look at the handler's log, and at what closes connections between here and it",
    /// No answer in time.
    Silent = Silent "timed-out"
        "raise the group's message_timeout_ms above the handler's own time limit, or send smaller batches",
}

impl Kind {
    /// Whether it lasts until somebody mends it.
    pub fn is_lasting(self) -> bool {
        self.class() == Class::Unreached && self != Kind::Service
    }
}

/// What went wrong with one batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(super) struct Trouble {
    pub(super) kind: Kind,
    /// The words of whoever said so.
    pub(super) what: String,
    /// When to try again, if that was said.
    pub(super) retry_after: Option<Duration>,
}

impl Trouble {
    pub(super) fn new(kind: Kind, what: impl Into<String>) -> Self {
        Trouble { kind, what: what.into(), retry_after: None }
    }

    /// Whoever said it wants to be left in peace for so long.
    pub(super) fn after(self, retry_after: Option<Duration>) -> Self {
        Trouble { retry_after: retry_after.map(|wait| wait.min(RETRY_AFTER_MAX)), ..self }
    }
}

impl From<Trouble> for DeliverError {
    fn from(trouble: Trouble) -> Self {
        let Trouble { kind, what, retry_after } = trouble;
        match kind.class() {
            Class::Busy => DeliverError::Throttled { retry_after },
            Class::Unreached => DeliverError::Unreachable(format!("{what}: {}", kind.fix())),
            Class::Failed => DeliverError::Failed(what),
            Class::Silent => DeliverError::TimedOut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_of_its_class() {
        let error = |kind| DeliverError::from(Trouble::new(kind, "words"));
        for kind in [Kind::Reserved, Kind::Concurrency, Kind::Rate, Kind::Starting, Kind::Busy] {
            assert_eq!(error(kind), DeliverError::Throttled { retry_after: None });
        }
        for kind in [Kind::Missing, Kind::Denied, Kind::Credentials, Kind::Clock, Kind::Service] {
            assert_eq!(error(kind), DeliverError::Unreachable(format!("words: {}", kind.fix())));
        }
        for kind in [Kind::Refused, Kind::FunctionError, Kind::Status, Kind::Nonsense, Kind::Broken]
        {
            assert_eq!(error(kind), DeliverError::Failed("words".into()));
        }
        assert_eq!(error(Kind::Silent), DeliverError::TimedOut);
        let soon = Some(Duration::from_secs(7));
        let busy = Trouble::new(Kind::Busy, "words").after(soon);
        assert_eq!(DeliverError::from(busy), DeliverError::Throttled { retry_after: soon });
        assert!(Kind::Denied.is_lasting() && !Kind::Service.is_lasting());
    }
}
