//! Many writes, in transactions that a store accepts, and only while a lock is held if that is asked for.

use std::collections::BTreeSet;

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};

use crate::client::{KvClient, revision};
use crate::error::ClientError;
use crate::key_value::Write;

/// A lock that is held: the key that stands for it, as it was created.
///
/// Whoever believes to hold a lock may be wrong: its lease ran out while it was held up, and another one took the lock.
/// A write that is fenced is not done then, whenever it arrives: the store looks at the lock in the same transaction
/// ("How to do distributed locking", M. Kleppmann, 2016; etcd's `concurrency` package does so as well).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The key, mostly with a lease.
    pub key: String,
    /// The revision that created it, as [`Creation::Created`](crate::Creation::Created) tells: another holder's is larger.
    pub create_revision: i64,
}

impl KvClient {
    /// Makes changes in the given order, as few transactions as a store allows. Returns the revision after the last
    /// one; without any, that of the store.
    ///
    /// # Errors
    /// [`ClientError`], which names the first key of the transaction that failed; the ones before it stay applied.
    pub async fn apply(&self, writes: Vec<Write>) -> Result<i64, ClientError> {
        self.apply_with_lease(writes, 0).await
    }

    /// As [`Self::apply`], with the keys attached to `lease`; 0 is none.
    pub(crate) async fn apply_with_lease(&self, writes: Vec<Write>, lease: i64) -> Result<i64, ClientError> {
        let mut last = None;
        for transaction in transactions(writes) {
            let key = transaction.first().map_or("", name).to_owned();
            let txn = Txn::new().and_then(ops(transaction, lease));
            last = Some(self.txn("apply", &key, txn, |response| revision(response.header.as_ref())).await?);
        }
        match last {
            Some(revision) => Ok(revision),
            None => Ok(self.probe().await?.revision),
        }
    }

    /// As [`Self::apply`], as long as the lock of `fence` is held. Returns nothing as soon as it is not: then neither the
    /// transaction that found that out was applied, nor any after it. Without writes, says whether it is held.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub async fn apply_fenced(&self, fence: &Fence, writes: Vec<Write>) -> Result<Option<i64>, ClientError> {
        let mut transactions = transactions(writes);
        if transactions.is_empty() {
            transactions.push(Vec::new());
        }
        let mut last = None;
        for transaction in transactions {
            let key = transaction.first().map_or(&fence.key[..], name).to_owned();
            let held = Compare::create_revision(fence.key.as_str(), CompareOp::Equal, fence.create_revision);
            let txn = Txn::new().when([held]).and_then(ops(transaction, 0));
            let check = |response: etcd_client::proto::PbTxnResponse| {
                let revision = revision(response.header.as_ref())?;
                Ok(response.succeeded.then_some(revision))
            };
            last = self.txn("fenced apply", &key, txn, check).await?;
            if last.is_none() {
                break;
            }
        }
        Ok(last)
    }
}

/// The key that a write is about.
fn name(write: &Write) -> &str {
    let (Write::Put { key, .. } | Write::Delete { key }) = write;
    key
}

fn ops(transaction: Vec<Write>, lease: i64) -> Vec<TxnOp> {
    let op = |write| match write {
        Write::Put { key, value } => TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease))),
        Write::Delete { key } => TxnOp::delete(key, None),
    };
    transaction.into_iter().map(op).collect()
}

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
                let keys: BTreeSet<&str> = transaction.iter().map(name).collect();
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
