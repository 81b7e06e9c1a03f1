//! The pods of a cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use landbridge_kvstore_schema::{NamespacedName, ObjectName, Protocol};

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub name: NamespacedName,
    /// Tells it from an earlier pod of the same name; empty if not known.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Where it runs; `None` until that is decided.
    pub node: Option<ObjectName>,
    /// Its service account.
    pub service_account: String,
    /// Whether it uses the network of its node, so that it has no address of its own.
    pub host_network: bool,
    /// Its addresses; none until its interface is made.
    pub addresses: Vec<IpAddr>,
    /// How far it is.
    pub readiness: Readiness,
    /// Ports of its containers that have a name.
    pub named_ports: Vec<ContainerPort>,
    /// Its host name within a headless service, if it has one: the service's name, and its own.
    pub hostname: Option<(String, String)>,
}

/// How far a pod is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// The condition `Ready`.
    pub ready: bool,
    /// It was asked to go.
    pub terminating: bool,
    /// It has ended, and will not run again: its address is free.
    pub ended: bool,
}

/// A port of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    /// Its name.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The number.
    pub port: NonZeroU16,
}

impl Pod {
    /// Whether it is to be published: it has its own network and has not ended.
    pub const fn has_own_network(&self) -> bool {
        !self.host_network && !self.readiness.ended
    }
}
