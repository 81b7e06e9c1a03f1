//! The services of a cluster and their endpoints.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

use landbridge_kvstore_schema::{Affinity, Balance, NamespacedName, ObjectName, Protocol};

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: NamespacedName,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it says of its address.
    pub address: RequestedAddress,
    /// Its ports, each name once; only one of several ports can be without a name.
    pub ports: Vec<ServicePort>,
    /// Which pods of its namespace serve it; with none, its endpoints come from slices alone.
    pub selector: BTreeMap<String, String>,
    /// Whether pods that are not ready are endpoints too.
    pub publish_not_ready: bool,
    /// Whether backends of other clusters belong to it.
    pub global: bool,
    /// Whether other clusters may use its backends; only if it is global.
    pub shared: bool,
    /// Which backends come first.
    pub affinity: Affinity,
    /// How connections are spread over those.
    pub balance: Balance,
}

/// What a service says of its cluster IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestedAddress {
    /// One is to be chosen.
    Any,
    /// This one.
    Given(Ipv4Addr),
    /// It has none: headless.
    Headless,
    /// It stands for a name outside of the cluster, and has neither address nor endpoints.
    ExternalName,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty if it has none.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The number at the service's address.
    pub port: NonZeroU16,
    /// Where it leads to.
    pub target: TargetPort,
}

/// The port of a pod that a service's port leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// This number.
    Number(NonZeroU16),
    /// The container port of this name, which can be another number in each pod.
    Name(String),
}

/// Endpoints of a service that have the same ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub name: NamespacedName,
    /// The service that it belongs to, in the same namespace.
    pub service: ObjectName,
    /// Numbers by the name of the service's port.
    pub ports: BTreeMap<String, (Protocol, NonZeroU16)>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// Something that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its addresses; all of them are the same endpoint.
    pub addresses: Vec<IpAddr>,
    /// Takes new connections.
    pub ready: bool,
    /// Answers, ready or on its way out.
    pub serving: bool,
    /// On its way out.
    pub terminating: bool,
    /// The node that it is on, if known.
    pub node: Option<ObjectName>,
    /// Its name within a headless service.
    pub hostname: Option<String>,
    /// The zone that it is in.
    pub zone: Option<String>,
}
