//! So many places, and only half of them for one who asks.
//!
//! A connection takes a file descriptor, and so does a segment of the log: whoever took the last one would end the store. So
//! connections have a limit, and no user can lock the others out; nor can an address, before it has shown who it is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The places that there are, and how many each holder has. Clones are of the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Quota<Holder: Ord> {
    places: usize,
    taken: Arc<Mutex<BTreeMap<Holder, usize>>>,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Place<Holder: Ord> {
    quota: Quota<Holder>,
    holder: Holder,
}

impl<Holder: Ord + Clone> Quota<Holder> {
    pub(crate) fn new(places: usize) -> Self {
        Self { places, taken: Arc::default() }
    }

    /// A place for `holder`; nothing if this one, or all together, have theirs.
    pub(crate) fn take(&self, holder: Holder) -> Option<Place<Holder>> {
        let mut taken = self.taken();
        let all: usize = taken.values().sum();
        let own = taken.get(&holder).copied().unwrap_or(0);
        if all >= self.places || own >= self.places.div_ceil(2) {
            return None;
        }
        taken.insert(holder.clone(), own + 1);
        Some(Place { quota: self.clone(), holder })
    }
}

impl<Holder: Ord> Quota<Holder> {
    fn taken(&self) -> MutexGuard<'_, BTreeMap<Holder, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Holder: Ord> Drop for Place<Holder> {
    fn drop(&mut self) {
        let mut taken = self.quota.taken();
        if let Some(own) = taken.get_mut(&self.holder) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_gets_half_of_the_places_and_gives_them_back() {
        let quota = Quota::new(5);
        let mut held: Vec<Place<&str>> = std::iter::from_fn(|| quota.take("one")).collect();
        assert_eq!(held.len(), 3);
        held.extend(std::iter::from_fn(|| quota.take("other")));
        assert_eq!(held.len(), 5);
        assert!(quota.take("third").is_none());
        held.remove(0);
        assert!(quota.take("one").is_some());
        drop(held);
        assert!(quota.taken().is_empty());
    }
}
