//! A piece of the history.

use std::sync::Arc;

use super::{Changes, difference};
use crate::tree::Item;

/// Revisions of a full chunk. Few enough to copy one for a change after the history was cloned.
pub(super) const CHUNK_LEN: usize = 256;
/// The same as a distance between revisions.
pub(super) const CHUNK_REVISIONS: i64 = 256;

/// The changes of revisions that follow each other.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    first: i64,
    changes: Vec<Changes>,
    /// For each revision, whether a key came to be or was deleted. A count at an old revision looks at those alone.
    turns: [u64; CHUNK_LEN / 64],
}

impl Chunk {
    pub(super) fn new(first: i64) -> Self {
        Self { first, changes: Vec::new(), turns: [0; CHUNK_LEN / 64] }
    }

    pub(super) fn push(&mut self, changes: Changes) {
        let at = self.changes.len();
        if changes.iter().any(|event| difference(event) != 0) {
            self.turns[at / 64] |= 1 << (at % 64);
        }
        self.changes.push(changes);
    }

    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    pub(super) fn first(&self) -> i64 {
        self.first
    }

    /// The revision after its last.
    pub(super) fn end(&self) -> i64 {
        self.first + i64::try_from(self.changes.len()).expect("a chunk is short")
    }

    /// The changes of each revision from `first` on.
    pub(super) fn since(&self, first: i64) -> impl Iterator<Item = &Changes> {
        self.changes[self.index(first)..].iter()
    }

    /// The changes of each revision from `first` on at which a key came to be or was deleted.
    pub(super) fn turns_since(&self, first: i64) -> impl Iterator<Item = &Changes> {
        let start = self.index(first);
        (start..self.changes.len())
            .filter(|at| self.turns[at / 64] >> (at % 64) & 1 == 1)
            .map(|at| &self.changes[at])
    }

    /// Forgets the changes of a revision.
    pub(super) fn take(&mut self, revision: i64) {
        let at = self.index(revision);
        if let Some(changes) = self.changes.get_mut(at) {
            *changes = Changes::GONE;
        }
    }

    /// Where the changes of a revision are; of one before the first, where those begin.
    fn index(&self, revision: i64) -> usize {
        usize::try_from(revision - self.first).unwrap_or(0).min(self.changes.len())
    }
}

impl Item for Arc<Chunk> {
    type Key = i64;
    type Separator = i64;

    fn key(&self) -> &i64 {
        &self.first
    }

    fn separator(_: &Self, from: &Self) -> i64 {
        from.first
    }
}
