//! Many appends over one call. Each is answered when it is done, whatever became of those before it.

use std::{collections::BTreeMap, time::Duration};

use futures::{FutureExt, Stream, StreamExt, future::BoxFuture};
use stormkeep_core::{
    append::{Append, AppendError, Expected},
    env::Env,
    stream::StreamName,
};
use tonic::Status;
use uuid::Uuid;

use super::{append::Gathered, message, status};
use crate::{
    api::proto::{
        shared::AllStreamPosition,
        streams::{
            BatchAppendReq, BatchAppendResp,
            batch_append_req::options::{DeadlineOption, ExpectedStreamPosition as Given},
            batch_append_resp::{self, ExpectedStreamPosition as Answered, success},
        },
    },
    service::Service,
};

/// Appends of one call that are under way at a time; the client waits with more.
const UNDER_WAY_MAX: usize = 256;
/// Appends of one call that may be sent in parts at a time.
const PARTS_MAX: usize = 64;

/// An append that a client sends in parts.
struct Part {
    gathered: Gathered,
    timeout: Duration,
    /// It makes no sense, for this reason; the rest of it is passed over.
    refused: Option<crate::api::proto::rpc::Status>,
}

/// What to do with one request.
enum Next {
    Append(Uuid, Append, Duration),
    Answer(BatchAppendResp),
    More,
}

/// The answers to all requests of a call.
pub(super) fn answers<E: Env>(
    service: Service<E>,
    requests: impl Stream<Item = Result<BatchAppendReq, Status>> + Send + 'static,
    longest: Duration,
) -> impl Stream<Item = Result<BatchAppendResp, Status>> + Send + 'static {
    let mut parts: BTreeMap<Uuid, Part> = BTreeMap::new();
    let asked = requests.map(move |request| gather(request?, &mut parts, longest));
    asked
        .map(move |next| -> BoxFuture<'static, Option<Result<BatchAppendResp, Status>>> {
            match next {
                Ok(Next::Append(id, append, timeout)) => {
                    let service = service.clone();
                    async move { Some(Ok(answer(&service, id, append, timeout).await)) }.boxed()
                }
                Ok(Next::Answer(answer)) => std::future::ready(Some(Ok(answer))).boxed(),
                Ok(Next::More) => std::future::ready(None).boxed(),
                Err(error) => std::future::ready(Some(Err(error))).boxed(),
            }
        })
        .buffer_unordered(UNDER_WAY_MAX)
        .filter_map(std::future::ready)
}

fn gather(
    request: BatchAppendReq,
    parts: &mut BTreeMap<Uuid, Part>,
    longest: Duration,
) -> Result<Next, Status> {
    let id = message::uuid_of(request.correlation_id, "correlation_id")?;
    if !parts.contains_key(&id) {
        let missing = || Status::invalid_argument("options: the first part of an append has them");
        let options = request.options.ok_or_else(missing)?;
        if parts.len() >= PARTS_MAX {
            let message = format!("more than {PARTS_MAX} appends are sent in parts at a time");
            return Err(Status::resource_exhausted(message));
        }
        let stream = message::stream_name(options.stream_identifier)?;
        let expected = match options.expected_stream_position {
            Some(Given::StreamPosition(revision)) => Expected::Exactly(revision),
            Some(Given::NoStream(())) => Expected::NoStream,
            Some(Given::StreamExists(())) => Expected::StreamExists,
            Some(Given::Any(())) => Expected::Any,
            None => {
                return Err(Status::invalid_argument(
                    "options.expected_stream_position is missing",
                ));
            }
        };
        let given = match options.deadline_option {
            Some(DeadlineOption::Deadline(duration)) => {
                Duration::from_secs(u64::try_from(duration.seconds).unwrap_or(0))
                    + Duration::from_nanos(u64::try_from(duration.nanos).unwrap_or(0))
            }
            Some(DeadlineOption::Deadline21100(deadline)) => message::until(deadline),
            None => longest,
        };
        let gathered = Gathered::new(stream, expected);
        parts.insert(id, Part { gathered, timeout: given.min(longest), refused: None });
    }
    let Some(part) = parts.get_mut(&id) else { return Ok(Next::More) };
    for proposed in request.proposed_messages {
        if part.refused.is_some() {
            break;
        }
        if let Err(error) = part.gathered.push(proposed.into()) {
            part.refused = Some(status::bad_request(error.message().to_owned()));
        } else if let Err(error) = part.gathered.within_limits() {
            part.refused = Some(status::batch(&part.gathered.stream, &error));
        }
    }
    if !request.is_final {
        return Ok(Next::More);
    }
    let Some(Part { gathered, timeout, refused }) = parts.remove(&id) else {
        return Ok(Next::More);
    };
    if let Some(refused) = refused {
        let result = batch_append_resp::Result::Error(refused);
        return Ok(Next::Answer(response(id, &gathered.stream, gathered.expected, result)));
    }
    Ok(Next::Append(id, gathered.append(), timeout))
}

async fn answer<E: Env>(
    service: &Service<E>,
    id: Uuid,
    append: Append,
    timeout: Duration,
) -> BatchAppendResp {
    let (stream, expected) = (append.stream.clone(), append.expected);
    let appended = if timeout.is_zero() {
        Err(AppendError::Unavailable)
    } else {
        service.append(append, timeout).await
    };
    let result = match appended {
        Ok(appended) => {
            let position = appended.position().0;
            batch_append_resp::Result::Success(batch_append_resp::Success {
                current_revision_option: Some(success::CurrentRevisionOption::CurrentRevision(
                    appended.last,
                )),
                position_option: Some(success::PositionOption::Position(AllStreamPosition {
                    commit_position: position,
                    prepare_position: position,
                })),
            })
        }
        Err(error) => batch_append_resp::Result::Error(status::batch(&stream, &error)),
    };
    response(id, &stream, expected, result)
}

fn response(
    id: Uuid,
    stream: &StreamName,
    expected: Expected,
    result: batch_append_resp::Result,
) -> BatchAppendResp {
    let expected = match expected {
        Expected::Exactly(revision) => Answered::StreamPosition(revision),
        Expected::NoStream => Answered::NoStream(()),
        Expected::Any => Answered::Any(()),
        Expected::StreamExists => Answered::StreamExists(()),
    };
    BatchAppendResp {
        correlation_id: Some(message::uuid(id, false)),
        result: Some(result),
        stream_identifier: Some(message::identifier(stream)),
        expected_stream_position: Some(expected),
    }
}
