//! Reads: cursors that expire, records that are dropped, limits.

use std::time::{Duration, Instant};

use bytes::Bytes;
use stormkeep::kinesis::Settings;
use stormkeep_core::{
    env::{Cursor, Log, ReadLogError},
    shard::ShardId,
};

use crate::{
    created, open,
    proxy::{Fate, Proxy},
    put_numbers, read, settings,
};

#[tokio::test]
#[ignore = "needs the stand-in for Kinesis: tests/services/kinesis/up"]
async fn a_reader_goes_on_behind_any_record() {
    let (log, shards) = created(&settings(), 1).await;
    let positions = put_numbers(&log, &shards[0], 0..10).await;
    for (n, position) in (0..).zip(&positions) {
        let from = Cursor::After(*position);
        let got = read(&log, shards[0].id, from, 9 - n).await;
        assert_eq!(got.numbers(), (n as u32 + 1..10).collect::<Vec<_>>());
    }
    // At the tip there is nothing, and then the next record.
    let at_tip = log.read(shards[0].id, Cursor::After(positions[9])).await.unwrap();
    assert!(at_tip.records.is_empty() && at_tip.at_tip, "{at_tip:?}");
    put_numbers(&log, &shards[0], 10..11).await;
    assert_eq!(read(&log, shards[0].id, at_tip.next.unwrap(), 1).await.numbers(), [10]);
}

#[tokio::test]
#[ignore = "needs the stand-in for Kinesis: tests/services/kinesis/up"]
async fn a_cursor_that_is_not_good_any_more_has_expired() {
    let proxy = Proxy::start().await;
    let settings = Settings { endpoint: Some(proxy.endpoint.clone()), ..settings() };
    let (log, shards) = created(&settings, 2).await;
    let positions = put_numbers(&log, &shards[0], 0..3).await;
    let page = log.read(shards[0].id, Cursor::Oldest).await.unwrap();
    let next = page.next.unwrap();

    proxy.next("GetRecords", Fate::error(400, "ExpiredIteratorException"));
    let expired = Err(ReadLogError::Expired);
    assert_eq!(log.read(shards[0].id, next.clone()).await, expired);
    // Of another shard, of another log, or forged.
    assert_eq!(log.read(shards[1].id, next.clone()).await, expired);
    for token in ["", "7:3", "0//s/0/0"] {
        assert_eq!(log.read(ShardId(0), Cursor::Token(token.into())).await, expired, "{token}");
    }
    proxy.next("GetRecords", Fate::error(400, "InvalidArgumentException"));
    assert_eq!(log.read(shards[0].id, next.clone()).await, expired, "not the service's any more");
    assert!(log.read(shards[0].id, next).await.is_ok(), "it was good all the time");
    let got = read(&log, shards[0].id, Cursor::After(positions[0]), 2).await;
    assert_eq!(got.numbers(), [1, 2]);
}

#[tokio::test]
#[ignore = "needs the stand-in for Kinesis: tests/services/kinesis/up"]
async fn reads_that_are_throttled_or_lost_say_so() {
    let proxy = Proxy::start().await;
    let settings = Settings { endpoint: Some(proxy.endpoint.clone()), ..settings() };
    let (log, shards) = created(&settings, 1).await;
    put_numbers(&log, &shards[0], 0..3).await;
    let throttled = "ProvisionedThroughputExceededException";
    for (action, fate, error) in [
        ("GetShardIterator", Fate::error(400, throttled), ReadLogError::Throttled),
        ("GetRecords", Fate::error(400, throttled), ReadLogError::Throttled),
        ("GetRecords", Fate::error(400, "KMSThrottlingException"), ReadLogError::Throttled),
        ("GetRecords", Fate::error(400, "KMSAccessDeniedException"), ReadLogError::Unavailable),
        ("GetRecords", Fate::error(500, "InternalFailureException"), ReadLogError::Unavailable),
        ("GetRecords", Fate::LoseAnswer, ReadLogError::Unavailable),
        ("GetRecords", Fate::CutAnswer(300), ReadLogError::Unavailable),
    ] {
        proxy.next(action, fate.clone());
        assert_eq!(log.read(shards[0].id, Cursor::Oldest).await, Err(error), "{action} {fate:?}");
    }
    assert_eq!(read(&log, shards[0].id, Cursor::Oldest, 3).await.numbers(), [0, 1, 2]);
}

/// The stand-in drops nothing: a request that is changed on its way gets the answers that the service gives then.
#[tokio::test]
#[ignore = "needs the stand-in for Kinesis: tests/services/kinesis/up"]
async fn a_position_that_is_gone_is_trimmed_unless_that_is_accepted() {
    let proxy = Proxy::start().await;
    let settings = Settings { endpoint: Some(proxy.endpoint.clone()), ..settings() };
    let (log, shards) = created(&settings, 1).await;
    let positions = put_numbers(&log, &shards[0], 0..5).await;
    let (gone, oldest) = (positions[1], positions[3]);
    let at_oldest = Fate::Replace(gone.to_string(), oldest.to_string());
    // The service begins at the oldest record that it has.
    proxy.next("GetShardIterator", at_oldest.clone());
    let trimmed = Err(ReadLogError::Trimmed);
    assert_eq!(log.read(shards[0].id, Cursor::After(gone)).await, trimmed);

    // It answers with empty pages: after a few it is certain.
    proxy.next("GetShardIterator", Fate::Replace("AT_SEQUENCE_NUMBER".into(), "LATEST".into()));
    let mut from = Cursor::After(gone);
    let mut pages = 0;
    let outcome = loop {
        match log.read(shards[0].id, from).await {
            Ok(page) => {
                assert!(page.records.is_empty() && !page.at_tip, "{page:?}");
                from = page.next.unwrap();
                pages += 1;
            }
            Err(error) => break error,
        }
    };
    assert_eq!((outcome, pages), (ReadLogError::Trimmed, 25));

    // It was the service's mistake, or a test's: the position is there after all.
    let got = read(&log, shards[0].id, Cursor::After(gone), 3).await;
    assert_eq!(got.numbers(), [2, 3, 4]);

    let accepting = open(&Settings { accept_trimmed: true, ..settings }).await;
    proxy.next("GetShardIterator", at_oldest);
    let got = read(&accepting, shards[0].id, Cursor::After(gone), 3).await;
    assert_eq!(got.numbers(), [2, 3, 4], "what is there, and nothing before the position");
}

#[tokio::test]
#[ignore = "needs the stand-in for Kinesis: tests/services/kinesis/up"]
async fn all_readers_together_read_five_times_a_second() {
    let settings = Settings { reads_per_s: 5, read_bytes_per_s: 2_000_000, ..settings() };
    let (log, shards) = created(&settings, 1).await;
    log.put(&shards[0], None, Bytes::from(vec![1; 1_000_000])).await.unwrap();
    let began = Instant::now();
    for _ in 0..4 {
        log.read(shards[0].id, Cursor::Oldest).await.unwrap();
    }
    // Each has read a megabyte, which is half a second's.
    assert!(began.elapsed() >= Duration::from_millis(1500), "{:?}", began.elapsed());
    // Too many at once are sent away rather than kept.
    let many = (0..20).map(|_| log.read(shards[0].id, Cursor::Oldest));
    let many = futures::future::join_all(many).await;
    assert!(many.contains(&Err(ReadLogError::Throttled)));
}
