//! The requests that a client offers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::proto::{PbKeyValue, PbRangeResponse, PbResponseHeader, PbTxnOpResponse, PbTxnResponse};
use etcd_client::{Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, Txn, TxnOp};
use fastrand::Rng;
use tokio::time::Instant;

use crate::connection::{Connection, Connections};
use crate::error::ClientError;
use crate::feed::{self, Feed};
use crate::kept::KeptKeys;
use crate::key_range::KeyRange;
use crate::key_value::{Creation, Header, KeyValue, Listing, Probe};
use crate::lease::{self, LeaseKeeper};
use crate::options::{ClientOptions, OptionsError};
use crate::page::{PAGE_KEYS, Page, Position};
use crate::request::{Effect, Fault, Requests};

/// The key that every user of a store of the mesh may read, and that may be missing.
const PROBE_KEY: &str = "cilium/.heartbeat";
/// A listing starts again if history is compacted under it, this often at most.
const MAX_LIST_RESTARTS: u32 = 3;

/// A client of one store. Clones share its connection.
///
/// It connects when first used and repairs its connection by itself. Dropping a request's future leaves open whether
/// the request is applied.
#[derive(Clone)]
pub struct KvClient {
    requests: Arc<Requests>,
}

impl fmt::Debug for KvClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvClient")
            .field("endpoints", &self.requests.connections.endpoints())
            .finish_non_exhaustive()
    }
}

impl KvClient {
    /// A client that is not connected yet, and tries its endpoints in a random order.
    ///
    /// # Errors
    /// [`OptionsError`]; files are read later.
    pub fn new(options: ClientOptions) -> Result<Self, OptionsError> {
        Self::with_seed(options, fastrand::u64(..))
    }

    /// Like [`Self::new`], with randomness that a test can repeat.
    ///
    /// # Errors
    /// [`OptionsError`].
    pub fn with_seed(options: ClientOptions, seed: u64) -> Result<Self, OptionsError> {
        options.check()?;
        let ClientOptions { endpoints, tls, request_timeout } = options;
        let connections = Connections::new(endpoints, tls, Rng::with_seed(seed));
        Ok(Self { requests: Arc::new(Requests::new(connections, request_timeout)) })
    }

    /// The key as it is now (linearizable), or nothing if it does not exist.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get(&self, key: &str) -> Result<Option<KeyValue>, ClientError> {
        let send = |response: PbRangeResponse| only(key, response.kvs);
        self.range("get", key, key.as_bytes().to_vec(), GetOptions::new(), send).await
    }

    /// All keys that start with `prefix`, as they are at one revision, read in pages.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::RevisionGone`] if the store compacts faster than its pages can be read.
    pub async fn list(&self, prefix: &str) -> Result<Listing, ClientError> {
        let mut restarts = 0;
        loop {
            match self.list_once(prefix).await {
                Err(ClientError::RevisionGone { .. }) if restarts < MAX_LIST_RESTARTS => restarts += 1,
                done => return done,
            }
        }
    }

    async fn list_once(&self, prefix: &str) -> Result<Listing, ClientError> {
        let range = KeyRange::of_prefix(prefix);
        let first = self.page(prefix, &range, None).await?;
        let (cluster_id, revision) = (first.header.cluster_id, first.header.revision);
        let (mut key_values, mut next) = (first.key_values, first.next);
        while let Some(start) = next {
            let page = self.page(prefix, &range, Some(Position { start, revision })).await?;
            if page.header.cluster_id != cluster_id {
                let call = self.requests.unsent("list", prefix);
                let message = "another cluster answers at its endpoint now".to_owned();
                return Err(ClientError::RevisionGone { call, message });
            }
            key_values.extend(page.key_values);
            next = page.next;
        }
        Ok(Listing { key_values, revision })
    }

    /// The first page of `range`, or the one at `position`.
    pub(crate) async fn page(
        &self,
        prefix: &str,
        range: &KeyRange,
        position: Option<Position>,
    ) -> Result<Page, ClientError> {
        let options = GetOptions::new().with_range(range.end.clone()).with_limit(PAGE_KEYS);
        let (start, options) = match position {
            None => (range.start.clone(), options),
            Some(Position { start, revision }) => (start, options.with_revision(revision)),
        };
        let check = |response| Page::from_wire(range, &start, response);
        let page = self.range("list", prefix, start.clone(), options, check).await?;
        self.requests.note_skipped(prefix, &page.skipped);
        Ok(page)
    }

    async fn range<T>(
        &self,
        operation: &'static str,
        key: &str,
        start: Vec<u8>,
        options: GetOptions,
        check: impl Fn(PbRangeResponse) -> Result<T, &'static str>,
    ) -> Result<T, ClientError> {
        let send = |connection: Arc<Connection>| {
            let (mut kv, start, options) = (connection.kv.clone(), start.clone(), options.clone());
            let check = &check;
            async move { check(kv.get(start, Some(options)).await?.0).map_err(Fault::Malformed) }
        };
        self.requests.call(operation, key, Effect::Reads, send).await
    }

    /// Sets a key, attached to `lease` if given, detached from any other. Returns the revision that did it.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::LeaseNotFound`] if the lease is gone.
    pub async fn put(
        &self,
        key: &str,
        value: impl Into<Vec<u8>>,
        lease: Option<i64>,
    ) -> Result<i64, ClientError> {
        let value = value.into();
        let options = PutOptions::new().with_lease(lease.unwrap_or(0));
        let send = |connection: Arc<Connection>| {
            let (mut kv, value, options) = (connection.kv.clone(), value.clone(), options.clone());
            async move { revision(kv.put(key, value, Some(options)).await?.0.header.as_ref()) }
        };
        self.requests.call("put", key, Effect::Writes, send).await
    }

    /// Sets a key that does not exist yet.
    ///
    /// # Errors
    /// [`ClientError`]. After one that [`ClientError::may_be_applied`], a second try may find the key of the first.
    pub async fn create(
        &self,
        key: &str,
        value: impl Into<Vec<u8>>,
        lease: Option<i64>,
    ) -> Result<Creation, ClientError> {
        let options = PutOptions::new().with_lease(lease.unwrap_or(0));
        let txn = Txn::new()
            .when([Compare::version(key, CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key, value, Some(options))])
            .or_else([TxnOp::get(key, None)]);
        let check = |response: PbTxnResponse| {
            if response.succeeded {
                return Ok(Creation::Created { revision: revision(response.header.as_ref())? });
            }
            let first = response.responses.into_iter().next().and_then(|op| op.response);
            let Some(PbTxnOpResponse::ResponseRange(range)) = first else {
                return Err(Fault::Malformed("it does not hold what was read"));
            };
            let existing = only(key, range.kvs).map_err(Fault::Malformed)?;
            existing.map(Creation::Exists).ok_or(Fault::Malformed("the key both exists and does not"))
        };
        self.txn("create", key, txn, check).await
    }

    /// Sets a key that was last written at `expected_mod_revision`, and keeps its lease. With 0, the key must not
    /// exist. Returns whether it was done.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn replace(
        &self,
        key: &str,
        value: impl Into<Vec<u8>>,
        expected_mod_revision: i64,
    ) -> Result<bool, ClientError> {
        // A key that does not exist has no lease to keep, and asking for it is an error.
        let options = (expected_mod_revision > 0).then(|| PutOptions::new().with_ignore_lease());
        let txn = Txn::new()
            .when([Compare::mod_revision(key, CompareOp::Equal, expected_mod_revision)])
            .and_then([TxnOp::put(key, value, options)]);
        self.txn("replace", key, txn, |response| Ok(response.succeeded)).await
    }

    /// Deletes a key. Returns whether there was one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete(&self, key: &str) -> Result<bool, ClientError> {
        let deleted = self.delete_range("delete", key, key.as_bytes().to_vec(), DeleteOptions::new()).await?;
        Ok(deleted > 0)
    }

    /// Deletes all keys that start with `prefix`, at one revision. Returns how many there were.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete_prefix(&self, prefix: &str) -> Result<i64, ClientError> {
        let KeyRange { start, end } = KeyRange::of_prefix(prefix);
        self.delete_range("delete prefix", prefix, start, DeleteOptions::new().with_range(end)).await
    }

    async fn delete_range(
        &self,
        operation: &'static str,
        key: &str,
        start: Vec<u8>,
        options: DeleteOptions,
    ) -> Result<i64, ClientError> {
        let send = |connection: Arc<Connection>| {
            let (mut kv, start, options) = (connection.kv.clone(), start.clone(), options.clone());
            async move { Ok(kv.delete(start, Some(options)).await?.deleted()) }
        };
        self.requests.call(operation, key, Effect::Writes, send).await
    }

    pub(crate) async fn txn<T>(
        &self,
        operation: &'static str,
        key: &str,
        txn: Txn,
        check: impl Fn(PbTxnResponse) -> Result<T, Fault>,
    ) -> Result<T, ClientError> {
        let send = |connection: Arc<Connection>| {
            let (mut kv, txn) = (connection.kv.clone(), txn.clone());
            let check = &check;
            async move { check(kv.txn(txn).await?.0) }
        };
        self.requests.call(operation, key, Effect::Writes, send).await
    }

    /// Asks for as little as a linearizable read can: whether the store serves, and how far away it is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn probe(&self) -> Result<Probe, ClientError> {
        let asked = Instant::now();
        let check = |response: PbRangeResponse| {
            Header::from_wire(response.header.as_ref()).ok_or("it does not name its cluster")
        };
        let options = GetOptions::new().with_count_only();
        let key = PROBE_KEY.as_bytes().to_vec();
        let Header { cluster_id, revision } = self.range("probe", PROBE_KEY, key, options, check).await?;
        Ok(Probe { revision, cluster_id, round_trip: asked.elapsed() })
    }

    /// Takes a lease of `ttl`, in whole seconds and at least what the store grants, and keeps it alive until the
    /// keeper is dropped.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn keep_lease(&self, ttl: Duration) -> Result<LeaseKeeper, ClientError> {
        lease::grant(self.requests.clone(), ttl).await
    }

    /// Keeps keys under `prefix` that are set at what this returns: each is there as long as that is, under a lease of `ttl`,
    /// and is put again when the lease is lost, or anybody deletes or changes it. Call it within a Tokio runtime.
    ///
    /// It follows all of `prefix`, which should hold little else, and which this client may read.
    pub fn keep_keys(&self, prefix: &str, ttl: Duration) -> KeptKeys {
        KeptKeys::start(self.clone(), prefix, ttl)
    }

    /// The content of `prefix` and every change of it from now on. Call it within a Tokio runtime.
    pub fn feed(&self, prefix: &str) -> Feed {
        feed::start(self.clone(), prefix, feed::SILENCE)
    }

    /// As [`KvClient::feed`], for who wants to know how far it is: while all is well it tells of
    /// [`FeedEvent::Progress`](crate::FeedEvent::Progress) whenever nothing else was told for `quiet`. Each costs the store
    /// a message in both directions.
    pub fn feed_with_progress(&self, prefix: &str, quiet: Duration) -> Feed {
        feed::start(self.clone(), prefix, quiet)
    }

    /// How many keys were left out so far because they are not UTF-8.
    pub fn skipped_keys(&self) -> u64 {
        self.requests.skipped_keys()
    }

    pub(crate) fn requests(&self) -> &Requests {
        &self.requests
    }
}

/// The revision after a write.
pub(crate) fn revision(header: Option<&PbResponseHeader>) -> Result<i64, Fault> {
    Ok(Header::from_wire(header).ok_or(Fault::Malformed("it does not name its cluster"))?.revision)
}

/// What was read of one key.
fn only(key: &str, key_values: Vec<PbKeyValue>) -> Result<Option<KeyValue>, &'static str> {
    let Some(first) = key_values.into_iter().next() else { return Ok(None) };
    let key_value = KeyValue::from_wire(first).ok().filter(|read| read.key == key);
    key_value.map(Some).ok_or("it holds another key")
}
