//! What follows from where a policy was written.

use landbridge_apiserver::publish::policy_records;
use landbridge_kvstore_schema::{ClusterName, OwnRecord};

use crate::support::objects;

const POD_NS: &str = "io.kubernetes.pod.namespace";

/// Namespace and name in the key, and the record.
fn records(text: &str) -> Vec<(String, String)> {
    let found = objects(text);
    let cluster = ClusterName::new("b").unwrap();
    let records = found.policies.values().flat_map(|policy| policy_records(policy, &cluster));
    records.map(|(name, policy)| (name.to_string(), String::from_utf8(policy.encode()).unwrap())).collect()
}

/// The selector of the first peer of the first ingress rule, as `key operator values`.
fn peer(kind: &str, selector: &str) -> Vec<String> {
    let text = format!(
        "apiVersion: cilium.io/v2\nkind: {kind}\nmetadata: {{name: p, namespace: shop}}\nspec:\n\
         \x20 endpointSelector: {{}}\n  ingress:\n  - fromEndpoints:\n    - {selector}\n"
    );
    let record: serde_json::Value = serde_json::from_str(&records(&text)[0].1).unwrap();
    let expressions = record["ingress"][0]["peers"][0]["pods"].as_array().unwrap().clone();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let line = |expression: &serde_json::Value| {
        let values: Vec<_> = expression["values"].as_array().unwrap().iter().map(text).collect();
        format!("{} {} {}", text(&expression["key"]), text(&expression["operator"]), values.join(","))
    };
    expressions.iter().map(|expression| line(expression).trim_end().to_owned()).collect()
}

#[test]
fn peers_are_of_the_policys_namespace_and_of_this_cluster() {
    // Cilium pkg/k8s/apis/cilium.io/utils, `getEndpointSelector`; upgrade guide of 1.19.
    let kind = "CiliumNetworkPolicy";
    let shop = format!("k8s:{POD_NS} In shop");
    let here = "k8s:io.cilium.k8s.policy.cluster In b".to_owned();
    assert_eq!(peer(kind, "{}"), [shop.clone(), here.clone()]);
    assert_eq!(
        peer(kind, "matchLabels: {app: web, io.kubernetes.pod.namespace: bank}"),
        ["any:app In web".to_owned(), format!("any:{POD_NS} In bank"), here.clone()]
    );
    assert_eq!(
        peer(kind, "matchExpressions: [{key: k8s:io.kubernetes.pod.namespace, operator: Exists}]"),
        [format!("k8s:{POD_NS} Exists"), here.clone()]
    );
    assert_eq!(
        peer(kind, "matchLabels: {k8s:io.cilium.k8s.namespace.labels.team: ops}"),
        ["k8s:io.cilium.k8s.namespace.labels.team In ops".to_owned(), here]
    );
    let everywhere = "matchExpressions: [{key: io.cilium.k8s.policy.cluster, operator: Exists}]";
    assert_eq!(peer(kind, everywhere), ["any:io.cilium.k8s.policy.cluster Exists".to_owned(), shop.clone()]);
    // A label of another source is not the one that is meant.
    assert_eq!(peer(kind, "matchLabels: {container:io.kubernetes.pod.namespace: x}").len(), 3);
}

#[test]
fn peers_of_a_policy_about_all_namespaces_are_of_any() {
    let any = format!("k8s:{POD_NS} Exists");
    let here = "k8s:io.cilium.k8s.policy.cluster In b".to_owned();
    assert_eq!(peer("CiliumClusterwideNetworkPolicy", "{}"), [any, here]);
}

#[test]
fn a_pod_of_another_cluster_is_never_the_subject() {
    let found = records(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: p}\nspec:\n\
         \x20 endpointSelector: {matchLabels: {io.cilium.k8s.policy.cluster: a}}\n",
    );
    // Both have to hold, and no pod of b says that it is one of a.
    assert!(
        found[0].1.starts_with(concat!(
            r#"{"subject":[{"key":"any:io.cilium.k8s.policy.cluster","operator":"In","values":["a"]},"#,
            r#"{"key":"k8s:io.cilium.k8s.policy.cluster","operator":"In","values":["b"]}],"#
        )),
        "{found:?}"
    );
}

#[test]
fn a_peer_without_a_selector_of_namespaces_is_of_the_policys_own() {
    // Cilium pkg/k8s/network_policy.go, `parsePodSelector`: what pods are selected by does not widen it.
    let found = records(&format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: shop}}\nspec:\n\
         \x20 podSelector: {{}}\n  ingress:\n  - from:\n    - podSelector: {{matchLabels: {{{POD_NS}: bank}}}}\n"
    ));
    let shop = format!(r#"{{"key":"k8s:{POD_NS}","operator":"In","values":["shop"]}}"#);
    assert!(found[0].1.contains(&format!(r#""values":["bank"]}},{shop}"#)), "{found:?}");
}

#[test]
fn no_two_rules_have_one_key() {
    let spec = "{endpointSelector: {}}";
    let found = records(&format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p, namespace: clusterwide}}\n\
         specs: [{spec}, {spec}]\n---\napiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\n\
         metadata: {{name: p}}\nspecs: [{spec}, {spec}]\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{name: p, namespace: clusterwide}}\nspec: {{podSelector: {{}}}}\n"
    ));
    let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "clusterwide/p",
            "clusterwide.rule-2/p",
            "clusterwide.spec-1/p",
            "clusterwide.spec-2/p",
            "clusterwide.kubernetes/p"
        ]
    );
}
