//! Endpoints of services.

use std::collections::BTreeMap;

use crate::support::{facts, objects, publish};

const NODE: &str = "apiVersion: v1\nkind: Node\nmetadata: {name: a1}\nspec: {podCIDR: 10.1.1.0/24}\n\
                    status: {addresses: [{type: InternalIP, address: 172.30.1.1}]}\n";

fn pod(name: &str, port: u16, ip: &str, status: &str, metadata: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: web}}{metadata}}}\n\
         spec:\n  nodeName: a1\n  containers: [{{name: c, ports: [{{name: http, containerPort: {port}}}]}}]\n\
         status: {{podIPs: [{{ip: {ip}}}]{status}}}\n"
    )
}

fn service(spec: &str, annotations: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop, annotations: {{{annotations}}}}}\n\
         spec: {{selector: {{app: web}}, ports: [{{name: http, port: 80, targetPort: http}}]{spec}}}\n"
    )
}

const GLOBAL: &str = "service.cilium.io/global: \"true\"";
const READY: &str = ", conditions: [{type: Ready, status: \"True\"}]";
const EXPORTED: &str = "cilium/state/services/v1/a/shop/web";
const LOCAL: &str = "landbridge/local/services/shop/web";

fn published(documents: &[String]) -> BTreeMap<String, String> {
    let (found, problems) = publish(&objects(&format!("{NODE}{}", documents.concat())), &facts("a", 1));
    assert_eq!(problems, Vec::<String>::new());
    found
}

fn backends(record: &str) -> serde_json::Value {
    serde_json::from_str::<serde_json::Value>(record).unwrap()["backends"].clone()
}

#[test]
fn endpoints_have_the_conditions_of_their_pods_and_each_its_own_port() {
    let found = published(&[
        pod("ready", 8080, "10.1.1.3", READY, ""),
        pod("other-port", 9090, "10.1.1.4", READY, ""),
        pod("not-ready", 8080, "10.1.1.5", "", ""),
        pod("leaving", 8080, "10.1.1.6", READY, ", deletionTimestamp: \"2026-10-01T08:00:00Z\""),
        pod("ended", 8080, "10.1.1.7", ", phase: Failed", ""),
        service("", GLOBAL),
    ]);
    let port = |port: u16| serde_json::json!({"http": {"Protocol": "TCP", "Port": port}});
    let expected =
        serde_json::json!({"10.1.1.3": port(8080), "10.1.1.4": port(9090), "10.1.1.6": port(8080)});
    assert_eq!(backends(&found[EXPORTED]), expected);

    let local = backends(&found[LOCAL]);
    let conditions =
        |ip: &str| ["ready", "serving", "terminating"].map(|field| local[ip][field].as_bool().unwrap());
    assert_eq!(conditions("10.1.1.3"), [true, true, false]);
    assert_eq!(conditions("10.1.1.5"), [false, false, false]);
    assert_eq!(conditions("10.1.1.6"), [false, true, true]);
    assert!(local.get("10.1.1.7").is_none());
    assert_eq!(local["10.1.1.4"]["node"], "a1");
}

#[test]
fn services_that_want_it_have_pods_that_are_not_ready() {
    let found =
        published(&[pod("p", 8080, "10.1.1.5", "", ""), service(", publishNotReadyAddresses: true", GLOBAL)]);
    assert_eq!(backends(&found[LOCAL])["10.1.1.5"]["ready"], true);
    assert!(backends(&found[EXPORTED]).get("10.1.1.5").is_some());
}

#[test]
fn only_global_and_shared_services_of_global_namespaces_leave_the_cluster() {
    let exports = |annotations: &str, namespace: &str| {
        let namespace = format!(
            "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, annotations: {{{namespace}}}}}\n"
        );
        let found = published(&[service("", annotations), namespace]);
        assert!(found.contains_key(LOCAL));
        found.contains_key(EXPORTED)
    };
    assert!(exports(GLOBAL, ""));
    assert!(!exports("", ""));
    assert!(!exports(&format!("{GLOBAL}, service.cilium.io/shared: \"false\""), ""));
    assert!(!exports(GLOBAL, "clustermesh.cilium.io/global: \"false\""));
}

#[test]
fn headless_services_have_host_names_instead_of_an_address() {
    let named = pod("p", 8080, "10.1.1.3", READY, "")
        .replace("spec:\n", "spec:\n  hostname: web-0\n  subdomain: web\n");
    let found = published(&[named, service(", clusterIP: None", GLOBAL)]);
    let exported: serde_json::Value = serde_json::from_str(&found[EXPORTED]).unwrap();
    assert_eq!(exported["frontends"], serde_json::json!({}));
    assert_eq!(exported["hostnames"], serde_json::json!({"10.1.1.3": "web-0"}));
}

#[test]
fn slices_that_are_declared_count_too() {
    let slice = "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-0\n  namespace: shop\n\
                 \x20 labels: {kubernetes.io/service-name: web}\naddressType: IPv4\n\
                 endpoints: [{addresses: [192.0.2.80]}, {addresses: [10.1.1.3], conditions: {ready: false}}]\n\
                 ports: [{name: http, port: 80}, {name: admin, port: 81}]\n";
    let found = published(&[slice.to_owned(), pod("p", 8080, "10.1.1.3", READY, ""), service("", GLOBAL)]);
    let local = backends(&found[LOCAL]);
    assert_eq!(local["192.0.2.80"]["ready"], true);
    assert_eq!(local["10.1.1.3"]["ready"], true);
    assert_eq!(local["10.1.1.3"]["ports"].as_object().unwrap().len(), 2);
}
