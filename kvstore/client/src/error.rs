//! Why a request did not succeed, and what that says about the connection.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, ConnectError, Status};

use crate::call::Call;

/// Why a request did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// A TLS file cannot be read. It is read again with the next request.
    #[error("{call}: cannot read the TLS file {path}")]
    TlsFile {
        /// The request.
        call: Call,
        /// The file.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// No connection can be made; the store has not seen the request.
    #[error("{call}: cannot connect")]
    Unreachable {
        /// The request.
        call: Call,
        /// Why.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The connection broke. A write may have been applied.
    #[error("{call}: the connection broke before the answer")]
    Disconnected {
        /// The request.
        call: Call,
        /// Why.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// No answer came in time. A write may have been applied.
    #[error("{call}: no answer within {after:?}")]
    TimedOut {
        /// The request.
        call: Call,
        /// How long it was waited for.
        after: Duration,
    },
    /// The member cannot serve now: it has no leader, or stops. A write may have been applied.
    #[error("{call}: the store cannot serve now: {message}")]
    Unavailable {
        /// The request.
        call: Call,
        /// The store's words.
        message: String,
    },
    /// The client's user may not do this.
    #[error("{call}: the store denies it: {message}: grant the certificate's user the key")]
    PermissionDenied {
        /// The request.
        call: Call,
        /// The store's words.
        message: String,
    },
    /// The lease does not exist, or no longer.
    #[error("{call}: the lease has expired or was revoked")]
    LeaseNotFound {
        /// The request.
        call: Call,
    },
    /// The store has forgotten the revision that was asked for, or is a younger one and has not reached it.
    #[error("{call}: the store does not have that revision: {message}")]
    RevisionGone {
        /// The request.
        call: Call,
        /// The store's words.
        message: String,
    },
    /// The store says no for another reason.
    #[error("{call}: the store refuses it: {code:?}: {message}")]
    Refused {
        /// The request.
        call: Call,
        /// The kind of refusal.
        code: Code,
        /// The store's words.
        message: String,
    },
    /// The answer is not one that the API allows.
    #[error("{call}: the answer makes no sense: {what}")]
    Malformed {
        /// The request.
        call: Call,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The store ended a watch.
    #[error("{call}: the store ended the watch: {reason}")]
    WatchEnded {
        /// The request.
        call: Call,
        /// The store's words.
        reason: String,
    },
}

impl ClientError {
    /// Whether the store may have done what was asked although this is an error.
    pub fn may_be_applied(&self) -> bool {
        match self {
            Self::Disconnected { .. }
            | Self::TimedOut { .. }
            | Self::Unavailable { .. }
            | Self::Malformed { .. } => true,
            // Those that do not speak of the request, but of how it went.
            Self::Refused { code, .. } => matches!(
                code,
                Code::Unknown
                    | Code::Internal
                    | Code::Cancelled
                    | Code::DeadlineExceeded
                    | Code::Aborted
                    | Code::DataLoss
            ),
            Self::TlsFile { .. }
            | Self::Unreachable { .. }
            | Self::PermissionDenied { .. }
            | Self::LeaseNotFound { .. }
            | Self::RevisionGone { .. }
            | Self::WatchEnded { .. } => false,
        }
    }

    /// Whether another connection, perhaps to another endpoint, may do better. The only place that decides it.
    pub(crate) fn is_of_connection(&self) -> bool {
        match self {
            Self::TlsFile { .. }
            | Self::Unreachable { .. }
            | Self::Disconnected { .. }
            | Self::TimedOut { .. }
            | Self::Unavailable { .. }
            | Self::Malformed { .. } => true,
            Self::PermissionDenied { .. }
            | Self::LeaseNotFound { .. }
            | Self::RevisionGone { .. }
            | Self::Refused { .. }
            | Self::WatchEnded { .. } => false,
        }
    }

    pub(crate) fn from_library(call: Call, error: etcd_client::Error) -> Self {
        match error {
            etcd_client::Error::GRpcStatus(status) => Self::from_status(call, status),
            other => Self::Unreachable { call, source: Arc::new(other) },
        }
    }

    fn from_status(call: Call, status: Status) -> Self {
        // Only what this side of the connection makes up has a source: a server's status is a code and a text.
        if has_source::<ConnectError>(&status) {
            return Self::Unreachable { call, source: Arc::new(status) };
        }
        if status.source().is_some() {
            return Self::Disconnected { call, source: Arc::new(status) };
        }
        let message = status.message().to_owned();
        match status.code() {
            Code::Unavailable => Self::Unavailable { call, message },
            Code::PermissionDenied | Code::Unauthenticated => Self::PermissionDenied { call, message },
            // The texts are part of the API, and this code has others (etcd `api/v3rpc/rpctypes`).
            Code::NotFound if message.ends_with("requested lease not found") => Self::LeaseNotFound { call },
            Code::OutOfRange if message.contains("mvcc: required revision") => {
                Self::RevisionGone { call, message }
            }
            code => Self::Refused { call, code, message },
        }
    }
}

fn has_source<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    let mut next = error.source();
    while let Some(source) = next {
        if source.is::<E>() {
            return true;
        }
        next = source.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Call {
        Call { operation: "put", key: "k".into(), endpoint: "http://store".into() }
    }

    /// Only a refusal that says what is wrong with a request is known to come before it.
    #[test]
    fn what_does_not_say_that_nothing_was_done_may_have_been_done() {
        let refused = |code| ClientError::from_status(call(), Status::new(code, "etcdserver: some words"));
        for code in
            [Code::Unknown, Code::Internal, Code::Cancelled, Code::DeadlineExceeded, Code::Unavailable]
        {
            assert!(refused(code).may_be_applied(), "{code:?}");
        }
        for code in [Code::InvalidArgument, Code::FailedPrecondition, Code::PermissionDenied] {
            assert!(!refused(code).may_be_applied(), "{code:?}");
        }
        assert!(ClientError::Malformed { call: call(), what: "no header" }.may_be_applied());
    }
}
