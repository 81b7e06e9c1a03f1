//! The way from one content of the maps to another.

use std::collections::{BTreeMap, BTreeSet};

use landbridge_agent_mesh::{Desired, MapWrite, ServiceSpec};
use landbridge_bpf_maps::{
    Address, Backend, CidrKey, Endpoint, IpcacheEntry, NodeEntry, NodeNumber, PolicyEntry, PolicyKey,
    PolicySet, PolicyVerdict, ServiceKey, ServiceSettings,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;

fn pod(last: u8) -> Address {
    Address::from_ipv4([10, 0, 0, last])
}

/// What each set holds. It is the same for both contents, since a number never means something else.
type Sets = BTreeMap<u32, BTreeMap<u32, u8>>;

fn any_sets() -> impl Strategy<Value = Sets> {
    btree_map(1_u32..8, btree_map(0_u32..6, 1_u8..3, 0..5), 1..6)
}

fn rules(sets: &Sets, set: u32) -> BTreeMap<PolicyKey, PolicyEntry> {
    let rules = sets[&set].iter().map(|(peer, verdict)| {
        let key = PolicyKey { set: PolicySet(set), peer: *peer, ..PolicyKey::default() };
        (key, PolicyEntry { verdict: *verdict, ..PolicyEntry::default() })
    });
    rules.collect()
}

/// A content that a mesh can want: entries point to nodes and sets that are there.
fn any_desired(sets: Sets) -> impl Strategy<Value = Desired> {
    let nodes = btree_map(1_u32..5, any::<bool>(), 0..5);
    let entries = btree_map(0_u8..16, (0_u32..3, any::<Index>()), 0..10);
    let cidrs = btree_map((0_u8..4, 27_u32..31), (0_u32..3, any::<Index>()), 0..6);
    let in_use = vec(any::<Index>(), 0..4);
    let endpoints = btree_map(0_u8..16, (any::<Index>(), any::<Index>(), 0_u32..2), 0..5);
    let services = btree_map(0_u8..4, (0_u32..3, vec(0_u8..4, 0..3)), 0..4);
    (nodes, entries, cidrs, in_use, endpoints, services).prop_map(
        move |(nodes, entries, cidrs, in_use, endpoints, services)| {
            let node = |index: Index| {
                let numbers: Vec<_> = std::iter::once(0).chain(nodes.keys().copied()).collect();
                NodeNumber(*index.get(&numbers))
            };
            let entry = |identity, index| IpcacheEntry { identity, node: node(index) };
            let in_use: BTreeSet<u32> =
                in_use.iter().map(|index| *index.get(&sets.keys().copied().collect::<Vec<_>>())).collect();
            let set = |index: Index| {
                PolicySet(*index.get(&std::iter::once(0).chain(in_use.iter().copied()).collect::<Vec<_>>()))
            };
            Desired {
                ipcache: entries
                    .into_iter()
                    .map(|(ip, (identity, index))| (pod(ip), entry(identity, index)))
                    .collect(),
                cidrs: cidrs
                    .into_iter()
                    .map(|((block, len), (identity, index))| {
                        let address = pod((block << 2) & !((1_u16 << (32 - len)) - 1).to_be_bytes()[1]);
                        (CidrKey { prefix_len: 96 + len, address }, entry(identity, index))
                    })
                    .collect(),
                nodes: nodes
                    .iter()
                    .map(|(number, moved)| {
                        let last = u8::try_from(*number).unwrap() + if *moved { 100 } else { 0 };
                        let underlay = Address::from_ipv4([172, 30, 0, last]);
                        (NodeNumber(*number), NodeEntry { underlay, cluster: 1 })
                    })
                    .collect(),
                endpoints: endpoints
                    .into_iter()
                    .map(|(ip, (ingress, egress, identity))| {
                        let (ingress, egress) = (set(ingress), set(egress));
                        (pod(ip), Endpoint { ingress, egress, identity, ..Endpoint::default() })
                    })
                    .collect(),
                policy: in_use.iter().flat_map(|set| rules(&sets, *set)).collect(),
                services: services
                    .into_iter()
                    .map(|(ip, (service, backends))| {
                        let backends =
                            backends.into_iter().map(|ip| Backend { address: pod(ip), ..Backend::default() });
                        let key = ServiceKey { address: pod(ip), ..ServiceKey::default() };
                        (
                            key,
                            ServiceSpec {
                                settings: ServiceSettings { service, ..Default::default() },
                                backends: backends.collect(),
                            },
                        )
                    })
                    .collect(),
            }
        },
    )
}

/// A content as it is found: with what an agent that was killed had written or not deleted of sets that nobody uses.
fn any_actual(sets: Sets) -> impl Strategy<Value = Desired> {
    let left = vec((any::<Index>(), any::<Index>()), 0..4);
    (any_desired(sets.clone()), left).prop_map(move |(mut actual, left)| {
        let used: BTreeSet<_> =
            actual.endpoints.values().flat_map(|endpoint| [endpoint.ingress, endpoint.egress]).collect();
        for (set, entry) in left {
            let set = *set.get(&sets.keys().copied().collect::<Vec<_>>());
            let rules: Vec<_> = rules(&sets, set).into_iter().collect();
            if used.contains(&PolicySet(set)) || rules.is_empty() {
                continue;
            }
            let (key, value) = *entry.get(&rules);
            if actual.policy.remove(&key).is_none() {
                actual.policy.insert(key, value);
            }
        }
        actual
    })
}

fn any_pair() -> impl Strategy<Value = (Sets, Desired, Desired)> {
    any_sets().prop_flat_map(|sets| (Just(sets.clone()), any_desired(sets.clone()), any_actual(sets)))
}

/// Who an address belongs to, as the programs look it up.
fn owner(content: &Desired, address: Address) -> Option<IpcacheEntry> {
    let covers = |key: &CidrKey| {
        let host_bits = 128 - key.prefix_len;
        u128::from_be_bytes(key.address.0) >> host_bits == u128::from_be_bytes(address.0) >> host_bits
    };
    let longest =
        || content.cidrs.iter().filter(|(key, _)| covers(key)).max_by_key(|(key, _)| key.prefix_len);
    content.ipcache.get(&address).or_else(|| longest().map(|(_, entry)| entry)).copied()
}

fn set_of(content: &Desired, set: PolicySet) -> BTreeMap<PolicyKey, PolicyEntry> {
    content.policy.iter().filter(|(key, _)| key.set == set).map(|(key, entry)| (*key, *entry)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Making the writes reaches the desired content, and then nothing is left to write.
    #[test]
    fn writes_converge((_, desired, actual) in any_pair()) {
        let mut content = actual.clone();
        desired.writes(&actual, true).iter().for_each(|write| content.apply(write));
        prop_assert_eq!(&content, &desired);
        prop_assert_eq!(desired.writes(&content, true), []);
    }

    /// At every step, an address that has an entry before and after has one, and it points to a node that is there.
    #[test]
    fn writes_leave_no_gap((_, desired, actual) in any_pair()) {
        let mut content = actual.clone();
        for write in desired.writes(&actual, true) {
            content.apply(&write);
            for ip in 0..16 {
                let both = owner(&desired, pod(ip)).and(owner(&actual, pod(ip)));
                prop_assert!(both.is_none() || owner(&content, pod(ip)).is_some(), "{ip} after {write:?}");
            }
            for entry in content.ipcache.values().chain(content.cidrs.values()) {
                let is_there = entry.node == NodeNumber::NONE || content.nodes.contains_key(&entry.node);
                prop_assert!(is_there, "{entry:?} after {write:?}");
            }
        }
    }

    /// At every step, the sets that endpoints point to hold what they should, no less and no more.
    #[test]
    fn policy_is_whole_at_every_step((sets, desired, actual) in any_pair(), deletions: bool) {
        let mut content = actual.clone();
        for write in desired.writes(&actual, deletions) {
            content.apply(&write);
            for endpoint in content.endpoints.values() {
                for set in [endpoint.ingress, endpoint.egress] {
                    let expected = if set == PolicySet::NOT_ENFORCED { BTreeMap::new() } else { rules(&sets, set.0) };
                    prop_assert_eq!(set_of(&content, set), expected, "{:?} after {:?}", set, write);
                }
            }
        }
    }

    /// Before it is known what is to go, all that was there stays, and all that is desired is there.
    #[test]
    fn nothing_goes_without_deletions((_, desired, actual) in any_pair()) {
        let mut content = actual.clone();
        desired.writes(&actual, false).iter().for_each(|write| content.apply(write));
        let mut expected = actual.clone();
        expected.nodes.extend(desired.nodes.clone());
        expected.ipcache.extend(desired.ipcache.clone());
        expected.cidrs.extend(desired.cidrs.clone());
        expected.policy.extend(desired.policy.clone());
        expected.endpoints.extend(desired.endpoints.clone());
        expected.services.extend(desired.services.clone());
        prop_assert_eq!(content, expected);
    }
}

#[test]
fn what_is_in_a_set_that_is_used_but_not_of_it_goes_before_an_endpoint_uses_it() {
    let key = |peer| PolicyKey { set: PolicySet(5), peer, ..PolicyKey::default() };
    let allow = PolicyEntry { verdict: PolicyVerdict::Allow as u8, ..PolicyEntry::default() };
    let endpoint = Endpoint { ingress: PolicySet(5), ..Endpoint::default() };
    let desired = Desired {
        policy: BTreeMap::from([(key(1), allow)]),
        endpoints: BTreeMap::from([(pod(1), endpoint)]),
        ..Desired::default()
    };
    let actual = Desired { policy: BTreeMap::from([(key(2), allow)]), ..Desired::default() };
    let expected = [
        MapWrite::UpsertPolicy(key(1), allow),
        MapWrite::DeletePolicy(key(2)),
        MapWrite::UpsertEndpoint(pod(1), endpoint),
    ];
    assert_eq!(desired.writes(&actual, false), expected);
    assert_eq!(desired.writes(&actual, true), expected);
}
