//! One pass: maps and routes become as they should be.

use std::collections::BTreeSet;
use std::net::IpAddr;

use landbridge_agent_mesh::{MapWrite, Problem};
use landbridge_bpf_maps::{ServiceKey, SocketService};
use landbridge_kvstore_schema::IpPrefix;
use tokio::task::block_in_place;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Connection, MAX_REST, Reconciler, Start};
use crate::config::Routing;
use crate::error_chain::chain;
use crate::health::Targets;
use crate::node_network::NodeNetwork;
use crate::routes::{self, Route, RouteTable};

impl Reconciler {
    /// Makes maps and routes as they should be.
    pub(super) async fn pass(&mut self) {
        let begin = Instant::now();
        if matches!(self.start, Start::Settling { deadline } if deadline <= begin) {
            self.start = Start::Running;
        }
        self.dirty = false;
        if self.start == Start::Running {
            block_in_place(|| self.write_maps());
            self.set_targets();
        } else {
            self.forget_strangers();
        }
        self.write_routes().await;
        self.answer_waiters();
        // What the kernel refuses it refuses again at once.
        let rest = if self.unwritten > 0 { MAX_REST } else { begin.elapsed().min(MAX_REST) };
        self.rest_until = Instant::now() + rest;
    }

    fn write_maps(&mut self) {
        let desired = self.mesh.desired();
        let writes = desired.writes(self.maps.actual(), self.mesh.is_complete());
        let outcome = self.maps.write(&writes);
        self.look_due |=
            writes.iter().any(|write| matches!(write, MapWrite::SetService(..) | MapWrite::DeleteIpcache(_)));
        self.have_sockets_looked_at();
        if outcome.failed != self.unwritten {
            let (unwritten, error) = (outcome.failed, outcome.error.unwrap_or_default());
            if unwritten > 0 {
                warn!(unwritten, error, "the maps are not as they should be, trying again");
            } else {
                info!("the maps are as they should be again");
            }
        }
        self.unwritten = outcome.failed;
        if outcome.failed == 0
            && let Err(error) = self.maps.datapath.take_over()
        {
            warn!(error = chain(&error), "an older version's programs are in place still, trying again");
            self.dirty = true;
        }
        self.dirty |= outcome.failed > 0;
        let problems: BTreeSet<Problem> = self.mesh.problems().into_iter().collect();
        for problem in problems.difference(&self.problems) {
            warn!(%problem, "problem");
        }
        for problem in self.problems.difference(&problems) {
            info!(%problem, "problem solved");
        }
        self.problems = problems;
    }

    fn have_sockets_looked_at(&mut self) {
        if std::mem::take(&mut self.look_due) {
            let activated = self.table.iter().filter_map(|record| record.activation.as_ref());
            let namespaces = activated.map(|activation| activation.network_namespace.as_str().into());
            self.looks.send_replace(namespaces.collect());
        }
    }

    /// Which of these connections are to end.
    pub(super) fn stale(&self, connections: &[Connection]) -> Vec<bool> {
        let lost = self.mesh.lost_nodes();
        let is_stale = |connection: &Connection| {
            let SocketService { address, port, backend, backend_port } = connection.translation;
            let service = ServiceKey { address, port, protocol: connection.protocol, scope: 0 };
            self.maps.actual().is_stale(&service, backend, backend_port, &lost)
        };
        connections.iter().map(is_stale).collect()
    }

    /// Takes endpoints out of the maps that this node has no longer; the store need not be asked for that.
    fn forget_strangers(&mut self) {
        let interfaces: BTreeSet<u32> = self.interfaces.values().copied().collect();
        let strangers = self.maps.strangers(|endpoint, _| interfaces.contains(&endpoint.interface));
        if !strangers.is_empty() {
            block_in_place(|| self.maps.write(&strangers));
        }
    }

    async fn write_routes(&mut self) {
        let mut refused = BTreeSet::new();
        for change in routes::plan(&self.desired_routes(), &self.routes) {
            match routes::apply(&self.netlink, change).await {
                Ok(()) => change.note(&mut self.routes),
                Err(error) => {
                    // The audit comes back to it.
                    if !self.refused_routes.contains(&change.destination()) {
                        warn!(error = chain(&error), "route not changed, trying again");
                    }
                    refused.insert(change.destination());
                }
            }
        }
        self.refused_routes = refused;
    }

    pub(super) fn desired_routes(&self) -> RouteTable {
        let NodeNetwork { overlay, overlay_mtu, routing, .. } = self.network;
        let cidr = self.table.cidr();
        let mut routes: RouteTable = if routing == Routing::Direct {
            // The network between the nodes knows the way.
            RouteTable::new()
        } else if self.mesh.is_complete() {
            let router = |range: &IpPrefix| match range {
                IpPrefix::V4(_) => Some(IpAddr::V4(cidr.router())),
                IpPrefix::V6(_) => cidr.twin(cidr.router()).map(IpAddr::V6),
            };
            let nodes = self.mesh.remote_nodes();
            let ranges = nodes.iter().flat_map(|node| &node.pod_cidrs);
            // Of a family that this node's pods do not speak nothing is sent anywhere.
            let to_nodes = ranges.filter_map(|range| {
                let source = router(range)?;
                Some((*range, Route { interface: overlay, source: Some(source), mtu: Some(overlay_mtu) }))
            });
            to_nodes.collect()
        } else {
            self.routes
                .iter()
                .filter(|(_, route)| route.interface == overlay)
                .map(|(p, r)| (*p, *r))
                .collect()
        };
        for record in self.table.iter() {
            if let Some(interface) = self.interfaces.get(&record.attachment) {
                let route = Route { interface: *interface, source: None, mtu: None };
                routes.extend(cidr.both(record.address).map(|address| (IpPrefix::host(address), route)));
            }
        }
        routes
    }

    pub(super) fn wanted_targets(&self) -> Targets {
        let nodes = self.mesh.remote_nodes().into_iter();
        nodes.filter_map(|node| Some((node.name, *node.health.first()?))).collect()
    }

    fn set_targets(&self) {
        let wanted = self.wanted_targets();
        self.targets.send_if_modified(|targets| {
            let changed = *targets != wanted;
            *targets = wanted;
            changed
        });
    }
}
