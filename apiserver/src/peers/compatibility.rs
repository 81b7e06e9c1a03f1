//! Whether this cluster and another one can be in one network.
//!
//! ```text
//! DescribeClusterResponse ─ Description::read ─► Description ─┐
//! own side, peers that are connected ─────────────────────────┴─ conflicts ─► what stands against it, all of it
//! ```
//!
//! Pure, and symmetric where it can be: each side looks at the other before anything is changed.

mod description;

use std::collections::BTreeMap;
use std::net::IpAddr;

use landbridge_kvstore_schema::{ClusterId, ClusterName, IpPrefix, Peer};

pub use self::description::{Description, InvalidDescription};
use super::addresses::{Addresses, list, overlap};
use crate::pki::Certificate;

/// This cluster, as far as it matters to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnSide {
    /// Its name.
    pub name: ClusterName,
    /// Its number, with the size of the mesh.
    pub id: ClusterId,
    /// The fingerprint of its authority.
    pub ca_fingerprint: String,
    /// Its addresses.
    pub addresses: Addresses,
}

/// Something that stands against a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Both have one name.
    #[error("both clusters are named {name}; give one of them another name")]
    Name {
        /// The name.
        name: ClusterName,
    },
    /// Both have one number.
    #[error("cluster {peer} has id {id}, as has {other}; ids are unique in a mesh")]
    Id {
        /// The cluster.
        peer: ClusterName,
        /// The number.
        id: u32,
        /// Who has it.
        other: ClusterName,
    },
    /// A number outside of the mesh.
    #[error("cluster {peer} has id {id}, which is not in 1..={max}")]
    IdOutside {
        /// The cluster.
        peer: ClusterName,
        /// The number.
        id: u32,
        /// The largest one.
        max: u16,
    },
    /// A known peer comes with another number.
    #[error("cluster {peer} is connected with id {known} and now has {id}; disconnect it first")]
    IdChanged {
        /// The cluster.
        peer: ClusterName,
        /// Its number.
        id: u32,
        /// The one before.
        known: u16,
    },
    /// Their identities are cut differently.
    #[error(
        "cluster {peer} is made for {peers} clusters and {own} for {ours}; both need the same --max-clusters"
    )]
    MaxClusters {
        /// The cluster.
        peer: ClusterName,
        /// Its size of the mesh.
        peers: u32,
        /// This cluster.
        own: ClusterName,
        /// This one's.
        ours: u16,
    },
    /// One authority for both: each would take the other's users for its own.
    #[error(
        "cluster {peer} has the same CA as {own}; each needs one of its own, so remove the folder pki of the copied one"
    )]
    SameAuthority {
        /// The cluster.
        peer: ClusterName,
        /// This one.
        own: ClusterName,
    },
    /// A known peer comes with another authority.
    #[error(
        "cluster {peer} is connected with another CA certificate; disconnect it first if its CA was changed"
    )]
    AuthorityChanged {
        /// The cluster.
        peer: ClusterName,
    },
    /// A range of pods that somebody has.
    #[error(
        "pod range {range} of cluster {peer} overlaps {taken} of {other}; addresses are unique in a mesh"
    )]
    PodRange {
        /// The cluster.
        peer: ClusterName,
        /// Its range.
        range: IpPrefix,
        /// What it overlaps.
        taken: IpPrefix,
        /// Whose that is.
        other: ClusterName,
    },
    /// A node's address that somebody has.
    #[error(
        "node address {address} of cluster {peer} is in {taken} of {other}; addresses are unique in a mesh"
    )]
    NodeAddress {
        /// The cluster.
        peer: ClusterName,
        /// Its node's address.
        address: IpAddr,
        /// What it is in.
        taken: IpPrefix,
        /// Whose that is.
        other: ClusterName,
    },
    /// A peer whose ranges are in conflict with each other.
    #[error("pod ranges {ranges} of cluster {peer} overlap each other or its nodes")]
    Itself {
        /// The cluster.
        peer: ClusterName,
        /// Its ranges.
        ranges: String,
    },
}

/// Everything that stands against connecting `peer`; nothing if all is well.
///
/// A peer that is connected already may come again: with the same number and authority, and other ranges or endpoints.
pub fn conflicts(own: &OwnSide, peers: &BTreeMap<ClusterName, Peer>, peer: &Description) -> Vec<Conflict> {
    let mut found = Vec::new();
    if peer.name == own.name {
        return vec![Conflict::Name { name: own.name.clone() }];
    }
    check_id(own, peers, peer, &mut found);
    if peer.ca.fingerprint() == own.ca_fingerprint {
        found.push(Conflict::SameAuthority { peer: peer.name.clone(), own: own.name.clone() });
    }
    if let Some(known) = peers.get(&peer.name) {
        let known_ca = Certificate::from_pem(&known.ca_certificate);
        if known_ca.is_ok_and(|known| known.fingerprint() != peer.ca.fingerprint()) {
            found.push(Conflict::AuthorityChanged { peer: peer.name.clone() });
        }
    }
    check_addresses(&own.name, &own.addresses, peer, &mut found);
    for (name, other) in peers.iter().filter(|(name, _)| **name != peer.name) {
        check_addresses(name, &Addresses::of_peer(other), peer, &mut found);
    }
    let Addresses { pod_ranges, nodes, .. } = &peer.addresses;
    let overlaps = |index: usize, range| pod_ranges[..index].iter().any(|other| overlap(other, range));
    let holds_node = |range: &IpPrefix| nodes.iter().any(|node| range.contains(*node));
    if pod_ranges.iter().enumerate().any(|(index, range)| overlaps(index, range) || holds_node(range)) {
        found.push(Conflict::Itself { peer: peer.name.clone(), ranges: list(pod_ranges) });
    }
    found
}

fn check_id(
    own: &OwnSide,
    peers: &BTreeMap<ClusterName, Peer>,
    peer: &Description,
    found: &mut Vec<Conflict>,
) {
    let max = own.id.max_clusters();
    if peer.max_clusters != u32::from(max.get()) {
        found.push(Conflict::MaxClusters {
            peer: peer.name.clone(),
            peers: peer.max_clusters,
            own: own.name.clone(),
            ours: max.get(),
        });
    }
    if ClusterId::new(peer.id, max).is_err() {
        found.push(Conflict::IdOutside { peer: peer.name.clone(), id: peer.id, max: max.get() });
    }
    let has_id = |id: u16| u32::from(id) == peer.id;
    let others = peers.iter().filter(|(name, other)| **name != peer.name && has_id(other.id));
    let owners = others.map(|(name, _)| name).chain(has_id(own.id.get()).then_some(&own.name));
    found.extend(owners.map(|other| Conflict::Id {
        peer: peer.name.clone(),
        id: peer.id,
        other: other.clone(),
    }));
    if let Some(known) = peers.get(&peer.name).filter(|known| !has_id(known.id)) {
        found.push(Conflict::IdChanged { peer: peer.name.clone(), id: peer.id, known: known.id });
    }
}

fn check_addresses(other: &ClusterName, theirs: &Addresses, peer: &Description, found: &mut Vec<Conflict>) {
    for range in &peer.addresses.pod_ranges {
        if let Some(taken) = theirs.overlap(range) {
            let (peer, range, other) = (peer.name.clone(), *range, other.clone());
            found.push(Conflict::PodRange { peer, range, taken, other });
        }
    }
    for address in &peer.addresses.nodes {
        if let Some(taken) = theirs.overlap(&IpPrefix::host(*address)) {
            let (peer, address, other) = (peer.name.clone(), *address, other.clone());
            found.push(Conflict::NodeAddress { peer, address, taken, other });
        }
    }
}

#[cfg(test)]
mod tests;
