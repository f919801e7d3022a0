//! What an operator says of Cassandra: the table `[cassandra]` of the configuration file.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// Days that Cassandra keeps the mark of a deleted row by default: its own default.
const GRACE_DAYS: u32 = 10;

/// How to reach Cassandra, and what to ask of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Nodes to begin with, `host` or `host:port`; the others are found through them. Name more than one.
    pub contact_points: Vec<String>,
    /// The keyspace: lower-case letters, digits and `_`, a letter first.
    pub keyspace: String,
    /// The datacenter that this node is in. No other one is asked.
    pub local_datacenter: String,
    /// Whom a quorum is counted among.
    pub quorum: Quorum,
    /// The user; none: the cluster asks for none.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<Password>,
    /// TLS; none: plain TCP.
    pub tls: Option<Tls>,
    /// Connections to each node of Cassandra.
    pub connections_per_host: usize,
    /// How long a request may take. Longer than Cassandra's own write timeout (2 s by default), so that its answer
    /// comes before ours.
    pub request_timeout_ms: u64,
    /// How long a connection may take.
    pub connect_timeout_ms: u64,
    /// Writes under way at the most, of all shards together.
    pub writes_in_flight_max: usize,
    /// Replicas in each datacenter, for `stormkeep schema apply`; `replication_factor` alone: without regard to
    /// datacenters (`SimpleStrategy`). Empty: three in the local one.
    pub replication: BTreeMap<String, u32>,
    /// Days that marks of deleted rows are kept, in tables that are yet to be made. More than the log's retention, or a late fold
    /// brings rows back.
    pub grace_days: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            contact_points: vec!["127.0.0.1:9042".into()],
            keyspace: "stormkeep".into(),
            local_datacenter: "datacenter1".into(),
            quorum: Quorum::Datacenter,
            username: None,
            password: None,
            tls: None,
            connections_per_host: 2,
            request_timeout_ms: 4000,
            connect_timeout_ms: 3000,
            writes_in_flight_max: 256,
            replication: BTreeMap::new(),
            grace_days: GRACE_DAYS,
        }
    }
}

/// Whom a quorum is counted among.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quorum {
    /// The replicas of the local datacenter: `LOCAL_QUORUM` and `LOCAL_SERIAL`. Then all nodes of Stormkeep must
    /// name the same one: two datacenters would each have an owner of every shard.
    #[default]
    Datacenter,
    /// All replicas: `QUORUM` and `SERIAL`. Nodes of Stormkeep may be in several datacenters; each call waits for
    /// a round trip between them.
    Cluster,
}

/// Certificates, in PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// The authorities to trust. A node's certificate must name its IP address.
    pub ca: PathBuf,
    /// The certificate chain to show; none: the cluster asks for none.
    pub certificate: Option<PathBuf>,
    /// The certificate's private key.
    pub key: Option<PathBuf>,
}

/// A password that no log shows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cassandra.{field}: {what}")]
pub struct InvalidSettings {
    /// The setting.
    pub field: &'static str,
    /// What is wrong, and the way out.
    pub what: String,
}

impl Settings {
    /// Checks what can be checked without Cassandra.
    pub fn check(&self) -> Result<(), InvalidSettings> {
        let wrong = |field, what: &str| Err(InvalidSettings { field, what: what.into() });
        if self.contact_points.is_empty() || self.contact_points.iter().any(String::is_empty) {
            return wrong("contact_points", "name at least one node, as `host` or `host:port`");
        }
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let named = self.keyspace.starts_with(|c: char| c.is_ascii_lowercase());
        if !named || self.keyspace.len() > 48 || !self.keyspace.chars().all(letters) {
            return wrong(
                "keyspace",
                "up to 48 lower-case letters, digits and `_`, with a letter first",
            );
        }
        if self.local_datacenter.is_empty() {
            return wrong("local_datacenter", "name the datacenter that this node is in");
        }
        if self.username.is_some() != self.password.is_some() {
            return wrong("password", "give both, username and password, or neither");
        }
        if self.tls.as_ref().is_some_and(|tls| tls.certificate.is_some() != tls.key.is_some()) {
            return wrong("tls.key", "give both, certificate and key, or neither");
        }
        if self.connections_per_host == 0 {
            return wrong("connections_per_host", "at least 1");
        }
        if self.writes_in_flight_max == 0 {
            return wrong("writes_in_flight_max", "at least 1");
        }
        if self.request_timeout_ms == 0 || self.connect_timeout_ms == 0 {
            return wrong("request_timeout_ms", "no timeout may be 0");
        }
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '\'' | '"' | '\\');
        if let Some((name, _)) =
            self.replication.iter().find(|(name, n)| **n == 0 || !name.chars().all(plain))
        {
            let what = format!("{name}: a datacenter's name and at least one replica");
            return wrong("replication", &what);
        }
        if self.grace_days == 0 || self.grace_days > 3650 {
            return wrong("grace_days", "1 to 3650 days, and more than the log's retention");
        }
        Ok(())
    }

    pub(super) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    /// The keyspace's replication, as CQL.
    pub(super) fn replication_cql(&self) -> String {
        if let (Some(factor), 1) =
            (self.replication.get("replication_factor"), self.replication.len())
        {
            return format!("{{'class': 'SimpleStrategy', 'replication_factor': {factor}}}");
        }
        let default = BTreeMap::from([(self.local_datacenter.clone(), 3)]);
        let factors = if self.replication.is_empty() { &default } else { &self.replication };
        let factors: String = factors.iter().map(|(dc, n)| format!(", '{dc}': {n}")).collect();
        format!("{{'class': 'NetworkTopologyStrategy'{factors}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(change: impl FnOnce(&mut Settings)) -> String {
        let mut settings = Settings::default();
        change(&mut settings);
        settings.check().unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_is_told_with_its_field() {
        assert_eq!(Settings::default().check(), Ok(()));
        assert!(wrong(|s| s.contact_points.clear()).starts_with("cassandra.contact_points: name"));
        assert!(wrong(|s| s.keyspace = "a;drop".into()).starts_with("cassandra.keyspace: up to"));
        assert!(wrong(|s| s.keyspace = "Upper".into()).starts_with("cassandra.keyspace: "));
        assert!(wrong(|s| s.username = Some("u".into())).starts_with("cassandra.password: "));
        assert!(wrong(|s| s.local_datacenter.clear()).starts_with("cassandra.local_datacenter: "));
        assert!(
            wrong(|s| s.replication = BTreeMap::from([("a'b".into(), 3)]))
                .starts_with("cassandra.replication: a'b")
        );
        assert!(wrong(|s| s.grace_days = 0).starts_with("cassandra.grace_days: "));
    }

    #[test]
    fn replication_is_by_datacenter_unless_told_otherwise() {
        let mut settings = Settings { local_datacenter: "eu".into(), ..Settings::default() };
        let by_default = "{'class': 'NetworkTopologyStrategy', 'eu': 3}";
        assert_eq!(settings.replication_cql(), by_default);
        settings.replication = BTreeMap::from([("eu".into(), 3), ("us".into(), 2)]);
        let two = "{'class': 'NetworkTopologyStrategy', 'eu': 3, 'us': 2}";
        assert_eq!(settings.replication_cql(), two);
        settings.replication = BTreeMap::from([("replication_factor".into(), 1)]);
        let simple = "{'class': 'SimpleStrategy', 'replication_factor': 1}";
        assert_eq!(settings.replication_cql(), simple);
    }

    #[test]
    fn a_password_is_not_shown() {
        let settings =
            Settings { password: Some(Password("secret".into())), ..Settings::default() };
        assert!(!format!("{settings:?}").contains("secret"));
    }
}
