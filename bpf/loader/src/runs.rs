//! Which part of the `BACKENDS` array belongs to which service.
//!
//! ```text
//!   0                                                       len
//!   │ run of a │ free │ run of b │ released │ run of c │ free │
//! ```
//!
//! Invariants:
//! - Runs that are in use do not overlap.
//! - A released run is left alone until [`QUARANTINE`] others were released after it, unless there is no other
//!   room: a program that began before the release may still be reading it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How many released runs are kept from being reused.
const QUARANTINE: usize = 64;

/// Hands out runs of an array.
#[derive(Debug)]
pub(crate) struct Runs {
    /// Length of each free run by its start; no two of them touch.
    free: BTreeMap<u32, u32>,
    /// The same by length, so that the smallest one that suffices is found at once.
    by_len: BTreeSet<(u32, u32)>,
    /// Released runs, the oldest first.
    quarantine: VecDeque<(u32, u32)>,
}

impl Runs {
    /// Of an array of `len` entries, all free.
    pub(crate) fn new(len: u32) -> Self {
        let mut runs = Self { free: BTreeMap::new(), by_len: BTreeSet::new(), quarantine: VecDeque::new() };
        if len > 0 {
            runs.insert(0, len);
        }
        runs
    }

    /// Takes a run that is in use already; false if part of it is not free.
    #[must_use]
    pub(crate) fn take(&mut self, first: u32, len: u32) -> bool {
        if len == 0 {
            return true;
        }
        let Some((&start, &free)) = self.free.range(..=first).next_back() else { return false };
        let (Some(end), free_end) = (first.checked_add(len), start + free) else { return false };
        if end > free_end {
            return false;
        }
        self.remove(start, free);
        if first > start {
            self.insert(start, first - start);
        }
        if free_end > end {
            self.insert(end, free_end - end);
        }
        true
    }

    /// The start of a run of `len` entries, or `None` if no free part is that long.
    pub(crate) fn allocate(&mut self, len: u32) -> Option<u32> {
        if len == 0 {
            return Some(0);
        }
        loop {
            if let Some(&(free, first)) = self.by_len.range((len, 0)..).next() {
                self.remove(first, free);
                if free > len {
                    self.insert(first + len, free - len);
                }
                return Some(first);
            }
            let (first, len) = self.quarantine.pop_front()?;
            self.free(first, len);
        }
    }

    /// Gives a run back.
    pub(crate) fn release(&mut self, first: u32, len: u32) {
        if len == 0 {
            return;
        }
        self.quarantine.push_back((first, len));
        if self.quarantine.len() > QUARANTINE {
            let (first, len) = self.quarantine.pop_front().expect("it was just counted");
            self.free(first, len);
        }
    }

    /// Joins a run with the free ones beside it.
    fn free(&mut self, mut first: u32, mut len: u32) {
        if let Some((&start, &before)) = self.free.range(..first).next_back()
            && start + before == first
        {
            self.remove(start, before);
            (first, len) = (start, before + len);
        }
        if let Some(&after) = self.free.get(&(first + len)) {
            self.remove(first + len, after);
            len += after;
        }
        self.insert(first, len);
    }

    fn insert(&mut self, first: u32, len: u32) {
        self.free.insert(first, len);
        self.by_len.insert((len, first));
    }

    fn remove(&mut self, first: u32, len: u32) {
        self.free.remove(&first);
        self.by_len.remove(&(len, first));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Allocate(u32),
        Release(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0u32..40).prop_map(Step::Allocate),
            any::<prop::sample::Index>().prop_map(|i| Step::Release(i.index(1000)))
        ];
        proptest::collection::vec(step, 0..300)
    }

    const LEN: u32 = 512;

    /// Marks each entry of `runs`; true if none was marked twice or is outside.
    fn disjoint(runs: &[(u32, u32)]) -> bool {
        let mut marked = [false; LEN as usize];
        runs.iter().flat_map(|(first, len)| *first..first + len).all(|entry| {
            marked.get_mut(entry as usize).is_some_and(|marked| !std::mem::replace(marked, true))
        })
    }

    /// How many entries in a row are in none of `runs`.
    fn longest_gap(runs: &[(u32, u32)]) -> u32 {
        let taken = |entry| runs.iter().any(|(first, len)| (*first..first + len).contains(&entry));
        let gaps = (0..LEN).scan(0, |gap, entry| {
            *gap = if taken(entry) { 0 } else { *gap + 1 };
            Some(*gap)
        });
        gaps.max().unwrap()
    }

    proptest! {
        /// Runs in use never overlap, a free array is found whole again, and room that is there is given out.
        #[test]
        fn runs_are_disjoint_and_nothing_is_lost(steps in steps()) {
            let mut runs = Runs::new(LEN);
            let mut used: Vec<(u32, u32)> = Vec::new();
            for step in steps {
                match step {
                    Step::Allocate(len) => {
                        let run = runs.allocate(len);
                        prop_assert!(run.is_some() || longest_gap(&used) < len, "{len} entries were refused");
                        used.extend(run.map(|first| (first, len)));
                    }
                    Step::Release(index) if !used.is_empty() => {
                        let (first, len) = used.swap_remove(index % used.len());
                        runs.release(first, len);
                    }
                    Step::Release(_) => {}
                }
                prop_assert!(disjoint(&used), "{used:?}");
            }
            // Another process finds the same.
            let mut rebuilt = Runs::new(LEN);
            for (first, len) in &used {
                prop_assert!(rebuilt.take(*first, *len));
            }
            for (first, len) in used.drain(..) {
                runs.release(first, len);
                rebuilt.release(first, len);
            }
            prop_assert_eq!(runs.allocate(LEN), Some(0));
            prop_assert_eq!(rebuilt.allocate(LEN), Some(0));
        }
    }

    #[test]
    fn a_released_run_is_not_reused_by_the_next() {
        let mut runs = Runs::new(1024);
        let old = runs.allocate(4).unwrap();
        runs.release(old, 4);
        for _ in 0..QUARANTINE {
            let next = runs.allocate(4).unwrap();
            assert_ne!(next, old);
            runs.release(next, 4);
        }
        assert_eq!(runs.allocate(4), Some(old), "it is free again in the end");
    }

    #[test]
    fn a_run_that_overlaps_another_or_the_end_is_not_taken() {
        let mut runs = Runs::new(100);
        assert!(runs.take(10, 10) && runs.take(20, 5) && runs.take(50, 0));
        for (first, len) in [(5, 6), (12, 2), (19, 1), (95, 6), (100, 1), (99, u32::MAX)] {
            assert!(!runs.take(first, len), "{first} {len}");
        }
        assert!(runs.take(95, 5) && runs.take(0, 10));
    }
}
