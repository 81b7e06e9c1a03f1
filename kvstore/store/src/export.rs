//! Taking a store apart for a snapshot, and putting it together again: a member that begins with a snapshot goes on
//! exactly as those that made every change themselves.
//!
//! ```text
//! Store ─► Beginning │ Lease … │ Version … ─► StoreBuilder ─► Store
//! ```
//!
//! Invariants:
//! - The parts hold all there is: history since the compacted revision, old versions, tombstones, leases without keys.
//! - The history is made of the versions, which tell their revision and their number in it; what is shared in a store is
//!   shared in its copy.
//! - What a compaction forgot is not among the parts, however much of it is still in memory.

use std::iter;

use crate::compact::{FIRST_REVISION, Sweep};
use crate::history::{Changes, History};
use crate::store::size_of_version;
use crate::tree::Item;
use crate::versions::Versions;
use crate::{Event, LeaseId, Store};

/// A piece of a store. They come in the order of the variants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorePart {
    /// Comes first, once.
    Beginning {
        /// The compacted revision, 0 if there is none.
        compacted: i64,
        /// The current revision.
        revision: i64,
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
    /// Not all changes of a revision are there.
    #[error("the changes of revision {revision} are not complete")]
    UnknownVersion {
        /// The revision.
        revision: i64,
    },
}

impl Store {
    /// All there is, piece by piece.
    pub fn parts(&self) -> impl Iterator<Item = StorePart> {
        let beginning = StorePart::Beginning { compacted: self.compacted, revision: self.revision() };
        let leases = self.leases.ids().filter_map(|id| {
            self.leases.ttl_seconds(id).map(|ttl_seconds| StorePart::Lease { id, ttl_seconds })
        });
        let versions = self.keys.iter().flat_map(|versions| {
            versions.kept(self.compacted).map(|version| StorePart::Version(Event::of(version.clone())))
        });
        iter::once(beginning).chain(leases).chain(versions)
    }
}

/// Makes a store out of its parts.
#[derive(Debug, Default)]
pub struct StoreBuilder {
    store: Option<Store>,
    /// The current revision that the beginning told.
    revision: i64,
    /// The key whose versions came last, with those.
    last: Option<Versions>,
    /// Versions that are changes of the history: revision, number in it, and the change.
    changes: Vec<(i64, u32, Event)>,
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
            let StorePart::Beginning { compacted, revision } = part else {
                return Err(BuildError::Beginning);
            };
            if compacted < -1 || revision < compacted.max(1) {
                return Err(BuildError::Beginning);
            }
            let history = History::from(compacted.max(FIRST_REVISION));
            self.store = Some(Store { history, compacted, sweep: Sweep::new(compacted), ..Store::new() });
            self.revision = revision;
            return Ok(());
        };
        match part {
            StorePart::Beginning { .. } => Err(BuildError::Beginning),
            StorePart::Lease { id, ttl_seconds } => {
                if self.last.is_some() || store.leases.last() >= Some(id) {
                    return Err(BuildError::OutOfOrder);
                }
                store.leases.grant(id, ttl_seconds).map_err(|_| BuildError::OutOfOrder)
            }
            StorePart::Version(event) => self.add_version(event),
        }
    }

    /// The store, once all parts are added.
    ///
    /// # Errors
    /// [`BuildError`] if they are no store.
    pub fn finish(mut self) -> Result<Store, BuildError> {
        self.finish_key()?;
        let mut store = self.store.ok_or(BuildError::Beginning)?;
        self.changes.sort_unstable_by_key(|(revision, number, _)| (*revision, *number));
        let mut changes = self.changes.into_iter().peekable();
        for revision in store.revision() + 1..=self.revision {
            let mut events = Vec::new();
            while let Some((_, number, event)) = changes.next_if(|(at, ..)| *at == revision) {
                if usize::try_from(number) != Ok(events.len()) {
                    return Err(BuildError::UnknownVersion { revision });
                }
                events.push(event);
            }
            // Where revisions were raised, nothing happened at the one that everything before is compacted to.
            if events.is_empty() && revision != store.compacted {
                return Err(BuildError::UnknownVersion { revision });
            }
            store.history.push(Changes::new(events));
        }
        if changes.next().is_some() { Err(BuildError::OutOfOrder) } else { Ok(store) }
    }

    fn add_version(&mut self, event: Event) -> Result<(), BuildError> {
        if self.last.as_ref().is_some_and(|last| last.key() != event.key()) {
            self.finish_key()?;
        }
        let Some(store) = &mut self.store else { return Err(BuildError::Beginning) };
        let version = event.key_value().clone();
        let revision = event.revision();
        store.size += size_of_version(&version);
        match &mut self.last {
            Some(last) if last.newest().mod_revision() >= revision => return Err(BuildError::OutOfOrder),
            Some(last) => last.push(version),
            None => self.last = Some(Versions::new(version)),
        }
        if revision >= store.history.revisions().oldest {
            self.changes.push((revision, event.key_value().sub_revision(), event));
        }
        Ok(())
    }

    /// Takes in the key whose versions came last.
    fn finish_key(&mut self) -> Result<(), BuildError> {
        let (Some(versions), Some(store)) = (self.last.take(), &mut self.store) else { return Ok(()) };
        if store.keys.last().is_some_and(|last| last.key() >= versions.key()) {
            return Err(BuildError::OutOfOrder);
        }
        if let Some(kv) = versions.current()
            && let Some(lease) = kv.lease()
        {
            if !store.leases.exists(lease) {
                return Err(BuildError::UnknownLease { lease: lease.get() });
            }
            store.leases.put(None, kv);
        }
        store.keys.insert(versions);
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
            without(&|part| matches!(part, StorePart::Version(event) if event.revision() == 6)),
            BuildError::UnknownVersion { revision: 6 }
        );
        assert_eq!(
            built(parts.iter().cloned().chain([parts[1].clone()])).unwrap_err(),
            BuildError::OutOfOrder
        );
        assert_eq!(built([]).unwrap_err(), BuildError::Beginning);
    }
}
