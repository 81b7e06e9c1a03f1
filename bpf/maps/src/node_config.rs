//! What a node's programs know from the start.

use crate::Address;

/// Constants of a node, frozen when the programs are loaded, so that the verifier removes what they switch off.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeConfig {
    /// IPv4 address that pods use as their gateway, the first of the node's `PodCIDR`.
    pub router: Address,
    /// Answered by this node's kernel when other nodes probe it, the second of the `PodCIDR`.
    pub health: Address,
    /// Index of the tunnel interface.
    pub overlay_interface: u32,
    /// Id of the node's cluster.
    pub cluster: u32,
    /// How many bits of an identity are below the cluster's id: 16 in a mesh of 255 clusters, 15 in one of 511.
    pub cluster_shift: u32,
    /// What is on: [`NodeConfig::PLAIN_REFUSAL`] and others.
    pub flags: u32,
}

impl NodeConfig {
    /// Programs of sockets cannot choose the error that an application gets.
    pub const PLAIN_REFUSAL: u32 = 1 << 31;
}
