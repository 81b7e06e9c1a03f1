//! What has to be written for the store to have what is wanted.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::feed::FeedEvent;
use crate::key_value::Write;

/// What a feed showed of the store.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Whether all keys were told of that there are.
    pub(super) is_whole: bool,
    /// Value and lease of each key.
    keys: BTreeMap<String, (Bytes, i64)>,
    /// Keys that were written, and are to be deleted if they are no longer wanted.
    own: BTreeSet<String>,
}

impl Seen {
    pub(super) fn take(&mut self, event: FeedEvent) {
        match event {
            FeedEvent::Upsert(kv) => drop(self.keys.insert(kv.key, (kv.value, kv.lease))),
            FeedEvent::Delete { key, .. } => drop(self.keys.remove(&key)),
            FeedEvent::Synced { .. } => self.is_whole = true,
            FeedEvent::Progress { .. } | FeedEvent::Lost { .. } => {}
        }
    }

    /// Takes note of keys that were written.
    pub(super) fn own<'a>(&mut self, keys: impl Iterator<Item = &'a String>) {
        self.own.extend(keys.cloned());
    }

    /// Writes after which the store has what is `wanted`, each key with `lease`. Without one, all of them are missing.
    pub(super) fn plan(&self, wanted: &BTreeMap<String, Vec<u8>>, lease: Option<i64>) -> Vec<Write> {
        let is_there = |key: &str, value: &[u8]| {
            let found = self.keys.get(key);
            found.is_some_and(|(found, of)| *found == value && Some(*of) == lease)
        };
        let puts = wanted
            .iter()
            .filter(|(key, value)| !is_there(key, value))
            .map(|(key, value)| Write::Put { key: key.clone(), value: value.clone() });
        let deletes = self
            .own
            .iter()
            .filter(|key| self.keys.contains_key(*key) && !wanted.contains_key(*key))
            .map(|key| Write::Delete { key: key.clone() });
        puts.chain(deletes).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key_value::KeyValue;

    const LEASE: i64 = 7;

    fn upsert(key: &str, value: &[u8], lease: i64) -> FeedEvent {
        let value = Bytes::copy_from_slice(value);
        let (create_revision, mod_revision, version) = (1, 1, 1);
        FeedEvent::Upsert(KeyValue {
            key: key.to_owned(),
            value,
            create_revision,
            mod_revision,
            version,
            lease,
        })
    }

    fn any_wanted() -> impl Strategy<Value = BTreeMap<String, Vec<u8>>> {
        prop::collection::btree_map("[a-f]", prop::collection::vec(0..3_u8, 0..2), 0..6)
    }

    proptest! {
        /// Whatever is there, and whoever wrote it, the plan leads to what is wanted, and then there is nothing to write.
        #[test]
        fn a_plan_leads_to_what_is_wanted(
            there in prop::collection::vec(("[a-f]", prop::collection::vec(0..3_u8, 0..2), 6..8_i64), 0..12),
            before in any_wanted(),
            wanted in any_wanted(),
        ) {
            let mut seen = Seen::default();
            for (key, value, lease) in &there {
                seen.take(upsert(key, value, *lease));
            }
            seen.own(before.keys());
            let foreign: Vec<String> =
                seen.keys.keys().filter(|key| !before.contains_key(*key)).cloned().collect();
            for write in seen.plan(&wanted, Some(LEASE)) {
                seen.take(match write {
                    Write::Put { key, value } => upsert(&key, &value, LEASE),
                    Write::Delete { key } => FeedEvent::Delete { key, revision: 2 },
                });
            }
            prop_assert_eq!(seen.plan(&wanted, Some(LEASE)), []);
            for (key, value) in &wanted {
                prop_assert_eq!(&seen.keys[key], &(Bytes::from(value.clone()), LEASE));
            }
            prop_assert!(foreign.iter().all(|key| seen.keys.contains_key(key)), "others' keys stay");
            prop_assert!(before.keys().all(|key| wanted.contains_key(key) || !seen.keys.contains_key(key)));
        }
    }
}
