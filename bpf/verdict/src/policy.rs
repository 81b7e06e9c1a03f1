//! What a policy set says of a peer and a port.
//!
//! At most twelve lookups, however many rules there are, and only those that rules of the set have the form for: four ways to name the peer (its identity, its cluster, the
//! mesh, anyone), each with three ways to name the port (itself, all of its protocol, all of all protocols). Ranges of ports
//! take four more for each of their sizes, at most 72 in all.

use landbridge_bpf_maps::{KeyForms, PeerKind, PolicyKey, PolicySet, PolicyVerdict};

use crate::owner::{cluster_of, is_allocated};

/// The map of rules.
pub trait Rules {
    /// What the rule of exactly this key says, a [`PolicyVerdict`]; 0 if there is none.
    fn verdict(&self, key: &PolicyKey) -> u8;

    /// [`Rules::verdict`], of a key in a set that lacks some forms of key.
    #[inline(always)]
    fn of_form(&self, key: &PolicyKey, lacks: KeyForms) -> u8 {
        if lacks.has(KeyForms::of(key)) { 0 } else { self.verdict(key) }
    }

    /// [`of_ranges`] by these rules.
    #[inline(always)]
    fn of_ranges(&self, key: &PolicyKey, port_prefixes: u16) -> u8 {
        of_ranges(self, key, port_prefixes)
    }

    /// [`decide`] by these rules.
    #[inline(always)]
    fn decide(&self, question: &Question) -> Decision {
        decide(self, question)
    }
}

/// What rules say of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A rule allows it and none denies it, or the set is not enforced.
    Allow,
    /// A rule denies it.
    Deny,
    /// No rule speaks of it.
    NoMatch,
}

/// What rules are asked about.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// The rules in force.
    pub set: PolicySet,
    /// Identity of the other side.
    pub peer: u32,
    /// How many bits of an identity are below the cluster.
    pub shift: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// Port that the packet is for, network byte order, of ICMP the type; 0 if the protocol has none.
    pub port: [u8; 2],
    /// The sizes of ranges that rules of this set have, as [`Endpoint::port_prefixes`] has them.
    ///
    /// [`Endpoint::port_prefixes`]: landbridge_bpf_maps::Endpoint::port_prefixes
    pub port_prefixes: u16,
    /// Forms of keys that no rule of this set has.
    pub lacks: KeyForms,
}

/// What rules say. Deny wins over allow, whichever is more precise.
#[inline(always)]
pub fn decide<R: Rules + ?Sized>(rules: &R, question: &Question) -> Decision {
    let Question { set, peer, shift, protocol, port, port_prefixes, lacks } = *question;
    if set == PolicySet::NOT_ENFORCED {
        return Decision::Allow;
    }
    let in_mesh = is_allocated(peer);
    let mut seen = 0;
    let mut kind = PeerKind::Identity as u8;
    while kind <= PeerKind::Any as u8 {
        let named = match kind {
            IDENTITY => peer,
            CLUSTER => cluster_of(peer, shift),
            _ => 0,
        };
        if in_mesh || kind == IDENTITY || kind == ANY {
            let port_bits = PolicyKey::ONE_PORT;
            let mut key = PolicyKey { set, peer: named, port, protocol, kind, port_bits, reserved: [0; 3] };
            seen |= rules.of_form(&key, lacks);
            if port_prefixes != 0 {
                seen |= rules.of_ranges(&key, port_prefixes);
            }
            key.port = [0, 0];
            key.port_bits = 0;
            seen |= rules.of_form(&key, lacks);
            key.protocol = 0;
            seen |= rules.of_form(&key, lacks);
        }
        kind += 1;
    }
    // What is not a verdict that this version knows denies.
    match seen {
        0 => Decision::NoMatch,
        ALLOW => Decision::Allow,
        _ => Decision::Deny,
    }
}

/// What rules say that are about the peer of `key`, and about ranges of these sizes with its port.
#[inline(always)]
pub fn of_ranges<R: Rules + ?Sized>(rules: &R, key: &PolicyKey, prefixes: u16) -> u8 {
    let port = u16::from_be_bytes(key.port);
    let mut key = *key;

    let mut seen = 0;
    let mut bits = 1;
    while bits < PolicyKey::ONE_PORT {
        if prefixes & (1 << bits) != 0 {
            key.port_bits = bits;
            key.port = (port & (u16::MAX << (PolicyKey::ONE_PORT - bits))).to_be_bytes();
            seen |= rules.verdict(&key);
        }
        bits += 1;
    }
    seen
}

const IDENTITY: u8 = PeerKind::Identity as u8;
const CLUSTER: u8 = PeerKind::Cluster as u8;
const ANY: u8 = PeerKind::Any as u8;
const ALLOW: u8 = PolicyVerdict::Allow as u8;
// Verdicts are collected as bits.
const _: () = assert!(ALLOW.is_power_of_two() && PolicyVerdict::Deny as u8 & ALLOW == 0);

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use landbridge_bpf_maps::{PolicyEntry, identity};
    use proptest::prelude::*;

    use super::*;
    use crate::tables::Tables;

    const SHIFT: u32 = 16;

    fn ask(tables: &Tables, set: u32, peer: u32, protocol: u8, port: u16) -> Decision {
        let port = port.to_be_bytes();
        let ranges = tables
            .rules
            .keys()
            .map(|key| key.port_bits)
            .filter(|bits| (1..PolicyKey::ONE_PORT).contains(bits));
        let port_prefixes = ranges.fold(0, |prefixes, bits| prefixes | 1 << bits);
        let lacks = KeyForms::lacked_by(tables.rules.keys().filter(|key| key.set.0 == set));
        decide(
            tables,
            &Question { set: PolicySet(set), peer, shift: SHIFT, protocol, port, port_prefixes, lacks },
        )
    }

    type Rule = (PolicyKey, PolicyVerdict);

    fn peers() -> impl Strategy<Value = u32> {
        prop_oneof![
            Just(identity::HOST),
            Just(identity::WORLD),
            Just(identity::REMOTE_NODE),
            Just(1 << SHIFT),
            (0u32..3, 256u32..259).prop_map(|(cluster, number)| cluster << SHIFT | number),
        ]
    }

    fn rules() -> impl Strategy<Value = Vec<Rule>> {
        let kind = prop_oneof![
            peers().prop_map(|peer| (PeerKind::Identity, peer)),
            (0u32..3).prop_map(|cluster| (PeerKind::Cluster, cluster)),
            Just((PeerKind::Mesh, 0)),
            Just((PeerKind::Any, 0)),
        ];
        let ports = prop_oneof![
            Just((0, 0)),
            (80u16..83).prop_map(|port| (port, PolicyKey::ONE_PORT)),
            (76u16..88, 1..PolicyKey::ONE_PORT)
                .prop_map(|(port, bits)| (port & (u16::MAX << (16 - bits)), bits)),
        ];
        let place = prop_oneof![Just((0, (0, 0))), (prop_oneof![Just(6u8), Just(17)], ports)];
        let verdict = prop_oneof![3 => Just(PolicyVerdict::Allow), 1 => Just(PolicyVerdict::Deny)];
        let rule = (1u32..3, kind, place, verdict).prop_map(
            |(set, (kind, peer), (protocol, (port, port_bits)), verdict)| {
                let key = PolicyKey {
                    set: PolicySet(set),
                    peer,
                    port: port.to_be_bytes(),
                    protocol,
                    kind: kind as u8,
                    port_bits,
                    reserved: [0; 3],
                };
                (key, verdict)
            },
        );
        proptest::collection::vec(rule, 0..8)
    }

    /// Reads every rule, as a person would.
    fn naive(rules: &[Rule], set: u32, peer: u32, protocol: u8, port: u16) -> Decision {
        let allocated = (256..1 << 24).contains(&peer);
        let matching = rules.iter().filter(|(key, _)| {
            let of_peer = match key.kind {
                0 => key.peer == peer,
                1 => allocated && key.peer == peer >> SHIFT,
                2 => allocated,
                _ => true,
            };
            let first = u32::from(u16::from_be_bytes(key.port));
            let of_port = (first..first + (1 << (16 - key.port_bits))).contains(&port.into());
            key.set.0 == set && of_peer && (key.protocol == 0 || key.protocol == protocol && of_port)
        });
        let verdicts: Vec<PolicyVerdict> = matching.map(|(_, verdict)| *verdict).collect();
        if verdicts.contains(&PolicyVerdict::Deny) {
            Decision::Deny
        } else if verdicts.is_empty() {
            Decision::NoMatch
        } else {
            Decision::Allow
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]
        /// The few lookups find what reading all rules finds.
        #[test]
        fn lookups_agree_with_reading_every_rule(
            rules in rules(), peer in peers(), protocol in prop_oneof![Just(6u8), Just(17), Just(1)], port in 75u16..90,
        ) {
            // Of two rules with one key the later stands, as in a map.
            let mut tables = Tables::default();
            tables.rules.extend(rules.iter().map(|(key, verdict)| {
                (*key, PolicyEntry { verdict: *verdict as u8, ..PolicyEntry::default() })
            }));
            let rules: Vec<Rule> = rules
                .iter()
                .enumerate()
                .filter(|(place, (key, _))| !rules[place + 1..].iter().any(|(later, _)| later == key))
                .map(|(_, rule)| *rule)
                .collect();
            let found = ask(&tables, 1, peer, protocol, port);
            prop_assert_eq!(found, naive(&rules, 1, peer, protocol, port));
        }
    }

    #[test]
    fn a_set_that_is_not_enforced_allows_everything_and_an_empty_one_matches_nothing() {
        let tables = Tables::default();
        let decide = |set: PolicySet| ask(&tables, set.0, identity::WORLD, 6, 80);
        assert_eq!(decide(PolicySet::NOT_ENFORCED), Decision::Allow);
        assert_eq!(decide(PolicySet(7)), Decision::NoMatch);
    }

    #[test]
    fn an_unknown_verdict_denies() {
        let mut tables = Tables::default();
        let key = PolicyKey { set: PolicySet(1), kind: PeerKind::Any as u8, ..PolicyKey::default() };
        tables.rules.insert(key, PolicyEntry { verdict: 9, ..PolicyEntry::default() });
        assert_eq!(ask(&tables, 1, identity::WORLD, 6, 80), Decision::Deny);
    }
}
