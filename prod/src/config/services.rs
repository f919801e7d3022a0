//! Which log and which store: the disk of this machine, or the services of a cluster.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use stormkeep_core::env::NodeId;

use super::{ConfigError, Layer};
use crate::{cluster, push};

/// Where the log is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogKind {
    /// In the data directory
    #[default]
    Disk,
    /// Kinesis Data Streams: table `[kinesis]` of the file
    Kinesis,
}

/// Where the store is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// In the data directory
    #[default]
    Disk,
    /// Cassandra: table `[cassandra]` of the file
    Cassandra,
}

/// What a process does for its cluster. Each answers clients, whatever it does itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Owns shards: takes appends, and folds them into the store
    Node,
    /// Delivers events to subscriptions
    Worker,
    /// Both
    #[default]
    Both,
}

impl Role {
    /// Whether it owns shards.
    pub fn owns(self) -> bool {
        self != Role::Worker
    }

    /// Whether it delivers.
    pub fn delivers(self) -> bool {
        self != Role::Node
    }
}

impl Layer {
    /// How events are pushed, on one machine and in a cluster alike.
    pub(super) fn push(&self) -> Result<push::Settings, ConfigError> {
        let settings = push::Settings {
            lambda: self.lambda.clone().unwrap_or_default(),
            webhook: self.webhook.clone().unwrap_or_default(),
        };
        settings.check()?;
        Ok(settings)
    }

    /// The cluster that this is to be a node of; `None`: this machine is alone.
    pub(super) fn cluster(
        &self,
        push: &push::Settings,
    ) -> Result<Option<cluster::Settings>, ConfigError> {
        let wrong = |name, what: &str| Err(ConfigError::Value { name, what: what.into() });
        match (self.log.unwrap_or_default(), self.store.unwrap_or_default()) {
            (LogKind::Kinesis, StoreKind::Cassandra) => {}
            (LogKind::Disk, StoreKind::Disk) => {
                let needs = "it is set, but nothing of a cluster is used: set log = \"kinesis\" and store = \"cassandra\", or leave it out";
                let given = [
                    ("node_id", self.node_id.is_some()),
                    ("role", self.role.is_some()),
                    ("kinesis", self.kinesis.is_some()),
                    ("cassandra", self.cassandra.is_some()),
                    ("peers", self.peers.is_some()),
                ];
                return match given.iter().find(|(_, given)| *given) {
                    Some((name, _)) => wrong(name, needs),
                    None => Ok(None),
                };
            }
            (LogKind::Kinesis, StoreKind::Disk) => {
                return wrong(
                    "store",
                    "a log on Kinesis needs a store that all nodes share: set store = \"cassandra\"",
                );
            }
            (LogKind::Disk, StoreKind::Cassandra) => {
                return wrong(
                    "log",
                    "a store in Cassandra needs a log that all nodes share: set log = \"kinesis\"",
                );
            }
        }
        if self.shards.is_some() {
            return wrong(
                "shards",
                "they are those of the stream: `stormkeep schema apply --stream-shards N` makes it",
            );
        }
        if self.data.is_some() {
            return wrong("data", "a node of a cluster keeps nothing on its disk: leave it out");
        }
        let Some(node) = self.node_id else {
            return wrong(
                "node_id",
                "it is missing: give each node of the cluster a number of its own that it keeps, such as the ordinal of its pod",
            );
        };
        let settings = cluster::Settings {
            node: NodeId(node),
            role: self.role.unwrap_or_default(),
            kinesis: self.kinesis.clone().unwrap_or_default(),
            cassandra: self.cassandra.clone().unwrap_or_default(),
            peers: self.peers.clone().unwrap_or_default(),
            push: push.clone(),
        };
        settings.kinesis.check()?;
        settings.cassandra.check()?;
        settings.peers.check()?;
        Ok(Some(settings))
    }
}
