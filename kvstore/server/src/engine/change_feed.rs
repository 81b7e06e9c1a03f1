//! What was applied last, for the one who tells watchers.
//!
//! ```text
//! state machine, each revision as it is applied ─► queue ─► the hub of watches
//!                                                    └ full, or a snapshot was installed ─► "look at the history again"
//! ```
//!
//! Invariants:
//! - The queue has each revision once and in order. It is filled before the state that has the revision can be read: whoever
//!   has read a revision and then takes all there is has taken that revision.
//! - It is bounded. When more comes than is taken it forgets everything and says so; what it forgot is in the history.
//! - What is compacted while it waits here is still here, so that a watcher that was up to date misses nothing.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use landbridge_kvstore_store::{Changes, Event, Store};

/// Revisions that wait at most.
const MAX_REVISIONS: usize = 16 << 10;
/// Bytes of keys and values that wait at most.
const MAX_BYTES: usize = 64 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct ChangeFeed(Mutex<Queue>);

#[derive(Debug)]
struct Queue {
    /// Whether anyone takes something.
    is_wanted: bool,
    waiting: VecDeque<Changes>,
    bytes: usize,
    /// The last revision that came, whether it waits or not.
    newest: i64,
    is_lost: bool,
}

/// What was taken.
#[derive(Debug)]
pub(crate) enum Fed {
    /// The changes of the next revisions, without a gap; none if nothing has come.
    Changes(Vec<Changes>),
    /// What came is not here any more: everything up to this revision has to be looked for in the history.
    Lost(i64),
}

impl ChangeFeed {
    /// For a store at `revision`.
    pub(crate) fn new(revision: i64) -> Self {
        let waiting = VecDeque::new();
        Self(Mutex::new(Queue { is_wanted: false, waiting, bytes: 0, newest: revision, is_lost: false }))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on it keeps what comes after the revision that this returns. There is one who takes it.
    pub(crate) fn subscribe(&self) -> i64 {
        let mut queue = self.queue();
        queue.is_wanted = true;
        queue.newest
    }

    /// Takes in the last revision of `store`, if it is new. Called after each command, before anyone can read the store.
    pub(crate) fn record(&self, store: &Store) {
        let mut queue = self.queue();
        let newest = store.revision();
        let expected = queue.newest + 1;
        if newest < expected {
            return;
        }
        queue.newest = newest;
        if !queue.is_wanted || queue.is_lost {
            return;
        }
        match store.changes_at(newest).filter(|_| newest == expected) {
            Some(changes) => queue.push(changes),
            None => queue.lose(),
        }
    }

    /// Another state has taken the store's place.
    pub(crate) fn replace(&self, store: &Store) {
        let mut queue = self.queue();
        queue.newest = store.revision();
        queue.lose();
    }

    /// The next revisions, `limit` at most.
    pub(crate) fn take(&self, limit: usize) -> Fed {
        let mut queue = self.queue();
        if std::mem::take(&mut queue.is_lost) {
            return Fed::Lost(queue.newest);
        }
        let count = queue.waiting.len().min(limit);
        let changes: Vec<_> = queue.waiting.drain(..count).collect();
        queue.bytes -= changes.iter().map(|changes| bytes(changes)).sum::<usize>();
        Fed::Changes(changes)
    }
}

impl Queue {
    fn push(&mut self, changes: Changes) {
        let bytes = bytes(&changes);
        if self.waiting.len() >= MAX_REVISIONS || self.bytes + bytes > MAX_BYTES {
            self.lose();
        } else {
            self.bytes += bytes;
            self.waiting.push_back(changes);
        }
    }

    fn lose(&mut self) {
        self.waiting = VecDeque::new();
        self.bytes = 0;
        self.is_lost = self.is_wanted;
    }
}

fn bytes(changes: &[Event]) -> usize {
    changes.iter().map(|event| event.key_value().encoded().len()).sum()
}

#[cfg(test)]
mod tests {
    use landbridge_kvstore_store::PutRequest;

    use super::*;

    fn put(store: &mut Store, feed: &ChangeFeed) {
        store.put(&PutRequest { key: "a".into(), ..PutRequest::default() }).unwrap();
        feed.record(store);
    }

    fn taken(feed: &ChangeFeed, limit: usize) -> Vec<i64> {
        let Fed::Changes(changes) = feed.take(limit) else { panic!("nothing is lost") };
        changes.iter().map(|changes| changes[0].revision()).collect()
    }

    #[test]
    fn each_revision_is_fed_once_even_if_it_is_compacted_meanwhile() {
        let mut store = Store::new();
        let feed = ChangeFeed::new(store.revision());
        put(&mut store, &feed);
        assert_eq!(feed.subscribe(), 2);
        put(&mut store, &feed);
        put(&mut store, &feed);
        feed.record(&store);
        store.compact(4).unwrap();
        assert_eq!(taken(&feed, 1), [3]);
        assert_eq!(taken(&feed, 10), [4]);
        assert!(taken(&feed, 10).is_empty());
    }

    #[test]
    fn what_is_too_much_is_lost_and_said_to_be() {
        let mut store = Store::new();
        let feed = ChangeFeed::new(store.revision());
        feed.subscribe();
        for _ in 0..=MAX_REVISIONS {
            put(&mut store, &feed);
        }
        assert!(matches!(feed.take(1), Fed::Lost(newest) if newest == store.revision()));
        put(&mut store, &feed);
        assert_eq!(taken(&feed, 10), [store.revision()]);
        feed.replace(&store);
        assert!(matches!(feed.take(1), Fed::Lost(_)));
    }
}
