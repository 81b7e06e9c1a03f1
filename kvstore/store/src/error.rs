//! Why a request is refused. The texts are part of etcd's API: its clients compare them.

use crate::auth::AuthError;

/// Why a read is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// The revision is no longer known.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// The revision is not reached yet.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    Future,
}

/// Why a request is refused; then nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A read of the request is refused.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// The users and roles by which the request was allowed are no longer in force.
    #[error("etcdserver: revision of auth store is old")]
    AuthOldRevision,
    /// A command about users and roles is refused.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// No key is named.
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// What is to be kept of a key cannot be, since the key does not exist.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// A value is given although the present one is to be kept.
    #[error("etcdserver: value is provided")]
    ValueProvided,
    /// A lease is given although the present one is to be kept.
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// No such lease, or it has ended.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// A lease of that number lives.
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    /// A lease is wanted for longer than any lives.
    #[error("etcdserver: too large lease TTL")]
    TtlTooLarge,
    /// A transaction has more operations than the limit.
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    /// The store has as many bytes as it may, or had, and nobody has cleared the alarm.
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    /// The data of members differ, and nobody has cleared the alarm.
    #[error("etcdserver: corrupt cluster")]
    Corrupt,
    /// One branch of a transaction changes a key twice.
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
}
