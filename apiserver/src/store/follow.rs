//! Records of the own store, held in memory as they are now.

use std::collections::BTreeMap;
use std::sync::Arc;

use landbridge_kvstore_client::{FeedEvent, KeyValue, KvClient};
use tokio::sync::watch;
use tracing::warn;

/// What a prefix holds, as last seen.
#[derive(Debug)]
pub struct Records<K, T> {
    /// The records that can be read.
    pub records: BTreeMap<K, T>,
    /// The others: why, by key.
    pub unreadable: BTreeMap<String, String>,
}

/// The latest view of a prefix; `None` until it was read once.
pub type View<K, T> = watch::Receiver<Option<Arc<Records<K, T>>>>;

/// The writing end of a [`View`].
pub(super) type Views<K, T> = watch::Sender<Option<Arc<Records<K, T>>>>;

/// Follows `prefix` for as long as it is polled. `read` gives the name and the record of a key.
///
/// Readers see a new view after each change, but none between the first key of a list and its last.
pub(super) async fn follow<K: Ord + Clone, T: Clone>(
    client: KvClient,
    prefix: String,
    read: impl Fn(&KeyValue) -> Result<(K, T), String>,
    views: Views<K, T>,
) {
    let mut feed = client.feed(&prefix);
    let mut by_key: BTreeMap<String, (K, T)> = BTreeMap::new();
    let mut unreadable = BTreeMap::new();
    let mut is_whole = false;
    while let Some(event) = feed.next().await {
        match event {
            FeedEvent::Upsert(key_value) => match read(&key_value) {
                Ok(record) => {
                    unreadable.remove(&key_value.key);
                    by_key.insert(key_value.key, record);
                }
                Err(error) => {
                    warn!(key = key_value.key, error, "cannot read a record of the own store");
                    by_key.remove(&key_value.key);
                    unreadable.insert(key_value.key, error);
                }
            },
            FeedEvent::Delete { key, .. } => {
                by_key.remove(&key);
                unreadable.remove(&key);
            }
            FeedEvent::Synced { .. } => is_whole = true,
            FeedEvent::Progress { .. } => continue,
            FeedEvent::Lost { error } => {
                warn!(prefix, error = %chain(&error), "lost the own store");
                continue;
            }
        }
        if is_whole {
            let records = by_key.values().cloned().collect();
            views.send_replace(Some(Arc::new(Records { records, unreadable: unreadable.clone() })));
        }
    }
}

/// Waits until the view was read once, and returns it. `None` if nobody follows the prefix any more.
pub async fn first<K, T>(view: &mut View<K, T>) -> Option<Arc<Records<K, T>>> {
    view.wait_for(Option::is_some).await.ok()?.clone()
}

/// An error with everything that led to it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
