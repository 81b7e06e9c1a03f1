//! Protocol buffers to the store's types and back.
//!
//! What has no place in the store's types is refused here: unknown orders, empty operations. Everything else is for the
//! store to check.

use bytes::Bytes;
use landbridge_kvstore_store::{
    Compare, CompareOperator, CompareTarget, DeleteRequest, DeleteResponse, Event, KeyRange, KeyValue,
    LeaseId, Op, OpResponse, OpResult, PutRequest, PutResponse, RangeRequest, RangeResponse, SortOrder,
    SortTarget, StoreError, TxnRequest, TxnResponse,
};
use tonic::Status;

use super::proto::{etcdserverpb as pb, mvccpb};
use super::status;

/// The keys of a request; an empty key is refused.
fn key_range(key: &Bytes, range_end: &Bytes) -> Result<KeyRange, Status> {
    if key.is_empty() {
        return Err(status::refused(StoreError::EmptyKey));
    }
    Ok(KeyRange::new(own(key), own(range_end)))
}

/// Bytes for the store and the log to keep. What came in a message is a slice of it, which would keep the whole message
/// in memory, and the 8 KiB that gRPC reads at a time, for as long as a key of a few bytes lives.
fn own(slice: &Bytes) -> Bytes {
    Bytes::copy_from_slice(slice)
}

pub(super) fn range(request: &pb::RangeRequest) -> Result<RangeRequest, Status> {
    use pb::range_request as wire;
    let range = key_range(&request.key, &request.range_end)?;
    let target = match wire::SortTarget::try_from(request.sort_target) {
        Ok(wire::SortTarget::Key) => SortTarget::Key,
        Ok(wire::SortTarget::Version) => SortTarget::Version,
        Ok(wire::SortTarget::Create) => SortTarget::CreateRevision,
        Ok(wire::SortTarget::Mod) => SortTarget::ModRevision,
        Ok(wire::SortTarget::Value) => SortTarget::Value,
        Err(_) => return Err(status::invalid_sort()),
    };
    let order = match wire::SortOrder::try_from(request.sort_order) {
        Ok(wire::SortOrder::None) => SortOrder::AscendingAfterLimit,
        Ok(wire::SortOrder::Ascend) => SortOrder::Ascending,
        Ok(wire::SortOrder::Descend) => SortOrder::Descending,
        Err(_) => return Err(status::invalid_sort()),
    };
    Ok(RangeRequest {
        range,
        revision: request.revision,
        limit: request.limit,
        sort: Some((target, order)),
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    })
}

pub(super) fn put(request: &pb::PutRequest) -> Result<PutRequest, Status> {
    let put = PutRequest {
        key: own(&request.key),
        value: own(&request.value),
        lease: LeaseId::new(request.lease).ok(),
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
        prev_kv: request.prev_kv,
    };
    // Here, where everything else of a transaction is looked at: the first thing that is wrong is told, as in etcd.
    put.validate().map_err(status::refused)?;
    Ok(put)
}

pub(super) fn delete(request: &pb::DeleteRangeRequest) -> Result<DeleteRequest, Status> {
    Ok(DeleteRequest { range: key_range(&request.key, &request.range_end)?, prev_kv: request.prev_kv })
}

/// Reads a transaction that may have `max_ops` compares, and operations in each branch; what is nested shares what is left.
///
/// Unlike in etcd, all that is nested together may not have more than a flat transaction: 128 of 128 looks at all keys are
/// carried out at one moment, during which nothing else is.
pub(super) fn txn(request: pb::TxnRequest, max_ops: usize) -> Result<TxnRequest, Status> {
    let request = nested_txn(request, max_ops)?;
    if size(&request) > max_ops.saturating_mul(3) {
        return Err(status::refused(StoreError::TooManyOps));
    }
    // As in etcd before it is asked who wants that.
    request.check_changes().map_err(status::refused)?;
    Ok(request)
}

/// Compares and operations, those of inner transactions included.
fn size(txn: &TxnRequest) -> usize {
    let ops = txn.success.iter().chain(&txn.failure);
    let inner = ops.map(|op| 1 + if let Op::Txn(inner) = op { size(inner) } else { 0 });
    txn.compare.len() + inner.sum::<usize>()
}

fn nested_txn(request: pb::TxnRequest, max_ops: usize) -> Result<TxnRequest, Status> {
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    let left = max_ops.checked_sub(longest).ok_or_else(|| status::refused(StoreError::TooManyOps))?;
    let ops =
        |ops: Vec<pb::RequestOp>| ops.into_iter().map(|request| op(request, left)).collect::<Result<_, _>>();
    Ok(TxnRequest {
        compare: request.compare.into_iter().map(compare).collect::<Result<_, _>>()?,
        success: ops(request.success)?,
        failure: ops(request.failure)?,
    })
}

fn op(request: pb::RequestOp, max_ops: usize) -> Result<Op, Status> {
    use pb::request_op::Request;
    Ok(match request.request {
        Some(Request::RequestRange(request)) => Op::Range(range(&request)?),
        Some(Request::RequestPut(request)) => Op::Put(put(&request)?),
        Some(Request::RequestDeleteRange(request)) => Op::Delete(delete(&request)?),
        Some(Request::RequestTxn(request)) => Op::Txn(nested_txn(request, max_ops)?),
        // etcd's answer to an operation that is none.
        None => return Err(status::refused(StoreError::KeyNotFound)),
    })
}

fn compare(request: pb::Compare) -> Result<Compare, Status> {
    use pb::compare::{CompareResult, CompareTarget as Target, TargetUnion};
    let range = key_range(&request.key, &request.range_end)?;
    let operator = match CompareResult::try_from(request.result) {
        Ok(CompareResult::Equal) => CompareOperator::Equal,
        Ok(CompareResult::Greater) => CompareOperator::Greater,
        Ok(CompareResult::Less) => CompareOperator::Less,
        Ok(CompareResult::NotEqual) => CompareOperator::NotEqual,
        Err(error) => return Err(Status::invalid_argument(format!("etcdserver: unknown compare: {error}"))),
    };
    // What is given counts only if it is of the kind that the target says; anything else is 0, as if it were unset.
    let target = match (Target::try_from(request.target), request.target_union) {
        (Ok(Target::Version), Some(TargetUnion::Version(given))) => CompareTarget::Version(given),
        (Ok(Target::Version), _) => CompareTarget::Version(0),
        (Ok(Target::Create), Some(TargetUnion::CreateRevision(given))) => {
            CompareTarget::CreateRevision(given)
        }
        (Ok(Target::Create), _) => CompareTarget::CreateRevision(0),
        (Ok(Target::Mod), Some(TargetUnion::ModRevision(given))) => CompareTarget::ModRevision(given),
        (Ok(Target::Mod), _) => CompareTarget::ModRevision(0),
        (Ok(Target::Value), Some(TargetUnion::Value(given))) => CompareTarget::Value(own(&given)),
        (Ok(Target::Value), _) => CompareTarget::Value(Bytes::new()),
        (Ok(Target::Lease), Some(TargetUnion::Lease(given))) => CompareTarget::Lease(given),
        (Ok(Target::Lease), _) => CompareTarget::Lease(0),
        (Err(error), _) => {
            return Err(Status::invalid_argument(format!("etcdserver: unknown compare: {error}")));
        }
    };
    Ok(Compare { range, operator, target })
}

fn key_values(kvs: &[KeyValue]) -> Vec<mvccpb::KeyValue> {
    kvs.iter().cloned().map(Into::into).collect()
}

pub(super) fn range_response(
    header: pb::ResponseHeader,
    response: &RangeResponse,
    keys_only: bool,
) -> pb::RangeResponse {
    let kvs = if keys_only {
        response.kvs.iter().cloned().map(mvccpb::KeyValue::keys_only).collect()
    } else {
        key_values(&response.kvs)
    };
    pb::RangeResponse { header: Some(header), kvs, more: response.more, count: response.count }
}

pub(super) fn put_response(header: pb::ResponseHeader, response: &PutResponse) -> pb::PutResponse {
    pb::PutResponse { header: Some(header), prev_kv: response.prev_kv.clone().map(Into::into) }
}

pub(super) fn delete_response(
    header: pb::ResponseHeader,
    response: &DeleteResponse,
) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse {
        header: Some(header),
        deleted: response.deleted,
        prev_kvs: key_values(&response.prev_kvs),
    }
}

/// What a transaction did. `shape` tells of each operation what the response alone does not: whether values are wanted.
pub(super) fn txn_response(
    header: pb::ResponseHeader,
    response: &TxnResponse,
    shape: &TxnShape,
) -> pb::TxnResponse {
    let ops = if response.succeeded { &shape.success } else { &shape.failure };
    let responses = response.responses.iter().zip(ops).map(|(response, op)| op_response(response, op));
    pb::TxnResponse { header: Some(header), succeeded: response.succeeded, responses: responses.collect() }
}

/// The branches of a transaction, as far as its response depends on them: the transaction itself goes to the log.
#[derive(Debug)]
pub(super) struct TxnShape {
    success: Vec<OpShape>,
    failure: Vec<OpShape>,
}

#[derive(Debug)]
enum OpShape {
    Range { keys_only: bool },
    Write,
    Txn(TxnShape),
}

impl TxnShape {
    pub(super) fn of(txn: &TxnRequest) -> Self {
        let shapes = |ops: &[Op]| {
            let shape = |op: &Op| match op {
                Op::Range(range) => OpShape::Range { keys_only: range.keys_only },
                Op::Put(_) | Op::Delete(_) => OpShape::Write,
                Op::Txn(inner) => OpShape::Txn(Self::of(inner)),
            };
            ops.iter().map(shape).collect()
        };
        Self { success: shapes(&txn.success), failure: shapes(&txn.failure) }
    }
}

fn op_response(response: &OpResponse, shape: &OpShape) -> pb::ResponseOp {
    use pb::response_op::Response;
    // The headers inside of a transaction carry the revision and nothing else.
    let header = pb::ResponseHeader { revision: response.revision, ..pb::ResponseHeader::default() };
    let response = match (&response.result, shape) {
        (OpResult::Range(range), OpShape::Range { keys_only }) => {
            Response::ResponseRange(range_response(header, range, *keys_only))
        }
        (OpResult::Range(range), _) => Response::ResponseRange(range_response(header, range, false)),
        (OpResult::Put(put), _) => Response::ResponsePut(put_response(header, put)),
        (OpResult::Delete(delete), _) => Response::ResponseDeleteRange(delete_response(header, delete)),
        // Only the outermost transaction says its revision, in etcd.
        (OpResult::Txn(txn), OpShape::Txn(shape)) => {
            Response::ResponseTxn(txn_response(pb::ResponseHeader::default(), txn, shape))
        }
        (OpResult::Txn(_), _) => unreachable!("a response is of the kind of its operation"),
    };
    pb::ResponseOp { response: Some(response) }
}

pub(super) fn event(event: &Event, previous: Option<&KeyValue>) -> mvccpb::Event {
    use mvccpb::event::EventType;
    let kind = if event.is_deletion() { EventType::Delete } else { EventType::Put };
    let kv = event.key_value().clone().into();
    mvccpb::Event { r#type: kind.into(), kv: Some(kv), prev_kv: previous.cloned().map(Into::into) }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// Whether what `convert` makes of a message lives without the bytes that the message came in.
    fn is_apart<M: Message + Default, T>(message: &M, convert: impl FnOnce(M) -> Result<T, Status>) -> bool {
        let bytes = Bytes::from(message.encode_to_vec());
        let _converted = convert(M::decode(bytes.clone()).unwrap()).unwrap();
        bytes.is_unique()
    }

    #[test]
    fn what_is_kept_does_not_keep_the_message_it_came_in() {
        let key = || Bytes::from_static(b"key");
        let write = pb::PutRequest { key: key(), value: key(), ..Default::default() };
        let removal = pb::DeleteRangeRequest { key: key(), range_end: "l".into(), prev_kv: false };
        assert!(is_apart(&write, |write| put(&write)));
        assert!(is_apart(&removal, |removal| delete(&removal)));
        let given = pb::compare::TargetUnion::Value(key());
        let target = pb::compare::CompareTarget::Value.into();
        let compare = pb::Compare { key: key(), target, target_union: Some(given), ..Default::default() };
        let op = pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(write)) };
        let whole = pb::TxnRequest { compare: vec![compare], success: vec![op], failure: Vec::new() };
        assert!(is_apart(&whole, |whole| txn(whole, 128)));
    }

    #[test]
    fn of_several_things_that_are_wrong_with_a_transaction_the_first_is_told() {
        use pb::request_op::Request;
        let op = |request| pb::RequestOp { request: Some(request) };
        let kept =
            pb::PutRequest { key: "k".into(), value: "v".into(), ignore_value: true, ..Default::default() };
        let nameless = pb::TxnRequest { compare: vec![pb::Compare::default()], ..Default::default() };
        let both = pb::TxnRequest {
            success: vec![op(Request::RequestPut(kept))],
            failure: vec![op(Request::RequestTxn(nameless.clone()))],
            ..Default::default()
        };
        assert_eq!(txn(both, 128).unwrap_err().message(), "etcdserver: value is provided");
        assert_eq!(txn(nameless, 128).unwrap_err().message(), "etcdserver: key is not provided");
    }

    #[test]
    fn what_is_nested_has_no_more_operations_than_a_flat_transaction() {
        use pb::request_op::Request;
        let compare = pb::Compare { key: "k".into(), ..Default::default() };
        let read = pb::RangeRequest { key: "k".into(), ..Default::default() };
        let ops = |request, count| vec![pb::RequestOp { request: Some(request) }; count];
        let flat = |count| pb::TxnRequest {
            compare: vec![compare.clone(); count],
            success: ops(Request::RequestRange(read.clone()), count),
            failure: ops(Request::RequestRange(read.clone()), count),
        };
        txn(flat(128), 128).unwrap();
        txn(flat(129), 128).unwrap_err();
        let around = |inner, count| pb::TxnRequest {
            success: ops(Request::RequestTxn(inner), count),
            ..Default::default()
        };
        txn(around(flat(64), 1), 128).unwrap();
        let error = txn(around(flat(64), 64), 128).unwrap_err();
        assert_eq!(error.message(), "etcdserver: too many operations in txn request");
    }
}
