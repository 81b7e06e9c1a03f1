//! Keys.

use std::collections::BTreeSet;

use landbridge_kvstore_store::{LeaseId, Op, TxnLimits, TxnRequest};
use prost::Message;
use tonic::{Request, Response, Status};

use super::convert::{self, TxnShape};
use super::proto::etcdserverpb as pb;
use super::service::{Peer, Service};
use super::status;
use crate::access::Permissions;
use crate::engine::{Applied, Command, Outcome};

impl Service {
    /// Has a command carried out.
    pub(super) async fn carry_out(&self, command: Command) -> Result<(pb::ResponseHeader, Outcome), Status> {
        self.refuse_of_learner()?;
        let Applied { outcome, revision, term } = self.engine().propose(command).await?;
        Ok((self.header_of_term(revision, term), outcome.map_err(status::refused)?))
    }

    fn check_size(&self, request: &impl Message) -> Result<(), Status> {
        let fits = request.encoded_len() <= self.settings().max_request_bytes;
        if fits { Ok(()) } else { Err(status::request_too_large()) }
    }

    /// Whether the user may attach keys to `leases`: keys end with their lease, so that who may not delete what is on it
    /// already may not tie its own keys to it either, as in etcd.
    ///
    /// Costs a look at each key of the lease, unless the user may do everything.
    fn check_leases(&self, permissions: &Permissions, leases: &BTreeSet<LeaseId>) -> Result<(), Status> {
        if leases.is_empty() || permissions.root().is_ok() {
            return Ok(());
        }
        self.engine().read(|store| {
            leases.iter().try_for_each(|lease| permissions.write_each(store.lease_keys(*lease)))
        })?;
        Ok(())
    }
}

#[tonic::async_trait]
impl pb::kv_server::Kv for Service {
    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let peer = Peer::of(request.extensions());
        let request = request.into_inner();
        let serializable = request.serializable;
        let request = convert::range(&request)?;
        self.permissions(&peer)?.read(&request.range)?;
        if !serializable {
            self.refuse_of_learner()?;
            self.engine().read_barrier().await?;
        }
        let (revision, response) = self.engine().read(|store| (store.revision(), store.range(&request)));
        let response = response.map_err(status::refused)?;
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
        let peer = Peer::of(request.extensions());
        let request = request.into_inner();
        self.check_size(&request)?;
        let request = convert::put(&request)?;
        let permissions = self.permissions(&peer)?;
        permissions.put(&request)?;
        self.check_leases(&permissions, &request.lease.into_iter().collect())?;
        let (header, outcome) = self.carry_out(Command::Put(request)).await?;
        let Outcome::Put(response) = outcome else { return Err(other_outcome(&outcome)) };
        Ok(Response::new(convert::put_response(header, &response)))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let peer = Peer::of(request.extensions());
        let request = request.into_inner();
        self.check_size(&request)?;
        let request = convert::delete(&request)?;
        self.permissions(&peer)?.delete(&request.range, request.prev_kv)?;
        let (header, outcome) = self.carry_out(Command::DeleteRange(request)).await?;
        let Outcome::DeleteRange(response) = outcome else { return Err(other_outcome(&outcome)) };
        Ok(Response::new(convert::delete_response(header, &response)))
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        self.refuse_of_learner()?;
        let peer = Peer::of(request.extensions());
        let request = request.into_inner();
        self.check_size(&request)?;
        let serializable = is_serializable(&request);
        let limits = TxnLimits { max_ops: self.settings().max_txn_ops };
        let request = convert::txn(request, limits.max_ops)?;
        let permissions = self.permissions(&peer)?;
        permissions.txn(&request)?;
        let shape = TxnShape::of(&request);
        let (header, response) = if request.is_read_only() {
            if !serializable {
                self.engine().read_barrier().await?;
            }
            let (revision, response) =
                self.engine().read(|store| (store.revision(), store.read_txn(&request, limits)));
            (self.header(revision), response.map_err(status::refused)?)
        } else {
            let mut leases = BTreeSet::new();
            collect_leases(&request, &mut leases);
            self.check_leases(&permissions, &leases)?;
            let (header, outcome) = self.carry_out(Command::Txn(request)).await?;
            let Outcome::Txn(response) = outcome else { return Err(other_outcome(&outcome)) };
            (header, response)
        };
        Ok(Response::new(convert::txn_response(header, &response, &shape)))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        self.permissions(&Peer::of(request.extensions()))?.root()?;
        let revision = request.get_ref().revision;
        let (header, _) = self.carry_out(Command::Compact { revision }).await?;
        Ok(Response::new(pb::CompactionResponse { header: Some(header) }))
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
