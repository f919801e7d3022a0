//! What an operator may set: in a TOML file, in the environment, and by flags, the later the stronger.
//!
//! The three share their names: `disk_reserve_bytes` in the file is `STORMKEEP_DISK_RESERVE_BYTES` in the environment
//! and `--disk-reserve-bytes` on the command line. A name that is not known is an error that suggests one that is.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Command};
use serde::{Deserialize, Serialize};

use crate::{
    api::{Settings, listen},
    disk::{self, SEGMENT_BYTES_MIN},
};

const ENVIRONMENT: &str = "STORMKEEP_";
const FILE: &str = "stormkeep.toml";

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
    /// Shards of a new data directory; one that is there already must have as many [default: 1, or as it is]
    #[arg(long, env = "STORMKEEP_SHARDS", value_name = "N")]
    pub shards: Option<u32>,
    /// The host and port that clients are told to use when they ask who there is [default: as listen]
    #[arg(long, env = "STORMKEEP_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// A PEM file with the certificate chain of the server: speaks TLS
    #[arg(long, env = "STORMKEEP_TLS_CERTIFICATE", value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,
    /// A PEM file with the certificate's private key
    #[arg(long, env = "STORMKEEP_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// What is logged: `error`, `warn`, `info`, `debug`, or by module as in `info,stormkeep_core=debug` [default: info]
    #[arg(long, env = "STORMKEEP_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// Connections at a time; further ones wait [default: 20000]
    #[arg(long, env = "STORMKEEP_CONNECTIONS_MAX", value_name = "N")]
    pub connections_max: Option<usize>,
    /// Seconds without a byte after which a connection is closed [default: 300]
    #[arg(long, env = "STORMKEEP_IDLE_S", value_name = "SECONDS")]
    pub idle_s: Option<u64>,
    /// Milliseconds that one call may take, whatever its client allows [default: 10000]
    #[arg(long, env = "STORMKEEP_TIMEOUT_MS", value_name = "MS")]
    pub timeout_ms: Option<u64>,
    /// Seconds that calls may take to finish when the server closes [default: 10]
    #[arg(long, env = "STORMKEEP_FINISH_S", value_name = "SECONDS")]
    pub finish_s: Option<u64>,
    /// Bytes of one segment of the log, made ahead [default: 67108864]
    #[arg(long, env = "STORMKEEP_DISK_SEGMENT_BYTES", value_name = "BYTES")]
    pub disk_segment_bytes: Option<u64>,
    /// Bytes of disk that must be free; below it appends are refused [default: 268435456]
    #[arg(long, env = "STORMKEEP_DISK_RESERVE_BYTES", value_name = "BYTES")]
    pub disk_reserve_bytes: Option<u64>,
    /// Bytes of the store's cache [default: 134217728]
    #[arg(long, env = "STORMKEEP_DISK_CACHE_BYTES", value_name = "BYTES")]
    pub disk_cache_bytes: Option<u64>,
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
    #[error("{}: {error}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        error: Box<toml::de::Error>,
    },
    /// A name is not known.
    #[error("{place}: {name} is not known{}", near(suggestion.as_deref()))]
    Unknown {
        /// The file, or the environment.
        place: String,
        /// The name.
        name: String,
        /// What may have been meant.
        suggestion: Option<String>,
    },
    /// A value cannot be.
    #[error("{name}: {what}")]
    Value {
        /// The name.
        name: &'static str,
        /// What is wrong, and the way out.
        what: String,
    },
}

fn near(suggestion: Option<&str>) -> String {
    suggestion.map_or(String::new(), |name| format!("; did you mean {name}?"))
}

/// The settings that hold.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data directory.
    pub data: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// What clients are told to connect to.
    pub advertise: Option<(String, u16)>,
    /// The certificate chain and the key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// What is logged.
    pub log: String,
    /// Threads that serve; `None`: one for each core.
    pub threads: Option<usize>,
    /// The files.
    pub disk: disk::Options,
    /// The bounds of the listener, TLS apart.
    pub bounds: listen::Bounds,
    /// The longest that one call may take.
    pub timeout: Duration,
}

impl Config {
    /// Reads the file and the names in the environment, and puts `flags` (and the environment's values, which are in
    /// them already) above.
    pub fn load(
        file: Option<&Path>,
        flags: Layer,
        environment: impl Iterator<Item = String>,
    ) -> Result<Config, ConfigError> {
        for name in environment.filter(|name| name.starts_with(ENVIRONMENT)) {
            let known = names().map(|n| format!("{ENVIRONMENT}{}", n.to_uppercase()));
            let known: Vec<String> = known.chain([format!("{ENVIRONMENT}CONFIG")]).collect();
            if !known.contains(&name) {
                let suggestion = nearest(&name, known.into_iter());
                return Err(ConfigError::Unknown { place: "environment".into(), name, suggestion });
            }
        }
        let layer = match file {
            Some(path) => Layer::read(path)?,
            None if Path::new(FILE).exists() => Layer::read(Path::new(FILE))?,
            None => Layer::default(),
        };
        flags.over(layer).checked()
    }
}

impl Layer {
    fn read(path: &Path) -> Result<Layer, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|error| ConfigError::File { path: path.to_owned(), error })?;
        let wrong = |error| ConfigError::Toml { path: path.to_owned(), error: Box::new(error) };
        let table: toml::Table = toml::from_str(&text).map_err(wrong)?;
        for name in table.keys() {
            if !names().any(|known| known == *name) {
                let suggestion = nearest(name, names());
                let (place, name) = (path.display().to_string(), name.clone());
                return Err(ConfigError::Unknown { place, name, suggestion });
            }
        }
        toml::from_str(&text).map_err(wrong)
    }

    /// This layer, and `below` where it says nothing.
    fn over(self, below: Layer) -> Layer {
        Layer {
            data: self.data.or(below.data),
            listen: self.listen.or(below.listen),
            shards: self.shards.or(below.shards),
            advertise: self.advertise.or(below.advertise),
            tls_certificate: self.tls_certificate.or(below.tls_certificate),
            tls_key: self.tls_key.or(below.tls_key),
            log: self.log.or(below.log),
            connections_max: self.connections_max.or(below.connections_max),
            idle_s: self.idle_s.or(below.idle_s),
            timeout_ms: self.timeout_ms.or(below.timeout_ms),
            finish_s: self.finish_s.or(below.finish_s),
            disk_segment_bytes: self.disk_segment_bytes.or(below.disk_segment_bytes),
            disk_reserve_bytes: self.disk_reserve_bytes.or(below.disk_reserve_bytes),
            disk_cache_bytes: self.disk_cache_bytes.or(below.disk_cache_bytes),
            threads: self.threads.or(below.threads),
        }
    }

    fn checked(self) -> Result<Config, ConfigError> {
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
        let advertise = self.advertise.map(|address| {
            let split = address.rsplit_once(':');
            let parsed = split.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
            let what = format!("{address:?}; give a host and a port, as in events.example:2113");
            parsed.filter(|(host, _)| !host.is_empty()).ok_or_else(|| wrong("advertise", what))
        });
        let defaults = disk::Options::default();
        let segment_bytes = self.disk_segment_bytes.unwrap_or(defaults.segment_bytes);
        if !(SEGMENT_BYTES_MIN..=1 << 32).contains(&segment_bytes) {
            let what = format!("{segment_bytes}; from {SEGMENT_BYTES_MIN} to {}", 1u64 << 32);
            return Err(wrong("disk_segment_bytes", what));
        }
        let bounds = listen::Bounds::default();
        let seconds = |given: Option<u64>, otherwise| given.map_or(otherwise, Duration::from_secs);
        let idle = self.idle_s.map(|s| positive("idle_s", s)).transpose()?;
        let timeout_ms = positive("timeout_ms", self.timeout_ms.unwrap_or(10_000))?;
        let connections_max = self.connections_max.unwrap_or(bounds.connections_max);
        positive("connections_max", connections_max as u64)?;
        let threads = self.threads.map(|n| positive("threads", n as u64)).transpose()?;
        Ok(Config {
            data: self.data.unwrap_or_else(|| "stormkeep-data".into()),
            listen: self.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 2113))),
            advertise: advertise.transpose()?,
            tls,
            log: self.log.unwrap_or_else(|| "info".into()),
            threads: threads.map(|n| n as usize),
            disk: disk::Options {
                shards: self.shards,
                segment_bytes,
                reserve_bytes: self.disk_reserve_bytes.unwrap_or(defaults.reserve_bytes),
                cache_bytes: self.disk_cache_bytes.unwrap_or(defaults.cache_bytes),
                ..defaults
            },
            bounds: listen::Bounds {
                connections_max,
                idle: seconds(idle, bounds.idle),
                finish: seconds(self.finish_s, bounds.finish),
                ..bounds
            },
            timeout: Duration::from_millis(timeout_ms),
        })
    }
}

impl Config {
    /// What the APIs are told.
    pub fn api(&self) -> Settings {
        let advertise = self.advertise.clone();
        let listen = (self.listen.ip().to_string(), self.listen.port());
        Settings { timeout: self.timeout, advertise: advertise.unwrap_or(listen) }
    }
}

/// All names that may be set.
fn names() -> impl Iterator<Item = String> {
    let command = Layer::augment_args(Command::new("names"));
    let names: Vec<String> =
        command.get_arguments().map(|argument| argument.get_id().to_string()).collect();
    names.into_iter()
}

fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let by = |known: String| (strsim::normalized_damerau_levenshtein(name, &known), known);
    let best = known.map(by).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.5).then_some(best.1)
}

#[cfg(test)]
mod tests;
