//! What the tests of the real process have in common: the process, and a client of its wire protocol.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test: what is wrong here must stop it
#![allow(dead_code)] // no test uses all of it

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

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
use tonic::{Code, Status, transport::Channel};

/// A server in a process of its own.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: String,
}

impl Server {
    /// Starts one and waits until it says where it listens. `Err`: it ended instead, and said this.
    pub(crate) fn start(data: &Path, flags: &[&str]) -> Result<Server, String> {
        let data = data.to_str().expect("it is UTF-8");
        Server::launch(&[&["--data", data], flags].concat())
    }

    /// The same, on whatever the flags say.
    pub(crate) fn launch(flags: &[&str]) -> Result<Server, String> {
        Server::launch_in(flags, &[])
    }

    /// The same, with these variables in its environment.
    pub(crate) fn launch_in(
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Server, String> {
        let mut process = Command::new(env!("CARGO_BIN_EXE_stormkeep"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(flags)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stdout = BufReader::new(process.stdout.take().expect("it is piped"));
        let stderr = process.stderr.take().expect("it is piped");
        let errors = std::thread::spawn(move || {
            let lines = BufReader::new(stderr).lines().map_while(Result::ok);
            lines.collect::<Vec<_>>().join("\n")
        });
        let mut first = String::new();
        stdout.read_line(&mut first).expect("it can be read");
        let Some((_, address)) = first.trim_end().split_once("://") else {
            process.wait().expect("it ends");
            return Err(errors.join().expect("it ends"));
        };
        let address = address.split_whitespace().next().unwrap_or_default().to_owned();
        // What else it says must not fill the pipe.
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(drop));
        Ok(Server { process, address })
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
    }

    /// Asks it to end, and waits until it has; says whether it ended well.
    pub(crate) fn stop(&mut self) -> bool {
        let id = self.process.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status().expect("there is a kill");
        self.process.wait().expect("it ends").success()
    }

    pub(crate) async fn client(&self) -> Result<StreamsClient<Channel>, tonic::transport::Error> {
        StreamsClient::connect(format!("http://{}", self.address)).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How an append ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Appended {
    Done(u64),
    Wrong(Option<u64>),
    /// It may have happened.
    Unknown(Code, String),
}

/// Appends one event with this id behind a revision (`None`: to a stream that has none).
pub(crate) async fn append(
    client: &mut StreamsClient<Channel>,
    stream: &str,
    after: Option<u64>,
    id: u128,
    bytes: usize,
) -> Appended {
    use append_req::options::ExpectedStreamRevision as Expected;
    let expected = after.map_or(Expected::NoStream(Empty {}), Expected::Revision);
    let options = append_req::Options {
        stream_identifier: Some(identifier(stream)),
        expected_stream_revision: Some(expected),
    };
    let message = Proposed {
        id: Some(Uuid {
            value: Some(uuid::Value::String(::uuid::Uuid::from_u128(id).to_string())),
        }),
        kind: Some("tested".into()),
        content_type: Some("application/octet-stream".into()),
        custom_metadata: bytes::Bytes::new(),
        data: vec![b'x'; bytes].into(),
    };
    let contents =
        [append_req::Content::Options(options), append_req::Content::ProposedMessage(message)];
    let messages = contents.map(|content| AppendReq { content: Some(content) });
    let asked = client.append(tokio_stream::iter(messages));
    let answer = match tokio::time::timeout(Duration::from_secs(5), asked).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return Appended::Unknown(status.code(), status.message().to_owned()),
        Err(_) => return Appended::Unknown(Code::DeadlineExceeded, "no answer".to_owned()),
    };
    match answer.result.expect("an answer has a result") {
        append_resp::Result::Success(success) => match success.current_revision_option {
            Some(append_resp::success::CurrentRevisionOption::CurrentRevision(revision)) => {
                Appended::Done(revision)
            }
            other => panic!("no revision: {other:?}"),
        },
        append_resp::Result::WrongExpectedVersion(wrong) => {
            match wrong.current_revision_option.expect("there is one") {
                append_resp::wrong_expected_version::CurrentRevisionOption::CurrentRevision(at) => {
                    Appended::Wrong(Some(at))
                }
                append_resp::wrong_expected_version::CurrentRevisionOption::CurrentNoStream(_) => {
                    Appended::Wrong(None)
                }
            }
        }
    }
}

/// All events of a stream: revisions and ids, in order.
pub(crate) async fn read(
    client: &mut StreamsClient<Channel>,
    stream: &str,
) -> Result<Vec<(u64, u128)>, Status> {
    use read_req::options::{
        CountOption, FilterOption, StreamOption, StreamOptions, UuidOption,
        stream_options::RevisionOption, uuid_option,
    };
    let options = read_req::Options {
        stream_option: Some(StreamOption::Stream(StreamOptions {
            stream_identifier: Some(identifier(stream)),
            revision_option: Some(RevisionOption::Start(Empty {})),
        })),
        count_option: Some(CountOption::Count(u64::MAX)),
        filter_option: Some(FilterOption::NoFilter(Empty {})),
        uuid_option: Some(UuidOption { content: Some(uuid_option::Content::String(Empty {})) }),
        ..Default::default()
    };
    let mut answers = client.read(ReadReq { options: Some(options) }).await?.into_inner();
    let mut events = Vec::new();
    while let Some(answer) = answers.message().await? {
        let Some(read_resp::Content::Event(event)) = answer.content else { continue };
        let event = event.event.expect("there is an event");
        let Some(uuid::Value::String(id)) = event.id.and_then(|id| id.value) else {
            panic!("no id");
        };
        let id = ::uuid::Uuid::parse_str(&id).expect("it is a UUID");
        events.push((event.stream_revision, id.as_u128()));
    }
    Ok(events)
}

fn identifier(stream: &str) -> StreamIdentifier {
    StreamIdentifier { stream_name: bytes::Bytes::copy_from_slice(stream.as_bytes()) }
}
