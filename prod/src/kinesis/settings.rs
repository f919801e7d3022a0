//! What an operator may set about Kinesis: the table `[kinesis]` of the configuration file.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use stormkeep_core::limits::ENTRY_BYTES_MAX;

/// Bytes of a record at the most that a stream can be told to take (`UpdateMaxRecordSize`).
///
/// Source: Kinesis Data Streams developer guide, "Quotas and limits"; read 2026-03.
const RECORD_BYTES_LIMIT: usize = 10 * 1024 * 1024;
/// What the partition key of a record takes of its bytes: the digits of a shard's number.
pub(super) const PARTITION_KEY_BYTES_MAX: usize = 10;

/// The settings. The names of the fields are those of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The stream's name.
    pub stream: String,
    /// The AWS region. Not set: that of the environment, of the profile, or of the machine.
    pub region: Option<String>,
    /// Where the service is, if not at AWS: `http://127.0.0.1:4568` for a stand-in.
    pub endpoint: Option<String>,
    /// The profile of the credentials files to use, whatever the environment says. Not set: the usual chain (environment, profile, web identity, ECS, the
    /// machine's role).
    pub profile: Option<String>,
    /// Read by enhanced fan-out, under this consumer's name; it is registered if it is not there. Not set: by polling.
    pub consumer: Option<String>,
    /// How long a connection may take to be made.
    pub connect_timeout_ms: u64,
    /// How long a put may take before its outcome counts as unknown.
    pub put_timeout_ms: u64,
    /// How long any other call may take.
    pub read_timeout_ms: u64,
    /// Connections that are kept open without use.
    pub idle_connections_max: usize,
    /// Bytes of a record at the most, as the stream allows: 1 MiB unless the stream was told to take more, up to 10 MiB.
    pub record_bytes_max: usize,
    /// Records of one read at the most.
    pub read_records_max: u32,
    /// Reads of one shard a second by this process at the most. The service allows five, to all readers together.
    pub reads_per_s: u32,
    /// Bytes of one shard a second that this process reads at the most. The service allows 2 MB, to all readers together.
    pub read_bytes_per_s: u64,
    /// Go on at the oldest record that there is when the position to read behind is older than the stream's retention. For
    /// one start, after all nodes were stopped for longer than that: what was not in the store by then is lost.
    pub accept_trimmed: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            stream: "stormkeep".to_owned(),
            region: None,
            endpoint: None,
            profile: None,
            consumer: None,
            connect_timeout_ms: 1000,
            put_timeout_ms: 2000,
            read_timeout_ms: 5000,
            idle_connections_max: 64,
            record_bytes_max: 1024 * 1024,
            read_records_max: 10_000,
            reads_per_s: 5,
            read_bytes_per_s: 2_000_000,
            accept_trimmed: false,
        }
    }
}

/// A setting makes no sense. The text names it and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kinesis.{field}: {what}")]
pub struct InvalidSetting {
    /// Its name in the table.
    pub field: &'static str,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl Settings {
    /// Checks what can be checked without the service.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        let invalid = |field, what: String| Err(InvalidSetting { field, what });
        for (field, name) in [("stream", Some(&self.stream)), ("consumer", self.consumer.as_ref())]
        {
            if let Some(name) = name
                && !is_name(name)
            {
                let what =
                    format!("{name:?}: 1 to 128 letters, digits, dots, hyphens and underscores");
                return invalid(field, what);
            }
        }
        if let Some(endpoint) = &self.endpoint
            && !endpoint.starts_with("http://")
            && !endpoint.starts_with("https://")
        {
            let what = format!("{endpoint:?}: begin it with https:// (or http:// for a stand-in)");
            return invalid("endpoint", what);
        }
        let needed = ENTRY_BYTES_MAX + PARTITION_KEY_BYTES_MAX;
        if !(needed..=RECORD_BYTES_LIMIT).contains(&self.record_bytes_max) {
            let what = format!(
                "{}: from {needed} (one entry of the log) to {RECORD_BYTES_LIMIT} (10 MiB)",
                self.record_bytes_max
            );
            return invalid("record_bytes_max", what);
        }
        for (field, number) in [
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("put_timeout_ms", self.put_timeout_ms),
            ("read_timeout_ms", self.read_timeout_ms),
            ("reads_per_s", self.reads_per_s.into()),
            ("read_bytes_per_s", self.read_bytes_per_s),
        ] {
            if number == 0 {
                return invalid(field, "0: it must be 1 at least".to_owned());
            }
        }
        if !(1..=10_000).contains(&self.read_records_max) {
            let what = format!("{}: from 1 to 10000", self.read_records_max);
            return invalid("read_records_max", what);
        }
        Ok(())
    }

    pub(super) fn put_timeout(&self) -> Duration {
        Duration::from_millis(self.put_timeout_ms)
    }

    pub(super) fn read_timeout(&self) -> Duration {
        Duration::from_millis(self.read_timeout_ms)
    }
}

/// The names that the service allows.
fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=128).contains(&name.len()) && name.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_make_sense() {
        assert_eq!(Settings::default().check(), Ok(()));
    }

    #[test]
    fn what_makes_no_sense_names_its_field() {
        let settings = Settings::default;
        for (field, wrong) in [
            ("stream", Settings { stream: "a stream".into(), ..settings() }),
            ("consumer", Settings { consumer: Some(String::new()), ..settings() }),
            ("endpoint", Settings { endpoint: Some("127.0.0.1:4568".into()), ..settings() }),
            ("record_bytes_max", Settings { record_bytes_max: 1000, ..settings() }),
            ("record_bytes_max", Settings { record_bytes_max: 11 << 20, ..settings() }),
            ("put_timeout_ms", Settings { put_timeout_ms: 0, ..settings() }),
            ("reads_per_s", Settings { reads_per_s: 0, ..settings() }),
            ("read_records_max", Settings { read_records_max: 10_001, ..settings() }),
        ] {
            assert_eq!(wrong.check().expect_err(field).field, field);
        }
    }
}
