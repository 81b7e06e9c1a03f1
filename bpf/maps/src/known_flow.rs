//! Flows that were judged a moment ago, so that their next packets are not judged one by one.

use crate::Address;

/// Key of the `KNOWN_FLOWS` map, a `BPF_MAP_TYPE_LRU_HASH`: the packets of one direction of a TCP or UDP connection, as they come
/// through one interface.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Who sends them.
    pub source: Address,
    /// Who they are for.
    pub destination: Address,
    /// Network byte order.
    pub source_port: [u8; 2],
    /// Likewise.
    pub destination_port: [u8; 2],
    /// Index of the interface. What is known of a pod's packets says nothing of those that another one sends in its name.
    pub interface: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// A [`Hook`].
    pub hook: u8,
    /// 0; for later use.
    pub reserved: [u8; 2],
}

/// Which program packets come through.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `from_pod`.
    Pod = 1,
    /// `from_overlay`.
    Overlay = 2,
    /// `from_uplink`.
    Uplink = 3,
}

/// Value of the `KNOWN_FLOWS` map: what becomes of such packets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct KnownFlow {
    /// When a packet of it has to be judged again, nanoseconds of the kernel's monotonic clock: connections are to know that
    /// they are in use.
    pub until: u64,
    /// What the `GENERATION` map said when it was judged; with any other number there it means nothing.
    pub generation: u32,
    /// Where to, a [`Way`].
    pub way: u32,
    /// Of a packet that leaves through a tunnel, where that leads in the underlay. Of one that comes out of a tunnel, where
    /// that has to begin.
    pub tunnel: Address,
    /// The identity in the tunnel's header, of either.
    pub identity: u32,
    /// Index of the node's side of the interface of the pod that gets it.
    pub interface: u32,
    /// Link-layer addresses as they begin a frame to that pod: of its side, and of the node's.
    pub links: [u32; 3],
    /// 0; for later use.
    pub reserved: u32,
}

/// Where a packet goes.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To a pod of this node.
    Pod = 1,
    /// Through a tunnel.
    Tunnel = 2,
    /// To the underlay as it is.
    Uplink = 3,
    /// To the node's own stack.
    Stack = 4,
}

/// Entries of the `GENERATION` map, a `BPF_MAP_TYPE_ARRAY` of one number.
///
/// Its owner counts it up before it changes what packets are judged by, and again afterwards: while it is odd nothing that is
/// known counts, and nothing becomes known. An owner that dies in between leaves it odd, and packets are judged one by one.
pub const GENERATION_LEN: u32 = 1;
