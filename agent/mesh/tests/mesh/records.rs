//! Records that the other tests start from: cluster a is ours, and this node is a1.
//!
//! ```text
//! cluster  id  nodes                                             PodCIDRs
//! a        1   a1 172.30.1.1, a2 172.30.1.2                      10.1.1.0/24, 10.1.2.0/24
//! b        2   b1 172.30.2.1, b2 172.30.2.2                      10.2.1.0/24, 10.2.2.0/24
//! c        3   c1 172.30.3.1                                     10.3.1.0/24
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use landbridge_agent_mesh::{Desired, Local, LocalEndpoint, Mesh, NodeRef, Reachability};
use landbridge_bpf_maps::Address;
use landbridge_kvstore_schema::{
    AddressType, Backend, Capabilities, ClusterConfig, ClusterId, ClusterName, ClusterService, Identity,
    IpIdentityPair, IpOrPrefix, Keyspace, Kind, Label, Labels, LocalBackend, LocalBackendPort, LocalPod,
    LocalPort, LocalService, MaxClusters, NamespacedName, Node, NodeAddress, NumericIdentity, ObjectName,
    Origin, OwnRecord, Policy, Protocol, ServicePort, cluster_config_key,
};

pub(crate) const NODES: [(&str, &str, &str, &str); 5] = [
    ("a", "a1", "172.30.1.1", "10.1.1.0/24"),
    ("a", "a2", "172.30.1.2", "10.1.2.0/24"),
    ("b", "b1", "172.30.2.1", "10.2.1.0/24"),
    ("b", "b2", "172.30.2.2", "10.2.2.0/24"),
    ("c", "c1", "172.30.3.1", "10.3.1.0/24"),
];

/// A key and its value.
pub(crate) type Record = (String, Vec<u8>);

pub(crate) fn cluster(name: &str) -> ClusterName {
    ClusterName::new(name).unwrap()
}

pub(crate) fn id(name: &str) -> ClusterId {
    let id = name.bytes().next().unwrap() - b'a' + 1;
    ClusterId::new(id.into(), MaxClusters::Of255).unwrap()
}

/// The number of the `index`th identity of a cluster.
pub(crate) fn identity(cluster: &str, index: u32) -> u32 {
    id(cluster).identities().start().0 + 256 + index
}

pub(crate) fn unknown_pod(cluster: &str) -> u32 {
    id(cluster).identities().start().0
}

pub(crate) fn origin(name: &str) -> Origin {
    let keyspace = if name == "a" { Keyspace::state(cluster(name)) } else { Keyspace::cache(cluster(name)) };
    Origin { keyspace, cluster_id: id(name) }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn address(text: &str) -> Address {
    Address::from(ip(text))
}

pub(crate) fn object(name: &str) -> ObjectName {
    ObjectName::new(name).unwrap()
}

pub(crate) fn named(name: &str) -> NamespacedName {
    let (namespace, name) = name.split_once('/').unwrap();
    NamespacedName::new(namespace, name).unwrap()
}

pub(crate) fn node_ref(cluster_name: &str, node: &str) -> NodeRef {
    NodeRef { cluster: cluster(cluster_name), node: object(node) }
}

pub(crate) fn bare_node(name: &str) -> Node {
    Node {
        name: object(name),
        addresses: Vec::new(),
        ipv4_pod_cidrs: Vec::new(),
        ipv6_pod_cidrs: Vec::new(),
        ipv4_health: None,
        ipv6_health: None,
        ipv4_ingress: None,
        ipv6_ingress: None,
        encryption_key: 0,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        wireguard_public_key: String::new(),
        boot_id: String::new(),
    }
}

pub(crate) fn node(cluster: &str, name: &str, underlay: &str, pod_cidr: &str) -> Record {
    let internal = NodeAddress { address_type: AddressType::InternalIp, ip: ip(underlay) };
    let pod_cidrs = vec![pod_cidr.parse().unwrap()];
    node_record(cluster, &Node { addresses: vec![internal], ipv4_pod_cidrs: pod_cidrs, ..bare_node(name) })
}

pub(crate) fn node_record(cluster: &str, node: &Node) -> Record {
    let origin = origin(cluster);
    (origin.keyspace.key(&node.record_name()), node.encode(&origin))
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| Label::new("k8s", key, value).unwrap()).collect()
}

pub(crate) fn identity_record(cluster: &str, index: u32, pairs: &[(&str, &str)]) -> Record {
    let origin = origin(cluster);
    let number = NumericIdentity(identity(cluster, index));
    let identity = Identity::new(&origin, number, labels(pairs)).unwrap();
    (origin.keyspace.key(&identity.name()), identity.encode())
}

/// The record of an address or a range; without a host if `host` is empty.
pub(crate) fn ip_record(cluster: &str, ip: &str, host: &str, identity: u32) -> Record {
    let ip: IpOrPrefix = ip.parse().unwrap();
    let pair = IpIdentityPair {
        ip,
        host_ip: host.parse().ok(),
        identity: NumericIdentity(identity),
        encryption_key: 0,
        metadata: String::new(),
        namespace: String::new(),
        pod_name: String::new(),
        service_account: String::new(),
        named_ports: Vec::new(),
    };
    (origin(cluster).keyspace.key(&pair.record_name()), pair.encode())
}

pub(crate) fn config(name: &str) -> Record {
    config_with_id(name, id(name))
}

pub(crate) fn config_with_id(name: &str, id: ClusterId) -> Record {
    let capabilities = Capabilities { synced_canaries: true, cached: true, ..Capabilities::default() };
    (cluster_config_key(&cluster(name)), ClusterConfig { id, capabilities }.encode())
}

pub(crate) fn canary(cluster: &str, kind: Kind) -> Record {
    (origin(cluster).keyspace.canary(kind), b"2026-10-01T08:00:00Z".to_vec())
}

/// A port of a backend: name, protocol, number.
pub(crate) type Port = (&'static str, Protocol, u16);

pub(crate) fn port_number(port: u16) -> NonZeroU16 {
    NonZeroU16::new(port).unwrap()
}

pub(crate) fn service_record(cluster: &str, name: &str, backends: &[(&str, Vec<Port>)]) -> Record {
    let backend = |ports: &[Port]| Backend {
        ports: ports
            .iter()
            .map(|(name, protocol, port)| {
                ((*name).to_owned(), ServicePort { protocol: *protocol, port: port_number(*port) })
            })
            .collect(),
        ..Backend::default()
    };
    let service = ClusterService {
        name: named(name),
        frontends: BTreeMap::new(),
        backends: backends.iter().map(|(address, ports)| (ip(address), backend(ports))).collect(),
        labels: BTreeMap::new(),
        selector: BTreeMap::new(),
    };
    let origin = origin(cluster);
    (origin.keyspace.key(&service.record_name()), service.encode(&origin))
}

pub(crate) fn local_service(name: &str, service: &LocalService) -> Record {
    (LocalService::key(&named(name)).to_string(), service.encode())
}

pub(crate) fn local_port((name, protocol, port): Port) -> LocalPort {
    LocalPort { name: name.to_owned(), protocol, port: port_number(port) }
}

pub(crate) fn ready_backend(ports: &[Port]) -> LocalBackend {
    let ports = ports.iter().map(|(name, protocol, port)| {
        ((*name).to_owned(), LocalBackendPort { protocol: *protocol, port: port_number(*port) })
    });
    LocalBackend { node: None, ports: ports.collect(), ready: true, serving: true, terminating: false }
}

pub(crate) fn pod(name: &str, identity: u32) -> Record {
    let record = LocalPod { node: object("a1"), identity, uid: String::new() };
    (LocalPod::key(&named(name)).to_string(), record.encode())
}

pub(crate) fn policy(name: &str, policy: &Policy) -> Record {
    (Policy::key(&named(name)).to_string(), policy.encode())
}

pub(crate) fn endpoint(name: &str, number: u16) -> LocalEndpoint {
    let number_byte = number.to_be_bytes()[1];
    LocalEndpoint {
        interface: 100 + u32::from(number),
        mac: [2, 0, 0, 0, 0, number_byte],
        host_mac: [2, 0, 0, 0, 1, number_byte],
        id: number,
        pod: named(name),
    }
}

/// All nodes, and the configs of b and c.
pub(crate) fn nodes() -> Vec<Record> {
    let nodes =
        NODES.iter().map(|(cluster, name, underlay, pod_cidr)| node(cluster, name, underlay, pod_cidr));
    nodes.chain([config("b"), config("c")]).collect()
}

pub(crate) fn local() -> Local {
    Local { cluster: cluster("a"), id: id("a"), node: object("a1") }
}

/// A mesh that has read `records` and is complete. None of them may be refused.
pub(crate) fn mesh(records: impl IntoIterator<Item = Record>) -> Mesh {
    let mut mesh = Mesh::new(local(), &BTreeMap::new());
    for (key, value) in records {
        mesh.apply(&key, Some(&value)).unwrap();
    }
    mesh.set_complete(true);
    mesh
}

pub(crate) fn put(mesh: &mut Mesh, (key, value): &Record) -> Result<(), landbridge_agent_mesh::Refused> {
    mesh.apply(key, Some(value))
}

pub(crate) fn delete(mesh: &mut Mesh, (key, _): &Record) {
    mesh.apply(key, None).unwrap();
}

pub(crate) fn unreachable(nodes: &[(&str, &str)]) -> Reachability {
    Reachability { unreachable: nodes.iter().map(|(cluster, node)| node_ref(cluster, node)).collect() }
}

/// The underlay address of the node that an entry points to.
pub(crate) fn behind(desired: &Desired, ip: &str) -> Option<IpAddr> {
    let node = desired.ipcache[&address(ip)].node;
    desired.nodes.get(&node).map(|entry| entry.underlay.into())
}
