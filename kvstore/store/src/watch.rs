//! Watching: a position in the history, and what a watcher gets from there.
//!
//! A watcher holds no queue. However slow its reader is, what it has not read is in the history, until a compaction
//! takes that away and the watcher is told so.

use crate::{Event, KeyRange, KeyValue, Store};

/// Revisions looked at in one step, so that a watcher far behind does not keep others waiting.
const REVISIONS_PER_STEP: usize = 1_000;

/// Bytes of keys and values from which on a step takes no further revision: what it returns is in memory until it is
/// delivered, even if the history has forgotten it meanwhile.
const BYTES_PER_STEP: usize = 4 << 20;

/// Changes that a watcher does not want.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchFilter {
    /// Leave puts out.
    pub no_put: bool,
    /// Leave deletions out.
    pub no_delete: bool,
}

impl WatchFilter {
    /// Whether a change is of a kind that is wanted.
    pub fn lets_through(self, event: &Event) -> bool {
        !if event.is_deletion() { self.no_delete } else { self.no_put }
    }
}

/// One watch of a range of keys.
#[derive(Clone, Debug)]
pub struct Watcher {
    range: KeyRange,
    filter: WatchFilter,
    prev_kv: bool,
    /// The first revision not looked at yet.
    next_revision: i64,
}

/// What a watcher gets in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchStep {
    /// Changes, and there may be more.
    Events(WatchBatch),
    /// Nothing of what was looked at is for this watcher, and there is more to look at.
    Behind,
    /// The watch begins in the future: it gets neither events nor progress before that.
    Waiting,
    /// Nothing new. Everything up to and including this revision was given to the watcher.
    UpToDate(i64),
    /// The watcher is behind what was forgotten, and has to be ended with this revision.
    Compacted(i64),
}

/// Changes of whole revisions, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchBatch {
    /// The changes, each with the key as it was before if that was asked for and is not forgotten.
    pub events: Vec<(Event, Option<KeyValue>)>,
    /// Everything up to and including this revision was given to the watcher, so that it may resume after it.
    pub revision: i64,
}

impl Watcher {
    /// Watches `range` from `start_revision` on; 0 is from the next change on. One below 0 is compacted, as in etcd.
    pub fn new(
        store: &Store,
        range: KeyRange,
        start_revision: i64,
        filter: WatchFilter,
        prev_kv: bool,
    ) -> Self {
        let next_revision = if start_revision == 0 { store.revision() + 1 } else { start_revision };
        Self { range, filter, prev_kv, next_revision }
    }

    /// Everything before this revision was given to the watcher, or is before its start.
    pub fn next_revision(&self) -> i64 {
        self.next_revision
    }

    /// Takes it that nothing before `revision` is for this watcher. Never goes back.
    pub fn skip_to(&mut self, revision: i64) {
        self.next_revision = self.next_revision.max(revision);
    }

    /// Whether what goes with an event, the key as it was before, is to be looked up.
    pub fn wants_previous(&self) -> bool {
        self.prev_kv
    }

    /// A batch of what someone else has found: `events` are all changes for this watcher from its next revision up to and
    /// including `revision`, in their order. Does not look at the history, so that a compaction takes nothing away.
    ///
    /// `store` is looked at only if [`Watcher::wants_previous`].
    pub fn give(&mut self, events: Vec<Event>, revision: i64, store: Option<&Store>) -> WatchBatch {
        let previous = |event: &Event| store.and_then(|store| self.previous(store, event));
        let events = events
            .into_iter()
            .map(|event| {
                let previous = previous(&event);
                (event, previous)
            })
            .collect();
        self.skip_to(revision + 1);
        WatchBatch { events, revision }
    }

    /// The next changes for this watcher.
    pub fn step(&mut self, store: &Store) -> WatchStep {
        if self.next_revision < store.compacted_revision() {
            return WatchStep::Compacted(store.compacted_revision());
        }
        if self.next_revision > store.revision() + 1 {
            return WatchStep::Waiting;
        }
        let mut events = Vec::new();
        let unseen = store.history.since(self.next_revision).take(REVISIONS_PER_STEP);
        let mut seen = 0;
        let mut bytes = 0;
        for changes in unseen {
            seen += 1;
            for event in changes.iter().filter(|event| self.wants(event)) {
                let previous = self.previous(store, event);
                bytes += event.key_value().encoded().len();
                bytes += previous.as_ref().map_or(0, |kv| kv.encoded().len());
                events.push((event.clone(), previous));
            }
            if bytes >= BYTES_PER_STEP {
                break;
            }
        }
        self.next_revision = self.next_revision.max(store.revisions().oldest) + seen;
        if events.is_empty() {
            let up_to_date = self.next_revision > store.revision();
            return if up_to_date { WatchStep::UpToDate(store.revision()) } else { WatchStep::Behind };
        }
        WatchStep::Events(WatchBatch { events, revision: self.next_revision - 1 })
    }

    fn wants(&self, event: &Event) -> bool {
        self.filter.lets_through(event) && self.range.contains(event.key())
    }

    fn previous(&self, store: &Store, event: &Event) -> Option<KeyValue> {
        let before = event.revision() - 1;
        // What is before the compacted revision may be there by chance, and on another member not.
        if !self.prev_kv || before < store.compacted_revision() {
            return None;
        }
        store.keys.get(event.key()).and_then(|versions| versions.at(before)).cloned()
    }
}
