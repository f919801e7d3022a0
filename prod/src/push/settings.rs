//! What an operator may set about handlers: the tables `[lambda]` and `[webhook]` of the configuration file. Nothing of it has to
//! be set. How long a handler may take is a setting of its group: the message timeout.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The settings of both kinds of handlers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The table `[lambda]`.
    pub lambda: LambdaSettings,
    /// The table `[webhook]`.
    pub webhook: WebhookSettings,
}

/// How to reach Lambda. The names of the fields are those of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LambdaSettings {
    /// The AWS region of functions that are given by their names; an ARN says its own. Not set: that of the environment, of the
    /// profile, or of the machine.
    pub region: Option<String>,
    /// Where the service is, if not at AWS: `http://127.0.0.1:3001` for a stand-in.
    pub endpoint: Option<String>,
    /// The profile of the credentials files to use, whatever the environment says. Not set: the usual chain (environment,
    /// profile, web identity, ECS, the machine's role).
    pub profile: Option<String>,
    /// How long a connection may take to be made.
    pub connect_timeout_ms: u64,
    /// Connections that are kept open without use.
    pub idle_connections_max: usize,
}

impl Default for LambdaSettings {
    fn default() -> Self {
        LambdaSettings {
            region: None,
            endpoint: None,
            profile: None,
            connect_timeout_ms: 2000,
            idle_connections_max: 64,
        }
    }
}

/// How to call webhooks. The names of the fields are those of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookSettings {
    /// A PEM file with the authorities that certificates of webhooks come from. Not set: those that this machine trusts.
    pub tls_authority: Option<PathBuf>,
    /// How long a connection may take to be made.
    pub connect_timeout_ms: u64,
    /// Connections to each host that are kept open without use.
    pub idle_connections_max: usize,
    /// Bytes of a request's body at the most.
    pub body_bytes_max: usize,
    /// Bytes of an answer's body at the most.
    pub answer_bytes_max: usize,
}

impl Default for WebhookSettings {
    fn default() -> Self {
        WebhookSettings {
            tls_authority: None,
            connect_timeout_ms: 2000,
            idle_connections_max: 16,
            body_bytes_max: 6 * 1024 * 1024,
            answer_bytes_max: 1024 * 1024,
        }
    }
}

/// A setting makes no sense. The text names it and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{table}.{field}: {what}")]
pub struct InvalidSetting {
    /// Its table.
    pub table: &'static str,
    /// Its name in the table.
    pub field: &'static str,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl Settings {
    /// Checks what can be checked without calling anybody.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        let Settings { lambda, webhook } = self;
        if let Some(endpoint) = &lambda.endpoint
            && !endpoint.starts_with("http://")
            && !endpoint.starts_with("https://")
        {
            let what = format!("{endpoint:?}: begin it with https:// (or http:// for a stand-in)");
            return Err(InvalidSetting { table: "lambda", field: "endpoint", what });
        }
        let number = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
        for (table, field, value, least) in [
            ("lambda", "connect_timeout_ms", lambda.connect_timeout_ms, 1),
            ("webhook", "connect_timeout_ms", webhook.connect_timeout_ms, 1),
            ("webhook", "body_bytes_max", number(webhook.body_bytes_max), 65_536),
            ("webhook", "answer_bytes_max", number(webhook.answer_bytes_max), 1),
        ] {
            if value < least {
                let what = format!("{value}: it must be {least} at least");
                return Err(InvalidSetting { table, field, what });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_make_sense_and_what_does_not_names_its_field() {
        assert_eq!(Settings::default().check(), Ok(()));
        let lambda = LambdaSettings { endpoint: Some("127.0.0.1:1".into()), ..Default::default() };
        let error = Settings { lambda, ..Settings::default() }.check().expect_err("no scheme");
        assert!(
            error.to_string().starts_with("lambda.endpoint: \"127.0.0.1:1\": begin it"),
            "{error}"
        );
        let webhook = WebhookSettings { body_bytes_max: 5, ..Default::default() };
        let error = Settings { webhook, ..Settings::default() }.check().expect_err("too small");
        assert_eq!(error.to_string(), "webhook.body_bytes_max: 5: it must be 65536 at least");
    }
}
