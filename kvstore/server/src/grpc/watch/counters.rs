//! What the metrics tell of watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// How many there are of what. Each is exact by itself; together they are of about one moment.
#[derive(Debug, Default)]
pub struct WatchCounters {
    streams: AtomicI64,
    watchers: AtomicI64,
    slow_watchers: AtomicI64,
    pending_events: AtomicI64,
    events: AtomicU64,
    wakes: AtomicU64,
}

/// What is counted while it lasts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Stream,
    Watcher,
    SlowWatcher,
}

/// One of what is counted. It is no longer when this is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    counters: Arc<WatchCounters>,
    kind: Kind,
}

impl WatchCounters {
    /// Streams that are open; etcd's `etcd_debugging_mvcc_watch_stream_total`.
    pub fn streams(&self) -> i64 {
        self.streams.load(Ordering::Relaxed)
    }

    /// Watches; etcd's `etcd_debugging_mvcc_watcher_total`.
    pub fn watchers(&self) -> i64 {
        self.watchers.load(Ordering::Relaxed)
    }

    /// Watches that read the history to catch up; etcd's `etcd_debugging_mvcc_slow_watcher_total`.
    pub fn slow_watchers(&self) -> i64 {
        self.slow_watchers.load(Ordering::Relaxed)
    }

    /// Events found for watches that have not taken them yet; etcd's `etcd_debugging_mvcc_pending_events_total`.
    pub fn pending_events(&self) -> i64 {
        self.pending_events.load(Ordering::Relaxed)
    }

    /// Events sent; etcd's `etcd_debugging_mvcc_events_total`.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// How often a stream was woken because something may be for it.
    pub fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::Relaxed)
    }
}

impl WatchCounters {
    /// Counts one more, as long as it lasts.
    pub(super) fn count(self: &Arc<Self>, kind: Kind) -> Counted {
        self.gauge(kind).fetch_add(1, Ordering::Relaxed);
        Counted { counters: Arc::clone(self), kind }
    }

    fn gauge(&self, kind: Kind) -> &AtomicI64 {
        match kind {
            Kind::Stream => &self.streams,
            Kind::Watcher => &self.watchers,
            Kind::SlowWatcher => &self.slow_watchers,
        }
    }

    pub(super) fn add_pending(&self, more: i64) {
        self.pending_events.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, events: usize) {
        self.events.fetch_add(events as u64, Ordering::Relaxed);
    }

    pub(super) fn woken(&self) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counters.gauge(self.kind).fetch_sub(1, Ordering::Relaxed);
    }
}
