//! The store: its state, and what single writes do to it.

use bytes::Bytes;

use crate::compact::Sweep;
use crate::history::{Changes, Event, History, Revisions};
use crate::lease::{LeaseId, Leases};
use crate::tree::{Change, Item, Tree};
use crate::versions::Versions;
use crate::{Fields, KeyRange, KeyValue, StoreError};

/// Keys with their versions, leases and the history of changes.
///
/// Starts empty at revision 1; the first write is revision 2. A clone costs nothing, and stays as it was: each of the two
/// copies what it changes, some thousand bytes at a time.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) keys: Tree<Versions>,
    pub(crate) leases: Leases,
    pub(crate) history: History,
    /// The oldest revision that can still be read, or -1 if none was ever compacted, as in etcd.
    pub(crate) compacted: i64,
    pub(crate) sweep: Sweep,
    /// Of all versions that are in memory.
    pub(crate) size: u64,
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
        Self {
            keys: Tree::default(),
            leases: Leases::default(),
            history: History::new(),
            compacted: -1,
            sweep: Sweep::new(0),
            size: 0,
        }
    }

    /// The revision of the last change, 1 if there was none.
    pub fn revision(&self) -> i64 {
        self.history.revisions().newest
    }

    /// The oldest revision that can still be read, or -1 if none was ever compacted, as in etcd.
    pub fn compacted_revision(&self) -> i64 {
        self.compacted
    }

    /// The revisions whose changes can still be watched.
    pub fn revisions(&self) -> Revisions {
        self.history.revisions()
    }

    /// The changes of one revision in their order, unless that is compacted or still to come.
    pub fn changes_at(&self, revision: i64) -> Option<Changes> {
        if revision < self.history.revisions().oldest { None } else { self.history.at(revision) }
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
        write.delete_keys(keys.iter().map(Item::key));
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

    /// The first key of a lease that is at `from` or above.
    pub fn lease_key_from(&self, id: LeaseId, from: &[u8]) -> Option<&[u8]> {
        self.leases.key_from(id, from)
    }

    /// How many bytes all versions of all keys take, about: keys, values and a fixed amount for each. What a compaction
    /// forgot counts until [`Store::compact_step`] has let go of it.
    pub fn size_bytes(&self) -> u64 {
        self.size
    }

    /// The key as it is now.
    pub(crate) fn current(&self, key: &[u8]) -> Option<&KeyValue> {
        self.keys.get(key).and_then(Versions::current)
    }

    /// Checks what depends on the state. A put that passes cannot fail.
    pub(crate) fn check_put(&self, request: &PutRequest) -> Result<(), StoreError> {
        self.check_put_lease(request)?;
        self.check_put_key(request)
    }

    /// Checks that the lease is there.
    pub(crate) fn check_put_lease(&self, request: &PutRequest) -> Result<(), StoreError> {
        let missing = request.lease.is_some_and(|lease| !self.leases.exists(lease));
        if missing { Err(StoreError::LeaseNotFound) } else { Ok(()) }
    }

    /// Checks that there is what is to be kept.
    pub(crate) fn check_put_key(&self, request: &PutRequest) -> Result<(), StoreError> {
        let keeps = request.ignore_value || request.ignore_lease;
        if keeps && self.current(&request.key).is_none() { Err(StoreError::KeyNotFound) } else { Ok(()) }
    }
}

impl PutRequest {
    /// Checks what does not depend on the state.
    ///
    /// # Errors
    /// [`StoreError::EmptyKey`], [`StoreError::ValueProvided`], [`StoreError::LeaseProvided`].
    pub fn validate(&self) -> Result<(), StoreError> {
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
    pub(crate) events: Vec<Event>,
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
        let (revision, sub_revision) = (self.revision, self.sub_revision());
        let (previous, kv) = self.store.keys.alter(&request.key, |versions| {
            let previous = versions.as_ref().and_then(|versions| versions.current().cloned());
            let kept = previous.as_ref().map(KeyValue::fields);
            let lease = if request.ignore_lease { kept.and_then(|kv| kv.lease) } else { request.lease };
            let fields = Fields {
                key: &request.key,
                create_revision: kept.map_or(revision, |kv| kv.create_revision),
                mod_revision: revision,
                version: kept.map_or(0, |kv| kv.version) + 1,
                value: kept.filter(|_| request.ignore_value).map_or(&request.value, |kv| kv.value),
                lease,
            };
            let kv = KeyValue::with_sub_revision(&fields, sub_revision);
            let change = match versions {
                Some(versions) => {
                    versions.push(kv.clone());
                    Change::Keep
                }
                None => Change::Put(Versions::new(kv.clone())),
            };
            (change, (previous, kv))
        });
        self.store.size += size_of_version(&kv);
        self.store.leases.put(previous.as_ref(), &kv);
        self.events.push(Event::of(kv));
        PutResponse { prev_kv: previous.filter(|_| request.prev_kv) }
    }

    pub(crate) fn delete(&mut self, request: &DeleteRequest) -> DeleteResponse {
        let Some(bounds) = request.range.bounds() else { return DeleteResponse::default() };
        let there: Vec<KeyValue> =
            self.store.keys.live(bounds).map(|versions| versions.newest().clone()).collect();
        self.delete_keys(there.iter().map(KeyValue::key));
        let mut leased: Vec<(LeaseId, &KeyValue)> =
            there.iter().filter_map(|kv| Some((kv.lease()?, kv))).collect();
        // Those of a lease stay in the order of the keys.
        leased.sort_by_key(|(lease, _)| *lease);
        for kvs in leased.chunk_by(|(one, _), (other, _)| one == other) {
            self.store.leases.detach(kvs[0].0, kvs.iter().map(|(_, kv)| kv.key()));
        }
        DeleteResponse {
            deleted: i64::try_from(there.len()).expect("memory ends before the numbers do"),
            prev_kvs: if request.prev_kv { there } else { Vec::new() },
        }
    }

    /// Deletes keys that exist, in their order.
    fn delete_keys<'k>(&mut self, keys: impl Iterator<Item = &'k [u8]>) {
        let Self { store: Store { keys: index, size, .. }, revision, events } = self;
        index.alter_each(keys, |versions| {
            let deletion = KeyValue::deletion(versions.key(), *revision, sub_revision(events));
            *size += size_of_version(&deletion);
            versions.push(deletion.clone());
            events.push(Event::of(deletion));
            true
        });
    }

    /// The number of the next change.
    fn sub_revision(&self) -> u32 {
        sub_revision(&self.events)
    }

    /// Makes the changes, if there are any, the next revision of the store.
    pub(crate) fn commit(self) {
        if !self.events.is_empty() {
            self.store.history.push(Changes::new(self.events));
        }
    }
}

fn sub_revision(events: &[Event]) -> u32 {
    u32::try_from(events.len()).expect("memory ends before the numbers do")
}

/// What a version counts for in the size of a store.
pub(crate) fn size_of_version(version: &KeyValue) -> u64 {
    /// Handles in the index and in the history, and what a key's entry takes.
    const OVERHEAD: usize = 64;
    (version.encoded().len() + OVERHEAD) as u64
}
