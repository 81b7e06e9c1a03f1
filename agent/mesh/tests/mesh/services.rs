//! Services of many clusters (clustermesh-schema §3.2 and §3.3).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use landbridge_agent_mesh::{BackendCount, Desired, Mesh, Problem, Reachability};
use landbridge_bpf_maps::{Algorithm, ServiceKey, ServiceSettings};
use landbridge_kvstore_schema::{
    Affinity, Balance, BalanceAlgorithm, ClusterName, LocalBackend, LocalService, Protocol,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;

use crate::records::*;

const HTTP: Port = ("http", Protocol::Tcp, 80);
const VIP: &str = "10.96.0.10";

fn key(address_text: &str, port: u16, protocol: u8) -> ServiceKey {
    ServiceKey { address: address(address_text), port: port.to_be_bytes(), protocol, scope: 0 }
}

/// Where connections to a frontend go: addresses with ports.
fn served_at(desired: &Desired, key: &ServiceKey) -> BTreeSet<(IpAddr, u16)> {
    let backends = desired.services[key].backends.iter();
    backends.map(|backend| (backend.address.into(), u16::from_be_bytes(backend.port))).collect()
}

/// Where connections to port 80 of the one service go, as a text of addresses.
fn served(mesh: &mut Mesh) -> String {
    let addresses = served_at(&mesh.desired(), &key(VIP, 80, 6));
    addresses.iter().map(|(ip, _)| ip.to_string()).collect::<Vec<_>>().join(" ")
}

fn global(affinity: Affinity, backends: &[(&str, LocalBackend)]) -> LocalService {
    LocalService {
        addresses: vec![ip(VIP)],
        ports: vec![local_port(HTTP)],
        global: true,
        shared: true,
        affinity,
        balance: Balance::default(),
        backends: backends.iter().map(|(address, backend)| (ip(address), backend.clone())).collect(),
    }
}

fn up() -> LocalBackend {
    ready_backend(&[HTTP])
}

fn draining() -> LocalBackend {
    LocalBackend { ready: false, terminating: true, ..up() }
}

fn starting() -> LocalBackend {
    LocalBackend { ready: false, serving: false, ..up() }
}

/// Backends of clusters b and c at one pod each.
fn remote() -> [Record; 2] {
    [("b", "10.2.1.9"), ("c", "10.3.1.9")]
        .map(|(cluster, ip)| service_record(cluster, "shop/cart", &[(ip, vec![HTTP])]))
}

fn with(service: &LocalService, remote: impl IntoIterator<Item = Record>) -> Mesh {
    mesh(nodes().into_iter().chain([local_service("shop/cart", service)]).chain(remote))
}

/// Where connections to port 80 of the one service go, as a text of addresses with weights.
fn weights(mesh: &mut Mesh) -> String {
    let desired = mesh.desired();
    let backends = desired.services[&key(VIP, 80, 6)].backends.iter();
    let texts = backends.map(|backend| format!("{}*{}", IpAddr::from(backend.address), backend.weight));
    texts.collect::<Vec<_>>().join(" ")
}

fn weighted(weights: &[(&str, u32)], backends: &[(&str, LocalBackend)]) -> LocalService {
    let weights = weights.iter().map(|(cluster, weight)| (ClusterName::new(cluster).unwrap(), *weight));
    let balance = Balance { weights: weights.collect(), ..Balance::default() };
    LocalService { balance, ..global(Affinity::None, backends) }
}

#[test]
fn clusters_get_their_shares() {
    let two_here = [("10.1.1.9", up()), ("10.1.1.8", up())];
    let split = weighted(&[("a", 50), ("b", 40), ("c", 10)], &two_here);
    assert_eq!(weights(&mut with(&split, remote())), "10.1.1.8*5 10.1.1.9*5 10.2.1.9*8 10.3.1.9*2");
    let [b, _] = remote();
    assert_eq!(weights(&mut with(&split, [b])), "10.1.1.8*5 10.1.1.9*5 10.2.1.9*8", "c's goes to the others");
    let only_here = LocalService { global: false, ..split };
    assert_eq!(weights(&mut with(&only_here, remote())), "10.1.1.8*1 10.1.1.9*1");
}

#[test]
fn a_cluster_without_a_share_is_for_when_no_other_is_left() {
    for shares in [&[("a", 1), ("b", 1), ("c", 0)][..], &[("a", 1), ("b", 1)]] {
        let service = weighted(shares, &[("10.1.1.9", up())]);
        assert_eq!(weights(&mut with(&service, remote())), "10.1.1.9*1 10.2.1.9*1");
        let [_, c] = remote();
        let service = weighted(shares, &[("10.1.1.9", starting())]);
        assert_eq!(weights(&mut with(&service, [c])), "10.3.1.9*1");
    }
}

#[test]
fn a_service_says_how_connections_are_spread() {
    for (declared, expected) in [
        (BalanceAlgorithm::Random, Algorithm::Random),
        (BalanceAlgorithm::RoundRobin, Algorithm::RoundRobin),
        (BalanceAlgorithm::Maglev, Algorithm::Maglev),
    ] {
        let balance = Balance { algorithm: declared, session_affinity_seconds: 600, ..Balance::default() };
        let service = LocalService { balance, ..global(Affinity::None, &[("10.1.1.9", up())]) };
        let settings = with(&service, []).desired().services[&key(VIP, 80, 6)].settings;
        let expected = ServiceSettings { algorithm: expected, affinity_seconds: 600, ..settings };
        assert_eq!(settings, expected);
    }
}

/// clustermesh-schema §3.2: "Key of merging = namespace + name".
#[test]
fn services_of_one_name_are_one_if_ours_is_global() {
    let service = global(Affinity::None, &[("10.1.1.9", up())]);
    let others = [
        service_record("b", "shop/other", &[("10.2.1.7", vec![HTTP])]),
        service_record("b", "other/cart", &[("10.2.1.8", vec![HTTP])]),
    ];
    assert_eq!(served(&mut with(&service, remote().into_iter().chain(others))), "10.1.1.9 10.2.1.9 10.3.1.9");
    let only_here = LocalService { global: false, ..service };
    assert_eq!(served(&mut with(&only_here, remote())), "10.1.1.9");
    // "A Service object must exist in the importing cluster".
    assert!(mesh(nodes().into_iter().chain(remote())).desired().services.is_empty());
}

/// clustermesh-schema §3.2: "the whole backend set is replaced; deletion removes it".
#[test]
fn what_a_peer_no_longer_shares_is_gone() {
    let service = global(Affinity::None, &[("10.1.1.9", up())]);
    let mut mesh = with(&service, remote());
    put(&mut mesh, &service_record("b", "shop/cart", &[("10.2.1.10", vec![HTTP])])).unwrap();
    assert_eq!(served(&mut mesh), "10.1.1.9 10.2.1.10 10.3.1.9");
    for record in &remote() {
        delete(&mut mesh, record);
    }
    assert_eq!(served(&mut mesh), "10.1.1.9");
    delete(&mut mesh, &local_service("shop/cart", &service));
    assert!(mesh.desired().services.is_empty());
}

/// clustermesh-schema §3.2, "Port matching"; §1.4, "several port names with the same number".
#[test]
fn ports_are_matched_by_name_and_protocol() {
    let tcp = |name, port| (name, Protocol::Tcp, port);
    let service = |ports: &[Port]| LocalService {
        ports: ports.iter().copied().map(local_port).collect(),
        ..global(Affinity::None, &[])
    };
    let backend = |ports: Vec<Port>| [service_record("b", "shop/cart", &[("10.2.1.9", ports)])];
    for (front, back, expected) in [
        // By name, whatever the numbers.
        (
            vec![tcp("http", 80), tcp("admin", 81)],
            vec![tcp("http", 8080), tcp("admin", 9090)],
            vec![(80, vec![8080]), (81, vec![9090])],
        ),
        // A frontend without a name takes all ports.
        (vec![tcp("", 80)], vec![tcp("http", 8080), tcp("admin", 9090)], vec![(80, vec![8080, 9090])]),
        // A backend without a name serves every one.
        (
            vec![tcp("http", 80), tcp("admin", 81)],
            vec![tcp("", 8080)],
            vec![(80, vec![8080]), (81, vec![8080])],
        ),
        (vec![tcp("http", 80)], vec![tcp("web", 8080)], vec![(80, vec![])]),
        (vec![tcp("http", 80)], vec![("http", Protocol::Udp, 8080)], vec![(80, vec![])]),
        (vec![tcp("http", 80)], vec![("http", Protocol::Any, 8080)], vec![(80, vec![8080])]),
        // One backend, not two (cilium#45109).
        (vec![tcp("", 80)], vec![tcp("http", 8080), tcp("web", 8080)], vec![(80, vec![8080])]),
    ] {
        let desired = with(&service(&front), backend(back.clone())).desired();
        assert_eq!(desired.services.len(), expected.len());
        for (port, backends) in expected {
            let found = &desired.services[&key(VIP, port, 6)].backends;
            let found: Vec<_> = found.iter().map(|backend| u16::from_be_bytes(backend.port)).collect();
            assert_eq!(found, backends, "{front:?} {back:?}");
        }
    }
}

#[test]
fn backends_are_of_the_frontends_family() {
    let service = LocalService {
        addresses: vec![ip(VIP), ip("fd00:96::10")],
        ..global(Affinity::None, &[("10.1.1.9", up())])
    };
    let six = service_record("b", "shop/cart", &[("fd00:2::9", vec![HTTP]), ("10.2.1.9", vec![HTTP])]);
    let desired = with(&service, [six]).desired();
    let four = BTreeSet::from([(ip("10.1.1.9"), 80), (ip("10.2.1.9"), 80)]);
    assert_eq!(served_at(&desired, &key(VIP, 80, 6)), four);
    assert_eq!(served_at(&desired, &key("fd00:96::10", 80, 6)), BTreeSet::from([(ip("fd00:2::9"), 80)]));
}

/// clustermesh-schema §3.4.
#[test]
fn a_headless_service_has_no_frontends() {
    let headless = LocalService { addresses: Vec::new(), ..global(Affinity::None, &[("10.1.1.9", up())]) };
    let mut mesh = with(&headless, remote());
    assert!(mesh.desired().services.is_empty());
    assert_eq!(mesh.services()[0].backends.len(), 3);
}

/// clustermesh-schema §3.3, line by line; a node that does not answer has unhealthy backends.
#[test]
fn affinity_says_who_comes_first() {
    let dead = |nodes: &[(&str, &str)]| unreachable(nodes);
    let local_backends = [("10.1.1.9", up()), ("10.1.2.9", up())];
    for (affinity, unreachable, expected) in [
        (Affinity::None, dead(&[]), "10.1.1.9 10.1.2.9 10.2.1.9 10.3.1.9"),
        (Affinity::None, dead(&[("b", "b1")]), "10.1.1.9 10.1.2.9 10.3.1.9"),
        (Affinity::None, dead(&[("b", "b2")]), "10.1.1.9 10.1.2.9 10.2.1.9 10.3.1.9"),
        (Affinity::Local, dead(&[]), "10.1.1.9 10.1.2.9"),
        (Affinity::Local, dead(&[("a", "a2")]), "10.1.1.9"),
        (Affinity::Remote, dead(&[]), "10.2.1.9 10.3.1.9"),
        (Affinity::Remote, dead(&[("b", "b1")]), "10.3.1.9"),
        (Affinity::Remote, dead(&[("b", "b1"), ("c", "c1")]), "10.1.1.9 10.1.2.9"),
    ] {
        let mut mesh = with(&global(affinity, &local_backends), remote());
        mesh.set_reachable(&unreachable);
        assert_eq!(served(&mut mesh), expected, "{affinity:?} {unreachable:?}");
    }
    // No backend here, or only one on its way out, or on its way in.
    for backends in [vec![], vec![("10.1.1.9", draining())], vec![("10.1.1.9", starting())]] {
        for affinity in [Affinity::None, Affinity::Local, Affinity::Remote] {
            assert_eq!(
                served(&mut with(&global(affinity, &backends), remote())),
                "10.2.1.9 10.3.1.9",
                "{affinity:?}"
            );
        }
    }
}

#[test]
fn the_last_resort_is_a_node_that_does_not_answer() {
    let on_a2 = [("10.1.2.9", up())];
    let all_dead = unreachable(&[("a", "a2"), ("b", "b1"), ("c", "c1")]);
    for (affinity, expected) in [
        (Affinity::None, "10.1.2.9 10.2.1.9 10.3.1.9"),
        (Affinity::Local, "10.1.2.9"),
        (Affinity::Remote, "10.2.1.9 10.3.1.9"),
    ] {
        let mut mesh = with(&global(affinity, &on_a2), remote());
        mesh.set_reachable(&all_dead);
        assert_eq!(served(&mut mesh), expected, "{affinity:?}");
        // This node reaches itself, whoever says what.
        mesh.set_reachable(&unreachable(&[("a", "a1"), ("a", "a2"), ("b", "b1"), ("c", "c1")]));
        put(&mut mesh, &local_service("shop/cart", &global(affinity, &[("10.1.1.9", up())]))).unwrap();
        assert_eq!(served(&mut mesh), "10.1.1.9", "{affinity:?}");
    }
    let only_here = LocalService { global: false, ..global(Affinity::Remote, &on_a2) };
    let mut mesh = with(&only_here, []);
    mesh.set_reachable(&all_dead);
    assert_eq!(served(&mut mesh), "10.1.2.9");
}

#[test]
fn a_backend_that_drains_is_used_if_nobody_else_is_there() {
    let mut mesh = with(&global(Affinity::None, &[("10.1.1.9", draining()), ("10.1.1.10", starting())]), []);
    assert_eq!(served(&mut mesh), "10.1.1.9");
    // It answers, which one on a dead node does not.
    let lost = service_record("b", "shop/cart", &[("10.2.1.9", vec![HTTP])]);
    put(&mut mesh, &lost).unwrap();
    mesh.set_reachable(&unreachable(&[("b", "b1")]));
    assert_eq!(served(&mut mesh), "10.1.1.9");
    put(&mut mesh, &local_service("shop/cart", &global(Affinity::None, &[("10.1.1.10", starting())])))
        .unwrap();
    assert_eq!(served(&mut mesh), "10.2.1.9");
    delete(&mut mesh, &lost);
    assert_eq!(served(&mut mesh), "");
}

#[test]
fn a_backend_is_on_the_node_that_its_records_say() {
    let named = LocalBackend { node: Some(object("a2")), ..up() };
    let service = global(Affinity::None, &[("10.99.0.1", named), ("10.1.1.9", up())]);
    let remote = service_record(
        "b",
        "shop/cart",
        &[
            ("10.2.1.9", vec![HTTP]),
            ("10.2.1.10", vec![HTTP]),
            ("172.30.2.1", vec![HTTP]),
            ("10.88.0.1", vec![HTTP]),
        ],
    );
    // Elsewhere than its range says.
    let moved = ip_record("b", "10.2.1.10", "172.30.2.2", identity("b", 1));
    let mut mesh = with(&service, [remote, moved]);
    mesh.set_reachable(&unreachable(&[("b", "b1"), ("a", "a2")]));
    // Of 10.88.0.1 nobody knows where it is; it is not held against it.
    assert_eq!(served(&mut mesh), "10.1.1.9 10.2.1.10 10.88.0.1");
}

#[test]
fn a_frontend_belongs_to_one_service() {
    let service = global(Affinity::None, &[("10.1.1.9", up())]);
    let mut mesh = with(&service, [local_service("shop/z", &global(Affinity::None, &[("10.1.1.10", up())]))]);
    assert_eq!(served(&mut mesh), "10.1.1.9");
    let problem = Problem::FrontendTaken {
        service: named("shop/z"),
        address: "10.96.0.10 port 80 TCP".to_owned(),
        holder: named("shop/cart"),
    };
    assert_eq!(mesh.problems(), [problem]);
}

#[test]
fn a_summary_says_who_serves() {
    let service =
        global(Affinity::Local, &[("10.1.1.9", up()), ("10.1.1.10", draining()), ("10.1.2.9", up())]);
    let mut mesh = with(&service, remote());
    mesh.set_reachable(&unreachable(&[("c", "c1"), ("a", "a2")]));
    let summary = mesh.services().pop().unwrap();
    assert_eq!((summary.name, summary.global, summary.affinity), (named("shop/cart"), true, Affinity::Local));
    let count = |known, healthy| BackendCount { known, healthy };
    let expected = [(cluster("a"), count(3, 1)), (cluster("b"), count(1, 1)), (cluster("c"), count(1, 0))];
    assert_eq!(summary.backends, BTreeMap::from(expected));
}

/// Where backends can be: on a node of a cluster, or at an address that nobody knows.
const PLACES: [(&str, &str, &str); 6] = [
    ("a", "a1", "10.1.1.9"),
    ("a", "a2", "10.1.2.9"),
    ("b", "b1", "10.2.1.9"),
    ("b", "b2", "10.2.2.9"),
    ("c", "c1", "10.3.1.9"),
    ("c", "", "10.88.0.1"),
];

fn any_port() -> impl Strategy<Value = Port> {
    let protocol = select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Any]);
    (select(vec!["", "http", "dns"]), protocol, select(vec![80_u16, 81]))
}

/// Ports with one of each name.
fn any_ports() -> impl Strategy<Value = Vec<Port>> {
    vec(any_port(), 0..3).prop_map(|mut ports| {
        let mut names = BTreeSet::new();
        ports.retain(|(name, _, _)| names.insert(*name));
        ports
    })
}

/// The best backends for a frontend, as one would say it.
fn naive(
    service: &LocalService,
    front: Port,
    protocol: u8,
    backends: &BTreeMap<usize, (Vec<Port>, bool, bool)>,
    dead: &BTreeSet<usize>,
) -> BTreeSet<(IpAddr, u16)> {
    let is_protocol = |of: Protocol| match of {
        Protocol::Tcp => protocol == 6,
        Protocol::Udp => protocol == 17,
        _ => true,
    };
    let of = |is_wanted: &dyn Fn(bool, bool, bool) -> bool| -> BTreeSet<(IpAddr, u16)> {
        let mut found = BTreeSet::new();
        for (place, (ports, is_up, is_draining)) in backends {
            let (cluster, _, address) = PLACES[*place];
            let is_local = cluster == "a";
            let (is_up, is_draining) = (*is_up || !is_local, *is_draining && is_local && !*is_up);
            let is_dead = dead.contains(place) && *place != 0 && *place != 5;
            if !(is_local || service.global)
                || !(is_up || is_draining)
                || !is_wanted(is_local, is_up, is_dead)
            {
                continue;
            }
            for (name, of, number) in ports {
                let is_name = front.0.is_empty() || name.is_empty() || *name == front.0;
                if is_name && is_protocol(*of) {
                    found.insert((ip(address), *number));
                }
            }
        }
        found
    };
    let affinity = if service.global { service.affinity } else { Affinity::None };
    for is_dead in [false, true] {
        let first = of(&|is_local, is_up, dead| {
            let is_first = match affinity {
                Affinity::None => true,
                Affinity::Local => is_local,
                Affinity::Remote => !is_local,
            };
            is_first && is_up && dead == is_dead
        });
        let up = of(&|_, is_up, dead| is_up && dead == is_dead);
        let any = of(&|_, _, dead| dead == is_dead);
        if let Some(found) = [first, up, any].into_iter().find(|found| !found.is_empty()) {
            return found;
        }
    }
    BTreeSet::new()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn backends_are_those_that_a_naive_model_finds(
        ports in any_ports(),
        affinity in select(vec![Affinity::None, Affinity::Local, Affinity::Remote]),
        is_global in prop::bool::weighted(0.8),
        backends in btree_map(0_usize..PLACES.len(), (any_ports(), any::<bool>(), any::<bool>()), 0..6),
        dead in btree_set(0_usize..PLACES.len(), 0..6),
    ) {
        let local = backends.iter().filter(|(place, _)| PLACES[**place].0 == "a");
        let local = local.map(|(place, (ports, ready, draining))| {
            let state = LocalBackend { ready: *ready, serving: *ready || *draining, terminating: *draining, ..ready_backend(ports) };
            (ip(PLACES[*place].2), state)
        });
        let service = LocalService {
            addresses: vec![ip(VIP)],
            ports: ports.iter().copied().map(local_port).collect(),
            global: is_global,
            shared: false,
            affinity,
            balance: Balance::default(),
            backends: local.collect(),
        };
        let remote = ["b", "c"].map(|cluster| {
            let of_cluster = backends.iter().filter(|(place, _)| PLACES[**place].0 == cluster);
            let of_cluster: Vec<_> = of_cluster.map(|(place, (ports, ..))| (PLACES[*place].2, ports.clone())).collect();
            service_record(cluster, "shop/cart", &of_cluster)
        });
        let mut mesh = with(&service, remote);
        let nodes = dead.iter().filter(|place| **place != 5).map(|place| node_ref(PLACES[*place].0, PLACES[*place].1));
        mesh.set_reachable(&Reachability { unreachable: nodes.collect() });
        let desired = mesh.desired();

        // Of frontends with one number and protocol the first counts.
        let mut seen = BTreeSet::new();
        for front in &ports {
            let protocols: &[u8] = match front.1 {
                Protocol::Tcp => &[6],
                Protocol::Udp => &[17],
                _ => &[6, 17, 132],
            };
            for protocol in protocols.iter().filter(|protocol| seen.insert((front.2, **protocol))).collect::<Vec<_>>() {
                let expected = naive(&service, *front, *protocol, &backends, &dead);
                prop_assert_eq!(served_at(&desired, &key(VIP, front.2, *protocol)), expected);
            }
        }
        prop_assert_eq!(desired.services.len(), seen.len());
        let numbers: BTreeSet<_> = desired.services.values().map(|spec| spec.settings.service).collect();
        prop_assert!(numbers.len() <= 1 && !numbers.contains(&0));
    }
}
