//! Each refusal by name, and what holds for every record that is taken.

use landbridge_kvstore_schema::{
    Backend, ClusterId, Keyspace, Label, Labels, MaxClusters, NamespacedName, NodeAddress, NumericIdentity,
    ObjectName,
};
use proptest::prelude::*;

use super::*;
use crate::peers::addresses::Addresses;

fn cluster(name: &str) -> ClusterName {
    ClusterName::new(name).unwrap()
}

fn ranges(texts: &[&str]) -> Vec<IpPrefix> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Lyon, id 2, seen from paris, which is also connected to nice.
pub(crate) fn lyon() -> Bounds {
    let addresses = |pods: &[&str], services: &[&str], nodes: &[&str]| Addresses {
        pod_ranges: ranges(pods),
        service_ranges: ranges(services),
        nodes: nodes.iter().map(|node| node.parse().unwrap()).collect(),
    };
    Bounds {
        origin: origin("lyon", 2),
        pod_ranges: ranges(&["10.2.0.0/16", "10.22.0.0/16"]),
        taken: [
            (cluster("paris"), addresses(&["10.1.0.0/16"], &["10.96.0.0/16"], &["172.30.1.1"])),
            (cluster("nice"), addresses(&["10.3.0.0/16"], &[], &["172.30.3.1"])),
        ]
        .into(),
    }
}

pub(crate) fn origin(name: &str, id: u32) -> Origin {
    Origin {
        keyspace: Keyspace::state(cluster(name)),
        cluster_id: ClusterId::new(id, MaxClusters::Of255).unwrap(),
    }
}

pub(crate) fn node(name: &str, internal: &str, range: &str) -> Node {
    Node {
        name: ObjectName::new(name).unwrap(),
        addresses: vec![address(AddressType::InternalIp, internal)],
        ipv4_pod_cidrs: vec![range.parse().unwrap()],
        ipv6_pod_cidrs: vec![],
        ipv4_health: None,
        ipv6_health: None,
        ipv4_ingress: None,
        ipv6_ingress: None,
        encryption_key: 0,
        labels: [].into(),
        annotations: [].into(),
        wireguard_public_key: String::new(),
        boot_id: String::new(),
    }
}

fn address(address_type: AddressType, ip: &str) -> NodeAddress {
    NodeAddress { address_type, ip: ip.parse().unwrap() }
}

pub(crate) fn pod(ip: &str, host: Option<&str>, identity: u32) -> IpIdentityPair {
    IpIdentityPair {
        ip: ip.parse().unwrap(),
        host_ip: host.map(|host| host.parse().unwrap()),
        identity: NumericIdentity(identity),
        encryption_key: 0,
        metadata: String::new(),
        namespace: "shop".to_owned(),
        pod_name: "cart".to_owned(),
        service_account: String::new(),
        named_ports: vec![],
    }
}

pub(crate) fn service(backends: &[&str]) -> ClusterService {
    ClusterService {
        name: NamespacedName::new("shop", "cart").unwrap(),
        frontends: [].into(),
        backends: backends.iter().map(|ip| (ip.parse().unwrap(), Backend::default())).collect(),
        labels: [].into(),
        selector: [].into(),
    }
}

fn judge(name: &RecordName, value: &[u8]) -> Result<Admitted, Refusal> {
    let nodes: BTreeSet<IpAddr> = ["172.30.2.1".parse().unwrap()].into();
    admit(&lyon(), |address| nodes.contains(&address), name, value)
}

fn judge_node(node: &Node) -> Result<Admitted, Refusal> {
    judge(&node.record_name(), &node.encode(&lyon().origin))
}

fn judge_pod(pair: &IpIdentityPair) -> Result<Admitted, Refusal> {
    judge(&pair.record_name(), &pair.encode())
}

fn judge_service(service: &ClusterService) -> Result<Admitted, Refusal> {
    judge(&service.record_name(), &service.encode(&lyon().origin))
}

fn reason(verdict: Result<Admitted, Refusal>) -> &'static str {
    verdict.expect_err("the record had to be refused").reason()
}

/// An identity of lyon.
const LYONS: u32 = 2 * 65_536 + 300;

#[test]
fn what_is_the_peers_own_is_taken() {
    let mut full = node("n1", "172.30.2.1", "10.2.1.0/24");
    full.addresses.push(address(AddressType::CiliumInternalIp, "10.2.1.1"));
    full.addresses.push(address(AddressType::ExternalIp, "198.51.100.7"));
    full.ipv4_health = Some("10.2.1.2".parse().unwrap());
    let admitted = judge_node(&full).unwrap();
    assert_eq!(admitted.node_addresses, ["172.30.2.1", "198.51.100.7"].map(|ip| ip.parse().unwrap()).into());

    judge_pod(&pod("10.2.1.7", Some("172.30.2.1"), LYONS)).unwrap();
    judge_pod(&pod("10.22.0.0/24", None, LYONS)).unwrap();
    judge_pod(&pod("10.2.1.7", Some("172.30.2.9"), LYONS)).expect("its node may come later");
    assert!(!judge_service(&service(&["10.2.1.7", "10.22.1.7"])).unwrap().depends_on_nodes);
    assert!(judge_service(&service(&["10.2.1.7", "172.30.2.1"])).unwrap().depends_on_nodes);

    let labels = Labels::from_iter([Label::new("k8s", "app", "cart").unwrap()]);
    let identity = Identity::new(&lyon().origin, NumericIdentity(LYONS), labels).unwrap();
    judge(&identity.name(), &identity.encode()).unwrap();
}

#[test]
fn no_reserved_or_foreign_identity_is_taken() {
    for reserved in (0..=10).chain([100, 128, 255]) {
        assert_eq!(reason(judge_pod(&pod("10.2.1.7", None, reserved))), "reserved_identity", "{reserved}");
        let name = RecordName::Identity(NumericIdentity(reserved));
        let labels = b"k8s:io.cilium.k8s.policy.cluster=lyon;";
        assert_eq!(reason(judge(&name, labels)), "reserved_identity", "{reserved}");
    }
    for foreign in [256, 65_536 + 300, 3 * 65_536, (1 << 24) + LYONS] {
        assert_eq!(reason(judge_pod(&pod("10.2.1.7", None, foreign))), "foreign_identity", "{foreign}");
    }
    let name = RecordName::Identity(NumericIdentity(LYONS));
    assert_eq!(reason(judge(&name, b"k8s:io.cilium.k8s.policy.cluster=paris;")), "cluster_mismatch");
    assert_eq!(reason(judge(&name, b"k8s:app=cart;")), "missing_cluster_label");
    assert_eq!(
        reason(judge(&name, b"k8s:io.cilium.k8s.policy.cluster=lyon;reserved:ingress=;")),
        "node_local_label"
    );
}

#[test]
fn pods_are_within_the_agreed_ranges() {
    for outside in
        ["10.1.0.7", "10.3.0.7", "10.96.0.1", "172.30.1.1", "8.8.8.8", "10.2.0.0/15", "0.0.0.0/0", "fd00::1"]
    {
        assert_eq!(reason(judge_pod(&pod(outside, None, LYONS))), "outside_agreed_ranges", "{outside}");
    }
    for backend in ["10.1.0.7", "8.8.8.8", "169.254.169.254", "172.30.1.1", "127.0.0.1"] {
        assert_eq!(
            reason(judge_service(&service(&["10.2.1.7", backend]))),
            "outside_agreed_ranges",
            "{backend}"
        );
    }
    for range in ["10.1.0.0/24", "10.0.0.0/8", "10.2.0.0/15"] {
        assert_eq!(reason(judge_node(&node("n1", "172.30.2.1", range))), "outside_agreed_ranges", "{range}");
    }
    let mut bad = node("n1", "172.30.2.1", "10.2.1.0/24");
    bad.ipv4_health = Some("172.30.1.1".parse().unwrap());
    assert_eq!(reason(judge_node(&bad)), "outside_agreed_ranges");
    let mut bad = node("n1", "172.30.2.1", "10.2.1.0/24");
    bad.ipv4_ingress = Some("10.1.1.1".parse().unwrap());
    assert_eq!(reason(judge_node(&bad)), "outside_agreed_ranges");
    let mut bad = node("n1", "172.30.2.1", "10.2.1.0/24");
    bad.addresses.push(address(AddressType::CiliumInternalIp, "10.1.1.1"));
    assert_eq!(reason(judge_node(&bad)), "outside_agreed_ranges");
}

#[test]
fn nodes_take_nobodys_address() {
    let with = |internal| judge_node(&node("n1", internal, "10.2.1.0/24"));
    for taken in ["172.30.1.1", "172.30.3.1", "10.1.0.1", "10.96.0.1", "10.3.9.9"] {
        assert_eq!(reason(with(taken)), "address_taken", "{taken}");
        assert_eq!(reason(judge_pod(&pod("10.2.1.7", Some(taken), LYONS))), "address_taken", "{taken}");
    }
    for no_host in
        ["127.0.0.1", "0.0.0.0", "169.254.169.254", "224.0.0.1", "255.255.255.255", "::1", "fe80::1"]
    {
        assert_eq!(reason(with(no_host)), "no_host_address", "{no_host}");
        assert_eq!(reason(judge_pod(&pod("10.2.1.7", Some(no_host), LYONS))), "no_host_address", "{no_host}");
    }
    assert_eq!(reason(with("10.2.0.9")), "node_among_pods");
    assert_eq!(reason(judge_pod(&pod("10.2.1.7", Some("10.2.1.7"), LYONS))), "node_among_pods");
    let mut bad = node("n1", "172.30.2.1", "10.2.1.0/24");
    bad.addresses.push(address(AddressType::Other("Whatever".to_owned()), "172.30.1.1"));
    assert_eq!(reason(judge_node(&bad)), "address_taken");
}

#[test]
fn ranges_that_became_somebody_elses_are_refused() {
    let mut bounds = lyon();
    bounds.taken.get_mut(&cluster("paris")).unwrap().nodes.insert("10.2.1.7".parse().unwrap());
    let pair = pod("10.2.1.7", None, LYONS);
    let verdict = admit(&bounds, |_| false, &pair.record_name(), &pair.encode());
    assert_eq!(reason(verdict), "address_taken");
}

#[test]
fn records_of_another_cluster_or_shape_are_refused() {
    let valid = node("n1", "172.30.2.1", "10.2.1.0/24");
    let name = valid.record_name();
    assert_eq!(reason(judge(&name, &valid.encode(&origin("paris", 2)))), "cluster_mismatch");
    assert_eq!(reason(judge(&name, &valid.encode(&origin("lyon", 3)))), "cluster_id_mismatch");
    assert_eq!(reason(judge(&name, b"{")), "malformed");
    let other = node("n2", "172.30.2.1", "10.2.1.0/24").record_name();
    assert_eq!(reason(judge(&other, &valid.encode(&lyon().origin))), "key_mismatch");
    for kind in [RecordName::EndpointSlice, RecordName::ServiceExport] {
        let name = kind(NamespacedName::new("shop", "cart").unwrap());
        assert_eq!(reason(judge(&name, b"")), "kind");
    }
}

fn any_v4() -> impl Strategy<Value = String> {
    // Near the borders of what is agreed on, and anywhere.
    let near = (0u8..=4, 0u8..4, any::<u8>()).prop_map(|(b, c, d)| format!("10.{b}.{c}.{d}"));
    let nodes = (0u8..=4, 0u8..3).prop_map(|(c, d)| format!("172.30.{c}.{d}"));
    prop_oneof![near, nodes, any::<std::net::Ipv4Addr>().prop_map(|ip| ip.to_string())]
}

proptest! {
    /// Whatever is taken of pods is the peer's: its address, its host and its identity.
    #[test]
    fn pods_that_are_taken_are_the_peers(
        ip in any_v4(), len in prop::option::of(8u8..=32), host in prop::option::of(any_v4()), identity in prop_oneof![
            0u32..600, (0u32..5, 0u32..600).prop_map(|(cluster, local)| cluster * 65_536 + local), any::<u32>(),
        ],
    ) {
        use landbridge_kvstore_schema::{IpOrPrefix, Prefix};
        let address: std::net::Ipv4Addr = ip.parse().unwrap();
        let mut pair = pod(&ip, host.as_deref(), identity);
        if let Some(len) = len {
            pair.ip = IpOrPrefix::prefix(IpPrefix::V4(Prefix::containing(address, len).unwrap()));
        }
        if judge_pod(&pair).is_ok() {
            let bounds = lyon();
            let covered = pair.ip.covered();
            prop_assert!(bounds.pod_ranges.iter().any(|range| within(&covered, range)));
            prop_assert!(bounds.origin.cluster_id.owns(pair.identity) && !pair.identity.is_reserved());
            for taken in bounds.taken.values() {
                prop_assert_eq!(taken.overlap(&covered), None);
                if let Some(host) = pair.host_ip {
                    prop_assert_eq!(taken.overlap(&IpPrefix::host(host)), None);
                }
            }
        }
    }

    /// Bytes of any kind are refused or taken, and never a panic.
    #[test]
    fn any_bytes_are_judged(value in prop::collection::vec(any::<u8>(), 0..200), number in any::<u32>()) {
        for name in [
            RecordName::Node(ObjectName::new("n1").unwrap()),
            RecordName::Identity(NumericIdentity(number)),
            RecordName::Ip("10.2.1.7".parse().unwrap()),
            RecordName::Service(NamespacedName::new("shop", "cart").unwrap()),
        ] {
            let _ = judge(&name, &value);
        }
    }
}
