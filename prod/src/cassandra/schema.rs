//! The tables: versioned, made and changed by an explicit command, and only looked at by a node that starts.
//!
//! `apply` may run on many machines at once. All of them send their changes to one and the same node of Cassandra, that with
//! the lowest host id in whatever datacenter, which carries them out one by one: two nodes that made one table at the same
//! moment would give it two identities. A lock by compare-and-set lets one of them work at a time; it ends by itself if its
//! holder dies, and each step may be done again, so that the next one goes on from where it was.
//!
//! **A column that was dropped must never come back under its name**: Cassandra hides what was written to it before the
//! wall clock's time of the drop, and our timestamps are far below any clock's. For the same reason nobody may delete
//! or truncate these tables by hand and fold anew: see the module above.

mod migrations;

use std::time::Duration;

use scylla::{
    client::session::Session,
    errors::{ExecutionError, SchemaAgreementError},
    policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy},
    serialize::row::SerializeRow,
    statement::unprepared::Statement,
};
use uuid::Uuid;

use super::{
    connect::{self, ConnectError},
    failure::answer,
    settings::Settings,
};
use migrations::MIGRATIONS;

/// The version of the schema that this release needs.
pub const VERSION: i32 = MIGRATIONS.len() as i32;

/// Seconds after which the lock of a dead holder ends; renewed before each step.
const LOCK_S: u32 = 60;
const LOCK_LOOK_EVERY: Duration = Duration::from_millis(500);
const LOCK_TRIES: u32 = 20;
const AGREEMENT: Duration = Duration::from_secs(30);

const APPLY: &str = "run `stormkeep schema apply`";

/// Why the schema is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// There is no keyspace.
    #[error("cassandra.keyspace: there is no {keyspace:?}: {APPLY}")]
    NoKeyspace {
        /// The setting.
        keyspace: String,
    },
    /// A table is missing.
    #[error("keyspace {keyspace:?} has no table {table:?}: {APPLY}")]
    NoTable {
        /// The setting.
        keyspace: String,
        /// The first table that is missing.
        table: &'static str,
    },
    /// The schema is of an older release, or a change of it is half done.
    #[error("keyspace {keyspace:?} has schema {found}; this release needs {VERSION}: {APPLY}")]
    Older {
        /// The setting.
        keyspace: String,
        /// The version that is there.
        found: i32,
    },
    /// The schema is of a newer release.
    #[error(
        "keyspace {keyspace:?} has schema {found}; this release knows {VERSION}: use a newer release"
    )]
    Newer {
        /// The setting.
        keyspace: String,
        /// The version that is there.
        found: i32,
    },
    /// The node that all schema changes go to is not connected.
    #[error(
        "node {node} is not up, or cannot be reached from here: a schema change wants all nodes of Cassandra, those of other datacenters too"
    )]
    NodeDown {
        /// Its address.
        node: String,
    },
    /// Cassandra refuses, or does not answer.
    #[error("{what}: {error}{}", hint(error))]
    Request {
        /// What was asked.
        what: String,
        /// What was answered.
        error: Box<ExecutionError>,
    },
    /// Nothing is known of the lock, after many tries.
    #[error(
        "the lock of the schema cannot be had: {0}; are enough nodes of Cassandra up? Then {APPLY} again"
    )]
    Lock(Box<SchemaError>),
    /// An answer cannot be read.
    #[error("{what}: {error}")]
    Answer {
        /// What was asked.
        what: &'static str,
        /// What is wrong with the answer.
        error: String,
    },
    /// The nodes of Cassandra do not agree on the schema.
    #[error(
        "the nodes of Cassandra do not agree on the schema: {0}; are all of them up? Then {APPLY} again"
    )]
    Disagreement(Box<SchemaAgreementError>),
}

/// The way out of a refusal.
fn hint(error: &ExecutionError) -> &'static str {
    match answer(error) {
        Some(scylla::errors::DbError::Unauthorized) => {
            ": the user needs CREATE and ALTER for a change of the schema, SELECT and MODIFY for all else"
        }
        _ => "",
    }
}

/// How a schema was found, and what was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// The version before.
    pub from: i32,
    /// The version now.
    pub to: i32,
}

/// The schema as CQL, with the settings filled in.
pub fn show(settings: &Settings) -> String {
    let mut text = format!("-- Schema {VERSION} of Stormkeep.\n");
    let steps = MIGRATIONS.iter().flat_map(|migration| migration.steps);
    for cql in bootstrap(settings).into_iter().chain(steps.map(|cql| filled(cql, settings))) {
        text.push_str(&format!("\n{cql};\n"));
    }
    text
}

/// Makes or changes the schema. See the module's docs. `tell` is given what a person who waits wants to know, a line each.
pub async fn apply(settings: &Settings, tell: impl Fn(&str)) -> Result<Applied, ConnectError> {
    let session = connect::session(settings).await?;
    let changes = Changes::through(&session, settings, tell)?;
    for cql in bootstrap(settings) {
        changes.change(&cql).await?;
    }
    let holder = Uuid::new_v4();
    changes.lock(holder).await?;
    let done = changes.migrate(holder).await;
    // If this fails, the lock ends by itself.
    let released = changes.unlock(holder).await;
    let applied = done?;
    if let Err(error) = released {
        (changes.tell)(&format!("the lock ends by itself within {LOCK_S} s: {error}"));
    }
    Ok(applied)
}

/// Whether the schema is the one that this release needs.
pub async fn check(session: &Session, settings: &Settings) -> Result<(), SchemaError> {
    let keyspace = settings.keyspace.clone();
    let tables = tables(session, settings).await?;
    if tables.is_empty() && !has_keyspace(session, settings).await? {
        return Err(SchemaError::NoKeyspace { keyspace });
    }
    if !tables.iter().any(|table| table == "schema_migrations") {
        return Err(SchemaError::NoTable { keyspace, table: "schema_migrations" });
    }
    let found = version(session, settings).await?;
    if found < VERSION {
        return Err(SchemaError::Older { keyspace, found });
    }
    if found > VERSION {
        return Err(SchemaError::Newer { keyspace, found });
    }
    match migrations::TABLES.iter().find(|wanted| !tables.iter().any(|table| table == *wanted)) {
        Some(table) => Err(SchemaError::NoTable { keyspace, table }),
        None => Ok(()),
    }
}

/// What must be there before there can be a lock.
fn bootstrap(settings: &Settings) -> Vec<String> {
    let (keyspace, replication) = (&settings.keyspace, settings.replication_cql());
    let create = format!(
        "CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {replication} AND durable_writes = true"
    );
    let mut all = vec![create];
    all.extend(migrations::BOOTSTRAP.iter().map(|cql| filled(cql, settings)));
    all
}

fn filled(cql: &str, settings: &Settings) -> String {
    let grace_s = u64::from(settings.grace_days) * 24 * 3600;
    cql.replace("KS.", &format!("{}.", settings.keyspace)).replace("GRACE", &grace_s.to_string())
}

fn request(what: &str, error: ExecutionError) -> SchemaError {
    SchemaError::Request { what: what.into(), error: Box::new(error) }
}

fn unreadable(what: &'static str, error: impl ToString) -> SchemaError {
    SchemaError::Answer { what, error: error.to_string() }
}

async fn has_keyspace(session: &Session, settings: &Settings) -> Result<bool, SchemaError> {
    let what = "system_schema.keyspaces";
    let cql = "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?";
    let answer = session.query_unpaged(cql, (&settings.keyspace,)).await;
    let rows = answer.map_err(|error| request(what, error))?.into_rows_result();
    Ok(rows.map_err(|error| unreadable(what, error))?.rows_num() > 0)
}

async fn tables(session: &Session, settings: &Settings) -> Result<Vec<String>, SchemaError> {
    let what = "system_schema.tables";
    let cql = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?";
    let answer = session.query_unpaged(cql, (&settings.keyspace,)).await;
    let rows = answer.map_err(|error| request(what, error))?.into_rows_result();
    let rows = rows.map_err(|error| unreadable(what, error))?;
    let rows = rows.rows::<(String,)>().map_err(|error| unreadable(what, error))?;
    rows.map(|row| row.map(|(name,)| name).map_err(|error| unreadable(what, error))).collect()
}

/// The highest version that is wholly there.
async fn version(session: &Session, settings: &Settings) -> Result<i32, SchemaError> {
    let what = "schema_migrations";
    let cql = filled("SELECT version, done FROM KS.schema_migrations WHERE part = 0", settings);
    let answer = session.query_unpaged(cql, ()).await;
    let rows = answer.map_err(|error| request(what, error))?.into_rows_result();
    let rows = rows.map_err(|error| unreadable(what, error))?;
    let rows = rows.rows::<(i32, bool)>().map_err(|error| unreadable(what, error))?;
    let mut version = 0;
    for row in rows {
        let (number, done) = row.map_err(|error| unreadable(what, error))?;
        if done {
            version = version.max(number);
        }
    }
    Ok(version)
}

/// Changes of the schema, through one node.
struct Changes<'a, T> {
    session: &'a Session,
    settings: &'a Settings,
    tell: T,
    node: NodeIdentifier,
}

impl<'a, T: Fn(&str)> Changes<'a, T> {
    fn through(session: &'a Session, settings: &'a Settings, tell: T) -> Result<Self, SchemaError> {
        let state = session.get_cluster_state();
        // Of all datacenters, so that it is the same one for whoever asks: the driver connects to each node that there is, and
        // what says where requests go is set aside for changes.
        let node = state.get_nodes_info().iter().min_by_key(|node| node.host_id);
        let node = node.ok_or_else(|| SchemaError::NodeDown { node: "(none is known)".into() })?;
        if !node.is_connected() {
            return Err(SchemaError::NodeDown { node: node.address.to_string() });
        }
        Ok(Changes { session, settings, tell, node: NodeIdentifier::HostId(node.host_id) })
    }

    /// One change, and all nodes agree on it.
    async fn change(&self, cql: &str) -> Result<(), SchemaError> {
        let mut statement = Statement::new(cql);
        statement.set_load_balancing_policy(Some(SingleTargetLoadBalancingPolicy::new(
            self.node.clone(),
            None,
        )));
        statement.set_request_timeout(Some(AGREEMENT));
        // The driver waits for agreement after each change; a change that was there already needs it, too.
        self.session.query_unpaged(statement, ()).await.map_err(|error| request(cql, error))?;
        let agreed = self.session.await_schema_agreement().await;
        agreed.map_err(|error| SchemaError::Disagreement(Box::new(error)))?;
        Ok(())
    }

    /// A compare-and-set on the lock: whether it was done.
    async fn swap(&self, cql: &str, values: impl SerializeRow) -> Result<bool, SchemaError> {
        let cql = filled(cql, self.settings);
        let what = "schema_lock";
        let answer = self.session.query_unpaged(cql, values).await;
        let rows = answer.map_err(|error| request(what, error))?.into_rows_result();
        let rows = rows.map_err(|error| unreadable(what, error))?;
        let row = rows.first_row::<scylla::value::Row>();
        let row = row.map_err(|error| unreadable(what, error))?;
        let applied = row.columns.first().and_then(Option::as_ref).and_then(|v| v.as_boolean());
        Ok(applied == Some(true))
    }

    /// A compare-and-set that may be asked for again, so that an unknown outcome is settled by another try.
    async fn settle(
        &self,
        cql: &str,
        values: impl SerializeRow + Copy,
    ) -> Result<bool, SchemaError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.swap(cql, values).await {
                Ok(done) => return Ok(done),
                Err(error) if is_refusal(&error) => return Err(error),
                Err(error) if tries == LOCK_TRIES => return Err(SchemaError::Lock(error.into())),
                Err(error) if tries == 1 => (self.tell)(&format!("{error}: trying again")),
                Err(_) => {}
            }
            tokio::time::sleep(LOCK_LOOK_EVERY).await;
        }
    }

    /// Waits for the lock.
    async fn lock(&self, holder: Uuid) -> Result<(), SchemaError> {
        let insert = format!(
            "INSERT INTO KS.schema_lock (name, holder) VALUES ('schema', ?) IF NOT EXISTS USING TTL {LOCK_S}"
        );
        let mut told = false;
        // If it is not free, perhaps an attempt of ours, whose answer was lost, has it.
        while !self.settle(&insert, (holder,)).await? && !self.renew(holder).await? {
            if !told {
                (self.tell)(&format!(
                    "the schema is being changed by another one: waiting; if that one is dead, {LOCK_S} s at the most"
                ));
            }
            told = true;
            tokio::time::sleep(LOCK_LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Whether the lock is ours, for some time to come.
    async fn renew(&self, holder: Uuid) -> Result<bool, SchemaError> {
        let update = format!(
            "UPDATE KS.schema_lock USING TTL {LOCK_S} SET holder = ? WHERE name = 'schema' IF holder = ?"
        );
        self.settle(&update, (holder, holder)).await
    }

    /// Before each step: the lock must be ours still.
    async fn hold(&self, holder: Uuid) -> Result<(), SchemaError> {
        match self.renew(holder).await? {
            true => Ok(()),
            false => Err(unreadable("schema_lock", "another one took it: apply again")),
        }
    }

    async fn unlock(&self, holder: Uuid) -> Result<bool, SchemaError> {
        let delete = "DELETE FROM KS.schema_lock WHERE name = 'schema' IF holder = ?";
        self.swap(delete, (holder,)).await
    }

    async fn migrate(&self, holder: Uuid) -> Result<Applied, SchemaError> {
        let keyspace = self.settings.keyspace.clone();
        let from = version(self.session, self.settings).await?;
        if from > VERSION {
            return Err(SchemaError::Newer { keyspace, found: from });
        }
        let open = (1..).zip(MIGRATIONS).filter(|(number, _)| *number > from);
        for (number, migration) in open {
            (self.tell)(&format!("making version {number} of the schema: {}", migration.what));
            for cql in migration.steps {
                self.hold(holder).await?;
                self.change(&filled(cql, self.settings)).await?;
            }
            self.hold(holder).await?;
            self.mark(number, migration.what).await?;
        }
        Ok(Applied { from, to: VERSION })
    }

    /// Marks a migration as done. Nobody marks one as not done, which no row says as well: a holder that is late could undo what
    /// another one has finished.
    async fn mark(&self, number: i32, what: &str) -> Result<(), SchemaError> {
        let cql = filled(
            "INSERT INTO KS.schema_migrations (part, version, what, done) VALUES (0, ?, ?, true)",
            self.settings,
        );
        let marked = self.session.query_unpaged(cql, (number, what)).await;
        marked.map(drop).map_err(|error| request("schema_migrations", error))
    }
}

fn is_refusal(error: &SchemaError) -> bool {
    match error {
        SchemaError::Request { error, .. } => super::failure::is_lasting(error),
        _ => true,
    }
}
