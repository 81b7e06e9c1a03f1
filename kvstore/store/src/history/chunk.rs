//! A piece of the history.

use std::ops::Bound;
use std::sync::Arc;

use super::{Changes, difference};
use crate::tree::{Bounds, Item};

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
    /// The same in the order of the keys, once the chunk is full.
    by_key: Option<ByKey>,
}

/// Which revisions of a chunk have a key come or go, in the order of the keys, and by how much the number of keys has grown
/// with all up to there: 0, after the first, and so on.
#[derive(Clone, Debug)]
struct ByKey {
    revisions: Vec<u8>,
    growth: Vec<i16>,
}

impl Chunk {
    pub(super) fn new(first: i64) -> Self {
        Self { first, changes: Vec::new(), turns: [0; CHUNK_LEN / 64], by_key: None }
    }

    pub(super) fn push(&mut self, changes: Changes) {
        let at = self.changes.len();
        if changes.iter().any(|event| difference(event) != 0) {
            self.turns[at / 64] |= 1 << (at % 64);
        }
        self.changes.push(changes);
        if self.changes.len() == CHUNK_LEN {
            self.by_key = self.sorted_by_key();
        }
    }

    /// Nothing if a revision has several changes: then all have to be looked at.
    fn sorted_by_key(&self) -> Option<ByKey> {
        let turns = (0..=u8::MAX).filter(|at| self.turns[usize::from(*at) / 64] >> (at % 64) & 1 == 1);
        let mut revisions: Vec<u8> = turns.collect();
        if revisions.iter().any(|at| self.changes[usize::from(*at)].len() != 1) {
            return None;
        }
        revisions.sort_by_key(|at| self.changes[usize::from(*at)][0].key());
        let mut growth = vec![0];
        for at in &revisions {
            let sum = i64::from(*growth.last()?) + difference(&self.changes[usize::from(*at)][0]);
            growth.push(i16::try_from(sum).ok()?);
        }
        Some(ByKey { revisions, growth })
    }

    /// By how much the whole chunk changes the number of keys in a range, if that is known without a look at all of it.
    pub(super) fn growth(&self, (start, end): Bounds<'_, [u8]>) -> Option<i64> {
        let by_key = self.by_key.as_ref()?;
        let up_to = |is_before: &dyn Fn(&[u8]) -> bool| {
            let is_before =
                |at: &u8| self.changes[usize::from(*at)].first().is_some_and(|event| is_before(event.key()));
            i64::from(by_key.growth[by_key.revisions.partition_point(is_before)])
        };
        let before = match start {
            Bound::Included(start) => up_to(&|key| key < start),
            Bound::Excluded(start) => up_to(&|key| key <= start),
            Bound::Unbounded => 0,
        };
        let within = match end {
            Bound::Included(end) => up_to(&|key| key <= end),
            Bound::Excluded(end) => up_to(&|key| key < end),
            Bound::Unbounded => up_to(&|_| true),
        };
        Some(within - before)
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
