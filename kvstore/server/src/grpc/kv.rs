//! Keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use landbridge_kvstore_store::{LeaseId, Op, Store, TxnLimits, TxnRequest};
use prost::Message;
use tonic::{Extensions, Request, Response, Status};

use super::convert::{self, TxnShape};
use super::proto::etcdserverpb as pb;
use super::service::{Peer, Service};
use super::status;
use crate::access::{AccessError, Permissions};
use crate::engine::{Applied, Command, Outcome};
use crate::held::Held;

impl Service {
    /// Has a command carried out, unless users and roles are of another version then; 0 if that does not matter.
    pub(super) async fn carry_out(
        &self,
        command: Command,
        version: u64,
    ) -> Result<(pb::ResponseHeader, Outcome), Status> {
        let applied = self.engine().propose_as(command, version).await?;
        let Applied { outcome, revision, term } = applied;
        Ok((self.header_of_term(revision, term), outcome.map_err(status::refused)?))
    }

    /// Whether a change is small enough to be proposed. As in etcd, whose token is not valid is told that first.
    fn check_size(&self, peer: &Peer, bytes: usize) -> Result<(), Status> {
        if bytes <= self.settings().max_request_bytes {
            return Ok(());
        }
        self.gate().identify(peer)?;
        Err(status::request_too_large())
    }

    /// Whether the user may attach keys to `leases`: keys end with their lease, so that who may not delete what is on it
    /// already may not tie its own keys to it either, as in etcd.
    fn check_leases(&self, permissions: &Permissions, leases: &BTreeSet<LeaseId>) -> Result<(), AccessError> {
        if leases.is_empty() || permissions.root().is_ok() {
            return Ok(());
        }
        self.engine().read(|store| leases.iter().try_for_each(|lease| permissions.write_lease(store, *lease)))
    }

    /// Waits until a read is not older than any answer that anyone had before, unless it may be, and looks at the rights of
    /// then if they are others.
    pub(super) async fn confirm(
        &self,
        peer: &Peer,
        permissions: Arc<Permissions>,
        serializable: bool,
        check: impl Fn(&Permissions) -> Result<(), AccessError>,
    ) -> Result<Arc<Permissions>, Status> {
        if serializable {
            return Ok(permissions);
        }
        self.engine().read_barrier().await?;
        if self.engine().read_state(|_, auth| permissions.check_current(auth)).is_ok() {
            return Ok(permissions);
        }
        let permissions = self.permissions(peer)?;
        check(&permissions)?;
        Ok(permissions)
    }

    /// Looks at the store for somebody, as long as it may be told what is found.
    pub(super) fn look_as<R>(
        &self,
        permissions: &Permissions,
        look: impl FnOnce(&Store) -> R,
    ) -> Result<R, AccessError> {
        self.engine().read_state(|store, auth| {
            permissions.check_current(auth)?;
            Ok(look(store))
        })
    }
}

#[tonic::async_trait]
impl pb::kv_server::Kv for Service {
    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let (peer, held) = (Peer::of(request.extensions()), held(request.extensions()));
        let request = request.into_inner();
        let serializable = request.serializable;
        self.check_learner_range(serializable)?;
        let request = convert::range(&request)?;
        let check = |permissions: &Permissions| permissions.read(&request.range);
        let permissions = self.permitted(&peer, check).await?;
        let permissions = self.confirm(&peer, permissions, serializable, check).await?;
        room(held.as_ref()).await;
        let look = |store: &Store| (store.revision(), store.range(&request));
        let (revision, response) = self.look_as(&permissions, look)?;
        let response = response.map_err(status::refused)?;
        self.counters().operations.ranges.add(1);
        Ok(Response::new(convert::range_response(self.header(revision), &response, request.keys_only)))
    }

    type RangeStreamStream = super::range_stream::Pieces;

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        self.range_in_pieces(request).await
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let (peer, held) = (Peer::of(request.extensions()), held(request.extensions()));
        let request = request.into_inner();
        let bytes = request.encoded_len();
        let request = convert::put(&request)?;
        self.check_size(&peer, bytes)?;
        let leases = request.lease.into_iter().collect();
        let check = |permissions: &Permissions| {
            permissions.put(&request)?;
            self.check_leases(permissions, &leases)
        };
        let permissions = self.permitted(&peer, check).await?;
        let (header, outcome) = self.carry_out(Command::Put(request), permissions.version()).await?;
        let Outcome::Put(response) = outcome else { return Err(other_outcome(&outcome)) };
        if response.prev_kv.is_some() {
            room(held.as_ref()).await;
        }
        Ok(Response::new(convert::put_response(header, &response)))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let (peer, held) = (Peer::of(request.extensions()), held(request.extensions()));
        let request = request.into_inner();
        let bytes = request.encoded_len();
        let request = convert::delete(&request)?;
        self.check_size(&peer, bytes)?;
        let check = |permissions: &Permissions| permissions.delete(&request.range, request.prev_kv);
        let permissions = self.permitted(&peer, check).await?;
        let (header, outcome) = self.carry_out(Command::DeleteRange(request), permissions.version()).await?;
        let Outcome::DeleteRange(response) = outcome else { return Err(other_outcome(&outcome)) };
        if !response.prev_kvs.is_empty() {
            room(held.as_ref()).await;
        }
        Ok(Response::new(convert::delete_response(header, &response)))
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        let (peer, held) = (Peer::of(request.extensions()), held(request.extensions()));
        let request = request.into_inner();
        let bytes = request.encoded_len();
        let serializable = is_serializable(&request);
        let limits = TxnLimits { max_ops: self.settings().max_txn_ops };
        let request = convert::txn(request, limits.max_ops)?;
        if !request.is_read_only() {
            self.check_size(&peer, bytes)?;
        }
        let mut leases = BTreeSet::new();
        collect_leases(&request, &mut leases);
        let check = |permissions: &Permissions| {
            permissions.txn(&request)?;
            self.check_leases(permissions, &leases)
        };
        let permissions = self.permitted(&peer, check).await?;
        let shape = TxnShape::of(&request);
        let (header, response) = if request.is_read_only() {
            let permissions = self.confirm(&peer, permissions, serializable, check).await?;
            room(held.as_ref()).await;
            let look = |store: &Store| (store.revision(), store.read_txn(&request, limits));
            let (revision, response) = self.look_as(&permissions, look)?;
            let response = response.map_err(status::refused)?;
            self.counters().operations.note_txn(&response);
            (self.header(revision), response)
        } else {
            let (header, outcome) = self.carry_out(Command::Txn(request), permissions.version()).await?;
            let Outcome::Txn(response) = outcome else { return Err(other_outcome(&outcome)) };
            // It is not much as long as it is not told: what was found belongs to the store.
            room(held.as_ref()).await;
            (header, response)
        };
        Ok(Response::new(convert::txn_response(header, &response, &shape)))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        self.permitted(&Peer::of(request.extensions()), Permissions::root).await?;
        let pb::CompactionRequest { revision, physical } = *request.get_ref();
        let (header, _) = self.carry_out(Command::Compact { revision }, 0).await?;
        if physical {
            self.engine().swept().await;
        }
        Ok(Response::new(pb::CompactionResponse { header: Some(header) }))
    }
}

/// What is held for the connection of a request; nothing if it comes from within.
pub(super) fn held(extensions: &Extensions) -> Option<Held> {
    extensions.get().cloned()
}

/// Waits until an answer may be built. It has to be handed on without waiting for anything else.
pub(super) async fn room(held: Option<&Held>) {
    if let Some(held) = held {
        held.room().await;
    }
}

/// The engine answers a command with another one's outcome: a defect, and not one of the request.
fn other_outcome(outcome: &Outcome) -> Status {
    Status::internal(format!("landbridge: the outcome is of another command: {outcome:?}"))
}

/// Whether every operation is a read that this member may answer alone. What only compares wants to know how things are.
fn is_serializable(txn: &pb::TxnRequest) -> bool {
    use pb::request_op::Request;
    let mut ops = txn.success.iter().chain(&txn.failure).peekable();
    ops.peek().is_some()
        && ops.all(|op| match &op.request {
            Some(Request::RequestRange(range)) => range.serializable,
            Some(Request::RequestTxn(inner)) => is_serializable(inner),
            _ => false,
        })
}

fn collect_leases(txn: &TxnRequest, leases: &mut BTreeSet<LeaseId>) {
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Put(put) => leases.extend(put.lease),
            Op::Txn(inner) => collect_leases(inner, leases),
            Op::Range(_) | Op::Delete(_) => {}
        }
    }
}
