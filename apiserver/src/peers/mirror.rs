//! The copy of a peer's records that this cluster's agents read: what it has to be, and which writes make it so.
//!
//! ```text
//! peer's store: cilium/state/…  ─ upsert, delete ─► Mirror ─ writes ──────► own store: cilium/cache/…/<peer>/…
//!                                                     └─ full_pass(actual) ─┘   after a start or a failed write
//! ```
//!
//! - What is refused is not in the copy, also not as it was before: a record that turns bad is withdrawn.
//! - Values are passed on byte for byte.
//! - Memory is bounded by the limits of each kind, whatever the peer publishes.
//! - Pure. Writes are in the order in which a reader needs them: nodes, identities, addresses, services, then deletions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bytes::Bytes;
use landbridge_kvstore_client::Write;
use landbridge_kvstore_schema::{KeyError, Keyspace, Kind, RecordName};

use super::admit::{Admitted, Bounds, KINDS, Refusal, admit, limit, limit_bytes};

/// How many refused records are listed by name.
pub const LISTED_REFUSALS: usize = 20;

/// How many keys without a valid name are remembered.
const MAX_BAD_KEYS: usize = 1_000;
/// Longer ones are not remembered.
const MAX_BAD_KEY_BYTES: usize = 1_000;

/// What one peer publishes, and what of it is taken.
#[derive(Debug)]
pub struct Mirror {
    bounds: Bounds,
    copy: Keyspace,
    records: BTreeMap<Kind, BTreeMap<RecordName, Record>>,
    /// What the values of `records` take.
    bytes: BTreeMap<Kind, usize>,
    /// Addresses of the nodes that are taken, and how many nodes have each.
    nodes: BTreeMap<IpAddr, usize>,
    bad_keys: BTreeSet<String>,
    /// Kinds of which the peer had more than the limit, and how many records were not even looked at.
    overflow: BTreeMap<Kind, u64>,
    changes: u64,
}

#[derive(Debug)]
struct Record {
    value: Bytes,
    verdict: Result<Admitted, Refusal>,
}

/// How many records of a peer there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that are taken, by kind.
    pub admitted: BTreeMap<Kind, usize>,
    /// Records that are refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Some of the refused ones, with the reason.
    pub refusals: Vec<String>,
}

impl Mirror {
    /// An empty one.
    pub fn new(bounds: Bounds) -> Self {
        let copy = Keyspace::cache(bounds.origin.keyspace.cluster.clone());
        Self {
            bounds,
            copy,
            records: BTreeMap::new(),
            bytes: BTreeMap::new(),
            nodes: BTreeMap::new(),
            bad_keys: BTreeSet::new(),
            overflow: BTreeMap::new(),
            changes: 0,
        }
    }

    /// The peer has this record now. Returns what changes in the copy.
    pub fn upsert(&mut self, key: &str, value: Bytes) -> Vec<Write> {
        self.changes += 1;
        let Some(name) = self.name(key) else { return Vec::new() };
        let kind = name.kind();
        let records = self.records.entry(kind).or_default();
        let before = records.get(&name).map(|record| record.value.len());
        let bytes = self.bytes.entry(kind).or_default();
        let bytes_with_it = *bytes - before.unwrap_or_default() + value.len();
        if bytes_with_it > limit_bytes(kind) || (before.is_none() && records.len() >= limit(kind)) {
            *self.overflow.entry(kind).or_default() += 1;
            // What it was before is no longer so.
            return self.forget(&name);
        }
        *bytes = bytes_with_it;
        self.judge(name, value)
    }

    /// The peer no longer has this record. Returns what changes in the copy.
    pub fn delete(&mut self, key: &str) -> Vec<Write> {
        self.changes += 1;
        self.bad_keys.remove(key);
        let Ok(name) = self.bounds.origin.keyspace.parse(key.as_bytes()) else { return Vec::new() };
        self.forget(&name)
    }

    fn forget(&mut self, name: &RecordName) -> Vec<Write> {
        let gone = self.records.get_mut(&name.kind()).and_then(|records| records.remove(name));
        let Some(Record { value, verdict }) = gone else { return Vec::new() };
        *self.bytes.entry(name.kind()).or_default() -= value.len();
        let Ok(admitted) = verdict else { return Vec::new() };
        let delete = Write::Delete { key: self.copy.key(name) };
        let services = self.replace_node(&admitted.node_addresses, &BTreeSet::new());
        [delete].into_iter().chain(services).collect()
    }

    /// The bounds are others now. Returns what changes in the copy.
    pub fn rebound(&mut self, bounds: Bounds) -> Vec<Write> {
        if bounds == self.bounds {
            return Vec::new();
        }
        self.bounds = bounds;
        self.changes += 1;
        self.judge_again(|_, _| true)
    }

    /// The writes that make the copy what it has to be, given all keys below the copy's prefixes.
    pub fn full_pass<'a>(&self, actual: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<Write> {
        let actual: BTreeMap<_, _> = actual.into_iter().collect();
        let desired: BTreeMap<String, &Bytes> =
            self.admitted().map(|(name, record)| (self.copy.key(name), &record.value)).collect();
        let puts = self.admitted().filter_map(|(name, record)| {
            let key = self.copy.key(name);
            (actual.get(key.as_str()) != Some(&&record.value[..]))
                .then(|| Write::Put { key, value: record.value.to_vec() })
        });
        // The other way round than they come: an address goes before the identity that it has.
        let gone = actual.keys().rev().filter(|key| !desired.contains_key(**key));
        puts.chain(gone.map(|key| Write::Delete { key: (*key).to_owned() })).collect()
    }

    /// Goes up whenever [`Mirror::counts`] may have changed.
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// What is taken and what is refused.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (name, record) in self.records.values().flatten() {
            match &record.verdict {
                Ok(_) => *counts.admitted.entry(name.kind()).or_default() += 1,
                Err(refusal) => {
                    *counts.refused.entry(refusal.reason()).or_default() += 1;
                    if counts.refusals.len() < LISTED_REFUSALS {
                        let key = self.bounds.origin.keyspace.key(name);
                        counts.refusals.push(format!("{key}: {refusal}"));
                    }
                }
            }
        }
        if !self.bad_keys.is_empty() {
            *counts.refused.entry(Refusal::Key.reason()).or_default() += self.bad_keys.len() as u64;
            let room = LISTED_REFUSALS - counts.refusals.len();
            counts
                .refusals
                .extend(self.bad_keys.iter().take(room).map(|key| format!("{key:?}: {}", Refusal::Key)));
        }
        for (kind, records) in &self.overflow {
            let (limit, limit_bytes) = (limit(*kind), limit_bytes(*kind));
            let refusal = Refusal::TooMany { kind: *kind, limit, limit_bytes };
            *counts.refused.entry(refusal.reason()).or_default() += records;
            counts.refusals.push(refusal.to_string());
        }
        counts
    }

    /// Whether records were passed over for the limit, and there is room again: only a new list shows them.
    pub fn wants_relist(&self) -> bool {
        let len = |kind| self.records.get(&kind).map_or(0, BTreeMap::len);
        let bytes = |kind| self.bytes.get(&kind).copied().unwrap_or_default();
        let has_room = |kind| len(kind) < limit(kind) / 10 * 9 && bytes(kind) < limit_bytes(kind) / 10 * 9;
        self.overflow.keys().any(|kind| has_room(*kind))
    }

    /// Judges a record, remembers it and returns what changes.
    fn judge(&mut self, name: RecordName, value: Bytes) -> Vec<Write> {
        let verdict = admit(&self.bounds, |address| self.nodes.contains_key(&address), &name, &value);
        let key = self.copy.key(&name);
        let record = Record { value: value.clone(), verdict: verdict.clone() };
        let before = self.records.entry(name.kind()).or_default().insert(name, record);
        let was = before.as_ref().and_then(|record| Some((record.verdict.as_ref().ok()?, &record.value)));
        let own_write = match (was, &verdict) {
            (Some((_, before)), Ok(_)) if *before == value => None,
            (_, Ok(_)) => Some(Write::Put { key, value: value.into() }),
            (Some(_), Err(_)) => Some(Write::Delete { key }),
            (None, Err(_)) => None,
        };
        let none = BTreeSet::new();
        let old = was.map_or(&none, |(admitted, _)| &admitted.node_addresses);
        let services = self.replace_node(old, verdict.as_ref().map_or(&none, |new| &new.node_addresses));
        own_write.into_iter().chain(services).collect()
    }

    /// A node had the `old` addresses and has the `new` ones. Services hang on them, or wait for them.
    fn replace_node(&mut self, old: &BTreeSet<IpAddr>, new: &BTreeSet<IpAddr>) -> Vec<Write> {
        if old == new {
            return Vec::new();
        }
        for address in new {
            *self.nodes.entry(*address).or_default() += 1;
        }
        for address in old {
            let count = self.nodes.get_mut(address).expect("an address was counted when it came");
            *count -= 1;
            if *count == 0 {
                self.nodes.remove(address);
            }
        }
        self.judge_again(|kind, record| match &record.verdict {
            _ if kind != Kind::Services => false,
            Ok(admitted) => admitted.depends_on_nodes,
            Err(refusal) => matches!(refusal, Refusal::Outside { .. }),
        })
    }

    fn judge_again(&mut self, concerned: impl Fn(Kind, &Record) -> bool) -> Vec<Write> {
        let concerned = |(name, record): &(&RecordName, &Record)| concerned(name.kind(), record);
        let records = self.records.values().flatten().filter(concerned);
        let again: Vec<_> = records.map(|(name, record)| (name.clone(), record.value.clone())).collect();
        again.into_iter().flat_map(|(name, value)| self.judge(name, value)).collect()
    }

    fn name(&mut self, key: &str) -> Option<RecordName> {
        match self.bounds.origin.keyspace.parse(key.as_bytes()) {
            Ok(name) => KINDS.contains(&name.kind()).then_some(name),
            // Kinds and versions that we do not know are no fault of the peer's.
            Err(KeyError::Elsewhere { .. }) => None,
            Err(KeyError::InvalidName { .. }) => {
                if self.bad_keys.len() < MAX_BAD_KEYS && key.len() <= MAX_BAD_KEY_BYTES {
                    self.bad_keys.insert(key.to_owned());
                }
                None
            }
        }
    }

    fn admitted(&self) -> impl Iterator<Item = (&RecordName, &Record)> {
        self.records.values().flatten().filter(|(_, record)| record.verdict.is_ok())
    }
}

#[cfg(test)]
mod tests;
