//! The nodes of a cluster.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use landbridge_kvstore_schema::{AddressType, Ipv4Prefix, Ipv6Prefix, NodeAddress, ObjectName};

/// A node: where it is reached, and where its pods have their addresses from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: ObjectName,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its own addresses, as `status.addresses` has them; only those that are IP addresses.
    pub addresses: Vec<NodeAddress>,
    /// The range of its pods; `None` until one is given to it.
    pub pod_range: Option<Ipv4Prefix>,
    /// The range of IPv6 that it declares for its pods as well.
    pub pod_range6: Option<Ipv6Prefix>,
    /// Changes with each boot; empty if not known.
    pub boot_id: String,
}

/// The label that says where a node is (Kubernetes, "Well-Known Labels").
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

impl Node {
    /// The shortest pod range that has a router, a health address and one pod.
    pub const LONGEST_POD_RANGE: u8 = 29;
    /// The same for a range of IPv6. Each of its addresses goes with one of IPv4: agents want as many of them.
    pub const LONGEST_POD_RANGE6: u8 = 125;

    /// The address that tunnels to the node end at.
    pub fn internal_ip(&self) -> Option<IpAddr> {
        self.addresses
            .iter()
            .find(|address| address.address_type == AddressType::InternalIp)
            .map(|address| address.ip)
    }

    /// The address that its pods have as their router: the first one of their range.
    pub fn router(&self) -> Option<Ipv4Addr> {
        Some(nth(self.pod_range?, 1))
    }

    /// The address that answers health probes: the second one of the pods' range.
    pub fn health(&self) -> Option<Ipv4Addr> {
        Some(nth(self.pod_range?, 2))
    }

    /// Its pods' router of IPv6, likewise.
    pub fn router6(&self) -> Option<Ipv6Addr> {
        Some(nth6(self.pod_range6?, 1))
    }

    /// What answers health probes over IPv6, likewise.
    pub fn health6(&self) -> Option<Ipv6Addr> {
        Some(nth6(self.pod_range6?, 2))
    }

    /// The zone that it is in.
    pub fn zone(&self) -> Option<&str> {
        self.labels.get(ZONE_LABEL).map(String::as_str)
    }
}

/// The network address plus `n`; ranges of nodes are long enough for the small numbers asked for.
fn nth(range: Ipv4Prefix, n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(range.network().to_bits() | n)
}

fn nth6(range: Ipv6Prefix, n: u128) -> Ipv6Addr {
    Ipv6Addr::from_bits(range.network().to_bits() | n)
}
