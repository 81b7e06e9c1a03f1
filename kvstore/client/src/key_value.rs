//! What requests take and bring back.

use std::time::Duration;

use bytes::Bytes;
use etcd_client::proto::{PbKeyValue, PbResponseHeader};

/// A key as it was at some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key. The store allows any bytes; keys that are not UTF-8 are left out, counted and logged.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// The revision that made the key, since it last did not exist.
    pub create_revision: i64,
    /// The revision that wrote this value.
    pub mod_revision: i64,
    /// How often the key was written since it last did not exist, from 1.
    pub version: i64,
    /// The lease that the key is deleted with, 0 if none.
    pub lease: i64,
}

impl KeyValue {
    /// Gives the key back if it is not UTF-8.
    pub(crate) fn from_wire(wire: PbKeyValue) -> Result<Self, Vec<u8>> {
        let PbKeyValue { key, value, create_revision, mod_revision, version, lease } = wire;
        let key = String::from_utf8(key).map_err(std::string::FromUtf8Error::into_bytes)?;
        Ok(Self { key, value: value.into(), create_revision, mod_revision, version, lease })
    }
}

/// Keys under a prefix, all as they were at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// In the order of the keys' bytes.
    pub key_values: Vec<KeyValue>,
    /// The revision that the listing shows.
    pub revision: i64,
}

/// What became of a request to create a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creation {
    /// The key did not exist and now does.
    Created {
        /// The revision that made it.
        revision: i64,
    },
    /// The key exists already, and was left as it is.
    Exists(KeyValue),
}

/// One change out of many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets a key, without a lease.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: Vec<u8>,
    },
    /// Deletes a key. One that does not exist stays so.
    Delete {
        /// The key.
        key: String,
    },
}

/// What a store answered to a linearizable read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The store's revision.
    pub revision: i64,
    /// The store's cluster: revisions of another one are not comparable.
    pub cluster_id: u64,
    /// From asking to the answer, including what it took to connect.
    pub round_trip: Duration,
}

/// Where an answer comes from. Only an answer with a cluster is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) cluster_id: u64,
    pub(crate) revision: i64,
}

impl Header {
    pub(crate) fn from_wire(wire: Option<&PbResponseHeader>) -> Option<Self> {
        let header = wire?;
        (header.cluster_id != 0).then_some(Self { cluster_id: header.cluster_id, revision: header.revision })
    }
}
