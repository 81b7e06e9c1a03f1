//! Who may read and write which keys of this cluster's store.
//!
//! ```text
//! user           is                                   exists
//! admin-<own>    this apiserver, the cluster's people  always
//! local-<own>    stock Cilium agents                  always
//! agent-<node>   the agent of a node                  while the cluster has the node
//! remote-<peer>  a cluster that reads this one        while landbridge/config/readers/<peer> is there
//! ```
//!
//! - A user is the common name of a certificate of this cluster's own authority; no other authority's are let in.
//! - Only `admin-<own>` can read or write `landbridge/config/` and `landbridge/lock/`. Of the others, only agents write,
//!   each below its own node's reports.
//! - Pure: the rules follow from the arguments.

use std::fmt;

use landbridge_kvstore_schema::{
    Area, CLUSTER_CONFIG_PREFIX, ClusterName, KeyPrefix, ObjectName, cluster_config_key, health_prefix,
    heartbeat_prefix, synced_prefix,
};
use landbridge_kvstore_server::{AccessRules, Grant};
use landbridge_kvstore_store::KeyRange;

/// A user of this cluster's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// The apiserver itself, and whoever runs the cluster.
    Admin,
    /// Stock Cilium agents of this cluster.
    Local,
    /// The Landbridge agent of a node.
    Agent(ObjectName),
    /// A cluster that reads this one.
    Remote(ClusterName),
}

impl User {
    /// Its name in certificates and grants, in the cluster `own`.
    pub fn common_name(&self, own: &ClusterName) -> String {
        match self {
            Self::Admin => format!("admin-{own}"),
            Self::Local => format!("local-{own}"),
            Self::Agent(node) => format!("agent-{node}"),
            Self::Remote(peer) => format!("remote-{peer}"),
        }
    }

    /// The user with this name in the cluster `own`.
    ///
    /// # Errors
    /// [`UnknownUser`] if it is no name of a user, or of one of another cluster.
    pub fn parse(own: &ClusterName, name: &str) -> Result<Self, UnknownUser> {
        let unknown = || UnknownUser { name: name.to_owned(), own: own.clone() };
        let (role, of) = name.split_once('-').ok_or_else(unknown)?;
        match role {
            "admin" if of == own.as_str() => Ok(Self::Admin),
            "local" if of == own.as_str() => Ok(Self::Local),
            "agent" => ObjectName::new(of).map(Self::Agent).map_err(|_| unknown()),
            "remote" => ClusterName::new(of).map(Self::Remote).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

/// A name that no user of this cluster has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no user of cluster {own}: use agent-<node>, local-{own} or admin-{own}")]
pub struct UnknownUser {
    /// The name.
    pub name: String,
    /// The cluster.
    pub own: ClusterName,
}

/// The rules of the store of the cluster `own`, with these nodes and readers.
pub fn access_rules<'a>(
    own: &ClusterName,
    nodes: impl IntoIterator<Item = &'a ObjectName>,
    readers: impl IntoIterator<Item = &'a ClusterName>,
) -> AccessRules {
    let always = [User::Admin, User::Local];
    let agents = nodes.into_iter().cloned().map(User::Agent);
    let readers = readers.into_iter().cloned().map(User::Remote);
    AccessRules::ByUser(
        always.into_iter().chain(agents).chain(readers).map(|user| grant(own, &user)).collect(),
    )
}

fn grant(own: &ClusterName, user: &User) -> Grant {
    let state = || prefix("cilium/state/");
    let cache = || prefix("cilium/cache/");
    let heartbeat = || range(&heartbeat_prefix());
    let configs = || prefix(CLUSTER_CONFIG_PREFIX);
    let canaries = || prefix("cilium/synced/");
    let area = |area: Area| range(&area.prefix());
    let (root, read, write) = match user {
        User::Admin => (true, vec![], vec![]),
        User::Local => (false, vec![heartbeat(), cache(), configs(), canaries()], vec![]),
        User::Agent(node) => {
            let own_areas = [Area::Shared, Area::Local, Area::Health].map(area);
            let read = [heartbeat(), state(), cache(), configs(), canaries()].into_iter().chain(own_areas);
            (false, read.collect(), vec![range(&health_prefix(node))])
        }
        User::Remote(_) => {
            let config = KeyRange::Single(cluster_config_key(own).into_bytes().into());
            let read = vec![heartbeat(), state(), config, range(&synced_prefix(own)), area(Area::Shared)];
            (false, read, vec![])
        }
    };
    Grant { user: user.common_name(own), root, read, write }
}

fn range(prefix: &KeyPrefix) -> KeyRange {
    KeyRange::prefix(prefix.as_str().as_bytes())
}

fn prefix(prefix: &str) -> KeyRange {
    KeyRange::prefix(prefix.as_bytes())
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin => f.write_str("admin"),
            Self::Local => f.write_str("local"),
            Self::Agent(node) => write!(f, "agent of {node}"),
            Self::Remote(peer) => write!(f, "reader {peer}"),
        }
    }
}

#[cfg(test)]
mod tests;
