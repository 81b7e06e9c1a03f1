//! Policies as they are written.

use landbridge_kvstore_schema::{OwnRecord, Policy};

use crate::support::{check, objects, problem};

fn cilium(spec: &str) -> String {
    let spec = spec.replace('\n', "\n  ");
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata:\n  name: p\n  namespace: shop\nspec:\n  {spec}\n"
    )
}

/// The first rule as JSON, the form in which agents read it.
fn rule(text: &str) -> String {
    let found = objects(text);
    let policy: &Policy = &found.policies.values().next().unwrap().rules[0];
    String::from_utf8(policy.encode()).unwrap()
}

#[test]
fn a_direction_without_rules_stays_open() {
    let open = r#"{"subject":[],"ingress":null,"egress":null}"#;
    assert_eq!(rule(&cilium("endpointSelector: {}")), open);
    assert_eq!(rule(&cilium("endpointSelector: {}\ningress: []\negressDeny: []")), open);
    let closed = r#"{"subject":[],"ingress":[],"egress":null}"#;
    assert_eq!(rule(&cilium("endpointSelector: {}\ningress:\n- {}")), closed);
    assert_eq!(rule(&cilium("endpointSelector: {}\nenableDefaultDeny: {ingress: true}")), closed);
}

#[test]
fn peers_are_read_as_written() {
    let text = cilium(
        "endpointSelector:\n  matchLabels: {app: vault, \"k8s:tier\": x}\n  matchExpressions:\n\
         \x20 - {key: any:env, operator: NotIn, values: [dev]}\n\
         ingress:\n- fromEndpoints:\n  - {}\n- fromEntities: [world, cluster-mesh]\n- fromCIDR: [10.0.0.7/8, 192.0.2.1]\n\
         - fromCIDRSet:\n  - cidr: 10.0.0.0/8\n    except: [10.1.0.0/16]\n\
         \x20 toPorts:\n  - ports:\n    - {port: \"80\", protocol: tcp, endPort: 88}\n    - {port: 53, endPort: 0}\n    - {protocol: UDP}\n\
         - fromEndpoints: []\n- toPorts:\n  - ports: [{port: \"1\"}]\n\
         ingressDeny:\n- fromEntities: [host]\n",
    );
    let expected = concat!(
        r#"{"subject":[{"key":"any:app","operator":"In","values":["vault"]},{"key":"k8s:tier","operator":"In","values":["x"]},"#,
        r#"{"key":"any:env","operator":"NotIn","values":["dev"]}],"#,
        r#""ingress":[{"deny":false,"peers":[{"pods":[]}],"ports":null},"#,
        r#"{"deny":false,"peers":[{"entity":"world"},{"entity":"cluster-mesh"}],"ports":null},{"deny":false,"peers":["#,
        r#"{"addresses":{"range":"10.0.0.0/8","except":[]}},{"addresses":{"range":"192.0.2.1/32","except":[]}}],"#,
        r#""ports":null},{"deny":false,"peers":[{"addresses":{"range":"10.0.0.0/8","except":["10.1.0.0/16"]}}],"#,
        r#""ports":[{"protocol":"TCP","port":80,"endPort":88},{"protocol":"ANY","port":53},{"protocol":"UDP","port":null}]},"#,
        r#"{"deny":false,"peers":[],"ports":null},{"deny":false,"peers":null,"ports":[{"protocol":"ANY","port":1}]},"#,
        r#"{"deny":true,"peers":[{"entity":"host"}],"ports":null}],"egress":null}"#,
    );
    assert_eq!(rule(&text), expected);
}

#[test]
fn fields_that_are_not_evaluated_refuse_the_policy() {
    let cases = [
        ("endpointSelector: {}\negress:\n- toFQDNs:\n  - matchName: x.example", "all.yaml:9:5: ", "toFQDNs"),
        (
            "endpointSelector: {}\ningress:\n- toPorts:\n  - ports: [{port: \"80\"}]\n    rules: {http: [{path: /}]}",
            "all.yaml:11:7: ",
            "rules",
        ),
        (
            "endpointSelector: {}\ningress:\n- fromEntities: [kube-apiserver]",
            "all.yaml:9:20: ",
            "kube-apiserver",
        ),
        ("endpointSelector:\n  matchLabel: {a: b}", "all.yaml:8:5: ", "matchLabel"),
        (
            "endpointSelector: {}\ningress:\n- toPorts:\n  - ports: [{port: http}]",
            "all.yaml:10:22: ",
            "\"http\" is not a number",
        ),
        (
            "endpointSelector: {}\ningress:\n- toPorts:\n  - ports: [{port: \"80\", endPort: 79}]",
            "all.yaml:10:37: ",
            "79 is less than the first port",
        ),
        ("nodeSelector: {}", "all.yaml:7:3: ", "nodeSelector"),
        ("ingress: []", "all.yaml:6:1: ", "endpointSelector"),
        (
            "endpointSelector:\n  matchLabels:\n    k8s:io.kubernetes.pod.namespace: bank",
            "all.yaml:7:3: ",
            "namespace \"bank\"",
        ),
        (
            "endpointSelector: {}\ningress:\n- fromEndpoints:\n  - matchLabels:\n      reserved:host: \"\"",
            "all.yaml:11:24: ",
            "fromEntities",
        ),
        (
            "endpointSelector: {}\ningress:\n- fromCIDRSet:\n  - cidr: 10.0.0.0/8\n    except:\n    - 11.0.0.0/16",
            "all.yaml:12:9: ",
            "not within 10.0.0.0/8",
        ),
        (
            "endpointSelector: {}\ningress:\n- fromEndpoints: [{}]\n  fromCIDR: [10.0.0.0/8]",
            "all.yaml:10:5: ",
            "fromCIDR cannot stand together with fromEndpoints",
        ),
        (
            "endpointSelector: {}\nenableDefaultDeny:\n  ingress: false\ningress:\n- {}",
            "all.yaml:9:14: ",
            "enableDefaultDeny",
        ),
        (
            "endpointSelector:\n  matchExpressions:\n  - {key: a, operator: In}",
            "all.yaml:9:7: ",
            "needs values",
        ),
    ];
    for (spec, place, named) in cases {
        let found = problem(&cilium(spec));
        assert!(found.starts_with(place), "{place} {found}");
        assert!(found.contains("CiliumNetworkPolicy shop/p") && found.contains(named), "{named}: {found}");
        let checked = check(&cilium(spec));
        // Nothing but the policy is held back.
        assert!(checked.objects.whole);
        assert_eq!(checked.objects.unknown_policies.len(), 1);
    }
}

#[test]
fn several_specs_are_several_rules() {
    let found = objects(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: all}\nspecs:\n\
         - endpointSelector: {}\n  description: first\n- endpointSelector: {matchLabels: {a: b}}\n",
    );
    let policy = found.policies.values().next().unwrap();
    assert_eq!((policy.rules.len(), policy.name.namespace.as_ref()), (2, None));
}

#[test]
fn network_policies_of_kubernetes_are_read() {
    let kubernetes = |spec: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: shop}}\nspec:\n{spec}"
        )
    };
    // Kubernetes, "Network Policies": the default for ingress is to deny, for egress to leave it open.
    assert_eq!(rule(&kubernetes("  podSelector: {}\n")), r#"{"subject":[],"ingress":[],"egress":null}"#);
    // Nor does an empty list of directions leave ingress open, or one that is misspelt.
    assert_eq!(
        rule(&kubernetes("  podSelector: {}\n  policyTypes: []\n")),
        r#"{"subject":[],"ingress":[],"egress":null}"#
    );
    let found = problem(&kubernetes("  podSelector: {}\n  policyTypes: [ingress]\n"));
    assert!(found.contains("\"ingress\" is no direction"), "{found}");
    assert_eq!(
        rule(&kubernetes("  podSelector: {}\n  policyTypes: [Egress]\n  egress: [{}]\n")),
        r#"{"subject":[],"ingress":null,"egress":[{"deny":false,"peers":null,"ports":null}]}"#
    );
    let text = kubernetes(
        "  podSelector: {matchLabels: {app: db}}\n  ingress:\n  - from:\n    - podSelector: {matchLabels: {app: web}}\n\
         \x20   - namespaceSelector: {matchLabels: {team: ops}}\n    - namespaceSelector: {}\n\
         \x20   - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}\n    ports:\n    - {port: 5432}\n    - {protocol: UDP}\n",
    );
    let expected = concat!(
        r#"{"subject":[{"key":"k8s:app","operator":"In","values":["db"]}],"ingress":[{"deny":false,"peers":["#,
        r#"{"pods":[{"key":"k8s:app","operator":"In","values":["web"]},"#,
        r#"{"key":"k8s:io.kubernetes.pod.namespace","operator":"In","values":["shop"]}]},"#,
        r#"{"pods":[{"key":"k8s:io.cilium.k8s.namespace.labels.team","operator":"In","values":["ops"]}]},"#,
        r#"{"pods":[{"key":"k8s:io.kubernetes.pod.namespace","operator":"Exists","values":[]}]},"#,
        r#"{"addresses":{"range":"10.0.0.0/8","except":["10.1.0.0/16"]}}],"#,
        r#""ports":[{"protocol":"TCP","port":5432},{"protocol":"UDP","port":null}]}],"egress":null}"#,
    );
    assert_eq!(rule(&text), expected);
    let ranges =
        |port: &str| kubernetes(&format!("  podSelector: {{}}\n  ingress:\n  - ports:\n    - {{{port}}}\n"));
    assert!(rule(&ranges("port: 80, endPort: 90")).contains(r#"{"protocol":"TCP","port":80,"endPort":90}"#));
    for (port, why) in [
        ("port: 80, endPort: 79", "79 is less than the first port of the range, 80"),
        ("port: 80, endPort: 70000", "70000 is not a port: use 1 to 65535"),
        ("endPort: 90", "a range of ports needs its first in port"),
    ] {
        let found = problem(&ranges(port));
        assert!(
            found.contains("endPort") && found.contains(why) && found.starts_with("all.yaml:8:"),
            "{found}"
        );
    }
}
