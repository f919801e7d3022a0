//! Puts: where they land, and what is said of them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use stormkeep::kinesis::{Kind, Settings};
use stormkeep_core::{
    env::{Cursor, Log, LogError, Position, Put, PutError},
    limits::ENTRY_BYTES_MAX,
    shard::{HashRange, holder},
};

use crate::{
    created, middle,
    proxy::{Fate, Proxy},
    put_numbers, read, settings, shard,
};

#[tokio::test]
#[ignore = "needs the stand-in for Kinesis: tests/services/kinesis/up"]
async fn a_new_stream_covers_the_key_space_and_keeps_its_order() {
    let settings = settings();
    let (log, shards) = created(&settings, 3).await;
    assert_eq!(shards.iter().map(|s| s.id.0).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(shards.iter().all(|s| !s.closed && s.parents.is_empty()));
    for key in [0, 1, u128::MAX / 2, u128::MAX] {
        assert!(holder(&shards, key).is_some(), "{key}");
    }
    for shard in &shards {
        let positions = put_numbers(&log, shard, 0..20).await;
        assert!(positions.is_sorted_by(|a, b| a < b));
        let got = read(&log, shard.id, Cursor::Oldest, 20).await;
        assert_eq!(got.numbers(), (0..20).collect::<Vec<_>>());
        let seen: Vec<Position> = got.records.iter().map(|record| record.position).collect();
        assert_eq!(seen, positions);
    }
    // Creating it again changes nothing.
    assert_eq!(log.create(3).await.unwrap().open_shards, 3);
    assert_eq!(log.health().ailments(), []);
}

#[tokio::test]
#[ignore = "needs the stand-in for Kinesis: tests/services/kinesis/up"]
async fn a_put_to_a_closed_parent_lands_in_a_child_and_says_so() {
    let (log, shards) = created(&settings(), 1).await;
    let parent = &shards[0];
    let last = put_numbers(&log, parent, 0..3).await.pop();
    let at = middle(parent);
    log.split(parent.id, at).await.unwrap();

    let now = log.shards().await.unwrap();
    assert!(shard(&log, parent.id).await.closed);
    let children: Vec<_> = now.iter().filter(|s| s.parents == [parent.id]).collect();
    assert_eq!(children.len(), 2, "{now:?}");
    assert!(children.iter().all(|child| !child.closed));
    let low = holder(&now, parent.range.start).unwrap();
    assert_ne!(low.id, parent.id);
    // The owner of the parent does not know yet: it puts as before, behind what it put before.
    let put = log.put(parent, last, Bytes::from_static(b"9")).await.unwrap();
    assert_eq!(put.shard, low.id);
    let got = read(&log, low.id, Cursor::Oldest, 1).await;
    assert_eq!((got.numbers(), got.records[0].position), (vec![9], put.position));
    // The parent is read to its end.
    let got = read(&log, parent.id, Cursor::Oldest, usize::MAX).await;
    assert_eq!((got.numbers(), got.next), (vec![0, 1, 2], None));

    let (a, b) = (children[0].id, children[1].id);
    log.merge(a, b).await.unwrap();
    let now = log.shards().await.unwrap();
    let merged = now.iter().find(|s| s.parents.len() == 2).unwrap();
    let mut parents = merged.parents.clone();
    parents.sort();
    assert_eq!(parents, [a, b]);
    assert_eq!((merged.range, merged.closed), (HashRange { start: 0, end: u128::MAX }, false));
    let put = log.put(low, Some(put.position), Bytes::from_static(b"10")).await.unwrap();
    assert_eq!(put.shard, merged.id);
    let got = read(&log, low.id, Cursor::Oldest, usize::MAX).await;
    assert_eq!((got.numbers(), got.next), (vec![9], None));
}

/// The service takes a while to split, and a stand-in goes on taking records into the parent meanwhile (kinesalite, for half a
/// second): whatever an answer says, the record is there, and the parent is read to an end that has them all.
#[tokio::test]
#[ignore = "needs the stand-in for Kinesis: tests/services/kinesis/up"]
async fn what_is_put_during_a_split_is_where_its_answer_says() {
    let (log, shards) = created(&settings(), 1).await;
    let parent = &shards[0];
    let splitting = async {
        put_numbers(&log, parent, 0..1).await;
        log.split(parent.id, middle(parent)).await.unwrap();
    };
    let mut splitting = std::pin::pin!(splitting);
    let mut puts: Vec<Put> = Vec::new();
    let mut is_split = false;
    while !is_split || puts.iter().filter(|put| put.shard != parent.id).count() < 20 {
        let after = puts.last().map(|put| put.position);
        let put = log.put(parent, after, Bytes::from_static(b"1"));
        let (put, ()) = futures::join!(put, async {
            if !is_split {
                is_split = futures::poll!(&mut splitting).is_ready();
            }
        });
        match put {
            Ok(put) => puts.push(put),
            // The child is a second younger than the service's clock (kinesalite): busy, until it is not.
            Err(error) => assert_eq!(error, PutError::Throttled),
        }
    }
    let child = puts.last().unwrap().shard;
    for shard in [parent.id, child] {
        let due = puts.iter().filter(|put| put.shard == shard).map(|put| put.position);
        let due: Vec<Position> = due.collect();
        let count = if shard == parent.id { usize::MAX } else { due.len() };
        let got = read(&log, shard, Cursor::Oldest, count).await;
        let positions: Vec<Position> = got.records.iter().map(|record| record.position).collect();
        let missing: Vec<_> = due.iter().filter(|at| !positions.contains(at)).collect();
        assert!(missing.is_empty(), "{shard}: {missing:?} of {}", due.len());
        println!("{shard}: {} records during the split", due.len());
    }
}

#[tokio::test]
#[ignore = "needs the stand-in for Kinesis: tests/services/kinesis/up"]
async fn a_long_list_of_shards_is_read_page_by_page() {
    let proxy = Proxy::start().await;
    let settings = Settings { endpoint: Some(proxy.endpoint.clone()), ..settings() };
    let (log, shards) = created(&settings, 5).await;
    let before = proxy.seen("ListShards");
    let two = Fate::Replace("{\"StreamName\"".into(), "{\"MaxResults\":2,\"StreamName\"".into());
    let go_on = Fate::Replace("{\"NextToken\"".into(), "{\"MaxResults\":2,\"NextToken\"".into());
    for fate in [two, go_on.clone(), go_on] {
        proxy.next("ListShards", fate);
    }
    assert_eq!(log.shards().await.unwrap(), shards);
    assert_eq!(proxy.seen("ListShards"), before + 3);
}

#[tokio::test]
#[ignore = "needs the stand-in for Kinesis: tests/services/kinesis/up"]
async fn a_change_that_cannot_be_is_refused() {
    let (log, shards) = created(&settings(), 2).await;
    let (a, b) = (&shards[0], &shards[1]);
    let refused = |what: &str, result: Result<(), LogError>| {
        assert!(matches!(result, Err(LogError::Refused(_))), "{what}: {result:?}");
    };
    refused("a key of another shard", log.split(a.id, b.range.start).await);
    refused("with itself", log.merge(a.id, a.id).await);
    log.split(a.id, middle(a)).await.unwrap();
    refused("closed", log.split(a.id, middle(a)).await);
    refused("closed", log.merge(a.id, b.id).await);
    assert_eq!(log.shards().await.unwrap().iter().filter(|s| !s.closed).count(), 3);
}

#[tokio::test]
#[ignore = "needs the stand-in for Kinesis: tests/services/kinesis/up"]
async fn a_lost_answer_is_unknown_and_nothing_is_sent_twice() {
    let proxy = Proxy::start().await;
    let settings =
        Settings { endpoint: Some(proxy.endpoint.clone()), put_timeout_ms: 1000, ..settings() };
    let (log, shards) = created(&settings, 1).await;
    for (fate, number) in
        [(Fate::LoseAnswer, "0"), (Fate::HoldAnswer, "1"), (Fate::CutAnswer(40), "2")]
    {
        let (before, began) = (proxy.seen("PutRecord"), Instant::now());
        proxy.next("PutRecord", fate.clone());
        let put = log.put(&shards[0], None, Bytes::from_static(number.as_bytes())).await;
        assert_eq!(put, Err(PutError::Unknown), "{fate:?}");
        assert!(began.elapsed() < Duration::from_secs(3), "{fate:?}: {:?}", began.elapsed());
        assert_eq!(proxy.seen("PutRecord"), before + 1, "{fate:?}");
    }
    assert_eq!(log.health().ailments()[0].action, "PutRecord");
    let put = log.put(&shards[0], None, Bytes::from_static(b"3")).await.unwrap();
    assert_eq!(log.health().ailments(), []);
    // All of them are there, once.
    let got = read(&log, shards[0].id, Cursor::Oldest, 4).await;
    assert_eq!(got.numbers(), [0, 1, 2, 3]);
    assert_eq!(got.records[3].position, put.position);
}

#[tokio::test]
#[ignore = "needs the stand-in for Kinesis: tests/services/kinesis/up"]
async fn what_the_service_says_is_no_busy_or_unknown() {
    let proxy = Proxy::start().await;
    let settings = Settings { endpoint: Some(proxy.endpoint.clone()), ..settings() };
    let (log, shards) = created(&settings, 1).await;
    let no = |kind: Kind| PutError::Refused(kind.fix());
    let early = r#"{"__type":"InvalidArgumentException","message":"ExclusiveMinimumSequenceNumber 49 used in PutRecord on stream a is invalid."}"#;
    let page = Fate::Answer(502, "<html>Bad Gateway</html>".to_owned());
    for (fate, error) in [
        (Fate::error(400, "ProvisionedThroughputExceededException"), PutError::Throttled),
        (Fate::error(400, "KMSThrottlingException"), PutError::Throttled),
        (Fate::error(400, "LimitExceededException"), PutError::Throttled),
        (Fate::error(400, "ThrottlingException"), PutError::Throttled),
        (Fate::error(400, "KMSDisabledException"), no(Kind::Key)),
        (Fate::error(400, "AccessDeniedException"), no(Kind::Denied)),
        (Fate::error(400, "ExpiredTokenException"), no(Kind::Credentials)),
        (Fate::error(400, "UnrecognizedClientException"), no(Kind::Credentials)),
        (Fate::error(400, "ResourceNotFoundException"), no(Kind::Missing)),
        (Fate::error(400, "InvalidArgumentException"), no(Kind::Invalid)),
        (Fate::Answer(400, early.to_owned()), PutError::Throttled),
        (Fate::error(500, "InternalFailureException"), PutError::Unknown),
        (Fate::error(503, "ServiceUnavailable"), PutError::Unknown),
        (Fate::error(400, "SomethingNewException"), PutError::Unknown),
        (page, PutError::Unknown),
        (Fate::Answer(200, "{}".to_owned()), PutError::Unknown),
        (Fate::Answer(200, "no JSON".to_owned()), PutError::Unknown),
    ] {
        let before = proxy.seen("PutRecord");
        proxy.next("PutRecord", fate.clone());
        let put = log.put(&shards[0], None, Bytes::from_static(b"0")).await;
        assert_eq!(put, Err(error), "{fate:?}");
        assert_eq!(proxy.seen("PutRecord"), before + 1, "{fate:?}: tried again");
    }
    put_numbers(&log, &shards[0], 0..1).await;
    assert_eq!(read(&log, shards[0].id, Cursor::Oldest, 1).await.records.len(), 1);
}

#[tokio::test]
#[ignore = "needs the stand-in for Kinesis: tests/services/kinesis/up"]
async fn the_largest_entry_fits_in_a_record() {
    let settings = settings();
    let (log, shards) = created(&settings, 1).await;
    let largest = Bytes::from(vec![7; ENTRY_BYTES_MAX]);
    let put = log.put(&shards[0], None, largest.clone()).await.unwrap();
    let got = read(&log, shards[0].id, Cursor::Oldest, 1).await;
    assert_eq!(got.records[0].position, put.position);
    assert!(got.records[0].data == largest);
    let larger = Bytes::from(vec![7; settings.record_bytes_max]);
    let refused = log.put(&shards[0], None, larger).await;
    assert!(matches!(refused, Err(PutError::Refused(why)) if why.contains("larger than an entry")));
}

/// Not a test of speed: it prints what the adapter and the stand-in take together.
#[tokio::test]
#[ignore = "needs the stand-in for Kinesis: tests/services/kinesis/up"]
async fn how_long_a_put_takes() {
    // On a busy machine a put takes what it takes.
    let patient = Settings { put_timeout_ms: 60_000, read_timeout_ms: 60_000, ..settings() };
    let (log, shards) = created(&patient, 1).await;
    let mut after = None;
    let mut takes = Vec::new();
    for _ in 0..300 {
        let began = Instant::now();
        after =
            Some(log.put(&shards[0], after, Bytes::from(vec![1; 1000])).await.unwrap().position);
        takes.push(began.elapsed());
    }
    takes.sort();
    println!("put of 1000 bytes: p50 {:?}, p99 {:?}", takes[150], takes[296]);
    let mut lags = Vec::new();
    let mut from = Cursor::After(after.unwrap());
    for _ in 0..100 {
        let began = Instant::now();
        after = Some(log.put(&shards[0], after, Bytes::from_static(b"1")).await.unwrap().position);
        let got = read(&log, shards[0].id, from, 1).await;
        assert_eq!(got.records.last().map(|record| record.position), after);
        from = got.next.unwrap();
        lags.push(began.elapsed());
    }
    lags.sort();
    println!("put until read by an unpaced reader: p50 {:?}, p99 {:?}", lags[50], lags[98]);
}
