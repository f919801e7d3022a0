//! The schema by several at once, and what an operator is told.

use std::{path::PathBuf, time::Duration};

use futures::future::join_all;
use stormkeep::cassandra::{CassandraStore, Password, Settings, Tls, probe, schema};
use stormkeep_core::{
    env::{Store, StoreError},
    shard::ShardId,
};

use crate::cluster::{cql, fresh, net, settings};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real Cassandra: tests/services/up cassandra"]
async fn four_may_apply_the_schema_at_once() {
    for round in 0..2 {
        let settings = settings("apply_at_once");
        cql(&settings, "DROP KEYSPACE IF EXISTS apply_at_once").await;
        let applied = join_all((0..4).map(|_| schema::apply(&settings, |_| ()))).await;
        let made = applied.into_iter().map(|a| a.expect("each of them succeeds"));
        let made = made.filter(|applied| applied.from == 0).count();
        assert_eq!(made, 1, "round {round}: one of them makes it, the others find it");
        let store = CassandraStore::new(settings).unwrap();
        store.connect().await.expect("the schema is what it should be");
        assert_eq!(store.checkpoints().await, Ok(Vec::new()));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real Cassandra: tests/services/up cassandra"]
async fn a_half_done_schema_is_completed() {
    let settings = settings("half_done");
    fresh("half_done").await;
    cql(&settings, "DROP TABLE half_done.heads").await;
    cql(
        &settings,
        "UPDATE half_done.schema_migrations SET done = false WHERE part = 0 AND version = 1",
    )
    .await;
    let store = CassandraStore::new(settings.clone()).unwrap();
    let told = store.connect().await.unwrap_err().to_string();
    assert!(
        told.contains("has schema 0; this release needs 1: run `stormkeep schema apply`"),
        "{told}"
    );
    let applied = schema::apply(&settings, |_| ()).await.unwrap();
    assert_eq!((applied.from, applied.to), (0, 1));
    store.connect().await.unwrap();
}

async fn told(settings: Settings) -> String {
    let store = CassandraStore::new(settings).expect("the settings are right");
    let told = store.connect().await.expect_err("it must not connect").to_string();
    assert_eq!(store.epoch(ShardId(1)).await, Err(StoreError::Unavailable));
    assert_eq!(store.unreachable(), Some(told.clone()), "readiness says the same");
    println!("{told}");
    told
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real Cassandra: tests/services/up cassandra"]
async fn what_is_wrong_is_told_with_its_setting() {
    fresh("told").await;
    let right = settings("told");
    let with = |change: &dyn Fn(&mut Settings)| {
        let mut settings = right.clone();
        change(&mut settings);
        told(settings)
    };
    let password = with(&|s| s.password = Some(Password("wrong".into()))).await;
    assert!(password.contains("username or password is wrong"));
    let nobody = with(&|s| (s.username, s.password) = (None, None)).await;
    assert!(nobody.contains("wants a username and a password"));
    let datacenter = with(&|s| s.local_datacenter = "dc9".into()).await;
    assert!(datacenter.contains("cassandra.local_datacenter: the cluster has no \"dc9\", but dc1"));
    let keyspace = with(&|s| s.keyspace = "nowhere".into()).await;
    assert!(
        keyspace
            .contains("cassandra.keyspace: there is no \"nowhere\": run `stormkeep schema apply`")
    );
    let nothing = with(&|s| s.contact_points = vec!["127.0.0.1:1".into()]).await;
    assert!(nothing.contains("is Cassandra up?"), "{nothing}");
    let newer =
        "INSERT INTO told.schema_migrations (part, version, what, done) VALUES (0, 99, '', true)";
    cql(&right, newer).await;
    let newer = with(&|_| ()).await;
    assert!(newer.contains("has schema 99; this release knows 1: use a newer release"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real Cassandra: tests/services/up cassandra"]
async fn tls_trusts_the_authority_that_is_given() {
    fresh("over_tls").await;
    let services = std::env::temp_dir().join("stormkeep-services-0");
    let tls = services.join(format!("cassandra-{}", net())).join("tls");
    let with =
        |ca: PathBuf| Settings { tls: Some(Tls { ca, ..Tls::default() }), ..settings("over_tls") };
    let store = CassandraStore::new(with(tls.join("ca.pem"))).unwrap();
    store.connect().await.expect("TLS");
    assert_eq!(store.nodes().await, Ok(Vec::new()));
    // Its own certificate is no authority.
    let other = told(with(tls.join("node.pem"))).await;
    assert!(other.contains("tls.ca does not hold") || other.contains("certificate"), "{other}");
    let none = told(with(tls.join("none.pem"))).await;
    assert!(none.starts_with("cassandra.tls.ca: "), "{none}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real Cassandra: tests/services/up cassandra"]
async fn a_doctor_finds_nothing_in_a_healthy_cluster_and_each_thing_in_others() {
    fresh("doctor").await;
    let right = settings("doctor");
    let checks = probe(&right).await;
    for check in &checks {
        println!("{check:?}");
        assert!(check.ok, "{check:?}");
    }
    assert!(checks.len() >= 11, "{}", checks.len());
    let bad = |settings: Settings| async move {
        let checks = probe(&settings).await;
        let bad: Vec<_> = checks.into_iter().filter(|check| !check.ok).collect();
        println!("{bad:?}");
        assert!(bad.iter().all(|check| check.fix.is_some()));
        bad.into_iter().map(|check| check.name).collect::<Vec<_>>()
    };
    let mut wrong = right.clone();
    wrong.password = Some(Password("wrong".into()));
    assert_eq!(bad(wrong).await, ["cassandra: session"]);
    let mut wrong = right.clone();
    wrong.keyspace = "nowhere".into();
    assert_eq!(bad(wrong).await, ["cassandra: schema"]);
    cql(&right, "CREATE ROLE IF NOT EXISTS reader WITH PASSWORD = 'reader' AND LOGIN = true").await;
    cql(&right, "GRANT SELECT ON KEYSPACE doctor TO reader").await;
    let mut reader = right.clone();
    (reader.username, reader.password) = (Some("reader".into()), Some(Password("reader".into())));
    // A new role is known everywhere a little later.
    let mut found = Vec::new();
    for _ in 0..50 {
        found = bad(reader.clone()).await;
        if found == ["cassandra: writing"] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(found, ["cassandra: writing"]);
}
