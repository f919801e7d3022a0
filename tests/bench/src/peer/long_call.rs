//! Appends as KurrentDB's Node client makes them: each is a message on one call of BatchAppend, which stays open as long as the
//! connection, and so has no head and no trailers of its own. Still one append is in flight on a connection.

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use h2::SendStream;

use super::{
    Connection, Peer, Place, Stream, event_id,
    stormkeep::{Proposals, StreamsConnection, StreamsSubscription, identifier, paused, wire_id},
};
use crate::{
    grpc::{Grpc, Replies, frame},
    proto::{
        client::{Empty, Uuid},
        streams::{BatchAppendReq, BatchAppendResp, batch_append_req, batch_append_resp},
    },
};

/// gRPC's code for a server that cannot do it now.
const UNAVAILABLE: i32 = 14;

/// A peer that speaks the protocol.
pub trait Spoken: Peer<Subscription = StreamsSubscription> {
    const LONG_CALL_NAME: &'static str;
    const LONG_CALL_TITLE: &'static str;
    fn port(&self) -> u16;
}

/// The same peer, appended to over one long call.
pub struct LongCall<P>(P);

impl<P: Spoken> Peer for LongCall<P> {
    type Connection = LongCallConnection;
    type Subscription = StreamsSubscription;
    const NAME: &'static str = P::LONG_CALL_NAME;
    const TITLE: &'static str = P::LONG_CALL_TITLE;
    const DURABLE: bool = P::DURABLE;
    const KEEPS: bool = P::KEEPS;
    const AGAINST: &'static str = "long-call";
    const NOTE: &'static str = "as the row without it, but each append is a message on one call of BatchAppend that stays open, \
         as the Node client's `appendToStream` does it";

    async fn install(place: &Place) -> Result<()> {
        P::install(place).await
    }

    async fn start(place: &Place) -> Result<Self> {
        Ok(Self(P::start(place).await?))
    }

    fn pid(&self) -> u32 {
        self.0.pid()
    }

    async fn connect(&self) -> Result<LongCallConnection> {
        LongCallConnection::connect(self.0.port()).await
    }

    async fn subscribe(&self) -> Result<StreamsSubscription> {
        self.0.subscribe().await
    }
}

pub struct LongCallConnection {
    send: SendStream<Bytes>,
    replies: Replies,
    proposals: Proposals,
    body: BytesMut,
    reader: StreamsConnection,
}

impl LongCallConnection {
    async fn connect(port: u16) -> Result<Self> {
        let mut grpc = Grpc::connect(port).await?;
        let path = "/event_store.client.streams.Streams/BatchAppend";
        let (send, replies) = grpc.open(path).await?;
        let reader = StreamsConnection::over(grpc);
        Ok(Self { send, replies, proposals: Proposals::new(), body: BytesMut::new(), reader })
    }

    async fn send(&mut self, id: Option<&Uuid>, body: Bytes) -> Result<batch_append_resp::Result> {
        self.send.send_data(body, false)?;
        let answer = self.replies.next::<BatchAppendResp>().await?;
        let answer = answer.context("the call was ended")?;
        ensure!(answer.correlation_id.as_ref() == id, "the answer to another append");
        answer.result.context("an answer without a result")
    }
}

impl Connection for LongCallConnection {
    async fn append(&mut self, stream: &mut Stream, count: usize) -> Result<()> {
        use batch_append_req::{Options, options::ExpectedStreamPosition};
        let expected = match stream.events.checked_sub(1) {
            Some(revision) => ExpectedStreamPosition::StreamPosition(revision),
            None => ExpectedStreamPosition::NoStream(Empty {}),
        };
        let options = Options {
            stream_identifier: identifier(&stream.name),
            expected_stream_position: Some(expected),
        };
        let id = wire_id(event_id());
        let request = BatchAppendReq {
            correlation_id: id.clone(),
            options: Some(options),
            proposed_messages: (0..count).map(|_| self.proposals.next()).collect(),
            is_final: true,
        };
        frame(&mut self.body, &request)?;
        let body = self.body.split().freeze();
        loop {
            match self.send(id.as_ref(), body.clone()).await? {
                batch_append_resp::Result::Success(_) => break,
                batch_append_resp::Result::Error(error) if error.code == UNAVAILABLE => {
                    paused().await;
                }
                batch_append_resp::Result::Error(error) => {
                    bail!("the append at {} events was refused: {error:?}", stream.events)
                }
            }
        }
        stream.events += count as u64;
        Ok(())
    }

    async fn read(&mut self, stream: &Stream) -> Result<usize> {
        self.reader.read(stream).await
    }
}
