//! What one user may do.

use landbridge_kvstore_store::auth::{AuthStore, Cover, Granted};
use landbridge_kvstore_store::{KeyRange, LeaseId, Op, PutRequest, Store, TxnRequest};

use super::AccessError;

/// What one user may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    scope: Scope,
    /// By which users and roles that is so: 0 if by rules, else [`AuthStore::version`].
    version: u64,
    /// The token is of users and roles that were changed since.
    is_stale: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Scope {
    All,
    Granted {
        read: Cover,
        write: Cover,
        /// Who may put no key has no leases either.
        strict_leases: bool,
    },
    /// A name, or an empty one, that is no user's. It may not do anything to keys.
    Unknown {
        has_name: bool,
    },
}

impl Permissions {
    /// Everything.
    pub fn all() -> Self {
        Self { scope: Scope::All, version: 0, is_stale: false }
    }

    /// What rules grant.
    pub(super) fn by_rules(read: Cover, write: Cover) -> Self {
        let scope = Scope::Granted { read, write, strict_leases: true };
        Self { scope, version: 0, is_stale: false }
    }

    /// What users and roles in the store grant.
    pub(super) fn by_store(auth: &AuthStore, user: &str) -> Self {
        let scope = match auth.granted(user) {
            _ if !auth.is_enabled() => Scope::All,
            None => Scope::Unknown { has_name: !user.is_empty() },
            Some(Granted { root: true, .. }) => Scope::All,
            Some(Granted { read, write, .. }) => Scope::Granted { read, write, strict_leases: false },
        };
        Self { scope, version: auth.version(), is_stale: false }
    }

    /// The same, for a token of users and roles that were changed since.
    pub(super) fn stale(mut self) -> Self {
        self.is_stale = true;
        self
    }

    /// By which users and roles this is allowed; to be given with the command that follows from it.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Whether what was looked at at the same time as `auth` may be told.
    ///
    /// # Errors
    /// [`AccessError::OldRevision`] if users and roles have changed since this was worked out.
    pub(crate) fn check_current(&self, auth: &AuthStore) -> Result<(), AccessError> {
        if auth.has_outdated(self.version) { Err(AccessError::OldRevision) } else { Ok(()) }
    }

    /// Whether the user may do what concerns the store as a whole. The age of its token does not matter for that, as in etcd.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn root(&self) -> Result<(), AccessError> {
        match self.scope {
            Scope::All => Ok(()),
            Scope::Granted { .. } => Err(AccessError::Denied),
            Scope::Unknown { has_name: true } => Err(AccessError::UserNotFound),
            Scope::Unknown { has_name: false } => Err(AccessError::Anonymous),
        }
    }

    /// Whether the user may read and watch all keys of a range.
    ///
    /// # Errors
    /// [`AccessError::Denied`] or [`AccessError::OldRevision`]. So for the others.
    pub fn read(&self, range: &KeyRange) -> Result<(), AccessError> {
        self.in_cover(|read, _| read.holds(range))
    }

    /// Whether the user may put and delete all keys of a range.
    ///
    /// # Errors
    /// As above.
    pub fn write(&self, range: &KeyRange) -> Result<(), AccessError> {
        self.in_cover(|_, write| write.holds(range))
    }

    fn in_cover(&self, holds: impl FnOnce(&Cover, &Cover) -> bool) -> Result<(), AccessError> {
        if self.is_stale {
            return Err(AccessError::OldRevision);
        }
        allowed(match &self.scope {
            Scope::All => true,
            Scope::Granted { read, write, .. } => holds(read, write),
            Scope::Unknown { .. } => false,
        })
    }

    /// Whether the user may have leases. By rules, they are for keys that it puts: who may put none could only fill the store
    /// with them. In etcd everyone with a name may.
    ///
    /// # Errors
    /// As above.
    pub fn leases(&self) -> Result<(), AccessError> {
        allowed(match &self.scope {
            Scope::Granted { write, strict_leases, .. } => !strict_leases || !write.is_empty(),
            Scope::All | Scope::Unknown { .. } => true,
        })
    }

    /// Whether the user may put and delete each key of a lease, which end with it: else it may not tie its own keys to it,
    /// keep it alive or end it. Costs a look-up for each range of the user's that holds keys of the lease.
    ///
    /// # Errors
    /// As above.
    pub fn write_lease(&self, store: &Store, lease: LeaseId) -> Result<(), AccessError> {
        self.of_lease(store, lease, |_, write| write.holds_lease(store, lease))
    }

    /// Where the keys of a lease have to be for the user to end it; `None` is anywhere.
    pub fn bounds_of_leases(&self) -> Option<Cover> {
        match &self.scope {
            Scope::All => None,
            Scope::Granted { write, .. } => Some(write.clone()),
            Scope::Unknown { .. } => Some(Cover::default()),
        }
    }

    /// Whether the user may read each key of a lease.
    ///
    /// # Errors
    /// As above.
    pub fn read_lease(&self, store: &Store, lease: LeaseId) -> Result<(), AccessError> {
        self.of_lease(store, lease, |read, _| read.holds_lease(store, lease))
    }

    fn of_lease(
        &self,
        store: &Store,
        lease: LeaseId,
        holds: impl FnOnce(&Cover, &Cover) -> bool,
    ) -> Result<(), AccessError> {
        if matches!(self.scope, Scope::All) || store.lease_key_from(lease, &[]).is_none() {
            return Ok(());
        }
        self.in_cover(holds)
    }

    /// Whether the user may put this. What the lease holds already is looked at elsewhere: it depends on the state.
    ///
    /// # Errors
    /// As above.
    pub fn put(&self, put: &PutRequest) -> Result<(), AccessError> {
        let key = KeyRange::Single(put.key.clone());
        self.write(&key)?;
        if put.prev_kv { self.read(&key) } else { Ok(()) }
    }

    /// Whether the user may delete a range, and be told what was there.
    ///
    /// # Errors
    /// As above.
    pub fn delete(&self, range: &KeyRange, prev_kv: bool) -> Result<(), AccessError> {
        self.write(range)?;
        if prev_kv { self.read(range) } else { Ok(()) }
    }

    /// Whether the user may do all that a transaction can come to do: both branches count, since which of them is taken
    /// tells something about keys, and so do the compares.
    ///
    /// # Errors
    /// As above.
    pub fn txn(&self, txn: &TxnRequest) -> Result<(), AccessError> {
        if matches!(self.scope, Scope::All) && !self.is_stale {
            return Ok(());
        }
        txn.compare.iter().try_for_each(|compare| self.read(&compare.range))?;
        txn.success.iter().chain(&txn.failure).try_for_each(|op| match op {
            Op::Range(range) => self.read(&range.range),
            Op::Put(put) => self.put(put),
            Op::Delete(delete) => self.delete(&delete.range, delete.prev_kv),
            Op::Txn(inner) => self.txn(inner),
        })
    }
}

fn allowed(allowed: bool) -> Result<(), AccessError> {
    if allowed { Ok(()) } else { Err(AccessError::Denied) }
}
