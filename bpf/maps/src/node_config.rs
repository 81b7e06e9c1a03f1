//! What a node's programs know from the start.

use crate::Address;

/// Constants of a node, frozen when the programs are loaded, so that the verifier removes what they switch off.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeConfig {
    /// IPv4 address that pods use as their gateway, the first of the node's `PodCIDR`; none if it has no IPv4 one.
    pub router: Address,
    /// Answered by this node's kernel when other nodes probe it, the second of the `PodCIDR`; likewise.
    pub health: Address,
    /// The same of the IPv6 `PodCIDR`; none if there is none.
    pub router6: Address,
    /// Likewise.
    pub health6: Address,
    /// The source of what pods send over IPv4 to the world, if [`NodeConfig::MASQUERADE`] is on; none to leave it alone.
    pub masquerade: Address,
    /// The same for IPv6.
    pub masquerade6: Address,
    /// Index of the tunnel interface.
    pub overlay_interface: u32,
    /// Index of the interface that leads to other nodes and to the world; 0 if it has no programs.
    pub uplink_interface: u32,
    /// The largest packet in bytes that fits in a tunnel over IPv4, 20 more than over IPv6; 0 if nobody asks.
    pub overlay_mtu: u32,
    /// UDP port of tunnels, 1 to 65535; 0 if pods may send there.
    pub overlay_port: u32,
    /// Id of the node's cluster.
    pub cluster: u32,
    /// How many bits of an identity are below the cluster's id: 16 in a mesh of 255 clusters, 15 in one of 511.
    pub cluster_shift: u32,
    /// What is switched on: [`NodeConfig::DIRECT`] and the others.
    pub flags: u32,
    /// 0; for later use.
    pub reserved: u32,
}

impl NodeConfig {
    /// Other nodes' pods are reached without a tunnel, by the underlay's routes, and believed to be who the ipcache says.
    pub const DIRECT: u32 = 1;
    /// What pods send to the world leaves under an address of the node.
    pub const MASQUERADE: u32 = 2;
    /// Programs of sockets cannot choose the error that an application gets.
    pub const PLAIN_REFUSAL: u32 = 1 << 31;
}
