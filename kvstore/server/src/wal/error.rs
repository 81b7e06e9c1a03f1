//! What can go wrong with a log.

use std::io;
use std::path::{Path, PathBuf};

/// Why a log cannot be opened or appended to.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// Something that was acknowledged cannot be read any more.
    #[error(
        "{path} is damaged at byte {offset}: replace this member by a new one that copies the others, or restore its \
         data folder from a backup"
    )]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where it stops making sense.
        offset: u64,
    },
    /// A segment between others is gone.
    #[error("{path} is missing: put it back, or replace this member by a new one that copies the others")]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// A segment was written by a newer version.
    #[error("{path} has format {format}, and this program knows {known}: use the version that wrote it")]
    UnknownFormat {
        /// The segment.
        path: PathBuf,
        /// What it says.
        format: u32,
        /// What is known here.
        known: u32,
    },
    /// Another process has the log open.
    #[error("{path} is in use by another process: stop that one first")]
    InUse {
        /// The folder of the log.
        path: PathBuf,
    },
    /// There is no file for a new segment. Nothing is lost.
    #[error("there is no room for more of the log in {path}: make room on the disk, and it goes on")]
    NoRoom {
        /// The folder of the log.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A write or sync failed before, so that what is on disk is unknown.
    #[error("the log takes no more since it failed to write: mend the disk and start the program again")]
    Failed,
    /// A call to the kernel failed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl WalError {
    /// Adds to an error what was tried on which file.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}
