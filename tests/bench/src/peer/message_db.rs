//! message-db: an event store of SQL functions inside PostgreSQL.

use std::{process::Command, time::Duration};

use anyhow::Result;
use tokio_postgres::{Client, Statement, types::ToSql};

use super::{
    Connection, KIND, LATENCY, Peer, Place, Stream, Subscription, event_id, payload, written,
};
use crate::{
    peer::postgres::{Cluster, client},
    process,
};

const WRITE: &str = "SELECT write_message($1::varchar, $2::varchar, $3::varchar, $4::text::jsonb, NULL, $5::bigint)";
const READ: &str = "SELECT * FROM get_stream_messages($1::varchar, $2::bigint, 1000)";
/// A consumer of Eventide, message-db's own library, asks every 100 ms unless told otherwise.
const POLL_MS: u64 = 100;

pub struct MessageDb {
    cluster: Cluster,
}

impl Peer for MessageDb {
    type Connection = MessageDbConnection;
    type Subscription = MessageDbSubscription;
    const NAME: &'static str = "message-db";
    const TITLE: &'static str = "message-db 1.3.1";
    const NOTE: &'static str = "in PostgreSQL 15 with the same settings, a category for every stream (one category for all is slower: an advisory lock per category); \
         write_message; get_stream_messages; the subscriber polls it every 100 ms, its library's default";
    const PAUSE_MS_MAX: u64 = POLL_MS;

    async fn install(place: &Place) -> Result<()> {
        Cluster::install(place).await?;
        let folder = place.cache.join("message-db");
        process::script("message-db.sh", &[&folder], &place.cache.join("message-db.log")).await
    }

    async fn start(place: &Place) -> Result<Self> {
        let cluster = Cluster::start(place).await?;
        let package = "message-db/node_modules/@eventide/message-db/database/install.sh";
        let mut install = Command::new("bash");
        install.arg(place.cache.join(package)).current_dir("/");
        install.env("PGHOST", "127.0.0.1").env("PGPORT", cluster.port.to_string());
        install.env("PGUSER", "postgres").env_remove("DATABASE_NAME");
        process::run(&mut install, &place.data.join("install.log")).await?;
        Ok(Self { cluster })
    }

    fn pid(&self) -> u32 {
        self.cluster.program.pid()
    }

    async fn connect(&self) -> Result<MessageDbConnection> {
        let client = client(self.cluster.port, "message_store").await?;
        let (write, read) = (client.prepare(WRITE).await?, client.prepare(READ).await?);
        Ok(MessageDbConnection { client, write, read })
    }

    async fn subscribe(&self) -> Result<MessageDbSubscription> {
        Ok(MessageDbSubscription { connection: self.connect().await?, next: 0 })
    }
}

pub struct MessageDbConnection {
    client: Client,
    write: Statement,
    read: Statement,
}

impl Connection for MessageDbConnection {
    async fn append(&mut self, stream: &mut Stream, count: usize) -> Result<()> {
        if count > 1 {
            self.client.batch_execute("BEGIN").await?;
        }
        for n in 0..count as u64 {
            let (id, data) = (written(event_id()), payload());
            let data = std::str::from_utf8(&data)?;
            let expected = (stream.events + n) as i64 - 1;
            let values: &[&(dyn ToSql + Sync)] = &[&id, &stream.name, &KIND, &data, &expected];
            self.client.query_one(&self.write, values).await?;
        }
        if count > 1 {
            self.client.batch_execute("COMMIT").await?;
        }
        stream.events += count as u64;
        Ok(())
    }

    async fn read(&mut self, stream: &Stream) -> Result<usize> {
        Ok(self.client.query(&self.read, &[&stream.name, &0_i64]).await?.len())
    }
}

pub struct MessageDbSubscription {
    connection: MessageDbConnection,
    next: i64,
}

impl Subscription for MessageDbSubscription {
    async fn next(&mut self) -> Result<usize> {
        loop {
            let MessageDbConnection { client, read, .. } = &self.connection;
            let rows = client.query(read, &[&LATENCY, &self.next]).await?;
            if !rows.is_empty() {
                self.next += rows.len() as i64;
                return Ok(rows.len());
            }
            tokio::time::sleep(Duration::from_millis(POLL_MS)).await;
        }
    }
}
