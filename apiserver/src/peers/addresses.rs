//! Which addresses belong to whom.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::LazyLock;

use landbridge_kvstore_schema::{AddressType, ClusterName, IpPrefix, Node, NodeAddress, Peer};

/// The ranges that a cluster gives addresses from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// For pods.
    pub pods: Vec<IpPrefix>,
    /// For services.
    pub services: Vec<IpPrefix>,
}

/// The addresses of a cluster that no other one may take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Ranges of its pods.
    pub pod_ranges: Vec<IpPrefix>,
    /// Ranges of its services. Only within the cluster, so that two clusters may have the same.
    pub service_ranges: Vec<IpPrefix>,
    /// Its nodes in the underlay.
    pub nodes: BTreeSet<IpAddr>,
}

impl Addresses {
    /// Those that a peer has.
    pub fn of_peer(peer: &Peer) -> Self {
        Self {
            pod_ranges: peer.pod_ranges.clone(),
            service_ranges: Vec::new(),
            nodes: peer.node_addresses.iter().copied().collect(),
        }
    }

    /// Those of this cluster: its ranges are configured, its nodes come and go. A node may declare a range of its own.
    pub fn of_own<'a>(ranges: &Ranges, nodes: impl IntoIterator<Item = &'a Node>) -> Self {
        let of_host = |address: &&NodeAddress| address.address_type != AddressType::CiliumInternalIp;
        let mut own = Self {
            pod_ranges: ranges.pods.clone(),
            service_ranges: ranges.services.clone(),
            nodes: BTreeSet::new(),
        };
        for node in nodes {
            own.nodes.extend(node.addresses.iter().filter(of_host).map(|address| address.ip));
            let v4 = node.ipv4_pod_cidrs.iter().copied().map(IpPrefix::V4);
            let declared = v4.chain(node.ipv6_pod_cidrs.iter().copied().map(IpPrefix::V6));
            let elsewhere = declared.filter(|range| !ranges.pods.iter().any(|pods| within(range, pods)));
            own.pod_ranges.extend(elsewhere);
        }
        own
    }

    /// The range, or the node's address as a range, that `range` has an address in common with.
    pub fn overlap(&self, range: &IpPrefix) -> Option<IpPrefix> {
        let nodes = self.nodes.iter().map(|node| IpPrefix::host(*node));
        let ranges = self.pod_ranges.iter().chain(&self.service_ranges).copied();
        ranges.chain(nodes).find(|taken| overlap(taken, range))
    }
}

/// Addresses by cluster, this one's under its own name.
pub type AddressesByCluster = BTreeMap<ClusterName, Addresses>;

/// Whether two ranges have an address in common.
pub fn overlap(one: &IpPrefix, other: &IpPrefix) -> bool {
    one.contains(other.network()) || other.contains(one.network())
}

/// Whether all of `inner` is in `outer`.
pub fn within(inner: &IpPrefix, outer: &IpPrefix) -> bool {
    outer.len() <= inner.len() && outer.contains(inner.network())
}

/// RFC 6890, and IPv4 in IPv6, which has no hosts of its own.
static OF_NO_HOST: LazyLock<Vec<IpPrefix>> = LazyLock::new(|| {
    let v4 = ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4"];
    let v6 = ["::/96", "fe80::/10", "ff00::/8"];
    v4.iter().chain(&v6).map(|text| text.parse().expect("these are ranges")).collect()
});

/// Whether every address of `range` can be one of a host in a network: none of loopback, link-local, multicast,
/// unspecified or broadcast.
pub fn is_of_hosts(range: &IpPrefix) -> bool {
    !OF_NO_HOST.iter().any(|special| overlap(special, range))
}

/// Ranges as a person reads them.
pub(crate) fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::admit::tests::node;
    use super::*;

    #[test]
    fn a_range_that_a_node_declares_outside_of_the_clusters_is_its_own_too() {
        let pods = vec!["10.1.0.0/16".parse().unwrap()];
        let ranges = Ranges { pods, services: Vec::new() };
        let nodes = [node("n1", "172.30.1.1", "10.1.1.0/24"), node("n2", "172.30.1.2", "10.9.1.0/24")];
        let own = Addresses::of_own(&ranges, &nodes);
        assert_eq!(list(&own.pod_ranges), "10.1.0.0/16, 10.9.1.0/24");
        assert!(own.overlap(&"10.9.0.0/16".parse().unwrap()).is_some(), "no peer may take it");
        assert_eq!(list(&own.nodes), "172.30.1.1, 172.30.1.2");
    }
}
