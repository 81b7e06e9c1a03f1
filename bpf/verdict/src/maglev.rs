//! Tables that say which backend a connection gets: Maglev hashing (Eisenbud and others, NSDI 2016, section 3.4) with
//! weights.
//!
//! Each backend has an order of its own in which it wants the slots. Backends take turns, and each takes the first slot
//! of its order that is free; one with half of the largest weight takes every second turn.
//!
//! - A table depends on the addresses, ports and weights of the backends and on nothing else: all nodes of all clusters
//!   make the same one.
//! - A backend that leaves gives its slots away, and few others change.

use landbridge_bpf_maps::Backend;

use crate::hash::Hash;

/// Lengths of tables. Primes, so that every backend's steps reach every slot.
const LENGTHS: [u32; 9] = [251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521];
/// Slots that a backend has on average, or more, so that shares are right within a percent.
const SLOTS_PER_BACKEND: u64 = 100;
/// Slots of the backend with the smallest share, likewise.
const SLOTS_OF_SMALLEST: u64 = 10;
/// A slot that nobody has taken.
const FREE: u16 = u16::MAX;

/// How many slots a table for backends of these weights has; nothing if there are too many for any table.
pub fn table_len(weights: impl Iterator<Item = u16> + Clone) -> Option<u32> {
    let weights = weights.map(|weight| u64::from(weight.max(1)));
    let (count, sum) = weights.clone().fold((0, 0), |(count, sum), weight| (count + 1, sum + weight));
    let smallest = weights.min()?;
    let [.., largest_table] = LENGTHS;
    if count > u64::from(largest_table) {
        return None;
    }
    let wanted = (SLOTS_PER_BACKEND * count).max(SLOTS_OF_SMALLEST * sum.div_ceil(smallest));
    Some(LENGTHS.into_iter().find(|len| u64::from(*len) >= wanted).unwrap_or(largest_table))
}

/// One backend's way through a table.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    /// What tells backends apart, whatever order they come in.
    name: ([u8; 16], [u8; 2]),
    /// Its place in the run.
    place: u16,
    /// The slot that it wants next.
    next: u32,
    /// From each slot to the next.
    step: u32,
    weight: u32,
    /// Collected weight; a turn costs the largest weight of all.
    credit: u32,
}

impl Walk {
    /// The way of the backend at `place` of its run, through a table of `len` slots.
    pub fn new(backend: &Backend, place: u16, len: u32) -> Self {
        let hash = Hash::new().address(&backend.address).ports(backend.port, [0; 2]).end();
        let [start, step] = [hash >> 32, hash & u64::from(u32::MAX)];
        Self {
            name: (backend.address.0, backend.port),
            place,
            next: scaled(start, len),
            step: 1 + scaled(step, len.saturating_sub(1)),
            weight: u32::from(backend.weight.max(1)),
            credit: 0,
        }
    }
}

/// A number of 32 bits as one below `bound`.
fn scaled(number: u64, bound: u32) -> u32 {
    u32::try_from((number * u64::from(bound)) >> 32).unwrap_or_default()
}

/// Fills a table, of [`table_len`] slots, with the places of these backends. The walks are used up, and reordered.
pub fn fill(table: &mut [u16], walks: &mut [Walk]) {
    table.fill(FREE);
    walks.sort_unstable_by_key(|walk| walk.name);
    let Some(largest) = walks.iter().map(|walk| walk.weight).max() else { return };
    let Ok(len) = u32::try_from(table.len()) else { return };
    // Halves are rounded, so that the largest does not get what all others lack.
    for walk in &mut *walks {
        walk.credit = largest / 2;
    }
    let mut left = len;
    while left > 0 {
        for walk in &mut *walks {
            walk.credit += walk.weight;
            if walk.credit < largest || left == 0 {
                continue;
            }
            walk.credit -= largest;
            // Steps and length have no common factor, so every slot comes up.
            while let Some(slot) = table.get_mut(walk.next as usize) {
                walk.next = (walk.next + walk.step) % len;
                if *slot == FREE {
                    *slot = walk.place;
                    left -= 1;
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::vec;
    use std::vec::Vec;

    use landbridge_bpf_maps::Address;
    use proptest::prelude::*;

    use super::*;
    use crate::tables::v4;

    fn table(backends: &[Backend]) -> Vec<Backend> {
        let len = table_len(backends.iter().map(|backend| backend.weight)).unwrap();
        let mut walks: Vec<Walk> =
            backends.iter().zip(0..).map(|(backend, place)| Walk::new(backend, place, len)).collect();
        let mut table = vec![0; len as usize];
        fill(&mut table, &mut walks);
        table.into_iter().map(|place| backends[usize::from(place)]).collect()
    }

    fn backend(number: u16) -> Backend {
        let [a, b] = number.to_be_bytes();
        Backend::new(v4([10, 1, a, b]), [31, 144], 1)
    }

    fn backends(weight: impl Strategy<Value = u16>) -> impl Strategy<Value = Vec<Backend>> {
        let one = (any::<u16>(), weight).prop_map(|(number, weight)| Backend { weight, ..backend(number) });
        proptest::collection::btree_map(any::<u16>(), one, 1..40).prop_map(|found| {
            let mut backends: Vec<Backend> = found.into_values().collect();
            backends.sort_unstable_by_key(|backend| (backend.address, backend.port));
            backends.dedup_by_key(|backend| (backend.address, backend.port));
            backends
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Every backend has its share, within a percent and two slots.
        #[test]
        fn shares_follow_weights(backends in backends(1u16..100)) {
            let table = table(&backends);
            let sum: f64 = backends.iter().map(|backend| f64::from(backend.weight)).sum();
            for backend in &backends {
                let slots = table.iter().filter(|slot| *slot == backend).count();
                let fair = f64::from(backend.weight) / sum * f64::from(u32::try_from(table.len()).unwrap());
                let slots = f64::from(u32::try_from(slots).unwrap());
                prop_assert!((slots - fair).abs() <= 2.0 + fair / 100.0, "{backend:?} has {slots} instead of {fair}");
            }
        }

        /// Whoever lists the backends, and in whichever order, gets the same table.
        #[test]
        fn the_order_of_backends_is_no_matter(
            (backends, shuffled) in backends(1u16..9).prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        ) {
            prop_assert_eq!(table(&backends), table(&shuffled));
        }

        /// What a backend had is given away, and of the rest fewer than a slot in ten changes: some in a hundred on the average.
        #[test]
        fn little_changes_when_a_backend_leaves(
            (mut backends, left) in backends(Just(1)).prop_flat_map(|all| {
                let count = all.len();
                (Just(all), 0..count)
            }),
        ) {
            prop_assume!(backends.len() > 1);
            let before = table(&backends);
            let gone = backends.remove(left);
            let after = table(&backends);
            // Tables of different lengths have nothing in common.
            prop_assume!(before.len() == after.len());
            let stayed = before.iter().zip(&after).filter(|(old, _)| **old != gone);
            let moved = stayed.filter(|(old, new)| old != new).count();
            prop_assert!(moved * 10 < before.len(), "{moved} of {}", before.len());
        }
    }

    #[test]
    fn tables_are_long_enough() {
        let of = |count, weight: u16| table_len(std::iter::repeat_n(weight, count));
        assert_eq!(
            [of(0, 1), of(1, 1), of(2, 7), of(3, 1), of(6, 1)],
            [None, Some(251), Some(251), Some(509), Some(1021)]
        );
        assert_eq!([of(655, 1), of(65_521, 1), of(65_522, 1)], [Some(65_521), Some(65_521), None]);
        assert_eq!(table_len([1, 99].into_iter()), Some(1021), "the small one has slots of its own");
    }

    #[test]
    fn the_table_of_known_backends_stays_as_it_is() {
        // Nodes of two versions have to agree: a change of the hash is a change of the protocol.
        let table = table(&[backend(1), backend(2), backend(3)]);
        let places: BTreeSet<Address> = table.iter().map(|backend| backend.address).collect();
        assert_eq!(places.len(), 3);
        let first: Vec<u8> = table[..16].iter().map(|backend| backend.address.0[15]).collect();
        assert_eq!(first, [2, 2, 3, 3, 3, 1, 1, 1, 1, 1, 3, 3, 3, 2, 1, 1]);
    }
}
