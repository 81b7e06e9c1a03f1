use std::time::{Duration, SystemTime};

use landbridge_apiserver_api::v1::DescribeClusterResponse;

use landbridge_kvstore_schema::MaxClusters;
use proptest::prelude::*;

use super::description::MAX_ITEMS;
use super::*;
use crate::pki::Pki;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000)
}

fn cluster(name: &str) -> ClusterName {
    ClusterName::new(name).unwrap()
}

fn ca(name: &str) -> Certificate {
    let folder = tempfile::tempdir().unwrap();
    Pki::open(folder.path(), &cluster(name), now()).unwrap().ca().clone()
}

fn said(name: &str, id: u32, ca: &Certificate, ranges: &[&str], nodes: &[&str]) -> DescribeClusterResponse {
    DescribeClusterResponse {
        name: name.to_owned(),
        id,
        max_clusters: 255,
        store_endpoints: vec!["https://192.0.2.1:2379".to_owned()],
        ca_certificate: ca.pem().to_owned(),
        ca_fingerprint: ca.fingerprint(),
        pod_ranges: ranges.iter().map(ToString::to_string).collect(),
        node_addresses: nodes.iter().map(ToString::to_string).collect(),
        ..DescribeClusterResponse::default()
    }
}

fn addresses(pods: &[&str], services: &[&str], nodes: &[&str]) -> Addresses {
    let ranges = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Addresses {
        pod_ranges: ranges(pods),
        service_ranges: ranges(services),
        nodes: nodes.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

fn paris(ca: &Certificate) -> OwnSide {
    OwnSide {
        name: cluster("paris"),
        id: ClusterId::new(1, MaxClusters::Of255).unwrap(),
        ca_fingerprint: ca.fingerprint(),
        addresses: addresses(&["10.1.0.0/16"], &["10.96.0.0/16"], &["172.30.1.1"]),
    }
}

/// A peer that paris has already.
fn nice(ca: &Certificate) -> (ClusterName, Peer) {
    let peer = Peer {
        id: 3,
        endpoints: vec!["https://192.0.2.3:2379".to_owned()],
        ca_certificate: ca.pem().to_owned(),
        pod_ranges: vec!["10.3.0.0/16".parse().unwrap()],
        node_addresses: vec!["172.30.3.1".parse().unwrap()],
        unconfirmed_until: None,
    };
    (cluster("nice"), peer)
}

#[test]
fn clusters_that_share_nothing_go_together() {
    let (own, nices, lyons) = (ca("paris"), ca("nice"), ca("lyon"));
    let peers = BTreeMap::from([nice(&nices)]);
    let lyon = said("lyon", 2, &lyons, &["10.2.0.0/16", "fd00:2::/48"], &["172.30.2.1", "172.30.2.2"]);
    let lyon = Description::read(&lyon, now()).unwrap();
    assert_eq!(conflicts(&paris(&own), &peers, &lyon), []);
    // The same one may come again, and nodes of the mesh have service ranges of their own.
    let again = said("nice", 3, &nices, &["10.3.0.0/16", "10.33.0.0/16"], &["172.30.3.1", "172.30.3.2"]);
    assert_eq!(conflicts(&paris(&own), &peers, &Description::read(&again, now()).unwrap()), []);
}

#[test]
fn everything_that_stands_against_a_peer_is_named() {
    let (own, nices, lyons) = (ca("paris"), ca("nice"), ca("lyon"));
    let peers = BTreeMap::from([nice(&nices)]);
    let found = |said: DescribeClusterResponse| {
        let found = conflicts(&paris(&own), &peers, &Description::read(&said, now()).unwrap());
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let only = |said: DescribeClusterResponse, expected: &str| {
        let found = found(said);
        assert!(found.len() == 1 && found[0].contains(expected), "{found:?} should say {expected:?}");
    };
    let lyon = |ranges: &[&str], nodes: &[&str]| said("lyon", 2, &lyons, ranges, nodes);
    only(said("paris", 2, &lyons, &["10.2.0.0/16"], &[]), "both clusters are named paris");
    only(said("lyon", 1, &lyons, &["10.2.0.0/16"], &[]), "lyon has id 1, as has paris");
    only(said("lyon", 3, &lyons, &["10.2.0.0/16"], &[]), "lyon has id 3, as has nice");
    only(said("lyon", 256, &lyons, &["10.2.0.0/16"], &[]), "id 256, which is not in 1..=255");
    only(said("nice", 4, &nices, &["10.3.0.0/16"], &[]), "nice is connected with id 3 and now has 4");
    only(said("lyon", 2, &own, &["10.2.0.0/16"], &[]), "lyon has the same CA as paris");
    only(said("nice", 3, &lyons, &["10.3.0.0/16"], &[]), "another CA certificate");
    only(
        DescribeClusterResponse { max_clusters: 511, ..lyon(&["10.2.0.0/16"], &[]) },
        "lyon is made for 511 clusters and paris for 255",
    );
    only(lyon(&["10.1.128.0/17"], &[]), "10.1.128.0/17 of cluster lyon overlaps 10.1.0.0/16 of paris");
    only(lyon(&["10.96.0.0/12"], &[]), "10.96.0.0/12 of cluster lyon overlaps 10.96.0.0/16 of paris");
    only(lyon(&["172.30.1.0/24"], &[]), "172.30.1.0/24 of cluster lyon overlaps 172.30.1.1/32 of paris");
    only(lyon(&["10.3.7.0/24"], &[]), "10.3.7.0/24 of cluster lyon overlaps 10.3.0.0/16 of nice");
    only(lyon(&["10.2.0.0/16"], &["172.30.1.1"]), "172.30.1.1 of cluster lyon is in 172.30.1.1/32 of paris");
    only(lyon(&["10.2.0.0/16"], &["10.1.0.9"]), "10.1.0.9 of cluster lyon is in 10.1.0.0/16 of paris");
    only(lyon(&["10.2.0.0/16"], &["172.30.3.1"]), "172.30.3.1 of cluster lyon is in 172.30.3.1/32 of nice");
    only(lyon(&["10.2.0.0/16"], &["10.2.0.9"]), "overlap each other or its nodes");
    only(lyon(&["10.2.0.0/16", "10.2.3.0/24"], &[]), "overlap each other or its nodes");
    // All at once, not one after the other.
    assert_eq!(found(said("lyon", 1, &own, &["10.1.0.0/16"], &["172.30.1.1"])).len(), 4);
}

#[test]
fn descriptions_that_no_cluster_can_have_are_refused() {
    let ca = ca("lyon");
    let refused = |change: fn(&mut DescribeClusterResponse), expected: &str| {
        let mut said = said("lyon", 2, &ca, &["10.2.0.0/16"], &["172.30.2.1"]);
        change(&mut said);
        let error = Description::read(&said, now()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error} should say {expected:?}");
    };
    refused(|said| said.name = "Lyon".to_owned(), "name holds \"Lyon\"");
    refused(|said| said.store_endpoints.clear(), "names no store_endpoints");
    refused(
        |said| said.store_endpoints = vec!["http://192.0.2.1:2379".to_owned()],
        "store_endpoints holds \"http://",
    );
    refused(|said| said.pod_ranges.clear(), "names no pod_ranges");
    for range in ["10.2.0.0", "10.2.0.1/16", "127.0.0.0/8", "0.0.0.0/0", "224.0.0.0/8", "::/0", "x"] {
        let mut said = said("lyon", 2, &ca, &[range], &[]);
        assert!(Description::read(&said, now()).is_err(), "{range}");
        said.pod_ranges = vec!["10.2.0.0/16".to_owned(); MAX_ITEMS + 1];
        assert!(Description::read(&said, now()).is_err());
    }
    refused(|said| said.node_addresses = vec!["127.0.0.1".to_owned()], "node_addresses holds \"127.0.0.1\"");
    refused(|said| said.node_addresses = vec!["::ffff:127.0.0.1".to_owned()], "node_addresses");
    refused(|said| said.ca_certificate = "none".to_owned(), "CA certificate of cluster lyon cannot be used");
    refused(|said| said.ca_fingerprint = "00".to_owned(), "not 00; somebody changed one of them");
    let late = now() + Duration::from_hours(20 * 365 * 24);
    let said = said("lyon", 2, &ca, &["10.2.0.0/16"], &[]);
    assert!(Description::read(&said, late).unwrap_err().to_string().contains("ended"));
}

proptest! {
    /// Two ranges overlap exactly if one of them holds an address of the other, whichever comes first.
    #[test]
    fn overlap_is_symmetric(a in any::<u32>(), a_len in 8u8..=32, b in any::<u32>(), b_len in 8u8..=32) {
        use landbridge_kvstore_schema::Prefix;
        let range = |bits: u32, len| IpPrefix::V4(Prefix::containing(bits.into(), len).unwrap());
        // Often close to each other.
        let (a, b) = (range(a, a_len), range(if b % 2 == 0 { a ^ (b % 65_536) } else { b }, b_len));
        prop_assert_eq!(overlap(&a, &b), overlap(&b, &a));
        let shorter = if a.len() < b.len() { a } else { b };
        let longer = if a.len() < b.len() { b } else { a };
        prop_assert_eq!(overlap(&a, &b), super::super::addresses::within(&longer, &shorter));
    }
}
