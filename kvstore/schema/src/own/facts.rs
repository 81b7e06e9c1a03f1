//! What a cluster says of itself to its peers and agents, beyond Cilium's cluster config.

use serde::{Deserialize, Serialize};

use super::{OwnRecord, key};
use crate::{Area, IpPrefix, LandbridgeKey};

/// The facts of the cluster that the store belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SharedFacts {
    /// Version of the apiserver that publishes.
    pub version: String,
    /// Ranges that all pods of the cluster have their addresses from.
    pub pod_ranges: Vec<IpPrefix>,
}

impl OwnRecord for SharedFacts {}

impl SharedFacts {
    /// Where the record is.
    pub fn key() -> LandbridgeKey {
        key(Area::Shared, &["facts"])
    }
}
