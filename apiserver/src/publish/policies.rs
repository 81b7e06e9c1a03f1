//! From policies as they were written to policies as agents evaluate them.

use landbridge_kvstore_schema::{
    CLUSTER_LABEL, ClusterName, LabelExpression, LabelKey, LabelOperator, NamespacedName, ObjectName, Policy,
    PolicyPeer, PolicyRule, Selector,
};

use crate::identities::{NAMESPACE_LABEL, NAMESPACE_LABELS_PREFIX};
use crate::objects::{NamedPolicy, PolicyKind, PolicyName};

/// The records of a policy, one for each of its rules, by the name in their keys.
///
/// A name of a namespace has no dot, so that these cannot be the name of another policy:
///
/// | policy | namespace | name |
/// |---|---|---|
/// | `CiliumNetworkPolicy`, first rule | its own | its own |
/// | `CiliumNetworkPolicy`, rule *n* | `<namespace>.rule-<n>` | its own |
/// | `NetworkPolicy` | `<namespace>.kubernetes` | its own |
/// | `CiliumClusterwideNetworkPolicy`, rule *n* | `clusterwide.spec-<n>` | its own |
///
/// `n` counts from 1.
pub fn policy_records(policy: &NamedPolicy, cluster: &ClusterName) -> Vec<(NamespacedName, Policy)> {
    let rules = policy.rules.iter().enumerate();
    rules
        .map(|(at, rule)| {
            let namespace = policy.name.namespace.as_ref();
            (record_name(&policy.name, at), normalise(rule, namespace, cluster))
        })
        .collect()
}

/// The policy that the record of this name is of.
pub(super) fn policy_of_record(name: &NamespacedName) -> Option<PolicyName> {
    let (namespace, kind) = match name.namespace.as_str().split_once('.') {
        None => (name.namespace.as_str(), PolicyKind::Cilium),
        Some(("clusterwide", rule)) if rule.starts_with("spec-") => {
            return Some(PolicyName {
                kind: PolicyKind::CiliumClusterwide,
                namespace: None,
                name: name.name.clone(),
            });
        }
        Some((namespace, "kubernetes")) => (namespace, PolicyKind::Kubernetes),
        Some((namespace, _)) => (namespace, PolicyKind::Cilium),
    };
    let namespace = Some(ObjectName::new(namespace).ok()?);
    Some(PolicyName { kind, namespace, name: name.name.clone() })
}

fn record_name(name: &PolicyName, rule: usize) -> NamespacedName {
    let namespace = name.namespace.as_ref().map_or("clusterwide", ObjectName::as_str);
    let namespace = match name.kind {
        PolicyKind::Cilium if rule == 0 => namespace.to_owned(),
        PolicyKind::Cilium => format!("{namespace}.rule-{}", rule + 1),
        PolicyKind::CiliumClusterwide => format!("{namespace}.spec-{}", rule + 1),
        PolicyKind::Kubernetes => format!("{namespace}.kubernetes"),
    };
    let namespace = ObjectName::new(&namespace).expect("a namespace's name takes a few more letters");
    NamespacedName { namespace, name: name.name.clone() }
}

/// Puts into the selectors of `policy` what follows from where it was written. `namespace` is `None` for a policy about
/// all namespaces.
///
/// As Cilium 1.19 does it (`pkg/k8s/apis/cilium.io/utils`, and `policy-default-local-cluster`): the subject is of the
/// policy's namespace and of this cluster; a peer whose selector says nothing of namespaces is of the policy's own, or of
/// any if it has none; one whose selector says nothing of clusters is of this one.
pub fn normalise(policy: &Policy, namespace: Option<&ObjectName>, cluster: &ClusterName) -> Policy {
    // Beside what the author wrote of namespaces and clusters, never in place of it: a policy about pods of another
    // cluster, which may well be in the manifests of all of them, is about no pod of this one.
    let mut subject = policy.subject.clone();
    let of_namespace = namespace.map(|namespace| is(NAMESPACE_LABEL, namespace.as_str()));
    for origin in of_namespace.into_iter().chain([is(CLUSTER_LABEL, cluster.as_str())]) {
        if !subject.expressions.contains(&origin) {
            subject.expressions.push(origin);
        }
    }
    let rules = |rules: &Option<Vec<PolicyRule>>| {
        let rules = rules.as_ref()?.iter();
        Some(rules.map(|rule| normalise_rule(rule, namespace, cluster)).collect())
    };
    Policy { subject, ingress: rules(&policy.ingress), egress: rules(&policy.egress) }
}

fn normalise_rule(rule: &PolicyRule, namespace: Option<&ObjectName>, cluster: &ClusterName) -> PolicyRule {
    let peer = |peer: &PolicyPeer| match peer {
        PolicyPeer::Pods(selector) => PolicyPeer::Pods(normalise_peer(selector, namespace, cluster)),
        PolicyPeer::Entity(_) | PolicyPeer::Addresses { .. } => peer.clone(),
    };
    let peers = rule.peers.as_ref().map(|peers| peers.iter().map(peer).collect());
    PolicyRule { deny: rule.deny, peers, ports: rule.ports.clone() }
}

fn normalise_peer(selector: &Selector, namespace: Option<&ObjectName>, cluster: &ClusterName) -> Selector {
    let mut selector = selector.clone();
    let has = |selector: &Selector, fits: &dyn Fn(&str) -> bool| {
        selector
            .expressions
            .iter()
            .any(|expression| is_kubernetes(&expression.key) && fits(&expression.key.key))
    };
    let names_namespace = has(&selector, &|key| key == NAMESPACE_LABEL);
    let names_labels = has(&selector, &|key| key.starts_with(NAMESPACE_LABELS_PREFIX));
    match namespace {
        Some(namespace) if !names_namespace && !names_labels => {
            selector.expressions.push(is(NAMESPACE_LABEL, namespace.as_str()));
        }
        None if !names_namespace => selector.expressions.push(LabelExpression {
            key: kubernetes_key(NAMESPACE_LABEL),
            operator: LabelOperator::Exists,
            values: Vec::new(),
        }),
        _ => {}
    }
    if !has(&selector, &|key| key == CLUSTER_LABEL) {
        selector.expressions.push(is(CLUSTER_LABEL, cluster.as_str()));
    }
    selector
}

/// A key of another source names something else, whatever it is called.
fn is_kubernetes(key: &LabelKey) -> bool {
    key.source.as_deref().is_none_or(|source| source == "k8s")
}

fn is(key: &str, value: &str) -> LabelExpression {
    LabelExpression { key: kubernetes_key(key), operator: LabelOperator::In, values: vec![value.to_owned()] }
}

fn kubernetes_key(key: &str) -> LabelKey {
    LabelKey { source: Some("k8s".to_owned()), key: key.to_owned() }
}
