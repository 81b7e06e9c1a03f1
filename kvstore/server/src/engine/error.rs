//! What can go wrong with an engine, one enum for each operation.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use openraft::errors::{ClientWriteError, Fatal, ForwardToLeader, RaftError};

use super::identity::Identity;
use super::log::Failure;
use super::peers::Peers;
use super::snapshot::SnapshotError;
use super::types::TypeConfig;
use crate::wal::WalError;

/// Why an engine cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A setting is out of its bounds.
    #[error("a setting of the store is wrong: {reason}")]
    Options {
        /// Which, and what it may be.
        reason: String,
    },
    /// The log cannot be opened, for another process has it open, or it is damaged.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The log can be opened and makes no sense.
    #[error(
        "the log in {path} cannot be replayed: use the version that wrote it; if it did, restore this member's data \
         folder from a backup, or remove the member and add a new one that copies the others"
    )]
    Log {
        /// The folder of the log.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The snapshot cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The log begins where a snapshot ended, and there is none.
    #[error(
        "{path} has no snapshot of log entry {index}, which the log goes on from: put it back, or remove the member \
         and add a new one that copies the others"
    )]
    SnapshotLost {
        /// The folder of snapshots.
        path: PathBuf,
        /// The last entry that the log no longer has.
        index: u64,
    },
    /// There is a snapshot, and the log knows nothing of how it came to be.
    #[error(
        "{path} lacks the log that belongs to the snapshot beside it: put it back, or remove the member and add a \
         new one that copies the others"
    )]
    LogLost {
        /// The folder of the log.
        path: PathBuf,
    },
    /// The snapshot is of another cluster.
    #[error(
        "{path} is a snapshot of cluster {theirs:016x}, and the log beside it of {ours:016x}: put the right one there"
    )]
    ForeignSnapshot {
        /// The snapshot.
        path: PathBuf,
        /// Its cluster.
        theirs: u64,
        /// The cluster of the log.
        ours: u64,
    },
    /// Other members cannot come in.
    #[error("cannot listen for other members on {url}")]
    Listen {
        /// Where.
        url: String,
        /// Why.
        source: io::Error,
    },
    /// No member leads the cluster.
    #[error("no member leads the cluster after {waited:?}: look whether a majority of its members run")]
    NoLeader {
        /// How long was waited for one.
        waited: Duration,
    },
    /// The engine ended while it was started.
    #[error("the store failed while it was started ({reason}): mend that and start the program again")]
    Failed {
        /// What happened.
        reason: String,
    },
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

impl OpenError {
    /// Adds to an error what was tried on which file.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// Why a command was not carried out, or why that is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// No member leads: the command was not taken.
    #[error("no member leads the cluster at the moment: try again")]
    NoLeader,
    /// Another member leads: the command was not taken.
    #[error("member {leader:016x} leads the cluster: ask it")]
    NotLeader {
        /// Its number.
        leader: u64,
    },
    /// The leader changed while the command was under way.
    #[error(
        "the leader changed while a command was under way: look whether it was carried out, then try again"
    )]
    LeaderChanged,
    /// It took too long. A command may be carried out or not; a read may be asked for again.
    #[error("the cluster did not answer in time: look whether a majority of its members run")]
    TimedOut {
        /// Whether a member leads, as far as this one knows.
        has_leader: bool,
    },
    /// The disk is full, or the store as large as it may be: the command was not taken.
    #[error("the store has no room for more: make room on the disk, or delete and compact, then try again")]
    NoSpace,
    /// The engine is shut down.
    #[error("the store is stopped: start it again")]
    Stopped,
    /// This member was removed from its cluster.
    #[error(
        "this member was removed from its cluster: ask another one; to have it back, add it as a new member, with an \
         empty data folder"
    )]
    Removed,
    /// The disk failed.
    #[error(
        "the store takes no more since its disk failed ({reason}): mend the disk and start the program again"
    )]
    Io {
        /// What happened.
        reason: String,
    },
}

impl ProposeError {
    pub(super) fn new(
        error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>,
        identity: Identity,
        failure: &Failure,
        peers: &Peers,
    ) -> Self {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
                other_leader(&forward, identity).map_or(Self::NoLeader, |leader| Self::NotLeader { leader })
            }
            // The others come of requests that are never made: they concern the membership, or conditions.
            RaftError::APIError(_) => Self::LeaderChanged,
            RaftError::Fatal(fatal) => End::new(failure, peers, Some(&fatal)).into(),
        }
    }

    /// Whether the command may be carried out all the same, so that it is not safe to repeat it unseen.
    pub fn may_be_carried_out(&self) -> bool {
        match self {
            Self::NoLeader | Self::NotLeader { .. } | Self::NoSpace => false,
            // Whatever a leader that was removed had under way, others may have.
            Self::LeaderChanged | Self::TimedOut { .. } | Self::Stopped | Self::Removed | Self::Io { .. } => {
                true
            }
        }
    }
}

/// Why a read cannot be known to be current.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No member leads.
    #[error("no member leads the cluster at the moment: try again")]
    NoLeader,
    /// Another member leads.
    #[error("member {leader:016x} leads the cluster: ask it")]
    NotLeader {
        /// Its number.
        leader: u64,
    },
    /// It took too long.
    #[error("the cluster did not answer in time: look whether a majority of its members run")]
    TimedOut,
    /// The engine is shut down.
    #[error("the store is stopped: start it again")]
    Stopped,
    /// This member was removed from its cluster.
    #[error(
        "this member was removed from its cluster: ask another one; to have it back, add it as a new member, with an \
         empty data folder"
    )]
    Removed,
    /// The disk failed.
    #[error(
        "the store takes no more since its disk failed ({reason}): mend the disk and start the program again"
    )]
    Io {
        /// What happened.
        reason: String,
    },
}

/// What went wrong while an engine was shut down. It has stopped all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShutdownError {
    /// A task of the engine panicked.
    #[error(
        "the {task} task of the store ended by a panic ({reason}): report it, with the log of the program"
    )]
    Panicked {
        /// Which.
        task: &'static str,
        /// What it said.
        reason: String,
    },
}

/// The member to ask instead of this one.
fn other_leader(forward: &ForwardToLeader<TypeConfig>, identity: Identity) -> Option<u64> {
    forward.leader_id.filter(|leader| *leader != identity.member_id)
}

/// What ended an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It was told to stop.
    Stopped,
    /// It is the one of a member that is none any more.
    Removed,
    /// It cannot go on.
    Failed { reason: String },
}

impl End {
    /// What ended the engine; `fatal` is openraft's account, if there is one.
    pub(super) fn new(failure: &Failure, peers: &Peers, fatal: Option<&Fatal<TypeConfig>>) -> Self {
        if peers.is_removed() {
            return Self::Removed;
        }
        let reason = match fatal {
            Some(fatal) => failed(fatal, failure),
            None => failure.get().cloned(),
        };
        reason.map_or(Self::Stopped, |reason| Self::Failed { reason })
    }
}

impl From<End> for ProposeError {
    fn from(end: End) -> Self {
        match end {
            End::Stopped => Self::Stopped,
            End::Removed => Self::Removed,
            End::Failed { reason } => Self::Io { reason },
        }
    }
}

impl From<End> for ReadError {
    fn from(end: End) -> Self {
        match end {
            End::Stopped => Self::Stopped,
            End::Removed => Self::Removed,
            End::Failed { reason } => Self::Io { reason },
        }
    }
}

/// Why the engine has failed, if it has not just been stopped.
pub(super) fn failed(fatal: &Fatal<TypeConfig>, failure: &Failure) -> Option<String> {
    match (failure.get(), fatal) {
        (Some(reason), _) => Some(reason.clone()),
        (None, Fatal::Stopped) => None,
        (None, fatal) => Some(fatal.to_string()),
    }
}

/// The reason of a failure: what the disk said, if it was that.
pub(super) fn task_failed(error: &dyn Error, failure: &Failure) -> String {
    failure.get().cloned().unwrap_or_else(|| error.to_string())
}
