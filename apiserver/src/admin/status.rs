//! How the cluster is doing, as measured by those who carry its traffic.
//!
//! ```text
//! own store: nodes, reports, services, copies of peers ─┐
//! readers of peers: state, revisions, round trips ──────┴─ gather ─► Facts ─ response ─► GetStatusResponse
//! ```
//!
//! `response` is pure; what is wrong is derived in `problems`.

mod gather;
mod problems;

use std::collections::BTreeMap;
use std::time::Instant;

use landbridge_apiserver_api::v1::{
    DropCount, GetStatusResponse, NodeStatus, Path, PeerStatus, ServicePort, ServiceStatus,
};
use landbridge_kvstore_schema::{
    AddressType, ClusterId, ClusterName, Kind, LocalService, NamespacedName, Node, NodeReport, ObjectName,
    Peer,
};

use crate::peers::state::PeerState;

/// What a status is made of.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) cluster: ClusterName,
    pub(super) id: ClusterId,
    /// The revision of the own store, or why it cannot be had.
    pub(super) revision: Result<i64, String>,
    pub(super) publishes: bool,
    pub(super) nodes: BTreeMap<ObjectName, Node>,
    pub(super) reports: BTreeMap<ObjectName, NodeReport>,
    pub(super) peers: BTreeMap<ClusterName, PeerFacts>,
    pub(super) services: BTreeMap<NamespacedName, LocalService>,
    /// Backends of global services in other clusters, as they are in the own store.
    pub(super) remote_backends: BTreeMap<NamespacedName, BTreeMap<ClusterName, usize>>,
    /// When the certificate of the own authority ends, in seconds since 1970.
    pub(super) ca_expires: i64,
    /// What others found wrong, a sentence each.
    pub(super) found: Vec<String>,
    /// The time, in seconds since 1970.
    pub(super) now_seconds: i64,
    pub(super) now: Instant,
}

#[derive(Clone, Debug)]
pub(super) struct PeerFacts {
    pub(super) record: Peer,
    pub(super) state: PeerState,
    /// When our certificate for it ends, in seconds since 1970; `None` if there is none.
    pub(super) certificate_expires: Option<i64>,
}

/// The answer that the facts give.
pub(super) fn response(facts: &Facts) -> GetStatusResponse {
    GetStatusResponse {
        cluster: facts.cluster.to_string(),
        id: facts.id.get().into(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: facts.revision.clone().unwrap_or_default(),
        publisher: facts.publishes,
        nodes: facts.nodes.values().map(|node| node_status(node, facts.reports.get(&node.name))).collect(),
        peers: facts.peers.iter().map(|(name, peer)| peer_status(name, peer, facts.now)).collect(),
        services: facts.services.iter().map(|(name, service)| service_status(facts, name, service)).collect(),
        problems: problems::problems(facts),
    }
}

fn node_status(node: &Node, report: Option<&NodeReport>) -> NodeStatus {
    let internal = node.addresses.iter().find(|address| address.address_type == AddressType::InternalIp);
    let v4 = node.ipv4_pod_cidrs.first().map(ToString::to_string);
    let pod_range = v4.or_else(|| node.ipv6_pod_cidrs.first().map(ToString::to_string));
    let nothing = NodeReport::default();
    let is_reporting = report.is_some();
    let report = report.unwrap_or(&nothing);
    NodeStatus {
        name: node.name.to_string(),
        address: internal.map(|address| address.ip.to_string()).unwrap_or_default(),
        pod_range: pod_range.unwrap_or_default(),
        reporting: is_reporting,
        endpoints: report.endpoints,
        applied_revision: report.applied_revision,
        paths: report
            .paths
            .iter()
            .flat_map(|(cluster, nodes)| {
                nodes.iter().map(|(node, path)| Path {
                    cluster: cluster.to_string(),
                    node: node.to_string(),
                    reachable: path.reachable,
                    round_trip_micros: path.round_trip_micros,
                })
            })
            .collect(),
        drops: report
            .drops
            .iter()
            .map(|drop| DropCount {
                reason: drop.reason.into(),
                name: drop.name.clone(),
                direction: drop.direction.clone(),
                packets: drop.packets,
                bytes: drop.bytes,
            })
            .collect(),
        synced_peers: report.synced.iter().map(ToString::to_string).collect(),
    }
}

fn peer_status(name: &ClusterName, peer: &PeerFacts, now: Instant) -> PeerStatus {
    let state = &peer.state;
    let (word, message) = state.summary(now);
    let count = |kind| count(state.counts.admitted.get(&kind).copied().unwrap_or_default());
    let heard = state.heard.map_or(u128::MAX, |heard| now.saturating_duration_since(heard).as_millis());
    let round_trip = state.round_trip.map(|round_trip| round_trip.as_micros()).unwrap_or_default();
    PeerStatus {
        name: name.to_string(),
        id: peer.record.id.into(),
        state: word.to_owned(),
        message,
        confirmed: peer.record.unconfirmed_until.is_none(),
        revision: state.revision,
        mirrored_revision: state.mirrored_revision,
        heard_millis_ago: u64::try_from(heard).unwrap_or(u64::MAX),
        round_trip_micros: u32::try_from(round_trip).unwrap_or(u32::MAX),
        nodes: count(Kind::Nodes),
        identities: count(Kind::Identities),
        addresses: count(Kind::Ips),
        services: count(Kind::Services),
        refused: state.counts.refused.values().sum(),
        refusals: state.counts.refusals.clone(),
        certificate_expires: peer.certificate_expires.unwrap_or_default(),
    }
}

fn service_status(facts: &Facts, name: &NamespacedName, service: &LocalService) -> ServiceStatus {
    let ready = service.backends.values().filter(|backend| backend.ready).count();
    let mut backends = std::collections::HashMap::from([(facts.cluster.to_string(), count(ready))]);
    if service.global {
        let remote = facts.remote_backends.get(name).into_iter().flatten();
        backends.extend(remote.map(|(cluster, backends)| (cluster.to_string(), count(*backends))));
    }
    ServiceStatus {
        namespace: name.namespace.to_string(),
        name: name.name.to_string(),
        cluster_address: service.addresses.first().map(ToString::to_string).unwrap_or_default(),
        global: service.global,
        backends,
        ports: service
            .ports
            .iter()
            .map(|port| ServicePort {
                name: port.name.clone(),
                protocol: port.protocol.to_string(),
                port: port.port.get().into(),
            })
            .collect(),
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
