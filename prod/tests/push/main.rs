//! Pushing to handlers over real HTTP: what a machine on disk sends to a stand-in for Lambda and to a webhook, and what becomes of
//! every answer that they may give.

#![allow(clippy::unwrap_used)] // a test: what is wrong here must stop it

#[path = "../common/mod.rs"]
mod common;
mod function;
mod invoke;
mod lambda;
mod process;
mod receiver;
mod webhook;

use std::{ops::Range, time::Duration};

use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use bytes::Bytes;
use futures::{StreamExt, stream};
use stormkeep::{
    disk::Options,
    embedded::Machine,
    push::{Handlers, LambdaSettings, Settings},
    service::Service,
};
use stormkeep_core::{
    append::{Append, AppendId, Direction, Expected, Freshness, ReadStream},
    consume::{Given, GroupInfo, Manage, Managed, NewGroup, Unit},
    env::{Delivery, Env},
    event::{Event, EventId, Format, RecordedEvent},
    group::{self, Form, GroupId, GroupNumber, Push, Source, Start, Target},
    shard::ShardId,
    stream::StreamName,
    time::HybridTime,
};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Handlers whose Lambda is here.
fn handlers(endpoint: &str) -> Handlers {
    let lambda = LambdaSettings {
        region: Some("eu-central-1".to_owned()),
        endpoint: Some(endpoint.to_owned()),
        ..LambdaSettings::default()
    };
    let settings = Settings { lambda, ..Settings::default() };
    let credentials = Credentials::new("stand-in", "stand-in", None, None, "tests");
    Handlers::with_credentials(settings, SharedCredentialsProvider::new(credentials))
}

struct Stage {
    machine: Machine,
    _directory: tempfile::TempDir,
}

impl Stage {
    fn start(shards: u32, handlers: Handlers) -> Stage {
        let directory = tempfile::tempdir().unwrap();
        let options = Options {
            segment_bytes: 8 * 1024 * 1024,
            reserve_bytes: 0,
            shards: Some(shards),
            ..Options::default()
        };
        let machine = Machine::with(directory.path(), &options, handlers).unwrap();
        Stage { machine, _directory: directory }
    }

    fn service(&self) -> &Service<impl Env> {
        self.machine.service()
    }

    async fn manage(&self, manage: Manage) -> Managed {
        self.service().manage(manage, TIMEOUT).await.unwrap()
    }

    async fn group(&self, target: Target, settings: group::Settings) -> GroupId {
        let id = GroupId::new(Source::Category("player".into()), "scores").unwrap();
        let new =
            NewGroup { id: id.clone(), start: Start::Beginning, filter: None, target, settings };
        assert_eq!(self.manage(Manage::Create(new)).await, Managed::Done);
        id
    }

    async fn info(&self, id: &GroupId) -> GroupInfo {
        match self.manage(Manage::Info(id.clone())).await {
            Managed::Info(info) => *info,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until nothing of the group is held any more, and so many events are parked.
    async fn until_settled(&self, id: &GroupId, settled: u64) -> GroupInfo {
        let mut looks = tokio::time::interval(Duration::from_millis(50));
        loop {
            looks.tick().await;
            let info = self.info(id).await;
            let done: u64 = info.units.iter().map(|unit| unit.settled).sum();
            let held: u64 = info.units.iter().map(|unit| unit.held).sum();
            if done >= settled && held == 0 {
                return info;
            }
        }
    }

    /// Appends these events to each of so many streams of the category.
    async fn append(&self, streams: u64, events: Range<u64>, data: impl Fn(u64, u64) -> Bytes) {
        let (service, events, data) = (self.service(), &events, &data);
        stream::iter(0..streams)
            .for_each_concurrent(32, |stream| async move {
                let events: Vec<Event> =
                    events.clone().map(|n| event(stream, n, data(stream, n))).collect();
                for chunk in events.chunks(50) {
                    let append = Append {
                        stream: StreamName::new(format!("player-{stream}")).unwrap(),
                        expected: Expected::Any,
                        described: Expected::Any,
                        id: AppendId(chunk[0].id.0),
                        events: chunk.into(),
                    };
                    service.append(append, TIMEOUT).await.unwrap();
                }
            })
            .await;
    }

    /// What the group has parked: the links and their metadata.
    async fn parked(&self, id: &GroupId) -> Vec<(String, serde_json::Value)> {
        let read = ReadStream {
            stream: id.parked().unwrap(),
            from: 0,
            limit: 100,
            direction: Direction::Forwards,
            freshness: Freshness::Strong,
        };
        let slice = self.service().read_stream(read, TIMEOUT).await.unwrap();
        let link = |event: &RecordedEvent| {
            let link = String::from_utf8(event.event.data.to_vec()).unwrap();
            (link, serde_json::from_slice(&event.event.metadata).unwrap())
        };
        slice.events.iter().map(link).collect()
    }
}

fn event(stream: u64, n: u64, data: Bytes) -> Event {
    let id = EventId(u128::from(stream) << 64 | u128::from(n));
    Event { id, kind: "scored".into(), format: Format::Json, data, metadata: Bytes::new() }
}

/// A group's settings under which nothing takes long.
fn quick() -> group::Settings {
    let ms = Duration::from_millis;
    group::Settings {
        message_timeout: ms(1000),
        backoff_min: ms(5),
        backoff_max: ms(100),
        buffer_max: 2000,
        read_batch: 500,
        in_flight_per_stream: 10,
        push: Push { concurrency: 4, ..Push::default() },
        ..group::Settings::default()
    }
}

/// A delivery of so many events of one stream.
fn delivery(target: Target, events: u64, within: Duration) -> Delivery {
    let given = |n| Given {
        place: n,
        delivery: n + 1,
        retries: 0,
        event: RecordedEvent {
            stream: StreamName::new("player-1").unwrap(),
            revision: n,
            shard: ShardId(0),
            time: HybridTime(1_700_000_000_000_000 + n),
            append: AppendId(7),
            event: event(1, n, Bytes::from_static(b"{}")),
        },
    };
    let group = GroupId::new(Source::Category("player".into()), "scores").unwrap();
    let unit = Unit { group: GroupNumber(1), shard: ShardId(0), lease: 1, replay: false };
    Delivery { group, unit, target, events: (0..events).map(given).collect(), within }
}

fn to_lambda(form: Form) -> Target {
    Target::Lambda { function: "scores".into(), form }
}
