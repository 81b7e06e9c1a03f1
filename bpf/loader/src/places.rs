//! Which place of its service's run a backend has, and the table that leads there.

use std::collections::BTreeMap;

use landbridge_bpf_maps::{Address, Algorithm, Backend};
use landbridge_bpf_verdict::maglev::{self, Walk};

/// How many places a table can tell apart, as many as the largest has slots.
const MAX_PLACES: usize = 65_521;
/// How many places a run may have for each of its backends before those are given new ones.
const MAX_PLACES_PER_BACKEND: usize = 4;

/// The backends in the places that they had before; others where nobody is any more, or behind. A place that nobody takes
/// has no address.
pub(crate) fn keep_places(before: &[Backend], backends: &[Backend]) -> Vec<Backend> {
    let mut coming: BTreeMap<(Address, [u8; 2]), Backend> =
        backends.iter().map(|backend| ((backend.address, backend.port), *backend)).collect();
    let is_worth_it = before.len() <= MAX_PLACES_PER_BACKEND * backends.len() && before.len() <= MAX_PLACES;
    let before = if is_worth_it { before } else { &[] };
    let mut run: Vec<Backend> = before
        .iter()
        .map(|backend| coming.remove(&(backend.address, backend.port)).unwrap_or_default())
        .collect();
    let mut coming = coming.into_values();
    for place in run.iter_mut().filter(|place| place.address.is_none()) {
        *place = coming.next().unwrap_or_default();
    }
    run.extend(coming);
    while run.pop_if(|last| last.address.is_none()).is_some() {}
    run
}

/// The table by which the backends of a run are chosen; empty if it takes none, since all places have the same share.
pub(crate) fn table(algorithm: Algorithm, run: &[Backend]) -> Vec<u16> {
    if run.len() < 2 || run.len() > MAX_PLACES {
        return Vec::new();
    }
    let backends = || run.iter().zip(0u16..).filter(|(backend, _)| !backend.address.is_none());
    let weights = || backends().map(|(backend, _)| backend.weight.max(1));
    let are_alike = weights().min() == weights().max() && weights().count() == run.len();
    if are_alike && algorithm != Algorithm::Maglev {
        return Vec::new();
    }
    let Some(len) = maglev::table_len(weights()) else { return Vec::new() };
    let mut walks: Vec<Walk> = backends().map(|(backend, place)| Walk::new(backend, place, len)).collect();
    let mut table = vec![0; len as usize];
    maglev::fill(&mut table, &mut walks);
    table
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn run(numbers: &[u8]) -> Vec<Backend> {
        let backend = |number: &u8| match number {
            0 => Backend::default(),
            number => Backend::new(Ipv4Addr::new(10, 1, 1, *number).into(), [0, 80], 1),
        };
        numbers.iter().map(backend).collect()
    }

    #[test]
    fn backends_keep_their_places() {
        for (before, backends, after) in [
            (&[][..], &[2, 1][..], &[1, 2][..]),
            (&[1, 2, 3], &[1, 3], &[1, 0, 3]),
            (&[1, 0, 3], &[1, 3, 4], &[1, 4, 3]),
            (&[1, 2, 3], &[1], &[1]),
            (&[1, 2], &[3, 4, 5], &[3, 4, 5]),
            (&[0, 0, 3], &[3, 9], &[9, 0, 3]),
            (&[1, 2, 3, 4, 5], &[5], &[5]),
            (&[1, 2], &[], &[]),
        ] {
            assert_eq!(keep_places(&run(before), &run(backends)), run(after), "{before:?} {backends:?}");
        }
    }

    #[test]
    fn a_table_names_all_backends_and_no_empty_place() {
        assert_eq!(table(Algorithm::Random, &run(&[1, 2, 3])), [0; 0]);
        assert_eq!(table(Algorithm::Maglev, &run(&[1])), [0; 0]);
        for (algorithm, places) in [
            (Algorithm::Random, &[1, 0, 3][..]),
            (Algorithm::Maglev, &[1, 2]),
            (Algorithm::RoundRobin, &[0, 2]),
        ] {
            let table = table(algorithm, &run(places));
            for (place, number) in (0u16..).zip(places) {
                assert_eq!(table.contains(&place), *number != 0, "{places:?}");
            }
        }
    }

    proptest! {
        /// Whatever came before, exactly the backends are there, and whoever was there is where it was.
        #[test]
        fn every_backend_has_a_place(
            changes in proptest::collection::vec(proptest::collection::btree_set(1u8..30, 0..12), 1..12),
        ) {
            let mut before = Vec::new();
            for backends in changes {
                let wanted = run(&backends.into_iter().collect::<Vec<_>>());
                let after = keep_places(&before, &wanted);
                let mut there: Vec<Backend> =
                    after.iter().filter(|backend| !backend.address.is_none()).copied().collect();
                there.sort_unstable();
                prop_assert_eq!(&there, &wanted);
                prop_assert!(after.len() <= 12 * MAX_PLACES_PER_BACKEND);
                if before.len() <= MAX_PLACES_PER_BACKEND * wanted.len() {
                    for (place, backend) in before.iter().enumerate().filter(|(_, backend)| wanted.contains(backend)) {
                        prop_assert_eq!(after.get(place), Some(backend));
                    }
                }
                before = after;
            }
        }
    }
}
