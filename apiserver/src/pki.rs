//! The cluster's own certificate authority, and what it issues.
//!
//! ```text
//! <data>/pki/  ca.key ──signs──► server.crt  (server.key)   the store's face to the outside
//!              ca.crt            admin.crt   (admin.key)    the apiserver's own way into its store
//!                 │
//!                 ├── Pki::issue_client ─► files for an agent        (subcommand `certificate`)
//!                 └── Pki::sign_request ─► certificate for a peer    (the peer keeps its key)
//! ```
//!
//! - A key is written once and never leaves its file; it is readable to its owner alone and is never logged.
//! - A certificate is renewed for the same key, so that whoever reads both files in between finds a pair.
//! - Files appear whole: written beside, synced, renamed. Whoever makes one holds the folder's lock, so that two
//!   processes agree on one authority.
//! - Subject and extensions are chosen here. A request only brings its public key.
//! - Time is an argument.

mod certificate;
mod files;
mod issue;
mod request;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rcgen::{Issuer, KeyPair};

pub use certificate::{Certificate, CertificateError};
pub use files::FileError;
pub(crate) use files::{create_private_folder, read_text, write_private};
pub use issue::{ADMIN_VALIDITY, PEER_VALIDITY};
pub use request::{KeyRequest, RequestError};

use crate::users::User;
use landbridge_kvstore_schema::ClusterName;

/// The certificate authority of a cluster, with the key that signs.
pub struct Pki {
    folder: PathBuf,
    cluster: ClusterName,
    ca: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// Where a certificate, its key and the authority that it belongs to are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Certificate of the authority, PEM.
    pub ca: PathBuf,
    /// Certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, PKCS #8 in PEM, readable to its owner alone.
    pub key: PathBuf,
}

/// A certificate and its key, as text to hand over.
pub struct Credentials {
    /// Certificate of the authority, PEM.
    pub ca: String,
    /// Certificate, PEM.
    pub certificate: String,
    /// Its key, PKCS #8 in PEM.
    pub key: String,
}

impl Pki {
    /// Opens the authority in `folder`, and makes one at the first time.
    ///
    /// # Errors
    /// [`PkiError`] if files cannot be read or written, do not belong together, or are of another cluster.
    pub fn open(folder: &Path, cluster: &ClusterName, now: SystemTime) -> Result<Self, PkiError> {
        create_private_folder(folder)?;
        let _lock = files::lock(folder)?;
        let (ca_path, key_path) = (folder.join("ca.crt"), folder.join("ca.key"));
        // The certificate is written last: without it, no authority was ever used.
        if !ca_path.exists() {
            if folder.join("server.crt").exists() {
                return Err(PkiError::Lost { path: ca_path });
            }
            let key = KeyPair::generate()?;
            let certificate = issue::authority(cluster, now)?.self_signed(&key)?;
            write_private(&key_path, key.serialize_pem().as_bytes())?;
            write_private(&ca_path, certificate.pem().as_bytes())?;
        }
        Self::load(folder, cluster, now)
    }

    /// Opens the authority in `folder`, which has to be there.
    ///
    /// # Errors
    /// [`PkiError`] as for [`Pki::open`].
    pub fn load(folder: &Path, cluster: &ClusterName, now: SystemTime) -> Result<Self, PkiError> {
        let (ca_path, key_path) = (folder.join("ca.crt"), folder.join("ca.key"));
        let key = KeyPair::from_pem(&read_text(&key_path)?)
            .map_err(|_| PkiError::Unreadable { path: key_path.clone() })?;
        let unusable = |source| PkiError::Unusable { path: ca_path.clone(), source };
        let ca = Certificate::from_pem(&read_text(&ca_path)?).map_err(unusable)?;
        ca.check_authority(now).map_err(unusable)?;
        let expected = issue::authority_name(cluster);
        if ca.common_name() != Some(&expected) {
            let found = ca.common_name().unwrap_or_default().to_owned();
            return Err(PkiError::OtherCluster { path: ca_path, found, expected });
        }
        if !ca.has_key(&key) {
            return Err(PkiError::Mismatch { certificate: ca_path, key: key_path });
        }
        let issuer = Issuer::from_ca_cert_pem(ca.pem(), key)?;
        Ok(Self { folder: folder.to_owned(), cluster: cluster.clone(), ca, issuer })
    }

    /// The authority's certificate.
    pub const fn ca(&self) -> &Certificate {
        &self.ca
    }

    /// The certificate that the store shows, valid for `hosts`: made, or renewed if two thirds of its life are over or
    /// the hosts are others.
    ///
    /// # Errors
    /// [`PkiError`].
    pub fn server(&self, hosts: &[String], now: SystemTime) -> Result<CertificateFiles, PkiError> {
        let hosts = issue::server_hosts(&self.cluster, hosts);
        self.ensure("server", &hosts, now, || issue::server(&self.cluster, &hosts, now))
    }

    /// The certificate that the apiserver shows to its own store: made, or renewed if two thirds of its life are over.
    ///
    /// # Errors
    /// [`PkiError`].
    pub fn admin(&self, now: SystemTime) -> Result<CertificateFiles, PkiError> {
        let user = User::Admin.common_name(&self.cluster);
        self.ensure("admin", &[], now, || issue::client(&user, ADMIN_VALIDITY, now))
    }

    /// A new key with a certificate for a user of this cluster.
    ///
    /// # Errors
    /// [`PkiError`].
    pub fn issue_client(&self, user: &User, now: SystemTime) -> Result<Credentials, PkiError> {
        let key = KeyPair::generate()?;
        let params = issue::client(&user.common_name(&self.cluster), ADMIN_VALIDITY, now)?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Credentials { ca: self.ca.pem().to_owned(), certificate, key: key.serialize_pem() })
    }

    /// Signs what the cluster `peer` asks for: a certificate for the user `remote-<peer>`, PEM.
    ///
    /// # Errors
    /// [`RequestError`] if the request is not one, is not signed by its own key, or its key is of another kind than the
    /// accepted ones.
    pub fn sign_request(
        &self,
        peer: &ClusterName,
        request: &str,
        now: SystemTime,
    ) -> Result<String, RequestError> {
        let public_key = request::public_key(request)?;
        let user = User::Remote(peer.clone()).common_name(&self.cluster);
        let params = issue::client(&user, PEER_VALIDITY, now).map_err(RequestError::Signing)?;
        let signed = params.signed_by(&public_key, &self.issuer).map_err(RequestError::Signing)?;
        Ok(signed.pem())
    }

    fn ensure(
        &self,
        name: &str,
        hosts: &[String],
        now: SystemTime,
        params: impl FnOnce() -> Result<rcgen::CertificateParams, rcgen::Error>,
    ) -> Result<CertificateFiles, PkiError> {
        let _lock = files::lock(&self.folder)?;
        let paths = CertificateFiles {
            ca: self.folder.join("ca.crt"),
            certificate: self.folder.join(format!("{name}.crt")),
            key: self.folder.join(format!("{name}.key")),
        };
        if !paths.key.exists() {
            write_private(&paths.key, KeyPair::generate()?.serialize_pem().as_bytes())?;
        }
        let key = KeyPair::from_pem(&read_text(&paths.key)?)
            .map_err(|_| PkiError::Unreadable { path: paths.key.clone() })?;
        let current = read_text(&paths.certificate).ok();
        let current = current.and_then(|pem| Certificate::from_pem(&pem).ok());
        let is_good = current.is_some_and(|current| {
            current.has_key(&key)
                && current.check_signed_by(&self.ca, now).is_ok()
                && current.covers(hosts)
                && !current.is_due_for_renewal(now)
        });
        if !is_good {
            let certificate = params()?.signed_by(&key, &self.issuer)?;
            write_private(&paths.certificate, certificate.pem().as_bytes())?;
        }
        Ok(paths)
    }
}

impl Credentials {
    /// Writes `ca.crt`, `client.crt` and `client.key` into `folder`, readable to their owner alone.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn write_to(&self, folder: &Path) -> Result<(), PkiError> {
        for (name, text) in
            [("client.key", &self.key), ("client.crt", &self.certificate), ("ca.crt", &self.ca)]
        {
            write_private(&folder.join(name), text.as_bytes())?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki")
            .field("folder", &self.folder)
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Why certificates of the cluster's own authority are not at hand.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file or folder.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file that holds no key.
    #[error(
        "{path:?} holds no key that can be used; put it back from a backup, or start with an empty data folder"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
    },
    /// The authority's certificate is none, or no longer valid.
    #[error("{path:?} is no certificate of an authority that can be used")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: CertificateError,
    },
    /// The authority signed already, and its certificate is gone.
    #[error(
        "{path:?} is gone, while certificates that it signed are there; put it back from a backup: a new authority would \
         shut out all agents and peers"
    )]
    Lost {
        /// The file.
        path: PathBuf,
    },
    /// The authority is that of another cluster.
    #[error("{path:?} is of {found:?}, not of {expected:?}; each cluster needs a data folder of its own")]
    OtherCluster {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it had to be.
        expected: String,
    },
    /// The authority's key is not that of its certificate.
    #[error("{key:?} is not the key of {certificate:?}; put both back from the same backup")]
    Mismatch {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// A certificate could not be made.
    #[error("making a certificate")]
    Issuing(#[from] rcgen::Error),
}

#[cfg(test)]
mod tests;
