//! Why a call about a group has failed, as the clients know it: by the trailers `exception`, `stream-name`, `group-name` and
//! `reason`.
//!
//! Sources: the names and codes are those that the Node client (1.3.1) and the Rust client (1.2.0) look at; the Python client (1.3.5)
//! looks at codes, and at how the message of a full group begins.

use stormkeep_core::{consume::ManageError, group::GroupId};
use tonic::{Code, Status, metadata::MetadataMap};

use crate::{
    api::grpc::trouble::{Trouble, ascii},
    consumer::Ended,
};

/// See the module's docs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Of no group in particular.
    Other(Trouble),
    /// A group of this name is there.
    Exists,
    /// There is no such group, or none any more.
    DoesNotExist,
    /// As many consumers as may be are there.
    Full,
    /// The consumer asked to stop.
    Dropped,
    /// It cannot be done.
    Failed(String),
}

impl Refusal {
    /// The status of a call about this group.
    pub(super) fn status(self, id: &GroupId) -> Status {
        let (source, name) = (id.source.to_string(), &*id.name);
        let group = format!("Subscription group {name} on stream {source}");
        let (code, exception, message) = match &self {
            Refusal::Other(trouble) => return trouble.status("", &source),
            Refusal::Exists => {
                (Code::AlreadyExists, "persistent-subscription-exists", format!("{group} exists."))
            }
            Refusal::DoesNotExist => (
                Code::NotFound,
                "persistent-subscription-does-not-exist",
                format!("{group} does not exist."),
            ),
            Refusal::Full => (
                Code::FailedPrecondition,
                "maximum-subscribers-reached",
                format!(
                    "Maximum subscriptions reached for subscription group {name} on stream {source}."
                ),
            ),
            Refusal::Dropped => (
                Code::Cancelled,
                "persistent-subscription-dropped",
                format!("{group} was dropped."),
            ),
            Refusal::Failed(reason) => (
                Code::Internal,
                "persistent-subscription-failed",
                format!("{group} failed: '{reason}'"),
            ),
        };
        let mut trailers = MetadataMap::new();
        let mut add = |name: &'static str, value: &str| trailers.insert(name, ascii(value));
        add("exception", exception);
        add("stream-name", &source);
        add("group-name", name);
        if let Refusal::Failed(reason) = &self {
            add("reason", reason);
        }
        Status::with_metadata(code, message, trailers)
    }
}

impl From<ManageError> for Refusal {
    fn from(error: ManageError) -> Self {
        match error {
            ManageError::Exists(_) => Refusal::Exists,
            ManageError::NoSuchGroup(_) => Refusal::DoesNotExist,
            ManageError::Invalid(_) | ManageError::NoRevision => {
                Refusal::Other(Trouble::Invalid(error.to_string()))
            }
            ManageError::Damaged(reason) => Refusal::Failed(reason),
            ManageError::Unknown => Refusal::Other(Trouble::Deadline(error.to_string())),
        }
    }
}

impl From<Ended> for Refusal {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::NoSuchGroup => Refusal::DoesNotExist,
            Ended::Pushed => Refusal::Failed(ended.to_string()),
            Ended::TooManyConsumers(_) => Refusal::Full,
            Ended::Stopped => Refusal::Dropped,
            Ended::Invalid(why) => Refusal::Other(Trouble::Invalid(why)),
            Ended::Closing => Refusal::Other(Trouble::Unavailable(ended.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use stormkeep_core::group::Source;

    use super::*;

    #[test]
    fn each_has_the_code_and_the_trailers_that_clients_look_for() {
        let id = GroupId::new(Source::All, "mail").unwrap();
        for (refusal, code, exception, message) in [
            (
                Refusal::from(ManageError::Exists("x".into())),
                Code::AlreadyExists,
                Some("persistent-subscription-exists"),
                "Subscription group mail on stream $all exists.",
            ),
            (
                Refusal::from(Ended::NoSuchGroup),
                Code::NotFound,
                Some("persistent-subscription-does-not-exist"),
                "Subscription group mail on stream $all does not exist.",
            ),
            (
                Refusal::from(Ended::TooManyConsumers(3)),
                Code::FailedPrecondition,
                Some("maximum-subscribers-reached"),
                "Maximum subscriptions reached for subscription group mail on stream $all.",
            ),
            (
                Refusal::from(Ended::Stopped),
                Code::Cancelled,
                Some("persistent-subscription-dropped"),
                "Subscription group mail on stream $all was dropped.",
            ),
            (Refusal::from(Ended::Closing), Code::Unavailable, None, "the server is closing"),
            (Refusal::from(ManageError::Unknown), Code::DeadlineExceeded, None, "the store did"),
            (Refusal::from(ManageError::NoRevision), Code::InvalidArgument, None, "start: "),
        ] {
            let status = refusal.status(&id);
            assert_eq!(status.code(), code);
            let trailer = |name: &str| status.metadata().get(name).map(|v| v.to_str().unwrap());
            assert_eq!(trailer("exception"), exception);
            assert_eq!(trailer("group-name"), exception.map(|_| "mail"));
            assert_eq!(trailer("stream-name"), exception.map(|_| "$all"));
            assert!(status.message().starts_with(message), "{}", status.message());
        }
    }
}
