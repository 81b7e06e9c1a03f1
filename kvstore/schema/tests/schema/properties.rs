//! What holds for every record, every key and every input.

use std::net::IpAddr;
use std::num::NonZeroU16;

use landbridge_kvstore_schema::{
    AddressType, Backend, Canary, ClusterConfig, ClusterId, ClusterName, ClusterService, Identity,
    IpIdentityPair, IpOrPrefix, IpPrefix, Ipv4Prefix, Ipv6Prefix, Keyspace, Kind, Label, Labels,
    LandbridgeKey, Layout, MaxClusters, NamedPort, NamespacedName, Node, NodeAddress, NumericIdentity,
    ObjectName, Origin, Prefix, Protocol, RecordName, ServicePort, Zone, cluster_config_key,
    cluster_of_config_key, synced_prefix,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::samples;

fn any_cluster_name() -> impl Strategy<Value = ClusterName> {
    "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?".prop_filter_map("reserved", |name| ClusterName::new(&name).ok())
}

fn any_cluster_id() -> impl Strategy<Value = ClusterId> {
    select(vec![MaxClusters::Of255, MaxClusters::Of511])
        .prop_flat_map(|max| (1..=u32::from(max.get())).prop_map(move |id| ClusterId::new(id, max).unwrap()))
}

fn any_kind() -> impl Strategy<Value = Kind> {
    select(Kind::ALL.to_vec())
}

fn any_keyspace() -> impl Strategy<Value = Keyspace> {
    (select(vec![Layout::State, Layout::Cache]), any_cluster_name())
        .prop_map(|(layout, cluster)| Keyspace { layout, cluster })
}

fn any_origin() -> impl Strategy<Value = Origin> {
    (any_keyspace(), any_cluster_id()).prop_map(|(keyspace, cluster_id)| Origin { keyspace, cluster_id })
}

fn any_object_name() -> impl Strategy<Value = ObjectName> {
    "[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?".prop_map(|name| ObjectName::new(&name).unwrap())
}

fn any_namespaced_name() -> impl Strategy<Value = NamespacedName> {
    (any_object_name(), any_object_name()).prop_map(|(namespace, name)| NamespacedName { namespace, name })
}

/// An address in its one form, of which IPv6 ones with runs of zeros are as likely as others.
fn any_address() -> impl Strategy<Value = IpAddr> {
    let sparse = vec(select(vec![0_u16, 0, 0, 1, 0xffff]), 8);
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
        any::<u128>().prop_map(|bits| IpAddr::V6(bits.into())),
        sparse.prop_map(|segments| IpAddr::from(<[u16; 8]>::try_from(segments).unwrap())),
    ]
    .prop_map(|address| address.to_canonical())
}

fn any_ipv4_prefix() -> impl Strategy<Value = Ipv4Prefix> {
    (any::<u32>(), 0..=32_u8).prop_map(|(bits, len)| Prefix::containing(bits.into(), len).unwrap())
}

fn any_ipv6_prefix() -> impl Strategy<Value = Ipv6Prefix> {
    (any::<u128>(), 0..=128_u8).prop_map(|(bits, len)| Prefix::containing(bits.into(), len).unwrap())
}

fn any_ip() -> impl Strategy<Value = IpOrPrefix> {
    prop_oneof![
        any_address().prop_map(IpOrPrefix::address),
        any_ipv4_prefix().prop_map(|prefix| IpOrPrefix::prefix(IpPrefix::V4(prefix))),
        any_ipv6_prefix().prop_map(|prefix| IpOrPrefix::prefix(IpPrefix::V6(prefix))),
    ]
}

fn any_record_name() -> impl Strategy<Value = RecordName> {
    prop_oneof![
        any_object_name().prop_map(RecordName::Node),
        any::<u32>().prop_map(|number| RecordName::Identity(NumericIdentity(number))),
        any_ip().prop_map(RecordName::Ip),
        any_namespaced_name().prop_map(RecordName::Service),
        any_namespaced_name().prop_map(RecordName::EndpointSlice),
        any_namespaced_name().prop_map(RecordName::ServiceExport),
    ]
}

fn any_text_map() -> impl Strategy<Value = std::collections::BTreeMap<String, String>> {
    btree_map(any::<String>(), any::<String>(), 0..4)
}

fn any_port() -> impl Strategy<Value = ServicePort> {
    let protocol = select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Any]);
    (protocol, any::<NonZeroU16>()).prop_map(|(protocol, port)| ServicePort { protocol, port })
}

fn any_node() -> impl Strategy<Value = Node> {
    let address_type = prop_oneof![
        Just(AddressType::InternalIp),
        Just(AddressType::CiliumInternalIp),
        "Host[a-z]*".prop_map(AddressType::Other),
    ];
    let address =
        (address_type, any_address()).prop_map(|(address_type, ip)| NodeAddress { address_type, ip });
    let ranges = (vec(any_ipv4_prefix(), 0..3), vec(any_ipv6_prefix(), 0..3));
    let health = (any::<Option<u32>>(), any_ipv6_prefix());
    let texts = (any_text_map(), any_text_map(), any::<String>(), any::<String>());
    (any_object_name(), vec(address, 0..3), ranges, health, any::<u8>(), texts).prop_map(
        |(
            name,
            addresses,
            ranges,
            (ipv4, ipv6),
            encryption_key,
            (labels, annotations, wireguard_public_key, boot_id),
        )| Node {
            name,
            addresses,
            ipv4_pod_cidrs: ranges.0,
            ipv6_pod_cidrs: ranges.1,
            ipv4_health: ipv4.map(Into::into),
            ipv6_health: Some(ipv6.network()).filter(|_| ipv4.is_none()),
            ipv4_ingress: ipv4.map(|bits| (!bits).into()),
            ipv6_ingress: Some(ipv6.network()),
            encryption_key,
            labels,
            annotations,
            wireguard_public_key,
            boot_id,
        },
    )
}

fn any_labels() -> impl Strategy<Value = Labels> {
    let label = ("(k8s|any|container|unspec)", "[a-zA-Z][a-zA-Z0-9./_:-]{0,20}", "[^;\\p{Cc}]{0,20}");
    vec(label, 0..6).prop_map(|labels| {
        labels.into_iter().map(|(source, key, value)| Label::new(&source, &key, &value).unwrap()).collect()
    })
}

/// A number that `cluster` may allocate, and each of them for some `seed`.
fn own_identity(cluster: ClusterId, seed: u32) -> NumericIdentity {
    let (first, last) = cluster.identities().into_inner();
    NumericIdentity(first.0 + seed % (last.0 - first.0 + 1))
}

fn any_pair(cluster: ClusterId) -> impl Strategy<Value = IpIdentityPair> {
    let port = (any::<String>(), any_port());
    let texts = (any::<String>(), any::<String>(), any::<String>(), any::<String>());
    (any_ip(), option::of(any_address()), any::<u32>(), any::<u8>(), texts, btree_map(port.0, port.1, 0..3))
        .prop_map(move |(ip, host_ip, seed, encryption_key, texts, ports)| {
            let named = |(name, ServicePort { protocol, port })| NamedPort { name, port, protocol };
            let (metadata, namespace, pod_name, service_account) = texts;
            IpIdentityPair {
                ip,
                host_ip,
                identity: own_identity(cluster, seed),
                encryption_key,
                metadata,
                namespace,
                pod_name,
                service_account,
                named_ports: ports.into_iter().map(named).collect(),
            }
        })
}

fn any_service() -> impl Strategy<Value = ClusterService> {
    let ports = || btree_map(any::<String>(), any_port(), 0..3);
    let zone =
        (any::<String>(), vec(any::<String>(), 0..3)).prop_map(|(zone, for_zones)| Zone { zone, for_zones });
    let backend = (ports(), option::of(any::<String>()), option::of(zone))
        .prop_map(|(ports, hostname, zone)| Backend { ports, hostname, zone });
    let frontends = btree_map(any_address(), ports(), 0..3);
    let backends = btree_map(any_address(), backend, 0..5);
    (any_namespaced_name(), frontends, backends, any_text_map(), any_text_map()).prop_map(
        |(name, frontends, backends, labels, selector)| ClusterService {
            name,
            frontends,
            backends,
            labels,
            selector,
        },
    )
}

/// Reads `value` as every kind of record. That it returns is the property.
fn read_as_everything(value: &[u8]) {
    let origin = samples::paris();
    let _ = Node::decode(&origin, &samples::node().name, value);
    let _ = Identity::decode(&origin, samples::identity().number(), value);
    let _ = IpIdentityPair::decode(&origin, samples::pod_ip().ip, value);
    let _ = ClusterService::decode(&origin, &samples::service().name, value);
    let _ = ClusterConfig::decode(&origin.keyspace.cluster, MaxClusters::Of511, value);
}

/// One valid value of each kind.
fn valid_values() -> Vec<Vec<u8>> {
    let origin = samples::paris();
    vec![
        samples::full_node().encode(&origin),
        samples::identity().encode(),
        samples::ip_prefix().encode(),
        samples::headless_service().encode(&origin),
        br#"{"id":7,"capabilities":{"syncedCanaries":true,"maxConnectedClusters":511}}"#.to_vec(),
    ]
}

#[derive(Clone, Debug)]
enum Mutation {
    Replace(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, Index),
}

fn any_mutation() -> impl Strategy<Value = Mutation> {
    let pieces = [
        "null", "\"", "{", "}", "[", "]", "-1", "1e999", "\\ud800", ";", "=", ":", "/", "%", "\0", "\u{2028}",
    ];
    let piece =
        prop_oneof![select(pieces.map(|piece| piece.as_bytes().to_vec()).to_vec()), vec(any::<u8>(), 0..4)];
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(index, byte)| Mutation::Replace(index, byte)),
        (any::<Index>(), piece).prop_map(|(index, piece)| Mutation::Insert(index, piece)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Mutation::Remove(from, to)),
    ]
}

fn mutate(value: &mut Vec<u8>, mutation: Mutation) {
    let len = value.len() + 1;
    match mutation {
        Mutation::Replace(index, byte) if !value.is_empty() => *index.get_mut(value) = byte,
        Mutation::Replace(..) => {}
        Mutation::Insert(index, piece) => {
            value.splice(index.index(len)..index.index(len), piece);
        }
        Mutation::Remove(from, to) => {
            let (from, to) = (from.index(len), to.index(len));
            value.drain(from.min(to)..from.max(to).min(from.min(to) + 20));
        }
    }
}

proptest! {
    #[test]
    fn nodes_read_back(origin in any_origin(), node in any_node()) {
        prop_assert_eq!(Node::decode(&origin, &node.name, &node.encode(&origin)), Ok(node));
    }

    #[test]
    fn identities_read_back(origin in any_origin(), seed: u32, labels in any_labels()) {
        let identity = Identity::new(&origin, own_identity(origin.cluster_id, seed), labels).unwrap();
        prop_assert_eq!(Identity::decode(&origin, identity.number(), &identity.encode()), Ok(identity));
    }

    #[test]
    fn ips_read_back((origin, pair) in any_origin().prop_flat_map(|origin| {
        let cluster = origin.cluster_id;
        (Just(origin), any_pair(cluster))
    })) {
        prop_assert_eq!(IpIdentityPair::decode(&origin, pair.ip, &pair.encode()), Ok(pair));
    }

    #[test]
    fn services_read_back(origin in any_origin(), service in any_service()) {
        prop_assert_eq!(ClusterService::decode(&origin, &service.name, &service.encode(&origin)), Ok(service));
    }

    /// No record of one cluster is taken for one of another.
    #[test]
    fn records_are_bound_to_their_cluster(
        origin in any_origin(), other in any_origin(), node in any_node(), service in any_service(), seed: u32,
    ) {
        prop_assume!(origin.keyspace.cluster != other.keyspace.cluster);
        prop_assert!(Node::decode(&other, &node.name, &node.encode(&origin)).is_err());
        prop_assert!(ClusterService::decode(&other, &service.name, &service.encode(&origin)).is_err());
        let number = own_identity(origin.cluster_id, seed);
        let identity = Identity::new(&origin, number, Labels::default()).unwrap();
        prop_assert!(Identity::decode(&other, number, &identity.encode()).is_err());
    }

    /// The number of a cluster can be read from each of its identities, and no two clusters share one.
    #[test]
    fn identities_belong_to_one_cluster(cluster in any_cluster_id(), seed: u32, number: u32) {
        let max = cluster.max_clusters();
        prop_assert_eq!(own_identity(cluster, seed).cluster(max), Some(cluster));
        let number = NumericIdentity(number);
        prop_assert_eq!(cluster.owns(number), number.cluster(max) == Some(cluster));
    }

    #[test]
    fn keys_read_back(keyspace in any_keyspace(), name in any_record_name()) {
        let key = keyspace.key(&name);
        prop_assert!(keyspace.watch_prefix(name.kind()).contains(key.as_bytes()), "{key}");
        prop_assert_eq!(keyspace.parse(key.as_bytes()), Ok(name));
    }

    /// A key that is read is the key that would be built, so that there is one spelling of each.
    #[test]
    fn keys_have_one_spelling(
        keyspace in any_keyspace(), kind in any_kind(), rest in "[a-z0-9:./+]{0,12}",
    ) {
        let key = format!("{}{rest}", keyspace.watch_prefix(kind));
        if let Ok(name) = keyspace.parse(key.as_bytes()) {
            prop_assert_eq!(keyspace.key(&name), key);
        }
    }

    #[test]
    fn mirrored_keys_keep_their_name(cluster in any_cluster_name(), name in any_record_name()) {
        let (state, cache) = (Keyspace::state(cluster.clone()), Keyspace::cache(cluster));
        let mirrored = cache.key(&state.parse(state.key(&name).as_bytes()).unwrap());
        prop_assert_eq!(cache.parse(mirrored.as_bytes()), Ok(name));
    }

    #[test]
    fn canaries_and_configs_read_back(keyspace in any_keyspace(), kind in any_kind()) {
        let canary = Canary { keyspace: keyspace.clone(), kind };
        prop_assert!(synced_prefix(&keyspace.cluster).contains(canary.key().as_bytes()));
        prop_assert_eq!(Canary::parse(canary.key().as_bytes()), Ok(canary));
        let key = cluster_config_key(&keyspace.cluster);
        prop_assert_eq!(cluster_of_config_key(key.as_bytes()), Ok(keyspace.cluster));
    }

    /// `c1` never sees `c11`: where keys name the cluster, a cluster's prefix matches no key of another.
    #[test]
    fn prefixes_match_no_other_cluster(
        cluster in any_cluster_name(), tail in "[a-z0-9]{1,3}", name in any_record_name(),
    ) {
        let longer = ClusterName::new(&format!("{cluster}{tail}"));
        prop_assume!(longer.is_ok());
        let longer = longer.unwrap();
        for (watched, published) in [(&cluster, &longer), (&longer, &cluster)] {
            let (watched, published) = (Keyspace::cache(watched.clone()), Keyspace::cache(published.clone()));
            let key = published.key(&name);
            for kind in Kind::ALL {
                prop_assert!(!watched.watch_prefix(kind).contains(key.as_bytes()), "{key}");
            }
            prop_assert!(watched.parse(key.as_bytes()).is_err());
            prop_assert!(!synced_prefix(&watched.cluster).contains(published.canary(name.kind()).as_bytes()));
        }
    }

    /// The end of a range is above every key of the range, and nothing else is in between.
    #[test]
    fn ranges_hold_what_starts_with_their_prefix(
        keyspace in any_keyspace(), kind in any_kind(), key: Vec<u8>, inside: bool,
    ) {
        let prefix = keyspace.watch_prefix(kind);
        let key = if inside { [prefix.as_str().as_bytes(), &key].concat() } else { key };
        let in_range = key.as_slice() >= prefix.as_str().as_bytes() && key < prefix.range_end();
        prop_assert_eq!(in_range, prefix.contains(&key));
    }

    #[test]
    fn arbitrary_values_do_no_harm(value: Vec<u8>) {
        read_as_everything(&value);
    }

    #[test]
    fn mutated_values_do_no_harm(which: Index, mutations in vec(any_mutation(), 1..6)) {
        let mut value = which.get(&valid_values()).clone();
        for mutation in mutations {
            mutate(&mut value, mutation);
        }
        read_as_everything(&value);
    }

    #[test]
    fn arbitrary_keys_do_no_harm(key: Vec<u8>, rest in "\\PC{0,20}", keyspace in any_keyspace()) {
        let below_kinds = Kind::ALL.map(|kind| format!("{}{rest}", keyspace.watch_prefix(kind)).into_bytes());
        let others = ["cilium/synced/", "cilium/cluster-config/", "landbridge/health/"]
            .map(|prefix| format!("{prefix}{rest}").into_bytes());
        for key in below_kinds.into_iter().chain(others).chain([key]) {
            let _ = keyspace.parse(&key);
            let _ = Canary::parse(&key);
            let _ = cluster_of_config_key(&key);
            if let Ok(parsed) = LandbridgeKey::parse(&key) {
                prop_assert_eq!(parsed.to_string().into_bytes(), key);
            }
        }
    }

    /// Labels in any order are the same set, and it has one text.
    #[test]
    fn labels_have_one_text(labels in any_labels()) {
        let mut parts: Vec<_> = labels.iter().map(|label| format!("{label};")).collect();
        parts.reverse();
        let reversed = parts.concat();
        let text = labels.to_string();
        prop_assert_eq!(text.parse::<Labels>().unwrap(), labels.clone());
        prop_assert_eq!(reversed.parse::<Labels>().unwrap().to_string(), text);
    }
}
