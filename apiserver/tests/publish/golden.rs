//! Whole clusters, byte for byte.

use std::collections::BTreeMap;

use crate::support::{demo, facts, objects, publish};

/// Lines of `<key> <value>`.
fn parse(golden: &str) -> BTreeMap<String, String> {
    golden
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(key, value)| (key.into(), value.into()))
        .collect()
}

#[track_caller]
fn assert_published(found: &BTreeMap<String, String>, golden: &str) {
    let golden = parse(golden);
    for (key, value) in &golden {
        assert_eq!(found.get(key), Some(value), "{key}");
    }
    let more: Vec<_> = found.keys().filter(|key| !golden.contains_key(*key)).collect();
    assert!(more.is_empty(), "{more:?}");
}

#[test]
fn a_cluster_is_published_byte_for_byte() {
    let declared = objects(include_str!("golden/paris.yaml"));
    let (found, problems) = publish(&declared, &facts("paris", 7));
    assert_eq!(problems, Vec::<String>::new());
    assert_published(&found, include_str!("golden/paris.records"));
}

#[test]
fn pods_of_the_demo_have_identities_before_they_have_addresses() {
    let (found, problems) = publish(&demo("b"), &facts("b", 2));
    assert_eq!(problems, Vec::<String>::new());
    let keys = |prefix: &str| found.keys().filter(|key| key.starts_with(prefix)).count();
    assert_eq!(keys("cilium/state/identities/v1/id/"), 3);
    assert_eq!(keys("landbridge/local/pods/shop/"), 5);
    assert_eq!(keys("cilium/state/ip/"), 0);
    assert_eq!(
        found["landbridge/local/policies/shop/vault"],
        concat!(
            r#"{"subject":[{"key":"any:app","operator":"In","values":["vault"]},"#,
            r#"{"key":"k8s:io.kubernetes.pod.namespace","operator":"In","values":["shop"]},"#,
            r#"{"key":"k8s:io.cilium.k8s.policy.cluster","operator":"In","values":["b"]}],"#,
            r#""ingress":[{"deny":false,"peers":[{"pods":[{"key":"any:app","operator":"In","values":["client"]},"#,
            r#"{"key":"any:io.cilium.k8s.policy.cluster","operator":"In","values":["a"]},"#,
            r#"{"key":"k8s:io.kubernetes.pod.namespace","operator":"In","values":["shop"]}]}],"#,
            r#""ports":[{"protocol":"TCP","port":8080}]}],"egress":null}"#,
        )
    );
    let (found, _) = publish(&demo("a"), &facts("a", 1));
    assert!(found["cilium/state/services/v1/a/shop/vault"].contains(r#""backends":{}"#));
}

#[test]
fn what_cannot_be_published_is_told() {
    let pod = |name: &str, more: &str, status: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{containers: []{more}}}\nstatus: {{{status}}}\n"
        )
    };
    let text = [
        "apiVersion: v1\nkind: Node\nmetadata: {name: a1}\nspec: {podCIDR: 10.1.1.0/24}\n\
         status: {addresses: [{type: InternalIP, address: 172.30.1.1}]}\n---\napiVersion: v1\nkind: Node\n\
         metadata: {name: a2}\n"
            .to_owned(),
        pod("p1", ", nodeName: a1", "podIPs: [{ip: 10.1.1.9}]"),
        pod("p2", ", nodeName: a1", "podIPs: [{ip: 10.1.1.9}]"),
        pod("lost", ", nodeName: a9", "podIPs: [{ip: 10.1.9.9}]"),
        pod("host", ", nodeName: a1, hostNetwork: true", "podIPs: [{ip: 172.30.1.1}]"),
        pod("over", ", nodeName: a1", "phase: Succeeded, podIPs: [{ip: 10.1.1.10}]"),
        pod("pending", "", ""),
    ]
    .concat();
    let (found, problems) = publish(&objects(&text), &facts("a", 1));
    assert_eq!(
        problems,
        [
            "node a2 has no InternalIP, so that its pods are not reached: write it into status.addresses",
            "pod shop/lost is on node a9, which is not known: declare the Node, or correct spec.nodeName",
            "pod shop/p2 has address 10.1.1.9, which pod shop/p1 has already",
        ]
    );
    let ips: Vec<_> =
        found.keys().filter_map(|key| key.strip_prefix("cilium/state/ip/v1/default/")).collect();
    assert_eq!(ips, ["10.1.1.9"]);
    assert!(found["cilium/state/ip/v1/default/10.1.1.9"].contains(r#""K8sPodName":"p1""#));
    let pods: Vec<_> = found.keys().filter_map(|key| key.strip_prefix("landbridge/local/pods/")).collect();
    assert_eq!(pods, ["shop/lost", "shop/p1", "shop/p2"]);
    assert_eq!(found["landbridge/config/pod-ranges/a2"], "10.1.0.0/24");
}
