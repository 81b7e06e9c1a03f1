//! What pods send to the world under an address of their node.
//!
//! Each connection is two entries: from what the pod sends to what leaves the node, and from what comes back to the pod.

use core::ops::RangeInclusive;

use crate::Address;

/// The ports that masqueraded connections get, and the identifiers of echoes. They are above the range from which Linux
/// takes ports for the node's own sockets by default (`net.ipv4.ip_local_port_range`), so that both never meet.
pub const MASQUERADE_PORTS: RangeInclusive<u16> = 61_000..=65_535;

/// Key of the `MASQUERADE` map, a `BPF_MAP_TYPE_LRU_HASH`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MasqueradeKey {
    /// The side that is translated: of a packet on its way out the pod, of one that comes back the node.
    pub near: Address,
    /// The side in the world.
    pub far: Address,
    /// Port of the near side, network byte order; of an ICMP echo its identifier.
    pub near_port: [u8; 2],
    /// Port of the far side, likewise; of an ICMP echo 0.
    pub far_port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// 0.
    pub reserved: [u8; 3],
}

/// Value of the `MASQUERADE` map: what stands in the place of the key's near side.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MasqueradeEntry {
    /// The node's address in the entry of the pod, the pod's in that of the node.
    pub address: Address,
    /// Its port, network byte order; of an ICMP echo its identifier.
    pub port: [u8; 2],
    /// [`Endpoint::tag`](crate::Endpoint::tag) of the pod: the translation lives as long as its connection does.
    pub endpoint: u16,
}
