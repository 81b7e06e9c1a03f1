//! Counts at old revisions, over more changes than one piece of the history has.

use bytes::Bytes;
use landbridge_kvstore_store::{
    DeleteRequest, KeyRange, Op, PutRequest, RangeRequest, Store, TxnLimits, TxnRequest,
};
use proptest::prelude::*;

/// So many keys exist from the beginning: fewer changes than that are looked at.
const KEYS: u32 = 1_000;

fn key(number: u32) -> Bytes {
    format!("key/{:04}", number % (2 * KEYS)).into()
}

fn put(number: u32) -> PutRequest {
    PutRequest { key: key(number), ..PutRequest::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn a_count_at_an_old_revision_is_that_of_the_keys_then(
        changes in prop::collection::vec((0u16..400, any::<u32>()), 1_500..2_000),
        reads in prop::collection::vec((any::<prop::sample::Index>(), any::<u32>(), any::<u32>()), 30),
        compacted in any::<prop::sample::Index>(),
    ) {
        let mut store = Store::new();
        for number in 0..KEYS {
            store.put(&put(2 * number)).unwrap();
        }
        let first = store.revision();
        for (kind, number) in changes {
            match kind {
                0..200 => drop(store.put(&put(number)).unwrap()),
                200..399 => {
                    let range = KeyRange::Single(key(number));
                    store.delete(&DeleteRequest { range, prev_kv: false }).unwrap();
                }
                // Rare: some pieces of the history have no such revision, some have.
                _ => {
                    let several = TxnRequest {
                        success: vec![Op::Put(put(number)), Op::Put(put(number.wrapping_add(1)))],
                        ..TxnRequest::default()
                    };
                    store.txn(&several, TxnLimits::default()).unwrap();
                }
            }
        }
        let span = usize::try_from(store.revision() - first).unwrap();
        let revision_of = |index: prop::sample::Index| first + i64::try_from(index.index(span)).unwrap();
        let compacted = first + (revision_of(compacted) - first) / 2;
        for (index, start, end) in reads {
            if index.index(7) == 0 {
                let _ = store.compact(compacted);
                store.compact_step(100);
            }
            let revision = revision_of(index).max(store.compacted_revision());
            let range = match start % 3 {
                0 => KeyRange::Between(key(start), key(end)),
                1 => KeyRange::From(key(start)),
                _ => KeyRange::Single(key(start)),
            };
            let all = RangeRequest { revision, ..RangeRequest::new(range) };
            let there = store.range(&all).unwrap().kvs.len();
            let count = store.range(&RangeRequest { count_only: true, ..all }).unwrap().count;
            prop_assert_eq!(usize::try_from(count).unwrap(), there);
        }
    }
}
