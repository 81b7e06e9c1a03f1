//! What follows for nodes, addresses and pods.

use std::collections::BTreeMap;

use landbridge_agent_mesh::{Desired, Mesh, MeshNode, Problem};
use landbridge_bpf_maps::{
    Endpoint, IpcacheEntry, KeyForms, NodeEntry, NodeNumber, PolicySet, identity as reserved,
};
use landbridge_kvstore_schema::{AddressType, Kind, Node, NodeAddress, NumericIdentity, Policy, Selector};

use crate::records::*;

fn entry(desired: &Desired, ip: &str) -> Option<IpcacheEntry> {
    desired.ipcache.get(&address(ip)).copied()
}

fn number_of(desired: &Desired, underlay: &str) -> Option<NodeNumber> {
    desired.nodes.iter().find(|(_, entry)| entry.underlay == address(underlay)).map(|(number, _)| *number)
}

#[test]
fn nothing_is_desired_before_the_feeds_were_complete_once() {
    let mut mesh = Mesh::new(local(), &BTreeMap::new());
    for record in &nodes() {
        put(&mut mesh, record).unwrap();
    }
    assert_eq!(mesh.desired(), Desired::default());
    mesh.set_complete(true);
    let complete = mesh.desired();
    assert_eq!(complete.nodes.len(), 4);
    // Lost and being read again: what is known stays.
    mesh.set_complete(false);
    assert_eq!(mesh.desired(), complete);
}

#[test]
fn nodes_have_their_addresses_and_others_a_number_and_their_range() {
    let desired = mesh(nodes()).desired();
    let none = NodeNumber::NONE;
    let expected_nodes =
        [(1, "172.30.1.2", 1), (2, "172.30.2.1", 2), (3, "172.30.2.2", 2), (4, "172.30.3.1", 3)];
    let expected_nodes = expected_nodes.map(|(number, underlay, cluster)| {
        (NodeNumber(number), NodeEntry { underlay: address(underlay), cluster })
    });
    assert_eq!(desired.nodes, BTreeMap::from(expected_nodes));
    for ip in ["172.30.1.1", "10.1.1.1", "10.1.1.2"] {
        assert_eq!(entry(&desired, ip), Some(IpcacheEntry { identity: reserved::HOST, node: none }), "{ip}");
    }
    for (ip, node) in [
        ("172.30.1.2", none),
        ("10.1.2.1", NodeNumber(1)),
        ("10.1.2.2", NodeNumber(1)),
        ("172.30.2.1", none),
        ("10.2.1.1", NodeNumber(2)),
        ("10.2.1.2", NodeNumber(2)),
    ] {
        assert_eq!(entry(&desired, ip), Some(IpcacheEntry { identity: reserved::REMOTE_NODE, node }), "{ip}");
    }
    let cidrs: Vec<_> =
        desired.cidrs.iter().map(|(key, entry)| (key.address, key.prefix_len, *entry)).collect();
    let cidr = |network: &str, cluster: &str, node| {
        (address(network), 120, IpcacheEntry { identity: unknown_pod(cluster), node: NodeNumber(node) })
    };
    let expected = [
        cidr("10.1.2.0", "a", 1),
        cidr("10.2.1.0", "b", 2),
        cidr("10.2.2.0", "b", 3),
        cidr("10.3.1.0", "c", 4),
    ];
    assert_eq!(cidrs, expected);
}

#[test]
fn a_node_of_both_families_is_behind_its_tunnel_but_for_where_that_ends() {
    let of_type = |address_type, text: &str| NodeAddress { address_type, ip: ip(text) };
    let node = Node {
        addresses: vec![
            of_type(AddressType::InternalIp, "fd30:2::9"),
            of_type(AddressType::InternalIp, "172.30.2.9"),
            of_type(AddressType::CiliumInternalIp, "fd10:2:9::1"),
        ],
        ipv4_pod_cidrs: vec!["10.2.9.0/24".parse().unwrap()],
        ipv6_pod_cidrs: vec!["fd10:2:9::/64".parse().unwrap()],
        ..bare_node("b9")
    };
    let desired = mesh(nodes().into_iter().chain([node_record("b", &node)])).desired();
    let number = entry(&desired, "10.2.9.1").unwrap().node;
    assert_eq!(desired.nodes[&number].underlay, address("172.30.2.9"));
    for (ip, node) in [
        ("172.30.2.9", NodeNumber::NONE),
        ("fd30:2::9", number),
        ("10.2.9.2", number),
        ("fd10:2:9::1", number),
        ("fd10:2:9::2", number),
    ] {
        assert_eq!(entry(&desired, ip), Some(IpcacheEntry { identity: reserved::REMOTE_NODE, node }), "{ip}");
    }
}

#[test]
fn a_node_says_itself_where_its_router_and_health_address_are_within_its_range() {
    let of_type = |address_type, text: &str| NodeAddress { address_type, ip: ip(text) };
    let node = |router: &str, health: &str| Node {
        addresses: vec![
            of_type(AddressType::ExternalIp, "192.0.2.1"),
            of_type(AddressType::InternalIp, "172.30.2.9"),
            of_type(AddressType::CiliumInternalIp, router),
        ],
        ipv4_pod_cidrs: vec!["10.2.9.0/24".parse().unwrap()],
        ipv4_health: Some(health.parse().unwrap()),
        ..bare_node("b9")
    };
    for (router, health, expected) in [
        ("10.2.9.201", "10.2.9.77", ("10.2.9.201", "10.2.9.77")),
        ("8.8.8.8", "10.1.1.9", ("10.2.9.1", "10.2.9.2")),
    ] {
        let mesh = mesh(nodes().into_iter().chain([node_record("b", &node(router, health))]));
        let nodes = mesh.remote_nodes();
        let found = nodes.iter().find(|found| found.name == node_ref("b", "b9")).unwrap();
        let MeshNode { underlay, routers, health, .. } = found;
        assert_eq!(*underlay, ip("172.30.2.9"));
        assert_eq!((&routers[..], &health[..]), (&[ip(expected.0)][..], &[ip(expected.1)][..]));
    }
}

#[test]
fn a_pod_is_behind_the_node_that_its_record_names() {
    let records = [
        ip_record("a", "10.1.1.9", "172.30.1.1", identity("a", 1)),
        ip_record("a", "10.1.2.9", "172.30.1.2", identity("a", 1)),
        ip_record("b", "10.2.1.9", "172.30.2.1", identity("b", 1)),
        // Elsewhere than its range says.
        ip_record("b", "10.2.1.10", "172.30.2.2", identity("b", 1)),
        // A node that is not known, and none at all.
        ip_record("b", "10.2.2.9", "172.30.2.99", identity("b", 1)),
        ip_record("b", "10.2.2.10", "", identity("b", 1)),
        // Neither a known node nor a known range.
        ip_record("b", "10.2.77.9", "172.30.2.99", identity("b", 1)),
        ip_record("b", "10.2.77.10", "", identity("b", 1)),
        // The address of a node of another cluster.
        ip_record("b", "10.2.77.11", "172.30.3.1", identity("b", 1)),
    ];
    let desired = mesh(nodes().into_iter().chain(records)).desired();
    assert_eq!(entry(&desired, "10.1.1.9"), None, "a pod of this node is known by its interface alone");
    for (pod, node) in [
        ("10.1.2.9", "172.30.1.2"),
        ("10.2.1.9", "172.30.2.1"),
        ("10.2.1.10", "172.30.2.2"),
        ("10.2.2.9", "172.30.2.2"),
        ("10.2.2.10", "172.30.2.2"),
    ] {
        assert_eq!(behind(&desired, pod), Some(ip(node)), "{pod}");
    }
    assert_eq!(entry(&desired, "10.2.77.9"), None);
    assert_eq!(entry(&desired, "10.2.77.10").unwrap().node, NodeNumber::NONE);
    assert_eq!(entry(&desired, "10.2.77.11"), None);
    assert_eq!(entry(&desired, "10.2.1.9").unwrap().identity, identity("b", 1));
}

#[test]
fn ranges_in_records_are_ranges_in_maps() {
    let records = [
        ip_record("b", "10.2.64.0/20", "172.30.2.1", identity("b", 5)),
        ip_record("b", "10.2.1.44/32", "172.30.2.1", identity("b", 6)),
    ];
    let desired = mesh(nodes().into_iter().chain(records)).desired();
    let (key, entry) = desired.cidrs.iter().find(|(key, _)| key.address == address("10.2.64.0")).unwrap();
    assert_eq!((key.prefix_len, entry.identity), (96 + 20, identity("b", 5)));
    assert_eq!(desired.ipcache[&address("10.2.1.44")].identity, identity("b", 6));
}

#[test]
fn nodes_keep_their_numbers() {
    // A restart: numbers are as they were found, also for a node that is new to the name, and the gap is used.
    let entry = |underlay: &str, cluster| NodeEntry { underlay: address(underlay), cluster };
    let found = BTreeMap::from([
        (NodeNumber(2), entry("172.30.3.1", 3)),
        (NodeNumber(7), entry("172.30.2.1", 2)),
        (NodeNumber(9), entry("172.30.99.99", 2)),
    ]);
    let mut mesh = Mesh::new(local(), &found);
    for record in &nodes() {
        put(&mut mesh, record).unwrap();
    }
    mesh.set_complete(true);
    let first = mesh.desired();
    let numbers = |desired: &Desired| {
        let underlays = ["172.30.1.2", "172.30.2.1", "172.30.2.2", "172.30.3.1"];
        underlays.map(|underlay| number_of(desired, underlay).map(|number| number.0))
    };
    assert_eq!(numbers(&first), [Some(1), Some(7), Some(3), Some(2)]);

    // One goes and another comes: the number rests for one round.
    delete(&mut mesh, &node("b", "b1", "172.30.2.1", "10.2.1.0/24"));
    delete(&mut mesh, &node("a", "a2", "172.30.1.2", "10.1.2.0/24"));
    put(&mut mesh, &node("b", "b3", "172.30.2.3", "10.2.3.0/24")).unwrap();
    let second = mesh.desired();
    assert_eq!(numbers(&second), [None, None, Some(3), Some(2)]);
    assert_eq!(number_of(&second, "172.30.2.3"), Some(NodeNumber(4)));
    put(&mut mesh, &node("b", "b4", "172.30.2.4", "10.2.4.0/24")).unwrap();
    assert_eq!(number_of(&mesh.desired(), "172.30.2.4"), Some(NodeNumber(1)));

    // A node that moves keeps its number, and one that is not seen while keys are read again does as well.
    put(&mut mesh, &node("b", "b4", "172.30.2.44", "10.2.4.0/24")).unwrap();
    assert_eq!(number_of(&mesh.desired(), "172.30.2.44"), Some(NodeNumber(1)));
    mesh.set_complete(false);
    delete(&mut mesh, &node("b", "b4", "172.30.2.44", "10.2.4.0/24"));
    assert_eq!(number_of(&mesh.desired(), "172.30.2.44"), None);
    put(&mut mesh, &node("b", "b0", "172.30.2.10", "10.2.10.0/24")).unwrap();
    put(&mut mesh, &node("b", "b4", "172.30.2.44", "10.2.4.0/24")).unwrap();
    let last = mesh.desired();
    assert_eq!(number_of(&last, "172.30.2.44"), Some(NodeNumber(1)));
    assert_eq!(number_of(&last, "172.30.2.10"), Some(NodeNumber(5)));
}

#[test]
fn a_restart_writes_nothing() {
    let subject = Selector::default();
    let everything = Policy { subject, ingress: Some(Vec::new()), egress: None };
    let records = nodes().into_iter().chain([
        identity_record("a", 1, &[("app", "cart")]),
        pod("shop/cart", identity("a", 1)),
        policy("shop/closed", &everything),
        ip_record("b", "10.2.1.9", "172.30.2.1", identity("b", 1)),
    ]);
    let records: Vec<_> = records.collect();
    let endpoints = BTreeMap::from([(ip("10.1.1.9"), endpoint("shop/cart", 1))]);
    let mut before = mesh(records.iter().rev().cloned());
    before.set_endpoints(endpoints.clone());
    let actual = before.desired();
    assert!(!actual.endpoints.is_empty());

    let mut after = Mesh::new(local(), &actual.nodes);
    after.set_endpoints(endpoints);
    for (index, record) in records.iter().enumerate() {
        assert_eq!(after.desired().writes(&actual, false), [], "after {index} records");
        put(&mut after, record).unwrap();
    }
    after.set_complete(true);
    assert_eq!(after.desired().writes(&actual, true), []);
}

#[test]
fn a_pod_of_this_node_is_served_as_its_record_says() {
    let cart = identity("a", 1);
    let mut mesh = mesh(nodes().into_iter().chain([identity_record("a", 1, &[("app", "cart")])]));
    mesh.set_endpoints(BTreeMap::from([(ip("10.1.1.9"), endpoint("shop/cart", 7))]));
    assert_eq!(mesh.identity_of(&named("shop/cart")), None);
    assert!(mesh.desired().endpoints.is_empty());
    assert_eq!(mesh.problems(), [Problem::UnknownPod { pod: named("shop/cart") }]);

    put(&mut mesh, &pod("shop/cart", cart)).unwrap();
    assert_eq!(mesh.identity_of(&named("shop/cart")), Some(NumericIdentity(cart)));
    let desired = mesh.desired();
    let expected = Endpoint {
        interface: 107,
        identity: cart,
        ingress: PolicySet::NOT_ENFORCED,
        egress: PolicySet::NOT_ENFORCED,
        mac: [2, 0, 0, 0, 0, 7],
        host_mac: [2, 0, 0, 0, 1, 7],
        id: 7,
        port_prefixes: 0,
        ingress_lacks: KeyForms::default(),
        egress_lacks: KeyForms::default(),
    };
    assert_eq!(desired.endpoints, BTreeMap::from([(address("10.1.1.9"), expected)]));
    // Before anybody has published the address.
    assert_eq!(entry(&desired, "10.1.1.9"), Some(IpcacheEntry { identity: cart, node: NodeNumber::NONE }));
    assert_eq!(mesh.problems(), []);
}

#[test]
fn a_pod_stays_what_it_was_until_its_interface_is_gone() {
    let (record, cart) = (pod("shop/cart", identity("a", 1)), identity("a", 1));
    let mut mesh = mesh(nodes().into_iter().chain([identity_record("a", 1, &[]), record.clone()]));
    mesh.set_endpoints(BTreeMap::from([(ip("10.1.1.9"), endpoint("shop/cart", 7))]));
    let before = mesh.desired();
    delete(&mut mesh, &record);
    assert_eq!(mesh.desired(), before);
    assert_eq!(mesh.identity_of(&named("shop/cart")), None);
    mesh.set_endpoints(BTreeMap::new());
    assert!(mesh.desired().endpoints.is_empty());
    // Another pod of that name is not that pod.
    mesh.set_endpoints(BTreeMap::from([(ip("10.1.1.9"), endpoint("shop/cart", 8))]));
    assert!(mesh.desired().endpoints.is_empty());
    assert_eq!(before.endpoints[&address("10.1.1.9")].identity, cart);
}

#[test]
fn a_pod_whose_labels_are_not_known_gets_nothing_rather_than_everything() {
    let mut mesh = mesh(nodes().into_iter().chain([pod("shop/cart", identity("a", 1))]));
    mesh.set_endpoints(BTreeMap::from([(ip("10.1.1.9"), endpoint("shop/cart", 7))]));
    assert_eq!(mesh.identity_of(&named("shop/cart")), None);
    let desired = mesh.desired();
    let sets = desired.endpoints.values().next().unwrap();
    assert!(sets.ingress != PolicySet::NOT_ENFORCED && sets.egress != PolicySet::NOT_ENFORCED);
    assert!(desired.policy.is_empty());
    let expected = Problem::UnknownLabels { pod: named("shop/cart"), identity: identity("a", 1) };
    assert_eq!(mesh.problems(), [expected]);
}

#[test]
fn a_cluster_is_synced_when_all_of_its_canaries_are_there() {
    let mut mesh = mesh(nodes());
    for kind in [Kind::Nodes, Kind::Identities, Kind::Ips, Kind::Services] {
        assert_eq!(mesh.synced_clusters(), []);
        put(&mut mesh, &canary("b", kind)).unwrap();
    }
    assert_eq!(mesh.synced_clusters(), [cluster("b")]);
    mesh.set_complete(false);
    assert_eq!(mesh.synced_clusters(), []);
    mesh.set_complete(true);
    delete(&mut mesh, &config("b"));
    assert_eq!(mesh.synced_clusters(), []);
}

#[test]
fn what_agents_do_not_read_is_ignored() {
    let mut mesh = mesh(nodes());
    let before = mesh.desired();
    for key in [
        "",
        "cilium",
        "cilium/.heartbeat",
        "cilium/state/identities/v1/value/k8s:app=cart;/172.30.1.1",
        "cilium/state/endpointslices/v1/a/shop/cart-1",
        "cilium/state/nodes/v1/b/b1",
        "cilium/cache/serviceexports/v1/b/shop/cart",
        "cilium/cache/nodes/v2/b/b1",
        "cilium/synced/b/cilium/cache/other/v1",
        "cilium/cluster-config/a",
        "landbridge/shared/drain",
        "landbridge/health/a2/report",
        "landbridge/local/other/x",
    ] {
        mesh.apply(key, Some(b"?")).unwrap();
        mesh.apply(key, None).unwrap();
    }
    assert_eq!(mesh.desired(), before);
    assert_eq!(mesh.problems(), []);
}
