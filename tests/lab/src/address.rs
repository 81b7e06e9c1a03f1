//! Which address each host of a lab has: derived from its numbers, so that nobody has to ask.
//!
//! | what | v4 | v6 |
//! |---|---|---|
//! | node n of cluster c | `172.30.c.n/24` | `fd30:c::n/64` |
//! | router on the side of cluster c | `172.30.c.254` | `fd30:c::fe` |
//! | `PodCIDR` of that node, pod range r of the cluster | `10.r.n.0/24` | `fd10:r:n::/64` |
//! | its router address, health address | first, second of the `PodCIDR` | the same |
//! | pod p of that node | `10.r.n.(9+p)` | `fd10:r:n::(9+p)` |

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Host part of the wide-area router's address in each cluster's underlay.
const ROUTER: u8 = 254;
/// Pod 1 has host part 10: what is below belongs to the node (router and health address).
const FIRST_POD_MINUS_ONE: u8 = 9;

/// An address block: an address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Any address of the block; the first one where the block as a whole is meant.
    pub address: IpAddr,
    /// 0 to 32 for IPv4, 0 to 128 for IPv6.
    pub len: u8,
}

impl Prefix {
    pub(crate) const DEFAULT_V4: Self = Self::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    pub(crate) const DEFAULT_V6: Self = Self::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

    pub(crate) const fn new(address: IpAddr, len: u8) -> Self {
        Self { address, len }
    }

    /// The block that holds just this address.
    pub(crate) const fn host(address: IpAddr) -> Self {
        Self::new(address, if address.is_ipv4() { 32 } else { 128 })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// The addresses of one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterAddresses {
    number: u8,
    pod_range: u8,
}

impl ClusterAddresses {
    /// Both numbers are 1 to 254.
    pub(crate) fn new(number: u8, pod_range: u8) -> Self {
        Self { number, pod_range }
    }

    /// The addresses of node `number` of this cluster.
    pub fn node(self, number: u8) -> NodeAddresses {
        NodeAddresses { cluster: self, number }
    }

    /// The wide-area router's addresses on the side of this cluster, IPv4 first.
    pub fn router(self) -> [IpAddr; 2] {
        self.underlay(ROUTER)
    }

    /// An underlay address with the length of the block that the cluster's nodes and the router share.
    pub(crate) fn in_underlay(address: IpAddr) -> Prefix {
        Prefix::new(address, if address.is_ipv4() { 24 } else { 64 })
    }

    fn underlay(self, host: u8) -> [IpAddr; 2] {
        let v4 = Ipv4Addr::new(172, 30, self.number, host);
        let v6 = Ipv6Addr::new(0xfd30, self.number.into(), 0, 0, 0, 0, 0, host.into());
        [v4.into(), v6.into()]
    }
}

/// The addresses of one node and of its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeAddresses {
    cluster: ClusterAddresses,
    number: u8,
}

impl NodeAddresses {
    /// The node's own addresses in the underlay, IPv4 first.
    pub fn underlay(self) -> [IpAddr; 2] {
        self.cluster.underlay(self.number)
    }

    /// The blocks the node's pods take their addresses from, IPv4 first.
    pub fn pod_cidrs(self) -> [Prefix; 2] {
        let [v4, v6] = self.overlay(0);
        [Prefix::new(v4, 24), Prefix::new(v6, 64)]
    }

    /// The pods' gateway: the first address of each `PodCIDR`, IPv4 first.
    pub fn router(self) -> [IpAddr; 2] {
        self.overlay(1)
    }

    /// What health probes ask: the second address of each `PodCIDR`, IPv4 first.
    pub fn health(self) -> [IpAddr; 2] {
        self.overlay(2)
    }

    /// The addresses of pod `number`, counted from 1, IPv4 first.
    pub fn pod(self, number: u8) -> [IpAddr; 2] {
        self.overlay(FIRST_POD_MINUS_ONE + number)
    }

    fn overlay(self, host: u8) -> [IpAddr; 2] {
        let range = self.cluster.pod_range;
        let v4 = Ipv4Addr::new(10, range, self.number, host);
        let v6 = Ipv6Addr::new(0xfd10, range.into(), self.number.into(), 0, 0, 0, 0, host.into());
        [v4.into(), v6.into()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_the_table() {
        let node = ClusterAddresses::new(7, 2).node(3);
        assert_eq!(node.underlay().map(|a| a.to_string()), ["172.30.7.3", "fd30:7::3"]);
        assert_eq!(node.pod_cidrs().map(|p| p.to_string()), ["10.2.3.0/24", "fd10:2:3::/64"]);
        assert_eq!(node.router().map(|a| a.to_string()), ["10.2.3.1", "fd10:2:3::1"]);
        assert_eq!(node.health().map(|a| a.to_string()), ["10.2.3.2", "fd10:2:3::2"]);
        assert_eq!(node.pod(1).map(|a| a.to_string()), ["10.2.3.10", "fd10:2:3::a"]);
        let router = ClusterAddresses::new(7, 2).router();
        assert_eq!(router.map(|a| a.to_string()), ["172.30.7.254", "fd30:7::fe"]);
    }
}
