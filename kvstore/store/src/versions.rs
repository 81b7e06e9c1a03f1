//! All versions of one key that are not compacted, oldest first.

use crate::KeyValue;

/// The history of a key, its deletions included. Most keys have one version, so that the common case is one small vector.
#[derive(Clone, Debug, Default)]
pub(crate) struct Versions(Vec<KeyValue>);

impl Versions {
    pub(crate) fn push(&mut self, version: KeyValue) {
        self.0.push(version);
    }

    /// The key as it is now.
    pub(crate) fn current(&self) -> Option<&KeyValue> {
        self.0.last().filter(|version| !version.is_deletion())
    }

    /// The key as it was at `revision`.
    pub(crate) fn at(&self, revision: i64) -> Option<&KeyValue> {
        let later = self.0.partition_point(|version| version.mod_revision() <= revision);
        self.0[..later].last().filter(|version| !version.is_deletion())
    }

    /// What happened to the key at exactly this revision.
    pub(crate) fn of(&self, revision: i64) -> Option<&KeyValue> {
        let at = self.0.binary_search_by_key(&revision, KeyValue::mod_revision).ok()?;
        self.0.get(at)
    }

    /// All of them, from the oldest.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &KeyValue> {
        self.0.iter()
    }

    /// Forgets what no read at `revision` or later can see. A deletion at exactly that revision stays, for those who
    /// watch from it. Returns whether nothing is left.
    pub(crate) fn compact(&mut self, revision: i64) -> bool {
        let later = self.0.partition_point(|version| version.mod_revision() <= revision);
        let forgotten = match self.0[..later].last() {
            Some(last) if last.is_deletion() && last.mod_revision() < revision => later,
            Some(_) => later - 1,
            None => 0,
        };
        self.0.drain(..forgotten);
        self.0.is_empty()
    }
}
