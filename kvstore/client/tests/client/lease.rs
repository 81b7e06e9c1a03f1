//! Leases that are kept, and lost.

use std::time::{Duration, Instant};

use landbridge_kvstore_client::{Creation, Fence, Write};
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
    a_fenced_write_counts_only_while_its_lock_is_held,
}

const TTL: Duration = Duration::from_secs(10);

async fn until_gone(store: &Store, key: &str) {
    let deadline = Instant::now() + Duration::from_mins(1);
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
    let mut lease = store.client().keep_lease(Duration::from_secs(15)).await.unwrap();
    let mut other = etcd_client::Client::connect([store.endpoint()], None).await.unwrap();
    other.lease_revoke(lease.id()).await.unwrap();
    let next_renewal_shows_it = timeout(Duration::from_secs(14), lease.lost());
    next_renewal_shows_it.await.unwrap();
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
        timeout(Duration::from_mins(1), lease.lost()).await.unwrap();
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

async fn a_fenced_write_counts_only_while_its_lock_is_held(kind: Kind) {
    let store = Store::start(kind).await;
    let client = store.client();
    let take = async |lease: i64| match client.create("lock", "holder", Some(lease)).await.unwrap() {
        Creation::Created { revision } => Fence { key: "lock".to_owned(), create_revision: revision },
        Creation::Exists(holder) => panic!("{holder:?}"),
    };
    // More than one transaction takes.
    let writes = |value: &str| -> Vec<Write> {
        let put = |n| Write::Put { key: format!("k/{n:03}"), value: value.into() };
        (0..300).map(put).collect()
    };
    let first = client.keep_lease(Duration::from_mins(1)).await.unwrap();
    let fence = take(first.id()).await;
    let revision = client.apply_fenced(&fence, writes("first")).await.unwrap().unwrap();
    assert_eq!(revision, fence.create_revision + 3);
    assert_eq!(client.apply_fenced(&fence, Vec::new()).await.unwrap(), Some(revision));

    // Its time is up, which it does not know.
    first.revoke().await.unwrap();
    assert_eq!(client.apply_fenced(&fence, writes("late")).await.unwrap(), None);
    assert_eq!(client.apply_fenced(&fence, Vec::new()).await.unwrap(), None);
    let second = client.keep_lease(Duration::from_mins(1)).await.unwrap();
    let other = take(second.id()).await;
    assert!(other.create_revision > fence.create_revision);
    assert_eq!(client.apply_fenced(&fence, writes("late")).await.unwrap(), None);
    assert!(client.list("k/").await.unwrap().key_values.iter().all(|kv| kv.value == "first"));

    // Whoever holds it may write to it, too, without losing it.
    let renamed = vec![Write::Put { key: "lock".to_owned(), value: b"me".to_vec() }];
    client.apply_fenced(&other, renamed).await.unwrap().unwrap();
    client.apply_fenced(&other, writes("second")).await.unwrap().unwrap();

    // Given away by the second of three transactions: the third is not applied.
    let mut handed_over = writes("third");
    handed_over.insert(128, Write::Delete { key: "lock".to_owned() });
    handed_over.insert(129, Write::Put { key: "k/000".to_owned(), value: b"again".to_vec() });
    assert_eq!(client.apply_fenced(&other, handed_over).await.unwrap(), None);
    let values = client.list("k/").await.unwrap().key_values;
    let of = |n: usize| &values[n].value[..];
    assert_eq!((of(0), of(127), of(299)), (&b"again"[..], &b"third"[..], &b"second"[..]));
}
