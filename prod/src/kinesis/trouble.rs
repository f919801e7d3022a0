//! What an error of the service means: *no*, *busy* or *unknown*, and how it is mended.
//!
//! A call did not happen only if the service said so with an error that it gives before it does anything, or if the request
//! could not be signed, so that nothing was sent. Whatever else went wrong, a timeout, a broken connection or an answer that
//! makes no sense, leaves the outcome unknown; a refused connection too, since the client does not tell it from a
//! connection that broke while the request was on its way.
//!
//! Sources: Kinesis Data Streams API reference, "Common Errors" and the errors of each action; read 2026-03.

use std::{error::Error, fmt};

use aws_sdk_kinesis::{
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId as _,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use stormkeep_core::env::{LogError, PutError, ReadLogError};

use crate::aws;

/// The kinds of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// *busy*: a limit of bytes, records or calls a second is reached, of the stream or of its encryption key.
    Throttled,
    /// *busy* for a call that is made often, *no* for a change of shards: a limit of the account is reached.
    Limit,
    /// *busy*: the position to put behind is younger than the service's clock. It gives such positions for about a second in a
    /// shard that a split or a merge has just opened, and then refuses to order by them.
    Early,
    /// *no*: the iterator has expired.
    Expired,
    /// *no*: there is no such stream, shard or consumer.
    Missing,
    /// *no*: the credentials do not allow the action.
    Denied,
    /// *no*: there are no credentials, or they have expired or are unknown.
    Credentials,
    /// *no*: the clock of this machine is wrong, so that its signatures are not taken.
    Clock,
    /// *no*: the key that encrypts the stream cannot be used.
    Key,
    /// *no*: an argument makes no sense to the service.
    Invalid,
    /// *no*: the stream, shard or consumer is being changed, or is there already.
    InUse,
    /// *unknown*: no connection.
    Unreachable,
    /// *unknown*: no answer in time, or one that says nothing.
    Silent,
}

impl Kind {
    /// What to do about it.
    pub fn fix(self) -> &'static str {
        match self {
            Kind::Throttled => "split hot shards, or give the stream more of them",
            Kind::Limit => {
                "a limit of the account is reached: have it raised, or wait a few minutes"
            }
            Kind::Early => "none needed: it passes within a second or two",
            Kind::Expired => "none needed: the reader goes on behind its last position",
            Kind::Missing => {
                "make it with `stormkeep schema apply --stream-shards N`, or set kinesis.stream, kinesis.region"
            }
            Kind::Denied => {
                "allow the action on the stream in the IAM policy of this role: stormkeep doctor prints one"
            }
            Kind::Credentials => {
                "renew the credentials of this process (environment, kinesis.profile or the machine's role)"
            }
            Kind::Clock => "set the clock of this machine: run an NTP client",
            Kind::Key => {
                "enable the stream's KMS key, and allow kms:GenerateDataKey and kms:Decrypt on it"
            }
            Kind::Invalid => {
                "the service refuses an argument: is this stream one of Stormkeep's, and kinesis.record_bytes_max the stream's?"
            }
            Kind::InUse => "the stream is being changed: wait until it is ACTIVE",
            Kind::Unreachable => {
                "check the network, kinesis.endpoint and kinesis.region; a VPC needs an endpoint for kinesis-streams"
            }
            Kind::Silent => "none if it passes; else look at the service's health, and the network",
        }
    }

    /// Whether it lasts until somebody mends it.
    pub fn is_lasting(self) -> bool {
        matches!(
            self,
            Kind::Missing
                | Kind::Denied
                | Kind::Credentials
                | Kind::Clock
                | Kind::Key
                | Kind::Invalid
        )
    }
}

impl From<Kind> for PutError {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Throttled | Kind::Limit | Kind::Early => PutError::Throttled,
            Kind::Unreachable | Kind::Silent => PutError::Unknown,
            _ => PutError::Refused(kind.fix()),
        }
    }
}

impl From<Kind> for ReadLogError {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Throttled | Kind::Limit => ReadLogError::Throttled,
            Kind::Expired => ReadLogError::Expired,
            _ => ReadLogError::Unavailable,
        }
    }
}

impl From<Kind> for LogError {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Unreachable | Kind::Silent => LogError::Unavailable,
            _ => LogError::Refused(kind.fix()),
        }
    }
}

/// What went wrong with one call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Trouble {
    /// Its kind.
    pub kind: Kind,
    /// The service's words.
    pub what: String,
}

impl Trouble {
    pub(super) fn new(kind: Kind, what: impl Into<String>) -> Self {
        Trouble { kind, what: what.into() }
    }

    /// Of a call's error.
    pub(super) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let status = error.raw_response().map(|response| response.status().as_u16());
        let kind = match error {
            SdkError::ServiceError(_) => match error.code() {
                Some("InvalidArgumentException") if speaks_of_order(error.message()) => Kind::Early,
                Some(code) if aws::is_of_clock(code, error.message()) => Kind::Clock,
                Some(code) => by_code(code, status),
                None => by_status(status),
            },
            SdkError::TimeoutError(_) => Kind::Silent,
            SdkError::ConstructionFailure(_) if aws::is_unsigned(error) => Kind::Credentials,
            SdkError::ConstructionFailure(_) => Kind::Invalid,
            SdkError::DispatchFailure(failure) if failure.is_timeout() => Kind::Silent,
            SdkError::DispatchFailure(_) if aws::is_unsigned(error) => Kind::Credentials,
            SdkError::DispatchFailure(_) => Kind::Unreachable,
            _ => by_status(status),
        };
        let mut what = aws::words(error);
        if let Some(id) = error.request_id() {
            what = format!("{what} (request {id})");
        }
        Trouble { kind, what }
    }

    /// Of an error within a subscription: its code and message.
    pub(super) fn of_event<E, R>(error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
        R: fmt::Debug + 'static,
    {
        let kind = error.code().map_or(Kind::Silent, |code| by_code(code, None));
        Trouble { kind, what: aws::words(error) }
    }
}

/// By the service's name of the error. A name that is not known says nothing of what happened.
fn by_code(code: &str, status: Option<u16>) -> Kind {
    if status.is_some_and(|status| status >= 500) {
        return Kind::Silent;
    }
    match code {
        "ProvisionedThroughputExceededException"
        | "KMSThrottlingException"
        | "ThrottlingException"
        | "Throttling"
        | "RequestLimitExceeded"
        | "TooManyRequestsException" => Kind::Throttled,
        "LimitExceededException" => Kind::Limit,
        "ExpiredIteratorException" | "ExpiredNextTokenException" => Kind::Expired,
        "ResourceNotFoundException" => Kind::Missing,
        code if aws::is_of_permission(code) => Kind::Denied,
        code if aws::is_of_clock(code, None) => Kind::Clock,
        code if aws::is_of_credentials(code) => Kind::Credentials,
        "KMSAccessDeniedException"
        | "KMSDisabledException"
        | "KMSInvalidStateException"
        | "KMSNotFoundException"
        | "KMSOptInRequired" => Kind::Key,
        "InvalidArgumentException" | "ValidationException" | "ValidationError" => Kind::Invalid,
        "ResourceInUseException" => Kind::InUse,
        _ => by_status(status),
    }
}

/// An answer without a name that is known: of a proxy, perhaps.
fn by_status(status: Option<u16>) -> Kind {
    match status {
        Some(429) => Kind::Throttled,
        _ => Kind::Silent,
    }
}

/// "ExclusiveMinimumSequenceNumber … used in PutRecord on stream … is invalid."
fn speaks_of_order(message: Option<&str>) -> bool {
    message.is_some_and(|message| message.contains("ExclusiveMinimumSequenceNumber"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_service_refuses_is_a_no() {
        let put = |code, status| PutError::from(by_code(code, Some(status)));
        assert_eq!(put("ProvisionedThroughputExceededException", 400), PutError::Throttled);
        assert_eq!(put("KMSThrottlingException", 400), PutError::Throttled);
        assert_eq!(put("LimitExceededException", 400), PutError::Throttled);
        assert_eq!(put("InternalFailureException", 500), PutError::Unknown);
        assert_eq!(put("ServiceUnavailable", 503), PutError::Unknown);
        assert_eq!(put("ThrottlingException", 503), PutError::Unknown, "it may have happened");
        assert_eq!(put("SomethingNew", 400), PutError::Unknown);
        for (code, kind) in [
            ("ResourceNotFoundException", Kind::Missing),
            ("AccessDeniedException", Kind::Denied),
            ("ExpiredTokenException", Kind::Credentials),
            ("RequestExpired", Kind::Clock),
            ("KMSDisabledException", Kind::Key),
            ("InvalidArgumentException", Kind::Invalid),
        ] {
            assert_eq!(put(code, 400), PutError::Refused(kind.fix()), "{code}");
            assert!(kind.is_lasting());
        }
    }

    #[test]
    fn a_change_of_shards_is_not_busy_for_ever() {
        let change = |code| LogError::from(by_code(code, Some(400)));
        assert_eq!(change("LimitExceededException"), LogError::Refused(Kind::Limit.fix()));
        assert_eq!(change("ResourceInUseException"), LogError::Refused(Kind::InUse.fix()));
        assert_eq!(LogError::from(by_code("InternalFailure", Some(500))), LogError::Unavailable);
    }

    #[test]
    fn an_answer_of_somebody_else_says_nothing() {
        assert_eq!(by_status(Some(502)), Kind::Silent);
        assert_eq!(by_status(Some(413)), Kind::Silent);
        assert_eq!(by_status(Some(429)), Kind::Throttled);
        assert_eq!(by_status(None), Kind::Silent);
    }
}
