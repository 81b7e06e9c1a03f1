//! Records and keys, byte for byte as Cilium's components write and expect them.

use crate::samples::{
    bare_node, full_node, headless_service, identity, ip_prefix, node, paris, pod_ip, service,
};
use landbridge_kvstore_schema::{
    Canary, Capabilities, ClusterConfig, ClusterId, ClusterName, ClusterService, EndpointSlicesExportMode,
    Identity, IpIdentityPair, IpOrPrefix, Keyspace, Kind, Layout, MaxClusters, NamespacedName, Node,
    NumericIdentity, ObjectName, RecordName, cluster_config_key, cluster_of_config_key, heartbeat_prefix,
    synced_prefix,
};

/// The value in a golden file.
macro_rules! golden {
    ($file:literal) => {
        include_str!(concat!("golden/", $file)).strip_suffix('\n').unwrap()
    };
}

#[track_caller]
fn assert_bytes(encoded: Vec<u8>, golden: &str) {
    assert_eq!(String::from_utf8(encoded).unwrap(), golden);
}

#[test]
fn nodes_are_those_of_cilium() {
    let records = [
        (node(), golden!("node.json")),
        (full_node(), golden!("node_full.json")),
        (bare_node("w"), golden!("node_bare.json")),
    ];
    for (node, golden) in records {
        assert_bytes(node.encode(&paris()), golden);
        assert_eq!(Node::decode(&paris(), &node.name, golden.as_bytes()), Ok(node));
    }
}

#[test]
fn identities_are_those_of_cilium() {
    let golden = golden!("identity.txt");
    assert_bytes(identity().encode(), golden);
    assert_eq!(Identity::decode(&paris(), NumericIdentity(461_234), golden.as_bytes()), Ok(identity()));
}

#[test]
fn ips_are_those_of_cilium() {
    for (pair, golden) in [(pod_ip(), golden!("ip.json")), (ip_prefix(), golden!("ip_prefix.json"))] {
        assert_bytes(pair.encode(), golden);
        assert_eq!(IpIdentityPair::decode(&paris(), pair.ip, golden.as_bytes()), Ok(pair));
    }
}

#[test]
fn services_are_those_of_cilium() {
    let records =
        [(service(), golden!("service.json")), (headless_service(), golden!("service_headless.json"))];
    for (service, golden) in records {
        assert_bytes(service.encode(&paris()), golden);
        assert_eq!(ClusterService::decode(&paris(), &service.name, golden.as_bytes()), Ok(service));
    }
}

#[test]
fn cluster_configs_are_those_of_cilium() {
    let config = |id, max, capabilities| ClusterConfig { id: ClusterId::new(id, max).unwrap(), capabilities };
    let publisher = Capabilities {
        synced_canaries: true,
        max_connected_clusters: 255,
        service_exports_enabled: Some(false),
        endpoint_slices_export_mode: EndpointSlicesExportMode::ServicesAndEndpointSlices,
        ..Capabilities::default()
    };
    let mirror = Capabilities {
        synced_canaries: true,
        cached: true,
        max_connected_clusters: 511,
        ..Capabilities::default()
    };
    let records = [
        (config(7, MaxClusters::Of255, publisher), golden!("cluster_config.json")),
        (config(300, MaxClusters::Of511, mirror), golden!("cluster_config_cached.json")),
        (config(1, MaxClusters::Of255, Capabilities::default()), golden!("cluster_config_bare.json")),
    ];
    let paris = ClusterName::new("paris").unwrap();
    for (config, golden) in records {
        assert_bytes(config.encode(), golden);
        assert_eq!(ClusterConfig::decode(&paris, config.id.max_clusters(), golden.as_bytes()), Ok(config));
    }
}

#[test]
fn nodes_of_other_writers_are_read() {
    // Address ranges as text, as Cilium writes them from 1.22 on.
    let as_text = golden!("node.json").replace(r#"{"IP":"10.7.3.0","Mask":"////AA=="}"#, r#""10.7.3.0/24""#);
    assert_eq!(Node::decode(&paris(), &node().name, as_text.as_bytes()), Ok(node()));
    // A field of Cilium up to 1.19, and host bits, which Cilium clears.
    let older = golden!("node.json")
        .replace(r#""WireguardPubKey""#, r#""NodeIdentity":6,"WireguardPubKey""#)
        .replace(r#""IP":"10.7.3.0""#, r#""IP":"10.7.3.77""#)
        .replace(r#""IPv4SecondaryAllocCIDRs":null"#, r#""IPv4SecondaryAllocCIDRs":[null]"#);
    assert_eq!(Node::decode(&paris(), &node().name, older.as_bytes()), Ok(node()));
    // Fields that are not there are zero, empty lists and maps are as good as null.
    let short = r#"{"BootID":"","Cluster":"paris","IPAddresses":[],"Labels":{},"Name":"w","ClusterID":7}"#;
    assert_eq!(Node::decode(&paris(), &bare_node("w").name, short.as_bytes()), Ok(bare_node("w")));
}

/// All keys of the schema, with what they are built from.
fn keys() -> Vec<(RecordName, &'static str, &'static str)> {
    let shop = |name| NamespacedName::new("shop", name).unwrap();
    let ip = |text: &str| RecordName::Ip(text.parse().unwrap());
    let node = RecordName::Node(ObjectName::new("paris-w3").unwrap());
    vec![
        (node, "cilium/state/nodes/v1/paris/paris-w3", "cilium/cache/nodes/v1/paris/paris-w3"),
        (
            RecordName::Identity(NumericIdentity(461_234)),
            "cilium/state/identities/v1/id/461234",
            "cilium/cache/identities/v1/paris/id/461234",
        ),
        (ip("10.7.3.21"), "cilium/state/ip/v1/default/10.7.3.21", "cilium/cache/ip/v1/paris/10.7.3.21"),
        (ip("fd00::/64"), "cilium/state/ip/v1/default/fd00::/64", "cilium/cache/ip/v1/paris/fd00::/64"),
        (
            RecordName::Service(shop("cart")),
            "cilium/state/services/v1/paris/shop/cart",
            "cilium/cache/services/v1/paris/shop/cart",
        ),
        (
            RecordName::EndpointSlice(shop("cart-x7k2p")),
            "cilium/state/endpointslices/v1/paris/shop/cart-x7k2p",
            "cilium/cache/endpointslices/v1/paris/shop/cart-x7k2p",
        ),
        (
            RecordName::ServiceExport(shop("cart")),
            "cilium/state/serviceexports/v1/paris/shop/cart",
            "cilium/cache/serviceexports/v1/paris/shop/cart",
        ),
    ]
}

#[test]
fn keys_are_those_of_cilium_in_both_layouts() {
    let cluster = ClusterName::new("paris").unwrap();
    let (state, cache) = (Keyspace::state(cluster.clone()), Keyspace::cache(cluster));
    for (name, state_key, cache_key) in keys() {
        assert_eq!(state.key(&name), state_key);
        assert_eq!(cache.key(&name), cache_key);
        assert_eq!(state.parse(state_key.as_bytes()).as_ref(), Ok(&name));
        assert_eq!(cache.parse(cache_key.as_bytes()).as_ref(), Ok(&name));
        assert!(state.parse(cache_key.as_bytes()).is_err());
        assert!(cache.parse(state_key.as_bytes()).is_err());
    }
}

#[test]
fn watches_end_in_a_slash_but_for_identities_and_the_heartbeat() {
    let cluster = ClusterName::new("paris").unwrap();
    let (state, cache) = (Keyspace::state(cluster.clone()), Keyspace::cache(cluster.clone()));
    let prefixes = [
        (Kind::Nodes, "cilium/state/nodes/v1/paris/", "cilium/cache/nodes/v1/paris/"),
        (Kind::Identities, "cilium/state/identities/v1/id", "cilium/cache/identities/v1/paris/id"),
        (Kind::Ips, "cilium/state/ip/v1/default/", "cilium/cache/ip/v1/paris/"),
        (Kind::Services, "cilium/state/services/v1/paris/", "cilium/cache/services/v1/paris/"),
        (
            Kind::EndpointSlices,
            "cilium/state/endpointslices/v1/paris/",
            "cilium/cache/endpointslices/v1/paris/",
        ),
        (
            Kind::ServiceExports,
            "cilium/state/serviceexports/v1/paris/",
            "cilium/cache/serviceexports/v1/paris/",
        ),
    ];
    for (kind, state_prefix, cache_prefix) in prefixes {
        assert_eq!(state.watch_prefix(kind).as_str(), state_prefix);
        assert_eq!(cache.watch_prefix(kind).as_str(), cache_prefix);
    }
    assert_eq!(state.watch_prefix(Kind::Identities).range_end(), b"cilium/state/identities/v1/ie");
    assert_eq!(state.watch_prefix(Kind::Nodes).range_end(), b"cilium/state/nodes/v1/paris0");
    assert_eq!(heartbeat_prefix().as_str(), "cilium/.heartbeat");
    assert_eq!(heartbeat_prefix().range_end(), b"cilium/.heartbeau");
    assert_eq!(synced_prefix(&cluster).as_str(), "cilium/synced/paris/");
}

#[test]
fn canaries_of_identities_and_ips_are_one_segment_shorter() {
    let cluster = ClusterName::new("paris").unwrap();
    let kinds = ["nodes", "identities", "ip", "services", "endpointslices", "serviceexports"];
    for (kind, segment) in Kind::ALL.into_iter().zip(kinds) {
        for (layout, folder) in [(Layout::State, "state"), (Layout::Cache, "cache")] {
            let canary = Canary { keyspace: Keyspace { layout, cluster: cluster.clone() }, kind };
            let key = format!("cilium/synced/paris/cilium/{folder}/{segment}/v1");
            assert_eq!(canary.key(), key);
            assert_eq!(Canary::parse(key.as_bytes()), Ok(canary));
        }
    }
    for key in [
        "cilium/synced/paris/cilium/state/identities/v1/id",
        "cilium/synced/paris/cilium/state/nodes/v2",
        "cilium/synced/paris/cilium/state/policies/v1",
        "cilium/synced/paris/cilium/other/nodes/v1",
        "cilium/synced/PARIS/cilium/state/nodes/v1",
        "cilium/synced/paris",
    ] {
        assert!(Canary::parse(key.as_bytes()).is_err(), "{key}");
    }
}

#[test]
fn the_key_of_a_cluster_config_names_the_cluster() {
    let cluster = ClusterName::new("paris").unwrap();
    assert_eq!(cluster_config_key(&cluster), "cilium/cluster-config/paris");
    assert_eq!(cluster_of_config_key(b"cilium/cluster-config/paris"), Ok(cluster));
    for key in [
        "cilium/cluster-config/",
        "cilium/cluster-config/a/b",
        "cilium/cluster-config",
        "cilium/cluster-config/default",
    ] {
        assert!(cluster_of_config_key(key.as_bytes()).is_err(), "{key}");
    }
}

#[test]
fn addresses_in_keys_have_the_spelling_of_go() {
    let spelling = |text: &str| IpOrPrefix::address(text.parse().unwrap()).to_string();
    assert_eq!(spelling("FD00:0:0:0:0:0:0:1"), "fd00::1");
    assert_eq!(spelling("2001:db8:0:0:1:0:0:1"), "2001:db8::1:0:0:1");
    assert_eq!(spelling("2001:db8:0:1:1:1:1:1"), "2001:db8:0:1:1:1:1:1");
    assert_eq!(spelling("::ffff:10.7.3.21"), "10.7.3.21");
}
