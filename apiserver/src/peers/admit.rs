//! What is taken from a peer, and what is refused: the border between clusters that do not trust each other.
//!
//! ```text
//! record of the peer ─ schema: is it one, of this cluster, in its identities? ─ bounds: are its addresses the peer's? ─► taken
//! ```
//!
//! - Nothing that a peer publishes takes a reserved identity or one of another cluster. Reserved ones are refused
//!   without exception: what is a node, a health address or an ingress follows from the peer's nodes, not from its word.
//! - Pods, their backends and what belongs to the overlay are within the ranges that were agreed on. A node's own
//!   address is nobody else's, and not within anybody's ranges.
//! - A record is taken or refused as a whole, since it is passed on byte for byte.
//! - Pure: the same record and bounds give the same answer.

use std::collections::BTreeSet;
use std::net::IpAddr;

use landbridge_kvstore_schema::{
    AddressType, ClusterName, ClusterService, Identity, IpIdentityPair, IpPrefix, Kind, Node, Origin,
    RecordError, RecordName, Rejection,
};

use super::addresses::{AddressesByCluster, is_of_hosts, list, within};

/// The kinds of records that are taken from a peer.
pub const KINDS: [Kind; 4] = [Kind::Nodes, Kind::Identities, Kind::Ips, Kind::Services];

/// The most records of a kind that one peer may have: what a node's maps hold is shared by all clusters.
pub const fn limit(kind: Kind) -> usize {
    match kind {
        Kind::Nodes => 5_000,
        Kind::Identities => 65_536,
        Kind::Ips => 250_000,
        Kind::Services => 20_000,
        Kind::EndpointSlices | Kind::ServiceExports => 0,
    }
}

/// The most bytes that the records of a kind of one peer may have together: all of them are held in memory, also those
/// that are refused.
pub const fn limit_bytes(kind: Kind) -> usize {
    match kind {
        Kind::Nodes => 32 << 20,
        Kind::Identities => 64 << 20,
        Kind::Ips | Kind::Services => 128 << 20,
        Kind::EndpointSlices | Kind::ServiceExports => 0,
    }
}

/// What was agreed on with a peer, and what belongs to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Who the peer is, and where its records are.
    pub origin: Origin,
    /// Ranges of its pods.
    pub pod_ranges: Vec<IpPrefix>,
    /// The addresses of all other clusters, this one's among them.
    pub taken: AddressesByCluster,
}

/// Whether a record is taken. `is_node` says whether a node of the peer has an address, as far as is known.
///
/// # Errors
/// [`Refusal`] with the reason.
pub fn admit(
    bounds: &Bounds,
    is_node: impl Fn(IpAddr) -> bool,
    name: &RecordName,
    value: &[u8],
) -> Result<Admitted, Refusal> {
    match name {
        RecordName::Node(node) => admit_node(bounds, &Node::decode(&bounds.origin, node, value)?),
        RecordName::Identity(number) => {
            Identity::decode(&bounds.origin, *number, value)?;
            Ok(Admitted::default())
        }
        RecordName::Ip(ip) => {
            let pair = IpIdentityPair::decode(&bounds.origin, *ip, value)?;
            bounds.check_pods("IP", &pair.ip.covered())?;
            pair.host_ip.map_or(Ok(()), |host| bounds.check_node("HostIP", host))?;
            Ok(Admitted::default())
        }
        RecordName::Service(service) => {
            let service = ClusterService::decode(&bounds.origin, service, value)?;
            // A backend is a pod, or a pod in the network of its node.
            let (on_nodes, pods): (Vec<&IpAddr>, Vec<&IpAddr>) =
                service.backends.keys().partition(|ip| is_node(**ip));
            pods.iter().try_for_each(|pod| bounds.check_pods("backends", &IpPrefix::host(**pod)))?;
            Ok(Admitted { depends_on_nodes: !on_nodes.is_empty(), ..Admitted::default() })
        }
        RecordName::EndpointSlice(_) | RecordName::ServiceExport(_) => {
            Err(Refusal::Kind { kind: name.kind() })
        }
    }
}

fn admit_node(bounds: &Bounds, node: &Node) -> Result<Admitted, Refusal> {
    let v4 = node.ipv4_pod_cidrs.iter().map(|range| IpPrefix::V4(*range));
    let v6 = node.ipv6_pod_cidrs.iter().map(|range| IpPrefix::V6(*range));
    v4.chain(v6).try_for_each(|range| bounds.check_pods("AllocCIDR", &range))?;

    let health = [node.ipv4_health.map(IpAddr::V4), node.ipv6_health.map(IpAddr::V6)];
    let ingress = [node.ipv4_ingress.map(IpAddr::V4), node.ipv6_ingress.map(IpAddr::V6)];
    let in_overlay = |field, address: &IpAddr| bounds.check_pods(field, &IpPrefix::host(*address));
    health.iter().flatten().try_for_each(|address| in_overlay("HealthIP", address))?;
    ingress.iter().flatten().try_for_each(|address| in_overlay("IngressIP", address))?;

    let mut own = BTreeSet::new();
    for address in &node.addresses {
        if address.address_type == AddressType::CiliumInternalIp {
            in_overlay("CiliumInternalIP", &address.ip)?;
        } else {
            bounds.check_node("IPAddresses", address.ip)?;
            own.insert(address.ip);
        }
    }
    Ok(Admitted { node_addresses: own, ..Admitted::default() })
}

impl Bounds {
    /// Whether the peer's pods may have `range`.
    fn check_pods(&self, field: &'static str, range: &IpPrefix) -> Result<(), Refusal> {
        if !self.pod_ranges.iter().any(|agreed| within(range, agreed)) {
            return Err(Refusal::Outside { field, range: *range, agreed: list(&self.pod_ranges) });
        }
        // The agreed ranges are checked when a peer is added, but other clusters get nodes later.
        self.check_taken(field, range)
    }

    /// Whether a node of the peer may have `address`.
    fn check_node(&self, field: &'static str, address: IpAddr) -> Result<(), Refusal> {
        let range = IpPrefix::host(address);
        if !is_of_hosts(&range) {
            return Err(Refusal::NoHost { field, address });
        }
        if let Some(agreed) = self.pod_ranges.iter().find(|agreed| agreed.contains(address)) {
            return Err(Refusal::NodeAmongPods { field, address, agreed: *agreed });
        }
        self.check_taken(field, &range)
    }

    fn check_taken(&self, field: &'static str, range: &IpPrefix) -> Result<(), Refusal> {
        let mut others = self.taken.iter();
        let taken = others.find_map(|(cluster, taken)| Some((cluster, taken.overlap(range)?)));
        taken.map_or(Ok(()), |(cluster, taken)| {
            Err(Refusal::Taken { field, range: *range, taken, cluster: cluster.clone() })
        })
    }
}

/// What is remembered of a record that is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admitted {
    /// Addresses of the node itself in the underlay; none for other records.
    pub node_addresses: BTreeSet<IpAddr>,
    /// Whether it is taken because the peer's nodes have some address.
    pub depends_on_nodes: bool,
}

/// Why a record is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not valid, or speaks for another cluster.
    #[error("{}", .0.rejection)]
    Record(#[from] RecordError),
    /// Records of this kind are not taken.
    #[error("{kind} are not taken from peers")]
    Kind {
        /// The kind.
        kind: Kind,
    },
    /// Addresses that were not agreed on.
    #[error("{field} holds {range}, which is not in the agreed {agreed}")]
    Outside {
        /// The field.
        field: &'static str,
        /// What it holds.
        range: IpPrefix,
        /// The ranges.
        agreed: String,
    },
    /// Addresses of another cluster, or of this one.
    #[error("{field} holds {range}, which overlaps {taken} of cluster {cluster}")]
    Taken {
        /// The field.
        field: &'static str,
        /// What it holds.
        range: IpPrefix,
        /// What it overlaps.
        taken: IpPrefix,
        /// Whose that is.
        cluster: ClusterName,
    },
    /// A node within the ranges of its pods: whatever goes to the pod would go around the overlay.
    #[error("{field} holds {address}, which is in the pods' range {agreed}")]
    NodeAmongPods {
        /// The field.
        field: &'static str,
        /// The address.
        address: IpAddr,
        /// The range.
        agreed: IpPrefix,
    },
    /// An address that no node can be reached at.
    #[error("{field} holds {address}, which is not the address of a host")]
    NoHost {
        /// The field.
        field: &'static str,
        /// The address.
        address: IpAddr,
    },
    /// More records than one peer may have.
    #[error("the peer has more than {limit} {kind}, or more than {limit_bytes} bytes of them")]
    TooMany {
        /// The kind.
        kind: Kind,
        /// How many it may have.
        limit: usize,
        /// How many bytes they may have together.
        limit_bytes: usize,
    },
    /// A key that holds no valid name.
    #[error("the key holds no valid name")]
    Key,
}

impl Refusal {
    /// A word for the reason, for the label of a metric.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Record(error) => Rejection::reason(&error.rejection),
            Self::Kind { .. } => "kind",
            Self::Outside { .. } => "outside_agreed_ranges",
            Self::Taken { .. } => "address_taken",
            Self::NodeAmongPods { .. } => "node_among_pods",
            Self::NoHost { .. } => "no_host_address",
            Self::TooMany { .. } => "too_many",
            Self::Key => "invalid_key",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
