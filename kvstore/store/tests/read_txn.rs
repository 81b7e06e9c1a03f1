//! Transactions that only read, which need no entry in the log.

use bytes::Bytes;
use landbridge_kvstore_store::{
    Compare, CompareOperator, CompareTarget, DeleteRequest, KeyRange, LeaseId, Op, PutRequest, RangeRequest,
    Store, TxnLimits, TxnRequest,
};
use proptest::prelude::*;

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
    (any_range(), operator, target).prop_map(|(range, operator, target)| Compare { range, operator, target })
}

fn any_txn() -> impl Strategy<Value = TxnRequest> {
    let read = || {
        (any_range(), 0i64..9)
            .prop_map(|(range, revision)| Op::Range(RangeRequest { revision, ..RangeRequest::new(range) }))
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
        prop_assert!(txn.is_read_only());
        let expected = store.clone().txn(&txn, TxnLimits::default());
        prop_assert_eq!(store.read_txn(&txn, TxnLimits::default()), expected);
    }
}
