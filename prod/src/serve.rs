//! `stormkeep serve`: one machine, or one node of a cluster, until it is told to stop.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use stormkeep_core::env::Env;
use tokio::{net::TcpListener, sync::watch};
use tokio_rustls::TlsAcceptor;
use tracing::{error, info};

use crate::{
    api::{Api, listen},
    cassandra::StoreMetrics,
    cluster::{self, Member, StartError},
    config::{Config, Role},
    disk::{OpenError, State},
    embedded::Machine,
    metrics::Metrics,
    push::Handlers,
    service::Service,
    subscription,
};

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its files.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its settings.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Its address.
    #[error("{name}: {address}: {error}: is another server running there?")]
    Listen {
        /// The setting.
        name: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        error: io::Error,
    },
    /// Its certificate or key.
    #[error("{name}: {file}: {what}")]
    Tls {
        /// The setting.
        name: &'static str,
        /// The file.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// Its files could not be closed.
    #[error("the files could not be closed: {0}")]
    Close(io::Error),
    /// The operating system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Serves until SIGTERM or SIGINT; then finishes what is under way and closes the files, or gives the shards back.
pub async fn run(config: Config) -> Result<(), ServeError> {
    let tls =
        config.tls.as_ref().map(|(certificate, key)| acceptor(certificate, key)).transpose()?;
    let listener = bind("listen", config.listen).await?;
    // The port may have been drawn by the operating system.
    let config = Config { listen: listener.local_addr()?, ..config };
    match config.cluster.clone() {
        Some(cluster) => node(&config, cluster, listener, tls).await,
        None => machine(&config, listener, tls).await,
    }
}

async fn bind(name: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| ServeError::Listen { name, address, error })
}

/// One machine, on its disk.
async fn machine(
    config: &Config,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
) -> Result<(), ServeError> {
    let handlers = Handlers::new(config.push.clone());
    let machine = Machine::with(&config.data, &config.disk, handlers)?;
    let shards = machine.disk().directory.shards().len();
    announce(config, &format!("data      {} (shards: {shards})", config.data.display()));
    let metrics = Metrics::new();
    of_machine(&metrics, &machine);
    of_handlers(&metrics, machine.handlers());
    subscription::keep(machine.service(), config.subscriptions.clone());
    offer(config, listener, tls, machine.service(), &metrics).await;
    machine.stop().await.map_err(ServeError::Close)?;
    info!("stopped");
    Ok(())
}

/// One node of a cluster.
async fn node(
    config: &Config,
    mut cluster: cluster::Settings,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
) -> Result<(), ServeError> {
    let peers = bind("peers.listen", cluster.peers.listen).await?;
    cluster.peers.listen = peers.local_addr()?;
    let member = Member::start(&cluster).await?;
    let cluster::Settings { node, role, kinesis, cassandra, peers: calls, .. } = &cluster;
    let does = match role {
        Role::Node => "owns shards",
        Role::Worker => "delivers to subscriptions",
        Role::Both => "owns shards and delivers to subscriptions",
    };
    announce(
        config,
        &format!(
            "node      {node}, called at {}; {does}\n  log       kinesis, stream {}\n  store     cassandra, keyspace {}",
            calls.advertised(),
            kinesis.stream,
            cassandra.keyspace
        ),
    );
    let metrics = Metrics::new();
    of_member(&metrics, &member);
    of_handlers(&metrics, member.handlers());
    subscription::keep(member.service(), config.subscriptions.clone());
    // Peers are answered until the shards are given back.
    let (closing, mut closed) = watch::channel(false);
    let door = member.door();
    let bounds = listen::Bounds { tls: door.tls(), ..config.bounds.clone() };
    let wait = async move {
        let _ = closed.wait_for(|closed| *closed).await;
    };
    let calls = listen::serve(peers, door.router(), bounds, listen::Connections::default(), wait);
    let calls = tokio::spawn(calls);
    offer(config, listener, tls, member.service(), &metrics).await;
    member.stop(config.bounds.finish).await;
    closing.send_replace(true);
    let _ = calls.await;
    info!("stopped");
    Ok(())
}

/// Serves clients until told to stop.
async fn offer<E: Env>(
    config: &Config,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    service: &Service<E>,
    metrics: &Metrics,
) {
    let connections = listen::Connections::default();
    let open = connections.clone();
    let read = move || open.load(Ordering::Relaxed) as f64;
    metrics.gauge("stormkeep_connections", "connections that are open", read);
    let api = Api::with(service.clone(), config.http.clone(), metrics);
    let (closing, mut closed) = watch::channel(false);
    let stopping = service.clone();
    tokio::spawn(async move {
        told_to_stop().await;
        info!("stopping: finishing what is under way");
        // Whoever asks is told to go elsewhere, and followers to follow again.
        stopping.close();
        closing.send_replace(true);
    });
    let wait = async move {
        let _ = closed.wait_for(|closed| *closed).await;
    };
    let bounds = listen::Bounds { tls, ..config.bounds.clone() };
    listen::serve(listener, api, bounds, connections, wait).await;
}

/// The driver's figures.
fn of_member(metrics: &Metrics, member: &Member) {
    type Read = fn(&StoreMetrics) -> f64;
    let figures: [(&'static str, &'static str, Read); 7] = [
        ("stormkeep_cassandra_connected", "whether the store is connected", |m| {
            f64::from(u8::from(m.connected))
        }),
        ("stormkeep_cassandra_connections", "connections to Cassandra", |m| m.connections as f64),
        ("stormkeep_cassandra_in_flight", "requests under way", |m| m.in_flight as f64),
        ("stormkeep_cassandra_requests", "requests so far", |m| m.requests as f64),
        ("stormkeep_cassandra_errors", "requests that failed so far", |m| m.errors as f64),
        ("stormkeep_cassandra_latency_p50_ms", "median time of a request", |m| {
            m.latency_p50_ms as f64
        }),
        ("stormkeep_cassandra_latency_p99_ms", "time of all but a hundredth", |m| {
            m.latency_p99_ms as f64
        }),
    ];
    for (name, help, figure) in figures {
        let store = Arc::downgrade(member.store());
        let read = move || store.upgrade().map_or(0.0, |store| figure(&store.metrics()));
        metrics.gauge(name, help, read);
    }
}

/// What is pushed.
fn of_handlers(metrics: &Metrics, handlers: &Handlers) {
    let handlers = handlers.clone();
    metrics.section(move |text| handlers.counts().render(text));
}

/// The figures of its files.
fn of_machine(metrics: &Metrics, machine: &Machine) {
    // Whoever counts must not keep the files open.
    let log = Arc::downgrade(&machine.disk().log);
    let read = move || log.upgrade().map_or(0.0, |log| log.end() as f64);
    metrics.gauge("stormkeep_log_bytes", "bytes of the log from its beginning", read);
    let store = Arc::downgrade(&machine.disk().store);
    let read = move || store.upgrade().map_or(0.0, |store| store.bytes() as f64);
    metrics.gauge("stormkeep_store_bytes", "bytes of the store on disk", read);
    let health = machine.disk().health.clone();
    let read = move || match health.state() {
        State::Well => 0.0,
        State::NearlyFull(_) => 1.0,
        State::Failed(_) => 2.0,
    };
    let help = "the files: 0 well, 1 nearly full (appends are refused), 2 failed";
    metrics.gauge("stormkeep_disk_state", help, read);
}

/// Says where it listens, what it serves, and a first command.
fn announce(config: &Config, what: &str) {
    let address = config.listen;
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let tls = if scheme == "https" { "true" } else { "false" };
    println!("stormkeep {} listens at {scheme}://{address}", env!("CARGO_PKG_VERSION"));
    println!("  {what}");
    if !config.set.is_empty() {
        println!("  settings  {}", config.set);
    }
    println!("  clients   kurrentdb://{address}?tls={tls}");
    println!(
        "  try       curl -i {scheme}://{address}/streams/hello -d '{{\"type\":\"said\",\"data\":{{\"words\":\"hello\"}}}}' -H 'content-type: application/json'"
    );
    println!("            curl {scheme}://{address}/streams/hello");
    if scheme == "http" {
        println!(
            "            stormkeep append hello --type said --data '{{\"words\":\"hello\"}}' --url http://{address}"
        );
    }
}

async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        error!("signals cannot be received: the server has to be killed");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, ServeError> {
    let wrong = |name, file: &Path, what: String| ServeError::Tls {
        name,
        file: file.display().to_string(),
        what,
    };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|e| wrong("tls_certificate", certificate, e.to_string()))?;
    if chain.is_empty() {
        return Err(wrong("tls_certificate", certificate, "there is no certificate in it".into()));
    }
    let key_der = PrivateKeyDer::from_pem_file(key);
    let key_der = key_der.map_err(|e| wrong("tls_key", key, e.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|b| b.with_no_client_auth().with_single_cert(chain, key_der))
        .map_err(|e| wrong("tls_key", key, format!("it does not fit the certificate: {e}")))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
