//! What the hub has found for the watches of one stream, until the stream takes it.
//!
//! Invariants:
//! - Events are in their order. What is taken ends with a whole revision: the hub may be in the midst of the next one.
//! - It is bounded, however slow the stream is. When it is full it forgets the events and keeps from where on each watch
//!   has to look at the history.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use landbridge_kvstore_store::Event;
use tokio::sync::Notify;

use super::counters::WatchCounters;

/// Events that wait at most; few in tests, so that they get to see what happens then.
const MAX_EVENTS: usize = if cfg!(test) { 8 } else { 1_024 };
/// Bytes of keys and values that wait at most, one event aside.
const MAX_BYTES: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Inbox {
    found: Mutex<Found>,
    woken: Notify,
    counters: Arc<WatchCounters>,
}

#[derive(Debug, Default)]
struct Found {
    events: VecDeque<(i64, Event)>,
    bytes: usize,
    /// By watch, the first revision that it has to look for in the history. It has no events then.
    behind: BTreeMap<i64, i64>,
    /// The same for all others.
    all_behind: Option<i64>,
    /// Whether the hub has said that it will wake the stream.
    is_touched: bool,
}

/// What a stream took.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// By watch. Everything for a watch that is not behind.
    pub(super) events: VecDeque<(i64, Event)>,
    /// By watch, the first revision that it has to look for in the history: nothing before is for it but what it was given.
    pub(super) behind: BTreeMap<i64, i64>,
    /// The same for all others.
    pub(super) all_behind: Option<i64>,
}

impl Inbox {
    pub(super) fn new(counters: Arc<WatchCounters>) -> Self {
        Self { found: Mutex::default(), woken: Notify::new(), counters }
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts in an event for a watch. Returns whether the stream is to be woken for the first thing put in since.
    pub(super) fn put(&self, watch: i64, event: &Event) -> bool {
        let mut found = self.found();
        if found.all_behind.is_some() || found.behind.contains_key(&watch) {
            return false;
        }
        let bytes = event.key_value().encoded().len();
        found.events.push_back((watch, event.clone()));
        found.bytes += bytes;
        self.counters.add_pending(1);
        if found.events.len() > MAX_EVENTS || (found.bytes > MAX_BYTES && found.events.len() > 1) {
            self.forget(&mut found);
        }
        !std::mem::replace(&mut found.is_touched, true)
    }

    /// Lets all watches look at the history from `revision` on; what is here is before. Returns as `put` does.
    pub(super) fn look_again(&self, revision: i64) -> bool {
        let mut found = self.found();
        self.forget(&mut found);
        found.all_behind.get_or_insert(revision);
        !std::mem::replace(&mut found.is_touched, true)
    }

    /// Has the stream woken although nothing is for it. Returns as `put` does.
    pub(super) fn touch(&self) -> bool {
        !std::mem::replace(&mut self.found().is_touched, true)
    }

    fn forget(&self, found: &mut Found) {
        self.counters.add_pending(-count(found.events.len()));
        found.bytes = 0;
        for (watch, event) in std::mem::take(&mut found.events) {
            found.behind.entry(watch).or_insert(event.revision());
        }
    }

    /// Wakes the stream: the hub's position has reached what was put in.
    pub(super) fn wake(&self) {
        self.found().is_touched = false;
        self.counters.woken();
        self.woken.notify_one();
    }

    /// Waits until the hub has put something in.
    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }

    /// Takes what is there, up to and including the revision `position`.
    pub(super) fn take(&self, position: i64) -> Taken {
        let mut found = self.found();
        let count_taken = if found.events.back().is_none_or(|(_, event)| event.revision() <= position) {
            found.events.len()
        } else {
            found.events.partition_point(|(_, event)| event.revision() <= position)
        };
        if count_taken == 0 && found.behind.is_empty() && found.all_behind.is_none() {
            return Taken::default();
        }
        let rest = found.events.split_off(count_taken);
        let events = std::mem::replace(&mut found.events, rest);
        found.bytes = found.events.iter().map(|(_, event)| event.key_value().encoded().len()).sum();
        self.counters.add_pending(-count(events.len()));
        let (behind, all_behind) = (std::mem::take(&mut found.behind), found.all_behind.take());
        Taken { events, behind, all_behind }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.counters.add_pending(-count(self.found().events.len()));
    }
}

fn count(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}
