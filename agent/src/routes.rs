//! The node's routes to pods: of its own, each to its interface; of other nodes, each range to the overlay.
//!
//! ```text
//! 10.1.1.3 dev lb4f1b…                                    a pod of this node
//! 10.2.3.0/24 dev lb_vxlan src 10.1.1.1 mtu 1450     the pods of another
//! ```
//!
//! Ours are told from others by their protocol number, so that what an agent before this one left is found, and nothing
//! else is ever removed or replaced.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use landbridge_kvstore_schema::IpPrefix;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
};

use crate::netlink::{Netlink, NetlinkError};

/// Not taken in `/etc/iproute2/rt_protos` nor by routing daemons.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(0x4c);

/// Where packets to a prefix leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// Index of the interface.
    pub(crate) interface: u32,
    /// The source of what the node itself sends there, where it matters.
    pub(crate) source: Option<IpAddr>,
    /// Largest packet in bytes, where it is smaller than the interface's.
    pub(crate) mtu: Option<u32>,
}

/// Routes by destination.
pub(crate) type RouteTable = BTreeMap<IpPrefix, Route>;

/// A change of the kernel's routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouteChange {
    /// Add the route. One of somebody else to this destination is left as it is, and this one is not added.
    Add(IpPrefix, Route),
    /// Add the route, in the place of ours to this destination.
    Replace(IpPrefix, Route),
    /// Remove the route.
    Remove(IpPrefix, Route),
}

/// The changes that turn `actual` into `desired`: first what is new, so that a destination that moves between prefixes
/// is always reached.
pub(crate) fn plan(desired: &RouteTable, actual: &RouteTable) -> Vec<RouteChange> {
    let added = desired.iter().filter_map(|(prefix, route)| match actual.get(prefix) {
        None => Some(RouteChange::Add(*prefix, *route)),
        Some(now) => (now != route).then_some(RouteChange::Replace(*prefix, *route)),
    });
    let gone = actual.iter().filter(|(prefix, _)| !desired.contains_key(prefix));
    added.chain(gone.map(|(prefix, route)| RouteChange::Remove(*prefix, *route))).collect()
}

impl RouteChange {
    /// Where the route leads to.
    pub(crate) fn destination(self) -> IpPrefix {
        match self {
            Self::Add(prefix, _) | Self::Replace(prefix, _) | Self::Remove(prefix, _) => prefix,
        }
    }

    /// Makes the change to `table`, as the kernel made it to its own.
    pub(crate) fn note(self, table: &mut RouteTable) {
        match self {
            Self::Add(prefix, route) | Self::Replace(prefix, route) => drop(table.insert(prefix, route)),
            Self::Remove(prefix, _) => drop(table.remove(&prefix)),
        }
    }
}

/// Our routes, as the kernel has them.
///
/// # Errors
/// [`NetlinkError`].
pub(crate) async fn read(netlink: &Netlink) -> Result<RouteTable, NetlinkError> {
    Ok(netlink.routes().await?.iter().filter_map(from_message).collect())
}

/// Carries out a change.
///
/// # Errors
/// [`NetlinkError`].
pub(crate) async fn apply(netlink: &Netlink, change: RouteChange) -> Result<(), NetlinkError> {
    match change {
        RouteChange::Add(prefix, route) => {
            netlink.add_route(message(prefix, route), &prefix.to_string()).await
        }
        RouteChange::Replace(prefix, route) => {
            netlink.replace_route(message(prefix, route), &prefix.to_string()).await
        }
        RouteChange::Remove(prefix, route) => {
            netlink.remove_route(message(prefix, route), &prefix.to_string()).await
        }
    }
}

fn message(prefix: IpPrefix, route: Route) -> RouteMessage {
    let mut message = match prefix {
        IpPrefix::V4(prefix) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(prefix.network(), prefix.len())
            .scope(RouteScope::Link)
            .build(),
        // There no destination is nearer than another.
        IpPrefix::V6(prefix) => {
            RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(prefix.network(), prefix.len()).build()
        }
    };
    message.header.protocol = PROTOCOL;
    message.attributes.push(RouteAttribute::Oif(route.interface));
    if let Some(source) = route.source {
        message.attributes.push(RouteAttribute::PrefSource(source.into()));
    }
    if let Some(mtu) = route.mtu {
        message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
    }
    message
}

/// Reads a route of ours in the main table.
fn from_message(message: &RouteMessage) -> Option<(IpPrefix, Route)> {
    if message.header.protocol != PROTOCOL || message.header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let mut network = match message.header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut interface = None;
    let (mut source, mut mtu) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => network = ip(address)?,
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let prefix = IpPrefix::new(network, message.header.destination_prefix_length).ok()?;
    Some((prefix, Route { interface: interface?, source, mtu }))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use landbridge_kvstore_schema::{Ipv4Prefix, Ipv6Prefix};
    use proptest::prelude::*;

    use super::*;

    fn any_table() -> impl Strategy<Value = RouteTable> {
        let address = |is_v4: bool, third: u8, last: u8| {
            if is_v4 {
                IpAddr::from([10, 1, third, last])
            } else {
                IpAddr::from([0xfd10, 1, third.into(), 0, 0, 0, 0, last.into()])
            }
        };
        let route =
            (any::<bool>(), 1u32..4, any::<Option<bool>>()).prop_map(move |(is_v4, interface, source)| {
                let source = source.map(|other| address(is_v4, u8::from(other), 1));
                Route { interface, source, mtu: source.map(|_| 1450) }
            });
        let prefix = (any::<bool>(), 0u8..4, prop::sample::select(vec![16u8, 24, 32])).prop_map(
            move |(is_v4, third, len)| match address(is_v4, third, 0) {
                IpAddr::V4(network) => IpPrefix::V4(Ipv4Prefix::containing(network, len).unwrap()),
                IpAddr::V6(network) => IpPrefix::V6(Ipv6Prefix::containing(network, len + 16).unwrap()),
            },
        );
        prop::collection::btree_map(prefix, route, 0..6)
    }

    fn applied(actual: &RouteTable, changes: &[RouteChange]) -> RouteTable {
        let mut table = actual.clone();
        for change in changes {
            match change {
                RouteChange::Add(prefix, _) => {
                    assert!(!table.contains_key(prefix), "what is there is replaced");
                }
                RouteChange::Replace(prefix, _) => {
                    assert!(table.contains_key(prefix), "only ours is replaced");
                }
                RouteChange::Remove(prefix, route) => {
                    assert_eq!(table.get(prefix), Some(route), "only what is there is removed");
                }
            }
            change.note(&mut table);
        }
        table
    }

    proptest! {
        /// The changes reach the desired routes, and then nothing is left to change.
        #[test]
        fn plans_converge(desired in any_table(), actual in any_table()) {
            let after = applied(&actual, &plan(&desired, &actual));
            prop_assert_eq!(&after, &desired);
            prop_assert!(plan(&desired, &after).is_empty());
        }

        /// A route that is in both tables is never missing on the way.
        #[test]
        fn plans_leave_no_gap(desired in any_table(), actual in any_table()) {
            let changes = plan(&desired, &actual);
            for done in 0..=changes.len() {
                let between = applied(&actual, &changes[..done]);
                let lasting = desired.keys().filter(|prefix| actual.contains_key(prefix));
                for prefix in lasting {
                    prop_assert!(between.contains_key(prefix));
                }
            }
        }

        /// What is written is what is read.
        #[test]
        fn messages_read_back(table in any_table()) {
            let read: RouteTable =
                table.iter().filter_map(|(prefix, route)| from_message(&message(*prefix, *route))).collect();
            prop_assert_eq!(read, table);
        }
    }

    #[test]
    fn the_routes_of_others_are_not_ours() {
        let prefix = "10.1.2.0/24".parse().unwrap();
        let mut other = message(prefix, Route { interface: 3, source: None, mtu: None });
        other.header.protocol = RouteProtocol::Static;
        assert_eq!(from_message(&other), None);
    }
}
