//! SierraDB, an event store of the same kind that speaks Redis's protocol.

use std::{fs, process::Command};

use anyhow::{Context, Result};

use super::{Connection, KIND, LATENCY, Peer, Place, Stream, Subscription, payload};
use crate::{
    process::{self, Program},
    resp::{Resp, Value},
};

/// Appends share a flush while one runs: shorter waits and larger batches than the defaults.
const SETTINGS: &str = "\
[network]
cluster_enabled = false
[sync]
interval_ms = 1
max_batch_size = 256
min_bytes = 4096
";

pub struct Sierra {
    program: Program,
    port: u16,
}

impl Peer for Sierra {
    type Connection = SierraConnection;
    type Subscription = SierraSubscription;
    const NAME: &'static str = "sierradb";
    const TITLE: &'static str = "SierraDB 0.3.1";
    const NOTE: &'static str = "one node, `sync.interval_ms` 1 and `sync.max_batch_size` 256; EAPPEND with EXPECTED_VERSION; ESCAN; ESUB. Event ids are the server's";

    async fn install(place: &Place) -> Result<()> {
        let folder = place.cache.join("sierradb");
        process::script("sierradb.sh", &[&folder], &place.cache.join("sierradb.log")).await
    }

    async fn start(place: &Place) -> Result<Self> {
        let port = process::free_port()?;
        let log = place.data.join("log");
        let settings = place.data.join("sierra.toml");
        fs::write(&settings, SETTINGS)?;
        let mut command = Command::new(place.cache.join("sierradb/bin/sierradb"));
        command.current_dir(&place.data).args(["--log", "WARN", "--config"]).arg(&settings);
        command.arg("--dir").arg(place.data.join("data"));
        command.arg("--client-address").arg(format!("127.0.0.1:{port}"));
        command.args(["--cluster-address", "/ip4/127.0.0.1/tcp/0"]);
        let mut program = Program::start(&mut command, &log, "TERM")?;
        let ready = async || process::listens(port);
        process::until_ready(&mut program, &log, 30, ready).await?;
        Ok(Self { program, port })
    }

    fn pid(&self) -> u32 {
        self.program.pid()
    }

    async fn connect(&self) -> Result<SierraConnection> {
        Ok(SierraConnection { resp: hello(self.port).await? })
    }

    async fn subscribe(&self) -> Result<SierraSubscription> {
        let mut resp = hello(self.port).await?;
        resp.call(&[b"ESUB", LATENCY.as_bytes(), b"FROM", b"0", b"WINDOW", b"1000000"]).await?;
        Ok(SierraSubscription { resp })
    }
}

async fn hello(port: u16) -> Result<Resp> {
    let mut resp = Resp::connect(port).await?;
    resp.call(&[b"HELLO", b"3"]).await?;
    Ok(resp)
}

pub struct SierraConnection {
    resp: Resp,
}

fn version(events: u64) -> String {
    events.checked_sub(1).map_or_else(|| "empty".to_owned(), |last| last.to_string())
}

impl Connection for SierraConnection {
    async fn append(&mut self, stream: &mut Stream, mut count: usize) -> Result<()> {
        // The server derives a stream's partition key and tells it with the first append; a batch must name it.
        if stream.partition.is_empty() || count == 1 {
            let expected = version(stream.events);
            let command: [&[u8]; 7] = [
                b"EAPPEND",
                stream.name.as_bytes(),
                KIND.as_bytes(),
                b"EXPECTED_VERSION",
                expected.as_bytes(),
                b"PAYLOAD",
                &payload(),
            ];
            let answer = self.resp.call(&command).await?;
            if stream.partition.is_empty() {
                let key = answer.field("partition_key").context("no partition key")?;
                stream.partition = String::from_utf8_lossy(key.text()).into_owned();
            }
            stream.events += 1;
            count -= 1;
        }
        if count == 0 {
            return Ok(());
        }
        let events: Vec<_> =
            (0..count as u64).map(|n| (version(stream.events + n), payload())).collect();
        let mut command: Vec<&[u8]> = vec![b"EMAPPEND", stream.partition.as_bytes()];
        for (expected, data) in &events {
            command.extend([stream.name.as_bytes(), KIND.as_bytes(), b"EXPECTED_VERSION"]);
            command.extend([expected.as_bytes(), b"PAYLOAD", &data[..]]);
        }
        self.resp.call(&command).await?;
        stream.events += count as u64;
        Ok(())
    }

    async fn read(&mut self, stream: &Stream) -> Result<usize> {
        let command: [&[u8]; 6] = [b"ESCAN", stream.name.as_bytes(), b"-", b"+", b"COUNT", b"1000"];
        let answer = self.resp.call(&command).await?;
        Ok(answer.field("events").context("an answer without events")?.list().len())
    }
}

pub struct SierraSubscription {
    resp: Resp,
}

impl Subscription for SierraSubscription {
    async fn next(&mut self) -> Result<usize> {
        loop {
            if let Value::Push(parts) = self.resp.next().await?
                && parts.first().is_some_and(|kind| kind.text() == b"message")
            {
                return Ok(1);
            }
        }
    }
}
