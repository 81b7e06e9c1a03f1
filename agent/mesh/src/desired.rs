//! The content of a node's maps, and the way from one content to another.
//!
//! ```text
//! nodes ► cidrs, ipcache ► policy ► endpoints ► services │ services, endpoints, policy, ipcache, cidrs, nodes
//! ───────────────── upserts ────────────────────────────►│◄────────────── deletions ─────────────────────────
//! ```
//!
//! - What an entry points to is there before the entry, and goes after it.
//! - An address that is somewhere before and after is somewhere at every step: upserts come first.
//! - A policy set is whole, and has nothing else in it, before an endpoint is pointed at it; the old one goes after.

use std::collections::{BTreeMap, BTreeSet};

use landbridge_bpf_maps::{
    Address, Backend, CidrKey, Endpoint, IpcacheEntry, NodeEntry, NodeNumber, PolicyEntry, PolicyKey,
    PolicySet, ServiceKey, ServiceSettings,
};

/// What a node's maps hold, as it should be or as it was read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Who has an address.
    pub ipcache: BTreeMap<Address, IpcacheEntry>,
    /// Who has a range, for addresses without an entry of their own.
    pub cidrs: BTreeMap<CidrKey, IpcacheEntry>,
    /// Other nodes. Entries of the array that are not taken are not here.
    pub nodes: BTreeMap<NodeNumber, NodeEntry>,
    /// Pods of this node.
    pub endpoints: BTreeMap<Address, Endpoint>,
    /// Entries of all policy sets. A set that allows nothing has none.
    pub policy: BTreeMap<PolicyKey, PolicyEntry>,
    /// Frontends and what is behind them.
    pub services: BTreeMap<ServiceKey, ServiceSpec>,
}

/// What is behind a frontend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceSpec {
    /// How connections are spread.
    pub settings: ServiceSettings,
    /// Where connections go, in ascending order; with none, connecting is refused.
    pub backends: Vec<Backend>,
}

/// One write to one map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapWrite {
    /// Sets an entry of `NODES`.
    SetNode(NodeNumber, NodeEntry),
    /// Frees an entry of `NODES`.
    ClearNode(NodeNumber),
    /// Upserts into `CIDRS`.
    UpsertCidr(CidrKey, IpcacheEntry),
    /// Deletes from `CIDRS`.
    DeleteCidr(CidrKey),
    /// Upserts into `IPCACHE`.
    UpsertIpcache(Address, IpcacheEntry),
    /// Deletes from `IPCACHE`.
    DeleteIpcache(Address),
    /// Upserts into `POLICY`.
    UpsertPolicy(PolicyKey, PolicyEntry),
    /// Deletes from `POLICY`.
    DeletePolicy(PolicyKey),
    /// Upserts into `ENDPOINTS`.
    UpsertEndpoint(Address, Endpoint),
    /// Deletes from `ENDPOINTS`.
    DeleteEndpoint(Address),
    /// Sets a frontend and its backends, whole.
    SetService(ServiceKey, ServiceSpec),
    /// Removes a frontend.
    RemoveService(ServiceKey),
}

impl Desired {
    /// The writes that turn `actual` into this, in the order in which they have to be made.
    ///
    /// Without `deletions` what is in `actual` alone stays: the records that say otherwise may not have been read yet. One
    /// thing is deleted all the same: an entry that is in a policy set which this content uses, but not of it. That set
    /// would allow what no policy does.
    #[must_use]
    pub fn writes(&self, actual: &Self, deletions: bool) -> Vec<MapWrite> {
        let mut writes = Vec::new();
        writes
            .extend(changed(&self.nodes, &actual.nodes).map(|(key, value)| MapWrite::SetNode(*key, *value)));
        writes.extend(
            changed(&self.cidrs, &actual.cidrs).map(|(key, value)| MapWrite::UpsertCidr(*key, *value)),
        );
        writes.extend(
            changed(&self.ipcache, &actual.ipcache).map(|(key, value)| MapWrite::UpsertIpcache(*key, *value)),
        );
        let used = self.policy_sets();
        let (intruding, unused): (Vec<&PolicyKey>, Vec<&PolicyKey>) =
            stale(&self.policy, &actual.policy).partition(|key| used.contains(&key.set));
        writes.extend(
            changed(&self.policy, &actual.policy).map(|(key, value)| MapWrite::UpsertPolicy(*key, *value)),
        );
        writes.extend(intruding.into_iter().map(|key| MapWrite::DeletePolicy(*key)));
        writes.extend(
            changed(&self.endpoints, &actual.endpoints)
                .map(|(key, value)| MapWrite::UpsertEndpoint(*key, *value)),
        );
        writes.extend(
            changed(&self.services, &actual.services)
                .map(|(key, spec)| MapWrite::SetService(*key, spec.clone())),
        );
        if deletions {
            writes.extend(stale(&self.services, &actual.services).map(|key| MapWrite::RemoveService(*key)));
            writes
                .extend(stale(&self.endpoints, &actual.endpoints).map(|key| MapWrite::DeleteEndpoint(*key)));
            writes.extend(unused.into_iter().map(|key| MapWrite::DeletePolicy(*key)));
            writes.extend(stale(&self.ipcache, &actual.ipcache).map(|key| MapWrite::DeleteIpcache(*key)));
            writes.extend(stale(&self.cidrs, &actual.cidrs).map(|key| MapWrite::DeleteCidr(*key)));
            writes.extend(stale(&self.nodes, &actual.nodes).map(|key| MapWrite::ClearNode(*key)));
        }
        writes
    }

    /// Makes one write to this content, as the maps do.
    pub fn apply(&mut self, write: &MapWrite) {
        match write {
            MapWrite::SetNode(key, value) => drop(self.nodes.insert(*key, *value)),
            MapWrite::ClearNode(key) => drop(self.nodes.remove(key)),
            MapWrite::UpsertCidr(key, value) => drop(self.cidrs.insert(*key, *value)),
            MapWrite::DeleteCidr(key) => drop(self.cidrs.remove(key)),
            MapWrite::UpsertIpcache(key, value) => drop(self.ipcache.insert(*key, *value)),
            MapWrite::DeleteIpcache(key) => drop(self.ipcache.remove(key)),
            MapWrite::UpsertPolicy(key, value) => drop(self.policy.insert(*key, *value)),
            MapWrite::DeletePolicy(key) => drop(self.policy.remove(key)),
            MapWrite::UpsertEndpoint(key, value) => drop(self.endpoints.insert(*key, *value)),
            MapWrite::DeleteEndpoint(key) => drop(self.endpoints.remove(key)),
            MapWrite::SetService(key, spec) => drop(self.services.insert(*key, spec.clone())),
            MapWrite::RemoveService(key) => drop(self.services.remove(key)),
        }
    }

    /// The sets that endpoints use.
    fn policy_sets(&self) -> BTreeSet<PolicySet> {
        self.endpoints.values().flat_map(|endpoint| [endpoint.ingress, endpoint.egress]).collect()
    }
}

fn changed<'a, K: Ord, V: PartialEq>(
    desired: &'a BTreeMap<K, V>,
    actual: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    desired.iter().filter(|(key, value)| actual.get(key) != Some(value))
}

fn stale<'a, K: Ord, V>(
    desired: &'a BTreeMap<K, V>,
    actual: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    actual.keys().filter(|key| !desired.contains_key(key))
}
