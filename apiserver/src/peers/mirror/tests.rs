use proptest::prelude::*;

use super::super::admit::tests::{lyon, node, pod, service};
use super::*;

/// An identity of lyon.
const LYONS: u32 = 2 * 65_536 + 300;

fn mirror() -> Mirror {
    Mirror::new(lyon())
}

fn pod_record(ip: &str, identity: u32) -> (String, Bytes) {
    let pair = pod(ip, Some("172.30.2.1"), identity);
    (lyon().origin.keyspace.key(&pair.record_name()), pair.encode().into())
}

fn node_record(name: &str, internal: &str) -> (String, Bytes) {
    let node = node(name, internal, "10.2.1.0/24");
    (lyon().origin.keyspace.key(&node.record_name()), node.encode(&lyon().origin).into())
}

fn service_record(backends: &[&str]) -> (String, Bytes) {
    let service = service(backends);
    (lyon().origin.keyspace.key(&service.record_name()), service.encode(&lyon().origin).into())
}

fn put(key: &str, value: &Bytes) -> Write {
    Write::Put { key: key.to_owned(), value: value.to_vec() }
}

fn delete(key: &str) -> Write {
    Write::Delete { key: key.to_owned() }
}

const CART: &str = "cilium/cache/services/v1/lyon/shop/cart";

#[test]
fn records_are_copied_byte_for_byte_to_the_keys_of_the_cache() {
    let mut mirror = mirror();
    let (key, value) = pod_record("10.2.1.7", LYONS);
    // As another writer of the schema may write it.
    let value = Bytes::from([&value[..value.len() - 1], b", \"NewField\": [1] }"].concat());
    assert_eq!(key, "cilium/state/ip/v1/default/10.2.1.7");
    assert_eq!(mirror.upsert(&key, value.clone()), [put("cilium/cache/ip/v1/lyon/10.2.1.7", &value)]);
    assert_eq!(mirror.upsert(&key, value.clone()), [], "nothing new, nothing to write");
    assert_eq!(mirror.delete(&key), [delete("cilium/cache/ip/v1/lyon/10.2.1.7")]);
    assert_eq!(mirror.delete(&key), []);
}

#[test]
fn a_record_that_turns_bad_is_withdrawn() {
    let mut mirror = mirror();
    let (key, good) = pod_record("10.2.1.7", LYONS);
    let (_, bad) = pod_record("10.2.1.7", 1);
    mirror.upsert(&key, good.clone());
    assert_eq!(mirror.upsert(&key, bad.clone()), [delete("cilium/cache/ip/v1/lyon/10.2.1.7")]);
    assert_eq!(mirror.upsert(&key, bad), []);
    let counts = mirror.counts();
    assert_eq!(counts.refused, [("reserved_identity", 1)].into());
    assert_eq!(counts.refusals, ["cilium/state/ip/v1/default/10.2.1.7: ID is the reserved identity 1"]);
    assert_eq!(mirror.upsert(&key, good.clone()), [put("cilium/cache/ip/v1/lyon/10.2.1.7", &good)]);
    assert_eq!(mirror.counts().refused, [].into());
}

#[test]
fn services_wait_for_the_nodes_that_their_backends_are_on() {
    let mut mirror = mirror();
    let (service_key, service) = service_record(&["172.30.2.1"]);
    assert_eq!(mirror.upsert(&service_key, service.clone()), []);
    let (node_key, node) = node_record("n1", "172.30.2.1");
    let writes = mirror.upsert(&node_key, node.clone());
    assert_eq!(writes, [put("cilium/cache/nodes/v1/lyon/n1", &node), put(CART, &service)]);
    // The address goes with the last node that has it.
    let (second_key, second) = node_record("n2", "172.30.2.1");
    mirror.upsert(&second_key, second);
    assert_eq!(mirror.delete(&node_key), [delete("cilium/cache/nodes/v1/lyon/n1")]);
    let (_, moved) = node_record("n2", "172.30.2.2");
    let writes = mirror.upsert(&second_key, moved.clone());
    assert_eq!(writes, [put("cilium/cache/nodes/v1/lyon/n2", &moved), delete(CART)]);
}

#[test]
fn other_bounds_are_applied_to_what_is_there() {
    let mut mirror = mirror();
    let (key, value) = pod_record("10.2.1.7", LYONS);
    let (node_key, node) = node_record("n1", "172.30.2.1");
    mirror.upsert(&key, value.clone());
    mirror.upsert(&node_key, node.clone());
    let mut narrow = lyon();
    narrow.pod_ranges = vec!["10.22.0.0/16".parse().unwrap()];
    let writes = mirror.rebound(narrow);
    assert_eq!(writes, [delete("cilium/cache/nodes/v1/lyon/n1"), delete("cilium/cache/ip/v1/lyon/10.2.1.7")]);
    let writes = mirror.rebound(lyon());
    assert_eq!(
        writes,
        [put("cilium/cache/nodes/v1/lyon/n1", &node), put("cilium/cache/ip/v1/lyon/10.2.1.7", &value)]
    );
    assert_eq!(mirror.rebound(lyon()), []);
}

#[test]
fn the_memory_of_a_peer_is_bounded() {
    let mut mirror = mirror();
    let max = limit(Kind::Nodes);
    let key = |index: usize| format!("cilium/state/nodes/v1/lyon/n{index}");
    for index in 0..max + 7 {
        mirror.upsert(&key(index), Bytes::from_static(b"junk"));
    }
    let counts = mirror.counts();
    assert_eq!(counts.refused, [("malformed", max as u64), ("too_many", 7)].into());
    assert_eq!(counts.refusals.len(), LISTED_REFUSALS + 1);
    assert!(counts.refusals[LISTED_REFUSALS].contains("more than 5000 nodes"));
    assert!(!mirror.wants_relist());
    for index in 0..max / 5 {
        mirror.delete(&key(index));
    }
    assert!(mirror.wants_relist(), "there is room again for what was passed over");
}

#[test]
fn the_memory_of_a_peer_is_bounded_whatever_the_size_of_its_records() {
    let mut mirror = mirror();
    let (good_key, good) = node_record("good", "172.30.2.1");
    mirror.upsert(&good_key, good.clone());
    let large = Bytes::from(vec![b'x'; 1 << 20]);
    let key = |index: usize| format!("cilium/state/nodes/v1/lyon/n{index}");
    let fit = (limit_bytes(Kind::Nodes) - good.len()) / large.len();
    for index in 0..fit + 2 {
        mirror.upsert(&key(index), large.clone());
    }
    let counts = mirror.counts();
    assert_eq!(counts.refused, [("too_large", fit as u64), ("too_many", 2)].into());
    assert_eq!(counts.admitted, [(Kind::Nodes, 1)].into());
    // One that does not fit any more is not what it was before either.
    assert_eq!(mirror.upsert(&good_key, large.clone()), [delete("cilium/cache/nodes/v1/lyon/good")]);
    for index in 0..fit / 2 {
        mirror.delete(&key(index));
    }
    assert!(mirror.wants_relist(), "there is room again for what was passed over");
    assert_eq!(mirror.upsert(&good_key, good.clone()), [put("cilium/cache/nodes/v1/lyon/good", &good)]);
}

#[test]
fn keys_that_are_none_are_counted_and_those_of_others_are_not() {
    let mut mirror = mirror();
    assert_eq!(mirror.upsert("cilium/state/ip/v1/default/010.2.1.7", Bytes::new()), []);
    assert_eq!(mirror.upsert("cilium/state/identities/v1/value/x/192.0.2.1", Bytes::new()), []);
    assert_eq!(mirror.upsert("cilium/state/nodes/v1/paris/n1", Bytes::new()), []);
    assert_eq!(mirror.upsert("cilium/state/endpointslices/v1/lyon/shop/cart-1", Bytes::new()), []);
    assert_eq!(mirror.counts().refused, [("invalid_key", 1)].into());
    mirror.delete("cilium/state/ip/v1/default/010.2.1.7");
    assert_eq!(mirror.counts().refused, [].into());
}

/// Something that a peer does.
#[derive(Clone, Debug)]
enum Step {
    Upsert(String, Bytes),
    Delete(String),
    Narrow(bool),
}

fn any_step() -> impl Strategy<Value = Step> {
    let record = prop_oneof![
        (0u8..4, 1u32..4).prop_map(|(d, cluster)| pod_record(&format!("10.2.1.{d}"), cluster * 65_536 + 300)),
        (0u8..3, 0u8..4)
            .prop_map(|(n, d)| node_record(&format!("n{n}"), &format!("172.30.{}.{d}", d.min(2)))),
        prop::collection::vec(
            prop_oneof![Just("10.2.1.7"), Just("172.30.2.2"), Just("172.30.2.3"), Just("8.8.8.8")],
            0..3
        )
        .prop_map(|backends| service_record(&backends)),
    ];
    prop_oneof![
        6 => record.clone().prop_map(|(key, value)| Step::Upsert(key, value)),
        2 => record.prop_map(|(key, _)| Step::Delete(key)),
        1 => any::<bool>().prop_map(Step::Narrow),
    ]
}

fn applied(copy: &mut BTreeMap<String, Vec<u8>>, writes: Vec<Write>) {
    for write in writes {
        match write {
            Write::Put { key, value } => drop(copy.insert(key, value)),
            Write::Delete { key } => drop(copy.remove(&key)),
        }
    }
}

proptest! {
    /// The changes alone lead to the copy that a full pass makes, and a full pass after them has nothing to do.
    #[test]
    fn changes_and_full_passes_agree(
        steps in prop::collection::vec(any_step(), 0..60), rubbish in prop::collection::vec(any::<u8>(), 0..4),
    ) {
        let mut mirror = mirror();
        let mut copy = BTreeMap::new();
        for step in steps {
            let writes = match step {
                Step::Upsert(key, value) => mirror.upsert(&key, value),
                Step::Delete(key) => mirror.delete(&key),
                Step::Narrow(narrow) => {
                    let mut bounds = lyon();
                    if narrow {
                        bounds.pod_ranges = vec!["10.2.1.0/29".parse().unwrap()];
                    }
                    mirror.rebound(bounds)
                }
            };
            applied(&mut copy, writes);
        }
        let pass = |mirror: &Mirror, copy: &BTreeMap<String, Vec<u8>>| {
            mirror.full_pass(copy.iter().map(|(key, value)| (key.as_str(), value.as_slice())))
        };
        prop_assert_eq!(pass(&mirror, &copy), []);
        // From nothing, and from something that is no longer true.
        let mut anew: BTreeMap<_, _> = [("cilium/cache/ip/v1/lyon/10.2.9.9".to_owned(), rubbish)].into();
        let writes = pass(&mirror, &anew);
        applied(&mut anew, writes);
        prop_assert_eq!(anew, copy);
    }
}
