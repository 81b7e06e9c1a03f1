//! Which clusters are connected.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{OwnRecord, folder, key};
use crate::{Area, ClusterName, IpPrefix, KeyPrefix, LandbridgeKey};

const PEERS: &str = "peers";
const READERS: &str = "readers";

/// A cluster that this one reads, as both agreed on when they were connected.
///
/// The key for the certificate is on the disk of the apiserver that made it, never here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// The peer's number in the mesh. Its identities have it in their high bits; no others are taken from it.
    pub id: u16,
    /// Where its store is reached.
    pub endpoints: Vec<String>,
    /// Certificate of its CA, PEM: the only one that its store is checked against.
    pub ca_certificate: String,
    /// Ranges of its pods; addresses outside of them are refused.
    pub pod_ranges: Vec<IpPrefix>,
    /// Addresses of its nodes at the time of connecting, for people; nodes that come later are taken from its records if
    /// they are not within our own ranges.
    #[serde(default)]
    pub node_addresses: Vec<IpAddr>,
    /// Until it is confirmed, a peer goes at this time, in seconds since 1970; `None` once it is confirmed.
    #[serde(default)]
    pub unconfirmed_until: Option<i64>,
}

impl OwnRecord for Peer {}

impl Peer {
    /// Where the record of `peer` is.
    pub fn key(peer: &ClusterName) -> LandbridgeKey {
        key(Area::Config, &[PEERS, peer.as_str()])
    }

    /// Where all of these records are.
    pub fn prefix() -> KeyPrefix {
        folder(Area::Config, PEERS)
    }
}

/// A cluster that may read this one: the user `remote-<cluster>` exists while this record does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reader {
    /// As in [`Peer`].
    #[serde(default)]
    pub unconfirmed_until: Option<i64>,
}

impl OwnRecord for Reader {}

impl Reader {
    /// Where the record of `reader` is.
    pub fn key(reader: &ClusterName) -> LandbridgeKey {
        key(Area::Config, &[READERS, reader.as_str()])
    }

    /// Where all of these records are.
    pub fn prefix() -> KeyPrefix {
        folder(Area::Config, READERS)
    }
}
