//! Forgetting history.

use crate::{RangeError, Store};

impl Store {
    /// Forgets every version that no read at `revision` or later can see, and the changes before it. The revision
    /// itself can still be read and watched from.
    ///
    /// Costs as much as has changed since the last compaction, not as much as there is.
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
        let oldest = self.history.revisions().oldest;
        let compacted = usize::try_from(revision - oldest + 1).unwrap_or(0);
        for event in self.history.since(oldest).take(compacted).flat_map(|events| events.iter()) {
            if let Some(versions) = self.keys.get_mut(event.key())
                && versions.compact(revision)
            {
                self.keys.remove(event.key());
            }
        }
        self.history.forget_before(revision);
        self.compacted = revision;
        Ok(())
    }
}
