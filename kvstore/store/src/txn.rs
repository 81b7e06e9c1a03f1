//! Transactions: compare, then one of two lists of operations, at one revision.
//!
//! Everything that can fail is checked before the first change: the form of both branches, and what the chosen one
//! needs of the state. All compares see the state before; an operation sees what those before it in its branch did.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::store::Write;
use crate::versions::Versions;
use crate::{
    DeleteRequest, DeleteResponse, KeyRange, KeyValue, LeaseId, PutRequest, PutResponse, RangeError,
    RangeRequest, RangeResponse, Store, StoreError,
};

/// If all compares hold, does one thing, else the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnRequest {
    /// What has to hold.
    pub compare: Vec<Compare>,
    /// What is done if it does.
    pub success: Vec<Op>,
    /// What is done if it does not.
    pub failure: Vec<Op>,
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Reads.
    Range(RangeRequest),
    /// Writes.
    Put(PutRequest),
    /// Deletes.
    Delete(DeleteRequest),
    /// A transaction inside the transaction.
    Txn(TxnRequest),
}

/// Something that has to hold of every key of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The keys.
    pub range: KeyRange,
    /// How what a key has is compared with what is given.
    pub operator: CompareOperator,
    /// What is given.
    pub target: CompareTarget,
}

/// How two values are compared: what the key has on the left, what is given on the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareOperator {
    /// Equal.
    Equal,
    /// Not equal.
    NotEqual,
    /// Greater.
    Greater,
    /// Less.
    Less,
}

/// Which property of a key is compared, and with what. A key that does not exist has 0 for each number, and no value:
/// a comparison with its value never holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareTarget {
    /// How often it was put since it was created.
    Version(i64),
    /// When it was created.
    CreateRevision(i64),
    /// When it was last changed.
    ModRevision(i64),
    /// Its value.
    Value(Bytes),
    /// The number of its lease, 0 for none.
    Lease(i64),
}

/// What a transaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnResponse {
    /// Whether the compares held.
    pub succeeded: bool,
    /// One response for each operation of the branch, in order.
    pub responses: Vec<OpResponse>,
}

/// What one operation of a transaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpResponse {
    /// The revision right after it: the one of the transaction once something has changed.
    pub revision: i64,
    /// What it did.
    pub result: OpResult,
}

/// What one operation of a transaction did, by its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResult {
    /// What was read.
    Range(RangeResponse),
    /// What a put did.
    Put(PutResponse),
    /// What a deletion did.
    Delete(DeleteResponse),
    /// What the inner transaction did.
    Txn(TxnResponse),
}

/// How large a transaction may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnLimits {
    /// Operations and compares, each; inner transactions share what is left. etcd's `--max-txn-ops`, 128 there.
    pub max_ops: usize,
}

impl Default for TxnLimits {
    fn default() -> Self {
        Self { max_ops: 128 }
    }
}

impl Store {
    /// Carries out a transaction. Its changes are one revision; without any, the revision stays as it is.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing has changed.
    pub fn txn(&mut self, request: &TxnRequest, limits: TxnLimits) -> Result<TxnResponse, StoreError> {
        validate(request, limits.max_ops)?;
        request.check_changes()?;
        let branch = self.choose(request);
        self.check_branch(&branch)?;
        let mut write = Write::new(self);
        let response = write.run(&branch);
        write.commit();
        Ok(response)
    }

    /// Carries out a transaction that only reads, with the answer that [`Store::txn`] would give.
    ///
    /// # Errors
    /// [`StoreError`].
    ///
    /// # Panics
    /// If [`TxnRequest::is_read_only`] does not hold.
    pub fn read_txn(&self, request: &TxnRequest, limits: TxnLimits) -> Result<TxnResponse, StoreError> {
        validate(request, limits.max_ops)?;
        let branch = self.choose(request);
        self.check_branch(&branch)?;
        Ok(self.read_branch(&branch))
    }

    fn read_branch(&self, branch: &Branch<'_>) -> TxnResponse {
        let read = |step: &Step<'_>| {
            let result = match step {
                Step::Range(range) => OpResult::Range(self.range_checked(range, &[])),
                Step::Txn(inner) => OpResult::Txn(self.read_branch(inner)),
                Step::Put(_) | Step::Delete(_) => unreachable!("the transaction only reads"),
            };
            OpResponse { revision: self.revision(), result }
        };
        TxnResponse { succeeded: branch.succeeded, responses: branch.steps.iter().map(read).collect() }
    }

    fn choose<'r>(&self, request: &'r TxnRequest) -> Branch<'r> {
        let succeeded = request.compare.iter().all(|compare| self.holds(compare));
        let ops = if succeeded { &request.success } else { &request.failure };
        let steps = ops.iter().map(|op| match op {
            Op::Range(range) => Step::Range(range),
            Op::Put(put) => Step::Put(put),
            Op::Delete(delete) => Step::Delete(delete),
            Op::Txn(txn) => Step::Txn(self.choose(txn)),
        });
        Branch { succeeded, steps: steps.collect() }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let Some(bounds) = compare.range.bounds() else { return compare.holds_for(None) };
        let mut keys = self.keys.live(bounds).map(Versions::newest).peekable();
        if keys.peek().is_none() {
            return compare.holds_for(None);
        }
        keys.all(|kv| compare.holds_for(Some(kv)))
    }

    /// Checks all puts first, and then all ranges: which of two errors is told is part of etcd's API, too.
    fn check_branch(&self, branch: &Branch<'_>) -> Result<(), StoreError> {
        self.check_puts(branch)?;
        self.check_ranges(branch)
    }

    fn check_puts(&self, branch: &Branch<'_>) -> Result<(), StoreError> {
        branch.steps.iter().try_for_each(|step| match step {
            // The other way round than for a put by itself.
            Step::Put(put) => self.check_put_key(put).and_then(|()| self.check_put_lease(put)),
            Step::Txn(inner) => self.check_puts(inner),
            Step::Range(_) | Step::Delete(_) => Ok(()),
        })
    }

    fn check_ranges(&self, branch: &Branch<'_>) -> Result<(), StoreError> {
        branch.steps.iter().try_for_each(|step| match step {
            // A revision below 0 is the current one outside of a transaction only, in etcd.
            Step::Range(range) if range.revision < 0 && range.revision < self.compacted_revision() => {
                Err(StoreError::Range(RangeError::Compacted))
            }
            Step::Range(range) => Ok(self.check_range(range)?),
            Step::Txn(inner) => self.check_ranges(inner),
            Step::Put(_) | Step::Delete(_) => Ok(()),
        })
    }
}

impl TxnRequest {
    /// Whether no branch changes anything, whatever the compares say.
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| match op {
            Op::Range(_) => true,
            Op::Put(_) | Op::Delete(_) => false,
            Op::Txn(inner) => inner.is_read_only(),
        })
    }

    /// Checks that no key is put twice, or put and deleted, whichever branch is taken.
    ///
    /// # Errors
    /// [`StoreError::DuplicateKey`].
    pub fn check_changes(&self) -> Result<(), StoreError> {
        Changes::of(&self.success)?;
        Changes::of(&self.failure)?;
        Ok(())
    }
}

impl Compare {
    fn holds_for(&self, kv: Option<&KeyValue>) -> bool {
        let number = |of: fn(&KeyValue) -> i64| kv.map_or(0, of);
        let ordering = match &self.target {
            CompareTarget::Version(given) => number(KeyValue::version).cmp(given),
            CompareTarget::CreateRevision(given) => number(KeyValue::create_revision).cmp(given),
            CompareTarget::ModRevision(given) => number(KeyValue::mod_revision).cmp(given),
            CompareTarget::Lease(given) => number(|kv| kv.lease().map_or(0, LeaseId::get)).cmp(given),
            CompareTarget::Value(given) => match kv {
                Some(kv) => kv.value().cmp(given),
                None => return false,
            },
        };
        match self.operator {
            CompareOperator::Equal => ordering.is_eq(),
            CompareOperator::NotEqual => ordering.is_ne(),
            CompareOperator::Greater => ordering.is_gt(),
            CompareOperator::Less => ordering.is_lt(),
        }
    }
}

/// The operations that will be done, all inner transactions decided.
struct Branch<'r> {
    succeeded: bool,
    steps: Vec<Step<'r>>,
}

enum Step<'r> {
    Range(&'r RangeRequest),
    Put(&'r PutRequest),
    Delete(&'r DeleteRequest),
    Txn(Branch<'r>),
}

impl Write<'_> {
    fn run(&mut self, branch: &Branch<'_>) -> TxnResponse {
        let run = |step: &Step<'_>| {
            let result = match step {
                Step::Range(range) => OpResult::Range(self.store.range_checked(range, &self.events)),
                Step::Put(put) => OpResult::Put(self.put(put)),
                Step::Delete(delete) => OpResult::Delete(self.delete(delete)),
                Step::Txn(inner) => OpResult::Txn(self.run(inner)),
            };
            OpResponse { revision: self.revision(), result }
        };
        TxnResponse { succeeded: branch.succeeded, responses: branch.steps.iter().map(run).collect() }
    }
}

/// Checks the form of a transaction, both branches of it. Which keys are changed twice is looked at afterwards, once for
/// the whole tree.
fn validate(request: &TxnRequest, max_ops: usize) -> Result<(), StoreError> {
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    let left = max_ops.checked_sub(longest).ok_or(StoreError::TooManyOps)?;
    request.compare.iter().try_for_each(|compare| compare.range.validate())?;
    for ops in [&request.success, &request.failure] {
        for op in ops {
            match op {
                Op::Range(range) => range.range.validate()?,
                Op::Put(put) => put.validate()?,
                Op::Delete(delete) => delete.validate()?,
                Op::Txn(inner) => validate(inner, left)?,
            }
        }
    }
    Ok(())
}

/// The keys that a list of operations may change. Two puts of a key, or a put and a deletion, have no meaning at one
/// revision; two deletions have.
#[derive(Default)]
struct Changes<'r> {
    puts: BTreeSet<&'r [u8]>,
    deletes: Vec<&'r KeyRange>,
}

impl<'r> Changes<'r> {
    fn of(ops: &'r [Op]) -> Result<Self, StoreError> {
        let mut changes = Self::default();
        for op in ops {
            let more = match op {
                Op::Range(_) => Self::default(),
                Op::Put(put) => Self { puts: [&put.key[..]].into(), deletes: Vec::new() },
                Op::Delete(delete) => Self { deletes: vec![&delete.range], ..Self::default() },
                // Only one of its branches is done, so that these two may name the same keys.
                Op::Txn(inner) => Self::of(&inner.success)?.or(Self::of(&inner.failure)?),
            };
            changes = changes.and(more)?;
        }
        Ok(changes)
    }

    fn or(mut self, other: Self) -> Self {
        self.puts.extend(other.puts);
        self.deletes.extend(other.deletes);
        self
    }

    fn and(self, other: Self) -> Result<Self, StoreError> {
        let put_twice = !self.puts.is_disjoint(&other.puts);
        if put_twice || self.deletes_any_of(&other.puts) || other.deletes_any_of(&self.puts) {
            return Err(StoreError::DuplicateKey);
        }
        Ok(self.or(other))
    }

    fn deletes_any_of(&self, keys: &BTreeSet<&[u8]>) -> bool {
        let hits = |bounds| keys.range::<[u8], _>(bounds).next().is_some();
        self.deletes.iter().filter_map(|range| range.bounds()).any(hits)
    }
}
