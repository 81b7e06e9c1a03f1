//! What stays while a peer, or this apiserver itself, is gone.

use std::fs;

use crate::cluster::{Cluster, connect, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_ends_is_kept_and_caught_up_with() {
    let (mut paris, mut lyon) = (Cluster::start("paris", 1).await, Cluster::start("lyon", 2).await);
    connect(&mut paris, &mut lyon).await;
    let before = paris.list("cilium/cache/").await;
    lyon.stop().await;
    let peer = eventually("the outage is shown", async || {
        paris.status().await.peers.into_iter().find(|peer| peer.state == "unreachable")
    })
    .await;
    assert!(peer.message.contains("has not answered for"), "{}", peer.message);
    assert_eq!(paris.list("cilium/cache/").await, before);

    // Also over a restart of this side.
    paris.stop().await;
    paris.start_again().await;
    eventually("the outage is known again", async || {
        paris.status().await.peers.into_iter().find(|peer| peer.state == "unreachable")
    })
    .await;
    assert_eq!(paris.list("cilium/cache/").await, before);
    assert_eq!(paris.keys("cilium/synced/lyon/").await.len(), 4);

    fs::remove_file(lyon.manifest("shop.yaml")).unwrap();
    lyon.start_again().await;
    paris.synced("lyon").await;
    eventually("what went meanwhile is gone", async || {
        (!paris.keys("cilium/cache/").await.iter().any(|key| key.contains("/ip/"))).then_some(())
    })
    .await;
    assert_eq!(paris.keys("cilium/cache/nodes/").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pass_mends_what_changed_while_nobody_looked() {
    let (mut paris, mut lyon) = (Cluster::start("paris", 1).await, Cluster::start("lyon", 2).await);
    connect(&mut paris, &mut lyon).await;
    let whole = paris.list("cilium/cache/").await;
    paris.store.put("cilium/cache/ip/v1/lyon/10.2.9.9", "stale", None).await.unwrap();
    paris.store.delete("cilium/cache/nodes/v1/lyon/lyon1").await.unwrap();
    paris.store.put("cilium/cache/ip/v1/lyon/10.2.1.7", "torn", None).await.unwrap();
    // As a removal that was interrupted leaves it.
    paris.store.put("cilium/cluster-config/nice", "{}", None).await.unwrap();
    paris.store.put("cilium/cache/ip/v1/nice/10.3.0.1", "x", None).await.unwrap();
    paris.stop().await;
    paris.start_again().await;
    paris.synced("lyon").await;
    eventually("the copy is whole", async || (paris.list("cilium/cache/").await == whole).then_some(()))
        .await;
    assert_eq!(paris.keys("cilium/cluster-config/").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_whose_store_was_wiped_is_kept_until_it_has_published_again() {
    let (mut paris, mut lyon) = (Cluster::start("paris", 1).await, Cluster::start("lyon", 2).await);
    connect(&mut paris, &mut lyon).await;
    let before = paris.list("cilium/cache/").await;
    lyon.stop().await;
    fs::remove_dir_all(lyon.args.data_dir.join("store")).unwrap();
    let manifests =
        ["node1.yaml", "shop.yaml"].map(|name| (lyon.manifest(name), lyon.args.data_dir.join(name)));
    for (manifest, aside) in &manifests {
        fs::rename(manifest, aside).unwrap();
    }
    lyon.start_again().await;
    lyon.store.put("landbridge/config/readers/paris", "{}", None).await.unwrap();
    let peer = eventually("the peer is not taken for whole", async || {
        let peers = paris.status().await.peers;
        peers.into_iter().find(|peer| matches!(peer.state.as_str(), "connecting" | "syncing"))
    })
    .await;
    assert!(peer.message.starts_with("waiting for it"), "{}", peer.message);
    assert_eq!(paris.list("cilium/cache/").await, before);

    for (manifest, aside) in &manifests {
        fs::rename(aside, manifest).unwrap();
    }
    paris.synced("lyon").await;
    assert_eq!(paris.list("cilium/cache/").await, before);
}
