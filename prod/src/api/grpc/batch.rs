//! Batches: many appends on one stream, each answered when it is done.
//!
//! Appends are under way at once up to a bound; beyond it nothing is read from the client until one is answered. They
//! are only driven while the client takes answers, so one that sends and never reads holds up itself alone. An append
//! that is refused does not end the others. Two that are under way at once may be decided in either order, also if they
//! are for one stream: whoever needs an order waits for the answer.

use std::{collections::HashMap, future::Future, pin::Pin};

use futures::{Stream, StreamExt, stream, stream::FuturesUnordered};
use stormkeep_core::{
    append::{Append, Appended, Expected},
    env::Env,
    limits::ENTRY_BYTES_MAX,
    stream::StreamName,
};
use tonic::{Status, Streaming};

use super::{
    deadline::Deadline,
    expected::{Demand, repeated},
    proposed::Events,
    proto::event_store::client::{
        Uuid,
        streams::{BatchAppendReq, BatchAppendResp, batch_append_resp},
    },
    request, response,
    streams::too_large,
    trouble::Trouble,
};
use crate::service::Service;

/// Appends of one call that are under way at once.
const IN_FLIGHT_MAX: usize = 256;
/// Appends of one call of which not all parts have come.
const PARTIAL_MAX: usize = 64;
/// Bytes of all these together.
const PARTIAL_BYTES_MAX: usize = 8 * ENTRY_BYTES_MAX;

/// An append of which not all parts have come.
struct Partial {
    correlation: Uuid,
    stream: StreamName,
    expected: Expected,
    deadline: Deadline,
    events: Events,
}

/// What came of a part.
enum Taken {
    /// More parts are to come.
    More,
    /// The append is whole.
    Whole(Partial),
    /// It is refused.
    Refused(BatchAppendResp),
}

type InFlight = Pin<Box<dyn Future<Output = BatchAppendResp> + Send>>;

struct Session<E: Env> {
    service: Service<E>,
    requests: Option<Streaming<BatchAppendReq>>,
    parts: Parts,
    in_flight: FuturesUnordered<InFlight>,
    deadline: Deadline,
}

/// Answers the appends of one call.
pub(crate) fn batch<E: Env>(
    service: Service<E>,
    requests: Streaming<BatchAppendReq>,
    deadline: Deadline,
) -> impl Stream<Item = Result<BatchAppendResp, Status>> + Send + 'static + use<E> {
    let session = Session {
        service,
        requests: Some(requests),
        parts: Parts { deadline, ..Parts::default() },
        in_flight: FuturesUnordered::new(),
        deadline,
    };
    stream::unfold(Some(session), async |session| {
        let mut session = session?;
        match session.next().await {
            Ok(answer) => Some((Ok(answer?), Some(session))),
            Err(status) => Some((Err(status), None)),
        }
    })
}

impl<E: Env> Session<E> {
    async fn next(&mut self) -> Result<Option<BatchAppendResp>, Status> {
        loop {
            if self.requests.is_none() && self.in_flight.is_empty() {
                return Ok(None);
            }
            let may_read = self.in_flight.len() < IN_FLIGHT_MAX;
            let requests = &mut self.requests;
            let message = async {
                match requests {
                    Some(requests) if may_read => requests.message().await,
                    _ => std::future::pending().await,
                }
            };
            let message = tokio::select! {
                biased;
                Some(answer) = self.in_flight.next() => return Ok(Some(answer)),
                message = message => message,
                () = self.deadline.over() => {
                    return Err(Deadline::trouble().status("Append", ""));
                }
            };
            let Some(part) = message.map_err(too_large)? else {
                self.requests = None;
                continue;
            };
            match self.parts.take(part).map_err(|trouble| trouble.status("Append", ""))? {
                Taken::More => {}
                Taken::Whole(append) => {
                    let service = self.service.clone();
                    self.in_flight.push(Box::pin(answer(service, append)));
                }
                Taken::Refused(refused) => return Ok(Some(refused)),
            }
        }
    }
}

async fn answer<E: Env>(service: Service<E>, partial: Partial) -> BatchAppendResp {
    let Partial { correlation, stream, expected, deadline, events } = partial;
    let events = events.done();
    let id = crate::append_id::append_id(&events);
    let described = Expected::Any;
    let append = Append { stream: stream.clone(), expected, described, id, events };
    let appended = if deadline.is_over() {
        Err(Deadline::trouble())
    } else {
        let appended = service.append(append, deadline.left()).await;
        appended.map_err(|error| Trouble::from(error).after(deadline))
    };
    resp(correlation, &stream, expected, appended)
}

fn resp(
    correlation: Uuid,
    stream: &StreamName,
    expected: Expected,
    appended: Result<Appended, Trouble>,
) -> BatchAppendResp {
    let result = match appended {
        Ok(appended) => batch_append_resp::Result::Success(response::batch_appended(&appended)),
        Err(trouble) => batch_append_resp::Result::Error(trouble.batch_error(stream.as_str())),
    };
    BatchAppendResp {
        correlation_id: Some(correlation),
        stream_identifier: Some(response::identifier(stream)),
        expected_stream_position: Some(repeated(expected)),
        result: Some(result),
    }
}

/// The appends of one call of which not all parts have come. `None`: refused already, the rest of its parts is dropped.
struct Parts {
    partial: HashMap<u128, Option<Partial>>,
    bytes: usize,
    deadline: Deadline,
}

impl Default for Parts {
    fn default() -> Self {
        Parts { partial: HashMap::new(), bytes: 0, deadline: Deadline::NONE }
    }
}

impl Parts {
    /// Takes a part. An error ends the call: whom it concerns cannot be said.
    fn take(&mut self, part: BatchAppendReq) -> Result<Taken, Trouble> {
        let id = request::id("correlation_id", part.correlation_id.as_ref())?;
        let is_final = part.is_final;
        let entry = match self.partial.remove(&id) {
            Some(entry) => entry,
            None if self.partial.len() == PARTIAL_MAX => {
                let why = format!("{PARTIAL_MAX} appends are not finished yet; finish one first");
                return Err(Trouble::invalid("is_final", why));
            }
            None => match self.begin(&part) {
                Ok(partial) => Some(partial),
                Err(trouble) => return Ok(self.refuse(id, &part, trouble)),
            },
        };
        // What is left of an append that was refused.
        let Some(mut partial) = entry else {
            if !is_final {
                self.partial.insert(id, None);
            }
            return Ok(Taken::More);
        };
        self.bytes -= partial.events.bytes();
        for proposed in part.proposed_messages {
            if let Err(trouble) = partial.events.push_encoded(proposed) {
                if !is_final {
                    self.partial.insert(id, None);
                }
                let Partial { correlation, stream, expected, .. } = partial;
                return Ok(Taken::Refused(resp(correlation, &stream, expected, Err(trouble))));
            }
        }
        if is_final {
            return Ok(Taken::Whole(partial));
        }
        self.bytes += partial.events.bytes();
        self.partial.insert(id, Some(partial));
        if self.bytes > PARTIAL_BYTES_MAX {
            let why =
                format!("more than {PARTIAL_BYTES_MAX} bytes of appends are not finished yet");
            return Err(Trouble::invalid("is_final", why));
        }
        Ok(Taken::More)
    }

    fn begin(&self, part: &BatchAppendReq) -> Result<Partial, Trouble> {
        let correlation = part.correlation_id.clone();
        let correlation =
            correlation.ok_or_else(|| Trouble::invalid("correlation_id", "missing"))?;
        let options = part.options.as_ref();
        let options = options.ok_or_else(|| {
            Trouble::invalid("options", "missing: the first part of an append must have them")
        })?;
        let timeout =
            request::batch_timeout(options.deadline_option.as_ref(), response::since_epoch());
        Ok(Partial {
            correlation,
            stream: request::stream_name(options.stream_identifier.clone())?,
            expected: options.expected_stream_position.expected()?,
            deadline: self.deadline.or_in(timeout),
            events: Events::default(),
        })
    }

    /// Refuses an append whose first part cannot be understood.
    fn refuse(&mut self, id: u128, part: &BatchAppendReq, trouble: Trouble) -> Taken {
        if !part.is_final {
            self.partial.insert(id, None);
        }
        let options = part.options.as_ref();
        // Clients unwrap what names the stream.
        let stream_identifier = options.and_then(|o| o.stream_identifier.clone());
        Taken::Refused(BatchAppendResp {
            correlation_id: part.correlation_id.clone(),
            stream_identifier: Some(stream_identifier.unwrap_or_default()),
            expected_stream_position: None,
            result: Some(batch_append_resp::Result::Error(trouble.batch_error(""))),
        })
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
