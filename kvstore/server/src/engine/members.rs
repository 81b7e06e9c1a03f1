//! What is agreed on about members, beside who has a vote: how they are called, where clients reach them, and who is none
//! any more.

use std::collections::{BTreeMap, BTreeSet};

use super::types::{Membership, StoredMembership};

/// The members as the log has them up to here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Members {
    pub(super) attributes: BTreeMap<u64, Attributes>,
    /// Those that were members once, and never will be again.
    pub(super) removed: BTreeSet<u64>,
}

/// What a member says about itself when it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) name: String,
    pub(super) client_urls: Vec<String>,
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterMember {
    /// Its number; never 0.
    pub id: u64,
    /// Its name; empty until it has started for the first time, if it was added.
    pub name: String,
    /// Where the other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; none until it has started for the first time.
    pub client_urls: Vec<String>,
    /// Whether it has no vote, and is not to have one.
    pub is_learner: bool,
}

impl Members {
    /// Notes what a member says about itself. Whoever was removed has nothing to say.
    pub(super) fn publish(&mut self, member: u64, attributes: Attributes) {
        if !self.removed.contains(&member) {
            self.attributes.insert(member, attributes);
        }
    }

    /// Notes who is no longer a member.
    pub(super) fn change(&mut self, before: &Membership, after: &Membership) {
        for (id, _) in before.nodes() {
            if after.get_node(id).is_none() {
                self.attributes.remove(id);
                self.removed.insert(*id);
            }
        }
    }

    /// All members, by their number.
    pub(super) fn list(&self, membership: &StoredMembership) -> Vec<ClusterMember> {
        let member = |(id, member): (&u64, &super::types::Member)| {
            let attributes = self.attributes.get(id).cloned().unwrap_or_default();
            let name = if attributes.name.is_empty() { member.name.clone() } else { attributes.name };
            ClusterMember {
                id: *id,
                name,
                peer_urls: member.peer_urls.clone(),
                client_urls: attributes.client_urls,
                is_learner: member.is_learner,
            }
        };
        membership.nodes().map(member).collect()
    }
}
