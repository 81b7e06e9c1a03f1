//! The store: its state, and what single writes do to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::history::{Event, History, Revisions};
use crate::lease::{LeaseId, Leases};
use crate::versions::Versions;
use crate::{Fields, KeyRange, KeyValue, StoreError};

/// Keys with their versions, leases and the history of changes.
///
/// Starts empty at revision 1; the first write is revision 2.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) keys: BTreeMap<Bytes, Versions>,
    pub(crate) leases: Leases,
    pub(crate) history: History,
    /// The oldest revision that can still be read, or 0 if none was ever compacted.
    pub(crate) compacted: i64,
}

/// Sets the value of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutRequest {
    /// The key, not empty.
    pub key: Bytes,
    /// Its new value.
    pub value: Bytes,
    /// The lease it goes with from now on; `None` detaches it.
    pub lease: Option<LeaseId>,
    /// Keep the value that the key has; `value` has to be empty.
    pub ignore_value: bool,
    /// Keep the lease that the key has; `lease` has to be `None`.
    pub ignore_lease: bool,
    /// Return the key as it was before.
    pub prev_kv: bool,
}

/// What a put did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutResponse {
    /// The key as it was before, if it was asked for and existed.
    pub prev_kv: Option<KeyValue>,
}

/// Deletes keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRequest {
    /// Which.
    pub range: KeyRange,
    /// Return the keys as they were before.
    pub prev_kv: bool,
}

/// What a deletion did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteResponse {
    /// How many keys there were.
    pub deleted: i64,
    /// The keys as they were before, if that was asked for.
    pub prev_kvs: Vec<KeyValue>,
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// An empty store at revision 1.
    pub fn new() -> Self {
        Self { keys: BTreeMap::new(), leases: Leases::default(), history: History::new(), compacted: 0 }
    }

    /// The revision of the last change, 1 if there was none.
    pub fn revision(&self) -> i64 {
        self.history.revisions().newest
    }

    /// The oldest revision that can still be read, or 0 if none was ever compacted.
    pub fn compacted_revision(&self) -> i64 {
        self.compacted
    }

    /// The revisions whose changes can still be watched.
    pub fn revisions(&self) -> Revisions {
        self.history.revisions()
    }

    /// The changes of one revision in their order, unless that is compacted or still to come.
    pub fn changes_at(&self, revision: i64) -> Option<&Arc<[Event]>> {
        self.history.at(revision)
    }

    /// Puts a key.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing has changed.
    pub fn put(&mut self, request: &PutRequest) -> Result<PutResponse, StoreError> {
        request.validate()?;
        self.check_put(request)?;
        let mut write = Write::new(self);
        let response = write.put(request);
        write.commit();
        Ok(response)
    }

    /// Deletes keys. The revision stays as it is if there were none.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing has changed.
    pub fn delete(&mut self, request: &DeleteRequest) -> Result<DeleteResponse, StoreError> {
        request.validate()?;
        let mut write = Write::new(self);
        let response = write.delete(request);
        write.commit();
        Ok(response)
    }

    /// Makes a lease without keys. How long it lives is for the leader to watch.
    ///
    /// # Errors
    /// [`StoreError::LeaseExists`].
    pub fn grant_lease(&mut self, id: LeaseId, ttl_seconds: i64) -> Result<(), StoreError> {
        self.leases.grant(id, ttl_seconds)
    }

    /// Ends a lease, and deletes its keys at one revision, in their order.
    ///
    /// # Errors
    /// [`StoreError::LeaseNotFound`].
    pub fn revoke_lease(&mut self, id: LeaseId) -> Result<(), StoreError> {
        let keys = self.leases.revoke(id)?;
        let mut write = Write::new(self);
        for key in keys {
            write.delete_key(&key);
        }
        write.commit();
        Ok(())
    }

    /// All leases by number.
    pub fn leases(&self) -> impl Iterator<Item = LeaseId> {
        self.leases.ids()
    }

    /// The time to live that a lease was granted, in seconds.
    pub fn lease_ttl_seconds(&self, id: LeaseId) -> Option<i64> {
        self.leases.ttl_seconds(id)
    }

    /// The keys of a lease in order; none if it does not exist.
    pub fn lease_keys(&self, id: LeaseId) -> impl Iterator<Item = &[u8]> {
        self.leases.keys(id)
    }

    /// The key as it is now.
    pub(crate) fn current(&self, key: &[u8]) -> Option<&KeyValue> {
        self.keys.get(key).and_then(Versions::current)
    }

    /// Checks what depends on the state. A put that passes cannot fail.
    pub(crate) fn check_put(&self, request: &PutRequest) -> Result<(), StoreError> {
        if request.lease.is_some_and(|lease| !self.leases.exists(lease)) {
            return Err(StoreError::LeaseNotFound);
        }
        if (request.ignore_value || request.ignore_lease) && self.current(&request.key).is_none() {
            return Err(StoreError::KeyNotFound);
        }
        Ok(())
    }
}

impl PutRequest {
    /// Checks what does not depend on the state.
    pub(crate) fn validate(&self) -> Result<(), StoreError> {
        if self.key.is_empty() {
            return Err(StoreError::EmptyKey);
        }
        if self.ignore_value && !self.value.is_empty() {
            return Err(StoreError::ValueProvided);
        }
        if self.ignore_lease && self.lease.is_some() {
            return Err(StoreError::LeaseProvided);
        }
        Ok(())
    }
}

impl DeleteRequest {
    pub(crate) fn validate(&self) -> Result<(), StoreError> {
        self.range.validate()
    }
}

impl KeyRange {
    /// An empty start is etcd's error, not "everything": that is a start of one zero byte.
    pub(crate) fn validate(&self) -> Result<(), StoreError> {
        let (Self::Single(start) | Self::Between(start, _) | Self::From(start)) = self;
        if start.is_empty() { Err(StoreError::EmptyKey) } else { Ok(()) }
    }
}

/// Changes of one request, all at the next revision. Nothing in here can fail.
pub(crate) struct Write<'a> {
    pub(crate) store: &'a mut Store,
    revision: i64,
    events: Vec<Event>,
}

impl<'a> Write<'a> {
    pub(crate) fn new(store: &'a mut Store) -> Self {
        let revision = store.revision() + 1;
        Self { store, revision, events: Vec::new() }
    }

    /// What a read sees here: the next revision once something has changed.
    pub(crate) fn revision(&self) -> i64 {
        if self.events.is_empty() { self.revision - 1 } else { self.revision }
    }

    pub(crate) fn put(&mut self, request: &PutRequest) -> PutResponse {
        let previous = self.store.current(&request.key).cloned();
        let kept = previous.as_ref().map(KeyValue::fields);
        let lease = if request.ignore_lease { kept.and_then(|kv| kv.lease) } else { request.lease };
        let fields = Fields {
            key: &request.key,
            create_revision: kept.map_or(self.revision, |kv| kv.create_revision),
            mod_revision: self.revision,
            version: kept.map_or(0, |kv| kv.version) + 1,
            value: kept.filter(|_| request.ignore_value).map_or(&request.value, |kv| kv.value),
            lease,
        };
        let kv = KeyValue::with_sub_revision(&fields, self.sub_revision());
        self.store.leases.reattach(&request.key, kept.and_then(|kv| kv.lease), lease);
        self.store.keys.entry(request.key.clone()).or_default().push(kv.clone());
        self.events.push(Event::of(kv));
        PutResponse { prev_kv: previous.filter(|_| request.prev_kv) }
    }

    pub(crate) fn delete(&mut self, request: &DeleteRequest) -> DeleteResponse {
        let Some(bounds) = request.range.bounds() else { return DeleteResponse::default() };
        let there: Vec<KeyValue> = self
            .store
            .keys
            .range::<[u8], _>(bounds)
            .filter_map(|(_, versions)| versions.current().cloned())
            .collect();
        for kv in &there {
            self.delete_key(kv.key());
        }
        DeleteResponse {
            deleted: i64::try_from(there.len()).expect("memory ends before the numbers do"),
            prev_kvs: if request.prev_kv { there } else { Vec::new() },
        }
    }

    /// Deletes a key that exists.
    fn delete_key(&mut self, key: &[u8]) {
        let deletion = KeyValue::deletion(key, self.revision, self.sub_revision());
        let Some(versions) = self.store.keys.get_mut(key) else { return };
        let lease = versions.current().and_then(KeyValue::lease);
        versions.push(deletion.clone());
        self.store.leases.reattach(key, lease, None);
        self.events.push(Event::of(deletion));
    }

    /// The number of the next change.
    fn sub_revision(&self) -> u32 {
        u32::try_from(self.events.len()).expect("memory ends before the numbers do")
    }

    /// Makes the changes, if there are any, the next revision of the store.
    pub(crate) fn commit(self) {
        if !self.events.is_empty() {
            self.store.history.push(self.events);
        }
    }
}
