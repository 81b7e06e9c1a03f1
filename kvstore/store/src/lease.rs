//! Leases: which keys go together. When one has run out is decided elsewhere, by the leader's clock.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroI64;

use bytes::Bytes;

use crate::StoreError;

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

#[derive(Clone, Debug, Default)]
struct Lease {
    ttl_seconds: i64,
    keys: BTreeSet<Bytes>,
}

/// All leases. A key is attached to at most one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leases(BTreeMap<LeaseId, Lease>);

impl Leases {
    pub(crate) fn grant(&mut self, id: LeaseId, ttl_seconds: i64) -> Result<(), StoreError> {
        if self.0.contains_key(&id) {
            return Err(StoreError::LeaseExists);
        }
        self.0.insert(id, Lease { ttl_seconds, keys: BTreeSet::new() });
        Ok(())
    }

    /// Ends a lease and returns its keys in order.
    pub(crate) fn revoke(&mut self, id: LeaseId) -> Result<BTreeSet<Bytes>, StoreError> {
        self.0.remove(&id).map(|lease| lease.keys).ok_or(StoreError::LeaseNotFound)
    }

    pub(crate) fn exists(&self, id: LeaseId) -> bool {
        self.0.contains_key(&id)
    }

    pub(crate) fn ids(&self) -> impl DoubleEndedIterator<Item = LeaseId> {
        self.0.keys().copied()
    }

    pub(crate) fn ttl_seconds(&self, id: LeaseId) -> Option<i64> {
        self.0.get(&id).map(|lease| lease.ttl_seconds)
    }

    pub(crate) fn keys(&self, id: LeaseId) -> impl Iterator<Item = &[u8]> {
        self.0.get(&id).into_iter().flat_map(|lease| &lease.keys).map(|key| &**key)
    }

    /// Moves a key from one lease to another. Costs a set operation each, however many keys they have.
    pub(crate) fn reattach(&mut self, key: &[u8], from: Option<LeaseId>, to: Option<LeaseId>) {
        if from == to {
            return;
        }
        if let Some(lease) = from.and_then(|id| self.0.get_mut(&id)) {
            lease.keys.remove(key);
        }
        if let Some(lease) = to.and_then(|id| self.0.get_mut(&id)) {
            lease.keys.insert(Bytes::copy_from_slice(key));
        }
    }
}
