//! What a reader refuses, rule by rule, and what it says of it.

use std::error::Error;

use crate::samples::{identity, node, paris, pod_ip, service};
use landbridge_kvstore_schema::{
    ClusterConfig, ClusterId, ClusterName, ClusterService, Identity, IpIdentityPair, KeyError, Keyspace,
    MaxClusters, Node, NumericIdentity, RecordError, Rejection,
};

/// The value of a record with one part of its text replaced.
#[track_caller]
fn with(encoded: Vec<u8>, from: &str, to: &str) -> String {
    let text = String::from_utf8(encoded).unwrap();
    assert!(text.contains(from), "{text} has no {from}");
    text.replacen(from, to, 1)
}

fn read_node(from: &str, to: &str) -> Result<Node, RecordError> {
    Node::decode(&paris(), &node().name, with(node().encode(&paris()), from, to).as_bytes())
}

fn read_identity(from: &str, to: &str) -> Result<Identity, RecordError> {
    Identity::decode(&paris(), identity().number(), with(identity().encode(), from, to).as_bytes())
}

fn read_ip(from: &str, to: &str) -> Result<IpIdentityPair, RecordError> {
    IpIdentityPair::decode(&paris(), pod_ip().ip, with(pod_ip().encode(), from, to).as_bytes())
}

fn read_service(from: &str, to: &str) -> Result<ClusterService, RecordError> {
    ClusterService::decode(&paris(), &service().name, with(service().encode(&paris()), from, to).as_bytes())
}

fn read_config(max: MaxClusters, json: &str) -> Result<ClusterConfig, RecordError> {
    ClusterConfig::decode(&ClusterName::new("paris").unwrap(), max, json.as_bytes())
}

/// The key, the reason and the message of a refusal.
#[track_caller]
fn assert_refused<T: std::fmt::Debug>(
    decoded: Result<T, RecordError>,
    key: &str,
    reason: &str,
    message: &str,
) {
    let error = decoded.unwrap_err();
    assert_eq!(error.to_string(), format!("refused record {key}"));
    assert_eq!(error.rejection.reason(), reason, "{}", error.rejection);
    assert_eq!(error.source().unwrap().to_string(), message);
}

#[test]
fn a_node_has_to_be_the_one_of_its_key() {
    let key = "cilium/state/nodes/v1/paris/paris-w3";
    assert_refused(
        read_node(r#""Name":"paris-w3""#, r#""Name":"paris-w4""#),
        key,
        "key_mismatch",
        r#"Name is "paris-w4", but the key says paris-w3"#,
    );
    assert_refused(
        read_node(r#""Cluster":"paris""#, r#""Cluster":"rome""#),
        key,
        "cluster_mismatch",
        r#"Cluster is "rome", but the record comes from cluster paris"#,
    );
    assert_refused(
        read_node(r#""ClusterID":7"#, r#""ClusterID":8"#),
        key,
        "cluster_id_mismatch",
        "ClusterID is 8, but the record comes from cluster 7",
    );
    assert_refused(
        read_node(r#""Name":"paris-w3","#, ""),
        key,
        "key_mismatch",
        r#"Name is "", but the key says paris-w3"#,
    );
}

#[test]
fn a_node_has_to_have_addresses_and_ranges_of_the_right_family() {
    let key = "cilium/state/nodes/v1/paris/paris-w3";
    let message = r#"IPv4AllocCIDR holds "10.7.3.0 with mask /wD/AA==", which is not an address range"#;
    assert_refused(read_node("////AA==", "/wD/AA=="), key, "invalid_prefix", message);
    for range in [
        r#"{"IP":"10.7.3.0","Mask":""}"#,
        r#"{"IP":"10.7.3.0","Mask":"//////////8AAAAAAAAAAA=="}"#,
        r#"{"IP":"garbage","Mask":"////AA=="}"#,
        r#"{"IP":"fd00::","Mask":"//////////8AAAAAAAAAAA=="}"#,
        r#""10.7.3.0""#,
        r#""10.7.3.0/33""#,
        r#""fd00::/64""#,
        r#""""#,
    ] {
        let error = read_node(r#"{"IP":"10.7.3.0","Mask":"////AA=="}"#, range).unwrap_err();
        assert!(
            matches!(error.rejection, Rejection::InvalidPrefix { field: "IPv4AllocCIDR", .. }),
            "{error:?}"
        );
    }
    for (field, from, to) in [
        ("IPAddresses", r#""IP":"192.0.2.13""#, r#""IP":"""#),
        ("IPAddresses", r#""IP":"192.0.2.13""#, r#""IP":"fe80::1%eth0""#),
        ("IPv4HealthIP", r#""IPv4HealthIP":"10.7.3.9""#, r#""IPv4HealthIP":"fd00::9""#),
        ("IPv6HealthIP", r#""IPv6HealthIP":"""#, r#""IPv6HealthIP":"10.7.3.9""#),
        ("IPv6HealthIP", r#""IPv6HealthIP":"""#, r#""IPv6HealthIP":"::ffff:10.7.3.9""#),
        ("IPv4IngressIP", r#""IPv4IngressIP":"""#, r#""IPv4IngressIP":"10.7.3""#),
    ] {
        let error = read_node(from, to).unwrap_err();
        assert!(
            matches!(&error.rejection, Rejection::InvalidAddress { field: of, .. } if *of == field),
            "{error:?}"
        );
    }
}

#[test]
fn an_identity_has_to_be_in_the_range_of_its_cluster() {
    let value = identity().encode();
    let read = |number| Identity::decode(&paris(), NumericIdentity(number), &value);
    for number in [458_752, 524_287] {
        assert!(read(number).is_ok(), "{number}");
    }
    for number in [256, 65_536, 458_751, 524_288, 0x0100_0000, u32::MAX] {
        let message = format!("key is identity {number}, which is not one of cluster 7");
        assert_refused(
            read(number),
            &format!("cilium/state/identities/v1/id/{number}"),
            "foreign_identity",
            &message,
        );
    }
    for number in [0, 1, 8, 100, 255] {
        let message = format!("key is the reserved identity {number}");
        assert_refused(
            read(number),
            &format!("cilium/state/identities/v1/id/{number}"),
            "reserved_identity",
            &message,
        );
    }
}

#[test]
fn the_range_of_a_cluster_depends_on_the_size_of_the_mesh() {
    let cluster_id = ClusterId::new(7, MaxClusters::Of511).unwrap();
    let origin = landbridge_kvstore_schema::Origin { cluster_id, ..paris() };
    let value = identity().encode();
    assert!(Identity::decode(&origin, NumericIdentity(262_143), &value).is_ok());
    assert!(Identity::decode(&origin, NumericIdentity(461_234), &value).is_err());
}

#[test]
fn an_identity_has_to_carry_the_label_of_its_cluster() {
    let key = "cilium/state/identities/v1/id/461234";
    assert_refused(
        read_identity("k8s:io.cilium.k8s.policy.cluster=paris;", ""),
        key,
        "missing_cluster_label",
        "label k8s:io.cilium.k8s.policy.cluster is missing",
    );
    assert_refused(
        read_identity("policy.cluster=paris", "policy.cluster=rome"),
        key,
        "cluster_mismatch",
        r#"io.cilium.k8s.policy.cluster is "rome", but the record comes from cluster paris"#,
    );
    assert_refused(
        read_identity("k8s:io.cilium.k8s.policy.cluster", "any:io.cilium.k8s.policy.cluster"),
        key,
        "cluster_label_source",
        r#"label io.cilium.k8s.policy.cluster has source "any", not k8s"#,
    );
    assert_refused(
        read_identity("k8s:app=cart;", "any:io.cilium.k8s.policy.cluster=rome;"),
        key,
        "duplicate_label",
        r#"label "k8s:io.cilium.k8s.policy.cluster=paris" has the key of an earlier one"#,
    );
}

#[test]
fn an_identity_has_to_have_labels_that_cross_clusters() {
    let key = "cilium/state/identities/v1/id/461234";
    assert_refused(
        read_identity("k8s:app=cart;", "reserved:host=;"),
        key,
        "node_local_label",
        r#"label "reserved:host=" has a source that is for one node alone"#,
    );
    assert_refused(
        read_identity("k8s:app=cart;", "cidr:192.0.2.0/24=;"),
        key,
        "node_local_label",
        r#"label "cidr:192.0.2.0/24=" has a source that is for one node alone"#,
    );
    assert_refused(
        read_identity("k8s:app=cart;", "$host;"),
        key,
        "invalid_label",
        r#""$host" is not a label"#,
    );
    assert_refused(
        read_identity("=shop;k8s:io.cilium.k8s.policy.cluster", "=shop;;k8s:io.cilium.k8s.policy.cluster"),
        key,
        "invalid_label",
        r#""" is not a label"#,
    );
    let cut = &identity().encode()[..50];
    let decoded = Identity::decode(&paris(), identity().number(), cut);
    assert_eq!(decoded.unwrap_err().rejection.reason(), "unterminated_labels");
    let decoded = Identity::decode(&paris(), identity().number(), b"k8s:a=\xff;");
    assert_eq!(decoded.unwrap_err().rejection.reason(), "not_utf8");
}

#[test]
fn an_ip_has_to_be_the_text_of_its_key() {
    let key = "cilium/state/ip/v1/default/10.7.3.21";
    assert_refused(
        read_ip(r#""IP":"10.7.3.21""#, r#""IP":"10.7.3.22""#),
        key,
        "key_mismatch",
        r#"IP is "10.7.3.22", but the key says 10.7.3.21"#,
    );
    assert_refused(
        read_ip(r#""Mask":null"#, r#""Mask":"/////w==""#),
        key,
        "key_mismatch",
        r#"IP is "10.7.3.21/32", but the key says 10.7.3.21"#,
    );
    assert_refused(
        read_ip(r#""Mask":null"#, r#""Mask":"////AA==""#),
        key,
        "invalid_prefix",
        r#"Mask holds "10.7.3.21 with mask ////AA==", which is not an address range"#,
    );
    assert_refused(
        read_ip(r#""IP":"10.7.3.21""#, r#""IP":"""#),
        key,
        "invalid_address",
        r#"IP holds "", which is not an address"#,
    );
    assert_refused(
        read_ip(r#""HostIP":"192.0.2.13""#, r#""HostIP":"paris-w3""#),
        key,
        "invalid_address",
        r#"HostIP holds "paris-w3", which is not an address"#,
    );
    // Go prints an IPv4 address in IPv6 as IPv4, so it stands for the same address.
    assert_eq!(read_ip(r#""IP":"10.7.3.21""#, r#""IP":"::ffff:10.7.3.21""#), Ok(pod_ip()));
}

#[test]
fn an_ip_has_to_have_an_identity_of_its_cluster() {
    let key = "cilium/state/ip/v1/default/10.7.3.21";
    assert_refused(
        read_ip("461234", "393216"),
        key,
        "foreign_identity",
        "ID is identity 393216, which is not one of cluster 7",
    );
    for reserved in [0, 1, 2, 4, 8, 255] {
        let message = format!("ID is the reserved identity {reserved}");
        assert_refused(read_ip("461234", &reserved.to_string()), key, "reserved_identity", &message);
    }
    for number in ["-1", "4294967296", "461234.0", "\"461234\""] {
        assert_eq!(read_ip("461234", number).unwrap_err().rejection.reason(), "malformed", "{number}");
    }
}

#[test]
fn a_service_has_to_be_the_one_of_its_key() {
    let key = "cilium/state/services/v1/paris/shop/cart";
    assert_refused(
        read_service(r#""namespace":"shop""#, r#""namespace":"kube-system""#),
        key,
        "key_mismatch",
        r#"namespace is "kube-system", but the key says shop"#,
    );
    assert_refused(
        read_service(r#""name":"cart""#, r#""name":"cart/x""#),
        key,
        "key_mismatch",
        r#"name is "cart/x", but the key says cart"#,
    );
    assert_refused(
        read_service(r#""cluster":"paris""#, r#""cluster":"paris2""#),
        key,
        "cluster_mismatch",
        r#"cluster is "paris2", but the record comes from cluster paris"#,
    );
    assert_refused(
        read_service(r#""clusterID":7"#, r#""clusterID":0"#),
        key,
        "cluster_id_mismatch",
        "clusterID is 0, but the record comes from cluster 7",
    );
}

#[test]
fn a_service_has_to_have_addresses_and_ports_that_exist() {
    let key = "cilium/state/services/v1/paris/shop/cart";
    assert_refused(
        read_service(r#""10.107.4.4":"#, r#""cart.example":"#),
        key,
        "invalid_address",
        r#"frontends holds "cart.example", which is not an address"#,
    );
    assert_refused(
        read_service(r#""backends":{"10.7.3.21":"#, r#""backends":{"fe80::1%eth0":"#),
        key,
        "invalid_address",
        r#"backends holds "fe80::1%eth0", which is not an address"#,
    );
    assert_refused(
        read_service(r#""backends":{"#, r#""backends":{"::ffff:10.7.3.21":{},"#),
        key,
        "duplicate_address",
        r#"backends holds "::ffff:10.7.3.21" twice"#,
    );
    assert_refused(
        read_service(r#""Protocol":"TCP","Port":8080"#, r#""Protocol":"tcp","Port":8080"#),
        key,
        "invalid_protocol",
        r#"backends holds protocol "tcp", not one of TCP, UDP, SCTP and ANY"#,
    );
    assert_refused(
        read_service(r#""Port":8080"#, r#""Port":0"#),
        key,
        "port_zero",
        r#"backends holds port "http" with number 0"#,
    );
    assert_eq!(
        read_service(r#""Port":8080"#, r#""Port":65536"#).unwrap_err().rejection.reason(),
        "malformed"
    );
}

#[test]
fn what_a_service_says_of_addresses_that_are_no_backends_is_ignored() {
    let decoded =
        read_service(r#""zones":{"#, r#""hostnames":{"garbage":"x"},"zones":{"10.7.3.99":{"zone":"b"},"#);
    assert_eq!(decoded, Ok(service()));
}

#[test]
fn a_cluster_config_has_to_fit_the_mesh() {
    let key = "cilium/cluster-config/paris";
    for json in ["{}", r#"{"id":0}"#, r#"{"id":null}"#] {
        let message = "id: cluster id 0 is not in 1..=255";
        assert_refused(read_config(MaxClusters::Of255, json), key, "invalid_cluster_id", message);
    }
    let message = "id: cluster id 256 is not in 1..=255";
    assert_refused(read_config(MaxClusters::Of255, r#"{"id":256}"#), key, "invalid_cluster_id", message);
    let message = "id: cluster id 512 is not in 1..=511";
    assert_refused(read_config(MaxClusters::Of511, r#"{"id":512}"#), key, "invalid_cluster_id", message);

    // A reader in a mesh of 255 takes any size, one in a mesh of 511 only its own.
    let of_511 = r#"{"id":7,"capabilities":{"maxConnectedClusters":511}}"#;
    assert!(read_config(MaxClusters::Of255, of_511).is_ok());
    assert!(read_config(MaxClusters::Of511, of_511).is_ok());
    let of_255 = r#"{"id":7,"capabilities":{"maxConnectedClusters":255}}"#;
    assert!(read_config(MaxClusters::Of255, of_255).is_ok());
    let message = "maxConnectedClusters is 255, but this mesh has 511";
    assert_refused(read_config(MaxClusters::Of511, of_255), key, "max_clusters_mismatch", message);
    let message = "maxConnectedClusters is 0, but this mesh has 511";
    assert_refused(read_config(MaxClusters::Of511, r#"{"id":7}"#), key, "max_clusters_mismatch", message);

    let mode = r#"{"id":7,"capabilities":{"endpointSlicesExportMode":"slices"}}"#;
    let message = r#"endpointSlicesExportMode is "slices", which is unknown"#;
    assert_refused(read_config(MaxClusters::Of255, mode), key, "unknown_export_mode", message);

    let unknown_fields = r#"{"id":7,"name":"x","capabilities":{"syncedCanaries":true,"future":[1]}}"#;
    assert!(read_config(MaxClusters::Of255, unknown_fields).unwrap().capabilities.synced_canaries);
}

#[test]
fn values_larger_than_their_kind_can_be_are_refused_before_they_are_parsed() {
    fn assert_too_large<T: std::fmt::Debug>(
        max_bytes: usize,
        read: impl Fn(&[u8]) -> Result<T, RecordError>,
    ) {
        let large = vec![b'['; max_bytes + 1];
        let size_bytes = large.len();
        assert_eq!(read(&large).unwrap_err().rejection, Rejection::TooLarge { size_bytes, max_bytes });
        assert_ne!(read(&large[1..]).unwrap_err().rejection.reason(), "too_large");
    }
    let paris = paris();
    assert_too_large(Node::MAX_BYTES, |value| Node::decode(&paris, &node().name, value));
    assert_too_large(Identity::MAX_BYTES, |value| Identity::decode(&paris, identity().number(), value));
    assert_too_large(IpIdentityPair::MAX_BYTES, |value| IpIdentityPair::decode(&paris, pod_ip().ip, value));
    assert_too_large(ClusterService::MAX_BYTES, |value| {
        ClusterService::decode(&paris, &service().name, value)
    });
    let (cluster, max) = (&paris.keyspace.cluster, MaxClusters::Of255);
    assert_too_large(ClusterConfig::MAX_BYTES, |value| ClusterConfig::decode(cluster, max, value));
}

#[test]
fn deep_nesting_is_refused() {
    let deep = format!("{{\"x\":{}", "[".repeat(100_000));
    let error = Node::decode(&paris(), &node().name, deep.as_bytes()).unwrap_err();
    assert_eq!(error.rejection.reason(), "malformed");
}

#[test]
fn what_a_peer_wrote_cannot_flood_or_forge_a_log() {
    let long = "x\\n".repeat(10_000);
    let messages = [
        read_node(r#""Name":"paris-w3""#, &format!(r#""Name":"{long}""#)).unwrap_err().rejection.to_string(),
        read_node(r#""ClusterID":7"#, &format!(r#""ClusterID":"{long}""#)).unwrap_err().rejection.to_string(),
    ];
    for message in messages {
        assert!(message.len() < 400 && !message.contains('\n'), "{message}");
    }
}

#[test]
fn the_key_of_a_refused_record_is_the_one_in_the_store() {
    let origin =
        landbridge_kvstore_schema::Origin { keyspace: Keyspace::cache(paris().keyspace.cluster), ..paris() };
    let error = Identity::decode(&origin, NumericIdentity(1), &identity().encode()).unwrap_err();
    assert_eq!(error.key, "cilium/cache/identities/v1/paris/id/1");
}

#[test]
fn keys_with_names_that_cannot_be_are_refused() {
    let keyspace = paris().keyspace;
    for key in [
        "cilium/state/nodes/v1/paris/",
        "cilium/state/nodes/v1/paris/a/b",
        "cilium/state/nodes/v1/paris/..",
        "cilium/state/identities/v1/id/007",
        "cilium/state/identities/v1/id/x",
        "cilium/state/ip/v1/default/10.7.3.21/24",
        "cilium/state/ip/v1/default/::ffff:10.7.3.21",
        "cilium/state/ip/v1/default/FD00::1",
        "cilium/state/services/v1/paris/cart",
        "cilium/state/services/v1/paris/shop/cart/x",
        "cilium/state/services/v1/paris//cart",
    ] {
        let error = keyspace.parse(key.as_bytes()).unwrap_err();
        assert!(matches!(error, KeyError::InvalidName { .. }), "{key}: {error}");
    }
}

#[test]
fn keys_of_something_else_are_told_apart() {
    let keyspace = paris().keyspace;
    for key in [
        "",
        "cilium/state/nodes/v1/rome/rome-w1",
        "cilium/state/nodes/v2/paris/paris-w3",
        "cilium/state/noderegister/v1/paris/paris-w3",
        "cilium/state/identities/v1/value/k8s:a=b;/192.0.2.13",
        "cilium/state/identities/v1/idx/1",
        "cilium/state/ip/v1/other/10.7.3.21",
        "cilium/cache/nodes/v1/paris/paris-w3",
        "/cilium/state/nodes/v1/paris/paris-w3",
    ] {
        assert!(matches!(keyspace.parse(key.as_bytes()), Err(KeyError::Elsewhere { .. })), "{key}");
    }
    assert!(matches!(keyspace.parse(b"cilium/state/nodes/v1/paris/\xff"), Err(KeyError::Elsewhere { .. })));
}
