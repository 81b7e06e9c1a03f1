//! Keys that are kept, whatever becomes of their lease, their store and themselves.

use std::time::Duration;

use landbridge_kvstore_client::{KeptKeys, KvClient};
use tokio::time::timeout;

use crate::proxy::Proxy;
use crate::store::{Kind, Store, client_of, until_serving};
use crate::view::View;

scenarios! {
    kept_keys_have_one_lease_and_follow_what_is_set,
    kept_keys_come_back_when_their_lease_is_revoked,
    kept_keys_come_back_when_anybody_deletes_or_changes_them,
    kept_keys_come_back_after_an_outage_longer_than_their_lease,
    kept_keys_come_to_a_store_that_takes_the_place_of_theirs,
    keys_that_are_no_longer_kept_expire,
}

const TTL: Duration = Duration::from_secs(2);

async fn kept(keys: &mut KeptKeys) {
    timeout(Duration::from_mins(1), keys.kept()).await.expect("the keys are kept in the end");
}

/// Names without the prefix, values and leases.
async fn found(client: &KvClient) -> Vec<(String, String, i64)> {
    let found = client.list("k/").await.unwrap().key_values.into_iter();
    let text = |bytes: &[u8]| str::from_utf8(bytes).unwrap().to_owned();
    found.map(|kv| (kv.key.trim_start_matches("k/").to_owned(), text(&kv.value), kv.lease)).collect()
}

fn names_and_values(found: &[(String, String, i64)]) -> Vec<(&str, &str)> {
    found.iter().map(|(name, value, _)| (name.as_str(), value.as_str())).collect()
}

async fn kept_keys_have_one_lease_and_follow_what_is_set(kind: Kind) {
    let store = Store::start(kind).await;
    let client = store.client();
    client.put("k/other", "not ours", None).await.unwrap();
    let mut keys = client.keep_keys("k/", Duration::from_mins(1));
    // More than one transaction takes.
    (0..300).for_each(|n| keys.set(&format!("{n:03}"), n.to_string()));
    kept(&mut keys).await;
    let all = found(&client).await;
    let lease = all[0].2;
    assert!(all.len() == 301 && lease != 0 && all[..300].iter().all(|(.., of)| *of == lease), "{all:?}");
    assert_eq!(all[300], ("other".to_owned(), "not ours".to_owned(), 0));

    (1..300).for_each(|n| keys.remove(&format!("{n:03}")));
    keys.set("000", "changed");
    kept(&mut keys).await;
    let left = found(&client).await;
    assert_eq!(names_and_values(&left), [("000", "changed"), ("other", "not ours")]);
    assert_eq!(left[0].2, lease);
    // What is as it should be is not written again.
    let revision = client.probe().await.unwrap().revision;
    keys.set("000", "changed");
    kept(&mut keys).await;
    assert_eq!(client.probe().await.unwrap().revision, revision);

    keys.withdraw().await.unwrap();
    assert_eq!(names_and_values(&found(&client).await), [("other", "not ours")]);
}

async fn kept_keys_come_back_when_their_lease_is_revoked(kind: Kind) {
    let store = Store::start(kind).await;
    let client = store.client();
    let mut keys = client.keep_keys("k/", TTL);
    keys.set("a", "1");
    keys.set("b", "2");
    kept(&mut keys).await;
    let mut view = View::of(client.feed("k/"));
    view.until("the list", |view| view.synced == 1 && view.keys.len() == 2).await;
    let lease = view.keys["k/a"].lease;
    let mut other = etcd_client::Client::connect([store.endpoint()], None).await.unwrap();
    other.lease_revoke(lease).await.unwrap();
    view.until("the end", |view| view.deletes.len() == 2).await;
    view.until("the keys", |view| view.keys.len() == 2).await;
    assert_eq!(view.values(), [("k/a", "1"), ("k/b", "2")]);
    assert!(view.keys.values().all(|kv| kv.lease != lease && kv.lease != 0), "{:?}", view.keys);
}

async fn kept_keys_come_back_when_anybody_deletes_or_changes_them(kind: Kind) {
    let store = Store::start(kind).await;
    let client = store.client();
    let mut keys = client.keep_keys("k/", Duration::from_mins(1));
    keys.set("a", "1");
    keys.set("b", "2");
    kept(&mut keys).await;
    let before = found(&client).await;
    let mut view = View::of(client.feed("k/"));
    view.until("the list", |view| view.synced == 1 && view.keys.len() == 2).await;
    client.delete("k/a").await.unwrap();
    client.put("k/b", "theirs", None).await.unwrap();
    view.until("what others did", |view| {
        view.deletes == ["k/a"] && view.keys.get("k/b").is_some_and(|kv| kv.value == "theirs")
    })
    .await;
    view.until("the repair", |view| view.values() == [("k/a", "1"), ("k/b", "2")]).await;
    assert_eq!(found(&client).await, before);
}

async fn kept_keys_come_back_after_an_outage_longer_than_their_lease(kind: Kind) {
    let store = Store::start(kind).await;
    let proxy = Proxy::start(store.address()).await;
    let client = store.client();
    let mut keys = client_of(&[&proxy.endpoint()]).keep_keys("k/", TTL);
    keys.set("a", "1");
    kept(&mut keys).await;
    let mut view = View::of(client.feed("k/"));
    view.until("the list", |view| view.keys.len() == 1).await;
    proxy.cut();
    view.until("the end of the lease", |view| view.deletes == ["k/a"]).await;
    keys.set("b", "2");
    proxy.restore();
    view.until("the keys", |view| view.values() == [("k/a", "1"), ("k/b", "2")]).await;
    kept(&mut keys).await;
}

async fn kept_keys_come_to_a_store_that_takes_the_place_of_theirs(kind: Kind) {
    let mut store = Store::start(kind).await;
    let mut keys = store.client().keep_keys("k/", TTL);
    keys.set("a", "1");
    kept(&mut keys).await;
    store.replace("second").await;
    let client = store.client();
    until_serving(&client).await;
    let mut view = View::of(client.feed("k/"));
    view.until("the key", |view| view.values() == [("k/a", "1")]).await;
    assert_ne!(view.keys["k/a"].lease, 0);
}

async fn keys_that_are_no_longer_kept_expire(kind: Kind) {
    let store = Store::start(kind).await;
    let client = store.client();
    let mut keys = client.keep_keys("k/", TTL);
    keys.set("a", "1");
    kept(&mut keys).await;
    let mut view = View::of(client.feed("k/"));
    view.until("the list", |view| view.keys.len() == 1).await;
    drop(keys);
    view.until("the end", |view| view.keys.is_empty()).await;
}
