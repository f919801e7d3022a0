//! What a peer must be able to do to be measured.

use std::path::PathBuf;

use anyhow::Result;

pub mod ceiling;
pub mod long_call;
pub mod message_db;
pub mod nats;
pub mod postgres;
pub mod redis;
pub mod sierra;
pub mod stormkeep;

/// Bytes of one event's data.
pub const EVENT_BYTES: usize = 256;
/// The stream that the latency line appends to and subscribes to.
pub const LATENCY: &str = "latency-1";
/// The type of every event.
pub const KIND: &str = "tested";

/// Where a peer finds its programs and keeps its data.
pub struct Place {
    /// Programs, kept from run to run.
    pub cache: PathBuf,
    /// Data of this run, empty at the start and removed after it.
    pub data: PathBuf,
}

/// A stream, as the one connection that appends to it knows it.
#[derive(Clone, Debug)]
pub struct Stream {
    pub name: String,
    /// Events in the stream: the next append expects exactly these.
    pub events: u64,
    /// What the peer wants to hear as the expected version, where that is not a count.
    pub token: u64,
    /// SierraDB's partition key, once the server told it.
    pub partition: String,
}

impl Stream {
    pub fn new(name: String) -> Self {
        Self { name, events: 0, token: 0, partition: String::new() }
    }
}

/// One connection, one call in flight.
pub trait Connection: 'static {
    /// Appends `count` new events after `stream.events`, all or none, and returns when the peer acknowledged them.
    async fn append(&mut self, stream: &mut Stream, count: usize) -> Result<()>;
    /// Reads the whole stream and returns how many events came.
    async fn read(&mut self, stream: &Stream) -> Result<usize>;
}

pub trait Subscription: 'static {
    /// Waits until at least one more event of the stream arrived, and returns how many did.
    async fn next(&mut self) -> Result<usize>;
}

pub trait Peer: Sized + 'static {
    type Connection: Connection;
    type Subscription: Subscription;
    /// As `--only` names it.
    const NAME: &'static str;
    /// As the table names it.
    const TITLE: &'static str;
    /// Whether an acknowledged append survives a power cut.
    const DURABLE: bool = true;
    /// Whether it keeps anything at all: then a run begins with a check that it refuses a wrong version.
    const KEEPS: bool = true;
    /// The row that it is compared with, by its name.
    const AGAINST: &'static str = "stormkeep";
    /// How reads and subscriptions are done, and what else a reader must know.
    const NOTE: &'static str;
    /// The longest pause between two appends of the latency line, ms: at least the period of a peer that polls,
    /// so that appends do not fall into step with it.
    const PAUSE_MS_MAX: u64 = 10;

    /// Puts the programs in place; quick when they are there already.
    async fn install(place: &Place) -> Result<()>;
    /// Starts a server on an empty data folder and returns when it answers.
    async fn start(place: &Place) -> Result<Self>;
    /// The server's process, or the parent of its processes.
    fn pid(&self) -> u32;
    async fn connect(&self) -> Result<Self::Connection>;
    /// Subscribes to the stream `LATENCY`, which is empty.
    async fn subscribe(&self) -> Result<Self::Subscription>;
}

/// The data of a new event: JSON (message-db takes nothing else) of `EVENT_BYTES` bytes that differ.
pub fn payload() -> [u8; EVENT_BYTES] {
    const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    let mut data = [b' '; EVENT_BYTES];
    data[..6].copy_from_slice(b"{\"v\":\"");
    for chunk in data[6..EVENT_BYTES - 2].chunks_mut(10) {
        let mut bits = fastrand::u64(..);
        for byte in chunk {
            *byte = LETTERS[(bits % 64) as usize];
            bits >>= 6;
        }
    }
    data[EVENT_BYTES - 2..].copy_from_slice(b"\"}");
    data
}

/// A random event id, as a version 4 UUID.
pub fn event_id() -> u128 {
    (fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62)
}

/// The usual writing of an id.
pub fn written(id: u128) -> String {
    let hex = format!("{id:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_json_of_the_right_size_and_new_each_time() {
        let (one, other) = (payload(), payload());
        assert_ne!(one, other);
        let value: serde_json::Value = serde_json::from_slice(&one).expect("it is JSON");
        assert_eq!(value["v"].as_str().map(str::len), Some(EVENT_BYTES - 8));
    }

    #[test]
    fn an_event_id_is_a_random_uuid() {
        for _ in 0..100 {
            let id = written(event_id());
            assert_eq!(id.len(), 36);
            assert_eq!(&id[14..15], "4", "version of {id}");
            assert!("89ab".contains(&id[19..20]), "variant of {id}");
        }
    }
}
