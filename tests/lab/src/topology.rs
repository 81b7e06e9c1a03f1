//! The plan of a lab, made from its spec without touching the machine: hosts, cables, addresses, routes.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::address::{ClusterAddresses, NodeAddresses, Prefix};
use crate::spec::{ClusterSpec, LabSpec, PodWiring};

/// The wide-area router's host name, and the name of the port that leads to it on each switch.
pub(crate) const ROUTER_NAME: &str = "wan";
/// The interface of a node that leads to its switch, and of a pod that leads to its node.
pub(crate) const UPLINK: &str = "eth0";
/// The bridge of each switch.
pub(crate) const BRIDGE: &str = "br0";

/// What a host of a lab is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Connects the switches of all clusters.
    Router,
    /// Connects the nodes of one cluster with each other and with the router.
    Switch,
    /// Runs an agent, and pods.
    Node,
    /// Runs a program of a user.
    Pod,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Router => "router",
            Self::Switch => "switch",
            Self::Node => "node",
            Self::Pod => "pod",
        })
    }
}

/// Every host and cable of a lab.
#[derive(Debug)]
pub(crate) struct Topology {
    pub(crate) hosts: Vec<HostPlan>,
    pub(crate) cables: Vec<Cable>,
    /// Largest IP packet in bytes on every interface.
    pub(crate) mtu: u32,
}

/// One network namespace.
#[derive(Clone, Debug)]
pub(crate) struct HostPlan {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// What the host is numbered by.
    pub(crate) place: Place,
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) routes: Vec<Route>,
}

/// Where a host is among its like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Neither on a node nor one.
    Elsewhere,
    Node(NodeAddresses),
    Pod {
        /// The name of the node that the pod is on.
        node: String,
        addresses: NodeAddresses,
        /// Counted from 1.
        number: u8,
    },
}

/// An interface with its addresses. The cables create all of them but a switch's bridge.
#[derive(Clone, Debug)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) addresses: Vec<Prefix>,
}

/// A route of a host; the default route where `destination` is `0.0.0.0/0` or `::/0`.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) destination: Prefix,
    /// `None`: the destination is on the link.
    pub(crate) gateway: Option<std::net::IpAddr>,
    pub(crate) interface: String,
}

/// A veth pair between two hosts.
#[derive(Debug)]
pub(crate) struct Cable {
    pub(crate) ends: [CableEnd; 2],
}

/// One end of a [`Cable`].
#[derive(Debug)]
pub(crate) struct CableEnd {
    /// Position in [`Topology::hosts`].
    pub(crate) host: usize,
    pub(crate) interface: String,
}

impl Topology {
    /// Plans the lab of a valid spec.
    pub(crate) fn plan(spec: &LabSpec) -> Self {
        let mut topology = Self { hosts: Vec::new(), cables: Vec::new(), mtu: spec.mtu };
        let router = topology.add_host(ROUTER_NAME.to_owned(), Role::Router, Place::Elsewhere);
        for (index, cluster) in spec.clusters.iter().enumerate() {
            let overlaps = spec.clusters[..index].iter().any(|other| other.pod_range == cluster.pod_range);
            let router_knows_pods = spec.pods == PodWiring::Routed && !overlaps;
            topology.add_cluster(cluster, router, spec.pods, router_knows_pods);
        }
        topology
    }

    fn add_cluster(
        &mut self,
        cluster: &ClusterSpec,
        router: usize,
        pods: PodWiring,
        router_knows_pods: bool,
    ) {
        let addresses = ClusterAddresses::new(cluster.number, cluster.pod_range);
        let switch = self.add_host(cluster.name.clone(), Role::Switch, Place::Elsewhere);
        self.connect((switch, ROUTER_NAME), (router, &cluster.name));
        self.assign(router, &cluster.name, addresses.router().map(ClusterAddresses::in_underlay));

        for number in 1..=cluster.nodes {
            let name = format!("{}{number}", cluster.name);
            let node = self.add_host(name.clone(), Role::Node, Place::Node(addresses.node(number)));
            let underlay = addresses.node(number).underlay();
            self.connect((node, UPLINK), (switch, &name));
            self.assign(node, UPLINK, underlay.map(ClusterAddresses::in_underlay));
            self.route(node, [Prefix::DEFAULT_V4, Prefix::DEFAULT_V6], addresses.router(), UPLINK);
            let pod_cidrs = addresses.node(number).pod_cidrs();
            if router_knows_pods {
                self.route(router, pod_cidrs, underlay, &cluster.name);
            }
            if pods == PodWiring::Routed {
                // Within the cluster nodes reach each other's pods without the detour over the router.
                for other in (1..=cluster.nodes).filter(|other| *other != number) {
                    let other = addresses.node(other);
                    self.route(node, other.pod_cidrs(), other.underlay(), UPLINK);
                }
            }
            for pod in 1..=cluster.pods_per_node {
                self.add_pod(node, &format!("{name}p{pod}"), addresses, (number, pod), pods);
            }
        }
    }

    fn add_pod(
        &mut self,
        node: usize,
        name: &str,
        addresses: ClusterAddresses,
        (node_number, pod_number): (u8, u8),
        pods: PodWiring,
    ) {
        let addresses = addresses.node(node_number);
        let place = Place::Pod { node: self.hosts[node].name.clone(), addresses, number: pod_number };
        let pod = self.add_host(name.to_owned(), Role::Pod, place);
        if pods == PodWiring::Unwired {
            return;
        }
        let own = addresses.pod(pod_number);
        let gateways = addresses.router();
        let node_side = format!("lxc-{name}");
        self.connect((node, &node_side), (pod, UPLINK));
        self.assign(pod, UPLINK, own.map(Prefix::host));
        self.assign(node, &node_side, gateways.map(Prefix::host));
        for (address, gateway) in own.into_iter().zip(gateways) {
            self.hosts[node].routes.push(Route::on_link(Prefix::host(address), &node_side));
            self.hosts[pod].routes.push(Route::on_link(Prefix::host(gateway), UPLINK));
        }
        self.route(pod, [Prefix::DEFAULT_V4, Prefix::DEFAULT_V6], gateways, UPLINK);
    }

    fn add_host(&mut self, name: String, role: Role, place: Place) -> usize {
        self.hosts.push(HostPlan { name, role, place, interfaces: Vec::new(), routes: Vec::new() });
        self.hosts.len() - 1
    }

    fn connect(&mut self, one: (usize, &str), other: (usize, &str)) {
        let end = |(host, interface): (usize, &str)| CableEnd { host, interface: interface.to_owned() };
        for (host, interface) in [one, other] {
            self.hosts[host].interfaces.push(Interface { name: interface.to_owned(), addresses: Vec::new() });
        }
        self.cables.push(Cable { ends: [end(one), end(other)] });
    }

    fn assign(&mut self, host: usize, interface: &str, addresses: [Prefix; 2]) {
        let interfaces = &mut self.hosts[host].interfaces;
        let found = interfaces.iter_mut().find(|candidate| candidate.name == interface);
        found.expect("an interface is connected before it gets an address").addresses.extend(addresses);
    }

    fn route(
        &mut self,
        host: usize,
        destinations: [Prefix; 2],
        gateways: [std::net::IpAddr; 2],
        interface: &str,
    ) {
        for (destination, gateway) in destinations.into_iter().zip(gateways) {
            let interface = interface.to_owned();
            self.hosts[host].routes.push(Route { destination, gateway: Some(gateway), interface });
        }
    }
}

impl Route {
    fn on_link(destination: Prefix, interface: &str) -> Self {
        Self { destination, gateway: None, interface: interface.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn plan(clusters: u8, nodes: u8, pods: u8, wiring: PodWiring) -> Topology {
        let spec = LabSpec::new("t".parse().unwrap()).with_clusters(clusters, nodes, pods).with_pods(wiring);
        spec.validate().unwrap();
        Topology::plan(&spec)
    }

    #[test]
    fn two_clusters_of_two_nodes_of_two_pods_are_fifteen_hosts() {
        let topology = plan(2, 2, 2, PodWiring::Routed);
        let names: Vec<&str> = topology.hosts.iter().map(|host| host.name.as_str()).collect();
        let cluster = |c: &str| ["", "1", "1p1", "1p2", "2", "2p1", "2p2"].map(|rest| format!("{c}{rest}"));
        let mut expected = vec!["wan".to_owned()];
        expected.extend(cluster("a").into_iter().chain(cluster("b")));
        assert_eq!(names, expected);
        assert_eq!(topology.cables.len(), 2 + 4 + 8);
    }

    #[test]
    fn the_router_knows_the_pods_of_overlapping_clusters_once() {
        let mut spec = LabSpec::new("t".parse().unwrap()).with_clusters(2, 1, 1);
        spec.clusters[1].pod_range = spec.clusters[0].pod_range;
        let topology = Topology::plan(&spec);
        let destinations: Vec<String> =
            topology.hosts[0].routes.iter().map(|route| route.destination.to_string()).collect();
        assert_eq!(destinations, ["10.1.1.0/24", "fd10:1:1::/64"]);
    }

    proptest! {
        /// What the kernel would refuse never gets that far: long names, two owners of an address or a name.
        #[test]
        fn every_plan_can_be_wired(clusters in 1u8..=26, nodes in 0u8..=12, pods in 0u8..=12, routed: bool) {
            let wiring = if routed { PodWiring::Routed } else { PodWiring::Unwired };
            let topology = plan(clusters, nodes, pods, wiring);
            let mut names = BTreeSet::new();
            let mut addresses = BTreeSet::new();
            for host in &topology.hosts {
                prop_assert!(names.insert(&host.name));
                let mut interfaces = BTreeSet::new();
                for interface in &host.interfaces {
                    prop_assert!(interface.name.len() <= 15, "{}", interface.name);
                    prop_assert!(interfaces.insert(interface.name.as_str()));
                    for address in &interface.addresses {
                        // The node side of its pods' cables shares the router address on purpose.
                        let shared = host.role == Role::Node && interface.name != UPLINK;
                        prop_assert!(addresses.insert(address.address) || shared, "{address}");
                    }
                }
                for route in &host.routes {
                    prop_assert!(interfaces.contains(route.interface.as_str()));
                }
            }
        }
    }
}
