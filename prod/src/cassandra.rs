//! The store of a cluster: Cassandra 4.1 and 5.0, or ScyllaDB.
//!
//! ```text
//! events         (stream, bucket), revision   -> the event                64 revisions a partition
//! shard_events   (shard, bucket), time        -> the event once more      33.5 s a partition
//! shard_buckets  (shard, era), bucket         -> that there is something
//! heads          stream                       -> the head, with the appends that it remembers
//! checkpoints    part, shard                  -> how far it is folded, in one cell
//! nodes          0, node, incarnation         -> role, beat, draining     kept for an hour
//! epochs         shard                        -> epoch, owner, incarnation by compare-and-set alone
//! documents      name                         -> version, body            by compare-and-set alone
//! progress       shard, consumers             -> how far a group has got, in one cell
//! node_addresses node                         -> where it is called       kept for five minutes
//! ```
//!
//! **An event is written twice.** A way from one table to the other would make a page of a hundred events a hundred reads
//! of as many partitions, on the path that is read most; twice costs disk, and one write in the background.
//!
//! **Timestamps are counts, not times**: [`Row::timestamp`] plus one, so that the later fact wins in whatever order writes
//! arrive. They are far below any clock's: rows that are deleted or written *without* `USING TIMESTAMP`, by hand or by a
//! tool, hide ours for ever. So never `DELETE`, `TRUNCATE` or load these tables by hand; drop the keyspace, and apply the schema
//! anew. Cassandra's guardrail `minimum_timestamp_fail_threshold` must stay off (its default).
//!
//! **What is asked of whom**: writes and strong reads ask a quorum; eventual reads ask one replica; a compare-and-set agrees
//! at the serial consistency and commits at a quorum, so that a quorum read that begins after its success sees it. See
//! [`Quorum`] for one datacenter or several. Tables keep `read_repair = 'BLOCKING'`, Cassandra's default.
//!
//! **Retries**: the driver retries reads alone. What an error means is decided in one place, `failure.rs`.
//!
//! **Amazon Keyspaces** has no serial reads, so an unknown compare-and-set cannot be settled there: it does not fit.

mod addresses;
mod applied;
mod connect;
mod delivery;
mod epochs;
mod failure;
mod metrics;
mod probe;
mod read;
mod refusal;
mod rows;
pub mod schema;
mod settings;
mod statements;
mod write;

use std::fmt::Display;

use scylla::{
    errors::ExecutionError,
    response::{
        PagingState, PagingStateResponse,
        query_result::{QueryResult, QueryRowsResult},
    },
    serialize::row::SerializeRow,
    statement::prepared::PreparedStatement,
};
use stormkeep_core::{
    append::{Direction, Freshness},
    env::{
        Document, DocumentKey, EpochRow, NodeRow, Progress, Rewritten, Row, Store, StoreError, Swap,
    },
    event::RecordedEvent,
    group::GroupNumber,
    head::Head,
    shard::{Checkpoint, ShardId},
    stream::StreamName,
    time::HybridTime,
};
use tokio::sync::Semaphore;

use connect::{Connected, Link};
use failure::{Asked, classify, is_lasting};
use metrics::Flights;
use refusal::Refusals;
use write::Listed;

pub use connect::ConnectError;
pub use metrics::StoreMetrics;
pub use probe::probe;
pub use schema::SchemaError;
pub use settings::{InvalidSettings, Password, Quorum, Settings, Tls};

/// The store of a cluster. It connects when it is first needed, and as often as it must: a cluster that is away makes calls
/// answer [`StoreError::Unavailable`], no more.
pub struct CassandraStore {
    link: Link,
    flights: Flights,
    writes: Semaphore,
    listed: Listed,
    refusals: Refusals,
}

impl CassandraStore {
    /// A store that is not connected yet.
    pub fn new(settings: Settings) -> Result<Self, InvalidSettings> {
        settings.check()?;
        Ok(CassandraStore {
            writes: Semaphore::new(settings.writes_in_flight_max),
            link: Link::new(settings),
            flights: Flights::default(),
            listed: Listed::default(),
            refusals: Refusals::default(),
        })
    }

    /// Connects, or says why it cannot. Nobody need call this: it is for those who would rather know.
    pub async fn connect(&self) -> Result<(), ConnectError> {
        if self.link.current().is_none() {
            self.link.connect().await?;
        }
        Ok(())
    }

    /// Why the store cannot be reached at all, or what it refuses, for readiness; `None`: neither. Looks at no more than what calls
    /// have found out.
    pub fn ailment(&self) -> Option<String> {
        self.unreachable().or_else(|| self.refusals.now().map(|why| format!("it refuses: {why}")))
    }

    /// Why the store cannot be reached at all, or that nobody has reached it yet; `None`: it can.
    pub fn unreachable(&self) -> Option<String> {
        let Some(here) = self.link.current() else {
            let why = self.link.failure();
            return Some(why.unwrap_or_else(|| "no connection to Cassandra yet".to_owned()));
        };
        let state = here.session.get_cluster_state();
        let local = &self.link.settings.local_datacenter;
        let mut nodes = state.get_nodes_info().iter();
        let up = nodes.any(|node| node.datacenter.as_ref() == Some(local) && node.is_connected());
        (!up).then(|| format!("no node of Cassandra in {local:?} can be reached: are they up?"))
    }

    /// What it has done.
    pub fn metrics(&self) -> StoreMetrics {
        let mut metrics = StoreMetrics::default();
        self.flights.fill(&mut metrics);
        let Some(here) = self.link.current() else { return metrics };
        let driver = here.session.get_metrics();
        metrics.connected = true;
        metrics.connections = driver.get_total_connections();
        metrics.requests =
            driver.get_requests_unpaged_num() + driver.get_requests_manually_paged_num();
        metrics.errors = driver.get_errors_unpaged_num() + driver.get_errors_manually_paged_num();
        metrics.retries = driver.get_retries_num();
        metrics.request_timeouts = driver.get_request_timeouts();
        metrics.connection_timeouts = driver.get_connection_timeouts();
        metrics.latency_p50_ms = driver.get_latency_percentile_ms(50.0).unwrap_or(0);
        metrics.latency_p99_ms = driver.get_latency_percentile_ms(99.0).unwrap_or(0);
        metrics
    }

    async fn execute(
        &self,
        here: &Connected,
        statement: &PreparedStatement,
        values: impl SerializeRow,
        asked: Asked,
    ) -> Result<QueryResult, StoreError> {
        let _flight = self.flights.begin();
        let answer = here.session.execute_unpaged(statement, values).await;
        answer.map_err(|error| self.failed(&error, asked))
    }

    /// An answer that has rows, all in one page.
    async fn rows(
        &self,
        here: &Connected,
        statement: &PreparedStatement,
        values: impl SerializeRow,
        asked: Asked,
    ) -> Result<QueryRowsResult, StoreError> {
        let answer = self.execute(here, statement, values, asked).await?;
        answer.into_rows_result().map_err(|error| {
            self.damaged("an answer", &error);
            StoreError::Unknown
        })
    }

    async fn page(
        &self,
        here: &Connected,
        statement: &PreparedStatement,
        values: impl SerializeRow,
        from: PagingState,
    ) -> Result<(QueryRowsResult, PagingStateResponse), StoreError> {
        let _flight = self.flights.begin();
        let answer = here.session.execute_single_page(statement, values, from).await;
        let (answer, next) = answer.map_err(|error| self.failed(&error, Asked::Plain))?;
        let rows = answer.into_rows_result().map_err(|error| self.damaged("an answer", &error))?;
        Ok((rows, next))
    }

    /// What an error means to the core; one that an operator must see is said aloud.
    fn failed(&self, error: &ExecutionError, asked: Asked) -> StoreError {
        let meaning = classify(error, asked);
        self.flights.answered(meaning);
        if is_lasting(error) {
            let why = refusal::explain(error, &self.link.settings.keyspace);
            if self.refusals.note(&why) {
                tracing::error!("Cassandra refuses: {why}");
            }
        } else {
            tracing::debug!(%error, %meaning, "no answer from Cassandra");
        }
        meaning
    }

    /// Something that cannot be read or written is said aloud.
    fn damaged(&self, what: &str, error: &(impl Display + ?Sized)) -> StoreError {
        tracing::error!("Cassandra: {what}: {error}");
        self.flights.answered(StoreError::Unavailable);
        StoreError::Unavailable
    }
}

impl Store for CassandraStore {
    async fn epoch(&self, shard: ShardId) -> Result<EpochRow, StoreError> {
        self.read_epoch(shard, false).await
    }

    async fn epochs(&self, shards: &[ShardId]) -> Result<Vec<EpochRow>, StoreError> {
        self.read_epochs(shards).await
    }

    async fn epoch_settled(&self, shard: ShardId) -> Result<EpochRow, StoreError> {
        self.read_epoch(shard, true).await
    }

    async fn swap_epoch(&self, from: EpochRow, to: EpochRow) -> Result<Swap, StoreError> {
        self.swap(from, to).await
    }

    async fn write(&self, rows: &[Row]) -> Result<(), StoreError> {
        self.write_rows(rows).await
    }

    async fn head(
        &self,
        stream: &StreamName,
        freshness: Freshness,
    ) -> Result<Option<Head>, StoreError> {
        self.read_head(stream, freshness).await
    }

    async fn events(
        &self,
        stream: &StreamName,
        from: u64,
        limit: u32,
        direction: Direction,
        freshness: Freshness,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        self.read_events(stream, from, limit, direction, freshness).await
    }

    async fn shard_events(
        &self,
        shard: ShardId,
        times: (HybridTime, HybridTime),
        limit: u32,
        direction: Direction,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        self.read_shard_events(shard, times, limit, direction).await
    }

    async fn checkpoints(&self) -> Result<Vec<(ShardId, Checkpoint)>, StoreError> {
        self.read_checkpoints().await
    }

    async fn checkpoint(&self, shard: ShardId) -> Result<Checkpoint, StoreError> {
        self.read_checkpoint(shard).await
    }

    async fn documents(&self, keys: &[DocumentKey]) -> Result<Vec<Document>, StoreError> {
        self.read_documents(keys).await
    }

    async fn rewrite(&self, from: Document, to: Document) -> Result<Rewritten, StoreError> {
        self.rewrite_document(from, to).await
    }

    async fn progress(&self, shard: ShardId) -> Result<Vec<(GroupNumber, Progress)>, StoreError> {
        self.read_progress(shard).await
    }

    async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        self.read_nodes().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_was_not_reached_yet_is_not_well() {
        let store = CassandraStore::new(Settings::default()).expect("the defaults make sense");
        assert_eq!(store.ailment().as_deref(), Some("no connection to Cassandra yet"));
    }
}
