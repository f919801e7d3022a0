//! The table of all keys: what each means, its unit, and how it is read and shown.

use std::path::PathBuf;

use tracing_subscriber::filter::Targets;

use super::{
    Config, LogFormat,
    value::{address, bytes, duration, number, show_bytes, show_duration},
};
use crate::disk::{SEGMENT_BYTES_MIN, SHARDS_MAX};

/// One key.
pub struct Key {
    /// Its name, with its section: `limits.connections`.
    pub name: &'static str,
    /// What it means.
    pub doc: &'static str,
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
    pub(super) get: fn(&Config) -> Option<String>,
}

impl Key {
    /// The name of its environment variable.
    pub fn variable(&self) -> String {
        format!("STORMKEEP_{}", self.name.replace('.', "_").to_uppercase())
    }

    /// Its value as it is written; `None`: it is not set.
    pub fn show(&self, config: &Config) -> Option<String> {
        (self.get)(config)
    }
}

fn path(text: &str) -> Result<PathBuf, String> {
    match text.is_empty() {
        true => Err("the path is empty".into()),
        false => Ok(text.into()),
    }
}

fn shown(path: &Option<PathBuf>) -> Option<String> {
    path.as_ref().map(|path| path.display().to_string())
}

fn count(text: &str, min: u64, max: u64) -> Result<usize, String> {
    number(text, min, max).map(|n| usize::try_from(n).unwrap_or(usize::MAX))
}

/// All keys, in the order in which they are shown.
pub const KEYS: &[Key] = &[
    Key {
        name: "data",
        doc: "the data directory; made if it is not there",
        set: |c, v| path(v).map(|v| c.data = v),
        get: |c| Some(c.data.display().to_string()),
    },
    Key {
        name: "listen",
        doc: "host and port to listen at, for gRPC and HTTP; port 0 takes any free one",
        set: |c, v| address(v).map(|v| c.listen = v),
        get: |c| Some(c.listen.clone()),
    },
    Key {
        name: "advertise",
        doc: "host and port that clients are told by gossip, if they reach the server by another one",
        set: |c, v| address(v).map(|v| c.advertise = Some(v)),
        get: |c| c.advertise.clone(),
    },
    Key {
        name: "shards",
        doc: "shards of a new data directory (1 if not given); of one that is there, the number that it must have",
        set: |c, v| {
            let shards = number(v, 1, SHARDS_MAX.into())?;
            c.shards = u32::try_from(shards).ok();
            Ok(())
        },
        get: |c| c.shards.map(|n| n.to_string()),
    },
    Key {
        name: "tls.certificate",
        doc: "PEM file of the certificate and its chain; with tls.key, TLS is spoken, and nothing else",
        set: |c, v| path(v).map(|v| c.tls_certificate = Some(v)),
        get: |c| shown(&c.tls_certificate),
    },
    Key {
        name: "tls.key",
        doc: "PEM file of the certificate's private key",
        set: |c, v| path(v).map(|v| c.tls_key = Some(v)),
        get: |c| shown(&c.tls_key),
    },
    Key {
        name: "log.filter",
        doc: "what is logged: a level, or levels by module, `info,stormkeep=debug`",
        set: |c, v| {
            let parsed = v.parse::<Targets>();
            parsed.map_err(|error| format!("`{v}` is no filter: {error}"))?;
            c.log_filter = v.into();
            Ok(())
        },
        get: |c| Some(c.log_filter.clone()),
    },
    Key {
        name: "log.format",
        doc: "text, or json: an object a line",
        set: |c, v| {
            c.log_format = match v {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => return Err(format!("`{v}` is neither text nor json")),
            };
            Ok(())
        },
        get: |c| {
            Some(match c.log_format {
                LogFormat::Text => "text".into(),
                LogFormat::Json => "json".into(),
            })
        },
    },
    Key {
        name: "limits.connections",
        doc: "connections at a time; further ones wait to be accepted",
        set: |c, v| count(v, 1, 1_000_000).map(|v| c.limits.connections = v),
        get: |c| Some(c.limits.connections.to_string()),
    },
    Key {
        name: "limits.idle",
        doc: "a connection without a byte for so long is closed",
        set: |c, v| duration(v).map(|v| c.limits.idle = v),
        get: |c| Some(show_duration(c.limits.idle)),
    },
    Key {
        name: "limits.head",
        doc: "time for a TLS handshake, or for the head of a request",
        set: |c, v| duration(v).map(|v| c.limits.head = v),
        get: |c| Some(show_duration(c.limits.head)),
    },
    Key {
        name: "limits.finish",
        doc: "time for requests that are under way to finish when the server is told to stop",
        set: |c, v| duration(v).map(|v| c.limits.finish = v),
        get: |c| Some(show_duration(c.limits.finish)),
    },
    Key {
        name: "limits.request_timeout",
        doc: "time of one request that brings no deadline of its own",
        set: |c, v| duration(v).map(|v| c.limits.request_timeout = v),
        get: |c| Some(show_duration(c.limits.request_timeout)),
    },
    Key {
        name: "limits.page_events",
        doc: "events of one page of JSON at the most",
        set: |c, v| {
            let events = number(v, 1, 10_000)?;
            c.limits.page_events = u32::try_from(events).unwrap_or(u32::MAX);
            Ok(())
        },
        get: |c| Some(c.limits.page_events.to_string()),
    },
    Key {
        name: "limits.body_bytes",
        doc: "bytes of one body of JSON at the most",
        set: |c, v| bytes(v).map(|v| c.limits.body_bytes = v),
        get: |c| Some(show_bytes(c.limits.body_bytes)),
    },
    Key {
        name: "limits.bodies_bytes",
        doc: "bytes of all bodies of JSON that are under way at the most; more are refused as busy",
        set: |c, v| bytes(v).map(|v| c.limits.bodies_bytes = v),
        get: |c| Some(show_bytes(c.limits.bodies_bytes)),
    },
    Key {
        name: "disk.segment_bytes",
        doc: "bytes of a segment of the log, which is made ahead; at least 4 MiB",
        set: |c, v| match bytes(v)? {
            small if small < SEGMENT_BYTES_MIN => {
                Err(format!("`{v}` is less than {}", show_bytes(SEGMENT_BYTES_MIN)))
            }
            v => {
                c.disk.segment_bytes = v;
                Ok(())
            }
        },
        get: |c| Some(show_bytes(c.disk.segment_bytes)),
    },
    Key {
        name: "disk.reserve_bytes",
        doc: "bytes of disk that must stay free; below, appends are refused, and reads go on",
        set: |c, v| bytes(v).map(|v| c.disk.reserve_bytes = v),
        get: |c| Some(show_bytes(c.disk.reserve_bytes)),
    },
    Key {
        name: "disk.cache_bytes",
        doc: "bytes of memory for what was read from the store",
        set: |c, v| bytes(v).map(|v| c.disk.cache_bytes = v),
        get: |c| Some(show_bytes(c.disk.cache_bytes)),
    },
    Key {
        name: "disk.recent_bytes",
        doc: "bytes of memory for the newest records of the log",
        set: |c, v| bytes(v).map(|v| c.disk.recent_bytes = v),
        get: |c| Some(show_bytes(c.disk.recent_bytes)),
    },
    Key {
        name: "disk.write_buffer_bytes",
        doc: "bytes of memory that the store gathers before it writes them out",
        set: |c, v| bytes(v).map(|v| c.disk.write_buffer_bytes = v),
        get: |c| Some(show_bytes(c.disk.write_buffer_bytes)),
    },
    Key {
        name: "runtime.workers",
        doc: "worker threads; 0: one a core",
        set: |c, v| count(v, 0, 1024).map(|v| c.workers = v),
        get: |c| Some(c.workers.to_string()),
    },
];
