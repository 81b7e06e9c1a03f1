//! Transactions: every compare, every operation, nested.

use bytes::Bytes;
use landbridge_kvstore_server::grpc::proto::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;

use super::Generator;

/// How deep transactions are nested.
const DEPTH: u32 = 3;
/// One more than a transaction may have of anything.
const TOO_MANY: usize = 129;

impl Generator {
    pub(super) fn txn(&mut self) -> pb::TxnRequest {
        // Most change each key once. The others are refused more often than not.
        let mut keys = if self.chance(800) { Some(self.different_keys(12)) } else { None };
        let reads_only = self.chance(100);
        let mut txn = self.txn_of(&mut keys, reads_only, 1);
        if puts(&txn) {
            close_deletions(&mut txn);
        }
        if keys.is_none() {
            single_inner(&mut txn);
        }
        txn
    }

    /// `keys`: those that nothing of the transaction changes yet; `None` if that does not matter.
    fn txn_of(&mut self, keys: &mut Option<Vec<Bytes>>, reads_only: bool, depth: u32) -> pb::TxnRequest {
        let compares = self.pick(&[0, 1, 1, 2]);
        let mut ops = |this: &mut Self, most: usize| {
            let count = this.dice.usize(0..=most);
            (0..count).map(|_| this.op(keys, reads_only, depth)).collect()
        };
        let (success, failure) = (ops(self, 4), ops(self, 3));
        let compare = (0..compares).map(|_| self.compare()).collect();
        pb::TxnRequest { compare, success, failure }
    }

    fn op(&mut self, keys: &mut Option<Vec<Bytes>>, reads_only: bool, depth: u32) -> pb::RequestOp {
        let kind = if reads_only { 9 } else { self.dice.u32(..12) };
        let changed = match keys {
            Some(keys) => keys.pop(),
            None => Some(self.key()),
        };
        let request = match (kind, changed) {
            (0, _) if depth < DEPTH => Request::RequestTxn(self.txn_of(keys, reads_only, depth + 1)),
            (1..5, Some(key)) => {
                let lease = if self.chance(150) { self.lease_id() } else { 0 };
                let mut put = pb::PutRequest { key, value: self.value(), lease, ..Default::default() };
                if self.chance(150) {
                    self.put_options(&mut put);
                }
                Request::RequestPut(put)
            }
            (5..8, Some(key)) => {
                let range_end = if keys.is_none() { self.end_of(&key) } else { Bytes::new() };
                let prev_kv = self.chance(400);
                Request::RequestDeleteRange(pb::DeleteRangeRequest { key, range_end, prev_kv })
            }
            (8, _) if depth == 1 && self.chance(60) => return pb::RequestOp::default(),
            _ => {
                let mut range = self.range();
                if !self.chance(100) {
                    range.revision = 0;
                }
                if range.key.is_empty() && !self.chance(100) {
                    range.key = Bytes::from_static(b"a");
                }
                Request::RequestRange(range)
            }
        };
        pb::RequestOp { request: Some(request) }
    }

    fn compare(&mut self) -> pb::Compare {
        let results =
            [CompareResult::Equal, CompareResult::Greater, CompareResult::Less, CompareResult::NotEqual];
        let targets = [
            CompareTarget::Version,
            CompareTarget::Create,
            CompareTarget::Mod,
            CompareTarget::Value,
            CompareTarget::Lease,
        ];
        let (key, mut range_end) = self.key_range();
        if self.chance(600) {
            range_end = Bytes::new();
        }
        let (result, target) = (self.pick(&results), self.pick(&targets));
        // What is given is of another kind than the target, or nothing, once in a while.
        let given = if self.chance(30) { self.pick(&targets) } else { target };
        let target_union = (!self.chance(50)).then(|| match given {
            CompareTarget::Version => TargetUnion::Version(self.dice.i64(0..4)),
            CompareTarget::Create => TargetUnion::CreateRevision(self.compared_revision()),
            CompareTarget::Mod => TargetUnion::ModRevision(self.compared_revision()),
            CompareTarget::Value => TargetUnion::Value(self.value()),
            CompareTarget::Lease => TargetUnion::Lease(self.dice.i64(0..3)),
        });
        pb::Compare { result: result.into(), target: target.into(), key, range_end, target_union }
    }

    fn compared_revision(&mut self) -> i64 {
        match self.dice.u32(..4) {
            0 => 0,
            1 => self.past(200),
            _ => self.past(12),
        }
    }

    /// More than is allowed of something.
    pub(super) fn too_long_txn(&mut self) -> pb::TxnRequest {
        let range =
            pb::RangeRequest { key: Bytes::from_static(b"a"), count_only: true, ..Default::default() };
        let op = pb::RequestOp { request: Some(Request::RequestRange(range)) };
        let compare = pb::Compare { key: Bytes::from_static(b"a"), ..Default::default() };
        let count = self.dice.usize(TOO_MANY - 1..=TOO_MANY);
        let mut request = pb::TxnRequest::default();
        match self.dice.u32(..4) {
            0 => request.compare = vec![compare; count],
            1 => request.success = vec![op; count],
            2 => request.failure = vec![op; count],
            _ => {
                // What is nested has what is left.
                let inner = pb::TxnRequest { failure: vec![op.clone(); count / 2], ..Default::default() };
                let inner = pb::RequestOp { request: Some(Request::RequestTxn(inner)) };
                request.success = vec![op; TOO_MANY / 2 - 1];
                request.success.push(inner);
            }
        }
        request
    }
}

/// Leaves one inner transaction beside others, see [`crate::allowed::NOT_DRAWN`].
fn single_inner(txn: &mut pb::TxnRequest) {
    for ops in [&mut txn.success, &mut txn.failure] {
        let mut inner = ops.iter_mut().filter(|op| matches!(op.request, Some(Request::RequestTxn(_))));
        if let Some(pb::RequestOp { request: Some(Request::RequestTxn(first)) }) = inner.next() {
            single_inner(first);
        }
        for op in inner {
            let range = pb::RangeRequest { key: Bytes::from_static(b"b"), ..Default::default() };
            op.request = Some(Request::RequestRange(range));
        }
    }
}

/// Whether any operation is a put.
fn puts(txn: &pb::TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match &op.request {
        Some(Request::RequestPut(_)) => true,
        Some(Request::RequestTxn(inner)) => puts(inner),
        _ => false,
    })
}

/// Makes deletions whose end is not behind their key ones of that key alone, see [`crate::allowed::NOT_DRAWN`].
fn close_deletions(txn: &mut pb::TxnRequest) {
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut op.request {
            Some(Request::RequestDeleteRange(delete)) if delete.range_end <= delete.key => {
                delete.range_end.clear();
            }
            Some(Request::RequestTxn(inner)) => close_deletions(inner),
            _ => {}
        }
    }
}
