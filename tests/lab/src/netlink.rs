//! Netlink requests inside a namespace: a thread that enters it, with a runtime of its own.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{
    BridgePortState, InfoBridge, InfoBridgePort, InfoData, InfoPortData, InfoVeth, LinkAttribute, LinkInfo,
    State,
};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection};
use rustix::net::netdevice;

use crate::address::Prefix;
use crate::error::{IoContext, LabError};
use crate::namespace::Namespace;

/// How long the kernel may take to notice that both ends of a cable are up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Requests to the network stack of one namespace.
pub(crate) struct Netlink {
    handle: Handle,
}

/// Runs `requests` against the network stack of `namespace`.
pub(crate) fn within<T: Send>(
    namespace: &Namespace,
    requests: impl AsyncFnOnce(Netlink) -> Result<T, LabError> + Send,
) -> Result<T, LabError> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context(|| "start a netlink runtime".to_owned())?.block_on(async {
            let (connection, handle, _) = new_connection().context(|| "open a netlink socket".to_owned())?;
            tokio::spawn(connection);
            requests(Netlink { handle }).await
        })
    };
    namespace.run(run).context(|| "enter a network namespace".to_owned())?
}

impl Netlink {
    /// Makes a veth pair: `name` here, `peer` in another namespace.
    pub(crate) async fn add_veth(
        &self,
        (name, peer): (&str, &str),
        peer_namespace: &OwnedFd,
        mtu: u32,
    ) -> Result<(), LabError> {
        let peer_message =
            LinkUnspec::new_with_name(peer).setns_by_fd(peer_namespace.as_raw_fd()).mtu(mtu).build();
        let message = LinkVeth::new(name, peer)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer_message)))
            .mtu(mtu)
            .build();
        let outcome = self.handle.link().add(message).execute().await;
        outcome.map_err(failed(|| format!("create the cable {name} to {peer}")))
    }

    /// Makes a bridge that forwards at once and floods multicast, which neighbour discovery needs.
    pub(crate) async fn add_bridge(&self, name: &str, mtu: u32) -> Result<(), LabError> {
        let message = LinkBridge::new(name)
            .append_info_data(InfoBridge::MulticastSnooping(false))
            .append_info_data(InfoBridge::ForwardDelay(0))
            .mtu(mtu)
            .build();
        let outcome = self.handle.link().add(message).execute().await;
        outcome.map_err(failed(|| format!("create the bridge {name}")))
    }

    /// Switches an interface on.
    pub(crate) async fn set_up(&self, name: &str) -> Result<(), LabError> {
        let message = LinkUnspec::new_with_name(name).up().build();
        self.handle.link().set(message).execute().await.map_err(failed(|| format!("set {name} up")))
    }

    /// Returns when an interface that was set up carries packets. The kernel hears of a cable's other end in its own
    /// time, and until then it drops what is sent, and a bridge does not forward.
    ///
    /// # Errors
    /// [`LabError::NoCarrier`] after half a minute.
    pub(crate) async fn wait_until_carrying(&self, name: &str) -> Result<(), LabError> {
        let carries = async {
            while !carries(&self.attributes_of(name).await?) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(())
        };
        let no_carrier = || LabError::NoCarrier { interface: name.to_owned(), patience: PATIENCE };
        tokio::time::timeout(PATIENCE, carries).await.unwrap_or_else(|_| Err(no_carrier()))
    }

    /// Sets how many packets an interface may queue.
    pub(crate) async fn set_queue_len(&self, name: &str, packets: u32) -> Result<(), LabError> {
        let message = LinkUnspec::new_with_name(name).txqueuelen(packets).build();
        self.handle.link().set(message).execute().await.map_err(failed(|| format!("set the queue of {name}")))
    }

    /// Makes an interface a port of a bridge, or takes it out of its bridge.
    pub(crate) async fn set_bridge(&self, name: &str, bridge: Option<&str>) -> Result<(), LabError> {
        let message = LinkUnspec::new_with_name(name);
        let message = match bridge {
            Some(bridge) => message.controller(index_of(bridge)?),
            None => message.nocontroller(),
        };
        let outcome = self.handle.link().set(message.build()).execute().await;
        outcome.map_err(failed(|| format!("change the bridge of {name}")))
    }

    /// Sets how many segments a packet of an interface may carry into it before it is cut into wire frames.
    pub(crate) async fn set_gso_max_segments(&self, name: &str, segments: u32) -> Result<(), LabError> {
        let message = LinkUnspec::new_with_name(name);
        let message = message.append_extra_attribute(LinkAttribute::GsoMaxSegs(segments)).build();
        let outcome = self.handle.link().set(message).execute().await;
        outcome.map_err(failed(|| format!("limit the segments of {name}")))
    }

    /// Sets the largest IP packet of an interface.
    pub(crate) async fn set_mtu(&self, name: &str, mtu: u32) -> Result<(), LabError> {
        let message = LinkUnspec::new_with_name(name).mtu(mtu).build();
        self.handle.link().set(message).execute().await.map_err(failed(|| format!("set the MTU of {name}")))
    }

    /// Whether an interface is a port of a bridge.
    pub(crate) async fn has_bridge(&self, name: &str) -> Result<bool, LabError> {
        let attributes = self.attributes_of(name).await?;
        Ok(attributes
            .iter()
            .any(|attribute| matches!(attribute, LinkAttribute::Controller(index) if *index != 0)))
    }

    /// How many packets an interface could not send on, for want of room in its queue.
    pub(crate) async fn dropped(&self, name: &str) -> Result<u64, LabError> {
        let attributes = self.attributes_of(name).await?;
        let dropped = attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Stats64(counters) => Some(counters.tx_dropped),
            _ => None,
        });
        Ok(dropped.unwrap_or(0))
    }

    async fn attributes_of(&self, name: &str) -> Result<Vec<LinkAttribute>, LabError> {
        let mut replies = self.handle.link().get().match_name(name.to_owned()).execute();
        let message = replies.try_next().await.map_err(failed(|| format!("look at {name}")))?;
        Ok(message.map(|message| message.attributes).unwrap_or_default())
    }

    /// Gives an interface an address.
    pub(crate) async fn add_address(&self, interface: &str, address: Prefix) -> Result<(), LabError> {
        let index = index_of(interface)?;
        let addresses = self.handle.address();
        let outcome = addresses.add(index, address.address, address.len).execute().await;
        outcome.map_err(failed(|| format!("give {interface} the address {address}")))
    }

    /// Adds a route.
    pub(crate) async fn add_route(
        &self,
        destination: Prefix,
        gateway: Option<IpAddr>,
        interface: &str,
    ) -> Result<(), LabError> {
        let index = index_of(interface)?;
        let message = match (destination.address, gateway) {
            (IpAddr::V4(address), gateway) => {
                let route = RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                    .destination_prefix(address, destination.len)
                    .output_interface(index);
                match gateway {
                    Some(IpAddr::V4(gateway)) => route.gateway(gateway).build(),
                    _ => route.scope(rtnetlink::packet_route::route::RouteScope::Link).build(),
                }
            }
            (IpAddr::V6(address), gateway) => {
                let route = RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                    .destination_prefix(address, destination.len)
                    .output_interface(index);
                match gateway {
                    Some(IpAddr::V6(gateway)) => route.gateway(gateway).build(),
                    _ => route.build(),
                }
            }
        };
        let outcome = self.handle.route().add(message).execute().await;
        outcome.map_err(failed(|| format!("add the route to {destination} over {interface}")))
    }
}

/// The index of an interface of the calling thread's namespace.
fn index_of(interface: &str) -> Result<u32, LabError> {
    let context = || format!("find the interface {interface}");
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .context(context)?;
    netdevice::name_to_index(&socket, interface).context(context)
}

fn failed(action: impl FnOnce() -> String) -> impl FnOnce(rtnetlink::Error) -> LabError {
    |source| LabError::Netlink { action: action(), source }
}

/// Whether an interface with these attributes is up and, as a port of a bridge, forwards.
fn carries(attributes: &[LinkAttribute]) -> bool {
    let of_port = |port: &InfoBridgePort| matches!(port, InfoBridgePort::State(state) if *state != BridgePortState::Forwarding);
    let holds_back = |info: &LinkInfo| matches!(info, LinkInfo::PortData(InfoPortData::BridgePort(port)) if port.iter().any(of_port));
    let is_up = attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::OperState(State::Up)));
    is_up
        && !attributes.iter().any(
            |attribute| matches!(attribute, LinkAttribute::LinkInfo(infos) if infos.iter().any(holds_back)),
        )
}
