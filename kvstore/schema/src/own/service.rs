//! A service as its own cluster sees it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use super::balance::Balance;
use super::{OwnRecord, folder, key, namespaced_key};
use crate::{Area, KeyPrefix, LandbridgeKey, NamespacedName, ObjectName, Protocol};

const FOLDER: &str = "services";
const SERVICE_ADDRESSES: &str = "service-addresses";
const POD_RANGES: &str = "pod-ranges";

/// A service of this cluster: frontends and settings are its own alone, backends of other clusters come from their
/// records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalService {
    /// Cluster IPs; none for a headless service.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Ports of the frontends.
    #[serde(default)]
    pub ports: Vec<LocalPort>,
    /// Whether backends of other clusters belong to it (`service.cilium.io/global`).
    #[serde(default)]
    pub global: bool,
    /// Whether other clusters may use its backends (`service.cilium.io/shared`); only if it is global.
    #[serde(default)]
    pub shared: bool,
    /// Which backends come first (`service.cilium.io/affinity`).
    #[serde(default)]
    pub affinity: Affinity,
    /// How connections are spread over the backends that come first.
    #[serde(default, skip_serializing_if = "Balance::is_default")]
    pub balance: Balance,
    /// Backends of this cluster, by address.
    #[serde(default)]
    pub backends: BTreeMap<IpAddr, LocalBackend>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalPort {
    /// Empty if it is the only one and has no name. Backends are matched by name.
    #[serde(default)]
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The number at the service's address.
    pub port: NonZeroU16,
}

/// Which backends a service prefers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Affinity {
    /// All alike.
    #[default]
    None,
    /// Those of this cluster, while there are healthy ones.
    Local,
    /// Those of other clusters, while there are healthy ones.
    Remote,
}

/// A backend of this cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalBackend {
    /// The node that it is on, if known.
    #[serde(default)]
    pub node: Option<ObjectName>,
    /// Port numbers by the name of the service's port.
    pub ports: BTreeMap<String, LocalBackendPort>,
    /// Takes new connections.
    pub ready: bool,
    /// Answers, ready or on its way out.
    pub serving: bool,
    /// On its way out.
    #[serde(default)]
    pub terminating: bool,
}

/// A port of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalBackendPort {
    /// The protocol.
    pub protocol: Protocol,
    /// The number at the backend's address.
    pub port: NonZeroU16,
}

impl OwnRecord for LocalService {}

impl LocalService {
    /// Where the record of `service` is.
    pub fn key(service: &NamespacedName) -> LandbridgeKey {
        namespaced_key(Area::Local, FOLDER, service)
    }

    /// Where all of these records are.
    pub fn prefix() -> KeyPrefix {
        folder(Area::Local, FOLDER)
    }
}

/// Where the cluster IP is kept that a standalone cluster gave to `service`: the address as text.
pub fn service_address_key(service: &NamespacedName) -> LandbridgeKey {
    namespaced_key(Area::Config, SERVICE_ADDRESSES, service)
}

/// Where all of these addresses are.
pub fn service_address_prefix() -> KeyPrefix {
    folder(Area::Config, SERVICE_ADDRESSES)
}

/// Where the range is kept that a standalone cluster gave to `node` for its pods: the range as text.
pub fn pod_range_key(node: &ObjectName) -> LandbridgeKey {
    key(Area::Config, &[POD_RANGES, node.as_str()])
}

/// Where all of these ranges are.
pub fn pod_range_prefix() -> KeyPrefix {
    folder(Area::Config, POD_RANGES)
}
