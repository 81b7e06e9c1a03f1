//! Records of services.

use std::collections::BTreeMap;
use std::net::IpAddr;

use landbridge_kvstore_schema::{
    Backend, ClusterService, LocalBackend, LocalBackendPort, LocalPort, LocalService, NamespacedName,
    ServicePort, Zone,
};

use crate::objects::{EndpointSlice, Objects, RequestedAddress, Service};

/// A service with what its slices say of it.
pub(super) struct Served<'a> {
    pub(super) service: &'a Service,
    backends: BTreeMap<IpAddr, ServedBackend>,
}

struct ServedBackend {
    local: LocalBackend,
    hostname: Option<String>,
    zone: Option<String>,
}

/// All services that have endpoints of their own, with them.
pub(super) fn served(objects: &Objects) -> BTreeMap<&NamespacedName, Served<'_>> {
    let services = objects.services.iter();
    let services = services.filter(|(_, service)| service.address != RequestedAddress::ExternalName);
    let mut all: BTreeMap<_, _> =
        services.map(|(name, service)| (name, Served { service, backends: BTreeMap::new() })).collect();
    for slice in objects.endpoint_slices.values() {
        let name = NamespacedName { namespace: slice.name.namespace.clone(), name: slice.service.clone() };
        if let Some(served) = all.get_mut(&name) {
            served.add(slice);
        }
    }
    all
}

impl Served<'_> {
    /// An address that several slices have is one backend with the ports of all of them.
    fn add(&mut self, slice: &EndpointSlice) {
        let ports: BTreeMap<_, _> = slice
            .ports
            .iter()
            .map(|(name, (protocol, port))| {
                (name.clone(), LocalBackendPort { protocol: *protocol, port: *port })
            })
            .collect();
        for endpoint in &slice.endpoints {
            for address in &endpoint.addresses {
                let found = self.backends.entry(*address).or_insert_with(|| ServedBackend {
                    local: LocalBackend {
                        node: endpoint.node.clone(),
                        ports: BTreeMap::new(),
                        ready: false,
                        serving: false,
                        terminating: false,
                    },
                    hostname: endpoint.hostname.clone(),
                    zone: endpoint.zone.clone(),
                });
                found.local.ports.extend(ports.iter().map(|(name, port)| (name.clone(), *port)));
                found.local.ready |= endpoint.ready;
                found.local.serving |= endpoint.serving;
                found.local.terminating |= endpoint.terminating;
            }
        }
    }

    /// What this cluster's own agents need of it.
    pub(super) fn local(&self) -> LocalService {
        let Service { ports, global, shared, affinity, balance, .. } = self.service;
        let port = |port: &crate::objects::ServicePort| LocalPort {
            name: port.name.clone(),
            protocol: port.protocol,
            port: port.port,
        };
        LocalService {
            addresses: self.address().into_iter().collect(),
            ports: ports.iter().map(port).collect(),
            global: *global,
            shared: *shared,
            affinity: *affinity,
            balance: balance.clone(),
            backends: self.backends.iter().map(|(address, found)| (*address, found.local.clone())).collect(),
        }
    }

    /// What other clusters get of it, if it is shared.
    pub(super) fn exported(&self) -> Option<ClusterService> {
        if !(self.service.global && self.service.shared) {
            return None;
        }
        let ports = self
            .service
            .ports
            .iter()
            .map(|port| (port.name.clone(), ServicePort { protocol: port.protocol, port: port.port }));
        let ports: BTreeMap<_, _> = ports.collect();
        let backends = self.backends.iter().filter(|(_, found)| found.local.ready || found.local.serving);
        Some(ClusterService {
            name: self.service.name.clone(),
            frontends: self.address().into_iter().map(|address| (address, ports.clone())).collect(),
            backends: backends.map(|(address, found)| (*address, found.exported())).collect(),
            labels: self.service.labels.clone(),
            selector: self.service.selector.clone(),
        })
    }

    /// How many backends take new connections.
    pub(super) fn ready_backends(&self) -> usize {
        self.backends.values().filter(|found| found.local.ready).count()
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        match self.service.address {
            RequestedAddress::Given(address) => Some(address.into()),
            _ => None,
        }
    }
}

impl ServedBackend {
    fn exported(&self) -> Backend {
        let ports = self.local.ports.iter();
        let ports = ports
            .map(|(name, port)| (name.clone(), ServicePort { protocol: port.protocol, port: port.port }));
        Backend {
            ports: ports.collect(),
            hostname: self.hostname.clone(),
            zone: self.zone.clone().map(|zone| Zone { zone, for_zones: Vec::new() }),
        }
    }
}
