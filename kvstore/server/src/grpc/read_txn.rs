//! Transactions that only read: answered from the state, without an entry in the log.

use landbridge_kvstore_store::{
    Compare, CompareOperator, CompareTarget, KeyValue, LeaseId, Op, OpResponse, OpResult, RangeRequest,
    Store, StoreError, TxnRequest, TxnResponse,
};

/// Whether no branch of a transaction changes anything.
pub(super) fn is_read_only(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match op {
        Op::Range(_) => true,
        Op::Put(_) | Op::Delete(_) => false,
        Op::Txn(inner) => is_read_only(inner),
    })
}

/// Carries out a transaction for which [`is_read_only`] holds, with the result that [`Store::txn`] would have.
///
/// # Errors
/// [`StoreError::Range`] if a read of the chosen branches is refused.
pub(super) fn run(store: &Store, txn: &TxnRequest) -> Result<TxnResponse, StoreError> {
    let mut succeeded = true;
    for compare in &txn.compare {
        succeeded = succeeded && holds(store, compare)?;
    }
    let ops = if succeeded { &txn.success } else { &txn.failure };
    let run = |op: &Op| {
        let result = match op {
            Op::Range(range) => OpResult::Range(store.range(range)?),
            Op::Txn(inner) => OpResult::Txn(run(store, inner)?),
            Op::Put(_) | Op::Delete(_) => unreachable!("the transaction only reads"),
        };
        Ok(OpResponse { revision: store.revision(), result })
    };
    Ok(TxnResponse { succeeded, responses: ops.iter().map(run).collect::<Result<_, StoreError>>()? })
}

fn holds(store: &Store, compare: &Compare) -> Result<bool, StoreError> {
    let there = store.range(&RangeRequest::new(compare.range.clone()))?.kvs;
    Ok(if there.is_empty() {
        holds_for(compare, None)
    } else {
        there.iter().all(|kv| holds_for(compare, Some(kv)))
    })
}

fn holds_for(compare: &Compare, kv: Option<&KeyValue>) -> bool {
    let number = |of: fn(&KeyValue) -> i64| kv.map_or(0, of);
    let ordering = match &compare.target {
        CompareTarget::Version(given) => number(|kv| kv.version).cmp(given),
        CompareTarget::CreateRevision(given) => number(|kv| kv.create_revision).cmp(given),
        CompareTarget::ModRevision(given) => number(|kv| kv.mod_revision).cmp(given),
        CompareTarget::Lease(given) => number(|kv| kv.lease.map_or(0, LeaseId::get)).cmp(given),
        CompareTarget::Value(given) => match kv {
            Some(kv) => kv.value.cmp(given),
            None => return false,
        },
    };
    match compare.operator {
        CompareOperator::Equal => ordering.is_eq(),
        CompareOperator::NotEqual => ordering.is_ne(),
        CompareOperator::Greater => ordering.is_gt(),
        CompareOperator::Less => ordering.is_lt(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use landbridge_kvstore_store::{DeleteRequest, KeyRange, PutRequest, TxnLimits};
    use proptest::prelude::*;

    use super::*;

    fn any_range() -> impl Strategy<Value = KeyRange> {
        let key = || prop::sample::select(vec!["a", "b", "c"]);
        let end = prop::sample::select(vec!["", "\0", "b", "c"]);
        (key(), end).prop_map(|(key, end)| KeyRange::new(key.into(), end.into()))
    }

    fn any_compare() -> impl Strategy<Value = Compare> {
        use CompareOperator::{Equal, Greater, Less, NotEqual};
        let operator = prop::sample::select(vec![Equal, NotEqual, Greater, Less]);
        let target = prop_oneof![
            (0i64..4).prop_map(CompareTarget::Version),
            (0i64..6).prop_map(CompareTarget::CreateRevision),
            (0i64..6).prop_map(CompareTarget::ModRevision),
            (0i64..2).prop_map(CompareTarget::Lease),
            prop::sample::select(vec!["", "x", "y"])
                .prop_map(|value| CompareTarget::Value(Bytes::from_static(value.as_bytes()))),
        ];
        (any_range(), operator, target).prop_map(|(range, operator, target)| Compare {
            range,
            operator,
            target,
        })
    }

    fn any_txn() -> impl Strategy<Value = TxnRequest> {
        let read = || {
            (any_range(), 0i64..9).prop_map(|(range, revision)| {
                Op::Range(RangeRequest { revision, ..RangeRequest::new(range) })
            })
        };
        let txn = |op: BoxedStrategy<Op>| {
            let ops = || prop::collection::vec(op.clone(), 0..3);
            (prop::collection::vec(any_compare(), 0..2), ops(), ops())
                .prop_map(|(compare, success, failure)| TxnRequest { compare, success, failure })
        };
        let nested = txn(read().boxed()).prop_map(Op::Txn);
        txn(prop_oneof![3 => read(), 1 => nested].boxed())
    }

    proptest! {
        /// Without a log entry, the answer is the one that the state machine would have given.
        #[test]
        fn a_read_only_transaction_is_answered_as_the_state_machine_would(
            writes in prop::collection::vec((0usize..3, prop::sample::select(vec!["a", "b", "c"]), any::<bool>()), 0..8),
            compacted in 0i64..4,
            txn in any_txn(),
        ) {
            let mut store = Store::new();
            store.grant_lease(LeaseId::new(1).unwrap(), 60).unwrap();
            for (kind, key, leased) in writes {
                let lease = leased.then(|| LeaseId::new(1).unwrap());
                let value = Bytes::from_static([b"", &b"x"[..], b"y"][kind]);
                if kind == 2 && leased {
                    let range = KeyRange::Single(key.into());
                    store.delete(&DeleteRequest { range, prev_kv: false }).unwrap();
                } else {
                    store.put(&PutRequest { key: key.into(), value, lease, ..PutRequest::default() }).unwrap();
                }
            }
            // Refused where it is out of bounds, which changes nothing.
            let _ = store.compact(compacted);
            prop_assert!(is_read_only(&txn));
            let expected = store.clone().txn(&txn, TxnLimits::default());
            prop_assert_eq!(run(&store, &txn), expected);
        }
    }
}
