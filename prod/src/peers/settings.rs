//! What an operator may set about calls between nodes: the table `[peers]` of the configuration file.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::tls;

/// Characters of a shared secret at the least.
const SECRET_CHARS_MIN: usize = 16;

/// The settings. The names of the fields are those of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The address that peers call. Not 0.0.0.0 alone: see `advertise`.
    pub listen: SocketAddr,
    /// The host and port that peers are told to call. Not set: `listen`.
    pub advertise: Option<String>,
    /// A PEM file with this node's certificate chain.
    pub tls_certificate: Option<PathBuf>,
    /// A PEM file with the certificate's private key.
    pub tls_key: Option<PathBuf>,
    /// A PEM file with the authority that all nodes' certificates come from.
    pub tls_authority: Option<PathBuf>,
    /// The name that all nodes' certificates have. Not set: the host that a node advertises.
    pub tls_name: Option<String>,
    /// A file with a secret that all nodes share. Not set: nodes prove themselves by their certificates.
    pub secret_file: Option<PathBuf>,
    /// Connections to each peer.
    pub connections: usize,
    /// Calls to each peer, and calls of all peers together, that may be under way.
    pub calls_max: usize,
    /// How long a connection may take to be made.
    pub connect_timeout_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            listen: ([127, 0, 0, 1], 2114).into(),
            advertise: None,
            tls_certificate: None,
            tls_key: None,
            tls_authority: None,
            tls_name: None,
            secret_file: None,
            connections: 2,
            calls_max: 4096,
            connect_timeout_ms: 1000,
        }
    }
}

/// A setting makes no sense. The text names it and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("peers.{field}: {what}")]
pub struct InvalidSetting {
    /// Its name in the table.
    pub field: &'static str,
    /// What is wrong, and what would be right.
    pub what: String,
}

/// What a node proves itself with, and how it knows others.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) secret: Option<Arc<str>>,
    pub(super) server: Option<Arc<rustls::ServerConfig>>,
    pub(super) client: Option<Arc<rustls::ClientConfig>>,
}

impl Settings {
    /// The host and port that peers are told to call.
    pub fn advertised(&self) -> String {
        self.advertise.clone().unwrap_or_else(|| self.listen.to_string())
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    /// Checks everything, the files included.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        self.credentials().map(drop)
    }

    /// Checks everything, and reads the files.
    pub(super) fn credentials(&self) -> Result<Credentials, InvalidSetting> {
        let invalid = |field, what: &str| InvalidSetting { field, what: what.to_owned() };
        if self.connections == 0 {
            return Err(invalid("connections", "0: it must be 1 at least"));
        }
        if self.calls_max == 0 {
            return Err(invalid("calls_max", "0: it must be 1 at least"));
        }
        if self.connect_timeout_ms == 0 {
            return Err(invalid("connect_timeout_ms", "0: it must be 1 at least"));
        }
        match &self.advertise {
            None if self.listen.ip().is_unspecified() => {
                let what = format!(
                    "not set, and peers cannot call {}: set the host and port of this node",
                    self.listen.ip()
                );
                return Err(InvalidSetting { field: "advertise", what });
            }
            None => {}
            Some(authority) => check_advertised(authority)
                .map_err(|what| InvalidSetting { field: "advertise", what })?,
        }
        let secret = self.secret()?;
        let files = [&self.tls_certificate, &self.tls_key, &self.tls_authority];
        let fields = ["tls_certificate", "tls_key", "tls_authority"];
        if files.iter().all(|file| file.is_none()) {
            if !self.listen.ip().is_loopback() {
                let what = format!(
                    "{} can be reached from elsewhere: set tls_certificate, tls_key and tls_authority, \
                     or listen at 127.0.0.1",
                    self.listen
                );
                return Err(InvalidSetting { field: "listen", what });
            }
            return Ok(Credentials { secret, server: None, client: None });
        }
        if let Some((_, field)) = files.iter().zip(fields).find(|(file, _)| file.is_none()) {
            return Err(invalid(field, "not set, but another of the three files of TLS is"));
        }
        let (Some(certificate), Some(key), Some(authority)) =
            (&self.tls_certificate, &self.tls_key, &self.tls_authority)
        else {
            return Err(invalid("tls_certificate", "not set"));
        };
        let own = tls::own(certificate, key)?;
        let roots = tls::roots(authority)?;
        // A node that has the secret needs no certificate for a client.
        let server = tls::server(&own, &roots, secret.is_none())?;
        let client = tls::client(&own, roots, secret.is_none())?;
        Ok(Credentials { secret, server: Some(server), client: Some(client) })
    }

    fn secret(&self) -> Result<Option<Arc<str>>, InvalidSetting> {
        let Some(file) = &self.secret_file else { return Ok(None) };
        let invalid = |what: String| InvalidSetting {
            field: "secret_file",
            what: format!("{}: {what}", file.display()),
        };
        let text = fs::read_to_string(file).map_err(|error| invalid(error.to_string()))?;
        let secret = text.trim();
        if secret.len() < SECRET_CHARS_MIN || !secret.chars().all(|c| c.is_ascii_graphic()) {
            let what =
                "not a secret: write at least 16 letters and digits into it (openssl rand -hex 32)";
            return Err(invalid(what.to_owned()));
        }
        Ok(Some(secret.into()))
    }
}

/// Whether peers can call this; `Err`: what is wrong with it.
fn check_advertised(authority: &str) -> Result<(), String> {
    let parsed = authority.parse::<http::uri::Authority>().ok();
    let Some((host, 1..)) = parsed.as_ref().and_then(|a| Some((a.host(), a.port_u16()?))) else {
        return Err(format!("{authority:?}: a host and a port, such as \"10.0.0.7:2114\""));
    };
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    if address.is_ok_and(|address| address.is_unspecified()) {
        return Err(format!("{authority:?}: peers cannot call {host}: set the host of this node"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(settings: &Settings) -> InvalidSetting {
        settings.check().expect_err("it makes no sense")
    }

    #[test]
    fn who_can_be_reached_must_know_his_peers() {
        let elsewhere = Settings { listen: ([10, 0, 0, 7], 2114).into(), ..Settings::default() };
        assert_eq!(refused(&elsewhere).field, "listen");
        // A secret would go over the wire as it is.
        let room = tempfile::tempdir().expect("a directory");
        let file = room.path().join("secret");
        fs::write(&file, "0123456789abcdef0123456789abcdef\n").expect("written");
        let secret = Settings { secret_file: Some(file.clone()), ..elsewhere };
        assert_eq!(refused(&secret).field, "listen");
        let here = Settings { secret_file: Some(file.clone()), ..Settings::default() };
        let credentials =
            here.credentials().map_err(|error| error.to_string()).expect("it is local");
        assert_eq!(credentials.secret.as_deref(), Some("0123456789abcdef0123456789abcdef"));
        fs::write(&file, "short").expect("written");
        assert_eq!(refused(&here).field, "secret_file");
    }

    #[test]
    fn what_makes_no_sense_names_its_field() {
        let all = Settings { listen: ([0, 0, 0, 0], 2114).into(), ..Settings::default() };
        assert_eq!(refused(&all).field, "advertise");
        let at =
            |authority: &str| Settings { advertise: Some(authority.into()), ..Settings::default() };
        for wrong in ["a b", "stormkeep-0", "stormkeep-0:", "10.0.0.7", "[::1]", "a:0", "a:70000"] {
            let error = refused(&at(wrong)).to_string();
            assert!(
                error.starts_with("peers.advertise: ") && error.contains("a host and a port"),
                "{error}"
            );
        }
        for nowhere in ["0.0.0.0:2114", "[::]:2114"] {
            let error = refused(&at(nowhere)).to_string();
            assert!(
                error.starts_with("peers.advertise: ") && error.contains("peers cannot call"),
                "{error}"
            );
        }
        for right in ["stormkeep-0.stormkeep:2114", "10.0.0.7:2114", "[::1]:2114"] {
            assert_eq!(at(right).check(), Ok(()), "{right}");
        }
        let half = Settings { tls_key: Some("key.pem".into()), ..Settings::default() };
        assert_eq!(refused(&half).field, "tls_certificate");
        let none = Settings { connections: 0, ..Settings::default() };
        assert_eq!(refused(&none).field, "connections");
        assert_eq!(Settings::default().check(), Ok(()));
    }
}
