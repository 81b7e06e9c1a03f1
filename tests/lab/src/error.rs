//! What can go wrong with a lab, each with what to do about it.

use std::io;
use std::path::PathBuf;

use crate::{LabName, MissingCapability};

/// Why something with a lab did not work. Nothing is left behind by a start that failed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The machine lacks something that labs need.
    #[error(transparent)]
    Missing(#[from] MissingCapability),
    /// A value of the spec is out of its range.
    #[error("invalid lab: {0}")]
    InvalidSpec(String),
    /// A lab of that name exists.
    #[error(
        "a lab named {0} exists already: choose another name, or remove it with `clusterctl demo down --lab {0}`"
    )]
    NameTaken(LabName),
    /// No lab of that name exists.
    #[error("no lab is named {0}: see `clusterctl demo list`")]
    NoSuchLab(LabName),
    /// The lab belongs to a process that still runs.
    #[error(
        "lab {0} is in use by a running process: end that process, which removes the lab (see `fuser /run/landbridge/lab/{0}/lock`)"
    )]
    InUse(LabName),
    /// The caller runs in the lab it wants to remove.
    #[error("this process runs in lab {0}, and would be removed with it: leave the host first")]
    Inside(LabName),
    /// A kept lab is for a process that does not run.
    #[error("no process has the number {0}: name one that runs")]
    NoSuchProcess(u32),
    /// Something that is no lab's is where the lab's data would go.
    #[error("{0} exists and belongs to no lab: move it away, or name another folder in LANDBRIDGE_LAB_DIR")]
    DataInTheWay(PathBuf),
    /// The process was told to end while the lab was being built.
    #[error("interrupted")]
    Interrupted,
    /// No host of that name is in the lab.
    #[error("lab {lab} has no host {host:?}: its hosts are {known}")]
    NoSuchHost {
        /// The lab that was asked.
        lab: LabName,
        /// What was asked for.
        host: String,
        /// What there is.
        known: String,
    },
    /// No link of that name is in the lab.
    #[error(
        "lab {lab} has no link {link:?}: links are named after the node or the cluster at their end, here {known}"
    )]
    NoSuchLink {
        /// The lab that was asked.
        lab: LabName,
        /// What was asked for.
        link: String,
        /// What there is.
        known: String,
    },
    /// A value of an impairment is out of its range.
    #[error("invalid impairment: {0}")]
    InvalidImpairment(String),
    /// The disk is full.
    #[error("no space left on the disk of {path}: free some, or name another folder in LANDBRIDGE_LAB_DIR")]
    DiskFull {
        /// What could not be written.
        path: PathBuf,
    },
    /// Both ends of a cable were set up, and the kernel does not say that it carries.
    #[error("{interface} is set up and carries nothing after {} s: look at it with `ip -d link`", .patience.as_secs())]
    NoCarrier {
        /// One end of the cable.
        interface: String,
        /// How long it was waited for.
        patience: std::time::Duration,
    },
    /// A call to the kernel failed.
    #[error("cannot {action}")]
    Io {
        /// What was tried, as a verb and its object.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A netlink request failed.
    #[error("cannot {action}")]
    Netlink {
        /// What was tried, as a verb and its object.
        action: String,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// The lab's record was written by something else.
    #[error("cannot read {path}: was it written by another version? move it away to forget the lab")]
    BadRecord {
        /// The record.
        path: PathBuf,
        /// Where it stops making sense.
        source: serde_json::Error,
    },
    /// Ping sent nothing.
    #[error("ping in {host} sent nothing: {words}")]
    Ping {
        /// The host it ran in.
        host: String,
        /// What it printed.
        words: String,
    },
    /// The relay of a link was killed, and the link with it.
    #[error(
        "link {link} is broken, since its relay died: mend it with `clusterctl demo link --lab {lab} {link} --clear`"
    )]
    RelayDied {
        /// The lab.
        lab: LabName,
        /// The link.
        link: String,
    },
    /// The process of a relay did not answer as agreed.
    #[error("the relay of link {link} failed: {reason}")]
    Relay {
        /// The link it serves.
        link: String,
        /// Its last words.
        reason: String,
    },
    /// Something did not happen in time.
    #[error("gave up waiting for {what} after {seconds} s")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
    },
}

/// Says what was tried when a call to the kernel fails.
pub(crate) trait IoContext<T> {
    fn context(self, action: impl FnOnce() -> String) -> Result<T, LabError>;
}

impl<T, E: Into<io::Error>> IoContext<T> for Result<T, E> {
    fn context(self, action: impl FnOnce() -> String) -> Result<T, LabError> {
        self.map_err(|error| LabError::Io { action: action(), source: error.into() })
    }
}

/// Tells a full disk from other failures to write `path`.
pub(crate) fn write_error(path: &std::path::Path, error: io::Error) -> LabError {
    if error.kind() == io::ErrorKind::StorageFull {
        return LabError::DiskFull { path: path.to_owned() };
    }
    LabError::Io { action: format!("write {}", path.display()), source: error }
}
