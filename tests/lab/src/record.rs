//! Where labs are written down: made before anything else of a lab and deleted last, so that a crash can be cleaned
//! up after.
//!
//! ```text
//! /run/landbridge/lab/.lock            held while a lab is created, taken over or forgotten
//!                    /<lab>/lock       held by the process that owns the lab; free when it is gone
//!                          /lab.json   what the lab is, see `Record`
//!                          /bpf/<node> a bpf filesystem of the lab's own, a folder per node
//!                          /relays/    sockets and locks of relay processes
//! <base>/<lab>/hosts/<host>            data of the programs of a host
//!             /log/                    what the programs print
//! ```
//!
//! The base is on disk and movable; the place of the records is not, as it decides which names are taken.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{IoContext, LabError, write_error};
use crate::file_lock::FileLock;
use crate::keeper::Keeper;
use crate::{LabName, LabSpec, namespace};

/// Where labs are written down.
const RECORDS: &str = "/run/landbridge/lab";
/// Where data goes unless `LANDBRIDGE_LAB_DIR` says otherwise.
const DEFAULT_BASE: &str = "/var/lib/landbridge/lab";
const RECORD: &str = "lab.json";
const LOCK: &str = "lock";
/// What a freshly started lab needs at least, so that a full disk is found before anything changes.
const MIN_FREE_BYTES: u64 = 1 << 20;
/// Creating, taking over and forgetting a lab are matters of milliseconds.
const REGISTRY_DEADLINE: Duration = Duration::from_secs(10);

/// What is written down about a lab.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) spec: LabSpec,
    /// Whether the lab outlives the process that made it.
    pub(crate) kept: bool,
    /// The process that a kept lab is for; once it has ended, the lab is stale.
    pub(crate) keeper: Option<Keeper>,
    /// Where the lab's data is, once that folder is its own.
    pub(crate) data: Option<PathBuf>,
    /// The boot that the lab is of; namespaces do not survive the next.
    pub(crate) boot_id: String,
}

impl Record {
    pub(crate) fn new(spec: LabSpec) -> Self {
        Self { spec, kept: false, keeper: None, data: None, boot_id: boot_id() }
    }

    /// Whether the lab is to stay although nobody owns it.
    pub(crate) fn is_kept_now(&self) -> bool {
        self.kept && self.boot_id == boot_id() && self.keeper.is_none_or(Keeper::is_alive)
    }
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The folder of one lab.
#[derive(Clone, Debug)]
pub(crate) struct LabFolder {
    path: PathBuf,
}

/// The right to create, take over or forget a lab. One process at a time has it.
pub(crate) struct Registry {
    records: &'static Path,
    _lock: FileLock,
}

/// Proof that the calling process owns a lab. The kernel releases it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Ownership {
    _lock: FileLock,
}

/// The names of all labs that are written down.
pub(crate) fn names() -> Result<Vec<LabName>, LabError> {
    let entries = match fs::read_dir(RECORDS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        outcome => outcome.context(|| format!("read {RECORDS}"))?,
    };
    let mut names: Vec<LabName> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()?.parse().ok()).collect();
    names.sort();
    Ok(names)
}

impl Registry {
    /// Waits for the right.
    pub(crate) fn lock() -> Result<Self, LabError> {
        let records = Path::new(RECORDS);
        make_folder(records)?;
        Ok(Self { records, _lock: FileLock::acquire(&records.join(".lock"), REGISTRY_DEADLINE)? })
    }

    /// Makes the folder of a new lab, which the caller then owns.
    ///
    /// # Errors
    /// [`LabError::NameTaken`] if there is one, or namespaces that are named like its.
    pub(crate) fn create(&self, name: &LabName) -> Result<(LabFolder, Ownership), LabError> {
        let folder = LabFolder { path: self.records.join(name.as_str()) };
        // Empty if its creator died right here.
        let _ = fs::remove_dir(&folder.path);
        if folder.path.exists() || !namespace::paths_of(name).is_empty() {
            return Err(LabError::NameTaken(name.clone()));
        }
        DirBuilder::new()
            .mode(0o700)
            .create(&folder.path)
            .map_err(|error| write_error(&folder.path, error))?;
        let lock = folder.path.join(LOCK);
        match FileLock::try_create(&lock) {
            Ok(Some(lock)) => Ok((folder, Ownership { _lock: lock })),
            Ok(None) => Err(LabError::InUse(name.clone())),
            Err(error) => {
                let _ = fs::remove_dir_all(&folder.path);
                Err(write_error(&lock, error))
            }
        }
    }

    /// Takes over a lab that no running process owns.
    ///
    /// # Errors
    /// [`LabError::InUse`] if one does, [`LabError::NoSuchLab`].
    pub(crate) fn own(&self, name: &LabName) -> Result<Ownership, LabError> {
        let path = self.records.join(name.as_str()).join(LOCK);
        match FileLock::try_existing(&path) {
            Ok(Some(lock)) => Ok(Ownership { _lock: lock }),
            Ok(None) => Err(LabError::InUse(name.clone())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(LabError::NoSuchLab(name.clone())),
            Err(error) => Err(error).context(|| format!("lock {}", path.display())),
        }
    }

    /// Deletes what is written down about a lab that the caller owns.
    pub(crate) fn forget(&self, name: &LabName) -> Result<(), LabError> {
        remove_folder(&self.records.join(name.as_str()))
    }
}

impl LabFolder {
    pub(crate) fn of(name: &LabName) -> Self {
        Self { path: Path::new(RECORDS).join(name.as_str()) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the lab's folder for data, and writes down where it is.
    ///
    /// # Errors
    /// [`LabError::DiskFull`], [`LabError::DataInTheWay`] if something else is at its place.
    pub(crate) fn make_data(&self, record: &mut Record) -> Result<PathBuf, LabError> {
        let base = std::env::var_os("LANDBRIDGE_LAB_DIR").map_or_else(|| DEFAULT_BASE.into(), PathBuf::from);
        let base = std::path::absolute(&base).context(|| format!("find the folder {}", base.display()))?;
        make_folder(&base)?;
        let disk =
            rustix::fs::statvfs(&base).context(|| format!("look at the disk of {}", base.display()))?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < MIN_FREE_BYTES {
            return Err(LabError::DiskFull { path: base });
        }
        let path = base.join(record.spec.name.as_str());
        // Empty if a lab's process died right here.
        let _ = fs::remove_dir(&path);
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => LabError::DataInTheWay(path.clone()),
            _ => write_error(&path, error),
        })?;
        record.data = Some(path.clone());
        self.write(record).inspect_err(|_| {
            let _ = fs::remove_dir(&path);
        })?;
        Ok(path)
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

    /// Reads the record; `None` if there is no lab, or its owner did not get as far as writing it.
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

    /// Where the lab's bpf filesystem is mounted.
    pub(crate) fn bpf(&self) -> PathBuf {
        self.path.join("bpf")
    }

    /// A file of a link's relay process.
    pub(crate) fn relay_file(&self, link: &str, extension: &str) -> Result<PathBuf, LabError> {
        let folder = self.path.join("relays");
        make_folder(&folder)?;
        Ok(folder.join(format!("{link}.{extension}")))
    }
}

/// Deletes a folder with all that is in it, if it exists.
pub(crate) fn remove_folder(path: &Path) -> Result<(), LabError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome.context(|| format!("remove {}", path.display())),
    }
}

/// Makes a folder that only its owner may enter, with those above it.
pub(crate) fn make_folder(path: &Path) -> Result<(), LabError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| write_error(path, error))
}
