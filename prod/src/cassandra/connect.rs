//! The connection to a cluster: made when it is first needed, and again until it is there.
//!
//! Once there, the driver keeps it: it finds nodes that come, leaves out those that go, and connects again to those that
//! come back, even if all of them were away. A cluster whose schema is not ours counts as not there, and why is told.

use std::{
    fs::File,
    io::{self, BufReader},
    num::NonZeroUsize,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use scylla::{
    client::{
        PoolSize,
        execution_profile::ExecutionProfile,
        session::{Session, TlsContext},
        session_builder::SessionBuilder,
    },
    errors::{NewSessionError, PrepareError},
    policies::{load_balancing::DefaultPolicy, retry::FallthroughRetryPolicy},
    statement::{Consistency, SerialConsistency},
};
use stormkeep_core::env::StoreError;

use super::{
    schema::{self, SchemaError},
    settings::{InvalidSettings, Quorum, Settings, Tls},
    statements::Statements,
};

/// The time between two attempts to connect: whoever comes in between is answered by the last one's failure.
const PAUSE: Duration = Duration::from_millis(1000);
/// A connection that is silent for this long, and for this long again after it was asked, is given up.
const KEEPALIVE: Duration = Duration::from_millis(1000);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A setting cannot be.
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
    /// A certificate or key cannot be read.
    #[error("cassandra.tls.{field}: {path}: {what}")]
    Tls {
        /// The setting.
        field: &'static str,
        /// The file.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// No node can be reached, or none lets us in.
    #[error("cassandra.contact_points: {points}: {what}")]
    Session {
        /// The nodes that were asked.
        points: String,
        /// What was answered, and the way out.
        what: String,
    },
    /// No node is in the local datacenter.
    #[error(
        "cassandra.local_datacenter: the cluster has no {wanted:?}, but {known}: name the one that this node is in"
    )]
    NoSuchDatacenter {
        /// The setting.
        wanted: String,
        /// The datacenters that there are.
        known: String,
    },
    /// The keyspace is not as it should be.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A statement cannot be prepared.
    #[error("a statement cannot be prepared: {0}")]
    Prepare(Box<PrepareError>),
}

/// A session and what was prepared in it.
pub(super) struct Connected {
    pub(super) session: Session,
    pub(super) statements: Statements,
}

/// A session for a schema change or a look at the cluster: nothing is checked but that the datacenter is there.
pub(super) async fn session(settings: &Settings) -> Result<Session, ConnectError> {
    settings.check()?;
    let policy = DefaultPolicy::builder()
        .prefer_datacenter(settings.local_datacenter.clone())
        .token_aware(true)
        .permit_dc_failover(false)
        .build();
    let (consistency, serial) = match settings.quorum {
        Quorum::Datacenter => (Consistency::LocalQuorum, SerialConsistency::LocalSerial),
        Quorum::Cluster => (Consistency::Quorum, SerialConsistency::Serial),
    };
    // A retry by the driver could turn *unknown* into *no*: nothing is retried unless its statement says so.
    let profile = ExecutionProfile::builder()
        .consistency(consistency)
        .serial_consistency(Some(serial))
        .load_balancing_policy(policy)
        .retry_policy(Arc::new(FallthroughRetryPolicy::new()))
        .speculative_execution_policy(None)
        .request_timeout(Some(settings.request_timeout()))
        .build();
    let connections = NonZeroUsize::new(settings.connections_per_host).unwrap_or(NonZeroUsize::MIN);
    let mut builder = SessionBuilder::new()
        .known_nodes(&settings.contact_points)
        .default_execution_profile_handle(profile.into_handle())
        .connection_timeout(settings.connect_timeout())
        .metadata_request_clientside_timeout(settings.request_timeout())
        .pool_size(PoolSize::PerHost(connections))
        .keepalive_interval(KEEPALIVE)
        .keepalive_timeout(KEEPALIVE)
        .tcp_nodelay(true)
        .keyspaces_to_fetch([settings.keyspace.clone()])
        .tls_context(settings.tls.as_ref().map(tls).transpose()?);
    if let (Some(user), Some(password)) = (&settings.username, &settings.password) {
        builder = builder.user(user, &password.0);
    }
    // The driver asks one contact point after the other: all of them together have this long.
    let patience = settings.connect_timeout() * 2;
    let session = tokio::time::timeout(patience, builder.build()).await;
    let failed = |what| {
        let points = settings.contact_points.join(", ");
        ConnectError::Session { points, what }
    };
    let session = match session {
        Ok(Ok(session)) => session,
        Ok(Err(error)) => return Err(failed(explain(&error))),
        Err(_) => return Err(failed(format!("no answer within {} ms", patience.as_millis()))),
    };
    has_datacenter(&session, settings)?;
    Ok(session)
}

/// What a failure to connect means, and the way out.
fn explain(error: &NewSessionError) -> String {
    let text = error.to_string();
    let hints = [
        ("Authentication failed", "username or password is wrong"),
        ("Authentication is required", "the cluster wants a username and a password"),
        ("UnknownIssuer", "tls.ca does not hold the authority of the cluster's certificate"),
        ("not valid for name", "the node's certificate does not name its address"),
        ("NotValidForName", "the node's certificate does not name its address"),
        ("resolve", "the host's name is not known"),
        ("onnection refused", "nothing listens there: is Cassandra up?"),
        ("timeout", "no answer: is it the right address, and does a firewall let it through?"),
    ];
    let hint = hints.iter().find(|(sign, _)| text.contains(sign)).map(|(_, hint)| *hint);
    hint.map_or_else(|| text.clone(), |hint| format!("{hint} ({text})"))
}

fn has_datacenter(session: &Session, settings: &Settings) -> Result<(), ConnectError> {
    let known = datacenters(session);
    if known.contains(&settings.local_datacenter) {
        return Ok(());
    }
    let wanted = settings.local_datacenter.clone();
    Err(ConnectError::NoSuchDatacenter { wanted, known: known.join(", ") })
}

/// The datacenters of a cluster.
pub(super) fn datacenters(session: &Session) -> Vec<String> {
    let state = session.get_cluster_state();
    let mut known: Vec<String> =
        state.get_nodes_info().iter().filter_map(|node| node.datacenter.clone()).collect();
    known.sort();
    known.dedup();
    known
}

fn tls(tls: &Tls) -> Result<TlsContext, ConnectError> {
    let failed = |field, path: &Path, what: String| {
        let path = path.display().to_string();
        ConnectError::Tls { field, path, what }
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(&tls.ca).map_err(|what| failed("ca", &tls.ca, what))? {
        roots.add(authority).map_err(|error| failed("ca", &tls.ca, error.to_string()))?;
    }
    let config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| failed("ca", &tls.ca, error.to_string()))?
            .with_root_certificates(roots);
    let config = match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(path)) => {
            let chain = certificates(certificate)
                .map_err(|what| failed("certificate", certificate, what))?;
            let key = PrivateKeyDer::from_pem_file(path)
                .map_err(|error| failed("key", path, error.to_string()))?;
            config
                .with_client_auth_cert(chain, key)
                .map_err(|error| failed("key", path, error.to_string()))?
        }
        _ => config.with_no_client_auth(),
    };
    Ok(TlsContext::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let file = File::open(path).map_err(|error: io::Error| error.to_string())?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_reader_iter(BufReader::new(file)).collect();
    let found = found.map_err(|error| error.to_string())?;
    if found.is_empty() { Err("no certificate in it".into()) } else { Ok(found) }
}

/// How the connection is.
#[derive(Default)]
struct State {
    connected: Option<Arc<Connected>>,
    /// When the last attempt failed, and why.
    failed: Option<(Instant, String)>,
}

/// A connection that is made when it is needed.
pub(super) struct Link {
    pub(super) settings: Settings,
    state: Mutex<State>,
    /// Held by who connects: one at a time.
    turn: tokio::sync::Mutex<()>,
}

impl Link {
    pub(super) fn new(settings: Settings) -> Self {
        Link { settings, state: Mutex::default(), turn: tokio::sync::Mutex::new(()) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, if it is there.
    pub(super) fn current(&self) -> Option<Arc<Connected>> {
        self.state().connected.clone()
    }

    /// Why there is no connection; `None`: there is one, or nobody needed it yet.
    pub(super) fn failure(&self) -> Option<String> {
        self.state().failed.as_ref().map(|(_, why)| why.clone())
    }

    /// The connection; made now, unless an attempt has failed just before.
    pub(super) async fn get(&self) -> Result<Arc<Connected>, StoreError> {
        if let Some(connected) = self.current() {
            return Ok(connected);
        }
        let _turn = self.turn.lock().await;
        if let Some(connected) = self.current() {
            return Ok(connected);
        }
        if self.state().failed.as_ref().is_some_and(|(at, _)| at.elapsed() < PAUSE) {
            return Err(StoreError::Unavailable);
        }
        self.connect().await.map_err(|_| StoreError::Unavailable)
    }

    /// Connects, or says why not.
    pub(super) async fn connect(&self) -> Result<Arc<Connected>, ConnectError> {
        let made = self.make().await;
        let mut state = self.state();
        match made {
            Ok(connected) => {
                tracing::info!(keyspace = self.settings.keyspace, "connected to Cassandra");
                let connected = Arc::new(connected);
                state.connected = Some(connected.clone());
                state.failed = None;
                Ok(connected)
            }
            Err(error) => {
                let why = error.to_string();
                if state.failed.as_ref().is_none_or(|(_, before)| *before != why) {
                    tracing::error!("no connection to Cassandra: {why}");
                }
                state.failed = Some((Instant::now(), why));
                Err(error)
            }
        }
    }

    async fn make(&self) -> Result<Connected, ConnectError> {
        let session = session(&self.settings).await?;
        schema::check(&session, &self.settings).await?;
        let statements = Statements::prepare(&session, &self.settings).await;
        let statements = statements.map_err(|error| ConnectError::Prepare(Box::new(error)))?;
        Ok(Connected { session, statements })
    }
}
