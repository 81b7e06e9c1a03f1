//! Which number each set of labels has.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use landbridge_kvstore_schema::{ClusterId, Labels, NumericIdentity};

/// How long a number that no pod has stays known: packets, connections and peers may still have it.
pub const KEEP_UNUSED: Duration = Duration::from_mins(10);

/// The first number within a cluster's own that is allocated (Cilium `identity.MinimalAllocationIdentity`).
const FIRST_WITHIN_CLUSTER: u32 = 256;

/// The numbers that a cluster has given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    cluster: ClusterId,
    range: RangeInclusive<u32>,
    /// No number of the range from this one on was given out; those below come again only when there is none left.
    fresh: u32,
    /// No number of the range below this one is free.
    lowest_free: u32,
    by_number: BTreeMap<NumericIdentity, Labels>,
    /// A set has several numbers only if somebody else wrote to the store; the lowest counts.
    by_labels: BTreeMap<Labels, BTreeSet<NumericIdentity>>,
    unused_since: BTreeMap<NumericIdentity, SystemTime>,
}

/// All numbers of the cluster are given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cluster {cluster} has given out all of its {numbers} identities: use fewer different sets of labels on pods and \
     namespaces"
)]
pub struct Exhausted {
    /// The cluster.
    pub cluster: ClusterId,
    /// How many it has.
    pub numbers: u32,
}

impl Allocation {
    /// Nothing given out yet.
    pub fn new(cluster: ClusterId) -> Self {
        let all = cluster.identities();
        let first = all.start().0 + FIRST_WITHIN_CLUSTER;
        Self {
            cluster,
            range: first..=all.end().0,
            fresh: first,
            lowest_free: first,
            by_number: BTreeMap::new(),
            by_labels: BTreeMap::new(),
            unused_since: BTreeMap::new(),
        }
    }

    /// Notes that `number` stands for `labels`, as the store says.
    pub fn insert(&mut self, number: NumericIdentity, labels: Labels) {
        self.remove(number);
        self.by_labels.entry(labels.clone()).or_default().insert(number);
        self.by_number.insert(number, labels);
        if self.range.contains(&number.0) {
            self.fresh = self.fresh.max(number.0 + 1);
        }
        while self.by_number.contains_key(&NumericIdentity(self.lowest_free)) {
            self.lowest_free += 1;
        }
    }

    /// The number of a set of labels.
    pub fn number(&self, labels: &Labels) -> Option<NumericIdentity> {
        self.by_labels.get(labels)?.first().copied()
    }

    /// All numbers that are given out, with their labels.
    pub fn iter(&self) -> impl Iterator<Item = (NumericIdentity, &Labels)> {
        self.by_number.iter().map(|(number, labels)| (*number, labels))
    }

    /// A number that is free: one that was never given out as far as is known, or else the lowest. A cluster that was cut
    /// off for long may still take a number for the labels that it had before.
    ///
    /// # Errors
    /// [`Exhausted`] if there is none.
    pub fn next_free(&self) -> Result<NumericIdentity, Exhausted> {
        let free = [self.fresh, self.lowest_free].into_iter().find(|number| self.range.contains(number));
        if let Some(number) = free {
            return Ok(NumericIdentity(number));
        }
        Err(Exhausted { cluster: self.cluster, numbers: self.range.end() - self.range.start() + 1 })
    }

    /// Sets of labels that have no number yet, each once.
    pub fn missing<'a>(&self, wanted: &'a BTreeSet<Labels>) -> impl Iterator<Item = &'a Labels> {
        wanted.iter().filter(|labels| !self.by_labels.contains_key(*labels))
    }

    /// Forgets numbers that nothing in `wanted` has had for [`KEEP_UNUSED`], and notes since when the others are
    /// unused.
    pub fn forget_unused(&mut self, wanted: &BTreeSet<Labels>, now: SystemTime) {
        let used: BTreeSet<_> = wanted.iter().filter_map(|labels| self.number(labels)).collect();
        self.unused_since.retain(|number, _| !used.contains(number));
        let unused: Vec<_> = self.by_number.keys().filter(|number| !used.contains(number)).copied().collect();
        for number in unused {
            let since = *self.unused_since.entry(number).or_insert(now);
            match now.duration_since(since) {
                Ok(unused) if unused >= KEEP_UNUSED => self.remove(number),
                Ok(_) => {}
                // The clock was set back: the time starts anew.
                Err(_) => drop(self.unused_since.insert(number, now)),
            }
        }
    }

    fn remove(&mut self, number: NumericIdentity) {
        self.unused_since.remove(&number);
        let Some(labels) = self.by_number.remove(&number) else { return };
        if let Some(numbers) = self.by_labels.get_mut(&labels) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_labels.remove(&labels);
            }
        }
        if self.range.contains(&number.0) {
            self.lowest_free = self.lowest_free.min(number.0);
        }
    }
}
