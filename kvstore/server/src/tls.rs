//! TLS of the store: who is let in, and who that is.
//!
//! ```text
//! CA, certificate, key on disk ── read for each handshake ─► configuration ─► handshake ─► user
//! ```
//!
//! Invariants:
//! - A client gets in with a certificate of the configured CA and no other; every connection shows it anew, none resumes
//!   an earlier session.
//! - What is on disk counts: a handshake with files that do not fit together fails, rather than going on with old ones.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The files that make the store's end of TLS. They are read again for each handshake, so that replacing them needs no
/// restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The CA whose client certificates are let in, PEM.
    pub ca: PathBuf,
    /// The store's certificate with those between it and its CA, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// Why TLS cannot be set up from the files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} holds no {wanted}: put one there, in PEM form")]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
    },
    /// A certificate of the CA cannot be used.
    #[error("{path} cannot be trusted as a CA: {reason}")]
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificate and key are not a pair, or are of a kind that is not known.
    #[error("{certificate} and {key} do not work together: {reason}")]
    Pair {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// What is wrong with them.
        reason: rustls::Error,
    },
}

/// The configuration as the files have it.
#[derive(Debug)]
pub(crate) struct TlsSource {
    files: TlsFiles,
    /// What was made of which contents.
    latest: Mutex<Option<(Contents, Arc<ServerConfig>)>>,
}

#[derive(Clone, PartialEq, Eq)]
struct Contents {
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Contents")
    }
}

impl TlsSource {
    /// The configuration that `files` hold now.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(crate) fn new(files: TlsFiles) -> Result<Self, TlsError> {
        let source = Self { files, latest: Mutex::new(None) };
        source.config()?;
        Ok(source)
    }

    /// The configuration that the files hold now. Reads three small files, and thinks only if they have changed.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(crate) fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let read =
            |path: &Path| fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source });
        let TlsFiles { ca, certificate, key } = &self.files;
        let contents = Contents { ca: read(ca)?, certificate: read(certificate)?, key: read(key)? };
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, config)) = &*latest
            && *of == contents
        {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.build(&contents)?);
        *latest = Some((contents, Arc::clone(&config)));
        Ok(config)
    }

    fn build(&self, contents: &Contents) -> Result<ServerConfig, TlsError> {
        let TlsFiles { ca, certificate, key } = &self.files;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for root in certificates(ca, &contents.ca)? {
            roots.add(root).map_err(|error| TlsError::Ca { path: ca.clone(), reason: error.to_string() })?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| TlsError::Ca { path: ca.clone(), reason: error.to_string() })?;
        let chain = certificates(certificate, &contents.certificate)?;
        let private_key = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|_| TlsError::Content { path: key.clone(), wanted: "private key" })?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring does TLS 1.2 and 1.3")
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, private_key)
            .map_err(|reason| TlsError::Pair {
                certificate: certificate.clone(),
                key: key.clone(),
                reason,
            })?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Who resumes a session shows no certificate, and would outlive its own.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(TlsError::Content { path: path.to_owned(), wanted: "certificate" }),
    }
}

/// The user that a verified certificate names: its common name, if it has exactly one.
pub(crate) fn user(leaf: &CertificateDer<'_>) -> Option<Arc<str>> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?;
    (names.next().is_none() && !name.is_empty()).then(|| name.into())
}
