//! The service `Streams`: each method in a few lines, over what its neighbours do.

use std::time::Duration;

use futures::{StreamExt, stream::BoxStream};
use stormkeep_core::env::Env;
use tonic::{Request, Response, Status, Streaming};

use super::{append, batch, message, read::Asked, status, timeout_of};
use crate::{
    api::proto::streams::{
        AppendReq, AppendResp, BatchAppendReq, BatchAppendResp, DeleteReq, DeleteResp, ReadReq,
        ReadResp, TombstoneReq, TombstoneResp, delete_resp, streams_server::Streams,
        tombstone_resp,
    },
    service::Service,
};

pub(super) struct Api<E: Env> {
    service: Service<E>,
    /// The longest that a call may take.
    timeout: Duration,
}

impl<E: Env> Api<E> {
    pub(super) fn new(service: Service<E>, timeout: Duration) -> Self {
        Api { service, timeout }
    }
}

#[tonic::async_trait]
impl<E: Env> Streams for Api<E> {
    type ReadStream = BoxStream<'static, Result<ReadResp, Status>>;
    type BatchAppendStream = BoxStream<'static, Result<BatchAppendResp, Status>>;

    async fn read(&self, request: Request<ReadReq>) -> Result<Response<Self::ReadStream>, Status> {
        let timeout = timeout_of(&request, self.timeout);
        let asked = Asked::new(request.into_inner())?;
        let answers = asked.answers(self.service.clone(), timeout).await?;
        let answers =
            answers.map(|answer| answer.map(|content| ReadResp { content: Some(content) }));
        Ok(Response::new(answers.boxed()))
    }

    async fn append(
        &self,
        request: Request<Streaming<AppendReq>>,
    ) -> Result<Response<AppendResp>, Status> {
        let timeout = timeout_of(&request, self.timeout);
        // A client that begins and does not go on is not waited for for ever.
        let gathered = tokio::time::timeout(timeout, append::gather(request.into_inner())).await;
        let gathered = gathered.map_err(|_| {
            Status::deadline_exceeded(
                "the rest of the append did not come in time; nothing was written",
            )
        })??;
        append::append(&self.service, gathered, timeout).await.map(Response::new)
    }

    async fn delete(&self, request: Request<DeleteReq>) -> Result<Response<DeleteResp>, Status> {
        let timeout = timeout_of(&request, self.timeout);
        let missing = || Status::invalid_argument("options is missing");
        let options = request.into_inner().options.ok_or_else(missing)?;
        let stream = message::stream_name(options.stream_identifier)?;
        let expected = message::delete_expected(options.expected_stream_revision)?;
        let deleted = self.service.delete(stream.clone(), expected, timeout).await;
        let position = deleted.map_err(|error| status::append(&stream, &error))?.position().0;
        let position =
            delete_resp::Position { commit_position: position, prepare_position: position };
        let position_option = Some(delete_resp::PositionOption::Position(position));
        Ok(Response::new(DeleteResp { position_option }))
    }

    async fn tombstone(
        &self,
        request: Request<TombstoneReq>,
    ) -> Result<Response<TombstoneResp>, Status> {
        let timeout = timeout_of(&request, self.timeout);
        let missing = || Status::invalid_argument("options is missing");
        let options = request.into_inner().options.ok_or_else(missing)?;
        let stream = message::stream_name(options.stream_identifier)?;
        let expected = message::tombstone_expected(options.expected_stream_revision)?;
        let ended = self.service.tombstone(stream.clone(), expected, timeout).await;
        let position = ended.map_err(|error| status::append(&stream, &error))?.position().0;
        let position =
            tombstone_resp::Position { commit_position: position, prepare_position: position };
        let position_option = Some(tombstone_resp::PositionOption::Position(position));
        Ok(Response::new(TombstoneResp { position_option }))
    }

    async fn batch_append(
        &self,
        request: Request<Streaming<BatchAppendReq>>,
    ) -> Result<Response<Self::BatchAppendStream>, Status> {
        let answers = batch::answers(self.service.clone(), request.into_inner(), self.timeout);
        Ok(Response::new(answers.boxed()))
    }
}
