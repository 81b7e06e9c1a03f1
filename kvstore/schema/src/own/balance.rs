//! How connections to a service are spread over its backends.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ClusterName;

/// How connections to a service are spread over the backends that come first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Balance {
    /// Which of them a new connection gets (`service.cilium.io/lb-algorithm`).
    #[serde(default)]
    pub algorithm: BalanceAlgorithm,
    /// How long after its last connection a client still gets the backend that it had, in seconds, at most a day; 0 for no
    /// such promise (`sessionAffinity: ClientIP` and its timeout).
    #[serde(default)]
    pub session_affinity_seconds: u32,
    /// Each cluster's share, whatever the number of its backends (`landbridge.io/weights`); only if the service is global. A
    /// cluster that is not here gets none while one that is has healthy backends. Empty: all backends alike.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<ClusterName, u32>,
}

impl Balance {
    /// The largest weight of a cluster.
    pub const MAX_WEIGHT: u32 = 1000;

    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Which backend a new connection gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BalanceAlgorithm {
    /// Any of them.
    #[default]
    Random,
    /// One after the other.
    RoundRobin,
    /// The one that the client's address and port stand for, on every node alike.
    Maglev,
}
