//! The ceiling: the same HTTP/2 stack and the same messages with nothing behind them. What Stormkeep reaches of it is what its
//! own work leaves; the rest is the price of the protocol.

use std::{net::SocketAddr, pin::Pin, process::Command};

use anyhow::Result;
use bytes::Bytes;
use tokio_stream::{Stream as Items, StreamExt, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use super::{
    KIND, Peer, Place,
    long_call::Spoken,
    payload,
    stormkeep::{StreamsConnection, StreamsSubscription},
};
use crate::{
    process::{self, Program},
    proto::{
        client::{StreamIdentifier, Uuid, uuid},
        streams::{
            AppendReq, AppendResp, BatchAppendReq, BatchAppendResp, ReadReq, ReadResp, append_resp,
            batch_append_resp, read_resp,
            streams_server::{Streams, StreamsServer},
        },
    },
};

pub struct Ceiling {
    program: Program,
    port: u16,
}

impl Peer for Ceiling {
    type Connection = StreamsConnection;
    type Subscription = StreamsSubscription;
    const NAME: &'static str = "ceiling";
    const TITLE: &'static str = "Ceiling: tonic, empty handler";
    const DURABLE: bool = false;
    const KEEPS: bool = false;
    const NOTE: &'static str = "no store at all: a tonic 0.14 server of the same protocol in another process, which takes the append's messages and answers; \
         its read answers 20 made-up events";

    async fn install(_: &Place) -> Result<()> {
        Ok(())
    }

    async fn start(place: &Place) -> Result<Self> {
        let port = process::free_port()?;
        let log = place.data.join("log");
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("ceiling-server").arg(port.to_string());
        let mut program = Program::start(&mut command, &log, "TERM")?;
        let ready = async || process::listens(port);
        process::until_ready(&mut program, &log, 10, ready).await?;
        Ok(Self { program, port })
    }

    fn pid(&self) -> u32 {
        self.program.pid()
    }

    async fn connect(&self) -> Result<StreamsConnection> {
        StreamsConnection::connect(self.port).await
    }

    async fn subscribe(&self) -> Result<StreamsSubscription> {
        anyhow::bail!("the ceiling keeps nothing to subscribe to")
    }
}

impl Spoken for Ceiling {
    const LONG_CALL_NAME: &'static str = "long-call-ceiling";
    const LONG_CALL_TITLE: &'static str = "Ceiling, one long call";

    fn port(&self) -> u16 {
        self.port
    }
}

struct Nothing {
    events: Vec<ReadResp>,
}

#[tonic::async_trait]
impl Streams for Nothing {
    type ReadStream = Pin<Box<dyn Items<Item = Result<ReadResp, Status>> + Send>>;

    async fn read(&self, _: Request<ReadReq>) -> Result<Response<Self::ReadStream>, Status> {
        let events = self.events.clone();
        Ok(Response::new(Box::pin(tokio_stream::iter(events).map(Ok))))
    }

    type BatchAppendStream = Pin<Box<dyn Items<Item = Result<BatchAppendResp, Status>> + Send>>;

    async fn batch_append(
        &self,
        request: Request<Streaming<BatchAppendReq>>,
    ) -> Result<Response<Self::BatchAppendStream>, Status> {
        let answers = request.into_inner().map(|request| {
            let success = batch_append_resp::Success {
                current_revision_option: Some(
                    batch_append_resp::success::CurrentRevisionOption::CurrentRevision(0),
                ),
                position_option: Some(batch_append_resp::success::PositionOption::Position(
                    append_resp::Position { commit_position: 1 << 40, prepare_position: 1 << 40 },
                )),
            };
            let result = Some(batch_append_resp::Result::Success(success));
            Ok(BatchAppendResp { correlation_id: request?.correlation_id, result })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn append(
        &self,
        request: Request<Streaming<AppendReq>>,
    ) -> Result<Response<AppendResp>, Status> {
        let mut messages = request.into_inner();
        while messages.message().await?.is_some() {}
        let success = append_resp::Success {
            current_revision_option: Some(
                append_resp::success::CurrentRevisionOption::CurrentRevision(0),
            ),
            position_option: Some(append_resp::success::PositionOption::Position(
                append_resp::Position { commit_position: 1 << 40, prepare_position: 1 << 40 },
            )),
        };
        let result = Some(append_resp::Result::Success(success));
        Ok(Response::new(AppendResp { result }))
    }
}

fn event(revision: u64) -> ReadResp {
    let id = uuid::Structured { most_significant_bits: 1 << 60, least_significant_bits: 1 << 61 };
    let pairs = [
        ("type", KIND),
        ("created", "17000000000000000"),
        ("content-type", "application/octet-stream"),
    ];
    let recorded = read_resp::read_event::RecordedEvent {
        id: Some(Uuid { value: Some(uuid::Value::Structured(id)) }),
        stream_identifier: Some(StreamIdentifier { stream_name: Bytes::from_static(b"r123-1") }),
        stream_revision: revision,
        prepare_position: 1 << 40,
        commit_position: 1 << 40,
        metadata: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        custom_metadata: Bytes::new(),
        data: Bytes::copy_from_slice(&payload()),
    };
    let position = Some(read_resp::read_event::Position::CommitPosition(1 << 40));
    let event = read_resp::ReadEvent { event: Some(recorded), position };
    ReadResp { content: Some(read_resp::Content::Event(event)) }
}

/// The other process: serves until it is stopped.
pub async fn serve(port: u16) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).await?;
    let incoming = TcpListenerStream::new(listener)
        .map(|socket| socket.and_then(|socket| socket.set_nodelay(true).map(|()| socket)));
    let nothing = Nothing { events: (0..crate::workload::READ_EVENTS).map(event).collect() };
    tonic::transport::Server::builder()
        .add_service(StreamsServer::new(nothing))
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}
