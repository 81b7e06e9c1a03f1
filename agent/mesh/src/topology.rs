//! Which nodes there are, and whose an address is.
//!
//! ```text
//! this node, other nodes of this cluster, nodes of cluster a, b, …     each takes its addresses and PodCIDRs,
//!      └ first come ─────────────────────────────────► last come       or is left out if one of them is taken
//! ```
//!
//! - An address belongs to at most one node. Who is earlier in that order has it, whenever its record came.
//! - A node is in as a whole or not at all: half a node would be a tunnel's end for pods that are elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use landbridge_kvstore_schema::{AddressType, ClusterId, ClusterName, IpPrefix, Node, ObjectName};

use crate::Problem;
use crate::ranges::{Range, Ranges};

/// The name of a node of any cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeRef {
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its name there.
    pub node: ObjectName,
}

impl fmt::Display for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.node)
    }
}

/// A node, as others reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshNode {
    /// Its name.
    pub name: NodeRef,
    /// The number of its cluster.
    pub cluster_id: ClusterId,
    /// Where tunnels to it end: its first internal IPv4 address, or what it has in its place.
    pub underlay: IpAddr,
    /// All of its internal addresses; `underlay` is among them unless it is external.
    pub internal: Vec<IpAddr>,
    /// Where its pods have their addresses from.
    pub pod_cidrs: Vec<IpPrefix>,
    /// The addresses that its pods use as gateway, one for each family that it has a `PodCIDR` of.
    pub routers: Vec<IpAddr>,
    /// The addresses that answer probes, likewise, IPv4 first.
    pub health: Vec<IpAddr>,
}

impl MeshNode {
    /// The node of a record; `None` if it has no address that packets can be sent to.
    pub(crate) fn new(cluster: &ClusterName, cluster_id: ClusterId, node: &Node) -> Option<Self> {
        let of_type = |wanted: AddressType| {
            let wanted = node.addresses.iter().filter(move |address| address.address_type == wanted);
            wanted.map(|address| address.ip).filter(|ip| is_unicast(*ip))
        };
        let internal: Vec<_> = of_type(AddressType::InternalIp).collect();
        let underlay = internal.iter().find(|ip| ip.is_ipv4()).or(internal.first()).copied();
        let pod_cidrs: Vec<_> = (node.ipv4_pod_cidrs.iter().copied().map(IpPrefix::V4))
            .chain(node.ipv6_pod_cidrs.iter().copied().map(IpPrefix::V6))
            .collect();
        // What a node says of itself counts only within its own range; otherwise it is derived (DESIGN, node addresses).
        let own = |said: Vec<IpAddr>, offset| {
            let of_family = |is_v4: bool| {
                let cidrs = || pod_cidrs.iter().filter(move |cidr| cidr.network().is_ipv4() == is_v4);
                let said = said.iter().copied().find(|ip| cidrs().any(|cidr| cidr.contains(*ip)));
                said.or_else(|| cidrs().next().and_then(|cidr| Range::prefix(*cidr).nth(offset)))
            };
            [true, false].into_iter().filter_map(of_family).collect()
        };
        let health = (node.ipv4_health.map(IpAddr::V4).into_iter()).chain(node.ipv6_health.map(IpAddr::V6));
        Some(Self {
            name: NodeRef { cluster: cluster.clone(), node: node.name.clone() },
            cluster_id,
            underlay: underlay.or_else(|| of_type(AddressType::ExternalIp).next())?,
            routers: own(of_type(AddressType::CiliumInternalIp).collect(), 1),
            health: own(health.collect(), 2),
            internal,
            pod_cidrs,
        })
    }

    /// Routers and health addresses.
    pub(crate) fn inner_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.routers.iter().chain(&self.health).copied()
    }

    /// Addresses of the node itself in the underlay.
    pub(crate) fn outer_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let external = Some(self.underlay).filter(|underlay| !self.internal.contains(underlay));
        self.internal.iter().copied().chain(external)
    }

    /// What the node takes, and how it is written: its `PodCIDR`s and its addresses in the underlay.
    pub(crate) fn claims(&self) -> impl Iterator<Item = (Range, String)> {
        let cidrs = self.pod_cidrs.iter().map(|cidr| (Range::prefix(*cidr), cidr.to_string()));
        cidrs.chain(self.outer_addresses().map(|ip| (Range::address(ip), ip.to_string())))
    }
}

/// Whether packets can be sent to `ip` from another machine.
fn is_unicast(ip: IpAddr) -> bool {
    let is_special = match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast() || ip.octets()[0] == 0,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(is_special || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast())
}

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressOwner {
    /// A node: it is the node's own or one of its pods'.
    Node(NodeRef),
    /// The services of this cluster.
    Services(ClusterName),
    /// Nobody: it is loopback, link-local or the like.
    Nobody,
}

impl fmt::Display for AddressOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::Services(cluster) => write!(f, "services of cluster {cluster}"),
            Self::Nobody => f.write_str("nobody, being special"),
        }
    }
}

/// All nodes that are in, and their addresses.
#[derive(Clone, Debug)]
pub(crate) struct Topology {
    /// This cluster.
    local: ClusterName,
    /// Addresses of its services.
    services: Ranges<()>,
    nodes: Vec<MeshNode>,
    /// `PodCIDR`s and underlay addresses, with the index of their node.
    ranges: Ranges<usize>,
    /// By cluster and address in the underlay: how records say where a pod is.
    by_outer: BTreeMap<ClusterName, BTreeMap<IpAddr, usize>>,
    problems: Vec<Problem>,
}

/// Whose an address is, for a cluster that publishes something about it.
pub(crate) enum Claim<'a> {
    /// Nobody's.
    Free,
    /// This node's, of the same cluster.
    Own(&'a MeshNode),
    /// Another cluster's.
    Foreign(AddressOwner),
}

impl Topology {
    /// The nodes that are in out of `nodes`, in the order in which they come, and the addresses of this cluster's services.
    pub(crate) fn new<'a>(
        local: &ClusterName,
        services: impl Iterator<Item = IpAddr>,
        nodes: impl Iterator<Item = (&'a ClusterName, ClusterId, &'a Node)>,
    ) -> Self {
        let mut topology = Self {
            local: local.clone(),
            services: Ranges::default(),
            nodes: Vec::new(),
            ranges: Ranges::default(),
            by_outer: BTreeMap::new(),
            problems: Vec::new(),
        };
        for address in services {
            topology.services.insert_missing(Range::address(address), ());
        }
        for (cluster, cluster_id, node) in nodes {
            if let Some(node) = MeshNode::new(cluster, cluster_id, node) {
                topology.insert(node);
            } else {
                let node = NodeRef { cluster: cluster.clone(), node: node.name.clone() };
                topology.problems.push(Problem::NodeWithoutAddress { node });
            }
        }
        topology
    }

    fn insert(&mut self, node: MeshNode) {
        let taken =
            node.claims().find_map(|(range, text)| Some((text, self.owner(&node.name.cluster, range)?)));
        if let Some((address, owner)) = taken {
            self.problems.push(Problem::NodeClaim { node: node.name, address, owner });
            return;
        }
        let index = self.nodes.len();
        for (range, _) in node.claims() {
            // A node may say the same twice, or have its own address in its own range.
            self.ranges.insert_missing(range, index);
        }
        let by_outer = self.by_outer.entry(node.name.cluster.clone()).or_default();
        by_outer.extend(node.outer_addresses().map(|ip| (ip, index)));
        self.nodes.push(node);
    }

    /// Who has an address of `range` that a node of `cluster` wants.
    fn owner(&self, cluster: &ClusterName, range: Range) -> Option<AddressOwner> {
        let node = self.ranges.overlapping(range).next().map(|index| self.nodes[*index].name.clone());
        node.map(AddressOwner::Node).or_else(|| self.owner_besides_nodes(cluster, range))
    }

    /// What other clusters do not get although no node has it.
    fn owner_besides_nodes(&self, cluster: &ClusterName, range: Range) -> Option<AddressOwner> {
        if *cluster == self.local {
            None
        } else if self.services.overlapping(range).next().is_some() {
            Some(AddressOwner::Services(self.local.clone()))
        } else {
            range.has_special().then_some(AddressOwner::Nobody)
        }
    }

    /// The nodes that are in, in order.
    pub(crate) fn nodes(&self) -> &[MeshNode] {
        &self.nodes
    }

    /// Why others are not.
    pub(crate) fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The node of `cluster` that has `ip` in the underlay.
    pub(crate) fn node_at(&self, cluster: &ClusterName, ip: IpAddr) -> Option<&MeshNode> {
        self.by_outer.get(cluster)?.get(&ip).map(|index| &self.nodes[*index])
    }

    /// Whose `range` is, seen from `cluster`. If parts of it have several owners, one of another cluster is named.
    pub(crate) fn claim(&self, cluster: &ClusterName, range: Range) -> Claim<'_> {
        let owners = || self.ranges.overlapping(range).map(|index| &self.nodes[*index]);
        if let Some(node) = owners().find(|node| node.name.cluster != *cluster) {
            return Claim::Foreign(AddressOwner::Node(node.name.clone()));
        }
        if let Some(owner) = self.owner_besides_nodes(cluster, range) {
            return Claim::Foreign(owner);
        }
        owners().next().map_or(Claim::Free, Claim::Own)
    }
}
