//! One version of a key.

use bytes::Bytes;

use crate::LeaseId;

/// A key with its value and what etcd's API tells about both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value; may be empty.
    pub value: Bytes,
    /// Revision of the first put since the key last did not exist.
    pub create_revision: i64,
    /// Revision of the put that made this version.
    pub mod_revision: i64,
    /// How many puts made it since then, from 1.
    pub version: i64,
    /// The lease that the key goes with.
    pub lease: Option<LeaseId>,
}
