//! What `stormkeep doctor` asks of Cassandra, one thing after the other, each with the way out.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use scylla::{client::session::Session, value::CqlTimestamp};
use tokio::net::TcpStream;

use super::{
    connect::{self, ConnectError},
    schema::{self, SchemaError},
    settings::Settings,
};
use crate::check::Check;

/// The skew of clocks beyond which something is wrong. No promise hangs on clocks; logs and `$maxAge` do.
const SKEW_MAX: Duration = Duration::from_millis(500);
const DEFAULT_PORT: u16 = 9042;

/// Looks at all that a node needs of Cassandra. Ends at the first thing that hides the others.
pub async fn probe(settings: &Settings) -> Vec<Check> {
    let mut checks = vec![match settings.check() {
        Ok(()) => Check::good("cassandra: settings", "well-formed"),
        Err(error) => {
            Check::bad("cassandra: settings", error.to_string(), "correct the configuration")
        }
    }];
    if !checks[0].ok {
        return checks;
    }
    checks.extend(reach(settings).await);
    let session = match connect::session(settings).await {
        Ok(session) => session,
        Err(error) => {
            let (name, fix) = blame(&error);
            checks.push(Check::bad(name, error.to_string(), fix));
            return checks;
        }
    };
    let how = if settings.tls.is_some() { "over TLS" } else { "without TLS" };
    let as_whom = settings.username.as_deref().unwrap_or("nobody");
    checks.push(Check::good("cassandra: session", format!("let in as {as_whom}, {how}")));
    checks.push(nodes(&session, settings));
    checks.push(version(&session).await);
    checks.push(clock(&session).await);
    let schema = schema::check(&session, settings).await;
    let is_there = schema.is_ok();
    checks.push(match schema {
        Ok(()) => Check::good("cassandra: schema", format!("version {}", schema::VERSION)),
        Err(error) => {
            let fix = match error {
                SchemaError::Newer { .. } => "use a newer release of Stormkeep",
                _ => "run `stormkeep schema apply`",
            };
            Check::bad("cassandra: schema", error.to_string(), fix)
        }
    });
    if is_there {
        checks.push(replication(&session, settings).await);
        checks.push(permission(&session, settings).await);
    }
    checks
}

async fn reach(settings: &Settings) -> Vec<Check> {
    let name = "cassandra: contact point";
    let mut checks = Vec::new();
    for point in &settings.contact_points {
        let has_port = point.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port { point.clone() } else { format!("{point}:{DEFAULT_PORT}") };
        let reached =
            tokio::time::timeout(settings.connect_timeout(), TcpStream::connect(&address)).await;
        let fix = "is Cassandra up there, and does a firewall let us through? Else correct cassandra.contact_points";
        checks.push(match reached {
            Ok(Ok(_)) => Check::good(name, format!("{address} listens")),
            Ok(Err(error)) => Check::bad(name, format!("{address}: {error}"), fix),
            Err(_) => Check::bad(name, format!("{address}: no answer in time"), fix),
        });
    }
    checks
}

fn blame(error: &ConnectError) -> (&'static str, &'static str) {
    match error {
        ConnectError::Tls { .. } => ("cassandra: TLS", "correct cassandra.tls"),
        ConnectError::NoSuchDatacenter { .. } => {
            ("cassandra: datacenter", "correct cassandra.local_datacenter")
        }
        ConnectError::Session { what, .. } if what.contains("password") => {
            ("cassandra: session", "correct cassandra.username and cassandra.password")
        }
        ConnectError::Session { what, .. } if what.contains("certificate") => {
            ("cassandra: TLS", "correct cassandra.tls, or the certificates of the cluster")
        }
        _ => ("cassandra: session", "start Cassandra, or correct the settings that are named"),
    }
}

fn nodes(session: &Session, settings: &Settings) -> Check {
    let name = "cassandra: nodes";
    let state = session.get_cluster_state();
    let local: Vec<_> = state
        .get_nodes_info()
        .iter()
        .filter(|node| node.datacenter.as_ref() == Some(&settings.local_datacenter))
        .collect();
    let down: Vec<String> =
        local.iter().filter(|n| !n.is_connected()).map(|n| n.address.to_string()).collect();
    let known = connect::datacenters(session).join(", ");
    let what = format!(
        "{} of {} up in {:?} (datacenters: {known})",
        local.len() - down.len(),
        local.len(),
        settings.local_datacenter
    );
    if down.is_empty() {
        Check::good(name, what)
    } else {
        Check::bad(name, what, format!("start {}", down.join(", ")))
    }
}

async fn version(session: &Session) -> Check {
    let name = "cassandra: version";
    let cql = "SELECT release_version FROM system.local";
    let answer = session.query_unpaged(cql, ()).await.map_err(|error| error.to_string());
    let version = answer.and_then(|answer| {
        let rows = answer.into_rows_result().map_err(|error| error.to_string())?;
        let row = rows.first_row::<(String,)>().map_err(|error| error.to_string())?;
        Ok(row.0)
    });
    match version {
        Ok(version) => {
            let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
            let known = (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (3, 0);
            if known {
                Check::good(name, version)
            } else {
                Check::bad(name, version, "use Cassandra 4.1 or 5.0, or ScyllaDB")
            }
        }
        Err(error) => Check::bad(name, error, "grant the user SELECT on system"),
    }
}

async fn clock(session: &Session) -> Check {
    let name = "cassandra: clock";
    let fix = "let NTP set the clocks of this machine and of Cassandra's";
    let before = SystemTime::now();
    let cql = "SELECT toTimestamp(now()) FROM system.local";
    let answer = session.query_unpaged(cql, ()).await.map_err(|error| error.to_string());
    let after = SystemTime::now();
    let theirs = answer.and_then(|answer| {
        let rows = answer.into_rows_result().map_err(|error| error.to_string())?;
        let row = rows.first_row::<(CqlTimestamp,)>().map_err(|error| error.to_string())?;
        Ok(row.0.0)
    });
    let ms = |time: SystemTime| {
        time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
    };
    match theirs {
        // It was asked somewhere between the two.
        Ok(theirs) => {
            let skew_ms = (ms(before) - theirs).max(theirs - ms(after)).max(0);
            let what = format!("{skew_ms} ms apart at the least");
            if skew_ms <= SKEW_MAX.as_millis() as i64 {
                Check::good(name, what)
            } else {
                Check::bad(name, what, fix)
            }
        }
        Err(error) => Check::bad(name, error, fix),
    }
}

async fn replication(session: &Session, settings: &Settings) -> Check {
    let name = "cassandra: replication";
    let cql = "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?";
    let answer = session.query_unpaged(cql, (&settings.keyspace,)).await;
    let replication = answer.map_err(|error| error.to_string()).and_then(|answer| {
        let rows = answer.into_rows_result().map_err(|error| error.to_string())?;
        let row = rows.first_row::<(std::collections::BTreeMap<String, String>,)>();
        row.map(|row| row.0).map_err(|error| error.to_string())
    });
    let replication = match replication {
        Ok(replication) => replication,
        Err(error) => return Check::bad(name, error, "grant the user SELECT on system_schema"),
    };
    let factor = replication
        .get(&settings.local_datacenter)
        .or_else(|| replication.get("replication_factor"))
        .and_then(|factor| factor.parse::<u32>().ok());
    match factor {
        Some(factor) if factor >= 3 => Check::good(name, format!("{factor} replicas")),
        Some(factor) => Check::bad(
            name,
            format!("{factor} replicas: no quorum without every one of them"),
            "ALTER KEYSPACE to three replicas, then repair",
        ),
        None => Check::bad(
            name,
            format!("none in {:?}", settings.local_datacenter),
            "ALTER KEYSPACE so that the local datacenter has three replicas, then repair",
        ),
    }
}

async fn permission(session: &Session, settings: &Settings) -> Check {
    let name = "cassandra: writing";
    let cql = format!(
        "INSERT INTO {}.probes (name, at) VALUES ('doctor', toTimestamp(now())) USING TTL 60",
        settings.keyspace
    );
    match session.query_unpaged(cql, ()).await {
        Ok(_) => Check::good(name, "a row was written"),
        Err(error) => Check::bad(
            name,
            error.to_string(),
            format!(
                "GRANT SELECT, MODIFY on keyspace {}; are enough replicas up, and is there space on their disks?",
                settings.keyspace
            ),
        ),
    }
}
