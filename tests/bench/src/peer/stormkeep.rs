//! Stormkeep itself, through its gRPC API: the protocol of KurrentDB's Streams service.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use prost::Message;

use super::{
    Connection, KIND, LATENCY, Peer, Place, Stream, Subscription, event_id, long_call::Spoken,
    payload,
};
use crate::{
    grpc::{Grpc, Replies, frame},
    process::{self, Program},
    proto::{
        client::{Empty, StreamIdentifier, Uuid, uuid},
        streams::{
            AppendReq, AppendResp, ReadReq, append_req, append_req::ProposedMessage, append_resp,
            read_req,
        },
    },
};

/// How often the server said that it is busy, and the append was sent again.
pub static BUSY: AtomicU64 = AtomicU64::new(0);
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Busy means that nothing was appended. The pause is part of the measured time.
pub async fn paused() {
    BUSY.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(BUSY_PAUSE).await;
}

pub struct Stormkeep {
    pub program: Program,
    pub port: u16,
}

/// Builds the binary of the workspace as it is deployed that this package lies in.
pub async fn build(log: &Path) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--profile", "dist", "-p", "stormkeep"]).current_dir(root);
    process::forget_package(&mut cargo);
    process::run(&mut cargo, log).await.context("Stormkeep's release build failed")
}

/// Where that binary is.
pub fn binary() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/dist/stormkeep")
}

impl Stormkeep {
    /// Starts the server on `data`, whatever is in it, and returns at once.
    pub fn launch(data: &Path, log: &Path) -> Result<Self> {
        let port = process::free_port()?;
        let mut command = Command::new(binary());
        command.arg("serve").arg("--data").arg(data);
        command.arg("--listen").arg(format!("127.0.0.1:{port}"));
        Ok(Self { program: Program::start(&mut command, log, "INT")?, port })
    }

    pub async fn until_ready(&mut self, log: &Path, seconds_max: u64) -> Result<()> {
        let port = self.port;
        let ready = async || process::http_status(port, "/health/ready") == 200;
        process::until_ready(&mut self.program, log, seconds_max, ready).await
    }
}

impl Peer for Stormkeep {
    type Connection = StreamsConnection;
    type Subscription = StreamsSubscription;
    const NAME: &'static str = "stormkeep";
    const TITLE: &'static str = "Stormkeep";
    const NOTE: &'static str =
        "`stormkeep serve` with default settings; gRPC Append, Read and Read as a subscription";

    async fn install(place: &Place) -> Result<()> {
        build(&place.cache.join("stormkeep-build.log")).await
    }

    async fn start(place: &Place) -> Result<Self> {
        let log = place.data.join("log");
        let mut server = Self::launch(&place.data.join("data"), &log)?;
        server.until_ready(&log, 60).await?;
        Ok(server)
    }

    fn pid(&self) -> u32 {
        self.program.pid()
    }

    async fn connect(&self) -> Result<StreamsConnection> {
        StreamsConnection::connect(self.port).await
    }

    async fn subscribe(&self) -> Result<StreamsSubscription> {
        StreamsSubscription::start(self.port).await
    }
}

impl Spoken for Stormkeep {
    const LONG_CALL_NAME: &'static str = "long-call";
    const LONG_CALL_TITLE: &'static str = "Stormkeep, one long call";

    fn port(&self) -> u16 {
        self.port
    }
}

/// A `ReadResp`, as far as the load looks into it: events are counted and not taken apart, as with the other peers.
#[derive(Clone, PartialEq, Message)]
struct Told {
    #[prost(bytes = "bytes", optional, tag = "1")]
    event: Option<Bytes>,
}

/// One HTTP/2 connection that appends and reads.
pub struct StreamsConnection {
    grpc: Grpc,
    proposals: Proposals,
    body: BytesMut,
}

/// New events, as the protocol has them.
pub struct Proposals {
    metadata: HashMap<String, String>,
}

impl Proposals {
    pub fn new() -> Self {
        let pairs = [("type", KIND), ("content-type", "application/octet-stream")];
        Self { metadata: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into() }
    }

    pub fn next(&self) -> ProposedMessage {
        ProposedMessage {
            id: wire_id(event_id()),
            metadata: self.metadata.clone(),
            custom_metadata: Bytes::new(),
            data: Bytes::copy_from_slice(&payload()),
        }
    }
}

impl StreamsConnection {
    pub async fn connect(port: u16) -> Result<Self> {
        Ok(Self::over(Grpc::connect(port).await?))
    }

    pub fn over(grpc: Grpc) -> Self {
        Self { grpc, proposals: Proposals::new(), body: BytesMut::new() }
    }

    async fn send(&mut self, body: Bytes) -> Result<AppendResp> {
        let path = "/event_store.client.streams.Streams/Append";
        let mut replies = self.grpc.call(path, body).await?;
        let answer = replies.next().await?.context("an append without an answer")?;
        // The end of the call carries its status.
        if replies.next::<AppendResp>().await?.is_some() {
            bail!("two answers to one append");
        }
        Ok(answer)
    }
}

pub fn wire_id(id: u128) -> Option<Uuid> {
    let structured = uuid::Structured {
        most_significant_bits: (id >> 64) as i64,
        least_significant_bits: id as i64,
    };
    Some(Uuid { value: Some(uuid::Value::Structured(structured)) })
}

pub fn identifier(name: &str) -> Option<StreamIdentifier> {
    Some(StreamIdentifier { stream_name: Bytes::copy_from_slice(name.as_bytes()) })
}

fn read_request(stream: &str, how: read_req::options::CountOption) -> Result<Bytes> {
    use read_req::options::{
        ControlOption, FilterOption, StreamOption, StreamOptions, UuidOption,
        stream_options::RevisionOption, uuid_option,
    };
    let options = read_req::Options {
        read_direction: 0,
        resolve_links: false,
        uuid_option: Some(UuidOption { content: Some(uuid_option::Content::Structured(Empty {})) }),
        control_option: Some(ControlOption { compatibility: 1 }),
        stream_option: Some(StreamOption::Stream(StreamOptions {
            stream_identifier: identifier(stream),
            revision_option: Some(RevisionOption::Start(Empty {})),
        })),
        count_option: Some(how),
        filter_option: Some(FilterOption::NoFilter(Empty {})),
    };
    let mut body = BytesMut::new();
    frame(&mut body, &ReadReq { options: Some(options) })?;
    Ok(body.freeze())
}

impl Connection for StreamsConnection {
    async fn append(&mut self, stream: &mut Stream, count: usize) -> Result<()> {
        use append_req::{Content, options::ExpectedStreamRevision};
        let expected = match stream.events.checked_sub(1) {
            Some(revision) => ExpectedStreamRevision::Revision(revision),
            None => ExpectedStreamRevision::NoStream(Empty {}),
        };
        let options = append_req::Options {
            stream_identifier: identifier(&stream.name),
            expected_stream_revision: Some(expected),
        };
        frame(&mut self.body, &AppendReq { content: Some(Content::Options(options)) })?;
        for _ in 0..count {
            let message = self.proposals.next();
            frame(&mut self.body, &AppendReq { content: Some(Content::ProposedMessage(message)) })?;
        }
        let body = self.body.split().freeze();
        let mut answer = self.send(body.clone()).await;
        while answer.as_ref().is_err_and(|error| error.to_string().contains("gRPC status 14:")) {
            paused().await;
            answer = self.send(body.clone()).await;
        }
        let answer = answer?;
        match answer.result {
            Some(append_resp::Result::Success(_)) => {}
            other => bail!("the append at {} events was refused: {other:?}", stream.events),
        }
        stream.events += count as u64;
        Ok(())
    }

    async fn read(&mut self, stream: &Stream) -> Result<usize> {
        let body = read_request(&stream.name, read_req::options::CountOption::Count(1000))?;
        let path = "/event_store.client.streams.Streams/Read";
        let mut replies = self.grpc.call(path, body).await?;
        let mut events = 0;
        while let Some(told) = replies.next::<Told>().await? {
            events += usize::from(told.event.is_some());
        }
        Ok(events)
    }
}

pub struct StreamsSubscription {
    replies: Replies,
    /// The connection lives as long as something may call on it.
    _grpc: Grpc,
}

impl StreamsSubscription {
    pub async fn start(port: u16) -> Result<Self> {
        use read_req::options::{CountOption, SubscriptionOptions};
        let mut grpc = Grpc::connect(port).await?;
        let body = read_request(LATENCY, CountOption::Subscription(SubscriptionOptions {}))?;
        let replies = grpc.call("/event_store.client.streams.Streams/Read", body).await?;
        Ok(Self { replies, _grpc: grpc })
    }
}

impl Subscription for StreamsSubscription {
    async fn next(&mut self) -> Result<usize> {
        loop {
            let told: Told = self.replies.next().await?.context("the subscription ended")?;
            if told.event.is_some() {
                return Ok(1);
            }
        }
    }
}
