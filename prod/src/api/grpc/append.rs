//! One append to a call: the options, then the events.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use stormkeep_core::{
    append::{Append, AppendError, Appended, Expected},
    env::Env,
    limits::{ENTRY_BYTES_MAX, EVENTS_PER_APPEND_MAX, InvalidAppend},
    stream::StreamName,
};
use tonic::Status;

use super::{
    message::{self, Proposed},
    status,
};
use crate::{
    api::proto::{
        shared::Empty,
        streams::{AppendReq, AppendResp, append_req::Content, append_resp},
    },
    append_id,
    service::Service,
};

/// Gathers an append from what a client sends.
pub(super) async fn gather(
    requests: impl Stream<Item = Result<AppendReq, Status>>,
) -> Result<Append, Status> {
    let mut requests = pin!(requests);
    let first = requests.next().await.transpose()?.and_then(|request| request.content);
    let Some(Content::Options(options)) = first else {
        return Err(Status::invalid_argument("the first message of an append must be its options"));
    };
    let stream = message::stream_name(options.stream_identifier)?;
    let expected = message::append_expected(options.expected_stream_revision)?;
    let mut gathered = Gathered::new(stream, expected);
    while let Some(request) = requests.next().await.transpose()? {
        let Some(Content::ProposedMessage(proposed)) = request.content else {
            return Err(Status::invalid_argument("only the first message may be options"));
        };
        gathered.push(proposed.into())?;
        // What goes beyond the limits is not held, only counted.
        if let Err(error) = gathered.within_limits() {
            return Err(status::append(&gathered.stream, &error));
        }
    }
    Ok(gathered.append())
}

/// An append that is being put together.
pub(super) struct Gathered {
    pub(super) stream: StreamName,
    pub(super) expected: Expected,
    events: Vec<stormkeep_core::event::Event>,
    bytes: usize,
}

impl Gathered {
    pub(super) fn new(stream: StreamName, expected: Expected) -> Self {
        Gathered { stream, expected, events: Vec::new(), bytes: 0 }
    }

    pub(super) fn push(&mut self, proposed: Proposed) -> Result<(), Status> {
        let event = proposed.event(self.events.len())?;
        self.bytes += event.bytes();
        self.events.push(event);
        Ok(())
    }

    /// Whether it can still become an append.
    pub(super) fn within_limits(&self) -> Result<(), AppendError> {
        if self.bytes > ENTRY_BYTES_MAX {
            return Err(InvalidAppend::AppendTooLarge { bytes: self.bytes }.into());
        }
        if self.events.len() > EVENTS_PER_APPEND_MAX {
            return Err(InvalidAppend::TooManyEvents { count: self.events.len() }.into());
        }
        Ok(())
    }

    pub(super) fn append(self) -> Append {
        Append {
            id: append_id::of(&self.events),
            stream: self.stream,
            expected: self.expected,
            described: Expected::Any,
            events: Arc::from(self.events),
        }
    }
}

/// Appends, and answers in the words of the protocol: another revision than was expected is an answer, not an error.
pub(super) async fn append<E: Env>(
    service: &Service<E>,
    append: Append,
    timeout: Duration,
) -> Result<AppendResp, Status> {
    let stream = append.stream.clone();
    // An append without events asks for the state of the stream, and changes nothing.
    let result = if append.events.is_empty() {
        return Err(status::append(&stream, &InvalidAppend::NoEvents.into()));
    } else {
        service.append(append, timeout).await
    };
    let result = match result {
        Ok(appended) => append_resp::Result::Success(success(&appended)),
        Err(AppendError::WrongExpectedRevision { expected, actual, .. }) => {
            append_resp::Result::WrongExpectedVersion(wrong(expected, actual))
        }
        Err(error) => return Err(status::append(&stream, &error)),
    };
    Ok(AppendResp { result: Some(result) })
}

fn success(appended: &Appended) -> append_resp::Success {
    let position = appended.position().0;
    append_resp::Success {
        current_revision_option: Some(
            append_resp::success::CurrentRevisionOption::CurrentRevision(appended.last),
        ),
        position_option: Some(append_resp::success::PositionOption::Position(
            append_resp::Position { commit_position: position, prepare_position: position },
        )),
    }
}

fn wrong(expected: Expected, actual: Option<u64>) -> append_resp::WrongExpectedVersion {
    use append_resp::wrong_expected_version::{
        CurrentRevisionOption as Current, CurrentRevisionOption2060 as Current2060,
        ExpectedRevisionOption as Given, ExpectedRevisionOption2060 as Given2060,
    };
    let (given, given_2060) = match expected {
        Expected::Exactly(n) => {
            (Given::ExpectedRevision(n), Some(Given2060::ExpectedRevision2060(n)))
        }
        Expected::Any => (Given::ExpectedAny(Empty {}), Some(Given2060::Any2060(Empty {}))),
        Expected::StreamExists => {
            (Given::ExpectedStreamExists(Empty {}), Some(Given2060::StreamExists2060(Empty {})))
        }
        Expected::NoStream => (Given::ExpectedNoStream(Empty {}), None),
    };
    append_resp::WrongExpectedVersion {
        current_revision_option_20_6_0: Some(match actual {
            Some(n) => Current2060::CurrentRevision2060(n),
            None => Current2060::NoStream2060(Empty {}),
        }),
        expected_revision_option_20_6_0: given_2060,
        current_revision_option: Some(match actual {
            Some(n) => Current::CurrentRevision(n),
            None => Current::CurrentNoStream(Empty {}),
        }),
        expected_revision_option: Some(given),
    }
}
