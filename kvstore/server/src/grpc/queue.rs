//! Queues of keys: what locks and elections have in common.
//!
//! ```text
//! name/<lease> name/<lease> name/<lease>     in the order of their creation; the first one has it
//!      ▲────────────┴────────────┘ each waits until all before it are gone
//! ```
//!
//! Invariants:
//! - What is asked of the store here is asked with the rights, and in the name, of whoever called.
//! - A caller that goes away while it waits leaves neither a key nor a lease of ours behind: its [`Place`] is taken and given
//!   up by a task that outlives the call, ends with the server, and sees that the caller is gone.
//! - A waiter looks at one key when something has changed, and at the whole queue only when that key is gone.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use landbridge_kvstore_store::{KeyRange, LeaseId};
use tokio::time::{Instant, interval_at};
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Status};

use super::proto::{etcdserverpb as pb, mvccpb};
use super::service::{Service, needs_leader};
use super::status;

/// How long a lease lives that whoever called did not bring, in seconds; etcd's session.
const SESSION_TTL_SECONDS: i64 = 60;
/// How often such a lease is renewed while its owner waits.
const RENEWAL: Duration = Duration::from_secs(20);

/// Who called, to ask others in their name.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    service: Service,
    metadata: MetadataMap,
    extensions: Extensions,
}

/// One place in a queue.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) key: Bytes,
    /// The revision that created the key.
    pub(super) revision: i64,
    pub(super) lease: i64,
    /// Of the answer that made the key, or found it.
    pub(super) header: pb::ResponseHeader,
    /// The value that the key has.
    pub(super) value: Bytes,
    /// Whether nobody was before it when it was taken, as far as that was asked.
    is_first: bool,
    /// Whether this call made the key.
    is_new: bool,
    /// Whether this call made the lease.
    owns_lease: bool,
}

/// What to stand with.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    /// Names the queue.
    pub(super) name: Bytes,
    /// The lease of the key; 0 is a new one.
    pub(super) lease: i64,
    /// The value of the key.
    pub(super) value: Bytes,
    /// Whether to look who is first at once.
    pub(super) ask_first: bool,
}

/// The keys of a queue.
pub(super) fn prefix(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// etcd's server is a client of itself here, and loses the codes on the way.
pub(super) fn without_code(status: &Status) -> Status {
    Status::unknown(status.message())
}

impl Caller {
    pub(super) fn of<T>(service: &Service, request: Request<T>) -> (Self, T) {
        let (metadata, extensions, message) = request.into_parts();
        (Self { service: service.clone(), metadata, extensions }, message)
    }

    pub(super) fn service(&self) -> &Service {
        &self.service
    }

    fn ask<T>(&self, message: T) -> Request<T> {
        Request::from_parts(self.metadata.clone(), self.extensions.clone(), message)
    }

    pub(super) async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        use pb::kv_server::Kv;
        Ok(self.service.range(self.ask(request)).await?.into_inner())
    }

    pub(super) async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        use pb::kv_server::Kv;
        Ok(self.service.txn(self.ask(request)).await?.into_inner())
    }

    pub(super) async fn delete(&self, key: Bytes) -> Result<pb::DeleteRangeResponse, Status> {
        use pb::kv_server::Kv;
        let request = pb::DeleteRangeRequest { key, ..Default::default() };
        Ok(self.service.delete_range(self.ask(request)).await?.into_inner())
    }

    /// Puts a value, or deletes the key if there is none, as long as the key is the one that `revision` created.
    pub(super) async fn replace(
        &self,
        key: &Bytes,
        revision: i64,
        value: Option<(Bytes, i64)>,
    ) -> Result<pb::TxnResponse, Status> {
        use pb::request_op::Request as Op;
        let op = match value {
            Some((value, lease)) => {
                Op::RequestPut(pb::PutRequest { key: key.clone(), value, lease, ..Default::default() })
            }
            None => Op::RequestDeleteRange(pb::DeleteRangeRequest { key: key.clone(), ..Default::default() }),
        };
        self.txn(pb::TxnRequest {
            compare: vec![is_created_at(key.clone(), revision)],
            success: vec![pb::RequestOp { request: Some(op) }],
            failure: Vec::new(),
        })
        .await
    }

    /// The lease to go on with: the given one, or a new one. Tells whether it is new.
    pub(super) async fn session(&self, lease: i64) -> Result<(i64, bool), Status> {
        use pb::lease_server::Lease;
        if lease != 0 {
            return Ok((lease, false));
        }
        let request = pb::LeaseGrantRequest { ttl: SESSION_TTL_SECONDS, id: 0 };
        let granted = self.service.lease_grant(self.ask(request)).await?.into_inner();
        Ok((granted.id, true))
    }

    /// Takes a place and waits until it is the first. `finish` is asked for the answer then; the place is kept if that
    /// succeeds, and whoever called is still there.
    pub(super) async fn stand<T: Send + 'static, F: Future<Output = Result<T, Status>> + Send>(
        self,
        standing: Standing,
        finish: impl FnOnce(Self, Place, bool) -> F + Send + 'static,
    ) -> Result<T, Status> {
        let gone = CancellationToken::new();
        let caller_is_there = gone.clone().drop_guard();
        let tracker = self.service.tracker().clone();
        let (answer, answered) = tokio::sync::oneshot::channel();
        tracker.spawn(async move {
            let name = standing.name.clone();
            let place = match self.take_place(standing).await {
                Ok(place) => place,
                Err(error) => return drop(answer.send(Err(error))),
            };
            let giving_up = place.giving_up();
            let outcome = tokio::select! {
                biased;
                () = gone.cancelled() => Err(Status::cancelled("context canceled")),
                outcome = async {
                    let has_waited = self.wait_for_turn(&name, &place).await?;
                    finish(self.clone(), place, has_waited).await
                } => outcome,
            };
            let is_kept = outcome.is_ok();
            if answer.send(outcome).is_err() || !is_kept {
                self.give_up(giving_up).await;
            }
        });
        let outcome = answered.await.unwrap_or_else(|_| Err(status::stopped()));
        drop(caller_is_there.disarm());
        outcome.map_err(|status| without_code(&status))
    }

    async fn take_place(&self, standing: Standing) -> Result<Place, Status> {
        use pb::request_op::Request as Op;
        use pb::response_op::Response;
        let Standing { name, lease, value, ask_first } = standing;
        if lease < 0 {
            return Err(Status::not_found("etcdserver: requested lease not found"));
        }
        let (lease, owns_lease) = self.session(lease).await?;
        let mut key = name.to_vec();
        let mut suffix = String::new();
        write!(suffix, "/{lease:x}").map_err(|error| Status::internal(error.to_string()))?;
        key.extend_from_slice(suffix.as_bytes());
        let key = Bytes::from(key);
        let put = pb::PutRequest { key: key.clone(), value: value.clone(), lease, ..Default::default() };
        let get = pb::RangeRequest { key: key.clone(), ..Default::default() };
        let mut ops = [Op::RequestPut(put), Op::RequestRange(get)].map(|op| {
            let first = ask_first.then(|| Op::RequestRange(oldest(&name)));
            let ops = std::iter::once(op).chain(first);
            ops.map(|op| pb::RequestOp { request: Some(op) }).collect::<Vec<_>>()
        });
        let request = pb::TxnRequest {
            compare: vec![is_created_at(key.clone(), 0)],
            success: std::mem::take(&mut ops[0]),
            failure: std::mem::take(&mut ops[1]),
        };
        let answer = self.txn(request).await;
        if owns_lease && answer.is_err() {
            self.revoke(lease).await;
        }
        let answer = answer?;
        let header = answer.header.unwrap_or_default();
        let mut ranges = answer.responses.into_iter().filter_map(|response| match response.response {
            Some(Response::ResponseRange(range)) => Some(range.kvs.into_iter().next()),
            _ => None,
        });
        let (revision, value) = if answer.succeeded {
            (header.revision, value)
        } else {
            let found = ranges.next().flatten().ok_or_else(|| Status::internal("landbridge: no key"))?;
            (found.create_revision(), Bytes::copy_from_slice(found.value()))
        };
        let is_first = match ranges.next() {
            Some(first) => first.is_none_or(|first| first.create_revision() == revision),
            None => false,
        };
        Ok(Place { key, revision, lease, header, value, is_first, is_new: answer.succeeded, owns_lease })
    }

    /// Waits until nobody is before `place`. Tells whether anybody was.
    async fn wait_for_turn(&self, name: &[u8], place: &Place) -> Result<bool, Status> {
        if place.is_first {
            return Ok(false);
        }
        let mut revisions = self.service.engine().revisions();
        let mut has_waited = false;
        let mut renewals = interval_at(Instant::now() + RENEWAL, RENEWAL);
        loop {
            revisions.borrow_and_update();
            let Some(before) = self.last_before(name, place.revision).await? else { return Ok(has_waited) };
            has_waited = true;
            let key = KeyRange::Single(Bytes::copy_from_slice(before.key()));
            loop {
                tokio::select! {
                    end = self.service.stream_end(needs_leader(&self.metadata)) => return Err(end),
                    Ok(()) = revisions.changed() => {}
                    _ = renewals.tick(), if place.owns_lease => {
                        if let Ok(lease) = LeaseId::new(place.lease) {
                            self.service.engine().renew_lease(lease).await?;
                        }
                        continue;
                    }
                }
                if !self.service.has_key(&key, before.create_revision()) {
                    break;
                }
            }
        }
    }

    /// The last of those who came before a revision.
    async fn last_before(&self, name: &[u8], revision: i64) -> Result<Option<mvccpb::KeyValue>, Status> {
        let request = pb::RangeRequest {
            max_create_revision: revision - 1,
            sort_order: pb::range_request::SortOrder::Descend.into(),
            ..oldest(name)
        };
        Ok(self.range(request).await?.kvs.into_iter().next())
    }

    async fn give_up(&self, giving_up: GivingUp) {
        let GivingUp { key, revision, lease } = giving_up;
        // What goes wrong here ends with the lease.
        match (key, lease) {
            (_, Some(lease)) => self.revoke(lease).await,
            (Some(key), None) => drop(self.replace(&key, revision, None).await),
            (None, None) => {}
        }
    }

    async fn revoke(&self, lease: i64) {
        use pb::lease_server::Lease;
        drop(self.service.lease_revoke(self.ask(pb::LeaseRevokeRequest { id: lease })).await);
    }
}

impl Place {
    fn giving_up(&self) -> GivingUp {
        GivingUp {
            key: self.is_new.then(|| self.key.clone()),
            revision: self.revision,
            lease: self.owns_lease.then_some(self.lease),
        }
    }
}

/// What a call has made, and takes away if it fails.
#[derive(Debug)]
struct GivingUp {
    key: Option<Bytes>,
    revision: i64,
    lease: Option<i64>,
}

impl Service {
    /// Whether a key is there, and the same as the one that `revision` created.
    pub(super) fn has_key(&self, key: &KeyRange, revision: i64) -> bool {
        let request = landbridge_kvstore_store::RangeRequest::new(key.clone());
        self.engine().read(|store| {
            let found = store.range(&request);
            found.is_ok_and(|found| found.kvs.first().is_some_and(|kv| kv.create_revision() == revision))
        })
    }
}

/// Asks who is first.
pub(super) fn oldest(name: &[u8]) -> pb::RangeRequest {
    let prefix = prefix(name);
    // A prefix ends in a slash, and a zero is what follows it.
    let mut range_end = prefix.to_vec();
    if let Some(last) = range_end.last_mut() {
        *last += 1;
    }
    pb::RangeRequest {
        key: prefix,
        range_end: range_end.into(),
        limit: 1,
        sort_order: pb::range_request::SortOrder::Ascend.into(),
        sort_target: pb::range_request::SortTarget::Create.into(),
        ..Default::default()
    }
}

fn is_created_at(key: Bytes, revision: i64) -> pb::Compare {
    use pb::compare::{CompareResult, CompareTarget, TargetUnion};
    pb::Compare {
        key,
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Default::default()
    }
}
