//! The cluster, and what tests put into it.

use std::{collections::BTreeMap, path::PathBuf, process::Command, sync::Arc, time::Duration};

use stormkeep::cassandra::{CassandraStore, Password, Settings, schema};
use stormkeep_core::{
    append::AppendId,
    event::{Event, EventId, Format, RecordedEvent},
    shard::ShardId,
    stream::StreamName,
    time::HybridTime,
};

pub(crate) fn net() -> String {
    std::env::var("CASSANDRA_NET").unwrap_or_else(|_| "127.0.0".into())
}

/// How to reach the cluster that `tests/services/up` has started.
pub(crate) fn settings(keyspace: &str) -> Settings {
    Settings {
        contact_points: (1..=3).map(|n| format!("{}.{n}:9042", net())).collect(),
        keyspace: keyspace.into(),
        local_datacenter: "dc1".into(),
        username: Some("cassandra".into()),
        password: Some(Password("cassandra".into())),
        replication: BTreeMap::from([("dc1".into(), 3)]),
        ..Settings::default()
    }
}

/// A store in an empty keyspace of this name.
pub(crate) async fn fresh(keyspace: &str) -> Arc<CassandraStore> {
    let settings = settings(keyspace);
    cql(&settings, &format!("DROP KEYSPACE IF EXISTS {keyspace}")).await;
    schema::apply(&settings, |_| ()).await.expect("the schema is applied");
    let store = CassandraStore::new(settings).expect("the settings are right");
    store.connect().await.expect("it connects");
    Arc::new(store)
}

/// Carries out a statement, as an operator would.
pub(crate) async fn cql(settings: &Settings, cql: &str) {
    let mut builder = scylla::client::session_builder::SessionBuilder::new()
        .known_nodes(&settings.contact_points);
    if let (Some(user), Some(password)) = (&settings.username, &settings.password) {
        builder = builder.user(user, &password.0);
    }
    let session = builder.build().await.expect("a session");
    let mut statement = scylla::statement::unprepared::Statement::new(cql);
    statement.set_request_timeout(Some(Duration::from_secs(60)));
    session.query_unpaged(statement, ()).await.expect(cql);
    session.await_schema_agreement().await.expect("agreement");
}

/// Does something to node `n`: `kill`, `stop`, `cont`, `start`.
pub(crate) fn node(action: &str, n: u32) {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/services/cassandra/node");
    let status = Command::new(script).args([action, &n.to_string()]).status().expect("it runs");
    assert!(status.success(), "node {action} {n}: {status}");
}

pub(crate) fn stream(name: &str) -> StreamName {
    StreamName::new(name).expect("a name")
}

/// An event of `bytes` bytes; all else follows from its place.
pub(crate) fn event(name: &str, revision: u64, time: u64, bytes: usize) -> RecordedEvent {
    RecordedEvent {
        stream: stream(name),
        revision,
        shard: ShardId(7),
        time: HybridTime(time),
        append: AppendId(u128::from(time) << 64 | u128::from(revision)),
        event: Event {
            id: EventId(u128::from(revision) + 1),
            kind: "item-picked-up".into(),
            format: Format::Json,
            data: vec![revision as u8; bytes].into(),
            metadata: Default::default(),
        },
    }
}
