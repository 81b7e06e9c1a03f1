//! Connecting, mirroring and disconnecting.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use landbridge_apiserver_api::v1::RemovePeerRequest;
use landbridge_kvstore_schema::{ClusterConfig, ClusterName, MaxClusters};
use tonic::Code;

use crate::cluster::{Cluster, connect, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn clusters_that_are_connected_have_each_others_records() {
    let (mut paris, mut lyon) = (Cluster::start("paris", 1).await, Cluster::start("lyon", 2).await);
    connect(&mut paris, &mut lyon).await;

    // Byte for byte, under the keys of the cache.
    let published = lyon.list("cilium/state/").await;
    let copied = paris.list("cilium/cache/").await;
    let mirrored_key = |key: &str| {
        let key = key.replacen("cilium/state/", "cilium/cache/", 1);
        key.replace("ip/v1/default/", "ip/v1/lyon/").replace("identities/v1/", "identities/v1/lyon/")
    };
    let mut expected: Vec<_> =
        published.iter().map(|(key, value)| (mirrored_key(key), value.clone())).collect();
    expected.sort();
    assert_eq!(copied, expected);
    for part in ["/ip/v1/lyon/10.2.1.7", "/nodes/v1/lyon/lyon1", "/services/v1/lyon/shop/cart"] {
        assert!(copied.iter().any(|(key, _)| key.ends_with(part)), "{part} is missing in {copied:?}");
    }

    // What agents look at first, and last.
    let config = paris.store.get("cilium/cluster-config/lyon").await.unwrap().unwrap();
    let name = ClusterName::new("lyon").unwrap();
    let read = ClusterConfig::decode(&name, MaxClusters::Of255, &config.value).unwrap();
    assert_eq!(read.id.get(), 2);
    assert!(read.capabilities.cached && read.capabilities.synced_canaries);
    let canaries = paris.store.list("cilium/synced/lyon/").await.unwrap().key_values;
    let kinds = ["identities", "ip", "nodes", "services"];
    let keys: Vec<_> = canaries.iter().map(|canary| canary.key.clone()).collect();
    assert_eq!(keys, kinds.map(|kind| format!("cilium/synced/lyon/cilium/cache/{kind}/v1")));
    let records = paris.store.list("cilium/cache/").await.unwrap().key_values;
    let latest = records.iter().map(|record| record.create_revision).max().unwrap();
    assert!(config.create_revision < records.iter().map(|record| record.create_revision).min().unwrap());
    assert!(canaries.iter().all(|canary| canary.create_revision > latest));

    // What people see.
    let status = paris.status().await;
    let peer = &status.peers[0];
    assert_eq!((peer.name.as_str(), peer.id, peer.confirmed), ("lyon", 2, true));
    assert_eq!((peer.nodes, peer.addresses, peer.services, peer.refused), (1, 1, 1, 0));
    assert!(peer.certificate_expires > 0 && peer.revision > 0 && peer.mirrored_revision > 0);
    assert_eq!(status.services[0].backends, [("paris".to_owned(), 1), ("lyon".to_owned(), 1)].into());
    assert!(
        status.problems.iter().all(|problem| problem.contains("its agent does not report")),
        "{:?}",
        status.problems
    );

    // Changes follow.
    fs::remove_file(lyon.manifest("shop.yaml")).unwrap();
    eventually("the pod is gone", async || {
        let keys = paris.keys("cilium/cache/").await;
        (!keys.iter().any(|key| key.contains("/ip/") || key.contains("/services/"))).then_some(())
    })
    .await;
    assert_eq!(paris.keys("cilium/cache/nodes/").await, ["cilium/cache/nodes/v1/lyon/lyon1"]);
    paris.stop().await;
    lyon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_peer_leaves_nothing_and_reads_nothing() {
    let (mut paris, mut lyon) = (Cluster::start("paris", 1).await, Cluster::start("lyon", 2).await);
    connect(&mut paris, &mut lyon).await;
    assert!(paris.key_file("lyon").exists());
    let reader = paris.store_as("remote-lyon");
    assert!(reader.list("cilium/state/").await.is_ok());

    let request = RemovePeerRequest { peer: "lyon".to_owned() };
    assert!(paris.admin.remove_peer(request.clone()).await.unwrap().into_inner().removed);
    for prefix in ["cilium/cache/", "cilium/cluster-config/lyon", "cilium/synced/lyon/"] {
        assert_eq!(paris.keys(prefix).await, Vec::<String>::new());
    }
    let config = paris.keys("landbridge/config/").await;
    assert!(!config.iter().any(|key| key.contains("lyon")), "{config:?}");
    assert!(!paris.key_file("lyon").exists());
    assert!(!paris.admin.remove_peer(request).await.unwrap().into_inner().removed, "it was removed before");
    assert!(paris.status().await.peers.is_empty());

    // The certificate is still valid, but there is no such user any more.
    eventually("the former reader is denied", async || reader.list("cilium/state/").await.err()).await;
    let lyons = lyon.status().await;
    assert_eq!(lyons.peers.len(), 1, "the other side is asked separately");
    eventually("the other side says so", async || {
        lyon.status().await.peers.into_iter().find(|peer| peer.state == "unreachable")
    })
    .await;
    assert!(!lyon.keys("cilium/cache/").await.is_empty(), "what is there stays until somebody removes it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_confirmed_goes_at_its_deadline() {
    let (mut paris, mut lyon) = (Cluster::start("paris", 1).await, Cluster::start("lyon", 2).await);
    paris.add(&mut lyon, 2).await.unwrap();
    eventually("its records are read already", async || {
        (!paris.keys("cilium/cache/").await.is_empty()).then_some(())
    })
    .await;
    let peers = "landbridge/config/peers/";
    eventually("the peer is gone", async || paris.keys(peers).await.is_empty().then_some(())).await;
    eventually("so is what it told us", async || {
        (paris.keys("cilium/cache/").await.is_empty() && paris.keys("cilium/synced/lyon/").await.is_empty())
            .then_some(())
    })
    .await;
    assert!(!paris.key_file("lyon").exists());
    assert_eq!(paris.confirm("lyon").await, Err(Code::NotFound));

    // A reader has a deadline as well.
    let key = "landbridge/config/readers/paris";
    let record = String::from_utf8(lyon.list(key).await[0].1.clone()).unwrap();
    assert!(record.contains("\"unconfirmedUntil\":1"), "{record}");
    lyon.store.put(key, r#"{"unconfirmedUntil":1}"#, None).await.unwrap();
    eventually("the reader is gone", async || lyon.keys(key).await.is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_stays_for_as_long_as_its_side_may_still_be_confirmed() {
    let (mut paris, mut lyon) = (Cluster::start("paris", 1).await, Cluster::start("lyon", 2).await);
    paris.certificate_from(&mut lyon).await;
    lyon.add(&mut paris, 1800).await.unwrap();
    let deadline = async |key: &str| {
        let record: serde_json::Value = serde_json::from_slice(&lyon.list(key).await[0].1).unwrap();
        record["unconfirmedUntil"].as_i64().unwrap()
    };
    let (reader, peer) =
        (deadline("landbridge/config/readers/paris").await, deadline("landbridge/config/peers/paris").await);
    assert_eq!(reader, peer, "both are confirmed by one call");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_peer_whose_record_cannot_be_read_stay() {
    let (mut paris, mut lyon) = (Cluster::start("paris", 1).await, Cluster::start("lyon", 2).await);
    connect(&mut paris, &mut lyon).await;
    paris.store.put("landbridge/config/peers/lyon", "of a newer version", None).await.unwrap();
    eventually("it is said", async || {
        paris
            .status()
            .await
            .problems
            .into_iter()
            .find(|problem| problem.contains("peers/lyon cannot be read"))
    })
    .await;
    let peers = paris.args.data_dir.join("peers");
    let long_ago = SystemTime::now() - Duration::from_hours(2);
    let make_old = |name: &str| File::open(peers.join(name)).unwrap().set_modified(long_ago).unwrap();
    make_old("lyon");
    // The second one goes after the first sweep has ended.
    for name in ["nice", "nancy"] {
        fs::create_dir(peers.join(name)).unwrap();
        make_old(name);
        eventually("abandoned keys go", async || (!peers.join(name).exists()).then_some(())).await;
    }
    assert!(paris.key_file("lyon").exists());
}
