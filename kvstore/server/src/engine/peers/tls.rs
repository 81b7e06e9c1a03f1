//! The end of TLS of a member that connects to another.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::tls::{TlsError, TlsFiles};

/// What the files make of a connection: the other one has to show a certificate of their CA that names the host of its
/// URL, and is shown this member's own. Blocks.
///
/// # Errors
/// [`TlsError`].
pub(super) fn client_config(files: &TlsFiles) -> Result<ClientConfig, TlsError> {
    let TlsFiles { ca, certificate, key } = files;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for root in certificates(ca)? {
        roots.add(root).map_err(|error| TlsError::Ca { path: ca.clone(), reason: error.to_string() })?;
    }
    let private_key = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|_| TlsError::Content { path: key.clone(), wanted: "private key" })?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring does TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(certificate)?, private_key)
        .map_err(|reason| TlsError::Pair { certificate: certificate.clone(), key: key.clone(), reason })?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Each connection shows certificates, those of that moment.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(TlsError::Content { path: path.to_owned(), wanted: "certificate" }),
    }
}
