//! All versions of one key that are not compacted, oldest first.

use std::sync::Arc;

use crate::KeyValue;

/// What happened to a key at a revision.
#[derive(Clone, Debug)]
pub(crate) enum Version {
    Put(Arc<KeyValue>),
    Tombstone { revision: i64 },
}

impl Version {
    pub(crate) fn revision(&self) -> i64 {
        match self {
            Self::Put(kv) => kv.mod_revision,
            Self::Tombstone { revision } => *revision,
        }
    }

    fn put(&self) -> Option<&Arc<KeyValue>> {
        match self {
            Self::Put(kv) => Some(kv),
            Self::Tombstone { .. } => None,
        }
    }
}

/// The history of a key. Most keys have one version, so that the common case is one small vector.
#[derive(Clone, Debug, Default)]
pub(crate) struct Versions(Vec<Version>);

impl Versions {
    pub(crate) fn push(&mut self, version: Version) {
        self.0.push(version);
    }

    /// The key as it is now.
    pub(crate) fn current(&self) -> Option<&Arc<KeyValue>> {
        self.0.last().and_then(Version::put)
    }

    /// The key as it was at `revision`.
    pub(crate) fn at(&self, revision: i64) -> Option<&Arc<KeyValue>> {
        let later = self.0.partition_point(|version| version.revision() <= revision);
        self.0[..later].last().and_then(Version::put)
    }

    /// What happened to the key at exactly this revision.
    pub(crate) fn of(&self, revision: i64) -> Option<&Version> {
        let at = self.0.binary_search_by_key(&revision, Version::revision).ok()?;
        self.0.get(at)
    }

    /// All of them, from the oldest.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Version> {
        self.0.iter()
    }

    /// Forgets what no read at `revision` or later can see. A tombstone of exactly that revision stays, for those who
    /// watch from it. Returns whether nothing is left.
    pub(crate) fn compact(&mut self, revision: i64) -> bool {
        let later = self.0.partition_point(|version| version.revision() <= revision);
        let forgotten = match self.0[..later].last() {
            Some(Version::Tombstone { revision: deleted }) if *deleted < revision => later,
            Some(_) => later - 1,
            None => 0,
        };
        self.0.drain(..forgotten);
        self.0.is_empty()
    }
}
