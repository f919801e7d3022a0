//! Redis streams with every write flushed before it is acknowledged.

use std::process::Command;

use anyhow::{Result, bail};

use super::{Connection, KIND, LATENCY, Peer, Place, Stream, Subscription, event_id, payload};
use crate::{
    process::{self, Program},
    resp::{Resp, Value},
};

/// The version check and the append in one step: Redis runs a script alone.
const APPEND: &str = "\
local length = redis.call('XLEN', KEYS[1])
if length ~= tonumber(ARGV[1]) then return redis.error_reply('WRONGVERSION ' .. length) end
for i = 3, #ARGV, 2 do
  redis.call('XADD', KEYS[1], '*', 'id', ARGV[i], 'type', ARGV[2], 'data', ARGV[i + 1])
end
return length";

pub struct Redis {
    program: Program,
    port: u16,
}

impl Peer for Redis {
    type Connection = RedisConnection;
    type Subscription = RedisSubscription;
    const NAME: &'static str = "redis";
    const TITLE: &'static str = "Redis 7.0 streams";
    const NOTE: &'static str =
        "AOF with `appendfsync always`, version check in a Lua script; XRANGE; XREAD BLOCK";

    async fn install(place: &Place) -> Result<()> {
        let folder = place.cache.join("redis");
        process::script("redis.sh", &[&folder], &place.cache.join("redis.log")).await
    }

    async fn start(place: &Place) -> Result<Self> {
        let folder = place.cache.join("redis");
        let port = process::free_port()?;
        let log = place.data.join("log");
        let mut command = Command::new(folder.join("usr/bin/redis-server"));
        command
            .env("LD_LIBRARY_PATH", folder.join("usr/lib").join(multiarch()))
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--maxclients", "1000"])
            .arg("--dir")
            .arg(&place.data);
        let mut program = Program::start(&mut command, &log, "TERM")?;
        let ready = async || process::listens(port);
        process::until_ready(&mut program, &log, 10, ready).await?;
        Ok(Self { program, port })
    }

    fn pid(&self) -> u32 {
        self.program.pid()
    }

    async fn connect(&self) -> Result<RedisConnection> {
        let mut resp = Resp::connect(self.port).await?;
        let script = resp.call(&[b"SCRIPT", b"LOAD", APPEND.as_bytes()]).await?.text().to_vec();
        Ok(RedisConnection { resp, script })
    }

    async fn subscribe(&self) -> Result<RedisSubscription> {
        Ok(RedisSubscription { resp: Resp::connect(self.port).await?, last: b"0-0".to_vec() })
    }
}

/// The folder of libraries in Debian's packages for this machine.
pub fn multiarch() -> String {
    format!("{}-linux-gnu", std::env::consts::ARCH)
}

pub struct RedisConnection {
    resp: Resp,
    script: Vec<u8>,
}

impl Connection for RedisConnection {
    async fn append(&mut self, stream: &mut Stream, count: usize) -> Result<()> {
        let expected = stream.events.to_string();
        let events: Vec<_> = (0..count).map(|_| (event_id().to_be_bytes(), payload())).collect();
        let mut command: Vec<&[u8]> = vec![b"EVALSHA", &self.script, b"1", stream.name.as_bytes()];
        command.extend([expected.as_bytes(), KIND.as_bytes()]);
        for (id, data) in &events {
            command.extend([&id[..], &data[..]]);
        }
        self.resp.call(&command).await?;
        stream.events += count as u64;
        Ok(())
    }

    async fn read(&mut self, stream: &Stream) -> Result<usize> {
        let command: [&[u8]; 4] = [b"XRANGE", stream.name.as_bytes(), b"-", b"+"];
        Ok(self.resp.call(&command).await?.list().len())
    }
}

pub struct RedisSubscription {
    resp: Resp,
    last: Vec<u8>,
}

impl Subscription for RedisSubscription {
    async fn next(&mut self) -> Result<usize> {
        let command: [&[u8]; 6] =
            [b"XREAD", b"BLOCK", b"0", b"STREAMS", LATENCY.as_bytes(), &self.last];
        let answer = self.resp.call(&command).await?;
        // A list of streams, each a name and its entries, each an id and its fields.
        let Some([_, Value::List(entries)]) = answer.list().first().map(Value::list) else {
            bail!("an answer to XREAD without entries");
        };
        if let Some(entry) = entries.last() {
            self.last = entry.list().first().map(|id| id.text().to_vec()).unwrap_or_default();
        }
        Ok(entries.len())
    }
}
