//! Services and endpoint slices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use landbridge_kvstore_schema::{Affinity, ObjectName};

use super::balance::balance;
use super::{FieldError, FieldPath, Notes, ip, labels, namespaced_name, port, protocol};
use crate::objects::{Endpoint, EndpointSlice, RequestedAddress, Service, ServicePort, TargetPort};

/// Annotations of a service, each with its older name (Cilium `pkg/annotation`).
const GLOBAL: [&str; 2] = ["service.cilium.io/global", "io.cilium/global-service"];
const SHARED: [&str; 2] = ["service.cilium.io/shared", "io.cilium/shared-service"];
const AFFINITY: [&str; 2] = ["service.cilium.io/affinity", "io.cilium/service-affinity"];

/// The label by which a slice belongs to a service (KEP-752).
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

impl Service {
    /// Values of annotations that mean nothing go to `notes`; the service is taken without them, as in Cilium.
    ///
    /// # Errors
    /// [`FieldError`] with the field that breaks a rule.
    pub fn from_kubernetes(object: core::Service, notes: &mut Notes) -> Result<Self, FieldError> {
        let path = FieldPath::of(&["spec"]);
        let spec = object.spec.ok_or_else(|| path.error("the service has no spec"))?;
        let annotations = object.metadata.annotations.clone().unwrap_or_default();
        let found = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| Some((name, annotations.get(name)?.to_ascii_lowercase())))
        };
        let global = found(GLOBAL).is_some_and(|(_, value)| value == "true");
        let affinity = match found(AFFINITY).as_ref().map(|(name, value)| (*name, value.as_str())) {
            None | Some((_, "none" | "")) => Affinity::None,
            Some((_, "local")) => Affinity::Local,
            Some((_, "remote")) => Affinity::Remote,
            Some((name, other)) => {
                let field = FieldPath::of(&["metadata", "annotations"]).field(name);
                notes.push(field.error(format!("{other:?} is no affinity: use local, remote or none")));
                Affinity::None
            }
        };
        Ok(Self {
            name: namespaced_name(&object.metadata)?,
            balance: balance(&spec, &annotations, notes)?,
            address: requested_address(&spec)?,
            ports: ports(spec.ports.unwrap_or_default())?,
            selector: spec.selector.unwrap_or_default(),
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
            global,
            shared: global && found(SHARED).is_none_or(|(_, value)| value == "true"),
            affinity: if global { affinity } else { Affinity::None },
            labels: labels(object.metadata.labels)?,
        })
    }
}

fn requested_address(spec: &core::ServiceSpec) -> Result<RequestedAddress, FieldError> {
    if spec.type_.as_deref() == Some("ExternalName") {
        return Ok(RequestedAddress::ExternalName);
    }
    let path = FieldPath::of(&["spec"]);
    let list = path.field("clusterIPs");
    let one = spec.cluster_ip.as_deref().map(|text| (path.field("clusterIP"), text));
    let many =
        spec.cluster_ips.iter().flatten().enumerate().map(|(at, text)| (list.index(at), text.as_str()));
    let given = one.into_iter().chain(many).find(|(_, text)| !text.is_empty() && !text.contains(':'));
    match given {
        None => Ok(RequestedAddress::Any),
        Some((_, "None")) => Ok(RequestedAddress::Headless),
        Some((path, text)) => text.parse::<Ipv4Addr>().map(RequestedAddress::Given).map_err(|_| {
            path.error(format!(
                "{text:?} is not an IPv4 address: leave it out to have one chosen, or use None"
            ))
        }),
    }
}

fn ports(declared: Vec<core::ServicePort>) -> Result<Vec<ServicePort>, FieldError> {
    let path = FieldPath::of(&["spec", "ports"]);
    let mut names = BTreeSet::new();
    let is_only_one = declared.len() == 1;
    let read = |(at, declared): (usize, core::ServicePort)| {
        let path = path.index(at);
        let name = declared.name.unwrap_or_default();
        if name.is_empty() && !is_only_one {
            return Err(path.error("a service with several ports needs a name for each"));
        }
        if !names.insert(name.clone()) {
            return Err(path.field("name").error(format!("port name {name:?} is there twice")));
        }
        let number = port(&path.field("port"), declared.port)?;
        let target = match declared.target_port {
            None | Some(IntOrString::Int(0)) => TargetPort::Number(number),
            Some(IntOrString::Int(target)) => TargetPort::Number(port(&path.field("targetPort"), target)?),
            Some(IntOrString::String(name)) => TargetPort::Name(name),
        };
        let protocol = protocol(&path.field("protocol"), declared.protocol.as_deref())?;
        Ok(ServicePort { name, protocol, port: number, target })
    };
    declared.into_iter().enumerate().map(read).collect()
}

impl EndpointSlice {
    /// # Errors
    /// [`FieldError`] with the field that breaks a rule.
    pub fn from_kubernetes(object: discovery::EndpointSlice) -> Result<Self, FieldError> {
        if !matches!(object.address_type.as_str(), "IPv4" | "IPv6") {
            let path = FieldPath::of(&["addressType"]);
            return Err(path.error(format!("{:?} is not served: use IPv4 or IPv6", object.address_type)));
        }
        let service_label = FieldPath::of(&["metadata", "labels", SERVICE_NAME_LABEL]);
        let service = object.metadata.labels.iter().flatten().find(|(key, _)| *key == SERVICE_NAME_LABEL);
        let (_, service) = service.ok_or_else(|| service_label.error("the slice names no service"))?;
        let ports_path = FieldPath::of(&["ports"]);
        let ports = object.ports.into_iter().flatten().enumerate().map(|(at, declared)| {
            let path = ports_path.index(at);
            let protocol = protocol(&path.field("protocol"), declared.protocol.as_deref())?;
            let number = port(&path.field("port"), declared.port.unwrap_or_default())?;
            Ok((declared.name.unwrap_or_default(), (protocol, number)))
        });
        let endpoints_path = FieldPath::of(&["endpoints"]);
        let endpoints = object.endpoints.into_iter().enumerate();
        Ok(Self {
            name: namespaced_name(&object.metadata)?,
            service: ObjectName::new(service).map_err(|error| service_label.error(format!("{error}")))?,
            ports: ports.collect::<Result<BTreeMap<_, _>, FieldError>>()?,
            endpoints: endpoints
                .map(|(at, declared)| endpoint(&endpoints_path.index(at), declared))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// A condition that is missing counts as Kubernetes says: ready, serving as much as ready, not terminating.
fn endpoint(path: &FieldPath, declared: discovery::Endpoint) -> Result<Endpoint, FieldError> {
    let conditions = declared.conditions.unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    let addresses = declared.addresses.iter().enumerate();
    let addresses = addresses.map(|(at, text)| ip(&path.field("addresses").index(at), text));
    let node = declared.node_name.as_deref().map(ObjectName::new).transpose();
    Ok(Endpoint {
        addresses: addresses.collect::<Result<Vec<IpAddr>, _>>()?,
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        node: node.map_err(|error| path.field("nodeName").error(format!("{error}")))?,
        hostname: declared.hostname,
        zone: declared.zone,
    })
}
