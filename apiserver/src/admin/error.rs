//! Why a call is refused, and the status that says so.

use std::fmt::Write;

use landbridge_kvstore_client::ClientError;
use landbridge_kvstore_schema::{ClusterName, InvalidClusterName, RecordError};
use tonic::{Code, Status};

use crate::peers::compatibility::{Conflict, InvalidDescription};
use crate::peers::key_files::KeyFilesError;
use crate::pki::{FileError, RequestError};
use crate::store::chain;

/// Why a call is refused.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// A field that is not there.
    #[error("the request has no {field}")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A name that no cluster can have.
    #[error("peer: {0}")]
    Name(#[from] InvalidClusterName),
    /// A cluster does not connect to itself.
    #[error("{name} is this cluster's own name; name the other one")]
    Own {
        /// The name.
        name: ClusterName,
    },
    /// A deadline that is too far.
    #[error("confirm_within_seconds is {seconds}, more than {max}")]
    Deadline {
        /// The seconds.
        seconds: u32,
        /// The most.
        max: u32,
    },
    /// What a peer said of itself cannot be.
    #[error(transparent)]
    Description(#[from] InvalidDescription),
    /// What stands against a peer.
    #[error("{}", sentences(.0))]
    Conflicts(Vec<Conflict>),
    /// A request for a certificate that is not signed.
    #[error("{}", chain(.0))]
    Request(#[from] RequestError),
    /// A certificate or key that cannot be put into use.
    #[error("{}", chain(.0))]
    Keys(#[from] KeyFilesError),
    /// No such peer.
    #[error("there is no peer {name}; begin with clusterctl connect")]
    NoPeer {
        /// The name.
        name: ClusterName,
    },
    /// Somebody else changed the record in the meantime.
    #[error("the record of cluster {name} changed in the meantime; try again")]
    Changed {
        /// The name.
        name: ClusterName,
    },
    /// The own nodes or peers are not known yet.
    #[error("this apiserver has not read its own store yet; try again in a moment")]
    Starting,
    /// The own store holds something that is no record.
    #[error("{}", chain(.0))]
    Record(#[from] RecordError),
    /// The own store.
    #[error("the own store: {}", chain(.0))]
    Store(#[from] ClientError),
    /// A file.
    #[error("{}", chain(.0))]
    File(#[from] FileError),
}

impl AdminError {
    const fn code(&self) -> Code {
        match self {
            Self::Missing { .. }
            | Self::Name(_)
            | Self::Own { .. }
            | Self::Deadline { .. }
            | Self::Description(_)
            | Self::Request(RequestError::Malformed | RequestError::KeyType | RequestError::Signature)
            | Self::Keys(KeyFilesError::Certificate(_)) => Code::InvalidArgument,
            Self::Conflicts(_) | Self::Keys(KeyFilesError::NoKey { .. } | KeyFilesError::OtherKey { .. }) => {
                Code::FailedPrecondition
            }
            Self::NoPeer { .. } => Code::NotFound,
            Self::Changed { .. } => Code::Aborted,
            Self::Starting | Self::Store(_) => Code::Unavailable,
            Self::Record(_) => Code::DataLoss,
            Self::File(_) | Self::Keys(_) | Self::Request(_) => Code::Internal,
        }
    }
}

impl From<AdminError> for Status {
    fn from(error: AdminError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

fn sentences(conflicts: &[Conflict]) -> String {
    conflicts.iter().fold(String::new(), |mut text, conflict| {
        let separator = if text.is_empty() { "" } else { "\n" };
        let _ = write!(text, "{separator}{conflict}");
        text
    })
}
