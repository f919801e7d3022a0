//! The service of streams.

use std::pin::Pin;

use futures::Stream;
use stormkeep_core::{
    append::{Append, Expected},
    env::Env,
};
use tonic::{Code, Request, Response, Status, Streaming};

use super::{
    MESSAGE_BYTES_MAX,
    batch::batch,
    deadline::Deadline,
    expected::Demand,
    proposed::Events,
    proto::event_store::client::streams::{
        AppendReq, AppendResp, BatchAppendReq, BatchAppendResp, DeleteReq, DeleteResp, ReadReq,
        ReadResp, TombstoneReq, TombstoneResp, append_req, streams_server,
    },
    read::read,
    request::{self, Asked},
    response,
    subscribe::subscribe,
    trouble::Trouble,
};
use crate::service::Service;

/// See the module's docs.
pub(crate) struct Streams<E: Env> {
    service: Service<E>,
}

impl<E: Env> Streams<E> {
    pub(crate) fn new(service: Service<E>) -> Self {
        Streams { service }
    }
}

/// What is sent to a client piece by piece.
type Told<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A message that is too large to be taken apart is an append that is too large.
pub(crate) fn too_large(status: Status) -> Status {
    if status.code() != Code::OutOfRange {
        return status;
    }
    let why = format!("a message may have {MESSAGE_BYTES_MAX} bytes: {}", status.message());
    Trouble::TooLarge(why).status("Append", "")
}

fn invalid(trouble: Trouble) -> Status {
    trouble.status("", "")
}

#[tonic::async_trait]
impl<E: Env> streams_server::Streams for Streams<E> {
    type ReadStream = Told<ReadResp>;
    type BatchAppendStream = Told<BatchAppendResp>;

    async fn read(&self, request: Request<ReadReq>) -> Result<Response<Told<ReadResp>>, Status> {
        let deadline = Deadline::of(request.metadata()).map_err(invalid)?;
        let told: Told<ReadResp> =
            match request::asked(request.into_inner().options).map_err(invalid)? {
                Asked::Read(asked) => Box::pin(read(self.service.clone(), asked, deadline).await?),
                Asked::Subscription(asked) => Box::pin(subscribe(&self.service, asked, deadline)),
            };
        Ok(Response::new(told))
    }

    async fn append(
        &self,
        request: Request<Streaming<AppendReq>>,
    ) -> Result<Response<AppendResp>, Status> {
        let deadline = Deadline::of(request.metadata()).map_err(invalid)?;
        let mut messages = request.into_inner();
        let received = async {
            let first = messages.message().await.map_err(too_large)?.and_then(|m| m.content);
            let Some(append_req::Content::Options(options)) = first else {
                return Err(invalid(Trouble::invalid("options", "must be the first message")));
            };
            let stream = request::stream_name(options.stream_identifier).map_err(invalid)?;
            let expected = options.expected_stream_revision.expected().map_err(invalid)?;
            let mut events = Events::default();
            while let Some(message) = messages.message().await.map_err(too_large)? {
                let Some(append_req::Content::ProposedMessage(proposed)) = message.content else {
                    let why = "every message behind the first must have one";
                    return Err(invalid(Trouble::invalid("proposed_message", why)));
                };
                events.push(proposed).map_err(invalid)?;
            }
            Ok((stream, expected, events.done()))
        };
        // Nothing is written before all of it is here: a client that falls silent costs its deadline.
        let received = tokio::time::timeout(deadline.left(), received).await;
        let (stream, expected, events) = received.map_err(|_| invalid(Deadline::trouble()))??;
        let id = crate::append_id::append_id(&events);
        let name = stream.clone();
        let append = Append { stream, expected, described: Expected::Any, id, events };
        let appended = self.service.append(append, deadline.left()).await;
        match appended.map_err(|error| Trouble::from(error).after(deadline)) {
            Ok(appended) => Ok(Response::new(response::appended(&appended))),
            Err(Trouble::WrongExpected { expected, actual }) => {
                Ok(Response::new(response::wrong_expected(expected, actual)))
            }
            Err(trouble) => Err(trouble.status("Append", name.as_str())),
        }
    }

    async fn batch_append(
        &self,
        request: Request<Streaming<BatchAppendReq>>,
    ) -> Result<Response<Told<BatchAppendResp>>, Status> {
        let deadline = Deadline::of(request.metadata()).map_err(invalid)?;
        let answers = batch(self.service.clone(), request.into_inner(), deadline);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn delete(&self, request: Request<DeleteReq>) -> Result<Response<DeleteResp>, Status> {
        let deadline = Deadline::of(request.metadata()).map_err(invalid)?;
        let options = request.into_inner().options;
        let options = options.ok_or_else(|| invalid(Trouble::invalid("options", "missing")))?;
        let stream = request::stream_name(options.stream_identifier).map_err(invalid)?;
        let expected = options.expected_stream_revision.expected().map_err(invalid)?;
        let deleted = self.service.delete(stream.clone(), expected, deadline.left()).await;
        match deleted.map_err(|error| Trouble::from(error).after(deadline)) {
            Ok(appended) => Ok(Response::new(response::deleted(&appended))),
            Err(trouble) => Err(trouble.status("Delete", stream.as_str())),
        }
    }

    async fn tombstone(
        &self,
        request: Request<TombstoneReq>,
    ) -> Result<Response<TombstoneResp>, Status> {
        let deadline = Deadline::of(request.metadata()).map_err(invalid)?;
        let options = request.into_inner().options;
        let options = options.ok_or_else(|| invalid(Trouble::invalid("options", "missing")))?;
        let stream = request::stream_name(options.stream_identifier).map_err(invalid)?;
        let expected = options.expected_stream_revision.expected().map_err(invalid)?;
        let ended = self.service.tombstone(stream.clone(), expected, deadline.left()).await;
        match ended.map_err(|error| Trouble::from(error).after(deadline)) {
            Ok(appended) => Ok(Response::new(response::tombstoned(&appended))),
            Err(trouble) => Err(trouble.status("Tombstone", stream.as_str())),
        }
    }
}
