//! Reading keys.

use std::cmp::Ordering;

use crate::tree::{Bounds, Iter};
use crate::versions::Versions;
use crate::{Event, KeyRange, KeyValue, RangeError, Store, StoreError, history};

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
    /// The smallest of those that a limit leaves in the order of their keys, and one more, if the request has no bounds on
    /// revisions: what etcd does when it is told what to sort by and not how.
    AscendingAfterLimit,
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
        use SortOrder::{Ascending, AscendingAfterLimit};
        matches!(self.sort, None | Some((SortTarget::Key, Ascending | AscendingAfterLimit)))
            && self.admits_all()
    }

    /// Whether it has no bounds on revisions.
    fn admits_all(&self) -> bool {
        let bounds = [
            self.min_mod_revision,
            self.max_mod_revision,
            self.min_create_revision,
            self.max_create_revision,
        ];
        bounds == [0; 4]
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
        Ok(self.range_checked(request, &[]))
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

    /// Reads keys in the midst of a transaction that has made the changes `pending`, which are no revision yet.
    pub(crate) fn range_checked(&self, request: &RangeRequest, pending: &[Event]) -> RangeResponse {
        let Some(bounds) = request.range.bounds() else { return RangeResponse::default() };
        let revision = (request.revision > 0).then_some(request.revision);
        if request.count_only {
            let count = counted(self.count_at(&request.range, bounds, revision, pending));
            return RangeResponse { count, ..RangeResponse::default() };
        }
        let there = self.keys_at(bounds, revision);
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        if request.keeps_key_order() {
            let kvs: Vec<KeyValue> = there.take(limit).cloned().collect();
            let count = if kvs.len() < limit {
                kvs.len()
            } else {
                self.count_at(&request.range, bounds, revision, pending)
            };
            return RangeResponse { count: counted(count), more: count > kvs.len(), kvs };
        }
        let mut count = 0;
        let limited =
            matches!(request.sort, Some((_, SortOrder::AscendingAfterLimit))) && request.admits_all();
        let sorted = if limited { limit.saturating_add(1) } else { usize::MAX };
        let mut there = there.inspect(|_| count += 1).filter(|kv| request.admits(kv));
        let mut kvs: Vec<KeyValue> = there.by_ref().take(sorted).cloned().collect();
        there.for_each(drop);
        if let Some((target, order)) = request.sort {
            kvs.sort_by(|one, other| match order {
                SortOrder::Ascending | SortOrder::AscendingAfterLimit => target.compare(one, other),
                SortOrder::Descending => target.compare(other, one),
            });
        }
        let more = kvs.len() > limit;
        kvs.truncate(limit);
        RangeResponse { kvs, count: counted(count), more }
    }

    /// The keys of a range as they were at `revision`, or as they are now.
    fn keys_at(&self, bounds: Bounds<'_, [u8]>, revision: Option<i64>) -> Keys<'_> {
        match revision {
            // Where nothing lives now, something may have lived then.
            Some(revision) => Keys::Then(self.keys.range(bounds), revision),
            None => Keys::Now(self.keys.live(bounds)),
        }
    }

    /// How many keys of a range there were at `revision`, or are now.
    ///
    /// At an old revision it is the count of now without what changed since, unless that is more than the range has.
    fn count_at(
        &self,
        range: &KeyRange,
        bounds: Bounds<'_, [u8]>,
        revision: Option<i64>,
        pending: &[Event],
    ) -> usize {
        let now = self.keys.count_range(bounds);
        let Some(revision) = revision else { return now.live };
        let growth = self.history.growth_since(revision, range, now.items);
        let then = growth.and_then(|growth| {
            let growth = isize::try_from(growth + history::growth(pending, range)).ok()?;
            now.live.checked_add_signed(-growth)
        });
        then.unwrap_or_else(|| self.keys_at(bounds, Some(revision)).count())
    }
}

fn counted(count: usize) -> i64 {
    i64::try_from(count).expect("memory ends before the numbers do")
}

/// Keys of a range, in their order.
enum Keys<'a> {
    Now(Iter<'a, Versions>),
    Then(Iter<'a, Versions>, i64),
}

impl<'a> Iterator for Keys<'a> {
    type Item = &'a KeyValue;

    fn next(&mut self) -> Option<&'a KeyValue> {
        match self {
            Self::Now(keys) => keys.next().map(Versions::newest),
            Self::Then(keys, revision) => keys.find_map(|versions| versions.at(*revision)),
        }
    }
}
