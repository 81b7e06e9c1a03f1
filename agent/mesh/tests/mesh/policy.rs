//! Policy against an evaluator that reads records as a person would.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use landbridge_agent_mesh::{Desired, Mesh, Problem, Unsupported};
use landbridge_bpf_maps::{
    Endpoint, KeyForms, PeerKind, PolicyKey, PolicySet, PolicyVerdict, identity as reserved,
};
use landbridge_kvstore_schema::{
    CLUSTER_LABEL, Entity, LabelExpression, LabelOperator, Policy, PolicyPeer, PolicyPort, PolicyRule,
    Protocol, Selector,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::records::*;

/// Labels of an identity: `app` and `tier`, each with one of two values or not there.
type PodLabels = (Option<u8>, Option<u8>);

const APP: [&str; 2] = ["cart", "web"];
const TIER: [&str; 2] = ["front", "back"];
const PORTS: [u16; 3] = [80, 443, 53];

fn pairs((app, tier): PodLabels) -> Vec<(&'static str, &'static str)> {
    let app = app.map(|app| ("app", APP[usize::from(app)]));
    app.into_iter().chain(tier.map(|tier| ("tier", TIER[usize::from(tier)]))).collect()
}

fn expression(key: &str, operator: LabelOperator, values: &[&str]) -> LabelExpression {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    LabelExpression { key: key.parse().unwrap(), operator, values }
}

fn selector(expressions: Vec<LabelExpression>) -> Selector {
    Selector { expressions }
}

fn any_operator() -> impl Strategy<Value = LabelOperator> {
    select(vec![LabelOperator::In, LabelOperator::NotIn, LabelOperator::Exists, LabelOperator::DoesNotExist])
}

fn any_expression() -> impl Strategy<Value = LabelExpression> {
    let source = select(vec!["", "any:", "k8s:", "k8s:", "container:"]);
    let key =
        select(vec![("app", APP.to_vec()), ("tier", TIER.to_vec()), (CLUSTER_LABEL, vec!["a", "b", "z"])]);
    (source, key, any_operator(), 0_usize..3).prop_map(|(source, (key, values), operator, skip)| {
        let has_values = matches!(operator, LabelOperator::In | LabelOperator::NotIn);
        let values = if has_values { values.into_iter().skip(skip).collect() } else { Vec::new() };
        expression(&format!("{source}{key}"), operator, &values)
    })
}

fn any_selector() -> impl Strategy<Value = Selector> {
    vec(any_expression(), 0..3).prop_map(selector)
}

fn any_peer() -> impl Strategy<Value = PolicyPeer> {
    let entities =
        [Entity::All, Entity::World, Entity::Cluster, Entity::ClusterMesh, Entity::Host, Entity::RemoteNode];
    prop_oneof![
        4 => any_selector().prop_map(PolicyPeer::Pods),
        2 => select(entities.to_vec()).prop_map(PolicyPeer::Entity),
        1 => Just(PolicyPeer::address(ip("192.0.2.1"))),
    ]
}

fn any_port() -> impl Strategy<Value = PolicyPort> {
    let protocol = select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Any]);
    (protocol, option::of(select(PORTS.to_vec())), option::of(0u16..1000)).prop_map(
        |(protocol, port, more)| {
            let end_port = port.zip(more).map(|(port, more)| port_number(port + more));
            PolicyPort { protocol, port: port.map(port_number), end_port }
        },
    )
}

fn any_rule() -> impl Strategy<Value = PolicyRule> {
    let deny = prop::bool::weighted(0.3);
    (deny, option::of(vec(any_peer(), 0..3)), option::of(vec(any_port(), 0..3)))
        .prop_map(|(deny, peers, ports)| PolicyRule { deny, peers, ports })
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let rules = || option::of(vec(any_rule(), 0..3));
    (vec(any_expression(), 0..2), rules(), rules()).prop_map(|(subject, ingress, egress)| Policy {
        subject: selector(subject),
        ingress,
        egress,
    })
}

/// The other side of a connection.
#[derive(Clone, Copy, Debug)]
enum Peer {
    Pod(&'static str, u32, PodLabels),
    /// Of this cluster, not known more closely.
    UnknownPod(&'static str),
    Host,
    RemoteNode,
    World,
}

impl Peer {
    fn identity(self) -> u32 {
        match self {
            Self::Pod(cluster, index, _) => identity(cluster, index),
            Self::UnknownPod(cluster) => unknown_pod(cluster),
            Self::Host => reserved::HOST,
            Self::RemoteNode => reserved::REMOTE_NODE,
            Self::World => reserved::WORLD,
        }
    }
}

/// Labels with their keys alone; all of them are of Kubernetes.
fn full_labels(cluster: &'static str, labels: PodLabels) -> BTreeMap<&'static str, &'static str> {
    pairs(labels).into_iter().chain([(CLUSTER_LABEL, cluster)]).collect()
}

fn naive_selects(selector: &Selector, labels: &BTreeMap<&str, &str>) -> bool {
    selector.expressions.iter().all(|LabelExpression { key, operator, values }| {
        let is_of_source = key.source.as_deref().is_none_or(|source| source == "k8s");
        let value = if is_of_source { labels.get(key.key.as_str()) } else { None };
        match (operator, value) {
            (LabelOperator::In, Some(value)) => values.iter().any(|wanted| wanted == value),
            (LabelOperator::NotIn, Some(value)) => values.iter().all(|wanted| wanted != value),
            (LabelOperator::In | LabelOperator::Exists, None) | (LabelOperator::DoesNotExist, Some(_)) => {
                false
            }
            (LabelOperator::NotIn | LabelOperator::DoesNotExist, None) | (LabelOperator::Exists, Some(_)) => {
                true
            }
        }
    })
}

fn naive_is_peer(rule: &PolicyRule, wanted: &PolicyPeer, peer: Peer) -> bool {
    let is_of_a = matches!(peer, Peer::Pod("a", ..) | Peer::UnknownPod("a"));
    let is_pod = matches!(peer, Peer::Pod(..) | Peer::UnknownPod(_));
    match (wanted, peer) {
        (PolicyPeer::Pods(selector), Peer::Pod(cluster, _, labels)) => {
            naive_selects(selector, &full_labels(cluster, labels))
        }
        // Nothing is known but the cluster: what asks for nothing else holds.
        (PolicyPeer::Pods(selector), Peer::UnknownPod(cluster)) => match &selector.expressions[..] {
            [] => true,
            [only] => {
                only.key.key == CLUSTER_LABEL
                    && matches!(only.operator, LabelOperator::In | LabelOperator::Exists)
                    && naive_selects(selector, &full_labels(cluster, (None, None)))
            }
            _ => false,
        },
        (PolicyPeer::Pods(_), _) => false,
        (PolicyPeer::Entity(Entity::All), _) => true,
        (PolicyPeer::Entity(Entity::World), _) => matches!(peer, Peer::World),
        (PolicyPeer::Entity(Entity::Cluster), _) => is_of_a || matches!(peer, Peer::Host | Peer::RemoteNode),
        (PolicyPeer::Entity(Entity::ClusterMesh), _) => is_pod,
        (PolicyPeer::Entity(Entity::Host), _) => matches!(peer, Peer::Host),
        (PolicyPeer::Entity(Entity::RemoteNode), _) => matches!(peer, Peer::RemoteNode),
        (PolicyPeer::Addresses { .. }, _) => rule.deny && matches!(peer, Peer::World),
    }
}

fn naive_is_port(ports: Option<&[PolicyPort]>, protocol: u8, port: u16) -> bool {
    let is_port = |wanted: &PolicyPort| {
        let is_protocol = match wanted.protocol {
            Protocol::Tcp => protocol == 6,
            Protocol::Udp => protocol == 17,
            Protocol::Sctp => protocol == 132,
            // What has no ports is not meant where a port is.
            Protocol::Any => wanted.port.is_none() || [6, 17, 132].contains(&protocol),
        };
        let is_in_range = |first: NonZeroU16| {
            let last = wanted.end_port.unwrap_or(first);
            (first.get()..=last.get()).contains(&port)
        };
        is_protocol && wanted.port.is_none_or(is_in_range)
    };
    ports.is_none_or(|ports| ports.iter().any(is_port))
}

fn naive_allows(rules: &[&[PolicyRule]], peer: Peer, protocol: u8, port: u16) -> bool {
    if rules.is_empty() {
        return true;
    }
    let matching = rules.iter().flat_map(|rules| rules.iter()).filter(|rule| {
        let is_peer = |peers: &Vec<PolicyPeer>| peers.iter().any(|wanted| naive_is_peer(rule, wanted, peer));
        rule.peers.as_ref().is_none_or(is_peer) && naive_is_port(rule.ports.as_deref(), protocol, port)
    });
    let denies: Vec<bool> = matching.map(|rule| rule.deny).collect();
    !denies.is_empty() && !denies.contains(&true)
}

/// What the map says, read entry by entry.
fn map_allows(desired: &Desired, set: PolicySet, peer: u32, protocol: u8, port: u16) -> bool {
    if set == PolicySet::NOT_ENFORCED {
        return true;
    }
    let is_allocated = peer >= reserved::FIRST_ALLOCATED;
    let matching = desired.policy.iter().filter(|(key, _)| {
        let is_peer = match key.kind {
            kind if kind == PeerKind::Identity as u8 => key.peer == peer,
            kind if kind == PeerKind::Cluster as u8 => is_allocated && key.peer == peer >> 16,
            kind if kind == PeerKind::Mesh as u8 => is_allocated,
            _ => true,
        };
        let first = u32::from(u16::from_be_bytes(key.port));
        let is_port = (first..first + (1 << (PolicyKey::ONE_PORT - key.port_bits))).contains(&port.into());
        key.set == set && is_peer && (key.protocol == 0 || key.protocol == protocol && is_port)
    });
    let verdicts: Vec<u8> = matching.map(|(_, entry)| entry.verdict).collect();
    !verdicts.is_empty() && verdicts.iter().all(|verdict| *verdict == PolicyVerdict::Allow as u8)
}

/// A mesh with two pods of this node, of identities 0 and 1 of cluster a, and identities of all clusters.
fn mesh_with(identities: &[(&'static str, u32, PodLabels)], policies: &[Policy]) -> Mesh {
    let identities =
        identities.iter().map(|(cluster, index, labels)| identity_record(cluster, *index, &pairs(*labels)));
    let policies = policies.iter().enumerate().map(|(index, one)| policy(&format!("shop/p{index}"), one));
    let pods = [pod("shop/p0", identity("a", 0)), pod("shop/p1", identity("a", 1))];
    let mut mesh = mesh(nodes().into_iter().chain(identities).chain(policies).chain(pods));
    mesh.set_endpoints(BTreeMap::from([
        (ip("10.1.1.10"), endpoint("shop/p0", 0)),
        (ip("10.1.1.11"), endpoint("shop/p1", 1)),
    ]));
    mesh
}

fn any_labels() -> impl Strategy<Value = PodLabels> {
    (option::of(0_u8..2), option::of(0_u8..2))
}

const IDENTITIES: [(&str, u32); 6] = [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1), ("c", 0)];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_map_says_what_the_policies_say(
        labels in vec(any_labels(), IDENTITIES.len()),
        policies in vec(any_policy(), 0..4),
    ) {
        let identities: Vec<_> =
            IDENTITIES.iter().zip(labels).map(|((cluster, index), labels)| (*cluster, *index, labels)).collect();
        let mut mesh = mesh_with(&identities, &policies);
        let desired = mesh.desired();
        prop_assert_eq!(desired.endpoints.len(), 2);
        let pods = identities.iter().map(|(cluster, index, labels)| Peer::Pod(cluster, *index, *labels));
        let others = [Peer::UnknownPod("a"), Peer::UnknownPod("b"), Peer::Host, Peer::RemoteNode, Peer::World];
        let peers: Vec<_> = pods.chain(others).collect();
        for (endpoint, (cluster, _, labels)) in desired.endpoints.values().zip(&identities) {
            let labels = full_labels(cluster, *labels);
            let of_pod = policies.iter().filter(|policy| naive_selects(&policy.subject, &labels));
            let ingress: Vec<_> = of_pod.clone().filter_map(|policy| policy.ingress.as_deref()).collect();
            let egress: Vec<_> = of_pod.filter_map(|policy| policy.egress.as_deref()).collect();
            for (set, lacks, rules) in
                [(endpoint.ingress, endpoint.ingress_lacks, ingress), (endpoint.egress, endpoint.egress_lacks, egress)]
            {
                for key in desired.policy.keys().filter(|key| key.set == set) {
                    let is_told_of = u32::from(endpoint.port_prefixes) & (1 << key.port_bits) != 0;
                    prop_assert_eq!(lacks.0 & KeyForms::of(key).0, 0, "{:?}", key);
                    prop_assert!(is_told_of || matches!(key.port_bits, 0 | PolicyKey::ONE_PORT), "{key:?}");
                }
                for peer in &peers {
                    for (protocol, port) in [(6, 80), (6, 443), (6, 1), (6, 600), (17, 53), (17, 1_100), (17, 80), (132, 80), (1, 0)] {
                        let found = map_allows(&desired, set, peer.identity(), protocol, port);
                        let expected = naive_allows(&rules, *peer, protocol, port);
                        prop_assert_eq!(found, expected, "{:?} {} {}", peer, protocol, port);
                    }
                }
            }
        }
    }

    /// What is remembered between changes makes no difference.
    #[test]
    fn changes_lead_where_a_fresh_start_leads(
        labels in vec(any_labels(), IDENTITIES.len() * 2),
        before in vec(any_policy(), 3),
        after in any_policy(),
    ) {
        let identities = |labels: &[PodLabels]| -> Vec<_> {
            IDENTITIES.iter().zip(labels).map(|((cluster, index), labels)| (*cluster, *index, *labels)).collect()
        };
        let (old, new) = labels.split_at(IDENTITIES.len());
        let mut mesh = mesh_with(&identities(old), &before);
        mesh.desired();
        for (cluster, index, labels) in identities(new) {
            put(&mut mesh, &identity_record(cluster, index, &pairs(labels))).unwrap();
            mesh.desired();
        }
        // One is replaced, one stays, one goes.
        put(&mut mesh, &policy("shop/p0", &after)).unwrap();
        delete(&mut mesh, &policy("shop/p2", &before[2]));
        let after = [after, before[1].clone()];
        prop_assert_eq!(mesh.desired(), mesh_with(&identities(new), &after).desired());
    }
}

fn allow(peers: Vec<PolicyPeer>) -> PolicyRule {
    PolicyRule { peers: Some(peers), ..PolicyRule::default() }
}

fn ingress(rules: Vec<PolicyRule>) -> Policy {
    Policy { subject: Selector::default(), ingress: Some(rules), egress: None }
}

/// The entries of the one set that both pods share.
fn entries(desired: &Desired) -> Vec<(u8, u32)> {
    let endpoints: Vec<&Endpoint> = desired.endpoints.values().collect();
    assert_eq!(endpoints[0].ingress, endpoints[1].ingress);
    desired.policy.keys().map(|PolicyKey { kind, peer, .. }| (*kind, *peer)).collect()
}

fn cart_and_web(policies: &[Policy]) -> Mesh {
    let (cart, web) = ((Some(0), None), (Some(1), None));
    mesh_with(&[("a", 0, cart), ("a", 1, web), ("b", 0, cart), ("b", 1, web), ("c", 0, cart)], policies)
}

#[test]
fn whole_clusters_are_one_entry_each() {
    let of = |operator, values: &[&str]| {
        PolicyPeer::Pods(selector(vec![expression(&format!("k8s:{CLUSTER_LABEL}"), operator, values)]))
    };
    let cluster = PeerKind::Cluster as u8;
    for (peer, expected) in [
        (of(LabelOperator::In, &["b"]), vec![(cluster, 2)]),
        (of(LabelOperator::In, &["b", "c", "unknown"]), vec![(cluster, 2), (cluster, 3)]),
        (of(LabelOperator::Exists, &[]), vec![(PeerKind::Mesh as u8, 0)]),
        (PolicyPeer::Pods(Selector::default()), vec![(PeerKind::Mesh as u8, 0)]),
        (PolicyPeer::Entity(Entity::All), vec![(PeerKind::Any as u8, 0)]),
        (of(LabelOperator::NotIn, &["a", "b"]), vec![(PeerKind::Identity as u8, identity("c", 0))]),
        (of(LabelOperator::DoesNotExist, &[]), vec![]),
    ] {
        let mut mesh = cart_and_web(&[ingress(vec![allow(vec![peer.clone()])])]);
        let mut found = entries(&mesh.desired());
        found.sort_unstable();
        assert_eq!(found, expected, "{peer:?}");
    }
}

#[test]
fn a_cluster_that_comes_is_allowed_if_it_was_named_before() {
    let named_before = expression(CLUSTER_LABEL, LabelOperator::In, &["d"]);
    let mut mesh =
        cart_and_web(&[ingress(vec![allow(vec![PolicyPeer::Pods(selector(vec![named_before]))])])]);
    assert_eq!(entries(&mesh.desired()), []);
    put(&mut mesh, &config("d")).unwrap();
    assert_eq!(entries(&mesh.desired()), [(PeerKind::Cluster as u8, 4)]);
}

#[test]
fn an_identity_that_comes_is_allowed_in_a_new_set() {
    let carts = PolicyPeer::Pods(selector(vec![expression("app", LabelOperator::In, &["cart"])]));
    let mut mesh = cart_and_web(&[ingress(vec![allow(vec![carts])])]);
    let before = mesh.desired();
    put(&mut mesh, &identity_record("c", 1, &[("app", "cart")])).unwrap();
    let after = mesh.desired();
    let set = |desired: &Desired| desired.endpoints.values().next().unwrap().ingress;
    assert_ne!(set(&before), set(&after));
    assert_eq!(entries(&after).len(), entries(&before).len() + 1);
    // The old one is gone as a whole, so that it never means something else.
    assert!(after.policy.keys().all(|key| key.set == set(&after)));
}

#[test]
fn a_policy_without_rules_closes_and_one_that_is_gone_opens() {
    let closed = ingress(Vec::new());
    let mut mesh = cart_and_web(std::slice::from_ref(&closed));
    let endpoint = |mesh: &mut Mesh| *mesh.desired().endpoints.values().next().unwrap();
    let Endpoint { ingress, egress, .. } = endpoint(&mut mesh);
    assert_ne!(ingress, PolicySet::NOT_ENFORCED);
    assert_eq!(egress, PolicySet::NOT_ENFORCED);
    assert!(mesh.desired().policy.is_empty());
    delete(&mut mesh, &policy("shop/p0", &closed));
    assert_eq!(endpoint(&mut mesh).ingress, PolicySet::NOT_ENFORCED);
}

#[test]
fn rules_about_addresses_are_shown_and_err_on_the_safe_side() {
    let addresses = PolicyPeer::address(ip("192.0.2.1"));
    let allowing = ingress(vec![allow(vec![addresses.clone()])]);
    let denying = ingress(vec![PolicyRule { deny: true, ..allow(vec![addresses]) }]);
    let mut mesh = cart_and_web(&[allowing, denying]);
    let desired = mesh.desired();
    let found: Vec<_> =
        desired.policy.iter().map(|(key, entry)| (key.kind, key.peer, entry.verdict)).collect();
    assert_eq!(found, [(PeerKind::Identity as u8, reserved::WORLD, PolicyVerdict::Deny as u8)]);
    let problem = |name, unsupported| Problem::Policy { policy: named(name), unsupported };
    let expected =
        [problem("shop/p0", Unsupported::AllowAddresses), problem("shop/p1", Unsupported::DenyAddresses)];
    assert_eq!(mesh.problems(), expected);
}

#[test]
fn a_policy_that_cannot_be_read_closes_what_it_may_be_about() {
    const NAMESPACE: &str = "io.kubernetes.pod.namespace";
    let open =
        Policy { subject: Selector::default(), ingress: Some(vec![PolicyRule::default()]), egress: None };
    let identities = [("a", 0, "shop"), ("a", 1, "bank")].map(|(cluster, index, namespace)| {
        identity_record(cluster, index, &[(NAMESPACE, namespace), ("app", namespace)])
    });
    let pods = [pod("shop/p0", identity("a", 0)), pod("bank/p1", identity("a", 1))];
    let mut mesh =
        mesh(nodes().into_iter().chain(identities).chain(pods).chain([policy("shop/open", &open)]));
    mesh.set_endpoints(BTreeMap::from([
        (ip("10.1.1.10"), endpoint("shop/p0", 0)),
        (ip("10.1.1.11"), endpoint("bank/p1", 1)),
    ]));
    // Which of the two pods are closed in both directions.
    let closed = |mesh: &mut Mesh| {
        let desired = mesh.desired();
        let of = |text: &str| {
            let Endpoint { ingress, egress, .. } = desired.endpoints[&address(text)];
            let allows = |set| map_allows(&desired, set, identity("b", 1), 6, 80);
            assert_eq!(allows(ingress), allows(egress));
            !allows(ingress)
        };
        (of("10.1.1.10"), of("10.1.1.11"))
    };
    assert_eq!(closed(&mut mesh), (false, false));
    let subject = r#""subject":[{"key":"any:app","operator":"In","values":["bank"]}]"#;
    for (name, value, expected) in [
        ("shop/x", "{".to_owned(), (true, false)),
        ("bank.rule-2/x", "{".to_owned(), (false, true)),
        ("shop.kubernetes/x", r#"{"subject":[{"key":"app","operator":"Near"}]}"#.to_owned(), (true, false)),
        ("clusterwide.spec-1/x", "{".to_owned(), (true, true)),
        ("other/x", "{".to_owned(), (false, false)),
        ("shop/x", format!(r#"{{{subject},"ingress":[{{"peers":[{{"moons":"all"}}]}}]}}"#), (false, true)),
    ] {
        let record = (Policy::key(&named(name)).to_string(), value.into_bytes());
        assert_eq!(put(&mut mesh, &record).unwrap_err().reason(), "malformed", "{name}");
        assert_eq!(closed(&mut mesh), expected, "{name}");
        assert!(mesh.problems().contains(&Problem::UnreadablePolicy { policy: named(name) }), "{name}");
        // What it was before makes no difference, and it ends with the key.
        put(&mut mesh, &policy(name, &open)).unwrap();
        assert_eq!(closed(&mut mesh), (false, false), "{name}");
        put(&mut mesh, &record).unwrap_err();
        assert_eq!(closed(&mut mesh), expected, "{name}");
        delete(&mut mesh, &record);
        assert_eq!((closed(&mut mesh), mesh.problems()), ((false, false), vec![]), "{name}");
    }
}
