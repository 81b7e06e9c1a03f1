//! A receiver of a feed.

use std::collections::BTreeMap;
use std::time::Duration;

use landbridge_kvstore_client::{Feed, FeedEvent, KeyValue};
use tokio::time::timeout;

/// What a feed told, folded, and how.
pub(crate) struct View {
    feed: Feed,
    pub(crate) keys: BTreeMap<String, KeyValue>,
    /// Key and revision of each upsert, in order.
    pub(crate) upserts: Vec<(String, i64)>,
    pub(crate) deletes: Vec<String>,
    pub(crate) synced: u32,
    pub(crate) lost: u32,
    pub(crate) progress: i64,
}

impl View {
    pub(crate) fn of(feed: Feed) -> Self {
        let (keys, upserts, deletes) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { feed, keys, upserts, deletes, synced: 0, lost: 0, progress: 0 }
    }

    /// Reads on until `done`, or fails.
    pub(crate) async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let event = timeout(Duration::from_mins(1), self.feed.next()).await;
            let event = event.unwrap_or_else(|_| panic!("{what} does not come, but {:?}", self.summary()));
            match event.expect("a feed goes on") {
                FeedEvent::Upsert(kv) => {
                    self.upserts.push((kv.key.clone(), kv.mod_revision));
                    self.keys.insert(kv.key.clone(), kv);
                }
                FeedEvent::Delete { key, .. } => {
                    assert!(self.keys.remove(&key).is_some(), "{key} was never told of");
                    self.deletes.push(key);
                }
                FeedEvent::Synced { .. } => self.synced += 1,
                FeedEvent::Progress { revision } => self.progress = revision,
                FeedEvent::Lost { .. } => self.lost += 1,
            }
        }
    }

    /// Keys with their values.
    pub(crate) fn values(&self) -> Vec<(&str, &str)> {
        self.keys.values().map(|kv| (kv.key.as_str(), str::from_utf8(&kv.value).unwrap())).collect()
    }

    fn summary(&self) -> (usize, u32, u32, i64) {
        (self.keys.len(), self.synced, self.lost, self.progress)
    }
}
