//! What is desired depends on what is there, not on how it came there.

use std::collections::BTreeMap;

use landbridge_agent_mesh::{Desired, Mesh, Problem};
use landbridge_kvstore_schema::{
    Affinity, Entity, Kind, LocalService, Policy, PolicyPeer, PolicyRule, Protocol, Selector,
};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::records::*;

/// Values of each key; the first one is what it holds in the end. Some are conflicts, some are refused.
fn keys() -> Vec<Vec<Record>> {
    let rule = |peer| PolicyRule { peers: Some(vec![peer]), ..PolicyRule::default() };
    let rules = vec![rule(PolicyPeer::Pods(Selector::default())), rule(PolicyPeer::Entity(Entity::Cluster))];
    let open = Policy { subject: Selector::default(), ingress: Some(rules), egress: None };
    let closed = Policy { subject: Selector::default(), ingress: None, egress: Some(Vec::new()) };
    let http = vec![("http", Protocol::Tcp, 80)];
    let service = |affinity| LocalService {
        addresses: vec![ip("10.96.0.10")],
        ports: http.iter().copied().map(local_port).collect(),
        global: true,
        affinity,
        backends: BTreeMap::from([(ip("10.1.1.9"), ready_backend(&http))]),
        ..LocalService::default()
    };
    let mut keys: Vec<Vec<Record>> = nodes().into_iter().map(|record| vec![record]).collect();
    keys.extend([
        // Two clusters that want one number, and one whose number changes.
        vec![config_with_id("d", id("b")), config("d")],
        vec![config("e"), config_with_id("e", id("c"))],
        vec![node("d", "d1", "172.30.4.1", "10.4.1.0/24"), node("d", "d1", "172.30.1.1", "10.1.1.0/24")],
        vec![node("e", "e1", "172.30.5.1", "10.5.1.0/24")],
        // Claims on others, once on ours.
        vec![node("b", "b3", "172.30.2.3", "10.3.1.128/25"), node("b", "b3", "172.30.2.3", "10.2.3.0/24")],
        vec![node("c", "c2", "172.30.1.2", "10.3.2.0/24")],
        vec![ip_record("b", "10.1.2.9", "172.30.2.1", identity("b", 1))],
        vec![ip_record("c", "10.2.1.9", "172.30.3.1", identity("c", 1))],
        vec![ip_record("b", "10.77.0.1", "", identity("b", 1))],
        vec![ip_record("c", "10.77.0.1", "", identity("c", 1))],
        vec![
            ip_record("b", "10.2.1.9", "172.30.2.1", identity("b", 1)),
            ip_record("b", "10.2.1.9", "172.30.2.2", identity("c", 2)),
        ],
        vec![ip_record("e", "10.5.1.9", "172.30.5.1", identity("e", 1))],
        vec![ip_record("a", "10.1.2.9", "172.30.1.2", identity("a", 2))],
        vec![identity_record("a", 1, &[("app", "cart")])],
        vec![identity_record("a", 2, &[("app", "web")]), identity_record("a", 2, &[])],
        vec![identity_record("b", 1, &[("app", "cart")])],
        vec![identity_record("e", 1, &[("app", "web")])],
        vec![service_record("b", "shop/cart", &[("10.2.1.9", http.clone()), ("10.1.1.7", http.clone())])],
        vec![
            service_record("c", "shop/cart", &[("10.3.1.9", http.clone())]),
            service_record("c", "shop/cart", &[]),
        ],
        vec![service_record("d", "shop/cart", &[("10.4.1.9", http.clone())])],
        vec![
            local_service("shop/cart", &service(Affinity::None)),
            local_service("shop/cart", &service(Affinity::Local)),
        ],
        // The address of another service.
        vec![local_service("shop/z", &service(Affinity::None))],
        vec![
            pod("shop/cart", identity("a", 1)),
            pod("shop/cart", identity("b", 1)),
            pod("shop/cart", identity("a", 2)),
        ],
        vec![policy("shop/open", &open), policy("shop/open", &closed)],
        vec![canary("b", Kind::Nodes)],
    ]);
    keys
}

fn observed(mesh: &mut Mesh) -> (Desired, Vec<Problem>) {
    let desired = mesh.desired();
    (desired, mesh.problems())
}

/// Each key takes its final value, in the order given.
fn in_order(mesh: &mut Mesh, keys: &[Vec<Record>], order: &[usize]) {
    for index in order {
        let _ = put(mesh, &keys[*index][0]);
    }
}

fn empty() -> Mesh {
    let mut mesh = Mesh::new(local(), &BTreeMap::new());
    mesh.set_endpoints(BTreeMap::from([(ip("10.1.1.9"), endpoint("shop/cart", 1))]));
    mesh.set_complete(true);
    mesh
}

fn any_order() -> impl Strategy<Value = Vec<usize>> {
    Just((0..keys().len()).collect::<Vec<_>>()).prop_shuffle()
}

#[test]
fn the_records_of_these_tests_conflict() {
    let (keys, mut mesh) = (keys(), empty());
    in_order(&mut mesh, &keys, &(0..keys.len()).collect::<Vec<_>>());
    let (desired, problems) = observed(&mut mesh);
    assert!(!desired.policy.is_empty() && desired.endpoints.len() == 1 && desired.services.len() == 1);
    let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    for part in [
        "cluster d is not read",
        "node c/c2 is left out",
        "node c/c1 is left out",
        "service shop/z",
        "cluster b belong",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    /// Whatever order records come in, whatever their keys held before and whoever asks in between.
    #[test]
    fn the_order_of_records_makes_no_difference(
        order in any_order(),
        last_order in any_order(),
        before in proptest::collection::vec((any::<Index>(), any::<Index>(), any::<bool>()), 0..40),
        complete_from_the_start: bool,
    ) {
        let keys = keys();
        let mut expected = empty();
        in_order(&mut expected, &keys, &order);

        let mut mesh = empty();
        mesh.set_complete(complete_from_the_start);
        for (key, value, is_put) in before {
            let (key, value) = value.get(key.get(&keys).as_slice());
            let _ = mesh.apply(key, is_put.then_some(value));
        }
        in_order(&mut mesh, &keys, &last_order);
        mesh.set_complete(true);
        prop_assert_eq!(observed(&mut mesh), observed(&mut expected));
        // To ask changes nothing.
        prop_assert_eq!(observed(&mut mesh), observed(&mut expected));
    }
}
