//! Locks that the kernel releases when their process ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{IoContext, LabError};

/// How often a lock that another process holds is tried again; no event tells when it is free.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// A locked file.
#[derive(Debug)]
pub(crate) struct FileLock {
    _file: File,
}

impl FileLock {
    /// Locks a file, which is made if it does not exist, and waits for its turn.
    ///
    /// # Errors
    /// [`LabError::TimedOut`] if another process keeps the lock for longer than `deadline`.
    pub(crate) fn acquire(path: &Path, deadline: Duration) -> Result<Self, LabError> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(lock) = Self::try_create(path).context(|| format!("lock {}", path.display()))? {
                return Ok(lock);
            }
            if Instant::now() >= end {
                let what = format!("the lock {} (see `fuser {0}` for its holder)", path.display());
                return Err(LabError::TimedOut { what, seconds: deadline.as_secs() });
            }
            thread::sleep(RETRY_INTERVAL);
        }
    }

    /// Locks a file, which is made if it does not exist; `None` if another process has the lock.
    pub(crate) fn try_create(path: &Path) -> io::Result<Option<Self>> {
        Self::try_lock(OpenOptions::new().write(true).create(true).truncate(false).open(path)?)
    }

    /// Locks a file that exists; `None` if another process has the lock.
    pub(crate) fn try_existing(path: &Path) -> io::Result<Option<Self>> {
        Self::try_lock(OpenOptions::new().write(true).open(path)?)
    }

    fn try_lock(file: File) -> io::Result<Option<Self>> {
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}
