//! A client that speaks the wire protocol and gives up on nothing: it connects again and asks again.

use std::time::Duration;

use stormkeep::api::grpc::{
    proposed::Proposed,
    proto::event_store::client::{
        Empty, StreamIdentifier, Uuid,
        streams::{
            AppendReq, ReadReq, append_req, append_resp, read_req, read_resp,
            streams_client::StreamsClient,
        },
        uuid,
    },
};
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint, Uri},
};

use crate::net;

/// How an append ended, as far as its client knows.
pub(crate) enum Outcome {
    /// It is there, with this revision.
    Done(u64),
    /// It may be there.
    Unknown,
    /// It will never be.
    Refused(String),
}

pub(crate) struct Client {
    streams: Option<StreamsClient<Channel>>,
}

impl Client {
    pub(crate) fn new() -> Self {
        Client { streams: None }
    }

    async fn connected(&mut self) -> Result<StreamsClient<Channel>, Status> {
        if let Some(streams) = &self.streams {
            return Ok(streams.clone());
        }
        let endpoint = Endpoint::from_static("http://server:2113")
            .connect_timeout(Duration::from_secs(1))
            .http2_keep_alive_interval(Duration::from_secs(1))
            .keep_alive_timeout(Duration::from_secs(1));
        let connector = tower::service_fn(|_: Uri| net::connect());
        let channel = endpoint
            .connect_with_connector(connector)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let streams = StreamsClient::new(channel);
        self.streams = Some(streams.clone());
        Ok(streams)
    }

    /// Appends one event, whatever the stream is.
    pub(crate) async fn append(&mut self, stream: &str, id: u128, timeout: Duration) -> Outcome {
        let answer = tokio::time::timeout(timeout, self.try_append(stream, id)).await;
        match answer {
            Ok(Ok(revision)) => Outcome::Done(revision),
            Ok(Err(status)) if status.code() == Code::InvalidArgument => {
                Outcome::Refused(status.to_string())
            }
            Ok(Err(_)) | Err(_) => {
                self.streams = None;
                Outcome::Unknown
            }
        }
    }

    async fn try_append(&mut self, stream: &str, id: u128) -> Result<u64, Status> {
        let mut streams = self.connected().await?;
        let options = append_req::Options {
            stream_identifier: Some(StreamIdentifier {
                stream_name: stream.as_bytes().to_vec().into(),
            }),
            expected_stream_revision: Some(append_req::options::ExpectedStreamRevision::Any(
                Empty {},
            )),
        };
        let message = Proposed {
            id: Some(Uuid {
                value: Some(uuid::Value::String(::uuid::Uuid::from_u128(id).to_string())),
            }),
            kind: Some("tested".into()),
            content_type: Some("application/octet-stream".into()),
            data: vec![7; 64].into(),
            ..Default::default()
        };
        let messages =
            [append_req::Content::Options(options), append_req::Content::ProposedMessage(message)];
        let messages = messages.map(|content| AppendReq { content: Some(content) });
        let answer = streams.append(Request::new(tokio_stream::iter(messages))).await?.into_inner();
        match answer.result {
            Some(append_resp::Result::Success(success)) => match success.current_revision_option {
                Some(append_resp::success::CurrentRevisionOption::CurrentRevision(revision)) => {
                    Ok(revision)
                }
                other => Err(Status::invalid_argument(format!("no revision: {other:?}"))),
            },
            other => Err(Status::invalid_argument(format!("no success: {other:?}"))),
        }
    }

    /// All events: stream, id, revision.
    pub(crate) async fn read_everything(&mut self) -> Vec<(String, u128, u64)> {
        loop {
            match self.try_read_everything().await {
                Ok(events) => return events,
                Err(_) => self.streams = None,
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn try_read_everything(&mut self) -> Result<Vec<(String, u128, u64)>, Status> {
        use read_req::options::{
            AllOptions, CountOption, FilterOption, StreamOption, UuidOption,
            all_options::AllOption, uuid_option,
        };
        let options = read_req::Options {
            stream_option: Some(StreamOption::All(AllOptions {
                all_option: Some(AllOption::Start(Empty {})),
            })),
            count_option: Some(CountOption::Count(100_000)),
            filter_option: Some(FilterOption::NoFilter(Empty {})),
            uuid_option: Some(UuidOption { content: Some(uuid_option::Content::String(Empty {})) }),
            ..Default::default()
        };
        let mut streams = self.connected().await?;
        let read = ReadReq { options: Some(options) };
        let mut answers = streams.read(read).await?.into_inner();
        let mut events = Vec::new();
        while let Some(answer) = answers.message().await? {
            let Some(read_resp::Content::Event(event)) = answer.content else { continue };
            let event = event.event.ok_or_else(|| Status::internal("no event"))?;
            let stream = event.stream_identifier.unwrap_or_default().stream_name;
            let Some(uuid::Value::String(id)) = event.id.and_then(|id| id.value) else {
                return Err(Status::internal("no id"));
            };
            let id = ::uuid::Uuid::parse_str(&id).map_err(|e| Status::internal(e.to_string()))?;
            let stream = String::from_utf8_lossy(&stream).into_owned();
            events.push((stream, id.as_u128(), event.stream_revision));
        }
        Ok(events)
    }
}
