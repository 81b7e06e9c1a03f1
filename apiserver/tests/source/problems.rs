//! What is wrong is named with file, line and column.

use crate::support::{check, demo, pod, pod_names, problem, problems, write};
use landbridge_apiserver::source::validate;

const UNKNOWN: &str = "nothing is withdrawn from the mesh until it is right";

#[test]
fn fields_that_break_a_rule_are_named_with_their_place() {
    let cases = [
        (
            "# a comment\n---\napiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  namespace: shop\nspec:\n  ports:\n    - name: a\n      port: 80\n    - name: b\n      port: 70000\n",
            "all.yaml:13:13: Service shop/web: spec.ports[1].port: 70000 is not a port: use 1 to 65535",
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  clusterIP: 10.96.0\n",
            "all.yaml:5:14: Service default/web: spec.clusterIP: \"10.96.0\" is not an IPv4 address: leave it out to have \
             one chosen, or use None",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: []}\nstatus:\n  podIPs:\n  - ip: 10.1.1\n",
            "all.yaml:7:9: Pod default/p: status.podIPs[0].ip: \"10.1.1\" is not an IP address",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata:\n  namespace: shop\nspec: {containers: []}\n",
            "all.yaml:3:1: Pod shop/: metadata.name: the object has no name: give it one",
        ),
        (
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a.b\n",
            "all.yaml:4:9: Namespace a.b: metadata.name: \"a.b\" is not the name of a namespace: up to 63 lower case \
             letters, digits and inner '-'",
        ),
        (
            "apiVersion: v1\nkind: Node\nmetadata: {name: a1}\nspec:\n  podCIDR: 10.1.1.0/30\n",
            "all.yaml:5:12: Node a1: spec.podCIDR: 10.1.1.0/30 is too small for a router, a health address and pods: use \
             /29 or shorter",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  labels:\n    app: \"a;k8s:b=c\"\nspec: {containers: []}\n",
            "all.yaml:6:10: Pod default/p: metadata.labels.app: \"k8s:app=a;k8s:b=c\" is not a label of the form \
             source:key=value",
        ),
        (
            "apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\nmetadata: {name: s}\n",
            "all.yaml: EndpointSlice default/s: EndpointSlice is read as discovery.k8s.io/v1, not as \
             discovery.k8s.io/v1beta1",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(problem(text), format!("{expected} ({UNKNOWN})"));
    }
}

#[test]
fn fields_of_the_wrong_type_are_named_with_their_place() {
    let found = problem(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  ports:\n    - port: eighty\n",
    );
    assert!(found.starts_with("all.yaml:6:13: Service default/web: "), "{found}");
    assert!(found.contains("eighty") || found.contains("i32") || found.contains("integer"), "{found}");
}

#[test]
fn text_that_is_no_yaml_is_named_with_its_place() {
    let found = problem(&format!("{}---\nkind: [unclosed\nmetadata: x\n", pod("p")));
    assert!(found.starts_with("all.yaml:"), "{found}");
    let place: Vec<&str> = found.split(':').collect();
    assert!(place[1].parse::<u32>().unwrap() >= 8, "{found}");
    assert!(!check("kind: [unclosed\n").objects.whole);
}

#[test]
fn lists_are_told_apart_into_documents() {
    let found = problem("apiVersion: v1\nkind: List\nitems: []\n");
    assert!(found.contains("give each object a document of its own"), "{found}");
}

#[test]
fn an_annotation_that_means_nothing_is_told_and_the_service_taken() {
    let checked = check(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  annotations:\n    service.cilium.io/global: \"true\"\n\
         \x20   service.cilium.io/affinity: nearest\nspec: {ports: [{port: 80}]}\n",
    );
    assert_eq!(checked.objects.services.len(), 1);
    assert!(checked.objects.whole);
    let found = problems(&checked);
    assert_eq!(
        found,
        [
            "all.yaml:7:33: Service default/web: metadata.annotations[\"service.cilium.io/affinity\"]: \"nearest\" is no \
          affinity: use local, remote or none (the object is in force without it)"
        ]
    );
}

#[test]
fn a_balance_that_means_nothing_is_told() {
    let found = |annotation: &str, spec: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  annotations:\n    {annotation}\n\
             spec:\n  ports: [{{port: 80}}]\n{spec}"
        );
        problems(&check(&text)).join("\n")
    };
    assert_eq!(found("landbridge.io/weights: a=1", "  sessionAffinity: ClientIP\n"), "");
    let problem = found("service.cilium.io/lb-algorithm: fastest", "");
    assert!(problem.contains("\"fastest\" is no algorithm: use random, round-robin or maglev"), "{problem}");
    for (weights, named) in [
        ("a=x", "\"a=x\" is no weight"),
        ("a=1,b", "\"b\" is no weight"),
        ("a=1001", "with 0 to 1000"),
        ("A=1", "\"A=1\""),
        ("a=1,a=2", "\"a=2\" is there twice"),
    ] {
        let problem = found(&format!("landbridge.io/weights: {weights}"), "");
        assert!(problem.contains(named), "{weights}: {problem}");
    }
    let problem = found("x: y", "  sessionAffinity: Cookie\n");
    assert!(problem.contains("\"Cookie\" is no session affinity: use ClientIP or None"), "{problem}");
    let timeout =
        "  sessionAffinity: ClientIP\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: 86401}}\n";
    let problem = found("x: y", timeout);
    assert!(problem.contains("86401 is not from 1 to 86400"), "{problem}");
}

#[test]
fn an_object_in_two_files_is_that_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a.yaml", &pod("p"));
    write(&dir, "sub/b.yml", &pod("p").replace("nodeName: a1", "nodeName: a2"));
    write(&dir, "c.json", "{}");
    write(&dir, ".hidden.yaml", "kind: [");
    write(&dir, "notes.txt", "kind: [");
    let checked = validate(dir.path()).unwrap();
    let found = problems(&checked);
    assert!(found[0].starts_with("c.json:1:1: "), "{found:?}");
    assert_eq!(
        found[1],
        "sub/b.yml: Pod shop/p: declared in a.yaml already (that one is in force: remove one of them)"
    );
    let pod = checked.objects.pods.values().next().unwrap();
    assert_eq!(pod.node.as_ref().unwrap().as_str(), "a1");
}

#[test]
fn an_object_twice_in_a_file_is_the_first_one() {
    let checked = check(&format!("{}---\n{}", pod("p"), pod("p")));
    assert_eq!(pod_names(&checked.objects), ["p"]);
    assert!(problems(&checked)[0].contains("declared twice in this file"), "{:?}", checked.problems);
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    let error = validate(std::path::Path::new("/nowhere/manifests")).unwrap_err();
    assert_eq!(error.to_string(), "folder /nowhere/manifests cannot be read: check --manifests");
    assert!(demo("a").objects.whole);
}
