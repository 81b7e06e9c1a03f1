//! The keys of ClusterMesh: which there are, how they are built, and what a reader watches.
//!
//! ```text
//! cilium/cluster-config/<cluster>                      read first; says which layout the records have
//! cilium/synced/<cluster>/<layout's path to the kind>  canary: everything of this kind was written once
//! cilium/.heartbeat                                    changes every 60 s while the publisher lives
//!
//!              state: a cluster's own store             cache: any number of clusters in one store
//! nodes        cilium/state/nodes/v1/<c>/<node>         cilium/cache/nodes/v1/<c>/<node>
//! identities   cilium/state/identities/v1/id/<n>        cilium/cache/identities/v1/<c>/id/<n>
//! ip           cilium/state/ip/v1/default/<ip>[/<len>]  cilium/cache/ip/v1/<c>/<ip>[/<len>]
//! services     cilium/state/services/v1/<c>/<ns>/<svc>  cilium/cache/services/v1/<c>/<ns>/<svc>
//! ```
//!
//! - Every prefix ends in `/`, so that `c1` never matches `c11`, but for two that Cilium watches without it:
//!   identities (`…/id`) and the heartbeat. A permission that covers only `…/id/` would refuse Cilium's
//!   watch.
//! - The canary of identities has no `id` and that of ip no `default`: one segment less than their records.
//! - A key that was built parses back to what it was built from, and no other key does: each name has one
//!   spelling.
//!
//! Source: Cilium `pkg/kvstore/kvstore.go`, `pkg/kvstore/store/`, `pkg/ipcache/kvstore.go`,
//! `pkg/clustermesh/kvstoremesh/`.

use std::fmt;

use crate::cluster::ClusterName;
use crate::excerpt::Excerpt;
use crate::identity::NumericIdentity;
use crate::name::{NamespacedName, ObjectName};
use crate::prefix::IpOrPrefix;

/// The heartbeat's key; its value is a [`rfc3339`](crate::rfc3339) time. Readers take a store for dead whose
/// heartbeat has not changed for 120 s (Cilium `pkg/kvstore/etcd.go`).
pub const HEARTBEAT: &str = "cilium/.heartbeat";

/// Where the configs of all clusters of a store are.
pub const CLUSTER_CONFIG_PREFIX: &str = "cilium/cluster-config/";

const SYNCED_PREFIX: &str = "cilium/synced/";
const VERSION: &str = "v1/";

/// What a reader of the heartbeat watches: the bare key as a prefix, as Cilium does.
pub fn heartbeat_prefix() -> KeyPrefix {
    KeyPrefix(HEARTBEAT.to_owned())
}

/// Where the [`ClusterConfig`](crate::ClusterConfig) of `cluster` is.
pub fn cluster_config_key(cluster: &ClusterName) -> String {
    format!("{CLUSTER_CONFIG_PREFIX}{cluster}")
}

/// The cluster whose config `key` holds.
///
/// # Errors
/// [`KeyError`] if it is not the key of a cluster config.
pub fn cluster_of_config_key(key: &[u8]) -> Result<ClusterName, KeyError> {
    let name = text(key)?.strip_prefix(CLUSTER_CONFIG_PREFIX).ok_or_else(|| elsewhere(key))?;
    ClusterName::new(name).map_err(|_| invalid(key, "cluster"))
}

/// Where all canaries of `cluster` are.
pub fn synced_prefix(cluster: &ClusterName) -> KeyPrefix {
    KeyPrefix(format!("{SYNCED_PREFIX}{cluster}/"))
}

/// A range of keys that a reader lists and watches: those that start with the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyPrefix(String);

impl KeyPrefix {
    pub(crate) const fn new(prefix: String) -> Self {
        Self(prefix)
    }

    /// The first key of the range.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The end of the range for etcd's `range_end`, itself not in the range: the prefix with its last byte
    /// one higher.
    pub fn range_end(&self) -> Vec<u8> {
        let mut end = self.0.clone().into_bytes();
        if let Some(last) = end.last_mut() {
            *last += 1; // prefixes are ASCII, so this neither overflows nor carries
        }
        end
    }

    /// Whether `key` is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        key.starts_with(self.0.as_bytes())
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// [`Node`](crate::Node)
    Nodes,
    /// [`Identity`](crate::Identity)
    Identities,
    /// [`IpIdentityPair`](crate::IpIdentityPair)
    Ips,
    /// [`ClusterService`](crate::ClusterService)
    Services,
    /// Endpoint slices of global services (Cilium 1.20, CFP-41953). Only their keys are known here, not their
    /// values.
    EndpointSlices,
    /// Services exported through the MCS API (KEP-1645). Only their keys are known here, not their values.
    ServiceExports,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Nodes,
        Self::Identities,
        Self::Ips,
        Self::Services,
        Self::EndpointSlices,
        Self::ServiceExports,
    ];

    /// The segment of the key that stands for the kind.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Identities => "identities",
            Self::Ips => "ip",
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices",
            Self::ServiceExports => "serviceexports",
        }
    }

    fn from_segment(segment: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == segment)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which of the two arrangements of keys a cluster's records have. A cluster config says it
/// ([`Capabilities::cached`](crate::Capabilities::cached)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layout {
    /// As the cluster publishes its own: identities and IPs do not name the cluster, so a store holds one
    /// cluster.
    State,
    /// As a mirror publishes them: every key names the cluster, so a store holds many.
    Cache,
}

impl Layout {
    const fn prefix(self) -> &'static str {
        match self {
            Self::State => "cilium/state/",
            Self::Cache => "cilium/cache/",
        }
    }
}

/// The keys of one cluster's records in one store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Keyspace {
    /// The arrangement of the keys.
    pub layout: Layout,
    /// Whose records they are.
    pub cluster: ClusterName,
}

impl Keyspace {
    /// The keys that `cluster` publishes its own records under.
    pub const fn state(cluster: ClusterName) -> Self {
        Self { layout: Layout::State, cluster }
    }

    /// The keys that a mirror publishes the records of `cluster` under.
    pub const fn cache(cluster: ClusterName) -> Self {
        Self { layout: Layout::Cache, cluster }
    }

    /// The key of a record. A mirror moves a record to `cache.key(&state.parse(key)?)` and copies its value.
    pub fn key(&self, name: &RecordName) -> String {
        let folder = self.folder(name.kind());
        match name {
            RecordName::Identity(identity) if self.layout == Layout::Cache => {
                format!("{folder}id/{identity}")
            }
            RecordName::Identity(identity) => format!("{folder}{identity}"),
            _ => format!("{folder}{name}"),
        }
    }

    /// What a reader of all records of `kind` lists and watches.
    pub fn watch_prefix(&self, kind: Kind) -> KeyPrefix {
        let mut prefix = self.folder(kind);
        match (kind, self.layout) {
            (Kind::Identities, Layout::State) => prefix.truncate(prefix.len() - 1),
            (Kind::Identities, Layout::Cache) => prefix.push_str("id"),
            _ => {}
        }
        KeyPrefix(prefix)
    }

    /// The name of the record at `key`.
    ///
    /// # Errors
    /// [`KeyError`] if `key` is not one of this cluster in this layout, or does not end in a valid name.
    pub fn parse(&self, key: &[u8]) -> Result<RecordName, KeyError> {
        let path = text(key)?.strip_prefix(self.layout.prefix()).ok_or_else(|| elsewhere(key))?;
        let (kind, path) = path.split_once('/').ok_or_else(|| elsewhere(key))?;
        let kind = Kind::from_segment(kind).ok_or_else(|| elsewhere(key))?;
        let path = path.strip_prefix(VERSION).ok_or_else(|| elsewhere(key))?;
        let (owner, mut name) = path.split_once('/').ok_or_else(|| elsewhere(key))?;
        if owner != self.owner_segment(kind) {
            return Err(elsewhere(key));
        }
        if (kind, self.layout) == (Kind::Identities, Layout::Cache) {
            name = name.strip_prefix("id/").ok_or_else(|| elsewhere(key))?;
        }
        RecordName::parse(kind, name).ok_or_else(|| invalid(key, kind.as_str()))
    }

    /// The canary of `kind`: the key that exists once every record of that kind has been written.
    pub fn canary(&self, kind: Kind) -> String {
        let Self { layout, cluster } = self;
        format!("{SYNCED_PREFIX}{cluster}/{}{kind}/v1", layout.prefix())
    }

    /// Everything before a record's name, `…/` included; without the `id/` of identities in a cache.
    fn folder(&self, kind: Kind) -> String {
        format!("{}{kind}/{VERSION}{}/", self.layout.prefix(), self.owner_segment(kind))
    }

    /// The segment after the version: the cluster, or what stands in its place where a key does not name it.
    fn owner_segment(&self, kind: Kind) -> &str {
        match (self.layout, kind) {
            (Layout::State, Kind::Identities) => "id",
            (Layout::State, Kind::Ips) => "default",
            _ => self.cluster.as_str(),
        }
    }
}

/// What a canary says: all records of one kind are there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Canary {
    /// Where the records are, and whose they are.
    pub keyspace: Keyspace,
    /// Which records.
    pub kind: Kind,
}

impl Canary {
    /// Reads the key of a canary. A reader skips those of kinds that it does not know.
    ///
    /// # Errors
    /// [`KeyError`] if it is not the key of a canary of a kind that we know.
    pub fn parse(key: &[u8]) -> Result<Self, KeyError> {
        let path = text(key)?.strip_prefix(SYNCED_PREFIX).ok_or_else(|| elsewhere(key))?;
        let (cluster, path) = path.split_once('/').ok_or_else(|| elsewhere(key))?;
        let cluster = ClusterName::new(cluster).map_err(|_| invalid(key, "cluster"))?;
        let (layout, path) = [Layout::State, Layout::Cache]
            .into_iter()
            .find_map(|layout| Some((layout, path.strip_prefix(layout.prefix())?)))
            .ok_or_else(|| elsewhere(key))?;
        let kind = path.strip_suffix("/v1").and_then(Kind::from_segment).ok_or_else(|| elsewhere(key))?;
        Ok(Self { keyspace: Keyspace { layout, cluster }, kind })
    }

    /// The key; its value is a [`rfc3339`](crate::rfc3339) time that nobody looks at.
    pub fn key(&self) -> String {
        self.keyspace.canary(self.kind)
    }
}

/// The name of a record within its cluster and kind: the last part of its key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordName {
    /// The name of a node.
    Node(ObjectName),
    /// The number of an identity, decimal.
    Identity(NumericIdentity),
    /// An address or a range.
    Ip(IpOrPrefix),
    /// Namespace and name of a service.
    Service(NamespacedName),
    /// Namespace and name of an endpoint slice.
    EndpointSlice(NamespacedName),
    /// Namespace and name of an exported service.
    ServiceExport(NamespacedName),
}

impl RecordName {
    /// What the record is about.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Node(_) => Kind::Nodes,
            Self::Identity(_) => Kind::Identities,
            Self::Ip(_) => Kind::Ips,
            Self::Service(_) => Kind::Services,
            Self::EndpointSlice(_) => Kind::EndpointSlices,
            Self::ServiceExport(_) => Kind::ServiceExports,
        }
    }

    fn parse(kind: Kind, name: &str) -> Option<Self> {
        let namespaced = || {
            let (namespace, name) = name.split_once('/')?;
            NamespacedName::new(namespace, name).ok()
        };
        match kind {
            Kind::Nodes => ObjectName::new(name).ok().map(Self::Node),
            Kind::Identities => NumericIdentity::from_decimal(name).map(Self::Identity),
            Kind::Ips => name.parse().ok().map(Self::Ip),
            Kind::Services => namespaced().map(Self::Service),
            Kind::EndpointSlices => namespaced().map(Self::EndpointSlice),
            Kind::ServiceExports => namespaced().map(Self::ServiceExport),
        }
    }
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => name.fmt(f),
            Self::Identity(identity) => identity.fmt(f),
            Self::Ip(ip) => ip.fmt(f),
            Self::Service(name) | Self::EndpointSlice(name) | Self::ServiceExport(name) => name.fmt(f),
        }
    }
}

/// Why a key could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It belongs to something else: another cluster, layout, kind or schema version.
    #[error("key {key} is not one of those looked for")]
    Elsewhere {
        /// The key.
        key: Excerpt,
    },
    /// It is in the right place, but what it names cannot have that name.
    #[error("key {key} does not hold a valid name for {part}")]
    InvalidName {
        /// The key.
        key: Excerpt,
        /// The part of the key: `cluster`, or the kind whose name it is.
        part: &'static str,
    },
}

pub(crate) fn text(key: &[u8]) -> Result<&str, KeyError> {
    str::from_utf8(key).map_err(|_| elsewhere(key))
}

pub(crate) fn elsewhere(key: &[u8]) -> KeyError {
    KeyError::Elsewhere { key: Excerpt::of_bytes(key) }
}

pub(crate) fn invalid(key: &[u8], part: &'static str) -> KeyError {
    KeyError::InvalidName { key: Excerpt::of_bytes(key), part }
}
