//! Datagrams in pieces: only the first piece says which ports it is for.

use crate::Address;

/// Key of the `FRAGMENTS` map, a `BPF_MAP_TYPE_LRU_HASH`: one datagram (RFC 791, section 3.2; RFC 8200, section 4.5).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentKey {
    /// Who sent it.
    pub source: Address,
    /// Who it is for.
    pub destination: Address,
    /// Tells it from others between the two, as it is in the packet; of IPv4 the first two bytes.
    pub identification: [u8; 4],
    /// IP protocol number.
    pub protocol: u8,
    /// 0.
    pub reserved: [u8; 3],
}

/// Value of the `FRAGMENTS` map: what the first piece says and the others do not. Network byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FragmentPorts {
    /// Of an ICMP echo its identifier, on both sides.
    pub source_port: [u8; 2],
    /// Likewise.
    pub destination_port: [u8; 2],
    /// What rules take for the port: of ICMP the type.
    pub policy_port: [u8; 2],
    /// 0.
    pub reserved: [u8; 2],
}
