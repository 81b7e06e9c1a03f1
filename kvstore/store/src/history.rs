//! What changed at which revision, for those who watch.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::KeyValue;

/// One change of one key: a version of it, which it shares with the index. As cheap to clone as that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event(KeyValue);

impl Event {
    /// The change that made this version.
    pub fn of(version: KeyValue) -> Self {
        Self(version)
    }

    /// What was put, or nothing if the key was deleted. It came to be if its create and mod revisions are equal.
    pub fn put(&self) -> Option<&KeyValue> {
        if self.is_deletion() { None } else { Some(&self.0) }
    }

    /// Whether the key was deleted.
    pub fn is_deletion(&self) -> bool {
        self.0.is_deletion()
    }

    /// What etcd's API tells of the key in an event: all of it if it was put; of a deletion, the key and when.
    pub fn key_value(&self) -> &KeyValue {
        &self.0
    }

    /// The key that changed.
    pub fn key(&self) -> &[u8] {
        self.0.key()
    }

    /// The revision it changed at.
    pub fn revision(&self) -> i64 {
        self.0.mod_revision()
    }
}

/// The revisions that have their changes in the history: `oldest..=newest`; none if `oldest` is above `newest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revisions {
    /// The first.
    pub oldest: i64,
    /// The last, which is the store's current revision.
    pub newest: i64,
}

/// The changes of each revision from `oldest` on, without a gap; each list in the order of the changes.
#[derive(Clone, Debug)]
pub(crate) struct History {
    oldest: i64,
    changes: VecDeque<Arc<[Event]>>,
}

impl History {
    /// The history of an empty store, whose first write will be revision 2.
    pub(crate) fn new() -> Self {
        Self::from(2)
    }

    /// A history that begins with the revision `oldest`, which is not there yet.
    pub(crate) fn from(oldest: i64) -> Self {
        Self { oldest, changes: VecDeque::new() }
    }

    pub(crate) fn push(&mut self, events: Vec<Event>) {
        self.changes.push_back(events.into());
    }

    pub(crate) fn revisions(&self) -> Revisions {
        let newest =
            self.oldest + i64::try_from(self.changes.len()).expect("memory ends before the numbers do") - 1;
        Revisions { oldest: self.oldest, newest }
    }

    /// The changes of one revision.
    pub(crate) fn at(&self, revision: i64) -> Option<&Arc<[Event]>> {
        self.changes.get(usize::try_from(revision - self.oldest).ok()?)
    }

    /// The changes of each revision from `first` on.
    pub(crate) fn since(&self, first: i64) -> impl Iterator<Item = &Arc<[Event]>> {
        let skipped = usize::try_from(first - self.oldest).unwrap_or(0).min(self.changes.len());
        self.changes.range(skipped..)
    }

    /// Forgets everything before `revision`.
    pub(crate) fn forget_before(&mut self, revision: i64) {
        let forgotten = usize::try_from(revision - self.oldest).unwrap_or(0).min(self.changes.len());
        self.changes.drain(..forgotten);
        self.oldest = self.oldest.max(revision);
    }
}
