//! Records that the other tests start from.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use landbridge_kvstore_schema::{
    AddressType, Backend, ClusterId, ClusterName, ClusterService, Identity, IpIdentityPair, IpOrPrefix,
    Keyspace, Label, Labels, MaxClusters, NamedPort, NamespacedName, Node, NodeAddress, NumericIdentity,
    ObjectName, Origin, Ports, Protocol, ServicePort, Zone,
};

pub(crate) fn paris() -> Origin {
    let keyspace = Keyspace::state(ClusterName::new("paris").unwrap());
    Origin { keyspace, cluster_id: ClusterId::new(7, MaxClusters::Of255).unwrap() }
}

pub(crate) fn strings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn bare_node(name: &str) -> Node {
    Node {
        name: ObjectName::new(name).unwrap(),
        addresses: vec![],
        ipv4_pod_cidrs: vec![],
        ipv6_pod_cidrs: vec![],
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

pub(crate) fn node() -> Node {
    Node {
        addresses: vec![
            NodeAddress { address_type: AddressType::InternalIp, ip: address("192.0.2.13") },
            NodeAddress { address_type: AddressType::CiliumInternalIp, ip: address("10.7.3.201") },
        ],
        ipv4_pod_cidrs: vec!["10.7.3.0/24".parse().unwrap()],
        ipv4_health: Some("10.7.3.9".parse().unwrap()),
        labels: strings(&[("topology.kubernetes.io/zone", "eu-w3a")]),
        boot_id: "0d6f1a2e-7b64-4d7e-9c53-2f1f0a3f5b11".to_owned(),
        ..bare_node("paris-w3")
    }
}

pub(crate) fn full_node() -> Node {
    Node {
        name: ObjectName::new("paris-w4").unwrap(),
        addresses: vec![
            NodeAddress { address_type: AddressType::ExternalIp, ip: address("2001:db8::4") },
            NodeAddress {
                address_type: AddressType::Other("Hostname".to_owned()),
                ip: address("192.0.2.14"),
            },
        ],
        ipv4_pod_cidrs: ["10.7.4.0/24", "10.8.0.0/16", "10.9.9.9/32"]
            .map(|cidr| cidr.parse().unwrap())
            .to_vec(),
        ipv6_pod_cidrs: ["fd00:7:4::/64", "fd00:8::/32"].map(|cidr| cidr.parse().unwrap()).to_vec(),
        ipv4_health: Some("10.7.4.2".parse().unwrap()),
        ipv6_health: Some("fd00:7:4::2".parse().unwrap()),
        ipv4_ingress: Some("10.7.4.3".parse().unwrap()),
        ipv6_ingress: Some("fd00:7:4::3".parse().unwrap()),
        encryption_key: 3,
        labels: strings(&[("b", "3"), ("a.b", "2"), ("a", "1")]),
        annotations: strings(&[("note", "<a href=\"x?a=1&b=2\">\u{2028}\u{2029}")]),
        wireguard_public_key: "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".to_owned(),
        boot_id: String::new(),
    }
}

pub(crate) fn identity() -> Identity {
    let labels = [
        ("io.kubernetes.pod.namespace", "shop"),
        ("io.cilium.k8s.policy.serviceaccount", "cart"),
        ("io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name", "shop"),
        ("app", "cart"),
    ];
    let labels: Labels =
        labels.map(|(key, value)| Label::new("k8s", key, value).unwrap()).into_iter().collect();
    Identity::new(&paris(), NumericIdentity(461_234), labels).unwrap()
}

pub(crate) fn pod_ip() -> IpIdentityPair {
    IpIdentityPair {
        ip: IpOrPrefix::address(address("10.7.3.21")),
        host_ip: Some(address("192.0.2.13")),
        identity: NumericIdentity(461_234),
        encryption_key: 0,
        metadata: String::new(),
        namespace: "shop".to_owned(),
        pod_name: "cart-6c9d-x2".to_owned(),
        service_account: "cart".to_owned(),
        named_ports: vec![],
    }
}

pub(crate) fn ip_prefix() -> IpIdentityPair {
    let named = |name: &str, port, protocol| NamedPort {
        name: name.to_owned(),
        port: NonZeroU16::new(port).unwrap(),
        protocol,
    };
    IpIdentityPair {
        ip: IpOrPrefix::prefix("fd00:7:3::/64".parse().unwrap()),
        host_ip: None,
        identity: NumericIdentity(458_752),
        encryption_key: 255,
        metadata: "m".to_owned(),
        namespace: String::new(),
        pod_name: String::new(),
        service_account: String::new(),
        named_ports: vec![named("dns", 53, Protocol::Udp), named("http", 8080, Protocol::Tcp)],
    }
}

pub(crate) fn ports(ports: &[(&str, Protocol, u16)]) -> Ports {
    let port = |protocol, port| ServicePort { protocol, port: NonZeroU16::new(port).unwrap() };
    ports.iter().map(|(name, protocol, number)| ((*name).to_owned(), port(*protocol, *number))).collect()
}

pub(crate) fn service() -> ClusterService {
    let zone = Zone { zone: "eu-w3a".to_owned(), for_zones: vec![] };
    let backend =
        Backend { ports: ports(&[("http", Protocol::Tcp, 8080)]), hostname: None, zone: Some(zone) };
    ClusterService {
        name: NamespacedName::new("shop", "cart").unwrap(),
        frontends: [(address("10.107.4.4"), ports(&[("http", Protocol::Tcp, 80)]))].into(),
        backends: [(address("10.7.3.21"), backend)].into(),
        labels: BTreeMap::new(),
        selector: strings(&[("app", "cart")]),
    }
}

pub(crate) fn headless_service() -> ClusterService {
    let zone = Zone { zone: "a".to_owned(), for_zones: vec!["a".to_owned(), "b".to_owned()] };
    let named =
        Backend { ports: ports(&[("", Protocol::Sctp, 1)]), hostname: Some("db-0".to_owned()), zone: None };
    let two_names = ports(&[("http", Protocol::Tcp, 8080), ("admin", Protocol::Tcp, 8080)]);
    let zoned = Backend { ports: two_names, hostname: None, zone: Some(zone) };
    ClusterService {
        name: NamespacedName::new("shop", "db").unwrap(),
        frontends: BTreeMap::new(),
        backends: [
            (address("fd00:7::1"), Backend::default()),
            (address("10.7.3.3"), zoned),
            (address("10.7.3.21"), named),
        ]
        .into(),
        labels: strings(&[("tier", "web")]),
        selector: BTreeMap::new(),
    }
}
