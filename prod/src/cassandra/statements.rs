//! The statements, prepared once in a session, each with the consistency it needs.
//!
//! Reads are idempotent and may be retried by the driver at another node. Writes and compare-and-sets never are: after a
//! first try of unknown outcome, a second one that is refused would say *no*.

use std::sync::Arc;

use scylla::{
    client::session::Session,
    errors::PrepareError,
    policies::retry::DefaultRetryPolicy,
    statement::{Consistency, prepared::PreparedStatement},
};

use super::{
    rows::checkpoint_parts,
    settings::{Quorum, Settings},
};

/// Seconds that a sign of life is kept.
const NODE_TTL_S: u32 = 3600;

/// A read that is asked of a quorum, or of one replica.
pub(super) struct Fresh {
    pub(super) strong: PreparedStatement,
    pub(super) eventual: PreparedStatement,
}

/// See the module's docs. Values are bound in the order of the question marks.
pub(super) struct Statements {
    pub(super) epoch: PreparedStatement,
    pub(super) epochs: PreparedStatement,
    pub(super) epoch_settled: PreparedStatement,
    pub(super) swap_vacant: PreparedStatement,
    pub(super) swap: PreparedStatement,
    pub(super) put_event: PreparedStatement,
    pub(super) put_shard_event: PreparedStatement,
    pub(super) put_shard_bucket: PreparedStatement,
    pub(super) put_head: PreparedStatement,
    pub(super) put_checkpoint: PreparedStatement,
    pub(super) put_node: PreparedStatement,
    pub(super) head: Fresh,
    pub(super) events: Fresh,
    pub(super) events_back: Fresh,
    pub(super) shard_events: PreparedStatement,
    pub(super) shard_events_back: PreparedStatement,
    pub(super) shard_buckets: PreparedStatement,
    pub(super) shard_buckets_back: PreparedStatement,
    pub(super) checkpoint: PreparedStatement,
    pub(super) checkpoints: PreparedStatement,
    pub(super) nodes: PreparedStatement,
    pub(super) documents: PreparedStatement,
    pub(super) rewrite_blank: PreparedStatement,
    pub(super) rewrite: PreparedStatement,
    pub(super) put_progress: PreparedStatement,
    pub(super) progress: PreparedStatement,
    pub(super) put_address: PreparedStatement,
    pub(super) address: PreparedStatement,
}

struct Prepare<'a> {
    session: &'a Session,
    settings: &'a Settings,
}

impl Prepare<'_> {
    async fn write(&self, cql: String) -> Result<PreparedStatement, PrepareError> {
        // The session's profile has the consistencies, and no retries.
        let cql = cql.replace("KS.", &format!("{}.", self.settings.keyspace));
        self.session.prepare(cql).await
    }

    async fn read(&self, cql: impl Into<String>) -> Result<PreparedStatement, PrepareError> {
        let mut statement = self.write(cql.into()).await?;
        statement.set_is_idempotent(true);
        statement.set_retry_policy(Some(Arc::new(DefaultRetryPolicy::new())));
        Ok(statement)
    }

    async fn fresh(&self, cql: &str) -> Result<Fresh, PrepareError> {
        let strong = self.read(cql).await?;
        let mut eventual = strong.clone();
        eventual.set_consistency(Consistency::LocalOne);
        Ok(Fresh { strong, eventual })
    }

    async fn settled(&self, cql: &str) -> Result<PreparedStatement, PrepareError> {
        let mut statement = self.write(cql.into()).await?;
        statement.set_consistency(match self.settings.quorum {
            Quorum::Datacenter => Consistency::LocalSerial,
            Quorum::Cluster => Consistency::Serial,
        });
        Ok(statement)
    }
}

impl Statements {
    pub(super) async fn prepare(
        session: &Session,
        settings: &Settings,
    ) -> Result<Statements, PrepareError> {
        let of = Prepare { session, settings };
        let epoch = "SELECT shard, epoch, owner, incarnation FROM KS.epochs WHERE shard = ?";
        let events = "SELECT revision, event FROM KS.events \
            WHERE stream = ? AND bucket = ? AND revision >= ? AND revision <= ?";
        let shard_events = "SELECT time, event FROM KS.shard_events \
            WHERE shard = ? AND bucket = ? AND time >= ? AND time <= ?";
        let buckets = "SELECT bucket FROM KS.shard_buckets \
            WHERE shard = ? AND era = ? AND bucket >= ? AND bucket <= ?";
        let parts = checkpoint_parts();
        Ok(Statements {
            epoch: of.read(epoch).await?,
            epochs: of
                .read("SELECT shard, epoch, owner, incarnation FROM KS.epochs WHERE shard IN ?")
                .await?,
            epoch_settled: of.settled(epoch).await?,
            swap_vacant: of
                .write(
                    "INSERT INTO KS.epochs (shard, epoch, owner, incarnation) VALUES (?, ?, ?, ?) \
                     IF NOT EXISTS"
                        .into(),
                )
                .await?,
            swap: of
                .write(
                    "UPDATE KS.epochs SET epoch = ?, owner = ?, incarnation = ? WHERE shard = ? \
                     IF epoch = ? AND owner = ? AND incarnation = ?"
                        .into(),
                )
                .await?,
            put_event: of
                .write(
                    "INSERT INTO KS.events (stream, bucket, revision, event) \
                     VALUES (?, ?, ?, ?) USING TIMESTAMP ?"
                        .into(),
                )
                .await?,
            put_shard_event: of
                .write(
                    "INSERT INTO KS.shard_events (shard, bucket, time, event) \
                     VALUES (?, ?, ?, ?) USING TIMESTAMP ?"
                        .into(),
                )
                .await?,
            put_shard_bucket: of
                .write(
                    "INSERT INTO KS.shard_buckets (shard, era, bucket) VALUES (?, ?, ?) \
                     USING TIMESTAMP 1"
                        .into(),
                )
                .await?,
            put_head: of
                .write("INSERT INTO KS.heads (stream, head) VALUES (?, ?) USING TIMESTAMP ?".into())
                .await?,
            put_checkpoint: of
                .write(
                    "INSERT INTO KS.checkpoints (part, shard, checkpoint) VALUES (?, ?, ?) \
                     USING TIMESTAMP ?"
                        .into(),
                )
                .await?,
            put_node: of
                .write(format!(
                    "INSERT INTO KS.nodes (part, node, incarnation, role, beat, draining) \
                     VALUES (0, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL {NODE_TTL_S}"
                ))
                .await?,
            head: of.fresh("SELECT head FROM KS.heads WHERE stream = ?").await?,
            events: of.fresh(&format!("{events} LIMIT ?")).await?,
            events_back: of.fresh(&format!("{events} ORDER BY revision DESC LIMIT ?")).await?,
            shard_events: of.read(format!("{shard_events} LIMIT ?")).await?,
            shard_events_back: of
                .read(format!("{shard_events} ORDER BY time DESC LIMIT ?"))
                .await?,
            shard_buckets: of.read(format!("{buckets} LIMIT ?")).await?,
            shard_buckets_back: of.read(format!("{buckets} ORDER BY bucket DESC LIMIT ?")).await?,
            checkpoint: of
                .read("SELECT checkpoint FROM KS.checkpoints WHERE part = ? AND shard = ?")
                .await?,
            checkpoints: of
                .read(format!(
                    "SELECT shard, checkpoint FROM KS.checkpoints WHERE part IN ({parts})"
                ))
                .await?,
            nodes: of
                .read("SELECT node, incarnation, role, beat, draining FROM KS.nodes WHERE part = 0")
                .await?,
            documents: of
                .read("SELECT name, version, body FROM KS.documents WHERE name IN ?")
                .await?,
            rewrite_blank: of
                .write(
                    "INSERT INTO KS.documents (name, version, body) VALUES (?, ?, ?) IF NOT EXISTS"
                        .into(),
                )
                .await?,
            rewrite: of
                .write(
                    "UPDATE KS.documents SET version = ?, body = ? WHERE name = ? \
                     IF version = ? AND body = ?"
                        .into(),
                )
                .await?,
            put_progress: of
                .write(
                    "INSERT INTO KS.progress (shard, consumers, progress) VALUES (?, ?, ?) \
                     USING TIMESTAMP ?"
                        .into(),
                )
                .await?,
            progress: of
                .read("SELECT consumers, progress FROM KS.progress WHERE shard = ?")
                .await?,
            put_address: of
                .write(
                    "INSERT INTO KS.node_addresses (node, authority, process) VALUES (?, ?, ?)"
                        .into(),
                )
                .await?,
            address: of
                .read("SELECT authority, process FROM KS.node_addresses WHERE node = ?")
                .await?,
        })
    }
}
