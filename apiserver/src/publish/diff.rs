//! What has to be written so that the store says what it should.

use std::collections::{BTreeMap, BTreeSet};

use landbridge_kvstore_client::Write;
use landbridge_kvstore_schema::{
    Area, Keyspace, NamespacedName, Policy, SharedFacts, cluster_config_key, pod_range_prefix,
    service_address_prefix, synced_prefix,
};

use super::policies::policy_of_record;
use crate::objects::{Objects, PolicyName};

/// Values by key, as the store has them.
pub type Stored = BTreeMap<String, Vec<u8>>;

/// What must not be deleted although nothing says that it should exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Withhold {
    /// Nothing is deleted.
    pub everything: bool,
    /// Nor are the records of these policies.
    pub policies: BTreeSet<PolicyName>,
}

impl Withhold {
    /// What these objects do not know enough of to withdraw it.
    pub fn of(objects: &Objects) -> Self {
        Self { everything: !objects.whole, policies: objects.unknown_policies.clone() }
    }

    fn holds(&self, key: &str) -> bool {
        let policy = || {
            let path = key.strip_prefix(Policy::prefix().as_str())?;
            let (namespace, name) = path.split_once('/')?;
            policy_of_record(&NamespacedName::new(namespace, name).ok()?)
        };
        self.everything
            || (!self.policies.is_empty() && policy().is_some_and(|policy| self.policies.contains(&policy)))
    }
}

/// The keys that the publisher alone writes: all else in the store is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnKeys {
    /// Everything under these is the publisher's.
    pub prefixes: Vec<String>,
    /// And so are these.
    pub keys: Vec<String>,
}

/// The keys that the publisher of a cluster alone writes.
pub fn own_keys(keyspace: &Keyspace) -> OwnKeys {
    let prefixes = [
        Area::Local.prefix(),
        service_address_prefix(),
        pod_range_prefix(),
        synced_prefix(&keyspace.cluster),
    ];
    let prefixes = prefixes.iter().map(ToString::to_string);
    OwnKeys {
        prefixes: prefixes.chain([STATE_PREFIX.to_owned()]).collect(),
        keys: vec![SharedFacts::key().to_string(), cluster_config_key(&keyspace.cluster)],
    }
}

/// Where a store has what its own cluster publishes.
const STATE_PREFIX: &str = "cilium/state/";

/// The writes that turn `actual` into `desired` and `canaries`, in the order in which they are to be made.
///
/// Upserts come first, so that an address that moves always has an owner; identities before the addresses that have them;
/// canaries after all else. Deletions follow in the opposite order. A canary that exists stays as it is; while something
/// may be missing none is added, since it says that nothing is.
pub fn diff(desired: &Stored, canaries: &Stored, actual: &Stored, withhold: &Withhold) -> Vec<Write> {
    let changed = desired.iter().filter(|(key, value)| actual.get(*key) != Some(*value));
    let mut changed: Vec<_> = changed.collect();
    changed.sort_by_key(|(key, _)| rank(key));
    let missing = canaries.iter().filter(|(key, _)| !actual.contains_key(*key) && !withhold.everything);

    let stale = actual
        .keys()
        .filter(|key| !desired.contains_key(*key) && !canaries.contains_key(*key) && !withhold.holds(key));
    let mut stale: Vec<_> = stale.collect();
    stale.sort_by_key(|key| std::cmp::Reverse(rank(key)));

    let put = |(key, value): (&String, &Vec<u8>)| Write::Put { key: key.clone(), value: value.clone() };
    let upserts = changed.into_iter().chain(missing).map(put);
    upserts.chain(stale.into_iter().map(|key| Write::Delete { key: key.clone() })).collect()
}

/// What comes first: what was given out, then what others point to, then what points to it.
fn rank(key: &str) -> usize {
    const ORDER: [&str; 8] = [
        "landbridge/config/",
        "cilium/state/identities/",
        "cilium/state/nodes/",
        "cilium/state/ip/",
        "cilium/state/services/",
        "landbridge/local/pods/",
        "landbridge/",
        "cilium/cluster-config/",
    ];
    ORDER.iter().position(|prefix| key.starts_with(prefix)).unwrap_or(ORDER.len())
}
