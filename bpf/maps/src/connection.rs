//! Connections that policy has let through, so that their replies pass.

use crate::Address;

/// Key of the `CONNECTIONS` map, a `BPF_MAP_TYPE_LRU_HASH`: one connection at one endpoint, named from its initiator's
/// side.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionKey {
    /// Address of the side that began.
    pub source: Address,
    /// Address of the other side.
    pub destination: Address,
    /// Network byte order. Of an ICMP echo its identifier, on both sides.
    pub source_port: [u8; 2],
    /// Likewise.
    pub destination_port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// [`Direction`](crate::Direction) of the first packet as the endpoint sees it: on one node, a connection between two
    /// pods is one entry each, and what one of them admits says nothing of the other.
    pub direction: u8,
    /// [`Endpoint::tag`](crate::Endpoint::tag): a pod that gets the address of one before it gets none of its connections.
    pub endpoint: u16,
}

/// Value of the `CONNECTIONS` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionEntry {
    /// When a packet was last seen, nanoseconds of the kernel's monotonic clock.
    pub last_seen: u64,
    /// Identity of the other side.
    pub peer: u32,
    /// What is known of it: [`ConnectionEntry::REPLIED`] and the others.
    pub flags: u32,
}

/// Each is a byte of its own: who adds one writes that byte, and takes nothing back that another CPU adds at the same time.
impl ConnectionEntry {
    /// The other side has answered.
    pub const REPLIED: u32 = 1;
    /// The side that began has closed its half (TCP FIN or RST).
    pub const CLOSED_BY_SOURCE: u32 = 1 << 8;
    /// The other side has closed its half.
    pub const CLOSED_BY_DESTINATION: u32 = 1 << 16;
    /// The other side was called by the name of a service, see [`ServiceFlow`](crate::ServiceFlow).
    pub const TRANSLATED: u32 = 1 << 24;
}
