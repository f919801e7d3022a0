//! The services over a real machine, through the generated client, without sockets.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use prost::Message;
use proto::event_store::client::{
    Empty, Property, StreamIdentifier, Uuid,
    gossip::gossip_client::GossipClient,
    streams::{
        AppendReq, BatchAppendReq, DeleteReq, ReadReq, ReadResp, TombstoneReq, append_req,
        append_resp, batch_append_req, batch_append_resp, delete_req, read_req,
        read_req::options::{self, stream_options::RevisionOption},
        read_resp::Content,
        streams_client::StreamsClient,
        tombstone_req,
    },
    uuid,
};
use tonic::{Code, Status};

use super::{proposed::Proposed, *};
use crate::{
    api::Api,
    disk::Options,
    embedded::{Embedded, Machine},
};

struct Served {
    machine: Machine,
    client: StreamsClient<Api<Embedded>>,
    _directory: tempfile::TempDir,
}

async fn served() -> Served {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 4 * 1024 * 1024, shards: Some(2), ..Options::default() };
    let machine = Machine::start(directory.path(), &options).unwrap();
    let client = StreamsClient::new(Api::new(machine.service().clone()));
    Served { machine, client, _directory: directory }
}

fn named(stream: &str) -> Option<StreamIdentifier> {
    Some(StreamIdentifier { stream_name: Bytes::copy_from_slice(stream.as_bytes()) })
}

fn id(n: u128) -> Option<Uuid> {
    Some(Uuid { value: Some(uuid::Value::String(::uuid::Uuid::from_u128(n).to_string())) })
}

fn proposed(n: u128, kind: &str) -> Proposed {
    Proposed {
        id: id(n),
        kind: Some(Bytes::copy_from_slice(kind.as_bytes())),
        content_type: Some(Bytes::from_static(b"application/octet-stream")),
        custom_metadata: Bytes::new(),
        data: Bytes::from_static(b"data"),
    }
}

fn append(
    stream: &str,
    demand: append_req::options::ExpectedStreamRevision,
    kinds: &[&str],
) -> impl futures::Stream<Item = AppendReq> + Send + 'static {
    let options = append_req::Content::Options(append_req::Options {
        stream_identifier: named(stream),
        expected_stream_revision: Some(demand),
    });
    let events = kinds.iter().map(|kind| {
        let n = ::uuid::Uuid::new_v4().as_u128();
        append_req::Content::ProposedMessage(proposed(n, kind))
    });
    let all: Vec<_> = std::iter::once(options).chain(events).collect();
    stream::iter(all.into_iter().map(|content| AppendReq { content: Some(content) }))
}

impl Served {
    async fn append(&mut self, stream: &str, kinds: &[&str]) -> u64 {
        use append_req::options::ExpectedStreamRevision::Any;
        let resp = self.client.append(append(stream, Any(Empty {}), kinds)).await.unwrap();
        let Some(append_resp::Result::Success(success)) = resp.into_inner().result else {
            panic!("refused")
        };
        let Some(append_resp::success::PositionOption::Position(at)) = success.position_option
        else {
            panic!("no position")
        };
        at.commit_position
    }

    async fn read(&mut self, options: read_req::Options) -> Result<Vec<Content>, Status> {
        let read = self.client.read(ReadReq { options: Some(options) }).await?.into_inner();
        let told: Vec<Result<ReadResp, Status>> = read.collect().await;
        told.into_iter().map(|told| Ok(told?.content.unwrap())).collect()
    }
}

fn of_stream(stream: &str, from: RevisionOption, backwards: bool, count: u64) -> read_req::Options {
    let stream =
        options::StreamOptions { stream_identifier: named(stream), revision_option: Some(from) };
    let stream_option = Some(options::StreamOption::Stream(stream));
    read_req::Options { stream_option, ..reading(backwards, count) }
}

fn of_all(at: options::all_options::AllOption, backwards: bool, count: u64) -> read_req::Options {
    let all = options::AllOptions { all_option: Some(at) };
    let stream_option = Some(options::StreamOption::All(all));
    read_req::Options { stream_option, ..reading(backwards, count) }
}

fn reading(backwards: bool, count: u64) -> read_req::Options {
    read_req::Options {
        stream_option: None,
        read_direction: i32::from(backwards),
        resolve_links: false,
        count_option: Some(options::CountOption::Count(count)),
        filter_option: None,
        uuid_option: None,
        control_option: Some(options::ControlOption { compatibility: 1 }),
    }
}

fn events(told: &[Content]) -> Vec<(u64, &str)> {
    let event = |content: &Content| match content {
        Content::Event(read) => Some(read.event.clone().unwrap()),
        _ => None,
    };
    let kind = |told: &[Property]| match &*told.iter().find(|p| p.key == "type").unwrap().value {
        b"a" => "a",
        b"b" => "b",
        _ => "other",
    };
    told.iter().filter_map(event).map(|e| (e.stream_revision, kind(&e.metadata))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_read_from_its_ends_and_says_where_it_ends() {
    let mut served = served().await;
    let kinds: Vec<&str> = (0..100).map(|n| if n % 2 == 0 { "a" } else { "b" }).collect();
    served.append("s", &kinds).await;
    let start = || RevisionOption::Start(Empty {});
    let told = served.read(of_stream("s", start(), false, u64::MAX)).await.unwrap();
    assert!(events(&told).iter().map(|(n, _)| *n).eq(0..100), "several pages");
    assert_eq!(told.last(), Some(&Content::LastStreamPosition(99)));
    let end = RevisionOption::End(Empty {});
    let told = served.read(of_stream("s", end, true, 2)).await.unwrap();
    assert_eq!(events(&told), [(99, "b"), (98, "a")]);
    let told = served.read(of_stream("s", RevisionOption::Revision(98), false, 9)).await.unwrap();
    assert_eq!(events(&told), [(98, "a"), (99, "b")]);
    let told = served.read(of_stream("s", RevisionOption::Revision(500), false, 9)).await.unwrap();
    assert_eq!(told, [Content::LastStreamPosition(99)]);
    let told = served.read(of_stream("nothing", start(), false, 9)).await.unwrap();
    assert!(matches!(&told[..], [Content::StreamNotFound(_)]), "{told:?}");
    served.machine.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_is_read_with_the_position_forwards_and_without_it_backwards() {
    use options::all_options::AllOption;
    let mut served = served().await;
    let mut at = Vec::new();
    for n in 0..60 {
        at.push(served.append(&format!("s-{n}"), &[if n % 2 == 0 { "a" } else { "b" }]).await);
    }
    let position = |n: usize| {
        let (commit_position, prepare_position) = (at[n], at[n]);
        AllOption::Position(options::Position { commit_position, prepare_position })
    };
    let positions = |told: &[Content]| -> Vec<u64> {
        let position = |content: &Content| match content {
            Content::Event(read) => read.event.as_ref().map(|e| e.commit_position),
            _ => None,
        };
        told.iter().filter_map(position).collect()
    };
    let start = AllOption::Start(Empty {});
    let told = served.read(of_all(start, false, u64::MAX)).await.unwrap();
    assert_eq!(positions(&told), at);
    let told = served.read(of_all(position(7), false, 2)).await.unwrap();
    assert_eq!(positions(&told), at[7..9]);
    let told = served.read(of_all(position(7), true, 2)).await.unwrap();
    assert_eq!(positions(&told), [at[6], at[5]]);
    let expression = options::filter_options::Expression { regex: "^a$".into(), prefix: vec![] };
    let mut filtered = of_all(AllOption::End(Empty {}), true, 3);
    filtered.filter_option = Some(options::FilterOption::Filter(options::FilterOptions {
        filter: Some(options::filter_options::Filter::EventType(expression)),
        window: None,
        checkpoint_interval_multiplier: 1,
    }));
    let told = served.read(filtered).await.unwrap();
    assert_eq!(positions(&told), [at[58], at[56], at[54]]);
    served.machine.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletions_and_refusals_have_their_statuses() {
    use append_req::options::ExpectedStreamRevision as Demand;
    let mut served = served().await;
    let delete = |stream: &str| DeleteReq {
        options: Some(delete_req::Options {
            stream_identifier: named(stream),
            expected_stream_revision: Some(delete_req::options::ExpectedStreamRevision::Any(
                Empty {},
            )),
        }),
    };
    let status = served.client.delete(delete("s")).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let message = "Delete failed due to WrongExpectedVersion. Stream: s, Expected version: -2, Actual version: -1";
    assert_eq!(status.message(), message);
    served.append("s", &["a", "b"]).await;
    let resp = served.client.append(append("s", Demand::Revision(5), &["a"])).await.unwrap();
    let Some(append_resp::Result::WrongExpectedVersion(wrong)) = resp.into_inner().result else {
        panic!("taken")
    };
    use append_resp::wrong_expected_version::CurrentRevisionOption;
    assert_eq!(wrong.current_revision_option, Some(CurrentRevisionOption::CurrentRevision(1)));
    served.client.delete(delete("s")).await.unwrap();
    let start = || RevisionOption::Start(Empty {});
    let told = served.read(of_stream("s", start(), false, 9)).await.unwrap();
    assert!(matches!(&told[..], [Content::StreamNotFound(_)]), "{told:?}");
    served.append("s", &["b"]).await;
    let told = served.read(of_stream("s", start(), false, 9)).await.unwrap();
    assert_eq!(told[0], Content::FirstStreamPosition(2));
    assert_eq!(events(&told), [(2, "b")]);
    let tombstone = TombstoneReq {
        options: Some(tombstone_req::Options {
            stream_identifier: named("s"),
            expected_stream_revision: Some(
                tombstone_req::options::ExpectedStreamRevision::Revision(2),
            ),
        }),
    };
    served.client.tombstone(tombstone).await.unwrap();
    let status = served.read(of_stream("s", start(), false, 9)).await.unwrap_err();
    assert_eq!(status.metadata().get("exception").unwrap(), "stream-deleted");
    let status = served.client.append(append("s", Demand::Any(Empty {}), &["a"])).await;
    assert_eq!(status.unwrap_err().metadata().get("exception").unwrap(), "stream-deleted");
    let no_options = stream::iter([AppendReq { content: None }]);
    let status = served.client.append(no_options).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "options: must be the first message")
    );
    served.machine.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_answered_append_by_append() {
    let mut served = served().await;
    let part = |correlation: u128, stream: &str, demand: Option<u64>| BatchAppendReq {
        correlation_id: id(correlation),
        options: Some(batch_append_req::Options {
            stream_identifier: named(stream),
            expected_stream_position: Some(match demand {
                Some(n) => batch_append_req::options::ExpectedStreamPosition::StreamPosition(n),
                None => batch_append_req::options::ExpectedStreamPosition::NoStream(()),
            }),
            deadline_option: None,
        }),
        proposed_messages: vec![proposed(correlation, "a").encode_to_vec().into()],
        is_final: true,
    };
    served.append("t", &["b"]).await;
    let parts = [part(1, "s", None), part(2, "t", Some(7)), part(3, "u", None)];
    let answers = served.client.batch_append(stream::iter(parts)).await.unwrap().into_inner();
    let answers: Vec<_> = answers.map(Result::unwrap).collect().await;
    assert_eq!(answers.len(), 3);
    for answer in answers {
        let correlation = request::id("id", answer.correlation_id.as_ref()).unwrap();
        match answer.result.unwrap() {
            batch_append_resp::Result::Success(_) => assert_ne!(correlation, 2),
            batch_append_resp::Result::Error(error) => {
                assert_eq!(correlation, 2);
                assert!(error.message.ends_with("Expected version: 7, Actual version: 0"));
            }
        }
    }
    served.machine.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_is_confirmed_caught_up_and_ends_with_a_status() {
    let mut served = served().await;
    served.append("s", &["a", "b"]).await;
    let mut options = of_stream("s", RevisionOption::Revision(0), false, 0);
    options.count_option =
        Some(options::CountOption::Subscription(options::SubscriptionOptions {}));
    let request = ReadReq { options: Some(options) };
    let mut told = served.client.read(request.clone()).await.unwrap().into_inner();
    let mut next = async || told.message().await.map(|told| told.unwrap().content.unwrap());
    assert!(matches!(next().await, Ok(Content::Confirmation(_))));
    assert!(matches!(next().await, Ok(Content::Event(_))));
    let Ok(Content::CaughtUp(caught_up)) = next().await else { panic!("not caught up") };
    assert_eq!(caught_up.stream_revision, Some(1));
    let mut request = tonic::Request::new(request);
    request.set_timeout(Duration::from_nanos(1));
    let late: Vec<_> =
        served.client.clone().read(request).await.unwrap().into_inner().collect().await;
    let Some(Err(status)) = late.last() else { panic!("it ended well") };
    assert_eq!(status.code(), Code::DeadlineExceeded);
    served.machine.service().close();
    let status = next().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    served.machine.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_knows_one_leader_where_it_was_asked() {
    let served = served().await;
    let origin = Uri::from_static("http://events.example:4000");
    let mut gossip = GossipClient::with_origin(Api::new(served.machine.service().clone()), origin);
    let members = gossip.read(Empty {}).await.unwrap().into_inner().members;
    let [member] = &members[..] else { panic!("{members:?}") };
    let point = member.http_end_point.clone().unwrap();
    assert_eq!((point.address.as_str(), point.port), ("events.example", 4000));
    assert_eq!((member.state, member.is_alive), (8, true));
    served.machine.stop().await.unwrap();
}
