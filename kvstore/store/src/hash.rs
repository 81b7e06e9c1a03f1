//! A checksum of the keys and their history, which members compare: it is the one that etcd computes of the same changes.
//!
//! Invariant: it depends on the changes, the revision and the compacted revision alone, not on what is still in memory
//! (etcd 3.5, `server/storage/mvcc/hash.go`). One difference is on purpose: of a revision that was compacted, etcd keeps what
//! it computed before that until it is started again; ours is what is there now, as etcd's is after the start.

use crate::{KeyValue, RangeError, Store};

/// What etcd's `HashKV` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// CRC-32C of all versions that are not compacted, up to the revision.
    pub hash: u32,
    /// The revision.
    pub hash_revision: i64,
    /// The compacted revision, -1 if there is none.
    pub compact_revision: i64,
}

impl Store {
    /// The checksum at `revision`; 0 is the current one, and below 0 there is nothing, as in etcd. Looks at everything: on a clone, where writers do not wait.
    ///
    /// # Errors
    /// [`RangeError`] if the revision is compacted or not reached.
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, RangeError> {
        if revision > self.revision() {
            return Err(RangeError::Future);
        }
        if revision > 0 && revision < self.compacted {
            return Err(RangeError::Compacted);
        }
        let revision = if revision == 0 { self.revision() } else { revision };
        // Of what the compaction kept, etcd takes what would be kept at `revision`; all of it if no key exists there.
        let none_exists = self.keys.iter().all(|versions| versions.at(revision).is_none());
        let mut hashed: Vec<(i64, u32, &KeyValue)> = Vec::with_capacity(self.keys.count().items);
        for versions in self.keys.iter() {
            let current = versions.at(revision);
            for version in versions.kept(self.compacted) {
                let when = version.mod_revision();
                let is_kept = when > self.compacted
                    || none_exists
                    || current.is_some_and(|current| current.is_same(version));
                // Before 3.5.16 etcd forgot a deletion at the compacted revision; so it never counts.
                let is_forgotten = when == self.compacted && version.is_deletion();
                if when <= revision && is_kept && !is_forgotten {
                    hashed.push((when, version.sub_revision(), version));
                }
            }
        }
        hashed.sort_unstable_by_key(|(when, number, _)| (*when, *number));
        let hash = hashed.into_iter().fold(crc32c::crc32c(b"key"), |hash, (when, number, version)| {
            let mut place = [0; 18];
            place[..8].copy_from_slice(&when.to_be_bytes());
            place[8] = b'_';
            place[9..17].copy_from_slice(&u64::from(number).to_be_bytes());
            place[17] = b't';
            let place = if version.is_deletion() { &place[..] } else { &place[..17] };
            crc32c::crc32c_append(crc32c::crc32c_append(hash, place), version.stored_by_etcd())
        });
        Ok(HashKv { hash, hash_revision: revision, compact_revision: self.compacted })
    }
}
