//! The hub wakes those it has to, and no others.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use landbridge_kvstore_store::{DeleteRequest, PutRequest, Store};

use super::*;

struct Fixture {
    store: Store,
    feed: Arc<ChangeFeed>,
    hub: Arc<Hub>,
}

impl Fixture {
    fn new() -> Self {
        let store = Store::new();
        let feed = Arc::new(ChangeFeed::new(store.revision()));
        let hub = Hub::new(Arc::clone(&feed), 7);
        Self { store, feed, hub }
    }

    fn put(&mut self, key: &str) {
        self.store.put(&PutRequest { key: Bytes::from(key.to_owned()), ..PutRequest::default() }).unwrap();
        self.feed.record(&self.store);
    }

    /// A stream with a watch of all keys that begin with `prefix`.
    fn watch(&self, prefix: &str) -> (Link, Registration) {
        let link = self.hub.link();
        let registration = link.register(0, KeyRange::prefix(prefix.as_bytes()), WatchFilter::default());
        (link, registration)
    }
}

/// Whether a stream was woken since this was asked last.
async fn was_woken(link: &Link) -> bool {
    let mut woken = pin!(link.woken());
    poll_fn(|context| Poll::Ready(woken.as_mut().poll(context).is_ready())).await
}

#[tokio::test]
async fn writes_wake_no_one_whom_they_do_not_concern() {
    let mut fixture = Fixture::new();
    let idle: Vec<_> = (0..2_000).map(|number| fixture.watch(&format!("idle/{number}/"))).collect();
    let (hot, _registration) = fixture.watch("hot/");
    for number in 0..100 {
        fixture.put(&format!("hot/{number}"));
        assert!(fixture.hub.advance());
        assert!(was_woken(&hot).await);
        assert_eq!(hot.take().1.events.len(), 1);
    }
    assert_eq!(fixture.hub.counters().wakes(), 100);
    for (link, _) in &idle {
        assert!(!was_woken(link).await && link.take().1.events.is_empty());
    }
    assert_eq!((fixture.hub.counters().streams(), fixture.hub.counters().watchers()), (2_001, 2_001));
    drop(idle);
    assert_eq!((fixture.hub.counters().streams(), fixture.hub.counters().watchers()), (1, 1));
}

#[tokio::test]
async fn a_stream_that_takes_nothing_is_woken_once_a_turn_and_keeps_little() {
    let mut fixture = Fixture::new();
    let (slow, _registration) = fixture.watch("");
    for number in 0..1_000 {
        fixture.put(&format!("{number}"));
        fixture.hub.advance();
    }
    let (position, taken) = slow.take();
    assert_eq!(position, 1_001);
    assert!(taken.events.is_empty(), "what was too much is in the history");
    assert_eq!(taken.behind.into_iter().collect::<Vec<_>>(), [(0, 2)]);
    assert_eq!(fixture.hub.counters().pending_events(), 0);
    // And goes on from there.
    fixture.put("a");
    fixture.hub.advance();
    assert_eq!(slow.take().1.events.len(), 1);
}

#[tokio::test]
async fn a_filtered_change_wakes_no_one() {
    let mut fixture = Fixture::new();
    let link = fixture.hub.link();
    let filter = WatchFilter { no_put: true, ..WatchFilter::default() };
    let _registration = link.register(0, KeyRange::prefix(b"a"), filter);
    fixture.put("a");
    fixture.hub.advance();
    assert!(!was_woken(&link).await);
    fixture.store.delete(&DeleteRequest { range: KeyRange::prefix(b"a"), prev_kv: false }).unwrap();
    fixture.feed.record(&fixture.store);
    fixture.hub.advance();
    assert!(was_woken(&link).await);
}

#[tokio::test]
async fn a_lost_place_sends_everyone_to_the_history_from_there_on() {
    let mut fixture = Fixture::new();
    let (one, _first) = fixture.watch("a");
    let (other, _second) = fixture.watch("b");
    fixture.put("a");
    fixture.hub.advance();
    fixture.feed.replace(&fixture.store);
    fixture.hub.advance();
    for link in [&one, &other] {
        assert!(was_woken(link).await);
    }
    let (_, taken) = one.take();
    assert_eq!((taken.behind.into_iter().collect::<Vec<_>>(), taken.all_behind), (vec![(0, 2)], Some(3)));
    assert_eq!(other.take().1.all_behind, Some(3));
}

#[tokio::test]
async fn a_stream_is_woken_at_the_revision_that_it_waits_for() {
    let mut fixture = Fixture::new();
    let mut link = fixture.hub.link();
    link.wake_at(3);
    fixture.put("a");
    fixture.hub.advance();
    assert!(!was_woken(&link).await);
    fixture.put("a");
    fixture.hub.advance();
    assert!(was_woken(&link).await);
    link.wake_at(2);
    assert!(was_woken(&link).await, "it is there already");
}
