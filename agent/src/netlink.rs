//! Requests to the network stack of one namespace: the one that the calling thread was in when it connected.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressScope};
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::{
    AddressMessageBuilder, Error as KernelError, Handle, LinkUnspec, LinkVeth, LinkVxlan,
    RouteMessageBuilder, new_connection,
};
use rustix::io::Errno;
use tokio_util::task::AbortOnDropHandle;

/// A link-layer address.
pub(crate) type Mac = [u8; 6];

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}")]
pub(crate) struct NetlinkError {
    action: String,
    #[source]
    source: io::Error,
}

impl NetlinkError {
    fn new(action: impl Into<String>, source: io::Error) -> Self {
        Self { action: action.into(), source }
    }
}

/// An interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    /// Its number in the namespace.
    pub(crate) index: u32,
    /// Largest IP packet in bytes.
    pub(crate) mtu: u32,
    /// Its link-layer address; 0 for interfaces without.
    pub(crate) mac: Mac,
    /// Whether it is switched on.
    pub(crate) up: bool,
    /// What it is.
    pub(crate) kind: InterfaceKind,
}

/// What an interface is, as far as this program makes any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InterfaceKind {
    /// A tunnel whose ends each packet chooses, at this UDP port.
    Overlay {
        /// The port.
        port: u16,
    },
    /// One end of a cable.
    Veth,
    /// Anything else.
    Other,
}

/// Requests to one namespace. Dropping it ends its task.
pub(crate) struct Netlink {
    handle: Handle,
    _connection: AbortOnDropHandle<()>,
}

impl Netlink {
    /// Connects to the namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetlinkError`] if the kernel gives no socket.
    pub(crate) fn connect() -> Result<Self, NetlinkError> {
        let (connection, handle, _) =
            new_connection().map_err(|source| NetlinkError::new("open a netlink socket", source))?;
        Ok(Self { handle, _connection: AbortOnDropHandle::new(tokio::spawn(connection)) })
    }

    /// The interface `name`, if there is one.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub(crate) async fn interface(&self, name: &str) -> Result<Option<Interface>, NetlinkError> {
        let mut replies = self.handle.link().get().match_name(name.to_owned()).execute();
        match replies.try_next().await {
            Ok(message) => Ok(message.as_ref().map(interface)),
            Err(error) if errno(&error) == Some(Errno::NODEV) => Ok(None),
            Err(error) => Err(failed(format!("look at interface {name}"))(error)),
        }
    }

    /// The interface `name`, which has to be there.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub(crate) async fn existing(&self, name: &str) -> Result<Interface, NetlinkError> {
        let missing = || NetlinkError::new(format!("find interface {name}"), Errno::NODEV.into());
        self.interface(name).await?.ok_or_else(missing)
    }

    /// Makes a VXLAN interface (RFC 7348) whose tunnels are chosen packet by packet.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub(crate) async fn add_overlay(&self, name: &str, port: u16, mtu: u32) -> Result<(), NetlinkError> {
        // Identities travel in the VNI, so that the interface takes all of them: that is what 0 says here.
        let message =
            LinkVxlan::new(name, 0).collect_metadata(true).learning(false).port(port).mtu(mtu).arp(false);
        self.add_link(message.build(), format!("create the VXLAN interface {name} at UDP port {port}")).await
    }

    /// Makes a cable: `name` here and `peer` in another namespace, both switched off.
    ///
    /// # Errors
    /// [`NetlinkError`]; either name may be taken.
    pub(crate) async fn add_veth(
        &self,
        (name, peer): (&str, &str),
        peer_namespace: BorrowedFd<'_>,
        mtu: u32,
    ) -> Result<(), NetlinkError> {
        let peer_end =
            LinkUnspec::new_with_name(peer).setns_by_fd(peer_namespace.as_raw_fd()).mtu(mtu).build();
        let cable =
            LinkVeth::new(name, peer).set_info_data(InfoData::Veth(InfoVeth::Peer(peer_end))).mtu(mtu);
        self.add_link(cable.build(), format!("create the cable {name} to {peer}")).await
    }

    async fn add_link(&self, message: LinkMessage, action: String) -> Result<(), NetlinkError> {
        self.handle.link().add(message).execute().await.map_err(failed(action))
    }

    /// Switches an interface on and sets its MTU, if given.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub(crate) async fn set_up(&self, index: u32, mtu: Option<u32>) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(index).up();
        let message = mtu.into_iter().fold(message, rtnetlink::LinkMessageBuilder::mtu);
        let outcome = self.handle.link().set(message.build()).execute().await;
        outcome.map_err(failed(format!("switch interface {index} on")))
    }

    /// Removes the interface `name`, and with it the other end of a cable. Returns whether there was one.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub(crate) async fn remove_link(&self, name: &str) -> Result<bool, NetlinkError> {
        let Some(link) = self.interface(name).await? else { return Ok(false) };
        match self.handle.link().del(link.index).execute().await {
            Ok(()) => Ok(true),
            Err(error) if errno(&error) == Some(Errno::NODEV) => Ok(false),
            Err(error) => Err(failed(format!("remove interface {name}"))(error)),
        }
    }

    /// The addresses of an interface, each with its prefix length, but those that the kernel gives it for its link.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub(crate) async fn addresses(&self, index: u32) -> Result<Vec<(IpAddr, u8)>, NetlinkError> {
        let request = self.handle.address().get().set_link_index_filter(index).execute();
        let messages: Vec<_> = request.try_collect().await.map_err(failed("list addresses"))?;
        // Of IPv4 the other end of a cable is told as well, and this end as the local one.
        let address = |attributes: &[AddressAttribute]| {
            attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address @ IpAddr::V4(_))
                | AddressAttribute::Address(address @ IpAddr::V6(_)) => Some(*address),
                _ => None,
            })
        };
        let found = messages
            .iter()
            .filter(|message| message.header.index == index && message.header.scope != AddressScope::Link);
        Ok(found
            .filter_map(|message| Some((address(&message.attributes)?, message.header.prefix_len)))
            .collect())
    }

    /// Gives an interface an address, for use at once: nobody else on the link is asked. That it has it already is no error.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub(crate) async fn add_address(
        &self,
        index: u32,
        address: IpAddr,
        prefix_len: u8,
    ) -> Result<(), NetlinkError> {
        let mut request = self.handle.address().add(index, address, prefix_len).replace();
        if address.is_ipv6() {
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        request
            .execute()
            .await
            .map_err(failed(format!("give interface {index} the address {address}/{prefix_len}")))
    }

    /// Takes an address from an interface.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub(crate) async fn remove_address(
        &self,
        index: u32,
        address: IpAddr,
        prefix_len: u8,
    ) -> Result<(), NetlinkError> {
        let message = match address {
            IpAddr::V4(address) => {
                AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address, prefix_len).build()
            }
            IpAddr::V6(address) => {
                AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(address, prefix_len).build()
            }
        };
        let outcome = self.handle.address().del(message).execute().await;
        outcome.map_err(failed(format!("take the address {address}/{prefix_len} from interface {index}")))
    }

    /// Says once and for all at which link-layer address a neighbour is.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub(crate) async fn set_neighbour(
        &self,
        index: u32,
        address: IpAddr,
        mac: Mac,
    ) -> Result<(), NetlinkError> {
        let request = self.handle.neighbours().add(index, address).link_layer_address(&mac).replace();
        request.execute().await.map_err(failed(format!("set the neighbour {address} of interface {index}")))
    }

    /// All routes.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub(crate) async fn routes(&self) -> Result<Vec<RouteMessage>, NetlinkError> {
        let mut routes: Vec<RouteMessage> = Vec::new();
        let (v4, v6) = (RouteMessageBuilder::<Ipv4Addr>::new(), RouteMessageBuilder::<Ipv6Addr>::new());
        for all in [v4.build(), v6.build()] {
            let found: Vec<_> =
                self.handle.route().get(all).execute().try_collect().await.map_err(failed("list routes"))?;
            routes.extend(found);
        }
        Ok(routes)
    }

    /// Adds a route where none leads to the same destination.
    ///
    /// # Errors
    /// [`NetlinkError`]; there may be one already, whoever made it.
    pub(crate) async fn add_route(&self, route: RouteMessage, what: &str) -> Result<(), NetlinkError> {
        self.handle.route().add(route).execute().await.map_err(|error| {
            let taken = if errno(&error) == Some(Errno::EXIST) {
                format!(", somebody else has one: look at `ip route show {what}` and remove it")
            } else {
                String::new()
            };
            failed(format!("add the route {what}{taken}"))(error)
        })
    }

    /// Adds a route, in the place of one to the same destination.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub(crate) async fn replace_route(&self, route: RouteMessage, what: &str) -> Result<(), NetlinkError> {
        let outcome = self.handle.route().add(route).replace().execute().await;
        outcome.map_err(failed(format!("add the route {what}")))
    }

    /// Sends everything without another route to `gateway`, which is on the link of an interface.
    ///
    /// # Errors
    /// [`NetlinkError`]; there may be a default route already.
    pub(crate) async fn add_default_route(&self, index: u32, gateway: IpAddr) -> Result<(), NetlinkError> {
        let route = match gateway {
            IpAddr::V4(gateway) => {
                let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway);
                route.output_interface(index).onlink().build()
            }
            IpAddr::V6(gateway) => {
                let route = RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway);
                route.output_interface(index).onlink().build()
            }
        };
        let outcome = self.handle.route().add(route).execute().await;
        outcome.map_err(failed(format!("add the default route over {gateway}")))
    }

    /// Removes a route. One that is not there, or no longer, is no error.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub(crate) async fn remove_route(&self, route: RouteMessage, what: &str) -> Result<(), NetlinkError> {
        match self.handle.route().del(route).execute().await {
            Err(error) if !matches!(errno(&error), Some(Errno::SRCH | Errno::NODEV)) => {
                Err(failed(format!("remove the route {what}"))(error))
            }
            _ => Ok(()),
        }
    }
}

fn interface(message: &LinkMessage) -> Interface {
    let mut interface = Interface {
        index: message.header.index,
        mtu: 0,
        mac: Mac::default(),
        up: message.header.flags.contains(LinkFlags::Up),
        kind: InterfaceKind::Other,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            LinkAttribute::Address(address) => {
                interface.mac = Mac::try_from(address.as_slice()).unwrap_or_default();
            }
            LinkAttribute::LinkInfo(infos) => interface.kind = kind(infos),
            _ => {}
        }
    }
    interface
}

fn kind(infos: &[LinkInfo]) -> InterfaceKind {
    let kind = infos.iter().find_map(|info| if let LinkInfo::Kind(kind) = info { Some(kind) } else { None });
    match kind {
        Some(InfoKind::Veth) => InterfaceKind::Veth,
        Some(InfoKind::Vxlan) => overlay(infos).unwrap_or(InterfaceKind::Other),
        _ => InterfaceKind::Other,
    }
}

fn overlay(infos: &[LinkInfo]) -> Option<InterfaceKind> {
    let settings = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vxlan(settings)) => Some(settings),
        _ => None,
    })?;
    let port = settings.iter().find_map(|setting| match setting {
        InfoVxlan::Port(port) => Some(*port),
        _ => None,
    })?;
    settings.contains(&InfoVxlan::CollectMetadata(true)).then_some(InterfaceKind::Overlay { port })
}

fn failed(action: impl Into<String>) -> impl FnOnce(KernelError) -> NetlinkError {
    let action = action.into();
    move |error| {
        let source = match error {
            KernelError::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other),
        };
        NetlinkError { action, source }
    }
}

fn errno(error: &KernelError) -> Option<Errno> {
    match error {
        KernelError::NetlinkError(message) => Errno::from_io_error(&message.to_io()),
        _ => None,
    }
}
