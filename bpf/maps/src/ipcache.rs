//! Who an address belongs to, and where it is.

use crate::Address;

/// Security identities with a meaning of their own (Cilium's `pkg/identity/numericidentity.go`).
///
/// All others are 24 bits: the cluster's id in the high bits, [`NodeConfig::cluster_shift`](crate::NodeConfig) says how
/// many, and a number that the cluster's apiserver allocates, 256 or more. A lower part of 0 means "of this cluster, not
/// known more closely": the address is in a range of the cluster, but its record has not arrived.
pub mod identity {
    /// Nothing is known.
    pub const UNKNOWN: u32 = 0;
    /// This node.
    pub const HOST: u32 = 1;
    /// Outside of the mesh.
    pub const WORLD: u32 = 2;
    /// The address that health probes go to.
    pub const HEALTH: u32 = 4;
    /// Another node, of any cluster.
    pub const REMOTE_NODE: u32 = 6;
    /// The first one that is allocated; what is below is reserved.
    pub const FIRST_ALLOCATED: u32 = 256;
    /// Identities have 24 bits, as many as a VNI.
    pub const MAX: u32 = (1 << 24) - 1;
}

/// Position in the `NODES` array; 0 is no node.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeNumber(pub u32);

impl NodeNumber {
    /// The address is not behind a tunnel: on this node, or outside of the mesh.
    pub const NONE: Self = Self(0);
}

/// Value of the `IPCACHE` map, a `BPF_MAP_TYPE_HASH` by [`Address`], and of `CIDRS`.
///
/// A hash for addresses: its lookup takes a tenth of a trie's time at half a million addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct IpcacheEntry {
    /// Security identity.
    pub identity: u32,
    /// The node that the address is behind.
    pub node: NodeNumber,
}

/// Key of the `CIDRS` map, a `BPF_MAP_TYPE_LPM_TRIE`: prefixes, for addresses without an entry of their own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CidrKey {
    /// How many leading bits of `address` must match; an IPv4 prefix counts [`IPV4_PREFIX_BITS`](crate::IPV4_PREFIX_BITS)
    /// more.
    pub prefix_len: u32,
    /// The bits behind the prefix are 0.
    pub address: Address,
}

/// Entries of the `NODES` array.
pub const NODES_LEN: u32 = 65_536;

/// Value of the `NODES` map, a `BPF_MAP_TYPE_ARRAY` by [`NodeNumber`]. A node that moves is one write.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeEntry {
    /// Where the node is reached in the underlay; none for a number that is not taken.
    pub underlay: Address,
    /// The cluster that the node is of: what comes from it may only carry that cluster's identities.
    pub cluster: u32,
}
