//! Configuration: defaults, then a TOML file, then the environment, then flags; the later the stronger.
//!
//! One table of [`keys`] says what there is, for all of them: the key `limits.connections` is
//! `connections` under `[limits]` in the file, `STORMKEEP_LIMITS_CONNECTIONS` in the environment, and
//! `--set limits.connections=…` as a flag. What is not known, or makes no sense, is an error that names its place.

mod file;
pub mod keys;
mod tls;
mod value;

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

pub use keys::{KEYS, Key};

use crate::{
    api::{http, listen::Bounds},
    disk, near,
};

/// The file that is read if no other is named, and if it is there.
pub const FILE: &str = "stormkeep.toml";
/// What the names of environment variables begin with.
pub const ENVIRONMENT_PREFIX: &str = "STORMKEEP_";
/// Environment variables that are no keys: the file, and what the commands of the shell read.
const ENVIRONMENT_OTHER: [&str; 2] = ["STORMKEEP_CONFIG", "STORMKEEP_URL"];

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// An object a line.
    Json,
}

/// The bounds of what clients may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// A connection without a byte for so long is closed.
    pub idle: Duration,
    /// Time for a TLS handshake or the head of a request.
    pub head: Duration,
    /// Time for requests to finish when the server closes.
    pub finish: Duration,
    /// Time of one request.
    pub request_timeout: Duration,
    /// Events of one page of JSON.
    pub page_events: u32,
    /// Bytes of one body of JSON.
    pub body_bytes: u64,
    /// Bytes of all bodies of JSON that are under way.
    pub bodies_bytes: u64,
}

/// The files of a machine, and what is kept of them in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskConfig {
    /// Bytes of a segment of the log.
    pub segment_bytes: u64,
    /// Bytes of disk that must stay free.
    pub reserve_bytes: u64,
    /// Bytes of the store's cache.
    pub cache_bytes: u64,
    /// Bytes of the newest records of the log in memory.
    pub recent_bytes: u64,
    /// Bytes that the store gathers before it writes.
    pub write_buffer_bytes: u64,
}

/// Everything that may be set of a server. What each means, its unit and its default are in [`KEYS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The data directory.
    pub data: PathBuf,
    /// Host and port to listen at.
    pub listen: String,
    /// Host and port that clients are told.
    pub advertise: Option<String>,
    /// Shards.
    pub shards: Option<u32>,
    /// PEM file of the certificate and its chain.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file of its key.
    pub tls_key: Option<PathBuf>,
    /// What is logged.
    pub log_filter: String,
    /// How.
    pub log_format: LogFormat,
    /// Bounds of what clients may take.
    pub limits: Limits,
    /// The files.
    pub disk: DiskConfig,
    /// Worker threads; 0: one a core.
    pub workers: usize,
}

impl Default for Config {
    fn default() -> Self {
        let http = http::Options::default();
        let disk = disk::Options::default();
        Config {
            data: "./stormkeep-data".into(),
            listen: "127.0.0.1:2113".into(),
            advertise: None,
            shards: disk.shards,
            tls_certificate: None,
            tls_key: None,
            log_filter: "info".into(),
            log_format: LogFormat::Text,
            limits: Limits {
                connections: 20_000,
                idle: Duration::from_secs(120),
                head: Duration::from_secs(10),
                finish: Duration::from_secs(10),
                request_timeout: http.request_timeout,
                page_events: http.page_events_max,
                body_bytes: http.body_bytes_max as u64,
                bodies_bytes: http.bodies_bytes_max as u64,
            },
            disk: DiskConfig {
                segment_bytes: disk.segment_bytes,
                reserve_bytes: disk.reserve_bytes,
                cache_bytes: disk.cache_bytes,
                recent_bytes: disk.recent_bytes as u64,
                write_buffer_bytes: disk.write_buffer_bytes,
            },
            workers: 0,
        }
    }
}

/// What cannot be used of a configuration, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct ConfigError {
    /// `stormkeep.toml:12`, an environment variable, or a flag.
    pub place: String,
    /// What is wrong, and the way out.
    pub what: String,
}

impl ConfigError {
    fn new(place: impl fmt::Display, what: impl Into<String>) -> Self {
        ConfigError { place: place.to_string(), what: what.into() }
    }
}

/// One value that was given by a flag: the flag as it was written, the key, the value.
pub type Flag = (String, String, String);

/// Where a configuration comes from besides the defaults.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A file that must be there.
    pub file: Option<PathBuf>,
    /// A folder whose [`FILE`] is read if it is there and no other file is named.
    pub folder: Option<PathBuf>,
    /// The environment; what does not begin with [`ENVIRONMENT_PREFIX`] is passed over.
    pub environment: Vec<(String, String)>,
    /// Flags.
    pub flags: Vec<Flag>,
}

impl Config {
    /// Puts a configuration together, and says which file was read.
    pub fn load(sources: &Sources) -> Result<(Config, Option<PathBuf>), ConfigError> {
        let mut config = Config::default();
        let from_environment =
            sources.environment.iter().find(|(name, _)| name == ENVIRONMENT_OTHER[0]);
        let named = sources.file.clone().or(from_environment.map(|(_, path)| path.into()));
        let usual = sources.folder.as_ref().map(|folder| folder.join(FILE));
        let file = named.or(usual.filter(|path| path.exists()));
        if let Some(path) = &file {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|error| ConfigError::new(path.display(), error.to_string()))?;
            config.merge_file(path, &text)?;
        }
        for (name, value) in &sources.environment {
            config.merge_variable(name, value)?;
        }
        for (flag, key, value) in &sources.flags {
            config.set(key, value).map_err(|what| ConfigError::new(flag, what))?;
        }
        config.check()?;
        Ok((config, file))
    }

    /// Takes what a file says.
    pub fn merge_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        file::merge(self, path, text)
    }

    fn merge_variable(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        if !name.starts_with(ENVIRONMENT_PREFIX) || ENVIRONMENT_OTHER.contains(&name) {
            return Ok(());
        }
        let place = format!("environment variable {name}");
        match KEYS.iter().find(|key| key.variable() == name) {
            Some(key) => self.set(key.name, value).map_err(|what| ConfigError::new(place, what)),
            None => {
                let known: Vec<String> = KEYS.iter().map(Key::variable).collect();
                let hint = near::hint(name, known.iter().map(String::as_str));
                Err(ConfigError::new(place, format!("not known; {hint}")))
            }
        }
    }

    /// Sets one key from its text.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match KEYS.iter().find(|key| key.name == name) {
            Some(key) => (key.set)(self, value).map_err(|what| format!("{name}: {what}")),
            None => {
                let hint = near::hint(name, KEYS.iter().map(|key| key.name));
                Err(format!("{name}: this key is not known; {hint}"))
            }
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.tls_certificate.is_some() != self.tls_key.is_some() {
            let what = "give both tls.certificate and tls.key, or neither";
            return Err(ConfigError::new("tls", what));
        }
        if self.limits.body_bytes > self.limits.bodies_bytes {
            let what = "limits.bodies_bytes is less than limits.body_bytes: no body would fit";
            return Err(ConfigError::new("limits", what));
        }
        Ok(())
    }

    /// What differs from the defaults, and the data directory and address in any case, as `key=value`.
    pub fn effective(&self) -> String {
        let default = Config::default();
        let shown = |key: &&Key| {
            ["data", "listen"].contains(&key.name) || (key.get)(self) != (key.get)(&default)
        };
        let pairs = KEYS.iter().filter(shown);
        let pairs = pairs.map(|k| format!("{}={}", k.name, (k.get)(self).unwrap_or_default()));
        pairs.collect::<Vec<_>>().join(" ")
    }

    /// Options of HTTP and JSON.
    pub fn http(&self) -> http::Options {
        let limits = &self.limits;
        http::Options {
            request_timeout: limits.request_timeout,
            page_events_max: limits.page_events,
            body_bytes_max: usize::try_from(limits.body_bytes).unwrap_or(usize::MAX),
            bodies_bytes_max: usize::try_from(limits.bodies_bytes).unwrap_or(usize::MAX),
            heartbeat: (limits.idle / 4).min(http::Options::default().heartbeat),
        }
    }

    /// Options of the files.
    pub fn disk(&self) -> disk::Options {
        disk::Options {
            shards: self.shards,
            segment_bytes: self.disk.segment_bytes,
            recent_bytes: usize::try_from(self.disk.recent_bytes).unwrap_or(usize::MAX),
            reserve_bytes: self.disk.reserve_bytes,
            cache_bytes: self.disk.cache_bytes,
            write_buffer_bytes: self.disk.write_buffer_bytes,
            ..disk::Options::default()
        }
    }

    /// Bounds of the listener; reads the certificate and its key.
    pub fn bounds(&self) -> Result<Bounds, ConfigError> {
        let tls = match (&self.tls_certificate, &self.tls_key) {
            (Some(certificate), Some(key)) => Some(tls::acceptor(certificate, key)?),
            _ => None,
        };
        let limits = &self.limits;
        let (idle, head, finish) = (limits.idle, limits.head, limits.finish);
        Ok(Bounds { connections_max: limits.connections, idle, head, finish, tls })
    }
}

#[cfg(test)]
mod tests;
