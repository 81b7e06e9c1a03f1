//! Policy of this node's pods: what selectors mean, as entries for numbers.
//!
//! ```text
//! Policy ─ subject ─► identities of this node's pods ─┐
//!    └ rules ─ selectors over all known identities ───┴─► content of a set per identity and direction ─► its number
//! ```
//!
//! - A direction that no policy of a pod speaks of is not enforced. One that a policy speaks of allows what rules allow;
//!   what a rule denies stays denied.
//! - Pods of equal rules share a set, whichever direction it is for.
//! - A pod whose labels are not known gets sets that allow nothing: no policy can be said not to apply. So does one that
//!   a policy may be about which cannot be read (see `subject`): it may deny what others allow. Its node reaches it still.
//! - Selectors look at labels of pods. Nodes and the world have none; they are meant by entities alone.

mod port_range;
mod selector;
mod sets;
mod subject;

use std::collections::BTreeMap;

use landbridge_bpf_maps::{KeyForms, PeerKind, PolicyEntry, PolicyKey, PolicySet, PolicyVerdict, identity};
use landbridge_kvstore_schema::{
    ClusterId, ClusterName, Entity, Labels, NamespacedName, NumericIdentity, Policy, PolicyPeer, PolicyPort,
    PolicyRule, Protocol, RecordError, Selector,
};

use crate::records::own_record;
use crate::service::numbers_of;
use crate::{Problem, Unsupported};

pub(crate) use sets::hash;
use sets::{Content, Sets};

/// What is in the `POLICY` map for one direction of an endpoint.
type Direction = Option<Content>;

/// All policies of this cluster, and the numbers of the sets that follow from them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policies {
    records: BTreeMap<NamespacedName, Policy>,
    /// The pods that policies may be about which cannot be read.
    unreadable: BTreeMap<NamespacedName, Selector>,
    /// Rules of policies with the identities that they mean now. Made when a pod needs them.
    resolved: BTreeMap<NamespacedName, Resolved>,
    sets: Sets,
}

/// A policy's rules as entries; `None` for a direction that it does not speak of.
#[derive(Clone, Debug, Default)]
struct Resolved {
    ingress: Direction,
    egress: Direction,
}

/// What selectors are evaluated on.
pub(crate) struct Mesh<'a> {
    /// The number of this cluster.
    pub(crate) local: ClusterId,
    /// Clusters by name.
    pub(crate) clusters: BTreeMap<&'a ClusterName, ClusterId>,
    /// Labels of every known identity.
    pub(crate) identities: Vec<(NumericIdentity, &'a Labels)>,
}

/// The sets of one identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Enforced {
    pub(crate) ingress: PolicySet,
    pub(crate) egress: PolicySet,
    /// The sizes of the ranges of ports in both.
    pub(crate) port_prefixes: u16,
    /// What keys of each need not be looked for.
    pub(crate) ingress_lacks: KeyForms,
    pub(crate) egress_lacks: KeyForms,
}

impl Policies {
    /// Takes a policy, or its deletion.
    ///
    /// # Errors
    /// [`RecordError`] if it cannot be read; until its key changes again, the pods that it may be about get nothing.
    pub(crate) fn apply(
        &mut self,
        name: NamespacedName,
        key: &str,
        value: Option<&[u8]>,
    ) -> Result<(), RecordError> {
        self.resolved.remove(&name);
        self.unreadable.remove(&name);
        own_record(&mut self.records, name.clone(), key, value).inspect_err(|_| {
            let subject = subject::of_unreadable(&name, key, value.unwrap_or_default());
            self.unreadable.insert(name, subject);
        })
    }

    /// The identities that selectors mean have changed.
    pub(crate) fn forget_resolved(&mut self) {
        self.resolved.clear();
    }

    /// The sets of each identity in `subjects`, by its labels, and the entries of all of these sets. Without labels, the
    /// identity gets nothing.
    pub(crate) fn enforce<'a>(
        &mut self,
        subjects: &BTreeMap<NumericIdentity, Option<&'a Labels>>,
        mesh: &Mesh<'a>,
    ) -> (BTreeMap<NumericIdentity, Enforced>, BTreeMap<PolicyKey, PolicyEntry>) {
        let contents: Vec<_> =
            subjects.iter().map(|(id, labels)| (*id, self.contents(*labels, mesh))).collect();
        let used = contents.iter().flat_map(|(_, content)| [&content.ingress, &content.egress]).flatten();
        self.sets.assign(used.cloned());

        let number = |sets: &Sets, content: &Direction| {
            content.as_ref().map_or(PolicySet::NOT_ENFORCED, |content| sets.get(content))
        };
        let enforced = contents.iter().map(|(identity, content)| {
            let (ingress, egress) =
                (number(&self.sets, &content.ingress), number(&self.sets, &content.egress));
            let both = content.ingress.iter().chain(&content.egress);
            let port_prefixes = both.fold(0, |prefixes, content| prefixes | content.port_prefixes());
            let lacks = |content: &Direction| content.as_ref().map_or(KeyForms::default(), Content::lacks);
            let (ingress_lacks, egress_lacks) = (lacks(&content.ingress), lacks(&content.egress));
            (*identity, Enforced { ingress, egress, port_prefixes, ingress_lacks, egress_lacks })
        });
        (enforced.collect(), self.sets.entries())
    }

    /// What is allowed to and from pods with these labels.
    fn contents(&mut self, labels: Option<&Labels>, mesh: &Mesh<'_>) -> Resolved {
        let closed = Resolved { ingress: Some(Content::default()), egress: Some(Content::default()) };
        let Some(labels) = labels else { return closed };
        if self.unreadable.values().any(|subject| selector::selects(subject, labels)) {
            return closed;
        }
        let mut contents = Resolved::default();
        for (name, policy) in &self.records {
            if !selector::selects(&policy.subject, labels) {
                continue;
            }
            let resolved = self.resolved.entry(name.clone()).or_insert_with(|| Resolved {
                ingress: policy.ingress.as_ref().map(|rules| mesh.resolve(rules)),
                egress: policy.egress.as_ref().map(|rules| mesh.resolve(rules)),
            });
            for (content, more) in
                [(&mut contents.ingress, &resolved.ingress), (&mut contents.egress, &resolved.egress)]
            {
                if let Some(more) = more {
                    content.get_or_insert_default().extend(more);
                }
            }
        }
        contents
    }

    /// Policies that cannot be read now.
    pub(crate) fn unreadable(&self) -> impl Iterator<Item = Problem> {
        self.unreadable.keys().map(|name| Problem::UnreadablePolicy { policy: name.clone() })
    }

    /// What policies ask for that cannot be done.
    pub(crate) fn problems(&self) -> impl Iterator<Item = Problem> {
        self.records.iter().flat_map(|(name, policy)| {
            let rules = || policy.ingress.iter().chain(&policy.egress).flatten();
            let has = move |deny| rules().any(|rule| rule.deny == deny && has_addresses(rule));
            let unsupported = [(false, Unsupported::AllowAddresses), (true, Unsupported::DenyAddresses)];
            unsupported
                .into_iter()
                .filter(move |(deny, _)| has(*deny))
                .map(|(_, unsupported)| Problem::Policy { policy: name.clone(), unsupported })
        })
    }
}

fn has_addresses(rule: &PolicyRule) -> bool {
    rule.peers.iter().flatten().any(|peer| matches!(peer, PolicyPeer::Addresses { .. }))
}

impl Mesh<'_> {
    fn resolve(&self, rules: &[PolicyRule]) -> Content {
        let mut content = Content::default();
        for rule in rules {
            let verdict = if rule.deny { PolicyVerdict::Deny } else { PolicyVerdict::Allow };
            let ports = ports(rule.ports.as_deref());
            for (kind, peer) in self.peers(rule) {
                for ports in &ports {
                    content.add(PolicyKey { peer, kind: kind as u8, ..*ports }, verdict);
                }
            }
        }
        content
    }

    fn peers(&self, rule: &PolicyRule) -> Vec<(PeerKind, u32)> {
        let Some(peers) = &rule.peers else { return vec![(PeerKind::Any, 0)] };
        let mut found = Vec::new();
        for peer in peers {
            match peer {
                PolicyPeer::Pods(selector) => self.pods(selector, &mut found),
                PolicyPeer::Entity(entity) => found.extend(self.entity(*entity)),
                // The map cannot hold addresses yet. To deny more than is asked for is safe, to allow more is not.
                PolicyPeer::Addresses { .. } if rule.deny => found.extend(self.entity(Entity::World)),
                PolicyPeer::Addresses { .. } => {}
            }
        }
        found
    }

    fn pods(&self, selector: &Selector, found: &mut Vec<(PeerKind, u32)>) {
        match selector::clusters(selector) {
            // Whole clusters, with pods that are not known yet. They are one entry each, however many pods they have.
            Some(selector::Clusters::All) => found.push((PeerKind::Mesh, 0)),
            Some(selector::Clusters::Named(names)) => {
                let known = self
                    .clusters
                    .iter()
                    .filter(|(name, _)| names.iter().any(|wanted| wanted == name.as_str()));
                found.extend(known.map(|(_, id)| (PeerKind::Cluster, u32::from(id.get()))));
            }
            None => {
                let selected =
                    self.identities.iter().filter(|(_, labels)| selector::selects(selector, labels));
                found.extend(selected.map(|(identity, _)| (PeerKind::Identity, identity.0)));
            }
        }
    }

    fn entity(&self, entity: Entity) -> Vec<(PeerKind, u32)> {
        match entity {
            Entity::All => vec![(PeerKind::Any, 0)],
            Entity::World => vec![(PeerKind::Identity, identity::WORLD)],
            // Nodes of all clusters have one identity, so that those of others are among them (as in Cilium).
            Entity::Cluster => vec![
                (PeerKind::Cluster, u32::from(self.local.get())),
                (PeerKind::Identity, identity::HOST),
                (PeerKind::Identity, identity::HEALTH),
                (PeerKind::Identity, identity::REMOTE_NODE),
            ],
            Entity::ClusterMesh => vec![(PeerKind::Mesh, 0)],
            Entity::Host => vec![(PeerKind::Identity, identity::HOST)],
            Entity::RemoteNode => vec![(PeerKind::Identity, identity::REMOTE_NODE)],
        }
    }
}

/// Protocol and ports of each entry, with nobody as its peer yet.
fn ports(ports: Option<&[PolicyPort]>) -> Vec<PolicyKey> {
    let Some(ports) = ports else { return vec![PolicyKey::default()] };
    let mut found = Vec::new();
    for PolicyPort { protocol, port, end_port } in ports {
        let of_protocols = |(port, port_bits): (u16, u8)| {
            let port = port.to_be_bytes();
            let protocols = numbers_of(*protocol).iter();
            protocols.map(move |protocol| PolicyKey {
                protocol: *protocol,
                port,
                port_bits,
                ..PolicyKey::default()
            })
        };
        match port {
            // Every port of any protocol: also what has no ports.
            None if *protocol == Protocol::Any => found.push(PolicyKey::default()),
            None => found.extend(of_protocols((0, 0))),
            Some(first) => {
                let last = end_port.unwrap_or(*first).max(*first);
                found.extend(port_range::prefixes(first.get()..=last.get()).flat_map(of_protocols));
            }
        }
    }
    found
}
