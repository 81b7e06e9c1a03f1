//! What is read of each kind.

use std::collections::BTreeMap;

use landbridge_apiserver::objects::{RequestedAddress, TargetPort};
use landbridge_kvstore_schema::{
    AddressType, Affinity, Balance, BalanceAlgorithm, NamespacedName, ObjectName, Protocol,
};

use crate::support::{check, demo, objects, pod_names, problems};

fn shop(name: &str) -> NamespacedName {
    NamespacedName::new("shop", name).unwrap()
}

#[test]
fn the_manifests_of_the_demo_are_in_order() {
    for (cluster, pods, policies) in [("a", 4, 0), ("b", 5, 1)] {
        let checked = demo(cluster);
        assert!(checked.problems.is_empty(), "{:?}", problems(&checked));
        let found = checked.objects;
        assert!(found.whole);
        assert_eq!((found.nodes.len(), found.pods.len(), found.services.len()), (2, pods, 2));
        assert_eq!((found.policies.len(), found.namespaces.len()), (policies, 1));
        assert!(found.pods.values().all(|pod| pod.addresses.is_empty() && !pod.readiness.ready));
    }
}

#[test]
fn a_pod_is_read_with_what_its_kubelet_wrote() {
    let found = objects(
        r#"
apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: shop
  uid: 9f6c
  labels: {app: web, canary: ""}
  creationTimestamp: "2026-10-01T08:00:00Z"
spec:
  nodeName: a1
  serviceAccountName: seller
  hostname: web-0
  subdomain: web
  containers:
    - name: web
      image: web
      resources: {limits: {cpu: 1, memory: 1Gi}}
      ports:
        - {name: http, containerPort: 8080}
        - {containerPort: 9090}
    - name: side
      ports: [{name: dns, containerPort: 53, protocol: UDP}]
status:
  phase: Running
  conditions: [{type: Ready, status: "True"}]
  podIP: 10.1.1.7
  podIPs: [{ip: 10.1.1.7}, {ip: "fd00::7"}]
"#,
    );
    let pod = &found.pods[&shop("web")];
    assert_eq!(pod.node, Some(ObjectName::new("a1").unwrap()));
    assert_eq!((pod.uid.as_str(), pod.service_account.as_str()), ("9f6c", "seller"));
    assert_eq!(pod.addresses, ["10.1.1.7".parse().unwrap(), "fd00::7".parse::<std::net::IpAddr>().unwrap()]);
    assert!(pod.readiness.ready && !pod.readiness.terminating && !pod.readiness.ended && !pod.host_network);
    let ports: Vec<_> =
        pod.named_ports.iter().map(|port| (port.name.as_str(), port.protocol, port.port.get())).collect();
    assert_eq!(ports, [("http", Protocol::Tcp, 8080), ("dns", Protocol::Udp, 53)]);
    assert_eq!(pod.hostname, Some(("web".to_owned(), "web-0".to_owned())));
    assert_eq!(pod.labels, BTreeMap::from([("app".into(), "web".into()), ("canary".into(), String::new())]));
}

#[test]
fn a_pod_without_namespace_is_in_default_and_has_the_default_account() {
    let found = objects("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: []}\n");
    let (name, pod) = found.pods.first_key_value().unwrap();
    assert_eq!((name.to_string(), pod.service_account.as_str()), ("default/p".to_owned(), "default"));
}

#[test]
fn annotations_of_services_have_older_names_and_any_case() {
    let service = |annotations: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  namespace: shop\n  annotations: {annotations}\n\
             spec: {{ports: [{{port: 80}}]}}\n"
        );
        let service = check(&text).objects.services[&shop("web")].clone();
        (service.global, service.shared, service.affinity)
    };
    assert_eq!(service("{}"), (false, false, Affinity::None));
    assert_eq!(service(r#"{service.cilium.io/global: "TRUE"}"#), (true, true, Affinity::None));
    assert_eq!(service(r#"{io.cilium/global-service: "true"}"#), (true, true, Affinity::None));
    assert_eq!(service(r#"{service.cilium.io/shared: "true"}"#), (false, false, Affinity::None));
    let unshared = r#"{io.cilium/global-service: "true", io.cilium/shared-service: "False"}"#;
    assert_eq!(service(unshared), (true, false, Affinity::None));
    let local = r#"{service.cilium.io/global: "true", service.cilium.io/affinity: Local}"#;
    assert_eq!(service(local), (true, true, Affinity::Local));
    assert_eq!(service("{service.cilium.io/affinity: remote}"), (false, false, Affinity::None));
}

#[test]
fn services_say_how_connections_are_spread() {
    let service = |annotations: &str, spec: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop, annotations: {annotations}}}\n\
             spec: {{ports: [{{port: 80}}]{spec}}}\n"
        );
        check(&text).objects.services[&shop("web")].balance.clone()
    };
    assert_eq!(service("{}", ""), Balance::default());
    assert_eq!(service("{}", ", sessionAffinity: None").session_affinity_seconds, 0);
    assert_eq!(service("{}", ", sessionAffinity: ClientIP").session_affinity_seconds, 10_800);
    let timeout = ", sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}";
    assert_eq!(service("{}", timeout).session_affinity_seconds, 60);
    for (text, algorithm) in [
        ("random", BalanceAlgorithm::Random),
        ("Maglev", BalanceAlgorithm::Maglev),
        ("round-robin", BalanceAlgorithm::RoundRobin),
    ] {
        let annotation = format!("{{service.cilium.io/lb-algorithm: {text}}}");
        assert_eq!(service(&annotation, "").algorithm, algorithm);
    }
    let weights = service(r#"{landbridge.io/weights: "a=90, b=10"}"#, "").weights;
    let weights: Vec<_> = weights.iter().map(|(cluster, weight)| format!("{cluster} {weight}")).collect();
    assert_eq!(weights, ["a 90", "b 10"]);
}

#[test]
fn services_say_what_address_they_have() {
    let address = |spec: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\nspec: {{ports: [{{port: 80}}]{spec}}}\n"
        );
        objects(&text).services[&shop("web")].address.clone()
    };
    assert_eq!(address(""), RequestedAddress::Any);
    assert_eq!(address(", clusterIP: \"\""), RequestedAddress::Any);
    assert_eq!(address(", clusterIP: None"), RequestedAddress::Headless);
    assert_eq!(address(", clusterIP: 10.96.0.9"), RequestedAddress::Given("10.96.0.9".parse().unwrap()));
    assert_eq!(
        address(", clusterIPs: [\"fd00::1\", 10.96.0.9]"),
        RequestedAddress::Given("10.96.0.9".parse().unwrap())
    );
    assert_eq!(address(", type: ExternalName, externalName: x.example"), RequestedAddress::ExternalName);
}

#[test]
fn target_ports_are_numbers_or_names() {
    let found = objects(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec:\n  ports:\n\
         \x20 - {name: a, port: 80}\n  - {name: b, port: 81, targetPort: 8081}\n  - {name: c, port: 82, targetPort: http}\n",
    );
    let targets: Vec<_> = found.services[&shop("web")].ports.iter().map(|port| port.target.clone()).collect();
    let number = |port: u16| TargetPort::Number(port.try_into().unwrap());
    assert_eq!(targets, [number(80), number(8081), TargetPort::Name("http".to_owned())]);
}

#[test]
fn nodes_have_addresses_and_a_range() {
    let found = objects(
        "apiVersion: v1\nkind: Node\nmetadata: {name: a1, labels: {topology.kubernetes.io/zone: z}}\n\
         spec: {podCIDRs: [\"fd00:1::/64\", 10.1.1.0/24], podCIDR: \"fd00:1::/64\"}\nstatus:\n  addresses:\n\
         \x20 - {type: Hostname, address: a1.example}\n  - {type: ExternalIP, address: 203.0.113.1}\n\
         \x20 - {type: InternalIP, address: 172.30.1.1}\n  nodeInfo: {bootID: b00t}\n",
    );
    let node = &found.nodes[&ObjectName::new("a1").unwrap()];
    assert_eq!(node.internal_ip(), Some("172.30.1.1".parse().unwrap()));
    assert_eq!(node.addresses[0].address_type, AddressType::ExternalIp);
    assert_eq!(node.router(), Some("10.1.1.1".parse().unwrap()));
    assert_eq!(node.health(), Some("10.1.1.2".parse().unwrap()));
    assert_eq!(node.router6(), Some("fd00:1::1".parse().unwrap()));
    assert_eq!(node.health6(), Some("fd00:1::2".parse().unwrap()));
    assert_eq!((node.zone(), node.boot_id.as_str()), (Some("z"), "b00t"));
}

#[test]
fn json_and_unknown_kinds_are_fine() {
    let found = objects(
        "{\"apiVersion\": \"v1\", \"kind\": \"Pod\",\n \"metadata\": {\"name\": \"p\"}, \"spec\": {\"containers\": []}}\n\
         --- # comment\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {replicas: 3}\n\
         ---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: other}\n",
    );
    assert_eq!(pod_names(&found), ["p"]);
    assert!(found.services.is_empty());
}
