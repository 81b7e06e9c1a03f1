//! Leases: which keys go together. When one has run out is decided elsewhere, by the leader's clock.

use std::num::NonZeroI64;
use std::ops::Bound;
use std::sync::Arc;

use crate::tree::{Bounds, Change, Item, Tree};
use crate::versions::separator;
use crate::{KeyValue, StoreError};

/// Names a lease: any number but 0, which means "none" in etcd's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(NonZeroI64);

/// 0 names no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("0 is no lease ID: it stands for none")]
pub struct InvalidLeaseId;

impl LeaseId {
    /// The lease of a number.
    ///
    /// # Errors
    /// [`InvalidLeaseId`] for 0.
    pub fn new(id: i64) -> Result<Self, InvalidLeaseId> {
        NonZeroI64::new(id).map(Self).ok_or(InvalidLeaseId)
    }

    /// The number.
    pub fn get(self) -> i64 {
        self.0.get()
    }
}

/// A key of a lease: its current version, so that the key is not held twice.
#[derive(Clone, Debug)]
pub(crate) struct Attached(KeyValue);

impl Item for Attached {
    type Key = [u8];
    type Separator = Arc<[u8]>;

    fn key(&self) -> &[u8] {
        self.0.key()
    }

    fn separator(before: &Self, from: &Self) -> Arc<[u8]> {
        separator(before.key(), from.key())
    }
}

#[derive(Clone, Debug)]
struct Lease {
    id: LeaseId,
    ttl_seconds: i64,
    keys: Tree<Attached>,
}

impl Item for Lease {
    type Key = LeaseId;
    type Separator = LeaseId;

    fn key(&self) -> &LeaseId {
        &self.id
    }

    fn separator(_: &Self, from: &Self) -> LeaseId {
        from.id
    }
}

/// All leases. A key is attached to at most one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leases(Tree<Lease>);

impl Leases {
    pub(crate) fn grant(&mut self, id: LeaseId, ttl_seconds: i64) -> Result<(), StoreError> {
        if self.exists(id) {
            return Err(StoreError::LeaseExists);
        }
        self.0.insert(Lease { id, ttl_seconds, keys: Tree::default() });
        Ok(())
    }

    /// Ends a lease and returns its keys in order.
    pub(crate) fn revoke(&mut self, id: LeaseId) -> Result<Tree<Attached>, StoreError> {
        self.0.remove(&id).map(|lease| lease.keys).ok_or(StoreError::LeaseNotFound)
    }

    pub(crate) fn exists(&self, id: LeaseId) -> bool {
        self.0.get(&id).is_some()
    }

    pub(crate) fn ids(&self) -> impl DoubleEndedIterator<Item = LeaseId> {
        self.0.iter().map(|lease| lease.id)
    }

    pub(crate) fn last(&self) -> Option<LeaseId> {
        self.0.last().map(|lease| lease.id)
    }

    pub(crate) fn ttl_seconds(&self, id: LeaseId) -> Option<i64> {
        self.0.get(&id).map(|lease| lease.ttl_seconds)
    }

    pub(crate) fn keys(&self, id: LeaseId) -> impl Iterator<Item = &[u8]> {
        self.0.get(&id).into_iter().flat_map(|lease| lease.keys.iter()).map(Item::key)
    }

    /// The first key of a lease that is at `from` or above.
    pub(crate) fn key_from(&self, id: LeaseId, from: &[u8]) -> Option<&[u8]> {
        let bounds: Bounds<'_, [u8]> = (Bound::Included(from), Bound::Unbounded);
        self.0.get(&id)?.keys.range(bounds).next().map(Item::key)
    }

    /// A key that was `before` is `now`: it may go with another lease.
    pub(crate) fn put(&mut self, before: Option<&KeyValue>, now: &KeyValue) {
        let (from, to) = (before.and_then(KeyValue::lease), now.lease());
        if from != to
            && let Some(id) = from
        {
            self.change(id, |keys| drop(keys.remove(now.key())));
        }
        if let Some(id) = to {
            self.change(id, |keys| drop(keys.insert(Attached(now.clone()))));
        }
    }

    /// Keys of a lease, in their order, are deleted.
    pub(crate) fn detach<'k>(&mut self, id: LeaseId, keys: impl Iterator<Item = &'k [u8]>) {
        self.change(id, |attached| attached.alter_each(keys, |_| false));
    }

    fn change(&mut self, id: LeaseId, change: impl FnOnce(&mut Tree<Attached>)) {
        self.0.alter(&id, |lease| {
            if let Some(lease) = lease {
                change(&mut lease.keys);
            }
            (Change::Keep, ())
        });
    }
}
