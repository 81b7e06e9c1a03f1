//! TLS of the store: who is let in, and who that is.
//!
//! ```text
//! CA, certificate, key on disk ── read for each handshake ─► configuration ─► handshake ─► user
//! ```
//!
//! Invariants:
//! - Where certificates are asked for, a client gets in with one of the configured CA and no other; every connection
//!   shows it anew, none resumes an earlier session.
//! - What is on disk counts: a handshake with files that do not fit together fails, rather than going on with old ones.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::tls_settings::{ClientCertificates, ServerTls};

/// The files of an end of TLS that shows a certificate and wants one. They are read again for each handshake, so that
/// replacing them needs no restart.
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
    settings: ServerTls,
    /// What was made of which contents.
    latest: Mutex<Option<(Contents, Arc<ServerConfig>)>>,
}

#[derive(Clone, PartialEq, Eq)]
struct Contents {
    ca: Option<Vec<u8>>,
    revoked: Option<Vec<u8>>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Contents")
    }
}

impl TlsSource {
    /// The configuration that the files of `settings` hold now.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(crate) fn new(settings: ServerTls) -> Result<Self, TlsError> {
        let source = Self { settings, latest: Mutex::new(None) };
        source.config()?;
        Ok(source)
    }

    /// Whether the common name of a client's certificate names its user.
    pub(crate) fn names_user(&self) -> bool {
        matches!(self.settings.clients, ClientCertificates::Required { names_user: true, .. })
    }

    /// The configuration that the files hold now. Reads a few small files, and thinks only if they have changed.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(crate) fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let read = |path: &PathBuf| {
            fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
        };
        let ServerTls { certificate, key, clients, .. } = &self.settings;
        let (ca, revoked) = match clients {
            ClientCertificates::NotAsked => (None, None),
            ClientCertificates::Required { ca, revoked, .. } => (Some(ca), revoked.as_ref()),
        };
        let contents = Contents {
            ca: ca.map(read).transpose()?,
            revoked: revoked.map(read).transpose()?,
            certificate: read(certificate)?,
            key: read(key)?,
        };
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
        let ServerTls { certificate, key, clients, versions, cipher_suites } = &self.settings;
        let mut provider = rustls::crypto::ring::default_provider();
        if !cipher_suites.is_empty() {
            // As in etcd: the choice is one among those of TLS 1.2, all of TLS 1.3 are good.
            provider
                .cipher_suites
                .retain(|suite| suite.tls13().is_some() || cipher_suites.contains(&suite.suite()));
        }
        let provider = Arc::new(provider);
        let verifier = verifier(clients, contents, &provider)?;
        let chain = certificates(certificate, &contents.certificate)?;
        let private_key = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|_| TlsError::Content { path: key.clone(), wanted: "private key" })?;
        let pair = |reason| TlsError::Pair { certificate: certificate.clone(), key: key.clone(), reason };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions.supported())
            .map_err(pair)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, private_key)
            .map_err(pair)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Who resumes a session shows no certificate, and would outlive its own.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

fn verifier(
    clients: &ClientCertificates,
    contents: &Contents,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let ClientCertificates::Required { ca, revoked, .. } = clients else {
        return Ok(WebPkiClientVerifier::no_client_auth());
    };
    let untrusted =
        |reason: &dyn std::fmt::Display| TlsError::Ca { path: ca.clone(), reason: reason.to_string() };
    let mut roots = RootCertStore::empty();
    for root in certificates(ca, contents.ca.as_deref().unwrap_or_default())? {
        roots.add(root).map_err(|error| untrusted(&error))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if let (Some(path), Some(list)) = (revoked, &contents.revoked) {
        let lists = revocation_lists(list)
            .ok_or_else(|| TlsError::Content { path: path.clone(), wanted: "revocation list" })?;
        // Of whom the lists say nothing is not revoked, as in etcd.
        builder =
            builder.with_crls(lists).allow_unknown_revocation_status().only_check_end_entity_revocation();
    }
    builder.build().map_err(|error| untrusted(&error))
}

/// The lists of a file: one without PEM around it, which is what etcd takes, or any number with.
fn revocation_lists(bytes: &[u8]) -> Option<Vec<CertificateRevocationListDer<'static>>> {
    if !bytes.trim_ascii_start().starts_with(b"-----BEGIN") {
        return (!bytes.is_empty()).then(|| vec![CertificateRevocationListDer::from(bytes.to_vec())]);
    }
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(bytes).collect();
    found.ok().filter(|found| !found.is_empty())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_names_a_user_and_a_spoiled_one_does_no_harm() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "alice");
        let der = params.self_signed(&key).unwrap().der().to_vec();
        assert_eq!(user(&CertificateDer::from(&der[..])).as_deref(), Some("alice"));
        for seed in 0..20_000 {
            let mut dice = fastrand::Rng::with_seed(seed);
            let mut spoiled = der.clone();
            for _ in 0..dice.u8(1..4) {
                let at = dice.usize(..spoiled.len());
                spoiled[at] = dice.u8(..);
            }
            if dice.u8(..4) == 0 {
                spoiled.truncate(dice.usize(..=spoiled.len()));
            }
            let named = user(&CertificateDer::from(&spoiled[..]));
            assert!(named.is_none_or(|name| !name.is_empty()), "seed {seed}");
        }
    }
}
