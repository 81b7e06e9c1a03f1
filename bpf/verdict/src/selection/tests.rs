use core::cell::RefCell;
use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::maglev::{self, Walk};
use crate::tables::v4;

#[derive(Default)]
struct Maps {
    backends: Vec<Backend>,
    groups: Vec<SlotGroup>,
    affinity: RefCell<BTreeMap<AffinityKey, &'static AffinityEntry>>,
}

impl Services for Maps {
    fn backend(&self, index: u32) -> Option<&Backend> {
        self.backends.get(index as usize)
    }

    fn slot(&self, group: u32, slot: u32) -> Option<u16> {
        slot_of(self.groups.get(group as usize)?, slot)
    }

    fn affinity(&self, key: &AffinityKey) -> Option<&AffinityEntry> {
        self.affinity.borrow().get(key).copied()
    }

    fn keep(&self, key: &AffinityKey, entry: &AffinityEntry) {
        self.affinity.borrow_mut().insert(*key, Box::leak(Box::new(*entry)));
    }
}

const KEY: ServiceKey = ServiceKey { address: v4([10, 96, 0, 1]), port: [0, 80], protocol: 6, scope: 0 };
const HOUR: u32 = 3600;

fn backend(number: u8, weight: u16) -> Backend {
    Backend { weight, ..Backend::new(v4([10, 1, 1, number]), [31, 144], 1) }
}

impl Maps {
    /// Backends behind `before` others, as a writer puts them into the maps.
    fn serve(&mut self, before: u8, backends: &[Backend], with_table: bool) -> ServiceEntry {
        let before: Vec<Backend> = (0..before).map(|number| backend(200 + number, 1)).collect();
        let first = u32::try_from(before.len()).unwrap();
        self.backends = before;
        self.backends.extend(backends);
        let count = u32::try_from(backends.len()).unwrap();
        let mut entry = ServiceEntry { first, count, service: 7, ..ServiceEntry::default() };
        if with_table {
            let len = maglev::table_len(backends.iter().map(|backend| backend.weight)).unwrap();
            let mut walks: Vec<Walk> =
                backends.iter().zip(0..).map(|(backend, place)| Walk::new(backend, place, len)).collect();
            let mut table = vec![0; len as usize];
            maglev::fill(&mut table, &mut walks);
            self.groups = vec![SlotGroup([u16::MAX; 32]); first as usize];
            (entry.table, entry.table_len) = (first, len);
            self.groups.extend(table.chunks(32).map(|slots| {
                let mut group = SlotGroup::default();
                group.0[..slots.len()].copy_from_slice(slots);
                group
            }));
            assert_eq!(self.groups.len(), (first + groups_of(len)) as usize);
        }
        entry
    }

    /// The last byte of the address of a backend that must be there.
    fn last(&self, index: Option<u32>) -> u8 {
        self.backend(index.unwrap()).unwrap().address.0[15]
    }

    fn share(&self, entry: &ServiceEntry, numbers: impl Iterator<Item = u32>) -> BTreeMap<u8, u32> {
        let mut seen = BTreeMap::new();
        for number in numbers {
            *seen.entry(self.last(choose(self, entry, number, number))).or_default() += 1;
        }
        seen
    }
}

/// Numbers all over the range.
fn spread(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(move |number| number * (u32::MAX / count))
}

fn request(number: u32, now: u64) -> Request {
    Request { number, turn: number, now }
}

#[test]
fn without_a_table_all_backends_are_alike() {
    let mut maps = Maps::default();
    let entry = maps.serve(3, &[backend(1, 1), backend(2, 1), backend(3, 1)], false);
    let shares = maps.share(&entry, spread(3000));
    assert!(shares.len() == 3 && shares.values().all(|share| (999..=1001).contains(share)), "{shares:?}");
    assert_eq!(choose(&maps, &ServiceEntry::default(), 5, 5), None);
}

#[test]
fn turns_go_round() {
    let mut maps = Maps::default();
    let mut entry = maps.serve(1, &[backend(1, 1), backend(2, 1), backend(3, 1)], false);
    entry.algorithm = Algorithm::RoundRobin as u8;
    let order: Vec<u8> = (0..6).map(|turn| maps.last(choose(&maps, &entry, 999, turn))).collect();
    assert_eq!(order, [1, 2, 3, 1, 2, 3]);
}

#[test]
fn a_table_gives_shares_by_weight_to_every_algorithm() {
    let mut maps = Maps::default();
    let mut entry = maps.serve(2, &[backend(1, 9), backend(2, 1)], true);
    for algorithm in [Algorithm::Random, Algorithm::Maglev, Algorithm::RoundRobin] {
        entry.algorithm = algorithm as u8;
        let numbers: Vec<u32> = match algorithm {
            Algorithm::RoundRobin => (0..entry.table_len).collect(),
            _ => spread(10_000).collect(),
        };
        let total = f64::from(u32::try_from(numbers.len()).unwrap());
        let share = f64::from(maps.share(&entry, numbers.into_iter())[&2]) / total;
        assert!((0.09..0.11).contains(&share), "{algorithm:?}: {share}");
    }
}

#[test]
fn a_slot_that_names_no_backend_is_none() {
    let mut maps = Maps::default();
    let mut entry = maps.serve(0, &[backend(1, 1)], true);
    maps.groups[0] = SlotGroup([1; 32]);
    assert_eq!(choose(&maps, &entry, 0, 0), None, "the next service's");
    entry.table = 1_000;
    assert_eq!(choose(&maps, &entry, 0, 0), None, "no such group");
}

#[test]
fn a_client_keeps_its_backend_for_as_long_as_was_promised() {
    let mut maps = Maps::default();
    let backends: Vec<Backend> = (1..=20).map(|number| backend(number, 1)).collect();
    let mut entry = maps.serve(0, &backends, false);
    entry.affinity_seconds = HOUR;
    let hour = u64::from(HOUR) * SECOND;
    let at = |maps: &Maps, entry: &ServiceEntry, number: u32, now: u64| {
        let client = client_key(v4([10, 9, 9, 1]), &KEY, entry);
        *maps.backend(select(maps, entry, &client, &request(number, now)).unwrap().index).unwrap()
    };
    let had = at(&maps, &entry, 0, 5);
    for (now, number) in [(10, u32::MAX), (hour, u32::MAX / 2), (2 * hour - 1, u32::MAX / 3)] {
        assert_eq!(at(&maps, &entry, number, now), had, "each use counts from now on");
    }
    // Others come and go.
    let place = backends.iter().position(|backend| *backend == had).unwrap();
    let mut others: Vec<Backend> = (101..=120).map(|number| backend(number, 1)).collect();
    others[place] = had;
    let mut changed = maps.serve(4, &others, false);
    changed.affinity_seconds = HOUR;
    assert_eq!(at(&maps, &changed, u32::MAX, 2 * hour), had);
    // It goes itself.
    others[place] = backend(0, 1);
    let mut without = maps.serve(4, &others, false);
    without.affinity_seconds = HOUR;
    let next = at(&maps, &without, u32::MAX, 2 * hour + 1);
    assert_ne!(next, had);
    assert_ne!(at(&maps, &without, 0, 3 * hour + 1), next, "the time is over");
}

#[test]
fn clients_ports_and_services_keep_backends_of_their_own() {
    let mut maps = Maps::default();
    let mut entry = maps.serve(0, &[backend(1, 1), backend(2, 1)], false);
    entry.affinity_seconds = HOUR;
    let (one, two) = (v4([10, 9, 9, 1]), v4([10, 9, 9, 2]));
    let ask = |client, key: &ServiceKey, entry: &ServiceEntry, number| {
        maps.last(
            select(&maps, entry, &client_key(client, key, entry), &request(number, 1))
                .map(|selected| selected.index),
        )
    };
    let first = ask(one, &KEY, &entry, 0);
    assert_eq!(ask(one, &KEY, &entry, u32::MAX), first);
    let other_port = ServiceKey { port: [0, 81], ..KEY };
    let other_service = ServiceEntry { service: 8, ..entry };
    for (client, key, entry) in [(one, other_port, entry), (one, KEY, other_service), (two, KEY, entry)] {
        assert_ne!(ask(client, &key, &entry, u32::MAX), first);
    }
}

proptest! {
    /// With affinity, a client's connections have one number on every node, whatever their ports.
    #[test]
    fn connections_of_a_client_have_one_number_if_they_belong_together(port in any::<[u8; 2]>(), other in any::<[u8; 2]>()) {
        let mut entry = ServiceEntry { affinity_seconds: HOUR, ..ServiceEntry::default() };
        let hash = |entry: &ServiceEntry, port| tuple_hash(&KEY, entry, &v4([10, 9, 9, 9]), port);
        prop_assert_eq!(hash(&entry, port), hash(&entry, other));
        entry.affinity_seconds = 0;
        prop_assert_eq!(hash(&entry, port) == hash(&entry, other), port == other);
    }
}

#[test]
fn hashes_spread_clients_over_backends() {
    let mut maps = Maps::default();
    let backends: Vec<Backend> = (1..=4).map(|number| backend(number, 1)).collect();
    let entry = maps.serve(0, &backends, true);
    let ports = (1024u16..1024 + 8000).map(u16::to_be_bytes);
    let seen = maps.share(&entry, ports.map(|port| tuple_hash(&KEY, &entry, &v4([10, 9, 9, 9]), port)));
    for (backend, share) in seen {
        assert!((1800..2200).contains(&share), "{backend}: {share} of 8000");
    }
}
