//! `stormkeep serve`: one machine, until it is told to stop.

use std::{
    io,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{net::TcpListener, sync::watch};
use tokio_rustls::TlsAcceptor;
use tracing::{error, info};

use crate::{
    api::{self, listen},
    config::Config,
    disk::{OpenError, State},
    embedded::Machine,
    metrics::Metrics,
};

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its files.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its address.
    #[error("listen: {address}: {error}: is another server running there?")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
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

/// Serves until SIGTERM or SIGINT; then finishes what is under way and closes the files.
pub async fn run(config: Config) -> Result<(), ServeError> {
    let tls =
        config.tls.as_ref().map(|(certificate, key)| acceptor(certificate, key)).transpose()?;
    let listener = TcpListener::bind(config.listen).await;
    let listener =
        listener.map_err(|error| ServeError::Listen { address: config.listen, error })?;
    // The port may have been drawn by the operating system.
    let config = Config { listen: listener.local_addr()?, ..config };
    let machine = Machine::start(&config.data, &config.disk)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    announce(&config, scheme, machine.disk().directory.shards().len());
    let connections = listen::Connections::default();
    let metrics = metrics(&machine, &connections);
    let router = api::router_with(machine.service().clone(), config.http.clone(), &metrics);
    let (closing, closed) = watch::channel(false);
    let service = machine.service().clone();
    tokio::spawn(async move {
        told_to_stop().await;
        info!("stopping: finishing what is under way");
        // Whoever asks is told to go elsewhere, and followers to follow again.
        service.close();
        closing.send_replace(true);
    });
    let mut closed = closed;
    let wait = async move {
        let _ = closed.wait_for(|closed| *closed).await;
    };
    let bounds = listen::Bounds { tls, ..config.bounds };
    listen::serve(listener, router, bounds, connections, wait).await;
    machine.stop().await.map_err(ServeError::Close)?;
    info!("stopped");
    Ok(())
}

/// What is counted, the machine's own figures included.
fn metrics(machine: &Machine, connections: &listen::Connections) -> Metrics {
    let metrics = Metrics::new();
    let open = connections.clone();
    let read = move || open.load(Ordering::Relaxed) as f64;
    metrics.gauge("stormkeep_connections", "connections that are open", read);
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
    metrics
}

fn announce(config: &Config, scheme: &str, shards: usize) {
    let address = config.listen;
    let tls = if scheme == "https" { "true" } else { "false" };
    println!("stormkeep {} listens at {scheme}://{address}", env!("CARGO_PKG_VERSION"));
    println!("  data      {} (shards: {shards})", config.data.display());
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
