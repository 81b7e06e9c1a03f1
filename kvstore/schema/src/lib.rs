//! Keys and records that clusters tell each other, byte for byte as Cilium's ClusterMesh (1.19 and 1.20) has
//! them.
//!
//! ```text
//! publisher                                              reader, which does not trust the publisher
//!   Node, Identity,  ─ encode(origin) ─► value ═ store ═► value ─ decode(origin, name, value) ─► Node, …
//!   IpIdentityPair,                                                                          └─► RecordError
//!   ClusterService   ─ Keyspace::key ──► key   ═════════► key ──── Keyspace::parse ──────────────► RecordName
//! ```
//!
//! - Pure: no I/O, no clock, no randomness. Timestamps are made from a time that is passed in.
//! - The same record always gives the same bytes: maps are ordered, fields have a fixed order.
//! - What the record says of its cluster (name, id) is not part of the types. [`Origin`] supplies it when
//!   writing and is what the record has to match when reading, so that no record can speak for another
//!   cluster.
//! - Reading ends in a valid type or in a [`RecordError`] that names key, field and value; no input makes it
//!   panic. Addresses come out in one form (IPv4 mapped into IPv6 as IPv4), so that two spellings are never
//!   two addresses.
//! - A rule cites where it comes from. Where reading is stricter than Cilium's, the item says so.
//! - Records of our own, which Cilium does not know, are in `own`.

mod cluster;
mod cluster_config;
mod excerpt;
mod go_json;
mod identity;
mod ip;
mod key;
mod labels;
mod landbridge_key;
mod name;
mod node;
mod own;
mod prefix;
mod rejection;
mod service;
mod timestamp;

pub use cluster::{ClusterId, ClusterName, InvalidClusterId, InvalidClusterName, MaxClusters, Origin};
pub use cluster_config::{Capabilities, ClusterConfig, EndpointSlicesExportMode};
pub use excerpt::Excerpt;
pub use identity::{Identity, IdentityScope, NumericIdentity};
pub use ip::{IpIdentityPair, NamedPort};
pub use key::{
    CLUSTER_CONFIG_PREFIX, Canary, HEARTBEAT, KeyError, KeyPrefix, Keyspace, Kind, Layout, RecordName,
    cluster_config_key, cluster_of_config_key, heartbeat_prefix, synced_prefix,
};
pub use labels::{CLUSTER_LABEL, InvalidLabel, Label, Labels, LabelsError};
pub use landbridge_key::{Area, LandbridgeKey, PUBLISHER_LOCK, health_prefix};
pub use name::{InvalidName, NamespacedName, ObjectName};
pub use node::{AddressType, Node, NodeAddress};
pub use own::{
    Affinity, Balance, BalanceAlgorithm, DropCount, Entity, LabelExpression, LabelKey, LabelOperator,
    LocalBackend, LocalBackendPort, LocalPod, LocalPort, LocalService, NodeReport, OwnRecord, PathReport,
    Peer, Policy, PolicyPeer, PolicyPort, PolicyRule, Reader, Selector, SharedFacts, pod_range_key,
    pod_range_prefix, service_address_key, service_address_prefix,
};
pub use prefix::{Family, InvalidPrefix, IpOrPrefix, IpPrefix, Ipv4Prefix, Ipv6Prefix, Prefix};
pub use rejection::{RecordError, Rejection};
pub use service::{Backend, ClusterService, Ports, Protocol, ServicePort, Zone};
pub use timestamp::rfc3339;
