//! Reading keys.

use std::cmp::Ordering;

use crate::{KeyRange, KeyValue, RangeError, Store, StoreError};

/// Reads keys at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// Which.
    pub range: KeyRange,
    /// The revision to read at; 0 or below is the current one.
    pub revision: i64,
    /// How many keys at most; 0 or below is no limit.
    pub limit: i64,
    /// By what and in which order; `None` is by key, ascending.
    pub sort: Option<(SortTarget, SortOrder)>,
    /// Leave the values out.
    pub keys_only: bool,
    /// Return nothing but the count.
    pub count_only: bool,
    /// Only keys last changed at this revision or later; 0 is no bound. So the other three.
    pub min_mod_revision: i64,
    /// Only keys last changed at this revision or before.
    pub max_mod_revision: i64,
    /// Only keys created at this revision or later.
    pub min_create_revision: i64,
    /// Only keys created at this revision or before.
    pub max_create_revision: i64,
}

/// What keys are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortTarget {
    /// The key.
    Key,
    /// How often it was put since it was created.
    Version,
    /// When it was created.
    CreateRevision,
    /// When it was last changed.
    ModRevision,
    /// Its value.
    Value,
}

/// Which end comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortOrder {
    /// The smallest.
    Ascending,
    /// The largest.
    Descending,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResponse {
    /// The keys; with `keys_only`, whoever sends them leaves the values out.
    pub kvs: Vec<KeyValue>,
    /// How many keys the range has at that revision, whatever the limit and the revision bounds.
    pub count: i64,
    /// Whether the limit kept keys back.
    pub more: bool,
}

impl RangeRequest {
    /// Reads all of `range` as it is now.
    pub fn new(range: KeyRange) -> Self {
        Self {
            range,
            revision: 0,
            limit: 0,
            sort: None,
            keys_only: false,
            count_only: false,
            min_mod_revision: 0,
            max_mod_revision: 0,
            min_create_revision: 0,
            max_create_revision: 0,
        }
    }

    fn admits(&self, kv: &KeyValue) -> bool {
        let within =
            |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
        within(kv.mod_revision(), self.min_mod_revision, self.max_mod_revision)
            && within(kv.create_revision(), self.min_create_revision, self.max_create_revision)
    }

    /// Whether the first keys in key order are the first of the answer, too.
    fn keeps_key_order(&self) -> bool {
        let filtered = [
            self.min_mod_revision,
            self.max_mod_revision,
            self.min_create_revision,
            self.max_create_revision,
        ];
        matches!(self.sort, None | Some((SortTarget::Key, SortOrder::Ascending))) && filtered == [0; 4]
    }
}

impl SortTarget {
    fn compare(self, one: &KeyValue, other: &KeyValue) -> Ordering {
        match self {
            Self::Key => one.key().cmp(other.key()),
            Self::Version => one.version().cmp(&other.version()),
            Self::CreateRevision => one.create_revision().cmp(&other.create_revision()),
            Self::ModRevision => one.mod_revision().cmp(&other.mod_revision()),
            Self::Value => one.value().cmp(other.value()),
        }
    }
}

impl Store {
    /// Reads keys.
    ///
    /// # Errors
    /// [`StoreError::EmptyKey`], [`StoreError::Range`].
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        request.range.validate()?;
        self.check_range(request)?;
        Ok(self.range_checked(request))
    }

    /// Checks what depends on the state. A range that passes cannot fail.
    pub(crate) fn check_range(&self, request: &RangeRequest) -> Result<(), RangeError> {
        if request.revision > self.revision() {
            return Err(RangeError::Future);
        }
        if request.revision > 0 && request.revision < self.compacted {
            return Err(RangeError::Compacted);
        }
        Ok(())
    }

    pub(crate) fn range_checked(&self, request: &RangeRequest) -> RangeResponse {
        let Some(bounds) = request.range.bounds() else { return RangeResponse::default() };
        let mut there =
            self.keys.range::<[u8], _>(bounds).filter_map(|(_, versions)| match request.revision {
                ..=0 => versions.current(),
                revision => versions.at(revision),
            });
        let counted = |count: usize| i64::try_from(count).expect("memory ends before the numbers do");
        if request.count_only {
            return RangeResponse { count: counted(there.count()), ..RangeResponse::default() };
        }
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        if request.keeps_key_order() {
            let kvs: Vec<KeyValue> = there.by_ref().take(limit).cloned().collect();
            let left = there.count();
            return RangeResponse { count: counted(kvs.len() + left), more: left > 0, kvs };
        }
        let mut count = 0;
        let mut kvs: Vec<KeyValue> =
            there.inspect(|_| count += 1).filter(|kv| request.admits(kv)).cloned().collect();
        if let Some((target, order)) = request.sort {
            kvs.sort_by(|one, other| match order {
                SortOrder::Ascending => target.compare(one, other),
                SortOrder::Descending => target.compare(other, one),
            });
        }
        let more = kvs.len() > limit;
        kvs.truncate(limit);
        RangeResponse { kvs, count: counted(count), more }
    }
}
