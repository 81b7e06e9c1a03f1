//! Turns the plan of a lab into namespaces, cables, addresses and routes.

use std::fs;

use crate::LabName;
use crate::error::{IoContext, LabError};
use crate::namespace::{self, Namespace};
use crate::netlink::{self, Netlink};
use crate::topology::{BRIDGE, HostPlan, Role, Topology};

/// Settings of every namespace. Addresses are unique by plan, so that nothing is gained by waiting for duplicate
/// address detection.
const COMMON_SETTINGS: [(&str, &str); 4] = [
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/all/rp_filter", "0"),
];
/// Settings of nodes and of the router.
const FORWARDING_SETTINGS: [(&str, &str); 2] =
    [("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")];
/// A switch has no address: its ports must not send or answer anything by themselves.
const SWITCH_SETTINGS: [(&str, &str); 1] = [("net/ipv6/conf/default/disable_ipv6", "1")];

/// Makes the namespace of each host of `topology`, in its order.
pub(crate) fn create_namespaces(lab: &LabName, topology: &Topology) -> Result<Vec<Namespace>, LabError> {
    topology.hosts.iter().map(|host| Namespace::create(&namespace::path(lab, &host.name))).collect()
}

/// Connects and configures the hosts of `topology`, whose namespaces are in the same order.
pub(crate) fn wire(topology: &Topology, namespaces: &[Namespace]) -> Result<(), LabError> {
    for (host, namespace) in topology.hosts.iter().zip(namespaces) {
        let settings = || apply_settings(host.role);
        namespace.run(settings).context(|| format!("enter the namespace of {}", host.name))??;
    }
    for (position, (host, namespace)) in topology.hosts.iter().zip(namespaces).enumerate() {
        let cables = || topology.cables.iter().filter(|cable| cable.ends[0].host == position);
        if host.role == Role::Switch || cables().next().is_some() {
            netlink::within(namespace, async |netlink| {
                if host.role == Role::Switch {
                    netlink.add_bridge(BRIDGE, topology.mtu).await?;
                }
                for cable in cables() {
                    let [near, far] = &cable.ends;
                    let names = (near.interface.as_str(), far.interface.as_str());
                    netlink.add_veth(names, &namespaces[far.host].fd(), topology.mtu).await?;
                }
                Ok(())
            })?;
        }
    }
    for (host, namespace) in topology.hosts.iter().zip(namespaces) {
        netlink::within(namespace, async |netlink| configure(host, &netlink).await)?;
    }
    for (host, namespace) in topology.hosts.iter().zip(namespaces) {
        netlink::within(namespace, async |netlink| {
            for interface in &host.interfaces {
                netlink.wait_until_carrying(&interface.name).await?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

async fn configure(host: &HostPlan, netlink: &Netlink) -> Result<(), LabError> {
    netlink.set_up("lo").await?;
    for interface in &host.interfaces {
        if host.role == Role::Switch {
            netlink.set_bridge(&interface.name, Some(BRIDGE)).await?;
        }
        for address in &interface.addresses {
            netlink.add_address(&interface.name, *address).await?;
        }
        netlink.set_up(&interface.name).await?;
    }
    for route in &host.routes {
        netlink.add_route(route.destination, route.gateway, &route.interface).await?;
    }
    Ok(())
}

/// Writes the settings of a host into the calling thread's namespace.
fn apply_settings(role: Role) -> Result<(), LabError> {
    let of_role: &[(&str, &str)] = match role {
        Role::Router | Role::Node => &FORWARDING_SETTINGS,
        Role::Switch => &SWITCH_SETTINGS,
        Role::Pod => &[],
    };
    for (name, value) in COMMON_SETTINGS.iter().chain(of_role) {
        let path = format!("/proc/sys/{name}");
        fs::write(&path, value).context(|| format!("write {value} to {path}"))?;
    }
    Ok(())
}
