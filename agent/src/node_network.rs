//! The node's own interface: its addresses among pods, and where packets to other nodes leave.
//!
//! ```text
//! lb_vxlan   router and health address; each packet's tunnel is chosen by a program
//! eth0 …     the uplink, as it is found
//! ```
//!
//! An interface that is there already is taken over as it is: an agent that starts again changes nothing.

use std::net::IpAddr;

use tracing::{info, warn};

use crate::config::Routing;
use crate::netlink::{Interface, InterfaceKind, Netlink, NetlinkError};
use crate::pod_cidr::PodCidr;
use crate::sysctl::{self, SysctlError};

/// Leads to other nodes.
pub(crate) const OVERLAY_INTERFACE: &str = "lb_vxlan";
/// The port of VXLAN on Linux and in Cilium; the one of RFC 7348 is 4789.
pub(crate) const OVERLAY_PORT: u16 = 8472;
/// What a tunnel adds to a packet: Ethernet 14, VXLAN 8, UDP 8, IPv4 20 bytes.
const OVERLAY_OVERHEAD: u32 = 50;

/// Why the node's interfaces are not as they have to be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeNetworkError {
    /// The kernel refused a change.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A setting cannot be changed.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The uplink has too little room.
    #[error(
        "the uplink {uplink} carries packets of {mtu} bytes, and a tunnel takes {OVERLAY_OVERHEAD} of them: raise its MTU"
    )]
    Mtu {
        /// The uplink.
        uplink: String,
        /// Its MTU.
        mtu: u32,
    },
}

/// The node's interfaces, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeNetwork {
    /// Index of the overlay's interface.
    pub(crate) overlay: u32,
    /// How other nodes' pods are reached.
    pub(crate) routing: Routing,
    /// The largest packet that a pod may send, in bytes.
    pub(crate) pod_mtu: u32,
    /// The largest packet in a tunnel over IPv4, in bytes.
    pub(crate) overlay_mtu: u32,
    /// The first address of each family on the uplink, IPv4 first.
    pub(crate) uplink_addresses: [Option<IpAddr>; 2],
}

impl NodeNetwork {
    /// Makes what is missing.
    ///
    /// # Errors
    /// [`NodeNetworkError`]; what was made until then stays, and is taken over the next time.
    pub(crate) async fn set_up(
        netlink: &Netlink,
        uplink: &str,
        cidr: PodCidr,
        routing: Routing,
    ) -> Result<Self, NodeNetworkError> {
        let Interface { mtu, index, .. } = netlink.existing(uplink).await?;
        let overlay_mtu = mtu.checked_sub(OVERLAY_OVERHEAD).filter(|mtu| *mtu >= SMALLEST_MTU);
        let overlay_mtu =
            overlay_mtu.ok_or_else(|| NodeNetworkError::Mtu { uplink: uplink.to_owned(), mtu })?;
        let has_ipv6 = cidr.prefix6().is_some();
        let overlay = set_up_overlay(netlink, mtu, has_ipv6).await?;
        set_addresses(netlink, overlay, cidr).await?;
        sysctl::allow_forwarding(OVERLAY_INTERFACE, uplink)?;
        if has_ipv6 {
            sysctl::allow_forwarding6(uplink)?;
        }
        let addresses = netlink.addresses(index).await?;
        let first = |is_v4| addresses.iter().map(|(ip, _)| *ip).find(|ip| ip.is_ipv4() == is_v4);
        let pod_mtu = if routing == Routing::Direct { mtu } else { overlay_mtu };
        Ok(Self { overlay, routing, pod_mtu, overlay_mtu, uplink_addresses: [first(true), first(false)] })
    }
}

/// The smallest packet that every IPv4 host takes whole (RFC 791).
const SMALLEST_MTU: u32 = 576;

async fn set_addresses(netlink: &Netlink, overlay: u32, cidr: PodCidr) -> Result<(), NetlinkError> {
    let own = cidr.both(cidr.router()).chain(cidr.both(cidr.health()));
    let wanted: Vec<_> = own.map(|ip| (ip, host_bits(ip))).collect();
    let present = netlink.addresses(overlay).await?;
    for (address, len) in wanted.iter().filter(|address| !present.contains(address)) {
        netlink.add_address(overlay, *address, *len).await?;
    }
    for (address, len) in present.iter().filter(|address| !wanted.contains(address)) {
        warn!(interface = OVERLAY_INTERFACE, %address, "removing an address that is not of the node's PodCIDR");
        netlink.remove_address(overlay, *address, *len).await?;
    }
    Ok(())
}

/// How many bits of an address say which one it is.
pub(crate) const fn host_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

async fn set_up_overlay(netlink: &Netlink, mtu: u32, has_ipv6: bool) -> Result<u32, NodeNetworkError> {
    match netlink.interface(OVERLAY_INTERFACE).await? {
        Some(Interface { kind: InterfaceKind::Overlay { port: OVERLAY_PORT }, .. }) => {}
        Some(other) => {
            warn!(interface = OVERLAY_INTERFACE, kind = ?other.kind, "replacing an interface that is not the overlay's");
            netlink.remove_link(OVERLAY_INTERFACE).await?;
            netlink.add_overlay(OVERLAY_INTERFACE, OVERLAY_PORT, mtu).await?;
        }
        None => {
            netlink.add_overlay(OVERLAY_INTERFACE, OVERLAY_PORT, mtu).await?;
            info!(interface = OVERLAY_INTERFACE, mtu, "overlay created");
        }
    }
    let overlay = netlink.existing(OVERLAY_INTERFACE).await?;
    if has_ipv6 {
        sysctl::without_link_address(OVERLAY_INTERFACE)?;
    }
    sysctl::set_ipv6(OVERLAY_INTERFACE, has_ipv6)?;
    if !overlay.up || overlay.mtu != mtu {
        netlink.set_up(overlay.index, Some(mtu)).await?;
    }
    Ok(overlay.index)
}
