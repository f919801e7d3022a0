//! The service over a real machine, through the generated client, without sockets.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::FutureExt;
use tokio::sync::mpsc;
use tonic::Code;

use super::*;
use crate::{
    api::{
        Api,
        grpc::proto::event_store::client::{
            StreamIdentifier, Uuid,
            persistent_subscriptions::{
                SubscriptionInfo, create_req, delete_req, get_info_req, list_req,
                persistent_subscriptions_client::PersistentSubscriptionsClient, read_req,
                read_resp, replay_parked_req, update_req,
            },
        },
    },
    disk::Options,
    embedded::{Embedded, Machine},
};

struct Served {
    machine: Machine,
    client: PersistentSubscriptionsClient<Api<Embedded>>,
    _directory: tempfile::TempDir,
}

async fn served() -> Served {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 4 * 1024 * 1024, shards: Some(2), ..Options::default() };
    let machine = Machine::start(directory.path(), &options).unwrap();
    let client = PersistentSubscriptionsClient::new(Api::new(machine.service().clone()));
    Served { machine, client, _directory: directory }
}

fn named(stream: &str) -> StreamIdentifier {
    StreamIdentifier { stream_name: Bytes::copy_from_slice(stream.as_bytes()) }
}

fn settings() -> create_req::Settings {
    create_req::Settings {
        max_retry_count: 5,
        min_checkpoint_count: 10,
        max_checkpoint_count: 100,
        live_buffer_size: 500,
        read_batch_size: 20,
        history_buffer_size: 500,
        consumer_strategy: "RoundRobin".into(),
        message_timeout: Some(create_req::settings::MessageTimeout::MessageTimeoutMs(3_600_000)),
        checkpoint_after: Some(create_req::settings::CheckpointAfter::CheckpointAfterMs(2000)),
        ..create_req::Settings::default()
    }
}

fn code<T: std::fmt::Debug>(result: Result<Response<T>, Status>) -> (Code, String) {
    let status = result.unwrap_err();
    let exception = status.metadata().get("exception");
    (status.code(), exception.map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default())
}

/// An event that a consumer was told.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    stream: String,
    revision: u64,
    retries: i32,
    id: Uuid,
}

/// A consumer that is connected.
struct Connected {
    said: mpsc::Sender<ReadReq>,
    told: tonic::Streaming<ReadResp>,
}

impl Connected {
    async fn next(&mut self) -> Result<Told, Status> {
        let content = self.told.message().await?.expect("it ended well").content;
        let Some(read_resp::Content::Event(read)) = content else { panic!("{content:?}") };
        let Some(read_resp::read_event::Count::RetryCount(retries)) = read.count else {
            panic!("no count")
        };
        let event = read.event.unwrap();
        assert!(read.link.is_none() && event.metadata.iter().any(|p| p.key == "type"));
        let stream = event.stream_identifier.unwrap().stream_name;
        let stream = String::from_utf8(stream.to_vec()).unwrap();
        Ok(Told { stream, revision: event.stream_revision, retries, id: event.id.unwrap() })
    }

    async fn say(&self, content: read_req::Content) {
        self.said.send(ReadReq { content: Some(content) }).await.unwrap();
    }

    async fn ack(&self, told: &[&Told]) {
        let ids = told.iter().map(|told| told.id.clone()).collect();
        self.say(read_req::Content::Ack(read_req::Ack { id: Bytes::new(), ids })).await;
    }

    async fn nack(&self, told: &Told, action: read_req::nack::Action) {
        let (ids, reason) = (vec![told.id.clone()], "a test".into());
        let nack = read_req::Nack { id: Bytes::new(), ids, action: action.into(), reason };
        self.say(read_req::Content::Nack(nack)).await;
    }
}

impl Served {
    async fn append(&self, stream: &str, count: u64) {
        let events = (0..count).map(|n| event(stream, n)).collect();
        self.append_events(stream, events).await;
    }

    async fn append_events(&self, stream: &str, events: Vec<stormkeep_core::event::Event>) {
        use stormkeep_core::append::{Append, AppendId, Expected};
        let append = Append {
            stream: stormkeep_core::stream::StreamName::new(stream).unwrap(),
            expected: Expected::Any,
            described: Expected::Any,
            id: AppendId(::uuid::Uuid::new_v4().as_u128()),
            events: events.into(),
        };
        let timeout = std::time::Duration::from_secs(60);
        self.machine.service().append(append, timeout).await.unwrap();
    }

    async fn create(
        &mut self,
        stream: &str,
        settings: create_req::Settings,
    ) -> Result<Response<CreateResp>, Status> {
        let stream = create_req::StreamOptions {
            stream_identifier: Some(named(stream)),
            revision_option: Some(create_req::stream_options::RevisionOption::Start(Empty {})),
        };
        let options = create_req::Options {
            stream_option: Some(create_req::options::StreamOption::Stream(stream)),
            stream_identifier: None,
            group_name: "mail".into(),
            settings: Some(settings),
        };
        self.client.create(CreateReq { options: Some(options) }).await
    }

    async fn read(&self, stream: &str, buffer_size: i32) -> Result<Connected, Status> {
        let options = read_req::Options {
            stream_option: Some(read_req::options::StreamOption::StreamIdentifier(named(stream))),
            group_name: "mail".into(),
            buffer_size,
            uuid_option: None,
        };
        let (said, receiver) = mpsc::channel(100);
        let content = Some(read_req::Content::Options(options));
        said.send(ReadReq { content }).await.unwrap();
        let messages = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut told = self.client.clone().read(messages).await?.into_inner();
        let first = told.message().await?.unwrap().content;
        let Some(read_resp::Content::SubscriptionConfirmation(confirmed)) = first else {
            panic!("{first:?}")
        };
        assert_eq!(confirmed.subscription_id, format!("{stream}::mail"));
        Ok(Connected { said, told })
    }

    async fn info(&mut self, stream: &str) -> Result<SubscriptionInfo, Status> {
        use get_info_req::options::StreamOption;
        let options = get_info_req::Options {
            stream_option: Some(StreamOption::StreamIdentifier(named(stream))),
            group_name: "mail".into(),
        };
        let info = self.client.get_info(GetInfoReq { options: Some(options) }).await?;
        Ok(info.into_inner().subscription_info.unwrap())
    }

    async fn delete(&mut self, stream: &str) -> Result<Response<DeleteResp>, Status> {
        use delete_req::options::StreamOption;
        let options = delete_req::Options {
            stream_option: Some(StreamOption::StreamIdentifier(named(stream))),
            group_name: "mail".into(),
        };
        self.client.delete(DeleteReq { options: Some(options) }).await
    }

    async fn replay(&mut self, stream: &str) {
        use replay_parked_req::options::{StopAtOption, StreamOption};
        let options = replay_parked_req::Options {
            group_name: "mail".into(),
            stream_option: Some(StreamOption::StreamIdentifier(named(stream))),
            stop_at_option: Some(StopAtOption::NoLimit(Empty {})),
        };
        self.client.replay_parked(ReplayParkedReq { options: Some(options) }).await.unwrap();
    }
}

fn event(kind: &str, n: u64) -> stormkeep_core::event::Event {
    stormkeep_core::event::Event {
        id: stormkeep_core::event::EventId(::uuid::Uuid::new_v4().as_u128()),
        kind: kind.into(),
        format: stormkeep_core::event::Format::Json,
        data: n.to_string().into(),
        metadata: Bytes::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_managed_as_clients_expect() {
    let mut served = served().await;
    assert_eq!(
        code(served.delete("s").await),
        (Code::NotFound, "persistent-subscription-does-not-exist".into())
    );
    served.create("s", settings()).await.unwrap();
    let exists = code(served.create("s", settings()).await);
    assert_eq!(exists, (Code::AlreadyExists, "persistent-subscription-exists".into()));
    let info = served.info("s").await.unwrap();
    assert_eq!((info.event_source.as_str(), info.group_name.as_str()), ("s", "mail"));
    assert_eq!((info.start_from.as_str(), info.max_retry_count), ("0", 5));
    assert_eq!(info.named_consumer_strategy, "RoundRobin");
    let options = update_req::Options {
        stream_option: None,
        stream_identifier: Some(named("s")),
        group_name: "mail".into(),
        settings: Some(update_req::Settings {
            max_retry_count: 9,
            live_buffer_size: 100,
            read_batch_size: 10,
            max_checkpoint_count: 10,
            named_consumer_strategy: update_req::ConsumerStrategy::Pinned.into(),
            ..update_req::Settings::default()
        }),
    };
    served.client.update(UpdateReq { options: Some(options) }).await.unwrap();
    let info = served.info("s").await.unwrap();
    assert_eq!((info.max_retry_count, info.live_buffer_size), (9, 100));
    assert_eq!((info.named_consumer_strategy.as_str(), info.start_from.as_str()), ("Pinned", "0"));
    assert_eq!(info.message_timeout_milliseconds, 3_600_000, "what is not told stays");
    let list = async |client: &mut PersistentSubscriptionsClient<Api<Embedded>>,
                      stream: Option<&str>| {
        use list_req::{options::ListOption, stream_option::StreamOption};
        let list_option = match stream {
            None => ListOption::ListAllSubscriptions(Empty {}),
            Some(stream) => ListOption::ListForStream(list_req::StreamOption {
                stream_option: Some(StreamOption::Stream(named(stream))),
            }),
        };
        let options = Some(list_req::Options { list_option: Some(list_option) });
        client.list(ListReq { options }).await.map(|list| list.into_inner().subscriptions.len())
    };
    served.create("t", settings()).await.unwrap();
    assert_eq!(list(&mut served.client, None).await.unwrap(), 2);
    assert_eq!(list(&mut served.client, Some("s")).await.unwrap(), 1);
    assert_eq!(list(&mut served.client, Some("u")).await.unwrap_err().code(), Code::NotFound);
    served.client.restart_subsystem(Empty {}).await.unwrap();
    served.delete("s").await.unwrap();
    assert_eq!(served.info("s").await.unwrap_err().code(), Code::NotFound);
    let bad = create_req::Settings { read_batch_size: 0, ..settings() };
    let status = served.create("s", bad).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("settings.read_batch_size = 0"), "{}", status.message());
    served.machine.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_keep_their_order_while_an_event_fails_and_is_parked() {
    use read_req::nack::Action;
    let mut served = served().await;
    served
        .create("$ce-player", create_req::Settings { max_retry_count: 2, ..settings() })
        .await
        .unwrap();
    for stream in ["player-1", "player-2", "player-3"] {
        served.append(stream, 20).await;
    }
    let mut consumer = served.read("$ce-player", 10).await.unwrap();
    let mut handled: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut retries = Vec::new();
    while handled.values().map(Vec::len).sum::<usize>() < 59 {
        let told = consumer.next().await.unwrap();
        if (told.stream.as_str(), told.revision) == ("player-2", 7) {
            retries.push(told.retries);
            consumer.nack(&told, Action::Retry).await;
            continue;
        }
        consumer.ack(&[&told]).await;
        let handled = handled.entry(told.stream).or_default();
        // What was told behind a failed event is told again behind it.
        if !handled.contains(&told.revision) {
            handled.push(told.revision);
        }
    }
    assert_eq!(retries, [0, 1, 2], "then it is parked");
    for (stream, revisions) in &handled {
        assert!(revisions.is_sorted(), "{stream}: {revisions:?}");
    }
    while served.info("$ce-player").await.unwrap().parked_message_count != 1 {
        tokio::task::yield_now().await;
    }
    served.replay("$ce-player").await;
    let again = consumer.next().await.unwrap();
    assert_eq!((again.stream.as_str(), again.revision), ("player-2", 7));
    consumer.ack(&[&again]).await;
    while served.info("$ce-player").await.unwrap().parked_message_count != 0 {
        tokio::task::yield_now().await;
    }
    let info = served.info("$ce-player").await.unwrap();
    assert_eq!((info.status.as_str(), info.connections.len()), ("Live", 1));
    served.machine.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_holds_what_its_buffer_has_room_for_and_another_gets_it_when_it_is_gone() {
    let mut served = served().await;
    served.create("$ce-player", settings()).await.unwrap();
    for n in 0..10 {
        served.append(&format!("player-{n}"), 1).await;
    }
    let mut ann = served.read("$ce-player", 3).await.unwrap();
    let held = [ann.next().await.unwrap(), ann.next().await.unwrap(), ann.next().await.unwrap()];
    assert!(ann.told.message().now_or_never().is_none(), "its buffer is full");
    assert_eq!(served.info("$ce-player").await.unwrap().total_in_flight_messages, 3);
    ann.ack(&[&held[0]]).await;
    let fourth = ann.next().await.unwrap();
    assert!(ann.told.message().now_or_never().is_none(), "it is full again");
    assert_eq!(served.info("$ce-player").await.unwrap().total_in_flight_messages, 3);
    // The group's message timeout is an hour: what it held is given on because it is gone.
    drop(ann);
    let mut ben = served.read("$ce-player", 100).await.unwrap();
    let mut rest = Vec::new();
    while rest.len() < 9 {
        let told = ben.next().await.unwrap();
        assert_ne!(told.stream, held[0].stream, "it was settled");
        assert_eq!(told.retries, 0, "a consumer that is gone is not its fault");
        ben.ack(&[&told]).await;
        rest.push(told.stream);
    }
    rest.sort();
    rest.dedup();
    assert_eq!(rest.len(), 9, "each once");
    assert!(rest.contains(&fourth.stream) && rest.contains(&held[1].stream));
    served.machine.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_settles_nothing_is_given_more_when_its_events_are_overdue() {
    let mut served = served().await;
    let timeout = create_req::settings::MessageTimeout::MessageTimeoutMs(100);
    let settings = create_req::Settings { message_timeout: Some(timeout), ..settings() };
    served.create("s", settings).await.unwrap();
    // Two events of one id: what is said of it is said of the one that was told first.
    let twice = event("twice", 0);
    served.append_events("s", vec![twice.clone()]).await;
    served.append_events("s", vec![twice, event("other", 1)]).await;
    let mut consumer = served.read("s", 1).await.unwrap();
    assert_eq!((consumer.next().await.unwrap().revision), 0);
    let again = consumer.next().await.unwrap();
    assert_eq!((again.revision, again.retries), (0, 1), "it was overdue");
    let mut acked = again.clone();
    for (revision, same) in [(1, true), (2, false)] {
        // On a slow machine it may have been overdue once more before it was acknowledged.
        while acked.revision != revision {
            consumer.ack(&[&acked]).await;
            acked = consumer.next().await.unwrap();
        }
        assert_eq!(acked.id == again.id, same);
    }
    served.machine.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_end_says_why() {
    let mut served = served().await;
    let none = served.read("s", 10).await.err().unwrap();
    assert_eq!(none.code(), Code::NotFound);
    let one = create_req::Settings { max_subscriber_count: 1, ..settings() };
    served.create("s", one).await.unwrap();
    served.append("s", 1).await;
    let mut ann = served.read("s", 10).await.unwrap();
    let told = ann.next().await.unwrap();
    let full = served.read("s", 10).await.err().unwrap();
    assert_eq!(full.metadata().get("exception").unwrap(), "maximum-subscribers-reached");
    assert_eq!(full.code(), Code::FailedPrecondition);
    assert!(full.message().starts_with("Maximum subscriptions reached"));
    ann.nack(&told, read_req::nack::Action::Stop).await;
    let stopped = ann.next().await.unwrap_err();
    assert_eq!(stopped.metadata().get("exception").unwrap(), "persistent-subscription-dropped");
    assert_eq!(stopped.code(), Code::Cancelled);
    let mut ben = served.read("s", 10).await.unwrap();
    assert_eq!(ben.next().await.unwrap().id, told.id, "it is given to another");
    served.delete("s").await.unwrap();
    let deleted = ben.next().await.unwrap_err();
    let exception = deleted.metadata().get("exception").unwrap();
    assert_eq!(exception, "persistent-subscription-does-not-exist");
    served.create("t", settings()).await.unwrap();
    let bad = served.read("t", 0).await.err().unwrap();
    assert!(bad.message().starts_with("options.buffer_size: 0"), "{}", bad.message());
    let mut cal = served.read("t", 10).await.unwrap();
    cal.say(read_req::Content::Options(read_req::Options::default())).await;
    assert_eq!(cal.next().await.unwrap_err().code(), Code::InvalidArgument);
    let mut dan = served.read("t", 10).await.unwrap();
    served.machine.service().close();
    let closing = dan.next().await.unwrap_err();
    assert_eq!(
        (closing.code(), closing.message()),
        (Code::Unavailable, "the server is closing: subscribe again")
    );
    served.machine.stop().await.unwrap();
}
