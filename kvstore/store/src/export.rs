//! Taking a store apart for a snapshot, and putting it together again: a member that begins with a snapshot goes on
//! exactly as those that made every change themselves.
//!
//! ```text
//! Store ─► Beginning │ Lease … │ Version … │ Changes … ─► StoreBuilder ─► Store
//! ```
//!
//! Invariants:
//! - The parts hold all there is: history since the compacted revision, old versions, tombstones, leases without keys.
//! - A value that keys and history share in one is shared in the other.

use std::iter;

use bytes::Bytes;

use crate::history::History;
use crate::versions::Versions;
use crate::{Event, KeyValue, LeaseId, Store};

/// A piece of a store. They come in the order of the variants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorePart {
    /// Comes first, once.
    Beginning {
        /// The compacted revision, 0 if there is none.
        compacted: i64,
        /// The first revision whose changes are in the history.
        oldest: i64,
    },
    /// A lease, in the order of their numbers.
    Lease {
        /// Its number.
        id: LeaseId,
        /// What it was granted, in seconds.
        ttl_seconds: i64,
    },
    /// What happened to a key at one revision: keys in their order, and the versions of each from the oldest.
    Version(Event),
    /// Which keys changed at a revision, in the order of the changes; revisions in their order, without a gap.
    Changes {
        /// When.
        revision: i64,
        /// What. Each has a version of that revision.
        keys: Vec<Bytes>,
    },
}

/// Why parts make no store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The first part is not the beginning, or another one is.
    #[error("a store has one beginning, and it comes first")]
    Beginning,
    /// A part comes too late, or twice.
    #[error("the parts of the store are not in their order")]
    OutOfOrder,
    /// A key belongs to a lease that there is not.
    #[error("a key has lease {lease:x}, which does not exist")]
    UnknownLease {
        /// The lease.
        lease: i64,
    },
    /// A key is said to have changed at a revision that it has no version of.
    #[error("a key has no version of revision {revision}, at which it is said to have changed")]
    UnknownVersion {
        /// The revision.
        revision: i64,
    },
}

impl Store {
    /// All there is, piece by piece.
    pub fn parts(&self) -> impl Iterator<Item = StorePart> {
        let oldest = self.history.revisions().oldest;
        let beginning = StorePart::Beginning { compacted: self.compacted, oldest };
        let leases = self.leases.ids().filter_map(|id| {
            self.leases.ttl_seconds(id).map(|ttl_seconds| StorePart::Lease { id, ttl_seconds })
        });
        let versions = self.keys.values().flat_map(|versions| {
            versions.iter().map(|version| StorePart::Version(Event::of(version.clone())))
        });
        let changes =
            (oldest..).zip(self.history.since(oldest)).map(|(revision, events)| StorePart::Changes {
                revision,
                keys: events.iter().map(|event| Bytes::copy_from_slice(event.key())).collect(),
            });
        iter::once(beginning).chain(leases).chain(versions).chain(changes)
    }
}

/// Makes a store out of its parts.
#[derive(Debug, Default)]
pub struct StoreBuilder {
    store: Option<Store>,
    /// The key whose versions came last, with those.
    last: Option<(Bytes, Versions)>,
    /// Whether changes have come.
    in_history: bool,
}

impl StoreBuilder {
    /// A builder without any part.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next part.
    ///
    /// # Errors
    /// [`BuildError`] if it does not fit those before; then the builder is of no more use.
    pub fn add(&mut self, part: StorePart) -> Result<(), BuildError> {
        let Some(store) = &mut self.store else {
            let StorePart::Beginning { compacted, oldest } = part else { return Err(BuildError::Beginning) };
            let history = History::from(oldest);
            self.store = Some(Store { history, compacted, ..Store::new() });
            return Ok(());
        };
        match part {
            StorePart::Beginning { .. } => Err(BuildError::Beginning),
            StorePart::Lease { id, ttl_seconds } => {
                if self.last.is_some() || self.in_history || store.leases.ids().next_back() >= Some(id) {
                    return Err(BuildError::OutOfOrder);
                }
                store.leases.grant(id, ttl_seconds).map_err(|_| BuildError::OutOfOrder)
            }
            StorePart::Version(event) if !self.in_history => self.add_version(&event),
            StorePart::Version(_) => Err(BuildError::OutOfOrder),
            StorePart::Changes { revision, keys } => {
                self.finish_key()?;
                self.add_changes(revision, &keys)
            }
        }
    }

    /// The store, once all parts are added.
    ///
    /// # Errors
    /// [`BuildError`] if they are no store.
    pub fn finish(mut self) -> Result<Store, BuildError> {
        self.finish_key()?;
        self.store.ok_or(BuildError::Beginning)
    }

    fn add_version(&mut self, event: &Event) -> Result<(), BuildError> {
        if self.last.as_ref().is_some_and(|(key, _)| key != event.key()) {
            self.finish_key()?;
        }
        let (_, versions) =
            self.last.get_or_insert_with(|| (Bytes::copy_from_slice(event.key()), Versions::default()));
        if versions.iter().next_back().is_some_and(|last| last.mod_revision() >= event.revision()) {
            return Err(BuildError::OutOfOrder);
        }
        versions.push(event.key_value().clone());
        Ok(())
    }

    /// Takes in the key whose versions came last.
    fn finish_key(&mut self) -> Result<(), BuildError> {
        let (Some((key, versions)), Some(store)) = (self.last.take(), &mut self.store) else { return Ok(()) };
        if store.keys.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return Err(BuildError::OutOfOrder);
        }
        if let Some(lease) = versions.current().and_then(KeyValue::lease) {
            if !store.leases.exists(lease) {
                return Err(BuildError::UnknownLease { lease: lease.get() });
            }
            store.leases.reattach(&key, None, Some(lease));
        }
        store.keys.insert(key, versions);
        Ok(())
    }

    fn add_changes(&mut self, revision: i64, keys: &[Bytes]) -> Result<(), BuildError> {
        let store = self.store.as_mut().ok_or(BuildError::Beginning)?;
        self.in_history = true;
        if revision != store.revision() + 1 {
            return Err(BuildError::OutOfOrder);
        }
        let event = |key: &Bytes| {
            let version = store.keys.get(key)?.of(revision)?;
            Some(Event::of(version.clone()))
        };
        let events: Option<Vec<Event>> = keys.iter().map(event).collect();
        store.history.push(events.ok_or(BuildError::UnknownVersion { revision })?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeleteRequest, KeyRange, PutRequest};

    fn put(store: &mut Store, key: &'static str, lease: Option<i64>) {
        let lease = lease.map(|id| LeaseId::new(id).unwrap());
        let request = PutRequest { key: key.into(), value: key.into(), lease, ..PutRequest::default() };
        store.put(&request).unwrap();
    }

    fn store() -> Store {
        let mut store = Store::new();
        store.grant_lease(LeaseId::new(7).unwrap(), 60).unwrap();
        store.grant_lease(LeaseId::new(-7).unwrap(), 5).unwrap();
        put(&mut store, "b", None);
        put(&mut store, "a", Some(7));
        put(&mut store, "b", Some(7));
        put(&mut store, "c", Some(7));
        store.delete(&DeleteRequest { range: KeyRange::Single("c".into()), prev_kv: false }).unwrap();
        store
    }

    fn built(parts: impl IntoIterator<Item = StorePart>) -> Result<Store, BuildError> {
        let mut builder = StoreBuilder::new();
        parts.into_iter().try_for_each(|part| builder.add(part))?;
        builder.finish()
    }

    #[test]
    fn a_store_is_the_sum_of_its_parts() {
        let mut store = store();
        for compacted in [None, Some(3), Some(6)] {
            if let Some(revision) = compacted {
                store.compact(revision).unwrap();
            }
            let copy = built(store.parts()).unwrap();
            assert!(copy.parts().eq(store.parts()), "{copy:?}");
            assert_eq!((copy.revision(), copy.compacted_revision()), (6, store.compacted_revision()));
            let seven = LeaseId::new(7).unwrap();
            assert!(copy.lease_keys(seven).eq([b"a", b"b"]), "{copy:?}");
        }
    }

    #[test]
    fn a_value_that_was_shared_is_shared_again() {
        let copy = built(store().parts()).unwrap();
        let events = copy.history.since(3).next().unwrap();
        assert!(events[0].key_value().is_same(copy.current(b"a").unwrap()), "{copy:?}");
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let parts: Vec<StorePart> = store().parts().collect();
        let without = |left_out: &dyn Fn(&StorePart) -> bool| {
            built(parts.iter().filter(|part| !left_out(part)).cloned()).unwrap_err()
        };
        assert_eq!(without(&|part| matches!(part, StorePart::Beginning { .. })), BuildError::Beginning);
        assert_eq!(
            without(&|part| matches!(part, StorePart::Lease { id, .. } if id.get() == 7)),
            BuildError::UnknownLease { lease: 7 }
        );
        assert_eq!(
            without(&|part| matches!(part, StorePart::Version(event) if event.revision() == 4)),
            BuildError::UnknownVersion { revision: 4 }
        );
        assert_eq!(
            without(&|part| matches!(part, StorePart::Changes { revision: 3, .. })),
            BuildError::OutOfOrder
        );
        assert_eq!(
            built(parts.iter().cloned().chain([parts[1].clone()])).unwrap_err(),
            BuildError::OutOfOrder
        );
        assert_eq!(built([]).unwrap_err(), BuildError::Beginning);
    }
}
