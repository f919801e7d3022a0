//! What a server must bear: connections that say nothing, bytes that make no sense, calls that end in their middle, readers
//! that do not read. It answers others all the while, and does not grow.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test: what is wrong here must stop it

mod common;

use std::{fs, time::Duration};

use bytes::{Buf as _, BufMut as _, Bytes};
use common::{Appended, Server, append, read};
use http::uri::PathAndQuery;
use prost::Message as _;
use rand::{RngExt as _, SeedableRng, rngs::StdRng};
use stormkeep::api::grpc::{
    proposed::Proposed,
    proto::event_store::client::{
        Empty, StreamIdentifier, Uuid,
        streams::{
            AppendReq, AppendResp, BatchAppendReq, BatchAppendResp, ReadReq, append_req,
            append_resp, batch_append_req, batch_append_resp, read_req,
        },
        uuid,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Channel, Endpoint},
};

/// Bytes that the process has in memory.
fn resident_bytes(server: &Server) -> u64 {
    let pages = fs::read_to_string(format!("/proc/{}/statm", server.id())).unwrap();
    pages.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// The most that it ever had.
fn resident_bytes_max(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    most.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// The next event goes to its stream: the server serves.
async fn serves(server: &Server, count: &mut u64) {
    let mut client = server.client().await.unwrap();
    let after = count.checked_sub(1);
    let appended = append(&mut client, "served", after, u128::from(*count) + 1, 100).await;
    assert_eq!(appended, Appended::Done(*count));
    *count += 1;
}

const MIB: u64 = 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_cost_little_and_are_closed_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut server =
        Server::start(folder.path(), &["--idle-s", "6", "--log-level", "warn"]).unwrap();
    let mut count = 0;
    serves(&server, &mut count).await;
    let before = resident_bytes(&server);
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let files = limits.lines().find(|l| l.starts_with("Max open files")).unwrap();
    let files: usize = files.split_whitespace().nth(3).unwrap().parse().unwrap_or(usize::MAX);
    // As many as the machine lets a process have, if those are fewer.
    let wanted = 10_000.min(files.saturating_sub(200));
    println!("{wanted} connections");
    let mut idle = Vec::new();
    for _ in 0..wanted {
        idle.push(TcpStream::connect(&server.address).await.unwrap());
    }
    serves(&server, &mut count).await;
    let grown = resident_bytes(&server).saturating_sub(before);
    println!("{grown} bytes more for them");
    assert!(grown < 400 * MIB, "{grown} bytes for {wanted} idle connections");
    for connection in &mut idle {
        let mut buffer = [0; 64];
        let closed = tokio::time::timeout(Duration::from_secs(60), connection.read(&mut buffer));
        assert!(matches!(closed.await, Ok(Ok(0) | Err(_))), "an idle connection is closed");
    }
    serves(&server, &mut count).await;
    assert!(server.stop());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_make_no_sense_end_their_connection_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &["--log-level", "warn"]).unwrap();
    let mut count = 0;
    let mut random = StdRng::seed_from_u64(7);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    for round in 0..200 {
        let mut bytes: Vec<u8> = match round % 4 {
            // Nothing that is known.
            0 => Vec::new(),
            // The beginning of HTTP/2, and then no frames.
            1 => preface.clone(),
            // A request of HTTP/1 that says more than it sends.
            2 => b"POST /streams/x HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99999\r\n\r\n[{".to_vec(),
            // A frame of HTTP/2 that says more than it sends.
            _ => [preface.as_slice(), &[0xff, 0xff, 0xff, 0x00, 0x01, 0, 0, 0, 1]].concat(),
        };
        let length = random.random_range(0..2000);
        bytes.extend((0..length).map(|_| random.random::<u8>()));
        let mut connection = TcpStream::connect(&server.address).await.unwrap();
        // It may be closed before all is sent.
        let _ = connection.write_all(&bytes).await;
        if round % 2 == 0 {
            let _ = connection.shutdown().await;
            let mut answer = Vec::new();
            let _ =
                tokio::time::timeout(Duration::from_secs(20), connection.read_to_end(&mut answer))
                    .await
                    .expect("a connection that has ended is closed");
        }
    }
    serves(&server, &mut count).await;
    let not_utf8 = StreamIdentifier { stream_name: vec![0xff, 0xfe].into() };
    let status = read_of(&server, not_utf8).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("stream_name"), "{}", status.message());
    assert!(server.stop());
}

/// Messages as they are sent.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A field of a message with these bytes.
fn field(tag: u32, bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    prost::encoding::bytes::encode(tag, &bytes.to_vec(), &mut message);
    message
}

async fn raw(server: &Server) -> Grpc<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let mut client = Grpc::new(endpoint.connect().await.unwrap());
    client.ready().await.unwrap();
    client
}

fn method(name: &str) -> PathAndQuery {
    format!("/event_store.client.streams.Streams/{name}").parse().unwrap()
}

/// Two bytes for each: of a message of 4 MB the parser could make hundreds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_empty_parts_does_not_take_many_times_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &["--log-level", "warn"]).unwrap();
    let mut count = 0;
    serves(&server, &mut count).await;
    let before = resident_bytes_max(&server);
    let empty = |tag: u8| [tag << 3 | 2, 0].repeat(2_000_000);

    // An event with two million entries in the map of its metadata.
    let event = Bytes::from(field(2, &empty(2)));
    let mut client = raw(&server).await;
    let append =
        client.client_streaming(Request::new(tokio_stream::once(event)), method("Append"), Raw);
    let refused = append.await.expect_err("it has no options");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let grown = resident_bytes_max(&server).saturating_sub(before);
    println!("{refused}; {grown} bytes more at the most");
    assert!(grown < 64 * MIB, "{grown} bytes for a message of 4 MB");
    serves(&server, &mut count).await;

    // Two million events.
    let batch = BatchAppendReq {
        correlation_id: Some(Uuid {
            value: Some(uuid::Value::Structured(uuid::Structured::default())),
        }),
        options: Some(batch_append_req::Options {
            stream_identifier: Some(StreamIdentifier { stream_name: "empty".into() }),
            expected_stream_position: Some(batch_append_req::options::ExpectedStreamPosition::Any(
                (),
            )),
            deadline_option: None,
        }),
        ..Default::default()
    };
    let batch = Bytes::from([batch.encode_to_vec(), empty(3)].concat());
    let mut client = raw(&server).await;
    let appends =
        client.streaming(Request::new(tokio_stream::once(batch)), method("BatchAppend"), Raw);
    let mut answers = appends.await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().expect("it is answered");
    let answer = BatchAppendResp::decode(answer).unwrap();
    let Some(batch_append_resp::Result::Error(refused)) = answer.result else {
        panic!("it is taken")
    };
    assert!(refused.message.contains("events[0].id: missing"), "{refused:?}");
    let grown = resident_bytes_max(&server).saturating_sub(before);
    println!("{}; {grown} bytes more at the most", refused.message);
    assert!(grown < 200 * MIB, "{grown} bytes for a message of 4 MB");
    serves(&server, &mut count).await;
    assert!(server.stop());
}

/// Of a message, what is no part of an event is let go while the append is not whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_events_in_large_messages_are_held_as_small_ones() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &["--log-level", "warn"]).unwrap();
    let mut count = 0;
    serves(&server, &mut count).await;
    let before = resident_bytes(&server);
    let options = append_req::Options {
        stream_identifier: Some(StreamIdentifier { stream_name: "small".into() }),
        expected_stream_revision: Some(append_req::options::ExpectedStreamRevision::Any(Empty {})),
    };
    let options = AppendReq { content: Some(append_req::Content::Options(options)) };
    let ignored = field(2, &[field(1, b"ignored"), field(2, &[b'x'; 3_900_000])].concat());
    let event = |n: u64| {
        let structured =
            uuid::Structured { most_significant_bits: 7, least_significant_bits: n as i64 };
        let proposed = Proposed {
            id: Some(Uuid { value: Some(uuid::Value::Structured(structured)) }),
            kind: Some("tested".into()),
            content_type: Some("application/octet-stream".into()),
            custom_metadata: "m".into(),
            data: "d".into(),
        };
        Bytes::from(field(2, &[proposed.encode_to_vec(), ignored.clone()].concat()))
    };
    let (sent, messages) = tokio::sync::mpsc::channel(1);
    let mut client = raw(&server).await;
    let append = tokio::spawn(async move {
        let messages = ReceiverStream::new(messages);
        client.client_streaming(Request::new(messages), method("Append"), Raw).await
    });
    sent.send(Bytes::from(options.encode_to_vec())).await.unwrap();
    for n in 0..100 {
        sent.send(event(n)).await.unwrap();
    }
    serves(&server, &mut count).await;
    let grown = resident_bytes(&server).saturating_sub(before);
    println!("{grown} bytes more for 100 events of two bytes in 390 MB");
    assert!(grown < 100 * MIB, "{grown} bytes");
    drop(sent);
    let answer = AppendResp::decode(append.await.unwrap().unwrap().into_inner()).unwrap();
    assert!(matches!(answer.result, Some(append_resp::Result::Success(_))), "{answer:?}");
    assert!(server.stop());
}

async fn read_of(server: &Server, stream: StreamIdentifier) -> tonic::Status {
    use read_req::options::{
        CountOption, StreamOption, StreamOptions, stream_options::RevisionOption,
    };
    let options = read_req::Options {
        stream_option: Some(StreamOption::Stream(StreamOptions {
            stream_identifier: Some(stream),
            revision_option: Some(RevisionOption::Start(Empty {})),
        })),
        count_option: Some(CountOption::Count(1)),
        ..Default::default()
    };
    let mut client = server.client().await.unwrap();
    let answer = client.read(ReadReq { options: Some(options) }).await;
    answer.expect_err("it is refused")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_do_not_read_hold_no_more_than_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &["--log-level", "warn"]).unwrap();
    let mut client = server.client().await.unwrap();
    for n in 0..400u64 {
        let appended = append(&mut client, "long", n.checked_sub(1), u128::from(n) + 1, 200_000);
        assert_eq!(appended.await, Appended::Done(n));
    }
    assert_eq!(read(&mut client, "long").await.unwrap().len(), 400);
    let before = resident_bytes(&server);
    let mut readers = Vec::new();
    for _ in 0..100 {
        let mut connection = TcpStream::connect(&server.address).await.unwrap();
        let request = b"GET /streams/long?follow=sse HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n";
        connection.write_all(request).await.unwrap();
        let mut first = [0; 16];
        connection.read_exact(&mut first).await.unwrap();
        assert_eq!(&first[..12], b"HTTP/1.1 200");
        readers.push(connection);
    }
    let mut count = 0;
    serves(&server, &mut count).await;
    let grown = resident_bytes(&server).saturating_sub(before);
    println!("{grown} bytes more for 100 readers of 80 MB each");
    // A page of each is at most 32 events of 200 kB before its size is known.
    assert!(grown < 1500 * MIB, "{grown} bytes");
    drop(readers);
    assert!(server.stop());
}
