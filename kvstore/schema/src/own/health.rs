//! What a node sees.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{OwnRecord, key};
use crate::{Area, ClusterName, KeyPrefix, LandbridgeKey, ObjectName, health_prefix};

/// The state of a node as its agent measures it, written every second and kept by a lease: a node whose agent is gone
/// has no report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeReport {
    /// Version of the agent.
    pub version: String,
    /// Revision of the local store that is in the node's maps.
    pub applied_revision: i64,
    /// Clusters whose records are in the node's maps as a whole.
    pub synced: Vec<ClusterName>,
    /// Paths to nodes, by cluster and node: as the node's own probes go, over the path that pods' traffic takes.
    pub paths: BTreeMap<ClusterName, BTreeMap<ObjectName, PathReport>>,
    /// Pods that the node serves.
    pub endpoints: u32,
    /// What the datapath dropped.
    pub drops: Vec<DropCount>,
}

/// A path to a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathReport {
    /// Whether the node takes part in load balancing.
    pub reachable: bool,
    /// Of the last answer, in microseconds; 0 if there was none yet.
    pub round_trip_micros: u32,
}

/// Packets dropped for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DropCount {
    /// Cilium's number of the reason.
    pub reason: u8,
    /// Its name.
    pub name: String,
    /// `ingress` or `egress`, as the endpoint sees it.
    pub direction: String,
    /// Packets since the datapath was set up.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl OwnRecord for NodeReport {}

impl NodeReport {
    /// Where the report of `node` is.
    pub fn key(node: &ObjectName) -> LandbridgeKey {
        key(Area::Health, &[node.as_str(), "report"])
    }

    /// The node whose report is at `key`, if it is the key of one.
    pub fn node_of(key: &LandbridgeKey) -> Option<ObjectName> {
        let mut segments = key.segments();
        let node = ObjectName::new(segments.next()?).ok()?;
        (*key == Self::key(&node)).then_some(node)
    }

    /// What the agent of `node` may write.
    pub fn writable(node: &ObjectName) -> KeyPrefix {
        health_prefix(node)
    }
}
