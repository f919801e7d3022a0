//! What does not work is said with its fix, and is over when it works again, without a restart.

use std::{process::Command, time::Duration};

use bytes::Bytes;
use stormkeep::kinesis::{Kind, Settings, probe};
use stormkeep_core::env::{Log, LogError, PutError};

use crate::{
    created, open,
    proxy::{Fate, Proxy},
    put_numbers, settings,
};

#[tokio::test]
#[ignore = "needs the stand-in for Kinesis: tests/services/kinesis/up"]
async fn a_stream_that_is_missing_is_named_until_it_is_there() {
    let settings = settings();
    let log = open(&settings).await;
    assert_eq!(log.shards().await, Err(LogError::Refused(Kind::Missing.fix())));
    let ailments = log.health().ailments();
    assert!(ailments.iter().all(|ailment| ailment.kind == Kind::Missing), "{ailments:?}");
    assert!(ailments.iter().any(|ailment| ailment.action == "ListShards"));
    assert!(ailments[0].fix().contains("kinesis.stream"));
    let (_, shards) = created(&settings, 1).await;
    assert_eq!(log.shards().await.unwrap(), shards);
    log.describe().await.unwrap();
    assert_eq!(log.health().ailments(), []);
}

#[tokio::test]
#[ignore = "needs the stand-in for Kinesis: tests/services/kinesis/up"]
async fn a_service_that_is_not_there_is_unknown_and_then_works() {
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = settings();
    let (_, shards) = created(&settings, 1).await;
    let settings = Settings { endpoint: Some(format!("http://{free}")), ..settings };
    let log = open(&settings).await;
    let put = log.put(&shards[0], None, Bytes::from_static(b"1")).await;
    assert_eq!(put, Err(PutError::Unknown));
    assert_eq!(log.shards().await, Err(LogError::Unavailable));
    let kinds: Vec<Kind> = log.health().ailments().iter().map(|ailment| ailment.kind).collect();
    assert!(!kinds.is_empty() && kinds.iter().all(|kind| *kind == Kind::Unreachable), "{kinds:?}");
    // The very same log, once it is there.
    let proxy = Proxy::start_at(free).await;
    let number = put_numbers(&log, &shards[0], 0..1).await;
    assert_eq!((number.len(), proxy.seen("PutRecord")), (1, 1));
    assert!(log.health().ailments().iter().all(|ailment| ailment.action != "PutRecord"));
}

#[tokio::test]
#[ignore = "needs the stand-in for Kinesis: tests/services/kinesis/up"]
async fn the_doctor_names_what_is_wrong_and_how_to_mend_it() {
    let proxy = Proxy::start().await;
    let settings = Settings {
        endpoint: Some(proxy.endpoint.clone()),
        consumer: Some("fold".to_owned()),
        ..settings()
    };
    let missing = probe(&settings).await;
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert!(!missing[0].ok && missing[0].fix.as_ref().unwrap().contains("--stream-shards"));

    let (log, shards) = created(&settings, 2).await;
    let well = probe(&settings).await;
    println!("{well:#?}");
    assert!(well.len() >= 7 && well.iter().all(|check| check.ok), "{well:#?}");
    // What it may have put is no event of anybody.
    let page = log.read(shards[0].id, stormkeep_core::env::Cursor::Oldest).await.unwrap();
    for record in page.records {
        use stormkeep_core::{entry::Entry, shard::ShardId};
        let entry = Entry::decode(&record.data).unwrap();
        assert!(matches!(entry, Entry::Fence(fence) if fence.shard == ShardId(u32::MAX)));
    }
    for (action, code, fix) in [
        ("PutRecord", "AccessDeniedException", "\"kinesis:PutRecord\""),
        ("GetRecords", "AccessDeniedException", "\"kinesis:GetRecords\""),
        ("ListShards", "AccessDeniedException", "\"kinesis:ListShards\""),
        ("DescribeStreamConsumer", "AccessDeniedException", "\"kinesis:DescribeStreamConsumer\""),
        ("DescribeStreamSummary", "ExpiredTokenException", "credentials"),
        ("DescribeStreamSummary", "InvalidSignatureException", "credentials"),
        ("PutRecord", "KMSAccessDeniedException", "kms:GenerateDataKey"),
    ] {
        proxy.next(action, Fate::error(400, code));
        let checks = probe(&settings).await;
        let bad: Vec<_> = checks.iter().filter(|check| !check.ok).collect();
        assert_eq!(bad.len(), 1, "{action} {code}: {checks:#?}");
        assert!(bad[0].fix.as_ref().unwrap().contains(fix), "{action} {code}: {bad:#?}");
    }
    let message = r#"{"__type":"InvalidSignatureException","message":"Signature expired: 20260101T000000Z is now earlier than 20260101T000500Z"}"#;
    proxy.next("DescribeStreamSummary", Fate::Answer(400, message.to_owned()));
    let checks = probe(&settings).await;
    assert!(checks[0].fix.as_ref().unwrap().contains("clock"), "{checks:#?}");
    proxy.next("PutRecord", Fate::error(400, "DryRunOperationException"));
    assert!(probe(&settings).await.iter().all(|check| check.ok), "the answer of a dry run");
}

/// The credentials of a process cannot be changed within it: the test starts itself with a file of its own for them.
#[tokio::test]
#[ignore = "needs the stand-in for Kinesis: tests/services/kinesis/up"]
async fn credentials_that_are_renewed_are_used() {
    const FILE: &str = "AWS_SHARED_CREDENTIALS_FILE";
    let (_, shards) = created(&settings(), 1).await;
    let Ok(inner) = std::env::var("KINESIS_TEST_CREDENTIALS") else {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("credentials");
        let name = "health::credentials_that_are_renewed_are_used";
        let output = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--ignored", "--nocapture"])
            .env("KINESIS_TEST_CREDENTIALS", &file)
            .env(FILE, &file)
            .env("AWS_CONFIG_FILE", home.path().join("config"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    };
    // With a profile that has none: the environment comes before the files otherwise.
    let settings = Settings { profile: Some("late".to_owned()), ..settings() };
    let log = open(&settings).await;
    let refused = Err(PutError::Refused(Kind::Credentials.fix()));
    assert_eq!(log.put(&shards[0], None, Bytes::from_static(b"1")).await, refused);
    assert_eq!(log.health().ailments()[0].kind, Kind::Credentials);
    std::fs::write(inner, "[late]\naws_access_key_id = late\naws_secret_access_key = late\n")
        .unwrap();
    let again = async {
        while log.create(1).await.is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again).await.expect("it is read anew");
    put_numbers(&log, &log.shards().await.unwrap()[0], 0..1).await;
    assert_eq!(log.health().ailments(), []);
}
