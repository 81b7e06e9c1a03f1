//! The hub: finds whom new revisions concern, and wakes their streams and no others.
//!
//! ```text
//! change feed ─► advance: WatchIndex ─► inbox of a stream ─► its watches
//!                   └─► position: everything up to here has been put into inboxes
//! ```
//!
//! Invariants:
//! - Whoever takes from an inbox after it has looked at the position has everything up to the position that is for its
//!   watches, from the revision after which they registered.
//! - A stream is woken when the position has passed what was put in, so that it never sees a part of a revision.
//! - When the feed has lost something, everyone looks at the history from the position on.
//! - A watch that registers first and looks at the store then has missed nothing: what it does not see there is put into its
//!   inbox.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use landbridge_kvstore_store::{KeyRange, WatchFilter, WatchIndex, WatcherId};
use tokio::sync::watch;

use super::counters::{Counted, Kind, WatchCounters};
use super::inbox::{Inbox, Taken};
use crate::engine::{ChangeFeed, Fed};

/// Revisions that are gone through before streams are woken for them.
const REVISIONS_PER_TURN: usize = 256;

/// See the module.
#[derive(Debug)]
pub(crate) struct Hub {
    feed: Arc<ChangeFeed>,
    counters: Arc<WatchCounters>,
    registered: Mutex<Registered>,
    position: AtomicI64,
}

#[derive(Debug)]
struct Registered {
    index: WatchIndex<Member>,
    streams: BTreeMap<u64, Arc<Inbox>>,
    next_stream: u64,
    /// The streams that want to be woken when the position has reached a revision.
    awaited: BTreeSet<(i64, u64)>,
}

/// One watch.
#[derive(Debug)]
struct Member {
    inbox: Arc<Inbox>,
    watch: i64,
    filter: WatchFilter,
}

impl Hub {
    /// For what `feed` has from now on. `seed` is random.
    pub(crate) fn new(feed: Arc<ChangeFeed>, seed: u64) -> Arc<Self> {
        let position = AtomicI64::new(feed.subscribe());
        let registered = Registered {
            index: WatchIndex::new(seed),
            streams: BTreeMap::new(),
            next_stream: 0,
            awaited: BTreeSet::new(),
        };
        Arc::new(Self { feed, counters: Arc::default(), registered: Mutex::new(registered), position })
    }

    /// What the metrics tell of watches.
    pub(crate) fn counters(&self) -> &Arc<WatchCounters> {
        &self.counters
    }

    fn registered(&self) -> MutexGuard<'_, Registered> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything up to this revision is in the inboxes.
    fn position(&self) -> i64 {
        self.position.load(Ordering::Acquire)
    }

    /// Goes on as revisions come, until there is no one left to tell of them.
    pub(crate) async fn run(self: Arc<Self>, mut revisions: watch::Receiver<i64>) {
        while revisions.changed().await.is_ok() {
            while self.advance() {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Goes through the next revisions. Returns whether there were any.
    pub(super) fn advance(&self) -> bool {
        // Held from the feed to the position: one goes on at a time.
        let mut registered = self.registered();
        let Registered { index, streams, awaited, .. } = &mut *registered;
        let mut touched = Vec::new();
        let position = match self.feed.take(REVISIONS_PER_TURN) {
            Fed::Changes(revisions) => {
                let Some(last) = revisions.last().and_then(|changes| changes.last()) else { return false };
                for event in revisions.iter().flat_map(|changes| changes.iter()) {
                    index.matching(event.key(), |member: &Member| {
                        if member.filter.lets_through(event) && member.inbox.put(member.watch, event) {
                            touched.push(Arc::clone(&member.inbox));
                        }
                    });
                }
                last.revision()
            }
            Fed::Lost(newest) => {
                let first = self.position() + 1;
                touched.extend(streams.values().filter(|inbox| inbox.look_again(first)).cloned());
                newest
            }
        };
        self.position.store(position, Ordering::Release);
        while let Some((_, stream)) = awaited.first().copied().filter(|(revision, _)| *revision <= position) {
            awaited.pop_first();
            touched.extend(streams.get(&stream).filter(|inbox| inbox.touch()).cloned());
        }
        // Still alone: what is put in after the position is woken for by whoever puts it in.
        for inbox in touched {
            inbox.wake();
        }
        true
    }

    /// Goes on until the position has reached a revision that can be read.
    fn reach(&self, revision: i64) {
        while self.position() < revision && self.advance() {}
    }

    /// The way of a new stream to the hub.
    pub(super) fn link(self: &Arc<Self>) -> Link {
        let inbox = Arc::new(Inbox::new(Arc::clone(&self.counters)));
        let mut registered = self.registered();
        let stream = registered.next_stream;
        registered.next_stream += 1;
        registered.streams.insert(stream, Arc::clone(&inbox));
        Link {
            hub: Arc::clone(self),
            inbox,
            stream,
            awaited: None,
            _counted: self.counters.count(Kind::Stream),
        }
    }
}

/// A stream's way to the hub, which forgets the stream when this is dropped.
#[derive(Debug)]
pub(super) struct Link {
    hub: Arc<Hub>,
    inbox: Arc<Inbox>,
    stream: u64,
    awaited: Option<i64>,
    _counted: Counted,
}

impl Link {
    /// Has the hub look for changes of `range` for a watch, from the next revision on that it goes through.
    pub(super) fn register(&self, watch: i64, range: KeyRange, filter: WatchFilter) -> Registration {
        let member = Member { inbox: Arc::clone(&self.inbox), watch, filter };
        let id = self.hub.registered().index.register(range, member);
        Registration { hub: Arc::clone(&self.hub), id, _counted: self.hub.counters.count(Kind::Watcher) }
    }

    /// What was found since, and up to which revision that is everything.
    pub(super) fn take(&self) -> (i64, Taken) {
        // First the position: what is put in later is later.
        let position = self.hub.position();
        (position, self.inbox.take(position))
    }

    /// Lets the hub go on to a revision that can be read, without waiting for its turn.
    pub(super) fn reach(&self, revision: i64) {
        self.hub.reach(revision);
    }

    /// Has the stream woken when everything up to `revision` was found. One revision at a time.
    pub(super) fn wake_at(&mut self, revision: i64) {
        if self.awaited == Some(revision) && self.hub.position() < revision {
            return;
        }
        let mut registered = self.hub.registered();
        if let Some(before) = self.awaited.replace(revision) {
            registered.awaited.remove(&(before, self.stream));
        }
        registered.awaited.insert((revision, self.stream));
        if self.hub.position() >= revision {
            self.inbox.wake();
        }
    }

    /// Waits until there may be something to take.
    pub(super) async fn woken(&self) {
        self.inbox.woken().await;
    }

    /// What the metrics tell of watches.
    pub(super) fn counters(&self) -> &Arc<WatchCounters> {
        &self.hub.counters
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut registered = self.hub.registered();
        registered.streams.remove(&self.stream);
        if let Some(revision) = self.awaited {
            registered.awaited.remove(&(revision, self.stream));
        }
    }
}

/// A watch that the hub knows, until this is dropped.
#[derive(Debug)]
pub(super) struct Registration {
    hub: Arc<Hub>,
    id: WatcherId,
    _counted: Counted,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.hub.registered().index.remove(self.id);
    }
}

#[cfg(test)]
mod tests;
