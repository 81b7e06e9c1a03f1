//! Records of our own: what is written is read back, and keys are where DESIGN's table has them.

use std::collections::BTreeMap;

use landbridge_kvstore_schema::{
    Affinity, Area, Balance, BalanceAlgorithm, ClusterName, DropCount, Entity, LabelExpression, LabelKey,
    LabelOperator, LandbridgeKey, LocalBackend, LocalBackendPort, LocalPod, LocalPort, LocalService,
    NamespacedName, NodeReport, ObjectName, OwnRecord, PathReport, Peer, Policy, PolicyPeer, PolicyPort,
    PolicyRule, Protocol, Reader, Selector, service_address_key,
};

fn cart() -> NamespacedName {
    NamespacedName::new("shop", "cart").unwrap()
}

fn cluster(name: &str) -> ClusterName {
    ClusterName::new(name).unwrap()
}

/// What is written, as it is on the wire; checks that it is read back as it was.
fn written<R: OwnRecord + PartialEq + std::fmt::Debug>(record: &R) -> String {
    let value = record.encode();
    assert_eq!(R::decode("key", &value).as_ref(), Ok(record));
    String::from_utf8(value).unwrap()
}

#[test]
fn keys_are_in_the_area_of_their_readers() {
    let node = ObjectName::new("a1").unwrap();
    let keys = [
        (LocalPod::key(&cart()), Area::Local, "landbridge/local/pods/shop/cart"),
        (LocalService::key(&cart()), Area::Local, "landbridge/local/services/shop/cart"),
        (Policy::key(&cart()), Area::Local, "landbridge/local/policies/shop/cart"),
        (NodeReport::key(&node), Area::Health, "landbridge/health/a1/report"),
        (Peer::key(&cluster("b")), Area::Config, "landbridge/config/peers/b"),
        (Reader::key(&cluster("b")), Area::Config, "landbridge/config/readers/b"),
        (service_address_key(&cart()), Area::Config, "landbridge/config/service-addresses/shop/cart"),
    ];
    for (key, area, text) in keys {
        assert_eq!((key.area(), key.to_string().as_str()), (area, text));
        assert_eq!(LandbridgeKey::parse(text.as_bytes()).as_ref(), Ok(&key));
    }
    let report = NodeReport::key(&node);
    assert!(NodeReport::writable(&node).contains(report.to_string().as_bytes()));
    assert_eq!(NodeReport::node_of(&report), Some(node));
    assert_eq!(NodeReport::node_of(&LandbridgeKey::new(Area::Health, &["a1", "other"]).unwrap()), None);
}

#[test]
fn services_are_read_back() {
    let port = LocalBackendPort { protocol: Protocol::Tcp, port: 8080.try_into().unwrap() };
    let backend = LocalBackend {
        node: Some(ObjectName::new("a1").unwrap()),
        ports: BTreeMap::from([("http".to_owned(), port)]),
        ready: true,
        serving: true,
        terminating: false,
    };
    let service = LocalService {
        addresses: vec!["10.96.0.7".parse().unwrap()],
        ports: vec![LocalPort {
            name: "http".to_owned(),
            protocol: Protocol::Tcp,
            port: 80.try_into().unwrap(),
        }],
        global: true,
        shared: true,
        affinity: Affinity::Local,
        balance: Balance::default(),
        backends: BTreeMap::from([("10.1.1.10".parse().unwrap(), backend)]),
    };
    assert_eq!(
        written(&service),
        r#"{"addresses":["10.96.0.7"],"ports":[{"name":"http","protocol":"TCP","port":80}],"global":true,"shared":true,"affinity":"local","backends":{"10.1.1.10":{"node":"a1","ports":{"http":{"protocol":"TCP","port":8080}},"ready":true,"serving":true,"terminating":false}}}"#
    );
    let balance = Balance {
        algorithm: BalanceAlgorithm::RoundRobin,
        session_affinity_seconds: 600,
        weights: BTreeMap::from([(cluster("b"), 10)]),
    };
    let balanced = LocalService { balance, ..LocalService::default() };
    let text = r#""balance":{"algorithm":"round-robin","sessionAffinitySeconds":600,"weights":{"b":10}}"#;
    assert!(written(&balanced).contains(text), "{}", written(&balanced));
}

#[test]
fn policies_are_read_back() {
    let of_cluster_a = LabelExpression {
        key: "k8s:io.cilium.k8s.policy.cluster".parse::<LabelKey>().unwrap(),
        operator: LabelOperator::In,
        values: vec!["a".to_owned()],
    };
    let policy = Policy {
        subject: Selector::default(),
        ingress: Some(vec![PolicyRule {
            deny: false,
            peers: Some(vec![
                PolicyPeer::Pods(Selector { expressions: vec![of_cluster_a] }),
                PolicyPeer::Entity(Entity::ClusterMesh),
                PolicyPeer::address("192.0.2.1".parse().unwrap()),
            ]),
            ports: Some(vec![PolicyPort { protocol: Protocol::Udp, port: None, end_port: None }]),
        }]),
        egress: None,
    };
    assert_eq!(
        written(&policy),
        r#"{"subject":[],"ingress":[{"deny":false,"peers":[{"pods":[{"key":"k8s:io.cilium.k8s.policy.cluster","operator":"In","values":["a"]}]},{"entity":"cluster-mesh"},{"addresses":{"range":"192.0.2.1/32","except":[]}}],"ports":[{"protocol":"UDP","port":null}]}],"egress":null}"#
    );
}

#[test]
fn pods_peers_and_reports_are_read_back() {
    let pod = LocalPod { node: ObjectName::new("a1").unwrap(), identity: 65_792, uid: "7".to_owned() };
    assert_eq!(written(&pod), r#"{"node":"a1","identity":65792,"uid":"7"}"#);

    let peer = Peer {
        id: 2,
        endpoints: vec!["https://172.30.2.1:2379".to_owned()],
        ca_certificate: "PEM".to_owned(),
        pod_ranges: vec!["10.2.0.0/16".parse().unwrap()],
        node_addresses: vec!["172.30.2.1".parse().unwrap()],
        unconfirmed_until: Some(7),
    };
    assert_eq!(
        written(&peer),
        r#"{"id":2,"endpoints":["https://172.30.2.1:2379"],"caCertificate":"PEM","podRanges":["10.2.0.0/16"],"nodeAddresses":["172.30.2.1"],"unconfirmedUntil":7}"#
    );
    written(&Reader { unconfirmed_until: None });

    let path = PathReport { reachable: true, round_trip_micros: 300 };
    let paths = BTreeMap::from([(ObjectName::new("b1").unwrap(), path)]);
    let report = NodeReport {
        synced: vec![cluster("b")],
        paths: BTreeMap::from([(cluster("b"), paths)]),
        drops: vec![DropCount { reason: 133, ..DropCount::default() }],
        ..NodeReport::default()
    };
    written(&report);
}

#[test]
fn labels_of_any_source_have_three_spellings() {
    let key = |text: &str| text.parse::<LabelKey>().unwrap();
    assert_eq!(key("app"), key("any:app"));
    assert_eq!(key("app"), key(":app"));
    assert_ne!(key("app"), key("k8s:app"));
    assert_eq!(key("k8s:io.kubernetes.pod.namespace").key, "io.kubernetes.pod.namespace");
}

#[test]
fn records_grow_and_what_is_wrong_is_named() {
    let newer = br#"{"node":"a1","identity":65792,"later":{"field":1}}"#;
    assert_eq!(LocalPod::decode("key", newer).unwrap().uid, "");
    for (value, reason) in [
        (&b"{"[..], "EOF"),
        (br#"{"node":"A1","identity":1}"#, "not an object name"),
        (br#"{"node":"a1","identity":-1}"#, "u32"),
        (b"\xff", "not JSON"),
    ] {
        let error = LocalPod::decode("landbridge/local/pods/shop/cart", value).unwrap_err();
        assert_eq!(error.key, "landbridge/local/pods/shop/cart");
        assert!(error.rejection.to_string().contains(reason), "{}", error.rejection);
    }
}
