//! Endpoints of services that select pods (Kubernetes' endpoint slice controller).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use landbridge_kvstore_schema::{NamespacedName, ObjectName, Protocol};

use crate::objects::{Endpoint, EndpointSlice, Objects, Pod, RequestedAddress, Service, TargetPort};

type SlicePorts = BTreeMap<String, (Protocol, NonZeroU16)>;

/// More ways to resolve the names of ports than this are not told apart.
const MAX_SLICES: u32 = 10_000;

/// The slices of all services with a selector. Names of slices are new ones, never those of declared slices.
pub(super) fn of_selectors(objects: &Objects) -> Vec<EndpointSlice> {
    let services = objects.services.values();
    let services = services
        .filter(|service| !service.selector.is_empty() && service.address != RequestedAddress::ExternalName);
    services.flat_map(|service| of_service(objects, service)).collect()
}

/// One slice for each way in which the names of ports are resolved.
fn of_service(objects: &Objects, service: &Service) -> Vec<EndpointSlice> {
    let mut by_ports: BTreeMap<Vec<(String, Protocol, NonZeroU16)>, Vec<Endpoint>> = BTreeMap::new();
    for pod in objects.pods.values().filter(|pod| is_selected(service, pod)) {
        let ports = resolve(service, pod).into_iter().map(|(name, (protocol, port))| (name, protocol, port));
        by_ports.entry(ports.collect()).or_default().push(endpoint(objects, service, pod));
    }
    let mut names = free_names(objects, &service.name);
    let slices = by_ports.into_iter().filter_map(|(ports, endpoints)| {
        let ports = ports.into_iter().map(|(name, protocol, port)| (name, (protocol, port))).collect();
        Some(EndpointSlice { name: names.next()?, service: service.name.name.clone(), ports, endpoints })
    });
    slices.collect()
}

fn is_selected(service: &Service, pod: &Pod) -> bool {
    pod.name.namespace == service.name.namespace
        && service.selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
        && addresses(pod).next().is_some()
        && !pod.readiness.ended
}

/// What stands for a pod in a slice: its addresses of IPv4, as services have theirs.
fn addresses(pod: &Pod) -> impl Iterator<Item = IpAddr> {
    pod.addresses.iter().copied().filter(IpAddr::is_ipv4)
}

/// The service's ports as this pod has them; without those that the pod has no container port for.
fn resolve(service: &Service, pod: &Pod) -> SlicePorts {
    let number = |name: &str, protocol: Protocol| {
        let port = pod.named_ports.iter().find(|port| port.name == name && port.protocol == protocol);
        port.map(|port| port.port)
    };
    let ports = service.ports.iter().filter_map(|port| {
        let target = match &port.target {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => number(name, port.protocol),
        };
        Some((port.name.clone(), (port.protocol, target?)))
    });
    ports.collect()
}

fn endpoint(objects: &Objects, service: &Service, pod: &Pod) -> Endpoint {
    let readiness = pod.readiness;
    let node = pod.node.as_ref().and_then(|node| objects.nodes.get(node));
    let hostname = pod.hostname.as_ref().filter(|(subdomain, _)| subdomain == service.name.name.as_str());
    Endpoint {
        addresses: addresses(pod).collect(),
        ready: service.publish_not_ready || (readiness.ready && !readiness.terminating),
        serving: service.publish_not_ready || readiness.ready,
        terminating: readiness.terminating,
        node: pod.node.clone(),
        hostname: hostname.map(|(_, hostname)| hostname.clone()),
        zone: node.and_then(|node| node.zone()).map(str::to_owned),
    }
}

/// Names that no declared slice has: the service's, with a number.
fn free_names<'a>(
    objects: &'a Objects,
    service: &'a NamespacedName,
) -> impl Iterator<Item = NamespacedName> + 'a {
    let names = (0_u32..MAX_SLICES).filter_map(|at| ObjectName::new(&format!("{}-{at}", service.name)).ok());
    let names = names.map(|name| NamespacedName { namespace: service.namespace.clone(), name });
    names.filter(|name| !objects.endpoint_slices.contains_key(name))
}
