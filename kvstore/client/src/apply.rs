//! Cuts many writes into transactions that a store accepts.

use std::collections::BTreeSet;

use crate::key_value::Write;

/// What a store takes in one transaction by default (etcd `--max-txn-ops`).
const MAX_WRITES: usize = 128;
/// Well below what a store takes in one request by default (etcd `--max-request-bytes`, 1.5 MiB).
const MAX_BYTES: usize = 1 << 20;

/// Returns `writes` in order, cut into transactions: as few as possible, and none touches a key twice, which a store
/// refuses.
pub(crate) fn transactions(writes: Vec<Write>) -> Vec<Vec<Write>> {
    let mut transactions: Vec<Vec<Write>> = Vec::new();
    let mut keys = BTreeSet::new();
    let mut bytes = 0;
    for write in writes {
        let (key, write_bytes) = match &write {
            Write::Put { key, value } => (key, key.len() + value.len()),
            Write::Delete { key } => (key, key.len()),
        };
        let fits = keys.len() < MAX_WRITES && bytes + write_bytes <= MAX_BYTES && !keys.contains(key);
        if !fits {
            keys.clear();
            bytes = 0;
        }
        keys.insert(key.clone());
        bytes += write_bytes;
        match transactions.last_mut() {
            Some(last) if fits => last.push(write),
            _ => transactions.push(vec![write]),
        }
    }
    transactions
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_write() -> impl Strategy<Value = Write> {
        let key = || (0..200_u32).prop_map(|n| format!("key/{n}"));
        prop_oneof![
            (key(), 0..300_000_usize).prop_map(|(key, len)| Write::Put { key, value: vec![7; len] }),
            (key(), Just(1)).prop_map(|(key, len)| Write::Put { key, value: vec![7; len] }),
            key().prop_map(|key| Write::Delete { key }),
        ]
    }

    fn key(write: &Write) -> &str {
        match write {
            Write::Put { key, .. } | Write::Delete { key } => key,
        }
    }

    fn len(write: &Write) -> usize {
        match write {
            Write::Put { key, value } => key.len() + value.len(),
            Write::Delete { key } => key.len(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn transactions_hold_every_write_in_order_and_none_is_refused(
            writes in prop::collection::vec(any_write(), 0..400)
        ) {
            let cut = transactions(writes.clone());
            for transaction in &cut {
                let keys: BTreeSet<&str> = transaction.iter().map(key).collect();
                prop_assert_eq!(keys.len(), transaction.len());
                prop_assert!(!transaction.is_empty() && transaction.len() <= 128);
                prop_assert!(transaction.iter().map(len).sum::<usize>() <= MAX_BYTES);
            }
            prop_assert_eq!(cut.concat(), writes);
        }
    }

    #[test]
    fn a_write_too_large_for_any_transaction_stands_alone() {
        let put = |key: &str, len| Write::Put { key: key.to_owned(), value: vec![0; len] };
        let cut = transactions(vec![put("a", 1), put("b", 2 * MAX_BYTES), put("c", 1)]);
        assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
    }
}
