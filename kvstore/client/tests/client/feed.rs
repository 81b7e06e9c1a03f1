//! List then watch.

use std::time::Duration;

use landbridge_kvstore_client::{FeedEvent, KvClient, Write};

use crate::proxy::Proxy;
use crate::store::{Kind, Store, client_of, until_serving};
use crate::view::View;

scenarios! {
    what_was_there_comes_before_synced_and_changes_after_it,
    a_quiet_feed_shows_progress,
    a_feed_shows_progress_as_often_as_it_is_asked_to,
    a_killed_store_that_comes_back_is_resumed_without_a_list,
    a_compaction_during_an_outage_lists_again_and_deletes_what_vanished,
    another_cluster_at_the_endpoint_replaces_everything,
    an_emptied_store_of_the_same_cluster_replaces_everything,
    a_feed_goes_on_over_another_endpoint,
    a_silent_connection_is_given_up,
    a_receiver_that_rests_misses_nothing,
    a_receiver_that_rests_holds_a_bounded_part_of_what_comes,
    a_store_that_is_not_there_yet_is_lost_once_and_found_later,
}

async fn fill(client: &KvClient, keys: std::ops::Range<u32>) {
    let put = |n: u32| Write::Put { key: format!("k/{n:04}"), value: n.to_string().into_bytes() };
    client.apply(keys.map(put).collect()).await.unwrap();
}

async fn what_was_there_comes_before_synced_and_changes_after_it(kind: Kind) {
    let store = Store::start(kind).await;
    let client = store.client();
    fill(&client, 0..1201).await;
    client.put("other", "not asked for", None).await.unwrap();
    let mut view = View::of(client.feed("k/"));
    view.until("the list", |view| view.synced == 1).await;
    assert_eq!((view.keys.len(), view.upserts.len()), (1201, 1201));
    client.put("k/0007", "changed", None).await.unwrap();
    client.put("k/empty", "", None).await.unwrap();
    client.delete("k/0008").await.unwrap();
    client.put("other", "still not", None).await.unwrap();
    let last = client.put("k/last", "", None).await.unwrap();
    view.until("the last write", |view| view.keys.contains_key("k/last")).await;
    assert_eq!(view.keys["k/0007"].value, "changed");
    assert_eq!((view.keys["k/empty"].value.len(), view.keys["k/last"].mod_revision), (0, last));
    assert_eq!((view.deletes.as_slice(), view.synced, view.lost), (&["k/0008".to_owned()][..], 1, 0));
    let listing = client.list("k/").await.unwrap();
    assert_eq!(listing.key_values, view.keys.into_values().collect::<Vec<_>>());
}

async fn a_quiet_feed_shows_progress(kind: Kind) {
    let store = Store::start(kind).await;
    let client = store.client();
    let mut view = View::of(client.feed("k/"));
    view.until("the list", |view| view.synced == 1).await;
    let other = client.put("other", "", None).await.unwrap();
    view.until("progress", |view| view.progress >= other).await;
}

async fn a_feed_shows_progress_as_often_as_it_is_asked_to(kind: Kind) {
    let store = Store::start(kind).await;
    let client = store.client();
    let mut view = View::of(client.feed_with_progress("k/", Duration::from_millis(100)));
    let rounds = async {
        for _ in 0..3 {
            let other = client.put("other", "", None).await.unwrap();
            view.until("progress", |view| view.progress >= other).await;
        }
    };
    // Each takes 15 seconds otherwise.
    tokio::time::timeout(Duration::from_secs(44), rounds).await.unwrap();
}

async fn a_killed_store_that_comes_back_is_resumed_without_a_list(kind: Kind) {
    let mut store = Store::start(kind).await;
    let client = store.client();
    fill(&client, 0..5).await;
    let mut view = View::of(client.feed("k/"));
    view.until("the list", |view| view.synced == 1).await;
    for round in 0..3_u32 {
        client.put("k/round", round.to_string(), None).await.unwrap();
        store.kill();
        view.until("the loss", |view| view.lost == round + 1).await;
        store.run().await;
        let writer = store.client();
        until_serving(&writer).await;
        fill(&writer, 100 * (round + 1)..100 * (round + 1) + 50).await;
        let last = writer.put("k/last", round.to_string(), None).await.unwrap();
        view.until("the last write", |view| {
            view.keys.get("k/last").is_some_and(|kv| kv.mod_revision == last)
        })
        .await;
    }
    assert_eq!((view.synced, view.deletes.len()), (1, 0));
    let told = view.upserts.len();
    view.upserts.sort();
    view.upserts.dedup();
    assert_eq!((told, view.upserts.len()), (5 + 3 * (1 + 50 + 1), told), "each change is told once");
}

async fn a_compaction_during_an_outage_lists_again_and_deletes_what_vanished(kind: Kind) {
    let store = Store::start(kind).await;
    let proxy = Proxy::start(store.address()).await;
    let writer = store.client();
    fill(&writer, 0..600).await;
    let mut view = View::of(client_of(&[&proxy.endpoint()]).feed("k/"));
    view.until("the list", |view| view.synced == 1).await;
    proxy.cut();
    view.until("the loss", |view| view.lost == 1).await;
    writer.delete("k/0003").await.unwrap();
    writer.put("k/0004", "changed", None).await.unwrap();
    let revision = writer.put("k/new", "", None).await.unwrap();
    store.compact(revision).await;
    proxy.restore();
    view.until("the second list", |view| view.synced == 2).await;
    assert_eq!(view.deletes, ["k/0003"]);
    assert_eq!(view.upserts.len(), 600 + 2, "only what changed is told again");
    writer.put("k/new", "later", None).await.unwrap();
    view.until("the next change", |view| view.keys["k/new"].value == "later").await;
    assert_eq!(view.lost, 1);
    let listing = writer.list("k/").await.unwrap();
    assert_eq!(listing.key_values, view.keys.into_values().collect::<Vec<_>>());
}

async fn another_cluster_at_the_endpoint_replaces_everything(kind: Kind) {
    replaced(kind, "second", 20).await;
}

async fn an_emptied_store_of_the_same_cluster_replaces_everything(kind: Kind) {
    replaced(kind, "first", 1).await;
}

async fn replaced(kind: Kind, token: &str, keys_after: u32) {
    let mut store = Store::start(kind).await;
    // It looks at a store that is filled already.
    let proxy = Proxy::start(store.address()).await;
    let client = store.client();
    for n in 0..3 {
        client.put(&format!("k/{n:04}"), "old", None).await.unwrap();
    }
    let mut view = View::of(client_of(&[&proxy.endpoint()]).feed("k/"));
    view.until("the list", |view| view.synced == 1).await;
    proxy.cut();
    store.replace(token).await;
    until_serving(&client).await;
    for n in 1..=keys_after {
        client.put(&format!("k/{n:04}"), "new", None).await.unwrap();
    }
    proxy.restore();
    view.until("the second list", |view| view.synced == 2).await;
    assert_eq!(view.keys.len(), usize::try_from(keys_after).unwrap());
    assert!(view.values().iter().all(|(_, value)| *value == "new"), "{:?}", view.values());
    client.put("k/last", "", None).await.unwrap();
    view.until("the next change", |view| view.keys.contains_key("k/last")).await;
}

async fn a_feed_goes_on_over_another_endpoint(kind: Kind) {
    let store = Store::start(kind).await;
    let proxies = [Proxy::start(store.address()).await, Proxy::start(store.address()).await];
    let writer = store.client();
    let mut view = View::of(client_of(&[&proxies[0].endpoint(), &proxies[1].endpoint()]).feed("k/"));
    view.until("the list", |view| view.synced == 1).await;
    for (round, proxy) in [0_u32, 1].into_iter().zip(&proxies) {
        proxy.cut();
        writer.put("k/round", round.to_string(), None).await.unwrap();
        view.until("the write", |view| view.values() == [("k/round", round.to_string().as_str())]).await;
        proxy.restore();
    }
    assert_eq!(view.synced, 1);
    assert!(view.lost > 0, "one of the two was in use");
}

/// Takes the ten seconds that an answer is waited for.
async fn a_silent_connection_is_given_up(kind: Kind) {
    let store = Store::start(kind).await;
    let proxy = Proxy::start(store.address()).await;
    let mut view = View::of(client_of(&[&proxy.endpoint()]).feed("k/"));
    view.until("the list", |view| view.synced == 1).await;
    proxy.silence();
    view.until("the loss", |view| view.lost == 1).await;
    proxy.restore();
    store.client().put("k/a", "", None).await.unwrap();
    view.until("the write", |view| view.keys.contains_key("k/a")).await;
    assert_eq!(view.synced, 1);
}

async fn a_receiver_that_rests_misses_nothing(kind: Kind) {
    let store = Store::start(kind).await;
    let client = store.client();
    let mut view = View::of(client.feed("k/"));
    view.until("the list", |view| view.synced == 1).await;
    // Far more than the queue holds, and read only afterwards.
    for _ in 0..3 {
        fill(&client, 0..1500).await;
    }
    view.until("all of it", |view| view.upserts.len() == 4500).await;
    assert_eq!((view.keys.len(), view.synced, view.lost), (1500, 1, 0));
    assert!(view.upserts.is_sorted_by_key(|(_, revision)| *revision));
}

async fn a_receiver_that_rests_holds_a_bounded_part_of_what_comes(kind: Kind) {
    /// Much more than the queue, the windows of HTTP/2 and the kernel's buffers take.
    const ROUNDS: usize = 150;
    const KEYS: usize = 30;
    const VALUE_BYTES: usize = 8 << 10;
    let store = Store::start(kind).await;
    let proxy = Proxy::start(store.address()).await;
    let client = store.client();
    let mut rests = View::of(client_of(&[&proxy.endpoint()]).feed("k/"));
    rests.until("the list", |view| view.synced == 1).await;
    let mut reads = View::of(client.feed("k/"));
    for _ in 0..ROUNDS {
        let put = |n| Write::Put { key: format!("k/{n}"), value: vec![b'v'; VALUE_BYTES] };
        client.apply((0..KEYS).map(put).collect()).await.unwrap();
    }
    let last = client.put("k/last", "", None).await.unwrap();
    reads.until("all of it", |view| view.keys.contains_key("k/last")).await;
    let (passed, all) = (proxy.passed(), ROUNDS * KEYS * VALUE_BYTES);
    assert!(passed < all / 2, "{passed} of {all} bytes were taken from the store");
    rests.until("all of it", |view| view.upserts.len() == ROUNDS * KEYS + 1).await;
    assert_eq!((rests.keys["k/last"].mod_revision, rests.synced, rests.lost), (last, 1, 0));
}

async fn a_store_that_is_not_there_yet_is_lost_once_and_found_later(kind: Kind) {
    let mut store = Store::start(kind).await;
    store.kill();
    let mut feed = store.client().feed("k/");
    let event = feed.next().await.unwrap();
    let FeedEvent::Lost { error } = event else { panic!("{event:?}") };
    assert!(error.to_string().contains(store.endpoint()), "{error}");
    store.run().await;
    let mut view = View::of(feed);
    view.until("the list", |view| view.synced == 1).await;
    assert_eq!(view.lost, 0, "an outage is told of once");
}
