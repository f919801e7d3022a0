//! What an operator may set: in a TOML file, in the environment, and by flags, the later the stronger.
//!
//! The three share their names: `disk_reserve_bytes` in the file is `STORMKEEP_DISK_RESERVE_BYTES` in the environment
//! and `--disk-reserve-bytes` on the command line. A name that is not known is an error that suggests one that is, and
//! whatever is wrong in the file is told with its line. `deploy/stormkeep.toml` has them all.

mod file;
mod services;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Command, ValueEnum};
use serde::{Deserialize, Serialize};
use stormkeep_core::consume::NewGroup;

use crate::{
    api::{http, listen},
    cassandra, cluster,
    disk::{self, SEGMENT_BYTES_MIN},
    kinesis, near, peers, push, subscription,
};

pub use services::{LogKind, Role, StoreKind};

const ENVIRONMENT: &str = "STORMKEEP_";
/// What is no setting, and yet known in the environment: the file, and the server that the shell's commands talk to.
const ENVIRONMENT_OTHER: [&str; 2] = ["STORMKEEP_CONFIG", "STORMKEEP_URL"];
const FILE: &str = "stormkeep.toml";

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// An object a line
    Json,
}

/// One layer of settings: a file, or the environment and the flags.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Layer {
    /// The data directory; made if it is not there [default: stormkeep-data]
    #[arg(long, env = "STORMKEEP_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The address to listen at [default: 127.0.0.1:2113]
    #[arg(long, env = "STORMKEEP_LISTEN", value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where the log is: `disk`, or `kinesis`, with the table `[kinesis]` of the file [default: disk]
    #[arg(long, env = "STORMKEEP_LOG", value_name = "WHERE", hide_possible_values = true)]
    pub log: Option<LogKind>,
    /// Where the store is: `disk`, or `cassandra`, with the table `[cassandra]` of the file [default: disk]
    #[arg(long, env = "STORMKEEP_STORE", value_name = "WHERE", hide_possible_values = true)]
    pub store: Option<StoreKind>,
    /// The number of this node in its cluster: its own, and kept over restarts
    #[arg(long, env = "STORMKEEP_NODE_ID", value_name = "N")]
    pub node_id: Option<u32>,
    /// What this process does for its cluster: `node` owns shards, `worker` delivers to subscriptions, `both` [default: both]
    #[arg(long, env = "STORMKEEP_ROLE", value_name = "ROLE", hide_possible_values = true)]
    pub role: Option<Role>,
    /// How to reach Kinesis: a table of the file
    #[arg(skip)]
    pub kinesis: Option<kinesis::Settings>,
    /// How to reach Cassandra: a table of the file
    #[arg(skip)]
    pub cassandra: Option<cassandra::Settings>,
    /// How nodes call each other: a table of the file
    #[arg(skip)]
    pub peers: Option<peers::Settings>,
    /// How to reach Lambda: a table of the file
    #[arg(skip)]
    pub lambda: Option<push::LambdaSettings>,
    /// How to call webhooks: a table of the file
    #[arg(skip)]
    pub webhook: Option<push::WebhookSettings>,
    /// Groups that are to be there: tables of the file
    #[arg(skip)]
    pub subscription: Option<Vec<serde_json::Value>>,
    /// Shards of a new data directory; one that is there already must have as many [default: 1, or as it is]
    #[arg(long, env = "STORMKEEP_SHARDS", value_name = "N")]
    pub shards: Option<u32>,
    /// A PEM file with the certificate chain of the server: speaks TLS
    #[arg(long, env = "STORMKEEP_TLS_CERTIFICATE", value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,
    /// A PEM file with the certificate's private key
    #[arg(long, env = "STORMKEEP_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// What is logged: `error`, `warn`, `info`, `debug`, or by module as in `info,stormkeep_core=debug` [default: info]
    #[arg(long, env = "STORMKEEP_LOG_LEVEL", value_name = "FILTER")]
    pub log_level: Option<String>,
    /// How a line of the log is written: `text`, or `json` with an object a line [default: text]
    #[arg(long, env = "STORMKEEP_LOG_FORMAT", value_name = "FORMAT", hide_possible_values = true)]
    pub log_format: Option<LogFormat>,
    /// Connections at a time; further ones wait [default: 20000]
    #[arg(long, env = "STORMKEEP_CONNECTIONS_MAX", value_name = "N")]
    pub connections_max: Option<usize>,
    /// Seconds without a byte after which a connection is closed [default: 300]
    #[arg(long, env = "STORMKEEP_IDLE_S", value_name = "SECONDS")]
    pub idle_s: Option<u64>,
    /// Seconds that a client may take for a TLS handshake or the head of a request [default: 10]
    #[arg(long, env = "STORMKEEP_HEAD_S", value_name = "SECONDS")]
    pub head_s: Option<u64>,
    /// Seconds that calls may take to finish when the server closes [default: 10]
    #[arg(long, env = "STORMKEEP_FINISH_S", value_name = "SECONDS")]
    pub finish_s: Option<u64>,
    /// Milliseconds that one request over HTTP may take, its body included [default: 10000]
    #[arg(long, env = "STORMKEEP_REQUEST_TIMEOUT_MS", value_name = "MS")]
    pub request_timeout_ms: Option<u64>,
    /// Events of one page of JSON at the most, up to 10000 [default: 1000]
    #[arg(long, env = "STORMKEEP_PAGE_EVENTS_MAX", value_name = "N")]
    pub page_events_max: Option<u32>,
    /// Bytes of one body of JSON at the most [default: 4194304]
    #[arg(long, env = "STORMKEEP_BODY_BYTES_MAX", value_name = "BYTES")]
    pub body_bytes_max: Option<usize>,
    /// Bytes of all bodies of JSON together that are under way; more are refused as busy [default: 268435456]
    #[arg(long, env = "STORMKEEP_BODIES_BYTES_MAX", value_name = "BYTES")]
    pub bodies_bytes_max: Option<usize>,
    /// Bytes of one segment of the log, made ahead [default: 67108864]
    #[arg(long, env = "STORMKEEP_DISK_SEGMENT_BYTES", value_name = "BYTES")]
    pub disk_segment_bytes: Option<u64>,
    /// Bytes of disk that must be free; below it appends are refused [default: 268435456]
    #[arg(long, env = "STORMKEEP_DISK_RESERVE_BYTES", value_name = "BYTES")]
    pub disk_reserve_bytes: Option<u64>,
    /// Bytes of the store's two caches, of its files and of events [default: 134217728]
    #[arg(long, env = "STORMKEEP_DISK_CACHE_BYTES", value_name = "BYTES")]
    pub disk_cache_bytes: Option<u64>,
    /// Bytes of the newest records of the log that are kept in memory [default: 33554432]
    #[arg(long, env = "STORMKEEP_DISK_RECENT_BYTES", value_name = "BYTES")]
    pub disk_recent_bytes: Option<usize>,
    /// Bytes that the store gathers in memory before it writes them out [default: 67108864]
    #[arg(long, env = "STORMKEEP_DISK_WRITE_BUFFER_BYTES", value_name = "BYTES")]
    pub disk_write_buffer_bytes: Option<u64>,
    /// Threads that serve [default: one for each core]
    #[arg(long, env = "STORMKEEP_THREADS", value_name = "N")]
    pub threads: Option<usize>,
}

/// Why the settings make no sense.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        error: io::Error,
    },
    /// The file is no TOML, or a value is of the wrong kind.
    #[error("{place}: {what}")]
    Toml {
        /// The file and the line.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// A name is not known.
    #[error("{place}: {name} is not known; {hint}")]
    Unknown {
        /// The file and the line, or the environment.
        place: String,
        /// The name.
        name: String,
        /// What may have been meant.
        hint: String,
    },
    /// A value of the table `[kinesis]` cannot be.
    #[error(transparent)]
    Kinesis(#[from] kinesis::InvalidSetting),
    /// A value of the table `[cassandra]` cannot be.
    #[error(transparent)]
    Cassandra(#[from] cassandra::InvalidSettings),
    /// A value of the table `[peers]` cannot be.
    #[error(transparent)]
    Peers(#[from] peers::InvalidSetting),
    /// A value of the tables `[lambda]` and `[webhook]` cannot be.
    #[error(transparent)]
    Push(#[from] push::InvalidSetting),
    /// A table `[[subscription]]` makes no sense.
    #[error(transparent)]
    Subscription(#[from] subscription::InvalidEntry),
    /// A value cannot be.
    #[error("{name}: {what}")]
    Value {
        /// The name.
        name: &'static str,
        /// What is wrong, and the way out.
        what: String,
    },
}

/// The settings that hold.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data directory.
    pub data: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// The certificate chain and the key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// What is logged.
    pub log_level: String,
    /// How.
    pub log_format: LogFormat,
    /// Threads that serve; `None`: one for each core.
    pub threads: Option<usize>,
    /// HTTP and JSON.
    pub http: http::Options,
    /// The files.
    pub disk: disk::Options,
    /// The cluster that this is a node of; `None`: this machine is alone.
    pub cluster: Option<cluster::Settings>,
    /// Pushing events.
    pub push: push::Settings,
    /// Groups that are to be there.
    pub subscriptions: Vec<NewGroup>,
    /// The bounds of the listener, TLS apart.
    pub bounds: listen::Bounds,
    /// What was set, and is not as by default: `idle_s=60`, separated by blanks.
    pub set: String,
}

impl Config {
    /// Reads the file and the names in the environment, and puts `flags` (and the environment's values, which are in
    /// them already) above.
    pub fn load(
        file: Option<&Path>,
        flags: Layer,
        environment: impl Iterator<Item = String>,
    ) -> Result<Config, ConfigError> {
        let given: Vec<String> = environment.filter(|name| name.starts_with(ENVIRONMENT)).collect();
        for name in given.iter().filter(|name| !is_of_kubernetes(name, &given)) {
            let known = names().map(|n| format!("{ENVIRONMENT}{}", n.to_uppercase()));
            let known: Vec<String> = known.chain(ENVIRONMENT_OTHER.map(str::to_owned)).collect();
            if !known.contains(name) {
                let hint = near::hint(name, known.iter().map(String::as_str));
                let (place, name) = ("environment".into(), name.clone());
                return Err(ConfigError::Unknown { place, name, hint });
            }
        }
        let layer = match file {
            Some(path) => file::read(path)?,
            None if Path::new(FILE).exists() => file::read(Path::new(FILE))?,
            None => Layer::default(),
        };
        flags.over(layer).checked()
    }
}

impl Layer {
    /// This layer, and `below` where it says nothing.
    fn over(self, below: Layer) -> Layer {
        Layer {
            data: self.data.or(below.data),
            listen: self.listen.or(below.listen),
            shards: self.shards.or(below.shards),
            tls_certificate: self.tls_certificate.or(below.tls_certificate),
            tls_key: self.tls_key.or(below.tls_key),
            log_level: self.log_level.or(below.log_level),
            log: self.log.or(below.log),
            store: self.store.or(below.store),
            node_id: self.node_id.or(below.node_id),
            role: self.role.or(below.role),
            kinesis: self.kinesis.or(below.kinesis),
            cassandra: self.cassandra.or(below.cassandra),
            peers: self.peers.or(below.peers),
            lambda: self.lambda.or(below.lambda),
            webhook: self.webhook.or(below.webhook),
            subscription: self.subscription.or(below.subscription),
            log_format: self.log_format.or(below.log_format),
            connections_max: self.connections_max.or(below.connections_max),
            idle_s: self.idle_s.or(below.idle_s),
            head_s: self.head_s.or(below.head_s),
            finish_s: self.finish_s.or(below.finish_s),
            request_timeout_ms: self.request_timeout_ms.or(below.request_timeout_ms),
            page_events_max: self.page_events_max.or(below.page_events_max),
            body_bytes_max: self.body_bytes_max.or(below.body_bytes_max),
            bodies_bytes_max: self.bodies_bytes_max.or(below.bodies_bytes_max),
            disk_segment_bytes: self.disk_segment_bytes.or(below.disk_segment_bytes),
            disk_reserve_bytes: self.disk_reserve_bytes.or(below.disk_reserve_bytes),
            disk_cache_bytes: self.disk_cache_bytes.or(below.disk_cache_bytes),
            disk_recent_bytes: self.disk_recent_bytes.or(below.disk_recent_bytes),
            disk_write_buffer_bytes: self.disk_write_buffer_bytes.or(below.disk_write_buffer_bytes),
            threads: self.threads.or(below.threads),
        }
    }

    fn checked(self) -> Result<Config, ConfigError> {
        let set = self.set();
        let http = self.http()?;
        let push = self.push()?;
        let cluster = self.cluster(&push)?;
        let subscriptions = subscription::groups(self.subscription.unwrap_or_default())?;
        let wrong = |name, what: String| ConfigError::Value { name, what };
        let positive = |name, value: u64| match value {
            0 => Err(wrong(name, "0; at least 1".into())),
            value => Ok(value),
        };
        let tls = match (self.tls_certificate, self.tls_key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => {
                return Err(wrong("tls_key", "it is missing, but tls_certificate is set".into()));
            }
            (None, Some(_)) => {
                return Err(wrong("tls_certificate", "it is missing, but tls_key is set".into()));
            }
        };
        let defaults = disk::Options::default();
        let segment_bytes = self.disk_segment_bytes.unwrap_or(defaults.segment_bytes);
        if !(SEGMENT_BYTES_MIN..=1 << 32).contains(&segment_bytes) {
            let what = format!("{segment_bytes}; from {SEGMENT_BYTES_MIN} to {}", 1u64 << 32);
            return Err(wrong("disk_segment_bytes", what));
        }
        let bounds = listen::Bounds::default();
        let seconds = |name, given: Option<u64>, otherwise| match given {
            Some(s) => positive(name, s).map(Duration::from_secs),
            None => Ok(otherwise),
        };
        let connections_max = self.connections_max.unwrap_or(bounds.connections_max);
        positive("connections_max", connections_max as u64)?;
        let threads = self.threads.map(|n| positive("threads", n as u64)).transpose()?;
        Ok(Config {
            data: self.data.unwrap_or_else(|| "stormkeep-data".into()),
            listen: self.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 2113))),
            tls,
            cluster,
            push,
            subscriptions,
            log_level: self.log_level.unwrap_or_else(|| "info".into()),
            log_format: self.log_format.unwrap_or_default(),
            threads: threads.map(|n| n as usize),
            http,
            disk: disk::Options {
                shards: self.shards,
                segment_bytes,
                recent_bytes: self.disk_recent_bytes.unwrap_or(defaults.recent_bytes),
                reserve_bytes: self.disk_reserve_bytes.unwrap_or(defaults.reserve_bytes),
                cache_bytes: self.disk_cache_bytes.unwrap_or(defaults.cache_bytes),
                write_buffer_bytes: self
                    .disk_write_buffer_bytes
                    .unwrap_or(defaults.write_buffer_bytes),
                ..defaults
            },
            bounds: listen::Bounds {
                connections_max,
                idle: seconds("idle_s", self.idle_s, bounds.idle)?,
                head: seconds("head_s", self.head_s, bounds.head)?,
                // Not at all is a choice here.
                finish: self.finish_s.map_or(bounds.finish, Duration::from_secs),
                ..bounds
            },
            set,
        })
    }

    fn http(&self) -> Result<http::Options, ConfigError> {
        let wrong = |name, what: String| ConfigError::Value { name, what };
        let otherwise = http::Options::default();
        let idle = self.idle_s.map_or(listen::Bounds::default().idle, Duration::from_secs);
        let timeout_ms = self.request_timeout_ms.map(Duration::from_millis);
        let options = http::Options {
            request_timeout: timeout_ms.unwrap_or(otherwise.request_timeout),
            page_events_max: self.page_events_max.unwrap_or(otherwise.page_events_max),
            body_bytes_max: self.body_bytes_max.unwrap_or(otherwise.body_bytes_max),
            bodies_bytes_max: self.bodies_bytes_max.unwrap_or(otherwise.bodies_bytes_max),
            heartbeat: otherwise.heartbeat.min(idle / 4),
        };
        if options.request_timeout.is_zero() {
            return Err(wrong("request_timeout_ms", "0; at least 1".into()));
        }
        if !(1..=PAGE_EVENTS_MAX).contains(&options.page_events_max) {
            let what = format!("{}; from 1 to {PAGE_EVENTS_MAX}", options.page_events_max);
            return Err(wrong("page_events_max", what));
        }
        if options.body_bytes_max == 0 {
            return Err(wrong("body_bytes_max", "0; at least 1".into()));
        }
        if options.bodies_bytes_max < options.body_bytes_max {
            let what = format!(
                "{}; at least body_bytes_max, {}: else no body fits",
                options.bodies_bytes_max, options.body_bytes_max
            );
            return Err(wrong("bodies_bytes_max", what));
        }
        Ok(options)
    }

    /// What is set, as `name=value`; the data directory and the address apart, which are always told.
    fn set(&self) -> String {
        let all = serde_json::to_value(self).unwrap_or_default();
        let all = all.as_object().into_iter().flatten();
        let set = all.filter(|(name, value)| {
            // Tables may hold secrets.
            !value.is_null()
                && !value.is_object()
                && !value.is_array()
                && !["data", "listen"].contains(&name.as_str())
        });
        let pairs = set.map(|(name, value)| match value.as_str() {
            Some(text) => format!("{name}={text}"),
            None => format!("{name}={value}"),
        });
        pairs.collect::<Vec<_>>().join(" ")
    }
}

/// Events of a page that may be allowed at the most: at 256 bytes each, a few MiB.
const PAGE_EVENTS_MAX: u32 = 10_000;

/// Whether Kubernetes has set this name: it tells each pod where the Services of its namespace are, and those of one that is
/// called `stormkeep` or `stormkeep-client` begin as ours do. Among the names of each is `…_SERVICE_HOST`.
fn is_of_kubernetes(name: &str, given: &[String]) -> bool {
    let mut services = given.iter().filter_map(|other| other.strip_suffix("_SERVICE_HOST"));
    services.any(|service| {
        name.strip_prefix(service).is_some_and(|rest| {
            matches!(rest, "_SERVICE_HOST" | "_SERVICE_PORT" | "_PORT")
                || rest.starts_with("_SERVICE_PORT_")
                || rest.starts_with("_PORT_")
        })
    })
}

/// All names that may be set.
fn names() -> impl Iterator<Item = String> {
    let command = Layer::augment_args(Command::new("names"));
    let names: Vec<String> =
        command.get_arguments().map(|argument| argument.get_id().to_string()).collect();
    names.into_iter()
}

#[cfg(test)]
mod tests;
