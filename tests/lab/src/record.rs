//! The folder of a lab: written first and deleted last, so that a crash can be cleaned up after.
//!
//! ```text
//! <base>/<lab>/lab.json      what the lab is, see `Record`
//!             /lock          held by the process that owns the lab; free when it is gone
//!             /bpf/<node>    a bpf filesystem of the lab's own, a folder per node
//!             /hosts/<host>  data of the programs of a host
//!             /log/          what the programs print
//!             /relays/       control sockets of relay processes
//! ```

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::error::{IoContext, LabError, write_error};
use crate::{LabName, LabSpec};

/// Where labs are kept unless `LANDBRIDGE_LAB_DIR` says otherwise.
const DEFAULT_BASE: &str = "/var/lib/landbridge/lab";
const RECORD: &str = "lab.json";
/// What a freshly started lab needs at least, so that a full disk is found before anything changes.
const MIN_FREE_BYTES: u64 = 1 << 20;

/// What is written down about a lab.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) spec: LabSpec,
    /// The command of a relay process; without one the lab ends with the process that owns it.
    pub(crate) kept: Option<Vec<String>>,
}

/// The folder of one lab.
#[derive(Clone, Debug)]
pub(crate) struct LabFolder {
    path: PathBuf,
}

/// The folder that holds the folders of all labs.
pub(crate) fn base() -> PathBuf {
    std::env::var_os("LANDBRIDGE_LAB_DIR").map_or_else(|| DEFAULT_BASE.into(), PathBuf::from)
}

/// The names of all labs that have a folder.
pub(crate) fn names() -> Vec<LabName> {
    let entries = fs::read_dir(base()).into_iter().flatten().flatten();
    let mut names: Vec<LabName> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()?.parse().ok()).collect();
    names.sort();
    names
}

/// Waits until no other process creates or takes over a lab.
fn lock_base(base: &Path) -> Result<File, LabError> {
    let path = base.join(".lock");
    let lock = File::create(&path).map_err(|error| write_error(&path, error))?;
    flock(&lock, FlockOperation::LockExclusive).context(|| format!("lock {}", path.display()))?;
    Ok(lock)
}

/// Proof that the calling process owns a lab. The kernel releases it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Ownership {
    _lock: File,
}

impl LabFolder {
    pub(crate) fn of(name: &LabName) -> Self {
        Self { path: base().join(name.as_str()) }
    }

    /// Makes the folder of a new lab, which the caller then owns.
    ///
    /// # Errors
    /// [`LabError::NameTaken`] if it exists, [`LabError::DiskFull`].
    pub(crate) fn create(name: &LabName) -> Result<(Self, Ownership), LabError> {
        let base = base();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&base)
            .map_err(|error| write_error(&base, error))?;
        let disk =
            rustix::fs::statvfs(&base).context(|| format!("look at the disk of {}", base.display()))?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < MIN_FREE_BYTES {
            return Err(LabError::DiskFull { path: base });
        }
        let folder = Self { path: base.join(name.as_str()) };
        let _creating = lock_base(&base)?;
        DirBuilder::new().mode(0o700).create(&folder.path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => LabError::NameTaken(name.clone()),
            _ => write_error(&folder.path, error),
        })?;
        match folder.take_lock(name) {
            Ok(ownership) => Ok((folder, ownership)),
            Err(error) => {
                let _ = fs::remove_dir_all(&folder.path);
                Err(error)
            }
        }
    }

    /// Takes over a lab that no running process owns.
    ///
    /// # Errors
    /// [`LabError::InUse`] if one does, [`LabError::NoSuchLab`].
    pub(crate) fn own(&self, name: &LabName) -> Result<Ownership, LabError> {
        // A lab whose folder its creator has not locked yet must not look abandoned.
        let _no_lab_is_being_created = lock_base(&base())?;
        self.take_lock(name)
    }

    fn take_lock(&self, name: &LabName) -> Result<Ownership, LabError> {
        let path = self.path.join("lock");
        let lock = File::create(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => LabError::NoSuchLab(name.clone()),
            _ => write_error(&path, error),
        })?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Ownership { _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LabError::InUse(name.clone())),
            Err(error) => Err(error).context(|| format!("lock {}", path.display())),
        }
    }

    /// Writes the record, whole or not at all.
    pub(crate) fn write(&self, record: &Record) -> Result<(), LabError> {
        let path = self.path.join(RECORD);
        let draft = self.path.join("lab.json.new");
        let text = serde_json::to_vec_pretty(record).expect("a record has only names and numbers");
        fs::write(&draft, text)
            .and_then(|()| fs::rename(&draft, &path))
            .map_err(|error| write_error(&path, error))
    }

    /// Reads the record; `None` if the lab's owner did not get as far as writing it.
    pub(crate) fn read(&self) -> Result<Option<Record>, LabError> {
        let path = self.path.join(RECORD);
        match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).map(Some).map_err(|source| LabError::BadRecord { path, source })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context(|| format!("read {}", path.display())),
        }
    }

    pub(crate) fn exists(&self) -> bool {
        self.path.is_dir()
    }

    pub(crate) fn remove(&self) -> Result<(), LabError> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome.context(|| format!("remove {}", self.path.display())),
        }
    }

    /// Makes a folder in the lab's folder, with those above it, and returns its path.
    pub(crate) fn make(&self, relative: impl AsRef<Path>) -> Result<PathBuf, LabError> {
        let path = self.path.join(relative);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|error| write_error(&path, error))?;
        Ok(path)
    }

    /// Where the lab's bpf filesystem is mounted.
    pub(crate) fn bpf(&self) -> PathBuf {
        self.path.join("bpf")
    }

    /// The control socket of a link's relay process.
    pub(crate) fn relay_socket(&self, link: &str) -> PathBuf {
        self.path.join("relays").join(format!("{link}.sock"))
    }
}
