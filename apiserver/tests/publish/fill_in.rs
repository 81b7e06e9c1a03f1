//! Addresses of services and ranges of nodes, over any history of a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use landbridge_apiserver::objects::fill_in::{Kept, Ranges, fill_in};
use landbridge_apiserver::objects::{Node, Object, Objects, RequestedAddress, Service};
use landbridge_kvstore_schema::{Affinity, Balance, Ipv4Prefix, NamespacedName, ObjectName};
use proptest::prelude::*;

fn service(name: &str, address: RequestedAddress) -> Service {
    Service {
        name: NamespacedName::new("shop", name).unwrap(),
        labels: BTreeMap::new(),
        address,
        ports: Vec::new(),
        selector: BTreeMap::new(),
        publish_not_ready: false,
        global: false,
        shared: false,
        affinity: Affinity::None,
        balance: Balance::default(),
    }
}

fn node(name: &str, pod_range: Option<&str>) -> Node {
    Node {
        name: ObjectName::new(name).unwrap(),
        labels: BTreeMap::new(),
        addresses: Vec::new(),
        pod_range: pod_range.map(|range| range.parse().unwrap()),
        pod_range6: None,
        boot_id: String::new(),
    }
}

fn ranges() -> Ranges {
    // Small, so that they run out.
    Ranges { services: Some("10.96.0.0/28".parse().unwrap()), pods: vec!["10.1.0.0/21".parse().unwrap()] }
}

fn services(declared: impl IntoIterator<Item = Service>) -> Objects {
    declared.into_iter().map(Object::Service).collect()
}

fn addresses(objects: &Objects) -> BTreeMap<String, Ipv4Addr> {
    let given = objects.services.iter().filter_map(|(name, service)| match service.address {
        RequestedAddress::Given(address) => Some((name.name.to_string(), address)),
        _ => None,
    });
    given.collect()
}

#[test]
fn addresses_that_are_asked_for_are_left_to_whoever_asks() {
    // The first one that would be given out.
    let first = addresses(
        &fill_in(&services([service("x", RequestedAddress::Any)]), &Kept::default(), &ranges()).objects,
    );
    let asked = service("z", RequestedAddress::Given(first["x"]));
    let filled =
        fill_in(&services([service("a", RequestedAddress::Any), asked]), &Kept::default(), &ranges());
    let given = addresses(&filled.objects);
    assert_eq!(given["z"], first["x"]);
    assert_ne!(given["a"], first["x"]);
    assert!(filled.problems.is_empty(), "{:?}", filled.problems);
}

#[test]
fn whoever_has_an_address_keeps_it() {
    let before = fill_in(&services([service("a", RequestedAddress::Any)]), &Kept::default(), &ranges());
    let address = addresses(&before.objects)["a"];
    let late = service("b", RequestedAddress::Given(address));
    let after = fill_in(&services([service("a", RequestedAddress::Any), late]), &before.kept, &ranges());
    assert_eq!(addresses(&after.objects), BTreeMap::from([("a".to_owned(), address)]));
    assert_eq!(
        after.problems,
        [format!(
            "service shop/b asks for clusterIP {address}, which service shop/a has: choose another one, or leave clusterIP \
             out"
        )]
    );
}

#[test]
fn addresses_outside_of_the_range_and_ranges_that_are_used_up_are_told() {
    let outside = service("out", RequestedAddress::Given("10.97.0.1".parse().unwrap()));
    let many = (0..15).map(|at| service(&format!("s{at:02}"), RequestedAddress::Any));
    let filled = fill_in(&services(many.chain([outside])), &Kept::default(), &ranges());
    assert_eq!(addresses(&filled.objects).len(), 14); // a /28 without its first and last address
    let told = |text: &str| filled.problems.iter().filter(|problem| problem.contains(text)).count();
    assert_eq!((told("not an address of the service range"), told("larger --service-range")), (1, 1));
    let none = Ranges::default();
    let filled = fill_in(&services([service("a", RequestedAddress::Any)]), &Kept::default(), &none);
    assert!(filled.problems[0].contains("start the apiserver with --service-range"), "{:?}", filled.problems);
}

#[test]
fn what_is_not_to_be_seen_for_now_keeps_its_address() {
    let before = fill_in(&services([service("b", RequestedAddress::Any)]), &Kept::default(), &ranges());
    let part = Objects { whole: false, ..services([service("a", RequestedAddress::Any)]) };
    let after = fill_in(&part, &before.kept, &ranges());
    assert_ne!(addresses(&after.objects)["a"], addresses(&before.objects)["b"]);
    assert_eq!(after.kept.service_addresses.len(), 2);
}

#[test]
fn nodes_get_ranges_beside_those_that_are_declared() {
    let declared = [
        node("a1", Some("10.1.0.0/24")),
        node("a2", None),
        node("a3", Some("10.1.0.128/25")),
        node("a4", Some("10.9.0.0/24")),
    ];
    let filled = fill_in(&declared.map(Object::Node).into_iter().collect(), &Kept::default(), &ranges());
    let range = |name: &str| {
        filled.objects.nodes[&ObjectName::new(name).unwrap()].pod_range.map(|range| range.to_string())
    };
    assert_eq!(range("a1").as_deref(), Some("10.1.0.0/24"));
    assert_eq!(range("a2").as_deref(), Some("10.1.1.0/24"));
    assert_eq!(range("a3"), None);
    assert_eq!(range("a4").as_deref(), Some("10.9.0.0/24"));
    assert_eq!(filled.problems.len(), 2);
    assert!(filled.problems[0].contains("overlaps 10.1.0.0/24 of node a1"), "{:?}", filled.problems);
    assert!(filled.problems[1].contains("outside of --pod-range"), "{:?}", filled.problems);
}

#[test]
fn a_range_of_ipv6_that_two_nodes_declare_is_the_first_ones() {
    let declares =
        |name: &str, range: &str| Node { pod_range6: Some(range.parse().unwrap()), ..node(name, None) };
    let declared = [
        declares("a1", "fd10:1:1::/64"),
        declares("a2", "fd10:1:1:0:8000::/65"),
        declares("a3", "fd99::/64"),
    ];
    let ranges = Ranges { pods: [ranges().pods, vec!["fd10:1::/32".parse().unwrap()]].concat(), ..ranges() };
    let filled = fill_in(&declared.map(Object::Node).into_iter().collect(), &Kept::default(), &ranges);
    let given: Vec<bool> = filled.objects.nodes.values().map(|node| node.pod_range6.is_some()).collect();
    assert_eq!(given, [true, false, true]);
    assert_eq!(filled.problems.len(), 2);
    assert!(filled.problems[0].contains("overlaps fd10:1:1::/64 of node a1"), "{:?}", filled.problems);
    assert!(
        filled.problems[1].contains("fd99::/64, which is outside of --pod-range"),
        "{:?}",
        filled.problems
    );
}

fn any_services() -> impl Strategy<Value = Objects> {
    let address = prop_oneof![
        3 => Just(RequestedAddress::Any),
        1 => Just(RequestedAddress::Headless),
        2 => (0_u8..20).prop_map(|last| RequestedAddress::Given(Ipv4Addr::new(10, 96, 0, last))),
    ];
    let declared = proptest::collection::btree_map("[a-h][a-b]", address, 0..16);
    declared
        .prop_map(|declared| services(declared.into_iter().map(|(name, address)| service(&name, address))))
}

fn any_nodes() -> impl Strategy<Value = Objects> {
    let range = prop_oneof![
        3 => Just(None),
        1 => (0_u8..9, 22_u8..27).prop_map(|(third, len)| {
            Some(Ipv4Prefix::containing(Ipv4Addr::new(10, 1, third, 64), len).unwrap())
        }),
    ];
    let declared = proptest::collection::btree_map("[a-e][a-b]", range, 0..8);
    declared.prop_map(|declared| {
        let nodes = declared.into_iter().map(|(name, range)| Node { pod_range: range, ..node(&name, None) });
        nodes.map(Object::Node).collect()
    })
}

fn overlap(a: Ipv4Prefix, b: Ipv4Prefix) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}

proptest! {
    /// No address is given twice, and one that was given does not change for as long as its service stays as it is.
    #[test]
    fn addresses_are_unique_and_stay(history in proptest::collection::vec(any_services(), 1..6)) {
        let mut kept = Kept::default();
        let mut before = BTreeMap::new();
        for declared in history {
            let filled = fill_in(&declared, &kept, &ranges());
            let given = addresses(&filled.objects);
            prop_assert_eq!(given.values().collect::<BTreeSet<_>>().len(), given.len());
            for (name, address) in &kept.service_addresses {
                if declared.services.get(name).is_some_and(|service| service.address == RequestedAddress::Any) {
                    prop_assert_eq!(before.get(name.name.as_str()), Some(address));
                    prop_assert_eq!(given.get(name.name.as_str()), Some(address));
                }
            }
            // A restart changes nothing.
            let again = fill_in(&declared, &filled.kept, &ranges());
            prop_assert_eq!(&again, &filled);
            (kept, before) = (filled.kept, given);
        }
    }

    /// The same of ranges, of which no two overlap.
    #[test]
    fn ranges_are_apart_and_stay(history in proptest::collection::vec(any_nodes(), 1..6)) {
        let mut kept = Kept::default();
        for declared in history {
            let filled = fill_in(&declared, &kept, &ranges());
            let given: Vec<_> = filled.objects.nodes.values().filter_map(|node| node.pod_range).collect();
            for (at, range) in given.iter().enumerate() {
                prop_assert!(!given[at + 1..].iter().any(|other| overlap(*range, *other)), "{given:?}");
            }
            for (name, range) in &kept.pod_ranges {
                if declared.nodes.get(name).is_some_and(|node| node.pod_range.is_none()) {
                    prop_assert_eq!(filled.objects.nodes[name].pod_range, Some(*range));
                }
            }
            let again = fill_in(&declared, &filled.kept, &ranges());
            prop_assert_eq!((&again.objects, &again.kept), (&filled.objects, &filled.kept));
            kept = filled.kept;
        }
    }
}
