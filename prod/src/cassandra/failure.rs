//! What an error of the driver or of Cassandra means to the core: *no*, *busy* or *unknown*.
//!
//! The one rule: what may have been written is *unknown*. Sources: the native protocol v4, section 9, for what each
//! error says, and Cassandra's `StorageProxy` for when it is thrown.

use scylla::{
    errors::{DbError, ExecutionError, PrepareError, RequestAttemptError},
    statement::Consistency,
};
use stormkeep_core::env::StoreError;

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// A read, or a plain write: what Cassandra calls unavailable has not begun.
    Plain,
    /// A compare-and-set.
    Swap,
}

/// What an error means.
pub(super) fn classify(error: &ExecutionError, asked: Asked) -> StoreError {
    match error {
        ExecutionError::RequestTimeout(_) => StoreError::Unknown,
        ExecutionError::LastAttemptError(attempt) => of_attempt(attempt, asked),
        // Nothing was sent: no connection, a value that cannot be sent, a statement that cannot be prepared.
        ExecutionError::EmptyPlan
        | ExecutionError::ConnectionPoolError(_)
        | ExecutionError::BadQuery(_)
        | ExecutionError::PrepareError(_) => StoreError::Unavailable,
        _ => StoreError::Unknown,
    }
}

fn of_attempt(error: &RequestAttemptError, asked: Asked) -> StoreError {
    match error {
        RequestAttemptError::DbError(error, _) => of_answer(error, asked),
        // Nothing was sent.
        RequestAttemptError::UnableToAllocStreamId => StoreError::Busy,
        RequestAttemptError::SerializationError(_)
        | RequestAttemptError::CqlRequestSerialization(_)
        | RequestAttemptError::RepreparedIdChanged { .. }
        | RequestAttemptError::RepreparedIdMissingInBatch => StoreError::Unavailable,
        // The connection broke, or the answer makes no sense: the request may have been carried out.
        _ => StoreError::Unknown,
    }
}

fn of_answer(error: &DbError, asked: Asked) -> StoreError {
    match error {
        // A compare-and-set needs replicas twice: to agree, at a serial consistency, and to commit what was agreed
        // on, at a plain one. Too few at the commit (Paxos v1 checks again) is no *no*: the agreement is there, and
        // the next one to look completes it.
        DbError::Unavailable { consistency, .. }
            if asked == Asked::Swap
                && !matches!(consistency, Consistency::Serial | Consistency::LocalSerial) =>
        {
            StoreError::Unknown
        }
        // Checked before anything is sent to a replica.
        DbError::Unavailable { .. } | DbError::IsBootstrapping => StoreError::Unavailable,
        // A coordinator with too many hints says so at the commit, too (Paxos v1): the agreement is there.
        DbError::Overloaded if asked == Asked::Swap => StoreError::Unknown,
        DbError::Overloaded | DbError::RateLimitReached { .. } => StoreError::Busy,
        // Refused when it was looked at.
        _ if is_refusal(error) => StoreError::Unavailable,
        // Timeouts, failures of replicas, CAS_WRITE_UNKNOWN (0x1700), errors within the server, and what is yet
        // to be invented.
        _ => StoreError::Unknown,
    }
}

/// Whether Cassandra refuses what it was asked, now and later: a schema, a permission or a bug is in the way.
fn is_refusal(error: &DbError) -> bool {
    matches!(
        error,
        DbError::SyntaxError
            | DbError::Invalid
            | DbError::Unauthorized
            | DbError::AuthenticationError
            | DbError::ConfigError
            | DbError::ProtocolError
            | DbError::AlreadyExists { .. }
            | DbError::FunctionFailure { .. }
            | DbError::Unprepared { .. }
    )
}

/// The answer of Cassandra in an error, if there is one.
pub(super) fn answer(error: &ExecutionError) -> Option<&DbError> {
    match error {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, _))
        | ExecutionError::PrepareError(PrepareError::AllAttemptsFailed {
            first_attempt: RequestAttemptError::DbError(error, _),
        }) => Some(error),
        _ => None,
    }
}

/// Whether an error will not go away by itself: an operator must know.
pub(super) fn is_lasting(error: &ExecutionError) -> bool {
    match error {
        ExecutionError::EmptyPlan | ExecutionError::BadQuery(_) => true,
        error => answer(error).is_some_and(is_refusal),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use scylla::errors::{OperationType, WriteType};

    use super::*;

    fn answered(error: DbError, asked: Asked) -> StoreError {
        let error = RequestAttemptError::DbError(error, "said Cassandra".into());
        classify(&ExecutionError::LastAttemptError(error), asked)
    }

    fn unavailable(consistency: Consistency) -> DbError {
        DbError::Unavailable { consistency, required: 2, alive: 1 }
    }

    fn write_timeout(write_type: WriteType) -> DbError {
        let consistency = Consistency::LocalQuorum;
        DbError::WriteTimeout { consistency, received: 1, required: 2, write_type }
    }

    #[test]
    fn what_may_have_been_written_is_unknown() {
        use Asked::{Plain, Swap};
        let failure = DbError::WriteFailure {
            consistency: Consistency::LocalQuorum,
            received: 1,
            required: 2,
            numfailures: 1,
            write_type: WriteType::Simple,
        };
        let unknown = [
            (write_timeout(WriteType::Simple), Plain),
            (write_timeout(WriteType::UnloggedBatch), Plain),
            (write_timeout(WriteType::Cas), Swap),
            (failure, Plain),
            (DbError::ServerError, Plain),
            (DbError::Other(0x1700), Swap),
            (unavailable(Consistency::LocalQuorum), Swap),
            (unavailable(Consistency::Quorum), Swap),
            (DbError::Overloaded, Swap),
        ];
        for (error, asked) in unknown {
            assert_eq!(answered(error.clone(), asked), StoreError::Unknown, "{error} {asked:?}");
        }
        let timeout = ExecutionError::RequestTimeout(Duration::from_secs(4));
        assert_eq!(classify(&timeout, Swap), StoreError::Unknown);
    }

    #[test]
    fn what_was_not_begun_is_no() {
        use Asked::{Plain, Swap};
        let no = [
            (unavailable(Consistency::LocalQuorum), Plain),
            (unavailable(Consistency::LocalSerial), Swap),
            (unavailable(Consistency::Serial), Swap),
            (DbError::IsBootstrapping, Plain),
            (DbError::Unauthorized, Plain),
            (DbError::Invalid, Swap),
        ];
        for (error, asked) in no {
            assert_eq!(answered(error.clone(), asked), StoreError::Unavailable, "{error}");
        }
        assert_eq!(classify(&ExecutionError::EmptyPlan, Swap), StoreError::Unavailable);
    }

    #[test]
    fn shed_load_is_busy() {
        let limited = DbError::RateLimitReached {
            op_type: OperationType::Write,
            rejected_by_coordinator: true,
        };
        assert_eq!(answered(DbError::Overloaded, Asked::Plain), StoreError::Busy);
        assert_eq!(answered(limited, Asked::Plain), StoreError::Busy);
        let no_room = ExecutionError::LastAttemptError(RequestAttemptError::UnableToAllocStreamId);
        assert_eq!(classify(&no_room, Asked::Plain), StoreError::Busy);
    }

    #[test]
    fn a_refusal_lasts_and_a_timeout_does_not() {
        let of = |error| {
            ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, String::new()))
        };
        assert!(is_lasting(&of(DbError::Unauthorized)));
        assert!(is_lasting(&ExecutionError::EmptyPlan));
        assert!(!is_lasting(&of(write_timeout(WriteType::Simple))));
        assert!(!is_lasting(&of(unavailable(Consistency::LocalQuorum))));
    }
}
