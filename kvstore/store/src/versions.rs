//! All versions of one key that are there, oldest first.
//!
//! Invariants:
//! - A key that was put once is one handle: no allocation besides the version's own.
//! - Whether it is live is known without a look at the versions, so that counting the items of a leaf costs little.

use std::iter::once;
use std::sync::Arc;

use crate::KeyValue;
use crate::tree::Item;

/// The history of a key, its deletions included.
#[derive(Clone, Debug)]
pub(crate) enum Versions {
    /// A key that exists and has no other version.
    One(KeyValue),
    /// Any other.
    Many(Arc<Several>),
}

/// Versions from the oldest to the newest; the last two are beside each other, since most that are more than one are two.
#[derive(Clone, Debug)]
pub(crate) struct Several {
    older: Vec<KeyValue>,
    before: Option<KeyValue>,
    newest: KeyValue,
    is_live: bool,
}

impl Several {
    fn iter(&self) -> impl DoubleEndedIterator<Item = &KeyValue> {
        self.older.iter().chain(&self.before).chain(once(&self.newest))
    }

    fn len(&self) -> usize {
        self.older.len() + usize::from(self.before.is_some()) + 1
    }
}

impl Versions {
    /// A key with its first version.
    pub(crate) fn new(newest: KeyValue) -> Self {
        if newest.is_deletion() {
            Self::Many(Arc::new(Several { older: Vec::new(), before: None, newest, is_live: false }))
        } else {
            Self::One(newest)
        }
    }

    /// Adds the newest version.
    pub(crate) fn push(&mut self, newest: KeyValue) {
        let is_live = !newest.is_deletion();
        match self {
            Self::One(before) => {
                let before = Some(before.clone());
                *self = Self::Many(Arc::new(Several { older: Vec::new(), before, newest, is_live }));
            }
            Self::Many(several) => {
                let several = Arc::make_mut(several);
                let before = std::mem::replace(&mut several.newest, newest);
                several.older.extend(several.before.replace(before));
                several.is_live = is_live;
            }
        }
    }

    /// What happened to the key last.
    pub(crate) fn newest(&self) -> &KeyValue {
        match self {
            Self::One(only) => only,
            Self::Many(several) => &several.newest,
        }
    }

    /// The key as it is now.
    pub(crate) fn current(&self) -> Option<&KeyValue> {
        self.is_live().then(|| self.newest())
    }

    /// The key as it was at `revision`.
    pub(crate) fn at(&self, revision: i64) -> Option<&KeyValue> {
        self.change_at(revision).filter(|version| !version.is_deletion())
    }

    /// What happened to the key last at `revision` or before.
    pub(crate) fn change_at(&self, revision: i64) -> Option<&KeyValue> {
        let is_seen = |version: &&KeyValue| version.mod_revision() <= revision;
        let Self::Many(several) = self else { return Some(self.newest()).filter(is_seen) };
        if let Some(found) =
            [Some(&several.newest), several.before.as_ref()].into_iter().flatten().find(is_seen)
        {
            return Some(found);
        }
        let later = several.older.partition_point(|version| version.mod_revision() <= revision);
        several.older[..later].last()
    }

    /// Those that are not forgotten by a compaction to `revision`, from the oldest.
    pub(crate) fn kept(&self, revision: i64) -> impl Iterator<Item = &KeyValue> {
        let (one, several) = match self {
            Self::One(only) => (Some(only), None),
            Self::Many(several) => (None, Some(several)),
        };
        let forgotten = self.forgotten(revision);
        one.into_iter().chain(several.into_iter().flat_map(|several| several.iter())).skip(forgotten)
    }

    /// How many no read at `revision` or later can see. A deletion at exactly that revision stays, for those who watch from
    /// it.
    fn forgotten(&self, revision: i64) -> usize {
        let Self::Many(several) = self else { return 0 };
        let later = several.iter().rev().take_while(|version| version.mod_revision() > revision).count();
        let seen = several.len() - later;
        match several.iter().nth(seen.wrapping_sub(1)) {
            Some(last) if last.is_deletion() && last.mod_revision() < revision => seen,
            Some(_) => seen - 1,
            None => 0,
        }
    }

    /// Forgets what a compaction to `revision` does, and shows it to `forget`. Returns whether anything is left.
    pub(crate) fn compact(&mut self, revision: i64, forget: impl FnMut(&KeyValue)) -> bool {
        let forgotten = self.forgotten(revision);
        let Self::Many(several) = self else { return true };
        if forgotten == 0 {
            return true;
        }
        several.iter().take(forgotten).for_each(forget);
        if forgotten == several.len() {
            return false;
        }
        let several = Arc::make_mut(several);
        if forgotten > several.older.len() {
            several.before = None;
        }
        several.older.drain(..forgotten.min(several.older.len()));
        if several.is_live && several.len() == 1 {
            *self = Self::One(several.newest.clone());
        } else {
            several.older.shrink_to_fit();
        }
        true
    }
}

impl Item for Versions {
    type Key = [u8];
    type Separator = Arc<[u8]>;

    fn key(&self) -> &[u8] {
        self.newest().key()
    }

    fn is_live(&self) -> bool {
        match self {
            Self::One(_) => true,
            Self::Many(several) => several.is_live,
        }
    }

    fn separator(before: &Self, from: &Self) -> Arc<[u8]> {
        separator(before.key(), from.key())
    }
}

/// The shortest key that is above `before` and not above `from`, which is above it.
pub(crate) fn separator(before: &[u8], from: &[u8]) -> Arc<[u8]> {
    let common = before.iter().zip(from).take_while(|(one, other)| one == other).count();
    from[..from.len().min(common + 1)].into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fields;

    fn versions(revisions: &[i64]) -> Versions {
        let version = |revision: &i64| match *revision {
            ..0 => KeyValue::deletion(b"k", -revision, 0),
            revision => KeyValue::new(&Fields {
                key: b"k",
                create_revision: 1,
                mod_revision: revision,
                version: 1,
                ..Fields::default()
            }),
        };
        let mut all = revisions.iter().map(version);
        let mut versions = Versions::new(all.next().unwrap());
        all.for_each(|version| versions.push(version));
        versions
    }

    /// Deletions are below zero.
    fn revisions<'a>(versions: impl Iterator<Item = &'a KeyValue>) -> Vec<i64> {
        versions.map(|kv| if kv.is_deletion() { -kv.mod_revision() } else { kv.mod_revision() }).collect()
    }

    #[test]
    fn an_entry_is_as_small_as_a_handle() {
        assert_eq!(size_of::<Versions>(), size_of::<KeyValue>());
    }

    #[test]
    fn a_compaction_keeps_what_can_still_be_read_or_watched() {
        let all = [2, 3, -5, 6, -8];
        let kept: [(i64, &[i64]); 8] = [
            (1, &all),
            (2, &all),
            (3, &all[1..]),
            (4, &all[1..]),
            (5, &all[2..]),
            (6, &all[3..]),
            (8, &all[4..]),
            (9, &[]),
        ];
        for (revision, expected) in kept {
            let mut compacted = versions(&all);
            assert_eq!(revisions(compacted.kept(revision)), expected, "at {revision}");
            let mut forgotten = 0;
            assert_eq!(compacted.compact(revision, |_| forgotten += 1), !expected.is_empty());
            assert_eq!(forgotten, all.len() - expected.len());
            if !expected.is_empty() {
                assert_eq!(revisions(compacted.kept(0)), expected);
            }
            for read in revision..10 {
                assert_eq!(
                    versions(&all).at(read),
                    compacted.at(read).filter(|_| !expected.is_empty()),
                    "at {read}"
                );
            }
        }
    }
}
