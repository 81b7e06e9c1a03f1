//! What changed at which revision, for those who watch.
//!
//! ```text
//! forgotten, not yet taken away ─► oldest … full chunks … ─► tail, not full ─► newest
//! ```
//!
//! Invariants:
//! - From the oldest revision to the newest each has its changes, in the order of the changes.
//! - A copy costs nothing, since chunks are shared, and the next change copies the tail alone.

mod chunk;

use std::ops::{Bound, Deref};
use std::slice;
use std::sync::Arc;

use chunk::{CHUNK_LEN, CHUNK_REVISIONS, Chunk};

use crate::tree::Tree;
use crate::{KeyRange, KeyValue};

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

/// The changes of one revision. Most are one, which needs no memory besides the version that it shares.
#[derive(Clone, Debug)]
pub struct Changes(Events);

#[derive(Clone, Debug)]
enum Events {
    One(Event),
    Many(Arc<Vec<Event>>),
    /// They were forgotten.
    Gone,
}

impl Changes {
    const GONE: Self = Self(Events::Gone);

    pub(crate) fn new(mut events: Vec<Event>) -> Self {
        if events.len() > 1 {
            return Self(Events::Many(Arc::new(events)));
        }
        Self(events.pop().map_or(Events::Gone, Events::One))
    }
}

impl Deref for Changes {
    type Target = [Event];

    fn deref(&self) -> &[Event] {
        match &self.0 {
            Events::One(event) => slice::from_ref(event),
            Events::Many(events) => events,
            Events::Gone => &[],
        }
    }
}

/// By how much an event changes the number of keys.
fn difference(event: &Event) -> i64 {
    let kv = event.key_value();
    match kv.version() {
        _ if kv.is_deletion() => -1,
        1 => 1,
        _ => 0,
    }
}

/// The changes of each revision.
#[derive(Clone, Debug)]
pub(crate) struct History {
    oldest: i64,
    full: Tree<Arc<Chunk>>,
    tail: Arc<Chunk>,
}

impl History {
    /// The history of an empty store, whose first write will be revision 2.
    pub(crate) fn new() -> Self {
        Self::from(2)
    }

    /// A history that begins with the revision `oldest`, which is not there yet.
    pub(crate) fn from(oldest: i64) -> Self {
        Self { oldest, full: Tree::default(), tail: Arc::new(Chunk::new(oldest)) }
    }

    /// Adds the next revision.
    pub(crate) fn push(&mut self, changes: Changes) {
        let tail = Arc::make_mut(&mut self.tail);
        tail.push(changes);
        if tail.len() == CHUNK_LEN {
            let next = Arc::new(Chunk::new(tail.end()));
            self.full.insert(std::mem::replace(&mut self.tail, next));
        }
    }

    pub(crate) fn revisions(&self) -> Revisions {
        Revisions { oldest: self.oldest, newest: self.tail.end() - 1 }
    }

    /// The changes of each revision from `first` on.
    pub(crate) fn since(&self, first: i64) -> impl Iterator<Item = &[Event]> {
        let first = first.max(self.oldest);
        self.chunks(first).flat_map(move |chunk| chunk.since(first)).map(|changes| &**changes)
    }

    /// By how much the number of keys in `range` has grown since `revision`, by a look at the changes; nothing if these are
    /// more than `most`.
    pub(crate) fn growth_since(&self, revision: i64, range: &KeyRange, most: usize) -> Option<i64> {
        // How many keys are compared to find a place in a chunk.
        const COMPARED: usize = 2 * CHUNK_LEN.ilog2() as usize;
        let bounds = range.bounds()?;
        let first = revision + 1;
        let mut seen = 0;
        let mut growth = 0;
        for chunk in self.chunks(first) {
            if let Some(more) = chunk.growth(bounds).filter(|_| chunk.first() >= first) {
                seen += COMPARED;
                growth += more;
                continue;
            }
            if seen > most {
                return None;
            }
            for event in chunk.turns_since(first).flat_map(|changes| &**changes) {
                seen += 1;
                if seen > most {
                    return None;
                }
                if range.contains(event.key()) {
                    growth += difference(event);
                }
            }
        }
        Some(growth)
    }

    /// From now on nobody asks for anything before `revision`. It is taken away later.
    pub(crate) fn forget_before(&mut self, revision: i64) {
        self.oldest = self.oldest.max(revision);
    }

    /// The changes of a revision, unless they were taken away. A forgotten revision may still have them.
    pub(crate) fn at(&self, revision: i64) -> Option<Changes> {
        let chunk = self.chunks(revision).next().filter(|chunk| chunk.first() <= revision)?;
        chunk.since(revision).next().cloned()
    }

    /// Takes the changes of a forgotten revision away.
    pub(crate) fn take(&mut self, revision: i64) {
        let take = |chunk: &mut Arc<Chunk>| Arc::make_mut(chunk).take(revision);
        if revision >= self.tail.first() {
            return take(&mut self.tail);
        }
        let Some(first) = self.chunks(revision).next().map(Chunk::first) else { return };
        self.full.alter(&first, |chunk| match chunk {
            Some(chunk) if chunk.end() - 1 > revision => {
                take(chunk);
                (crate::tree::Change::Keep, ())
            }
            // With the last one, all of it goes.
            _ => (crate::tree::Change::Remove, ()),
        });
    }

    /// The chunks from the one on that has the revision `first`.
    fn chunks(&self, first: i64) -> impl Iterator<Item = &Chunk> {
        let before = first.saturating_sub(CHUNK_REVISIONS);
        let full = self.full.range((Bound::Excluded(&before), Bound::Unbounded));
        full.map(|chunk| &**chunk).chain([&*self.tail])
    }
}

/// By how much `events` change the number of keys in `range`.
pub(crate) fn growth(events: &[Event], range: &KeyRange) -> i64 {
    events.iter().filter(|event| range.contains(event.key())).map(difference).sum()
}
