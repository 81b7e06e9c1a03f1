//! Leases that are kept, and lost.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::proxy::Proxy;
use crate::store::{Kind, Store, client_of};

scenarios! {
    a_kept_lease_outlives_its_time_and_a_dropped_one_does_not,
    a_revoked_lease_takes_its_keys_with_it,
    a_lease_that_others_revoke_is_lost,
    a_lease_that_cannot_be_renewed_is_lost_when_its_time_is_up,
    a_lease_survives_a_restart_of_the_store,
    replace_keeps_the_lease_and_put_detaches_it,
}

const TTL: Duration = Duration::from_secs(2);

async fn until_gone(store: &Store, key: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while store.client().get(key).await.unwrap().is_some() {
        assert!(Instant::now() < deadline, "{key} is still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn a_kept_lease_outlives_its_time_and_a_dropped_one_does_not(kind: Kind) {
    let store = Store::start(kind).await;
    let client = store.client();
    let mut kept = client.keep_lease(TTL).await.unwrap();
    let dropped = client.keep_lease(TTL).await.unwrap();
    assert!(kept.ttl() >= TTL);
    client.put("kept", "", Some(kept.id())).await.unwrap();
    client.put("dropped", "", Some(dropped.id())).await.unwrap();
    drop(dropped);
    until_gone(&store, "dropped").await;
    timeout(TTL, kept.lost()).await.unwrap_err();
    assert_eq!(client.get("kept").await.unwrap().unwrap().lease, kept.id());
}

async fn a_revoked_lease_takes_its_keys_with_it(kind: Kind) {
    let store = Store::start(kind).await;
    let client = store.client();
    let lease = client.keep_lease(Duration::from_mins(1)).await.unwrap();
    client.put("key", "", Some(lease.id())).await.unwrap();
    lease.revoke().await.unwrap();
    assert_eq!(client.get("key").await.unwrap(), None);
}

async fn a_lease_that_others_revoke_is_lost(kind: Kind) {
    let store = Store::start(kind).await;
    let mut lease = store.client().keep_lease(Duration::from_secs(3)).await.unwrap();
    let mut other = etcd_client::Client::connect([store.endpoint()], None).await.unwrap();
    other.lease_revoke(lease.id()).await.unwrap();
    let revoked = Instant::now();
    timeout(Duration::from_secs(20), lease.lost()).await.unwrap();
    assert!(revoked.elapsed() < Duration::from_millis(2500), "the next renewal shows it");
    lease.revoke().await.unwrap();
}

async fn a_lease_that_cannot_be_renewed_is_lost_when_its_time_is_up(kind: Kind) {
    let store = Store::start(kind).await;
    for silent in [false, true] {
        let proxy = Proxy::start(store.address()).await;
        let asked = Instant::now();
        let mut lease = client_of(&[&proxy.endpoint()]).keep_lease(TTL).await.unwrap();
        if silent {
            proxy.silence();
        } else {
            proxy.cut();
        }
        timeout(Duration::from_secs(20), lease.lost()).await.unwrap();
        assert!(asked.elapsed() >= TTL);
    }
}

async fn a_lease_survives_a_restart_of_the_store(kind: Kind) {
    let mut store = Store::start(kind).await;
    let client = store.client();
    let mut lease = client.keep_lease(Duration::from_secs(15)).await.unwrap();
    client.put("key", "", Some(lease.id())).await.unwrap();
    store.kill();
    timeout(Duration::from_millis(300), lease.lost()).await.unwrap_err();
    store.run().await;
    crate::store::until_serving(&store.client()).await;
    timeout(Duration::from_secs(6), lease.lost()).await.unwrap_err();
    assert!(client.get("key").await.unwrap().is_some());
}

async fn replace_keeps_the_lease_and_put_detaches_it(kind: Kind) {
    let store = Store::start(kind).await;
    let client = store.client();
    let lease = client.keep_lease(Duration::from_mins(1)).await.unwrap();
    let revision = client.put("key", "one", Some(lease.id())).await.unwrap();
    assert!(client.replace("key", "two", revision).await.unwrap());
    let replaced = client.get("key").await.unwrap().unwrap();
    assert_eq!((replaced.value.as_ref(), replaced.lease), (&b"two"[..], lease.id()));
    client.put("key", "three", None).await.unwrap();
    assert_eq!(client.get("key").await.unwrap().unwrap().lease, 0);
}
