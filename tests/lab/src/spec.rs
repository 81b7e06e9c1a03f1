//! What a lab should be: how many clusters, nodes and pods, and how long it lives.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

use crate::{LabError, LabName};

/// Node numbers end where the router's address begins.
pub(crate) const MAX_NODES: u8 = 200;
/// Pod numbers have to fit the last byte of a /24 after the node's own addresses.
pub(crate) const MAX_PODS: u8 = 200;
/// Names that an interface of the router cannot have, or that stand for others in the kernel's settings.
const RESERVED_NAMES: [&str; 3] = ["all", "lo", crate::topology::ROUTER_NAME];
/// The kernel refuses an IPv6 address on an interface below this (RFC 8200, section 5).
const MIN_MTU: u32 = 1280;

/// What to build. Starts as two clusters of two nodes with two pods each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabSpec {
    /// The lab's name, unique on the machine.
    pub name: LabName,
    /// The clusters, in order.
    pub clusters: Vec<ClusterSpec>,
    /// Largest IP packet in bytes on every interface, 1280 to 65535.
    pub mtu: u32,
    /// Who connects the pods.
    pub pods: PodWiring,
}

/// One cluster of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// 1 to 3 lower-case letters. Node 1 of cluster `a` is host `a1`, its first pod `a1p1`.
    pub name: String,
    /// Decides the addresses of the nodes, 1 to 254, unique in the lab.
    pub number: u8,
    /// Decides the addresses of the pods, 1 to 254. Clusters of one range overlap on purpose; then the router
    /// knows the way to the pods of the first only.
    pub pod_range: u8,
    /// How many nodes, 0 to 200.
    pub nodes: u8,
    /// How many pods each node has, 0 to 200.
    pub pods_per_node: u8,
}

/// Who connects the pods to their node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PodWiring {
    /// The lab does, and the nodes and the router get routes to all pods: plain routing without Landbridge.
    Routed,
    /// A CNI plugin will: pods are namespaces with nothing but loopback, and the router knows only nodes.
    Unwired,
}

/// How long a lab lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Until its [`crate::Lab`] is dropped or the process is told to end. Relays are threads.
    Owned,
    /// Until it is removed by its name.
    Kept {
        /// The command that runs a relay process, see [`crate::Lab::open`].
        relay_command: Vec<OsString>,
        /// The number of a process that the lab is for: once that has ended, the lab is stale.
        keeper: Option<u32>,
    },
}

impl LabSpec {
    /// Two clusters of two nodes with two pods each, wired by the lab.
    pub fn new(name: LabName) -> Self {
        let spec = Self { name, clusters: Vec::new(), mtu: 1500, pods: PodWiring::Routed };
        spec.with_clusters(2, 2, 2)
    }

    /// Replaces the clusters by `count` equal ones, numbered from 1 and named `a` to `z`, then `aa`, `ab`, ….
    #[must_use]
    pub fn with_clusters(mut self, count: u8, nodes: u8, pods_per_node: u8) -> Self {
        let cluster = |number: u8| ClusterSpec {
            name: letters(number),
            number,
            pod_range: number,
            nodes,
            pods_per_node,
        };
        self.clusters = (1..=count).map(cluster).collect();
        self
    }

    /// Sets who connects the pods.
    #[must_use]
    pub fn with_pods(mut self, pods: PodWiring) -> Self {
        self.pods = pods;
        self
    }

    /// Sets the largest IP packet in bytes.
    #[must_use]
    pub fn with_mtu(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    /// Checks what the types do not.
    ///
    /// # Errors
    /// [`LabError::InvalidSpec`] that names the first wrong value.
    pub(crate) fn validate(&self) -> Result<(), LabError> {
        let wrong = |what: String| Err(LabError::InvalidSpec(what));
        if self.clusters.is_empty() {
            return wrong("a lab needs at least 1 cluster".to_owned());
        }
        if !(MIN_MTU..=65_535).contains(&self.mtu) {
            return wrong(format!("mtu {} is not between {MIN_MTU} and 65535", self.mtu));
        }
        for (index, cluster) in self.clusters.iter().enumerate() {
            let name = &cluster.name;
            if !(1..=3).contains(&name.len()) || !name.bytes().all(|b| b.is_ascii_lowercase()) {
                return wrong(format!("cluster name {name:?} is not 1 to 3 lower-case letters"));
            }
            if RESERVED_NAMES.contains(&name.as_str()) {
                return wrong(format!("cluster name {name:?} has another meaning"));
            }
            if self.clusters[..index].iter().any(|other| other.name == *name) {
                return wrong(format!("two clusters are named {name:?}"));
            }
            if self.clusters[..index].iter().any(|other| other.number == cluster.number) {
                return wrong(format!("two clusters have number {}", cluster.number));
            }
            for (what, number) in [("number", cluster.number), ("pod range", cluster.pod_range)] {
                if !(1..=254).contains(&number) {
                    return wrong(format!("cluster {name} has {what} {number}, not 1 to 254"));
                }
            }
            if cluster.nodes > MAX_NODES || cluster.pods_per_node > MAX_PODS {
                return wrong(format!(
                    "cluster {name} has more than {MAX_NODES} nodes or {MAX_PODS} pods a node"
                ));
            }
        }
        Ok(())
    }
}

/// 1 is `a`, 26 is `z`, 27 is `aa`.
fn letters(number: u8) -> String {
    let mut left = number;
    let mut name = Vec::new();
    while left > 0 {
        left -= 1;
        name.push(char::from(b'a' + left % 26));
        left /= 26;
    }
    name.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_clusters_are_built_as_asked_for() {
        let spec = spec().with_clusters(254, 1, 1);
        let names: Vec<&str> = spec.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
        assert_eq!((names.len(), names[0], names[25], names[26], names[253]), (254, "a", "z", "aa", "it"));
        assert!(spec.validate().is_ok());
    }

    fn spec() -> LabSpec {
        LabSpec::new("t".parse().unwrap())
    }

    #[test]
    fn wrong_specs_name_the_value() {
        type Change = fn(&mut LabSpec);
        let cases: [(Change, &str); 8] = [
            (|s| s.clusters.clear(), "at least 1 cluster"),
            (|s| s.mtu = 1279, "mtu 1279"),
            (|s| s.clusters[1].name = "a".into(), "two clusters are named \"a\""),
            (|s| s.clusters[0].name = "lo".into(), "another meaning"),
            (|s| s.clusters[0].number = 2, "two clusters have number 2"),
            (|s| s.clusters[0].number = 255, "number 255"),
            (|s| s.clusters[0].pod_range = 0, "pod range 0"),
            (|s| s.clusters[0].nodes = 201, "more than 200 nodes"),
        ];
        for (break_it, expected) in cases {
            let mut spec = spec();
            break_it(&mut spec);
            let message = spec.validate().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        assert!(spec().validate().is_ok());
    }
}
