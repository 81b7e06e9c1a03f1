//! Forgetting history: at once for everyone who asks, and step by step in memory.
//!
//! ```text
//! compact(30) ─► reads and watches before 30 are refused
//! compact_step ─► 12 … 30: the keys that changed there let go of what no one can see, and the history of the changes
//! ```
//!
//! Invariants:
//! - Nothing that a store answers depends on how far the steps are, but its size.
//! - The changes of the compacted revision itself are looked at again by the next compaction: a deletion there goes then.

use crate::store::size_of_version;
use crate::tree::Change;
use crate::{RangeError, Store};

/// The first write of a store.
pub(crate) const FIRST_REVISION: i64 = 2;

/// How far the removal is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sweep {
    /// The revision whose keys are next, and how many of them are done.
    next: (i64, usize),
    /// Everything is removed that a compaction to this revision forgets.
    done: i64,
}

impl Sweep {
    /// Nothing is forgotten that is still there, in a store that is compacted to `compacted`.
    pub(crate) fn new(compacted: i64) -> Self {
        Self { next: (compacted.max(FIRST_REVISION), 0), done: compacted }
    }
}

impl Store {
    /// Forgets every version that no read at `revision` or later can see, and the changes before it. The revision
    /// itself can still be read and watched from.
    ///
    /// Costs the same however much that is: memory is let go of by [`Store::compact_step`].
    ///
    /// # Errors
    /// [`RangeError::Compacted`] if that much was forgotten before, [`RangeError::Future`] if it is not reached yet.
    pub fn compact(&mut self, revision: i64) -> Result<(), RangeError> {
        if revision <= self.compacted {
            return Err(RangeError::Compacted);
        }
        if revision > self.revision() {
            return Err(RangeError::Future);
        }
        self.history.forget_before(revision);
        self.compacted = revision;
        Ok(())
    }

    /// Lets go of what compactions forgot, at no more than `max_keys` keys. Returns whether there is more to do.
    pub fn compact_step(&mut self, max_keys: usize) -> bool {
        let compacted = self.compacted;
        let mut left = max_keys;
        while self.sweep.done < compacted && left > 0 {
            let (revision, done) = self.sweep.next;
            let changes = self.history.at(revision);
            let events = changes.as_ref().and_then(|changes| changes.get(done..)).unwrap_or_default();
            let now = events.len().min(left);
            for event in &events[..now] {
                let size = &mut self.size;
                self.keys.alter(event.key(), |versions| {
                    let is_left = versions.is_none_or(|versions| {
                        versions.compact(compacted, |gone| *size -= size_of_version(gone))
                    });
                    (if is_left { Change::Keep } else { Change::Remove }, ())
                });
            }
            // A revision without changes is none of this store's, but counts as work.
            left -= now.max(1);
            if now < events.len() {
                self.sweep.next = (revision, done + now);
            } else if revision < compacted {
                drop(changes);
                self.history.take(revision);
                self.sweep.next = (revision + 1, 0);
            } else {
                self.sweep = Sweep::new(compacted);
            }
        }
        self.sweep.done < compacted
    }
}
