//! What other clusters may not say (DESIGN, "Trust"; clustermesh-schema §1.5).

use std::collections::BTreeMap;

use landbridge_agent_mesh::{AddressOwner, Mesh, Problem, Refused};
use landbridge_bpf_maps::identity as reserved;
use landbridge_kvstore_schema::{LocalService, Protocol};

use crate::records::*;

fn reasons(mesh: &Mesh) -> Vec<&'static str> {
    let reasons = mesh.problems().into_iter().filter_map(|problem| match problem {
        Problem::Refused { reason, .. } => Some(reason),
        _ => None,
    });
    reasons.collect()
}

#[test]
fn a_peer_does_not_get_an_address_of_ours() {
    let ours = ip_record("a", "10.1.2.9", "172.30.1.2", identity("a", 1));
    let service = LocalService { addresses: vec![ip("10.96.0.10")], ..LocalService::default() };
    let ours = nodes().into_iter().chain([ours, local_service("shop/cart", &service)]);
    let mut mesh = mesh(ours);
    let before = mesh.desired();
    for claim in [
        "10.1.1.77",
        "10.1.2.9",
        "10.1.1.1",
        "172.30.1.1",
        "172.30.1.2",
        "10.1.0.0/16",
        "0.0.0.0/0",
        "10.96.0.10",
    ] {
        let record = ip_record("b", claim, "172.30.2.1", identity("b", 1));
        let refused = put(&mut mesh, &record).unwrap_err();
        assert_eq!(refused.reason(), "address_taken", "{claim}");
        assert!(matches!(&refused, Refused::Claim { address, .. } if address == claim), "{refused}");
        assert_eq!(mesh.desired(), before, "{claim}");
        let counted = |problem: &Problem| matches!(problem, Problem::AddressClaims { addresses: 1, example, .. } if example == claim);
        assert!(mesh.problems().iter().any(counted), "{claim}");
        delete(&mut mesh, &record);
        assert_eq!(mesh.desired(), before, "{claim}");
        assert_eq!(mesh.problems(), []);
    }
}

#[test]
fn a_peer_does_not_get_what_is_no_clusters() {
    let service = LocalService {
        addresses: vec![ip("10.96.0.10")],
        ports: vec![local_port(("http", Protocol::Tcp, 80))],
        global: true,
        ..LocalService::default()
    };
    let mut mesh = mesh(nodes().into_iter().chain([local_service("shop/cart", &service)]));
    let before = mesh.desired();
    for special in ["127.0.0.1", "169.254.169.254", "224.0.0.5", "255.255.255.255", "0.0.0.0"] {
        let serves = service_record("b", "shop/cart", &[(special, vec![("http", Protocol::Tcp, 80)])]);
        let claims = [
            ip_record("b", special, "172.30.2.1", identity("b", 1)),
            node("b", "b9", "172.30.2.9", &format!("{special}/32")),
            serves,
        ];
        for claim in claims {
            assert_eq!(put(&mut mesh, &claim).unwrap_err().reason(), "address_taken", "{}", claim.0);
            assert_eq!(mesh.desired(), before, "{}", claim.0);
            delete(&mut mesh, &claim);
        }
    }
}

#[test]
fn a_peer_does_not_get_a_node_of_ours() {
    let service = LocalService { addresses: vec![ip("10.96.0.10")], ..LocalService::default() };
    let mut mesh = mesh(nodes().into_iter().chain([local_service("shop/cart", &service)]));
    let before = mesh.desired();
    let a2 = AddressOwner::Node(node_ref("a", "a2"));
    let services = AddressOwner::Services(cluster("a"));
    for (underlay, pod_cidr, address, owner) in [
        ("172.30.1.2", "10.2.9.0/24", "172.30.1.2", &a2),
        ("10.1.2.9", "10.2.9.0/24", "10.1.2.9", &a2),
        ("172.30.2.9", "10.1.2.128/25", "10.1.2.128/25", &a2),
        ("172.30.2.9", "172.30.1.2/32", "172.30.1.2/32", &a2),
        ("172.30.2.9", "10.96.0.0/24", "10.96.0.0/24", &services),
    ] {
        let record = node("b", "b9", underlay, pod_cidr);
        let (address, owner) = (address.to_owned(), owner.clone());
        let refused = put(&mut mesh, &record).unwrap_err();
        assert_eq!(
            refused,
            Refused::Claim { key: record.0.clone(), address: address.clone(), owner: owner.clone() }
        );
        assert_eq!(mesh.desired(), before);
        assert_eq!(mesh.remote_nodes().len(), 4);
        assert_eq!(mesh.problems(), [Problem::NodeClaim { node: node_ref("b", "b9"), address, owner }]);
    }
    for underlay in ["127.0.0.1", "169.254.1.1", "224.0.0.1", "0.0.0.0"] {
        put(&mut mesh, &node("b", "b9", underlay, "10.2.9.0/24")).unwrap();
        assert_eq!(mesh.desired(), before);
        assert_eq!(mesh.problems(), [Problem::NodeWithoutAddress { node: node_ref("b", "b9") }]);
    }
}

#[test]
fn a_claim_that_came_first_is_given_up_and_one_that_is_free_again_counts() {
    let claim = ip_record("b", "10.1.2.77", "172.30.2.1", identity("b", 1));
    let a2 = node("a", "a2", "172.30.1.2", "10.1.2.0/24");
    let others = nodes().into_iter().filter(|record| *record != a2);
    let mut mesh = mesh(others.chain([claim]));
    assert_eq!(mesh.desired().ipcache[&address("10.1.2.77")].identity, identity("b", 1));
    put(&mut mesh, &a2).unwrap();
    assert!(!mesh.desired().ipcache.contains_key(&address("10.1.2.77")));
    delete(&mut mesh, &a2);
    assert!(mesh.desired().ipcache.contains_key(&address("10.1.2.77")));
}

#[test]
fn peers_do_not_get_each_others_addresses() {
    let records = [
        ip_record("b", "10.2.1.9", "172.30.2.1", identity("b", 1)),
        ip_record("c", "10.2.1.9", "172.30.3.1", identity("c", 1)),
        ip_record("c", "10.2.1.10", "172.30.3.1", identity("c", 1)),
        ip_record("c", "172.30.2.2", "172.30.3.1", identity("c", 1)),
        // Nobody's range: the cluster that comes first by name has it.
        ip_record("c", "10.77.0.1", "172.30.3.1", identity("c", 1)),
        ip_record("b", "10.77.0.1", "172.30.2.1", identity("b", 1)),
        node("c", "c2", "172.30.2.2", "10.3.2.0/24"),
        node("c", "c3", "172.30.3.3", "10.2.0.0/16"),
    ];
    let mut mesh = mesh(nodes().into_iter().chain(records));
    let desired = mesh.desired();
    assert_eq!(desired.ipcache[&address("10.2.1.9")].identity, identity("b", 1));
    assert!(!desired.ipcache.contains_key(&address("10.2.1.10")));
    assert_eq!(desired.ipcache[&address("172.30.2.2")].identity, reserved::REMOTE_NODE);
    assert_eq!(desired.ipcache[&address("10.77.0.1")].identity, identity("b", 1));
    assert_eq!(mesh.remote_nodes().len(), 4);
    let problems: Vec<_> = mesh.problems().iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "node c/c2 is left out: 172.30.2.2 belongs to node b/b2",
            "node c/c3 is left out: 10.2.0.0/16 belongs to node b/b1",
            "4 addresses of cluster c belong to others and are left out, among them 10.2.1.9",
        ]
    );
}

#[test]
fn a_peer_does_not_serve_at_an_address_of_ours() {
    let http = |port| vec![("http", Protocol::Tcp, port)];
    let service = LocalService {
        addresses: vec![ip("10.96.0.10")],
        ports: vec![local_port(("http", Protocol::Tcp, 80))],
        global: true,
        ..LocalService::default()
    };
    let mut mesh = mesh(nodes().into_iter().chain([local_service("shop/cart", &service)]));
    let backends = [
        ("10.1.1.9", http(1)),
        ("172.30.1.2", http(2)),
        ("10.96.0.10", http(3)),
        ("10.3.1.9", http(4)),
        ("10.2.1.9", http(5)),
    ];
    let refused = put(&mut mesh, &service_record("b", "shop/cart", &backends)).unwrap_err();
    assert_eq!(refused.reason(), "address_taken");
    let desired = mesh.desired();
    let served = desired.services.values().next().unwrap();
    let addresses: Vec<_> = served.backends.iter().map(|backend| backend.address).collect();
    assert_eq!(addresses, [address("10.2.1.9")]);
    let problem = mesh.problems().pop().unwrap().to_string();
    assert_eq!(
        problem,
        "4 addresses of cluster b belong to others and are left out, among them 10.1.1.9 of service shop/cart"
    );
}

/// clustermesh-schema §1.5, "cluster-config".
#[test]
fn a_cluster_with_a_number_that_is_taken_is_not_read() {
    let mut mesh = mesh(nodes());
    let before = mesh.desired();
    for (name, id, holder) in [("d", id("a"), "a"), ("d", id("b"), "b")] {
        let refused = put(&mut mesh, &config_with_id(name, id)).unwrap_err();
        assert_eq!(refused, Refused::ClusterId { cluster: cluster(name), id, holder: cluster(holder) });
        let problem = Problem::ClusterId { cluster: cluster(name), id: id.get(), holder: cluster(holder) };
        assert_eq!(mesh.problems(), [problem]);
        assert_eq!(mesh.desired(), before);
    }
    // Once it is free, the records that were there all along are read.
    put(&mut mesh, &ip_record("d", "10.4.0.9", "", identity("d", 1))).unwrap();
    assert_eq!(mesh.desired(), before);
    put(&mut mesh, &config("d")).unwrap();
    assert_eq!(mesh.desired().ipcache[&address("10.4.0.9")].identity, identity("d", 1));
    assert_eq!(mesh.problems(), []);
}

/// clustermesh-schema §1.5; stricter than Cilium with reserved identities (cilium#45065).
#[test]
fn records_that_readers_reject_are_absent_and_counted() {
    let mut mesh = mesh(nodes());
    let before = mesh.desired();
    let renamed = |(_, value): Record, key: &str| (key.to_owned(), value);
    for (record, reason) in [
        (ip_record("b", "10.2.1.9", "", reserved::HOST), "reserved_identity"),
        (ip_record("b", "10.2.1.9", "", identity("c", 1)), "foreign_identity"),
        (ip_record("b", "10.2.1.9", "", identity("a", 1)), "foreign_identity"),
        (
            renamed(ip_record("b", "10.2.1.9", "", identity("b", 1)), "cilium/cache/ip/v1/b/10.2.1.8"),
            "key_mismatch",
        ),
        (renamed(node("b", "b9", "172.30.2.9", "10.2.9.0/24"), "cilium/cache/nodes/v1/b/b8"), "key_mismatch"),
        (
            renamed(node("c", "b9", "172.30.2.9", "10.2.9.0/24"), "cilium/cache/nodes/v1/b/b9"),
            "cluster_mismatch",
        ),
        (renamed(service_record("c", "x/y", &[]), "cilium/cache/services/v1/b/x/y"), "cluster_mismatch"),
        (renamed(identity_record("b", 1, &[]), "cilium/cache/identities/v1/b/id/7"), "reserved_identity"),
        (
            ("cilium/cache/identities/v1/b/id/131400".to_owned(), b"k8s:app=x;".to_vec()),
            "missing_cluster_label",
        ),
        (("cilium/cluster-config/d".to_owned(), b"{}".to_vec()), "invalid_cluster_id"),
        (("cilium/cache/nodes/v1/b/B1".to_owned(), Vec::new()), "invalid_key"),
        (renamed(node("a", "a3", "172.30.1.3", "10.1.3.0/24"), "cilium/cache/nodes/v1/a/a3"), "own_cluster"),
        (pod("shop/cart", identity("b", 1)), "foreign_identity"),
        (("landbridge/local/policies/shop/x".to_owned(), b"{".to_vec()), "malformed"),
    ] {
        assert_eq!(put(&mut mesh, &record).unwrap_err().reason(), reason, "{}", record.0);
        assert_eq!(mesh.desired(), before, "{}", record.0);
        assert_eq!(reasons(&mesh), [reason], "{}", record.0);
        delete(&mut mesh, &record);
        assert_eq!(mesh.problems(), [], "{}", record.0);
    }
}

#[test]
fn a_record_that_turns_bad_is_absent() {
    let good = ip_record("b", "10.2.1.9", "172.30.2.1", identity("b", 1));
    let mut mesh = mesh(nodes().into_iter().chain([good.clone()]));
    assert!(mesh.desired().ipcache.contains_key(&address("10.2.1.9")));
    mesh.apply(&good.0, Some(b"{")).unwrap_err();
    assert!(!mesh.desired().ipcache.contains_key(&address("10.2.1.9")));
    put(&mut mesh, &good).unwrap();
    assert!(mesh.desired().ipcache.contains_key(&address("10.2.1.9")));
}

#[test]
fn a_peer_that_is_removed_leaves_nothing() {
    let of_b = [
        ip_record("b", "10.2.1.9", "172.30.2.1", identity("b", 1)),
        identity_record("b", 1, &[("app", "cart")]),
        service_record("b", "shop/cart", &[]),
    ];
    let all: Vec<_> = nodes().into_iter().chain(of_b).collect();
    let mut mesh = mesh(all.clone());
    let is_of_b = |(key, _): &&Record| key.contains("/b/") || key.ends_with("/b");
    all.iter().filter(is_of_b).for_each(|record| delete(&mut mesh, record));
    let mut never = Mesh::new(local(), &BTreeMap::new());
    all.iter().filter(|record| !is_of_b(record)).for_each(|record| put(&mut never, record).unwrap());
    never.set_complete(true);
    assert_eq!(mesh.desired(), never.desired());
    assert_eq!(mesh.problems(), never.problems());
}
