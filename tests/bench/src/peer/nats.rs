//! NATS JetStream: not durable as shipped, since it acknowledges before it flushes. Measured as what that saves.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Connection, LATENCY, Peer, Place, Stream, Subscription, payload};
use crate::process::{self, Program};

pub struct Nats {
    program: Program,
    port: u16,
}

impl Peer for Nats {
    type Connection = NatsConnection;
    type Subscription = NatsSubscription;
    const NAME: &'static str = "nats";
    const TITLE: &'static str = "NATS 2.9 JetStream";
    const DURABLE: bool = false;
    const NOTE: &'static str = "**not durable**: no flush before the acknowledgement (`sync_interval` is 2 minutes). File storage, a subject for every stream, \
         Nats-Expected-Last-Subject-Sequence; a read is an ephemeral push consumer with a filter, made and deleted; a push consumer";

    async fn install(place: &Place) -> Result<()> {
        let folder = place.cache.join("nats");
        process::script("nats.sh", &[&folder], &place.cache.join("nats.log")).await
    }

    async fn start(place: &Place) -> Result<Self> {
        let port = process::free_port()?;
        let log = place.data.join("log");
        let mut command = Command::new(place.cache.join("nats/usr/sbin/nats-server"));
        command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"]).arg(&place.data);
        let mut program = Program::start(&mut command, &log, "TERM")?;
        let ready = async || process::listens(port);
        process::until_ready(&mut program, &log, 10, ready).await?;
        let mut connection = NatsConnection::connect(port).await?;
        let stream = json!({
            "name": "E", "subjects": ["e.>"], "storage": "file", "retention": "limits",
            "max_msgs": -1, "max_bytes": -1, "max_consumers": -1, "num_replicas": 1,
        });
        connection.ask("$JS.API.STREAM.CREATE.E", &stream).await?;
        Ok(Self { program, port })
    }

    fn pid(&self) -> u32 {
        self.program.pid()
    }

    async fn connect(&self) -> Result<NatsConnection> {
        NatsConnection::connect(self.port).await
    }

    async fn subscribe(&self) -> Result<NatsSubscription> {
        let mut connection = self.connect().await?;
        connection.consume(LATENCY).await?;
        Ok(NatsSubscription { connection })
    }
}

/// A lean client of the NATS protocol. Answers to requests come to one inbox, delivered events to another.
pub struct NatsConnection {
    socket: TcpStream,
    incoming: BytesMut,
    inbox: String,
}

/// Which of the two inboxes a message came to, and its payload.
enum Message {
    Answer(Bytes),
    Event,
}

impl NatsConnection {
    async fn connect(port: u16) -> Result<Self> {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
        socket.set_nodelay(true)?;
        let inbox = format!("_INBOX.{:016x}", fastrand::u64(..));
        let hello = format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false,\"headers\":true,\"lang\":\"rust\",\"version\":\"0\"}}\r\n\
             SUB {inbox}.a 1\r\nSUB {inbox}.e 2\r\n"
        );
        socket.write_all(hello.as_bytes()).await?;
        Ok(Self { socket, incoming: BytesMut::with_capacity(16 << 10), inbox })
    }

    async fn fill(&mut self) -> Result<()> {
        ensure!(
            self.socket.read_buf(&mut self.incoming).await? > 0,
            "the server closed the connection"
        );
        Ok(())
    }

    async fn next(&mut self) -> Result<Message> {
        loop {
            let Some(end) = self.incoming.windows(2).position(|two| two == b"\r\n") else {
                self.fill().await?;
                continue;
            };
            let line = self.incoming.split_to(end + 2);
            let line = std::str::from_utf8(&line[..end])?.to_owned();
            let words: Vec<&str> = line.split(' ').collect();
            match words[0] {
                "MSG" | "HMSG" => {
                    let length: usize = words.last().copied().unwrap_or_default().parse()?;
                    while self.incoming.len() < length + 2 {
                        self.fill().await?;
                    }
                    let data = self.incoming.split_to(length).freeze();
                    self.incoming.advance(2);
                    match words[2] {
                        "1" => return Ok(Message::Answer(data)),
                        _ => return Ok(Message::Event),
                    }
                }
                "PING" => self.socket.write_all(b"PONG\r\n").await?,
                "-ERR" => bail!("the server says: {line}"),
                _ => {}
            }
        }
    }

    /// The next answer. Events that come before it are counted.
    async fn answer(&mut self, events: &mut usize) -> Result<Bytes> {
        loop {
            match self.next().await? {
                Message::Answer(data) => return Ok(data),
                Message::Event => *events += 1,
            }
        }
    }

    /// A request to the JetStream API. Returns its answer and how many events came before it.
    async fn ask(&mut self, subject: &str, body: &Value) -> Result<(Value, usize)> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!("PUB {subject} {}.a {}\r\n{body}\r\n", self.inbox, body.len());
        self.socket.write_all(request.as_bytes()).await?;
        let mut events = 0;
        let answer: Value = serde_json::from_slice(&self.answer(&mut events).await?)?;
        if let Some(error) = answer.get("error") {
            bail!("the server says: {error}");
        }
        Ok((answer, events))
    }

    /// Has the events of one stream delivered to this connection. Returns the consumer's name, the number of its events
    /// at this moment, and how many of them came already.
    async fn consume(&mut self, stream: &str) -> Result<(String, usize, usize)> {
        let consumer = json!({
            "stream_name": "E",
            "config": {
                "deliver_subject": format!("{}.e", self.inbox), "deliver_policy": "all",
                "filter_subject": format!("e.{stream}"), "ack_policy": "none",
                "replay_policy": "instant", "mem_storage": true, "inactive_threshold": 60_000_000_000_u64,
            },
        });
        let (answer, came) = self.ask("$JS.API.CONSUMER.CREATE.E", &consumer).await?;
        let name = answer["name"].as_str().context("a consumer without a name")?.to_owned();
        let pending = answer["num_pending"].as_u64().unwrap_or(0) as usize;
        let sent = answer["delivered"]["consumer_seq"].as_u64().unwrap_or(0) as usize;
        Ok((name, pending + sent, came))
    }
}

impl Connection for NatsConnection {
    async fn append(&mut self, stream: &mut Stream, count: usize) -> Result<()> {
        for _ in 0..count {
            let header = format!(
                "NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: {}\r\n\r\n",
                stream.token
            );
            let total = header.len() + super::EVENT_BYTES;
            let mut request = format!(
                "HPUB e.{} {}.a {} {total}\r\n{header}",
                stream.name,
                self.inbox,
                header.len()
            )
            .into_bytes();
            request.extend_from_slice(&payload());
            request.extend_from_slice(b"\r\n");
            self.socket.write_all(&request).await?;
            let answer: Value = serde_json::from_slice(&self.answer(&mut 0).await?)?;
            // A refusal has a sequence too.
            if let Some(error) = answer.get("error") {
                bail!("refused: {error}");
            }
            stream.token = answer["seq"].as_u64().context("an answer without a sequence")?;
            stream.events += 1;
        }
        Ok(())
    }

    async fn read(&mut self, stream: &Stream) -> Result<usize> {
        let (name, events, mut came) = self.consume(&stream.name).await?;
        while came < events {
            match self.next().await? {
                Message::Event => came += 1,
                Message::Answer(_) => bail!("an answer without a request"),
            }
        }
        self.ask(&format!("$JS.API.CONSUMER.DELETE.E.{name}"), &Value::Null).await?;
        Ok(came)
    }
}

pub struct NatsSubscription {
    connection: NatsConnection,
}

impl Subscription for NatsSubscription {
    async fn next(&mut self) -> Result<usize> {
        loop {
            if let Message::Event = self.connection.next().await? {
                return Ok(1);
            }
        }
    }
}
