//! Pods.

use k8s_openapi::api::core::v1 as core;
use landbridge_kvstore_schema::ObjectName;

use super::{FieldError, FieldPath, ip, labels, namespaced_name, port, protocol};
use crate::objects::{ContainerPort, Pod, Readiness};

/// The service account of a pod that does not say one, which Kubernetes' admission fills in.
const DEFAULT_SERVICE_ACCOUNT: &str = "default";

impl Pod {
    /// # Errors
    /// [`FieldError`] with the field that breaks a rule.
    pub fn from_kubernetes(object: core::Pod) -> Result<Self, FieldError> {
        let path = FieldPath::of(&["spec"]);
        let spec = object.spec.ok_or_else(|| path.error("the pod has no spec"))?;
        let status = object.status.unwrap_or_default();
        let phase = status.phase.as_deref().unwrap_or_default();
        let node = spec.node_name.as_deref().filter(|node| !node.is_empty());
        let node = node.map(ObjectName::new).transpose();
        let ready = status.conditions.iter().flatten();
        let ready =
            ready.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status == "True");
        let account = spec.service_account_name.or(spec.service_account).filter(|name| !name.is_empty());
        Ok(Self {
            name: namespaced_name(&object.metadata)?,
            uid: object.metadata.uid.unwrap_or_default(),
            node: node.map_err(|error| path.field("nodeName").error(format!("{error}")))?,
            service_account: account.unwrap_or_else(|| DEFAULT_SERVICE_ACCOUNT.to_owned()),
            host_network: spec.host_network.unwrap_or(false),
            addresses: addresses(status.pod_ip.as_deref(), status.pod_ips.as_deref())?,
            readiness: Readiness {
                ready,
                terminating: object.metadata.deletion_timestamp.is_some(),
                ended: matches!(phase, "Succeeded" | "Failed"),
            },
            named_ports: named_ports(&spec.containers)?,
            hostname: spec.subdomain.zip(spec.hostname),
            labels: labels(object.metadata.labels)?,
        })
    }
}

/// `status.podIPs`, or `status.podIP` if there is nothing else.
fn addresses(one: Option<&str>, all: Option<&[core::PodIP]>) -> Result<Vec<std::net::IpAddr>, FieldError> {
    let status = FieldPath::of(&["status"]);
    let list = status.field("podIPs");
    let many = all.unwrap_or_default().iter().enumerate();
    let many = many.map(|(at, entry)| ip(&list.index(at).field("ip"), &entry.ip));
    let addresses: Vec<_> = many.collect::<Result<_, _>>()?;
    match one.filter(|address| !address.is_empty() && addresses.is_empty()) {
        Some(address) => Ok(vec![ip(&status.field("podIP"), address)?]),
        None => Ok(addresses),
    }
}

fn named_ports(containers: &[core::Container]) -> Result<Vec<ContainerPort>, FieldError> {
    let path = FieldPath::of(&["spec", "containers"]);
    let ports = containers.iter().enumerate().flat_map(|(container_at, container)| {
        let path = path.index(container_at).field("ports");
        let ports = container.ports.iter().flatten().enumerate();
        ports.map(move |(at, declared)| {
            let path = path.index(at);
            Ok(ContainerPort {
                name: declared.name.clone().unwrap_or_default(),
                protocol: protocol(&path.field("protocol"), declared.protocol.as_deref())?,
                port: port(&path.field("containerPort"), declared.container_port)?,
            })
        })
    });
    let mut ports: Vec<ContainerPort> = ports.collect::<Result<_, _>>()?;
    ports.retain(|port| !port.name.is_empty());
    Ok(ports)
}
