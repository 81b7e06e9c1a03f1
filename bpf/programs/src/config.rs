//! What the loader knows when it loads: constants, frozen, so that the verifier removes what they switch off.

use aya_ebpf::{Global, helpers::bpf_redirect_neigh};
use landbridge_bpf_maps::{Address, NodeConfig};

#[unsafe(no_mangle)]
static CONFIG: Global<NodeConfig> = Global::new(NodeConfig {
    router: Address([0; 16]),
    health: Address([0; 16]),
    router6: Address([0; 16]),
    health6: Address([0; 16]),
    masquerade: Address([0; 16]),
    masquerade6: Address([0; 16]),
    overlay_interface: 0,
    uplink_interface: 0,
    overlay_mtu: 0,
    overlay_port: 0,
    cluster: 0,
    cluster_shift: 16,
    flags: 0,
    reserved: 0,
});

/// One field of the constants. Reading all of them would take up a quarter of a program's stack.
macro_rules! config {
    ($field:ident) => {{
        let config: *const NodeConfig = (&raw const CONFIG).cast();
        // SAFETY: `Global` is transparent, and the loader wrote all of it before the program was loaded. Volatile, since
        // the compiler would take the value above for the one to find.
        unsafe { (&raw const (*config).$field).read_volatile() }
    }};
}

/// How many bits of an identity are below the cluster.
#[inline(always)]
pub fn cluster_shift() -> u32 {
    config!(cluster_shift)
}

/// Index of the tunnel interface.
#[inline(always)]
pub fn overlay_interface() -> u32 {
    config!(overlay_interface)
}

/// The largest packet that fits in a tunnel over IPv4, 0 if nobody asks.
#[inline(always)]
pub fn overlay_mtu() -> u32 {
    config!(overlay_mtu)
}

/// UDP port of tunnels, 0 if pods may send there.
#[inline(always)]
pub fn overlay_port() -> u32 {
    config!(overlay_port)
}

/// Whether programs of sockets can choose the error that an application gets.
#[inline(always)]
pub fn has_socket_errors() -> bool {
    config!(flags) & NodeConfig::PLAIN_REFUSAL == 0
}

/// Whether other nodes' pods are reached without a tunnel.
#[inline(always)]
pub fn is_direct() -> bool {
    config!(flags) & NodeConfig::DIRECT != 0
}

/// Whether what pods send to the world leaves under an address of the node.
#[inline(always)]
pub fn is_masquerading() -> bool {
    config!(flags) & NodeConfig::MASQUERADE != 0
}

/// That address, for packets of this version of IP; none if there is none.
#[inline(always)]
pub fn masquerade_address(version: u8) -> Address {
    if version == 4 { config!(masquerade) } else { config!(masquerade6) }
}

/// Sends a packet to the next router, or to its receiver if that is a neighbour.
#[inline(always)]
pub fn to_underlay() -> i32 {
    let uplink = config!(uplink_interface);
    // SAFETY: without parameters the helper looks for a route by itself.
    unsafe { bpf_redirect_neigh(uplink, core::ptr::null_mut(), 0, 0) as i32 }
}

/// The address that pods use as their gateway for IPv4.
#[inline(always)]
pub fn router() -> Address {
    config!(router)
}

/// The same for IPv6.
#[inline(always)]
pub fn router6() -> Address {
    config!(router6)
}

/// Whether an address is one that pods use as their gateway, or one that is probed.
#[inline(always)]
pub fn is_of_this_node(address: &Address) -> bool {
    if address.is_ipv4() {
        *address == config!(router) || *address == config!(health)
    } else {
        *address == config!(router6) || *address == config!(health6)
    }
}
