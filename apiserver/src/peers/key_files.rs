//! The key that this cluster shows to a peer, with its certificate and the peer's authority.
//!
//! ```text
//! <data>/peers/<peer>/  key.pem.new                              made by `request`, waits for its certificate
//!                       key.pem  certificate.pem  ca.pem         what the reader shows and trusts
//! ```
//!
//! - A key never leaves its folder.
//! - The three files change together: a folder that is complete takes the place of the one before.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use landbridge_kvstore_schema::ClusterName;
use rcgen::KeyPair;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::pki::{
    Certificate, CertificateError, CertificateFiles, FileError, KeyRequest, create_private_folder, read_text,
    write_private,
};

const KEY: &str = "key.pem";
const NEW_KEY: &str = "key.pem.new";
const CERTIFICATE: &str = "certificate.pem";
const CA: &str = "ca.pem";

/// How long a key waits for its certificate.
const ABANDONED_AFTER: Duration = Duration::from_hours(1);

/// The folder with the keys for all peers.
#[derive(Clone, Debug)]
pub struct KeyFiles {
    folder: PathBuf,
}

impl KeyFiles {
    /// Those in `folder`, which is made if it is not there. What an interrupted change left is removed.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn open(folder: PathBuf) -> Result<Self, FileError> {
        create_private_folder(&folder)?;
        let failed = |source| FileError::new("cannot read folder", &folder, source);
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_string_lossy().starts_with('.') {
                remove_folder(&entry.path())?;
            }
        }
        Ok(Self { folder })
    }

    /// Where the reader of `peer` finds its files.
    pub fn of(&self, peer: &ClusterName) -> CertificateFiles {
        let folder = self.folder.join(peer.as_str());
        CertificateFiles { ca: folder.join(CA), certificate: folder.join(CERTIFICATE), key: folder.join(KEY) }
    }

    /// The certificate that is shown to `peer`, if there is one.
    pub fn certificate(&self, peer: &ClusterName) -> Option<Certificate> {
        let text = read_text(&self.of(peer).certificate).ok()?;
        Certificate::from_pem(&text).ok()
    }

    /// Makes a key for `peer`, in place of one that still waited for its certificate, and returns the request for it, PEM.
    /// The key in use stays.
    ///
    /// # Errors
    /// [`KeyFilesError`].
    pub fn request(&self, peer: &ClusterName) -> Result<String, KeyFilesError> {
        let made = KeyRequest::new()?;
        let folder = self.folder.join(peer.as_str());
        create_private_folder(&folder)?;
        write_private(&folder.join(NEW_KEY), made.key.as_bytes())?;
        Ok(made.request)
    }

    /// Puts a certificate for the waiting key into use.
    ///
    /// # Errors
    /// [`KeyFilesError`] if it is not for that key, not for `user`, or not of `ca`. Then nothing has changed.
    pub fn install(
        &self,
        peer: &ClusterName,
        user: &str,
        certificate: &str,
        ca: &Certificate,
        now: SystemTime,
    ) -> Result<(), KeyFilesError> {
        let current = self.folder.join(peer.as_str());
        let key = match read_text(&current.join(NEW_KEY)) {
            Err(error) if error.is_not_found() => return Err(KeyFilesError::NoKey { peer: peer.clone() }),
            key => key?,
        };
        let parsed = Certificate::from_pem(certificate)?;
        parsed.check_client(user, ca, now)?;
        if !parsed.has_key(&KeyPair::from_pem(&key)?) {
            return Err(KeyFilesError::OtherKey { peer: peer.clone() });
        }
        let next = self.folder.join(format!(".{peer}.new"));
        remove_folder(&next)?;
        create_private_folder(&next)?;
        write_private(&next.join(KEY), key.as_bytes())?;
        write_private(&next.join(CERTIFICATE), certificate.as_bytes())?;
        write_private(&next.join(CA), ca.pem().as_bytes())?;
        // The waiting key's folder is there, so both can change places at once.
        renameat_with(CWD, &next, CWD, &current, RenameFlags::EXCHANGE)
            .map_err(|error| FileError::new("cannot put in place", &current, error.into()))?;
        remove_folder(&next)?;
        Ok(())
    }

    /// Forgets keys that nobody came back for: those of clusters that are no peers, some minutes after they were made.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn sweep(&self, is_peer: impl Fn(&ClusterName) -> bool, now: SystemTime) -> Result<(), FileError> {
        let failed = |source| FileError::new("cannot read folder", &self.folder, source);
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_str().and_then(|name| ClusterName::new(name).ok());
            let changed = entry.metadata().and_then(|folder| folder.modified()).map_err(failed)?;
            let is_old = now.duration_since(changed).is_ok_and(|age| age > ABANDONED_AFTER);
            if is_old && name.is_some_and(|name| !is_peer(&name)) {
                remove_folder(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Forgets everything about `peer`.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn remove(&self, peer: &ClusterName) -> Result<(), FileError> {
        remove_folder(&self.folder.join(peer.as_str()))
    }
}

fn remove_folder(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(FileError::new("cannot remove", path, error))
        }
        _ => Ok(()),
    }
}

/// Why a certificate for a peer cannot be put into use.
#[derive(Debug, thiserror::Error)]
pub enum KeyFilesError {
    /// A file or folder.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no key that waits for a certificate.
    #[error("there is no key for cluster {peer} that waits for a certificate; request one first")]
    NoKey {
        /// The cluster.
        peer: ClusterName,
    },
    /// The certificate is for another key, such as one of an earlier request.
    #[error(
        "the certificate of cluster {peer} is for another key than the one requested last; connect again"
    )]
    OtherKey {
        /// The cluster.
        peer: ClusterName,
    },
    /// The certificate does not let us in.
    #[error("the certificate cannot be used: {0}")]
    Certificate(#[from] CertificateError),
    /// A key could not be made or read.
    #[error("making a key")]
    Key(#[from] rcgen::Error),
}
