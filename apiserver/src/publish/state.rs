//! What a publisher tells of itself.

use std::net::IpAddr;

use landbridge_kvstore_schema::{Ipv4Prefix, LocalPort, NamespacedName, ObjectName};

use super::services::served;
use crate::objects::Objects;

/// How publishing is going.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublisherState {
    /// Whether this replica is the one that publishes. If not, the rest says what was true when it last was.
    pub publishing: bool,
    /// Whether everything was written once since this replica took over.
    pub synced: bool,
    /// The store's revision after the last write or look.
    pub revision: i64,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
    /// Nodes, as published.
    pub nodes: Vec<NodeSummary>,
    /// Services, as published.
    pub services: Vec<ServiceSummary>,
}

/// A node, as published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSummary {
    /// Its name.
    pub name: ObjectName,
    /// Where it is reached by other nodes.
    pub address: Option<IpAddr>,
    /// Where its pods have their addresses from.
    pub pod_range: Option<Ipv4Prefix>,
}

/// A service, as published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSummary {
    /// Namespace and name.
    pub name: NamespacedName,
    /// Its cluster IP; `None` if it is headless or could not be given one.
    pub address: Option<IpAddr>,
    /// Whether backends of other clusters belong to it.
    pub global: bool,
    /// Whether other clusters may use its backends.
    pub shared: bool,
    /// Backends of this cluster that take new connections.
    pub ready_backends: usize,
    /// Its ports.
    pub ports: Vec<LocalPort>,
}

/// What there is to tell of complete objects.
pub(super) fn summaries(objects: &Objects) -> (Vec<NodeSummary>, Vec<ServiceSummary>) {
    let nodes = objects.nodes.values().map(|node| NodeSummary {
        name: node.name.clone(),
        address: node.internal_ip(),
        pod_range: node.pod_range,
    });
    let services = served(objects).into_iter().map(|(name, served)| ServiceSummary {
        name: name.clone(),
        address: served.address(),
        global: served.service.global,
        shared: served.service.shared,
        ready_backends: served.ready_backends(),
        ports: served.local().ports,
    });
    (nodes.collect(), services.collect())
}
