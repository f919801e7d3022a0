//! The certificate that a server shows.

use std::{path::Path, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;

use super::ConfigError;

/// Reads a certificate and its key, for HTTP/2 and HTTP/1.1.
pub(super) fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, ConfigError> {
    let fails = |name: &str, path: &Path, what: String| {
        ConfigError::new(name, format!("{}: {what}", path.display()))
    };
    let bad_certificate = |what: String| fails("tls.certificate", certificate, what);
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| bad_certificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(bad_certificate("there is no certificate in it".into()));
    }
    let secret = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| fails("tls.key", key, error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret))
        .map_err(|error| bad_certificate(error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
