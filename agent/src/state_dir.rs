//! What the agent knows after a restart without asking anybody.
//!
//! ```text
//! <state dir>/lock                  held by the one agent that uses the folder
//!            /node.json             the node's PodCIDR
//!            /endpoints/<id>.json   one endpoint each
//! ```
//!
//! A file is written under another name, flushed to the disk and renamed: after a crash it is the old one or the new one.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use landbridge_kvstore_schema::{InvalidPrefix, Ipv4Prefix, Ipv6Prefix};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::endpoint::EndpointRecord;
use crate::pod_cidr::{PodCidr, TooSmall};

const NODE: &str = "node.json";
const ENDPOINTS: &str = "endpoints";
const SUFFIX: &str = ".json";

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// A file or folder cannot be read or written.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "{path} is locked by another agent: stop that one, or give this one a state dir and a socket of its own"
    )]
    Locked {
        /// The lock.
        path: PathBuf,
    },
    /// A file holds something else.
    #[error("cannot read {path}: drain the node, remove the file and start again")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The range that was kept is none.
    #[error("{path} holds no PodCIDR: remove the file, and it is read from the store again")]
    Prefix {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: InvalidPrefix,
    },
    /// The range that was kept cannot be used.
    #[error("{path} holds no usable PodCIDR")]
    PodCidr {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TooSmall,
    },
}

/// The agent's folder on disk, locked for as long as this lives.
#[derive(Debug)]
pub(crate) struct StateDir {
    folder: PathBuf,
    _lock: File,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeState {
    pod_cidr: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod_cidr6: Option<String>,
}

impl StateDir {
    /// Makes the folder if it is not there, and locks it.
    ///
    /// # Errors
    /// [`StateError::Locked`] if another agent has it, [`StateError::Io`].
    pub(crate) fn open(folder: &Path) -> Result<Self, StateError> {
        let endpoints = folder.join(ENDPOINTS);
        fs::create_dir_all(&endpoints).map_err(failed("create", &endpoints))?;
        Ok(Self { _lock: lock(&folder.join("lock"))?, folder: folder.to_owned() })
    }

    /// The range that the node had before, if it had one.
    ///
    /// # Errors
    /// Any of [`StateError`] but [`StateError::Locked`].
    pub(crate) fn pod_cidr(&self) -> Result<Option<PodCidr>, StateError> {
        let path = self.folder.join(NODE);
        let Some(state) = read::<NodeState>(&path)? else { return Ok(None) };
        let no_prefix = |source| StateError::Prefix { path: path.clone(), source };
        let prefix: Ipv4Prefix = state.pod_cidr.parse().map_err(no_prefix)?;
        let prefix6: Option<Ipv6Prefix> =
            state.pod_cidr6.map(|text| text.parse()).transpose().map_err(no_prefix)?;
        let cidr = PodCidr::new(prefix).and_then(|cidr| match prefix6 {
            Some(prefix6) => cidr.with_ipv6(prefix6),
            None => Ok(cidr),
        });
        cidr.map(Some).map_err(|source| StateError::PodCidr { path, source })
    }

    /// Keeps the node's range.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub(crate) fn keep_pod_cidr(&self, cidr: PodCidr) -> Result<(), StateError> {
        let pod_cidr6 = cidr.prefix6().map(|prefix| prefix.to_string());
        write(&self.folder, NODE, &NodeState { pod_cidr: cidr.prefix().to_string(), pod_cidr6 })
    }

    /// The endpoints that were kept, in no order.
    ///
    /// # Errors
    /// [`StateError::Io`] or [`StateError::Malformed`].
    pub(crate) fn endpoints(&self) -> Result<Vec<EndpointRecord>, StateError> {
        let folder = self.folder.join(ENDPOINTS);
        let mut records = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed("list", &folder))? {
            let path = entry.map_err(failed("list", &folder))?.path();
            // Others are files that a crash left half written.
            if path.to_string_lossy().ends_with(SUFFIX) {
                records.extend(read(&path)?);
            }
        }
        Ok(records)
    }

    /// Keeps an endpoint, in the place of one of the same id.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub(crate) fn keep_endpoint(&self, record: &EndpointRecord) -> Result<(), StateError> {
        write(&self.folder.join(ENDPOINTS), &format!("{}{SUFFIX}", record.id), record)
    }

    /// Forgets an endpoint. One that is not there is no error.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub(crate) fn forget_endpoint(&self, id: u16) -> Result<(), StateError> {
        let folder = self.folder.join(ENDPOINTS);
        let path = folder.join(format!("{id}{SUFFIX}"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome.map_err(failed("remove", &path)).and_then(|()| flush_folder(&folder)),
        }
    }
}

/// Takes the lock `path`, which the kernel gives back when the process ends, however it ends.
///
/// # Errors
/// [`StateError::Locked`] if another process has it, [`StateError::Io`].
pub(crate) fn lock(path: &Path) -> Result<File, StateError> {
    let file = File::options().create(true).append(true).open(path).map_err(failed("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StateError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed("lock", path)(source)),
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| StateError::Malformed { path: path.to_owned(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

fn write(folder: &Path, name: &str, value: &impl Serialize) -> Result<(), StateError> {
    let bytes =
        serde_json::to_vec_pretty(value).expect("these types have text keys and no failing serializer");
    let path = folder.join(name);
    let unfinished = folder.join(format!("{name}.new"));
    let written = File::create(&unfinished).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&unfinished, &path)).map_err(failed("write", &path))?;
    flush_folder(folder)
}

/// A rename or a removal is on the disk once its folder is.
fn flush_folder(folder: &Path) -> Result<(), StateError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("flush", folder))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_at_a_time_has_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let error = StateDir::open(folder.path()).unwrap_err();
        assert!(matches!(error, StateError::Locked { .. }), "{error}");
        drop(state);
        StateDir::open(folder.path()).unwrap();
    }

    #[test]
    fn the_range_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        assert_eq!(state.pod_cidr().unwrap(), None);
        let cidr = PodCidr::new("10.1.2.0/24".parse().unwrap()).unwrap();
        state.keep_pod_cidr(cidr).unwrap();
        assert_eq!(state.pod_cidr().unwrap(), Some(cidr));
        fs::write(folder.path().join(NODE), "{").unwrap();
        assert!(state.pod_cidr().unwrap_err().to_string().contains("node.json"));
    }

    #[test]
    fn a_half_written_endpoint_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        fs::write(folder.path().join("endpoints/7.json.new"), "{").unwrap();
        assert_eq!(state.endpoints().unwrap(), []);
        state.forget_endpoint(7).unwrap();
    }
}
