//! ADD and CHECK.

use std::net::IpAddr;

use landbridge_agent_api::v1;
use landbridge_agent_api::v1::node_client::NodeClient;
use landbridge_kvstore_schema::NamespacedName;
use tonic::transport::Channel;

use super::answer::{Answer, Attached, CniError, Code};
use super::client::{PROMPT, WAIT, connect, refused, request, wire};
use super::detach;
use super::invocation::{NetworkConfig, Target};
use super::namespace::{ContainerNamespace, network_error};
use crate::endpoint::Attachment;
use crate::netlink::{Interface, Mac, Netlink};
use crate::node_network::{NodeNetworkError, host_bits};
use crate::sysctl;

/// What the agent has given an interface.
struct Allocation {
    /// Each address with its gateway, one of each family.
    addresses: Vec<(IpAddr, IpAddr)>,
    host_interface: String,
    mtu: u32,
}

/// Makes the interface of a container.
///
/// # Errors
/// [`CniError`]; then nothing is left of it.
pub(super) async fn add(
    config: &NetworkConfig,
    target: &Target,
    pod: &NamespacedName,
) -> Result<Answer, CniError> {
    let namespace = ContainerNamespace::open(&target.namespace)?;
    let interface = &target.attachment.interface;
    if namespace.within(async |netlink| Ok(netlink.interface(interface).await?))?.is_some() {
        // The runtime may not call ADD twice without a DEL; what the first one made stays as it is.
        return Err(CniError::new(
            Code::Exists,
            format!("the container has an interface {interface} already"),
        )
        .with_details("call DEL first"));
    }
    let mut agent = connect(config).await?;
    let outcome = attach(&mut agent, target, pod, &namespace).await;
    if let Err(error) = &outcome
        // What is there already is not of this call.
        && !error.is(Code::Exists)
        && let Err(error) = detach::undo(&mut agent, &target.attachment).await
    {
        eprintln!("not everything is undone: {error}; the agent finds what is left");
    }
    outcome.map(Answer::Attached)
}

async fn attach(
    agent: &mut NodeClient<Channel>,
    target: &Target,
    pod: &NamespacedName,
    namespace: &ContainerNamespace,
) -> Result<Attached, CniError> {
    let attachment = &target.attachment;
    let allocation = allocate(agent, attachment, pod).await?;
    let (host_mac, pod_mac) = make_interface(namespace, &attachment.interface, &allocation).await?;
    let activation = v1::ActivateEndpointRequest {
        attachment: Some(wire(attachment)),
        pod_mac: pod_mac.to_vec(),
        host_mac: host_mac.to_vec(),
        network_namespace: target.namespace.to_string_lossy().into_owned(),
    };
    let activated = agent.activate_endpoint(request(activation, WAIT)).await;
    activated.map_err(|status| refused("serve the interface", &status))?;
    Ok(Attached {
        host_interface: allocation.host_interface,
        host_mac,
        interface: attachment.interface.clone(),
        pod_mac,
        namespace: target.namespace.clone(),
        addresses: allocation.addresses,
    })
}

async fn allocate(
    agent: &mut NodeClient<Channel>,
    attachment: &Attachment,
    pod: &NamespacedName,
) -> Result<Allocation, CniError> {
    let message = v1::AllocateEndpointRequest {
        attachment: Some(wire(attachment)),
        namespace: pod.namespace.to_string(),
        pod: pod.name.to_string(),
    };
    let answer = agent.allocate_endpoint(request(message, WAIT)).await;
    let answer = answer.map_err(|status| refused("give an address", &status))?.into_inner();
    let pairs = answer.addresses.iter().zip(&answer.gateways);
    let addresses: Result<Vec<(IpAddr, IpAddr)>, _> =
        pairs.map(|(address, gateway)| Ok((address.parse()?, gateway.parse()?))).collect();
    let refused = |why: String| {
        CniError::new(Code::Refused, why).with_details("install plugin and agent of one version")
    };
    let addresses = addresses.map_err(|error: std::net::AddrParseError| {
        refused(format!("the agent gave addresses that are none: {error}"))
    })?;
    if addresses.is_empty() {
        return Err(refused("the agent gave no address".to_owned()));
    }
    Ok(Allocation { addresses, host_interface: answer.host_interface, mtu: answer.mtu })
}

impl Allocation {
    fn has_ipv6(&self) -> bool {
        self.addresses.iter().any(|(address, _)| address.is_ipv6())
    }
}

/// Makes the cable and sets up both ends. Returns the link-layer addresses of the node's and the pod's end.
async fn make_interface(
    namespace: &ContainerNamespace,
    interface: &str,
    allocation: &Allocation,
) -> Result<(Mac, Mac), CniError> {
    let failed =
        |error: NodeNetworkError| network_error("the node's end of the interface cannot be made", &error);
    let netlink = Netlink::connect().map_err(|error| failed(error.into()))?;
    let host = make_cable(&netlink, namespace, interface, allocation).await.map_err(failed)?;
    let pod_mac = namespace
        .within(async |netlink| set_up_container(&netlink, interface, allocation, host.mac).await)?;
    set_up_node(&netlink, &host, allocation, pod_mac).await.map_err(failed)?;
    Ok((host.mac, pod_mac))
}

async fn make_cable(
    netlink: &Netlink,
    namespace: &ContainerNamespace,
    interface: &str,
    allocation: &Allocation,
) -> Result<Interface, NodeNetworkError> {
    let host_interface = &allocation.host_interface;
    // Left by an ADD that was killed: the container does not have its other end.
    netlink.remove_link(host_interface).await?;
    netlink.add_veth((host_interface, interface), namespace.fd(), allocation.mtu).await?;
    Ok(netlink.existing(host_interface).await?)
}

async fn set_up_container(
    netlink: &Netlink,
    interface: &str,
    allocation: &Allocation,
    host_mac: Mac,
) -> Result<Mac, NodeNetworkError> {
    let loopback = netlink.existing("lo").await?;
    netlink.set_up(loopback.index, None).await?;
    let pod = netlink.existing(interface).await?;
    sysctl::set_ipv6(interface, allocation.has_ipv6())?;
    for (address, _) in &allocation.addresses {
        netlink.add_address(pod.index, *address, host_bits(*address)).await?;
    }
    netlink.set_up(pod.index, None).await?;
    for (_, gateway) in &allocation.addresses {
        // No one answers for the router on this cable, and no one else could be meant.
        netlink.set_neighbour(pod.index, *gateway, host_mac).await?;
        netlink.add_default_route(pod.index, *gateway).await?;
    }
    Ok(pod.mac)
}

async fn set_up_node(
    netlink: &Netlink,
    host: &Interface,
    allocation: &Allocation,
    pod_mac: Mac,
) -> Result<(), NodeNetworkError> {
    if allocation.has_ipv6() {
        sysctl::without_link_address(&allocation.host_interface)?;
    }
    sysctl::set_ipv6(&allocation.host_interface, allocation.has_ipv6())?;
    netlink.set_up(host.index, None).await?;
    for (address, _) in &allocation.addresses {
        netlink.set_neighbour(host.index, *address, pod_mac).await?;
    }
    Ok(())
}

/// Compares the interface of a container with what ADD made.
///
/// # Errors
/// [`Code::Broken`] with what is different.
pub(super) async fn check(config: &NetworkConfig, target: &Target) -> Result<Answer, CniError> {
    let previous = config.prev_result.as_ref().ok_or_else(|| {
        CniError::new(Code::InvalidConfig, "the network configuration has no prevResult, which CHECK needs")
    })?;
    let namespace = ContainerNamespace::open(&target.namespace)?;
    let interface = &target.attachment.interface;
    let present = namespace.within(async |netlink| {
        let Some(pod) = netlink.interface(interface).await? else { return Ok(None) };
        Ok(Some((pod.up, netlink.addresses(pod.index).await?)))
    })?;
    let broken = |what: String| {
        CniError::new(Code::Broken, what).with_details("delete the pod, so that it is made anew")
    };
    let (up, addresses) =
        present.ok_or_else(|| broken(format!("the container has no interface {interface}")))?;
    if !up {
        return Err(broken(format!("interface {interface} of the container is switched off")));
    }
    for wanted in &previous.ips {
        if !addresses.iter().any(|(address, len)| format!("{address}/{len}") == wanted.address) {
            return Err(broken(format!(
                "interface {interface} of the container has lost {}",
                wanted.address
            )));
        }
    }
    let mut agent = connect(config).await?;
    let checked = agent.check_endpoint(request(
        v1::CheckEndpointRequest { attachment: Some(wire(&target.attachment)) },
        PROMPT,
    ));
    checked.await.map_err(|status| broken(status.message().to_owned()))?;
    Ok(Answer::Done)
}
