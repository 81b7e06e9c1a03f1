//! Sets of entries, and a number for each.
//!
//! - A number is a hash of what the set holds, so that it is the same after a restart and nothing is written.
//! - Of two contents with one hash, the one that is there keeps the number, and the other takes the next free one.
//! - A number that goes out of use is not given to another content in the same round: endpoints still point at it.

use std::collections::{BTreeMap, BTreeSet};

use landbridge_bpf_maps::{KeyForms, PolicyEntry, PolicyKey, PolicySet, PolicyVerdict};

/// What a set holds, with keys of no set.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Content(BTreeMap<PolicyKey, PolicyVerdict>);

impl Content {
    /// Adds an entry. Of two with one key, the one that denies stays.
    pub(super) fn add(&mut self, key: PolicyKey, verdict: PolicyVerdict) {
        let entry = self.0.entry(key).or_insert(verdict);
        *entry = verdict.max(*entry);
    }

    pub(super) fn extend(&mut self, other: &Self) {
        for (key, verdict) in &other.0 {
            self.add(*key, *verdict);
        }
    }

    /// The sizes of ranges that its entries have, as [`Endpoint::port_prefixes`](landbridge_bpf_maps::Endpoint::port_prefixes)
    /// has them.
    pub(super) fn port_prefixes(&self) -> u16 {
        let ranges =
            self.0.keys().map(|key| key.port_bits).filter(|bits| (1..PolicyKey::ONE_PORT).contains(bits));
        ranges.fold(0, |prefixes, bits| prefixes | 1 << bits)
    }

    /// Forms of keys that none of its entries has.
    pub(super) fn lacks(&self) -> KeyForms {
        KeyForms::lacked_by(self.0.keys())
    }

    fn hash(&self) -> u32 {
        let bytes = self.0.iter().flat_map(|(key, verdict)| {
            let PolicyKey { set: _, peer, port, protocol, kind, port_bits, reserved: _ } = *key;
            let [a, b, c, d] = peer.to_be_bytes();
            [a, b, c, d, port[0], port[1], protocol, kind, port_bits, *verdict as u8]
        });
        hash(&bytes.collect::<Vec<_>>())
    }
}

/// The sets in use, by content.
#[derive(Clone, Debug, Default)]
pub(super) struct Sets {
    numbers: BTreeMap<Content, PolicySet>,
}

impl Sets {
    /// Makes `contents` those in use.
    pub(super) fn assign(&mut self, contents: impl Iterator<Item = Content>) {
        self.assign_by(contents, Content::hash);
    }

    fn assign_by(&mut self, contents: impl Iterator<Item = Content>, hash: impl Fn(&Content) -> u32) {
        let before = std::mem::take(&mut self.numbers);
        let mut taken: BTreeSet<_> = before.values().copied().collect();
        // In order, so that which of two new ones takes the next number does not depend on the order of endpoints.
        for content in contents.collect::<BTreeSet<_>>() {
            let number = before.get(&content).copied().unwrap_or_else(|| {
                let mut number = PolicySet(hash(&content).max(1));
                while taken.contains(&number) {
                    number = PolicySet(number.0.wrapping_add(1).max(1));
                }
                number
            });
            taken.insert(number);
            self.numbers.insert(content, number);
        }
    }

    /// The number of a content in use.
    pub(super) fn get(&self, content: &Content) -> PolicySet {
        *self.numbers.get(content).expect("numbers are given to all contents before they are looked up")
    }

    /// The entries of all sets in use.
    pub(super) fn entries(&self) -> BTreeMap<PolicyKey, PolicyEntry> {
        let entries = self.numbers.iter().flat_map(|(content, set)| {
            content.0.iter().map(|(key, verdict)| {
                let entry = PolicyEntry { verdict: *verdict as u8, reserved: [0; 3], rule: 0 };
                (PolicyKey { set: *set, ..*key }, entry)
            })
        });
        entries.collect()
    }
}

/// FNV-1a of 64 bits (RFC 9923), folded to 32 as its section on other sizes has it.
pub(crate) fn hash(bytes: &[u8]) -> u32 {
    let long = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let [high, low] =
        [long >> 32, long & u64::from(u32::MAX)].map(|half| u32::try_from(half).expect("a half has 32 bits"));
    high ^ low
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(peer: u32) -> Content {
        let mut content = Content::default();
        content.add(PolicyKey { peer, ..PolicyKey::default() }, PolicyVerdict::Allow);
        content
    }

    #[test]
    fn contents_of_one_hash_get_different_numbers_and_keep_them() {
        for same in [0, 7, u32::MAX] {
            let mut sets = Sets::default();
            sets.assign_by([content(5)].into_iter(), |_| same);
            let first = sets.get(&content(5));
            sets.assign_by([content(9), content(5), content(1)].into_iter(), |_| same);
            assert_eq!(sets.get(&content(5)), first);
            let numbers = [1, 5, 9].map(|peer| sets.get(&content(peer)));
            assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), 3);
            assert!(!numbers.contains(&PolicySet::NOT_ENFORCED));
        }
    }

    #[test]
    fn a_number_rests_before_it_means_something_else() {
        let mut sets = Sets::default();
        sets.assign_by([content(1)].into_iter(), |_| 7);
        sets.assign_by([content(2)].into_iter(), |_| 7);
        assert_eq!(sets.get(&content(2)), PolicySet(8));
        sets.assign_by([content(3)].into_iter(), |_| 7);
        assert_eq!(sets.get(&content(3)), PolicySet(7));
    }

    #[test]
    fn what_denies_stays() {
        let key = PolicyKey::default();
        for verdicts in
            [[PolicyVerdict::Allow, PolicyVerdict::Deny], [PolicyVerdict::Deny, PolicyVerdict::Allow]]
        {
            let mut content = Content::default();
            for verdict in verdicts {
                content.add(key, verdict);
            }
            assert_eq!(content.0[&key], PolicyVerdict::Deny);
        }
    }
}
