//! PostgreSQL with one plain table: what a team writes that builds its own event store.

use std::{fs, os::unix::process::CommandExt, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, NoTls, Statement};

use super::{
    Connection, KIND, LATENCY, Peer, Place, Stream, Subscription, event_id, payload, written,
};
use crate::process::{self, Program};

const TABLE: &str = "\
CREATE TABLE events (
    stream text NOT NULL,
    version bigint NOT NULL,
    id uuid NOT NULL,
    type text NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (stream, version)
)";
const INSERT: &str = "\
INSERT INTO events SELECT $1, $2 + n - 1, id::uuid, $5, data
FROM unnest($3::text[], $4::bytea[]) WITH ORDINALITY AS new (id, data, n)";
const INSERT_ONE: &str = "INSERT INTO events VALUES ($1, $2, $3::text::uuid, $4, $5)";
const INSERT_LOUD: &str = "\
WITH new AS (INSERT INTO events VALUES ($1, $2, $3::text::uuid, $4, $5) RETURNING version)
SELECT pg_notify('appended', version::text) FROM new";
const SELECT: &str = "\
SELECT version, id::text, type, data FROM events WHERE stream = $1 AND version >= $2 ORDER BY version";

/// A running cluster of its own.
pub struct Cluster {
    pub program: Program,
    pub port: u16,
}

impl Cluster {
    pub async fn install(place: &Place) -> Result<()> {
        let folder = place.cache.join("postgres");
        process::script("postgres.sh", &[&folder], &place.cache.join("postgres.log")).await
    }

    /// Makes a cluster in the data folder and starts it. PostgreSQL refuses to run as root: then it runs as `postgres`.
    pub async fn start(place: &Place) -> Result<Self> {
        let programs = fs::read_to_string(place.cache.join("postgres/bin"))?;
        let programs = Path::new(programs.trim()).to_owned();
        let (data, log) = (place.data.join("cluster"), place.data.join("log"));
        fs::create_dir_all(&data)?;
        let user = user()?;
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(&data, Some(uid), Some(gid))?;
        }
        let with_user = |command: &mut Command| {
            if let Some((uid, gid)) = user {
                command.gid(gid).uid(uid);
            }
            command.current_dir("/").env_remove("PGDATA");
        };
        let mut initdb = Command::new(programs.join("initdb"));
        initdb.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "-D"]);
        initdb.arg(&data);
        with_user(&mut initdb);
        process::run(&mut initdb, &place.data.join("initdb.log")).await?;

        let port = process::free_port()?;
        let mut server = Command::new(programs.join("postgres"));
        server.arg("-D").arg(&data).args(["-p", &port.to_string(), "-h", "127.0.0.1", "-k", ""]);
        for setting in ["synchronous_commit=on", "fsync=on", "max_connections=400"] {
            server.args(["-c", setting]);
        }
        for setting in ["shared_buffers=512MB", "max_wal_size=4GB", "wal_compression=on"] {
            server.args(["-c", setting]);
        }
        with_user(&mut server);
        // QUIT is PostgreSQL's immediate shutdown: the data is thrown away anyway.
        let mut program = Program::start(&mut server, &log, "QUIT")?;
        let ready = async || client(port, "postgres").await.is_ok();
        process::until_ready(&mut program, &log, 30, ready).await?;
        Ok(Self { program, port })
    }
}

/// The user and group ids of `postgres`, if this process is root.
fn user() -> Result<Option<(u32, u32)>> {
    if process::said("id", &["-u"]) != "0" {
        return Ok(None);
    }
    let id = |flag| process::said("id", &[flag, "postgres"]).parse();
    Ok(Some((id("-u").context("there is no user postgres")?, id("-g")?)))
}

fn config(port: u16, database: &str) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user("postgres").dbname(database);
    config.options("-c search_path=message_store,public");
    config
}

/// A connection, driven by a task of this thread.
pub async fn client(port: u16, database: &str) -> Result<Client> {
    let (client, connection) = config(port, database).connect(NoTls).await?;
    tokio::task::spawn_local(async move {
        // A broken connection shows as the error of the call that was in flight.
        let _ = connection.await;
    });
    Ok(client)
}

pub struct Postgres {
    cluster: Cluster,
}

impl Peer for Postgres {
    type Connection = PostgresConnection;
    type Subscription = PostgresSubscription;
    const NAME: &'static str = "postgres";
    const TITLE: &'static str = "PostgreSQL 15, plain table";
    const NOTE: &'static str = "`synchronous_commit` on, unique (stream, version), prepared statements; SELECT; LISTEN and then SELECT. \
         Only appends of the latency line NOTIFY: the other lines do not pay for it";

    async fn install(place: &Place) -> Result<()> {
        Cluster::install(place).await
    }

    async fn start(place: &Place) -> Result<Self> {
        let cluster = Cluster::start(place).await?;
        client(cluster.port, "postgres").await?.batch_execute(TABLE).await?;
        Ok(Self { cluster })
    }

    fn pid(&self) -> u32 {
        self.cluster.program.pid()
    }

    async fn connect(&self) -> Result<PostgresConnection> {
        let client = client(self.cluster.port, "postgres").await?;
        Ok(PostgresConnection {
            insert: client.prepare(INSERT).await?,
            insert_one: client.prepare(INSERT_ONE).await?,
            insert_loud: client.prepare(INSERT_LOUD).await?,
            select: client.prepare(SELECT).await?,
            client,
        })
    }

    async fn subscribe(&self) -> Result<PostgresSubscription> {
        let (listener, mut connection) =
            config(self.cluster.port, "postgres").connect(NoTls).await?;
        let (tell, told) = mpsc::unbounded_channel();
        tokio::task::spawn_local(async move {
            let mut messages = std::pin::pin!(futures_util::stream::poll_fn(move |context| {
                connection.poll_message(context)
            }));
            while let Some(Ok(message)) = tokio_stream::StreamExt::next(&mut messages).await {
                if matches!(message, AsyncMessage::Notification(_)) && tell.send(()).is_err() {
                    return;
                }
            }
        });
        listener.batch_execute("LISTEN appended").await?;
        let select = listener.prepare(SELECT).await?;
        Ok(PostgresSubscription { listener, select, told, next: 0 })
    }
}

pub struct PostgresConnection {
    client: Client,
    insert: Statement,
    insert_one: Statement,
    insert_loud: Statement,
    select: Statement,
}

impl Connection for PostgresConnection {
    async fn append(&mut self, stream: &mut Stream, count: usize) -> Result<()> {
        let version = stream.events as i64;
        if count == 1 {
            let (id, data) = (written(event_id()), payload());
            let data = &data[..];
            if stream.name == LATENCY {
                let values: &[&(dyn tokio_postgres::types::ToSql + Sync)] =
                    &[&stream.name, &version, &id, &KIND, &data];
                self.client.query(&self.insert_loud, values).await?;
            } else {
                let values: &[&(dyn tokio_postgres::types::ToSql + Sync)] =
                    &[&stream.name, &version, &id, &KIND, &data];
                self.client.execute(&self.insert_one, values).await?;
            }
        } else {
            let ids: Vec<String> = (0..count).map(|_| written(event_id())).collect();
            let data: Vec<Vec<u8>> = (0..count).map(|_| payload().to_vec()).collect();
            let values: &[&(dyn tokio_postgres::types::ToSql + Sync)] =
                &[&stream.name, &version, &ids, &data, &KIND];
            let rows = self.client.execute(&self.insert, values).await?;
            ensure!(rows == count as u64, "{rows} of {count} events were inserted");
        }
        stream.events += count as u64;
        Ok(())
    }

    async fn read(&mut self, stream: &Stream) -> Result<usize> {
        Ok(self.client.query(&self.select, &[&stream.name, &0_i64]).await?.len())
    }
}

pub struct PostgresSubscription {
    listener: Client,
    select: Statement,
    told: mpsc::UnboundedReceiver<()>,
    next: i64,
}

impl Subscription for PostgresSubscription {
    async fn next(&mut self) -> Result<usize> {
        loop {
            self.told.recv().await.context("the listening connection ended")?;
            let rows = self.listener.query(&self.select, &[&LATENCY, &self.next]).await?;
            if !rows.is_empty() {
                self.next += rows.len() as i64;
                return Ok(rows.len());
            }
        }
    }
}
