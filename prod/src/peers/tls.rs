//! TLS between nodes: every node has a certificate of the cluster's own authority.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::WebPkiServerVerifier,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

use super::InvalidSetting;

/// A node's certificate chain, and its key.
pub(super) struct Own {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

fn wrong(field: &'static str, file: &Path, what: impl ToString) -> InvalidSetting {
    InvalidSetting { field, what: format!("{}: {}", file.display(), what.to_string()) }
}

fn certificates(
    field: &'static str,
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, InvalidSetting> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let chain: Vec<CertificateDer<'static>> = read.map_err(|error| wrong(field, file, error))?;
    if chain.is_empty() {
        return Err(wrong(field, file, "there is no certificate in it"));
    }
    Ok(chain)
}

pub(super) fn own(certificate: &Path, key: &Path) -> Result<Own, InvalidSetting> {
    let chain = certificates("tls_certificate", certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong("tls_key", key, error))?;
    Ok(Own { chain, key })
}

pub(super) fn roots(authority: &Path) -> Result<Arc<RootCertStore>, InvalidSetting> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("tls_authority", authority)? {
        roots.add(certificate).map_err(|error| wrong("tls_authority", authority, error))?;
    }
    Ok(Arc::new(roots))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn misfit(error: impl ToString) -> InvalidSetting {
    let what = format!("it does not fit tls_certificate: {}", error.to_string());
    InvalidSetting { field: "tls_key", what }
}

/// What the door speaks; `mutual`: it takes only clients with a certificate of the authority.
pub(super) fn server(
    own: &Own,
    roots: &Arc<RootCertStore>,
    mutual: bool,
) -> Result<Arc<ServerConfig>, InvalidSetting> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(misfit)?;
    let builder = if mutual {
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider());
        let verifier = verifier
            .build()
            .map_err(|error| InvalidSetting { field: "tls_authority", what: error.to_string() })?;
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let mut config =
        builder.with_single_cert(own.chain.clone(), own.key.clone_key()).map_err(misfit)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// What a caller speaks; `mutual`: it shows its own certificate.
pub(super) fn client(
    own: &Own,
    roots: Arc<RootCertStore>,
    mutual: bool,
) -> Result<Arc<ClientConfig>, InvalidSetting> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider()).build();
    let verifier = verifier
        .map_err(|error| InvalidSetting { field: "tls_authority", what: error.to_string() })?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(misfit)?
        .with_webpki_verifier(verifier);
    let mut config = if mutual {
        builder.with_client_auth_cert(own.chain.clone(), own.key.clone_key()).map_err(misfit)?
    } else {
        builder.with_no_client_auth()
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}
