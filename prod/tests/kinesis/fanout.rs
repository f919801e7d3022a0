//! Enhanced fan-out: the reader at the tip gets a subscription, and loses nothing when that breaks.

use std::time::Instant;

use bytes::Bytes;
use stormkeep::kinesis::Settings;
use stormkeep_core::env::{Cursor, Log, ReadLogError};

use crate::{
    created,
    proxy::{Fate, Proxy},
    put_numbers, read, settings,
};

fn subscribing() -> Settings {
    Settings { consumer: Some("fold".to_owned()), ..settings() }
}

#[tokio::test]
#[ignore = "needs the stand-in for Kinesis: tests/services/kinesis/up"]
async fn the_reader_at_the_tip_is_sent_what_is_new() {
    let proxy = Proxy::start().await;
    let settings = Settings { endpoint: Some(proxy.endpoint.clone()), ..subscribing() };
    let (log, shards) = created(&settings, 1).await;
    put_numbers(&log, &shards[0], 0..5).await;
    let mut got = read(&log, shards[0].id, Cursor::Oldest, 5).await;
    put_numbers(&log, &shards[0], 5..8).await;
    got = read(&log, shards[0].id, got.next.unwrap(), 3).await;
    assert_eq!(got.numbers(), [5, 6, 7]);
    assert_eq!(proxy.seen("SubscribeToShard"), 1);
    let polls = proxy.seen("GetRecords");
    let mut lags = Vec::new();
    for number in 8..16 {
        let began = Instant::now();
        put_numbers(&log, &shards[0], number..number + 1).await;
        got = read(&log, shards[0].id, got.next.unwrap(), 1).await;
        assert_eq!(got.numbers(), [number]);
        lags.push(began.elapsed());
    }
    lags.sort();
    println!("put until sent by the subscription: p50 {:?}", lags[lags.len() / 2]);
    assert_eq!(proxy.seen("GetRecords"), polls, "it did not poll any more");
    // A second reader polls meanwhile.
    let all = read(&log, shards[0].id, Cursor::Oldest, 16).await;
    assert_eq!(all.numbers(), (0..16).collect::<Vec<_>>());
    assert_eq!(proxy.seen("SubscribeToShard"), 1);
}

#[tokio::test]
#[ignore = "needs the stand-in for Kinesis: tests/services/kinesis/up"]
async fn a_subscription_that_breaks_or_cannot_be_had_loses_nothing() {
    let proxy = Proxy::start().await;
    for fate in [
        // The head of the answer, some events, and then nothing more.
        Fate::CutAnswer(3000),
        Fate::error(400, "ResourceInUseException"),
        Fate::error(400, "LimitExceededException"),
        Fate::LoseAnswer,
    ] {
        let settings = Settings { endpoint: Some(proxy.endpoint.clone()), ..subscribing() };
        let (log, shards) = created(&settings, 1).await;
        proxy.next("SubscribeToShard", fate.clone());
        let before = proxy.seen("SubscribeToShard");
        let writing = async {
            let mut after = None;
            for number in 0..60u32 {
                let data = Bytes::from(format!("{number}"));
                after = Some(log.put(&shards[0], after, data).await.unwrap().position);
            }
        };
        let reading = read(&log, shards[0].id, Cursor::Oldest, 60);
        let ((), got) = futures::join!(writing, reading);
        assert_eq!(got.numbers(), (0..60).collect::<Vec<_>>(), "{fate:?}");
        assert!(proxy.seen("SubscribeToShard") > before, "{fate:?}: it was tried");
    }
}

#[tokio::test]
#[ignore = "needs the stand-in for Kinesis: tests/services/kinesis/up"]
async fn a_page_of_a_subscription_is_read_once() {
    let (log, shards) = created(&subscribing(), 1).await;
    put_numbers(&log, &shards[0], 0..1).await;
    let got = read(&log, shards[0].id, Cursor::Oldest, 1).await;
    put_numbers(&log, &shards[0], 1..2).await;
    // The page of the subscription's cursor may be empty at first, with the same cursor again.
    let mut from = got.next.unwrap();
    let used = loop {
        let page = log.read(shards[0].id, from.clone()).await.unwrap();
        if !page.records.is_empty() {
            break from;
        }
        from = page.next.unwrap();
    };
    assert_eq!(log.read(shards[0].id, used).await, Err(ReadLogError::Expired));
    let again = read(&log, shards[0].id, Cursor::After(got.records[0].position), 1).await;
    assert_eq!(again.numbers(), [1]);
}
