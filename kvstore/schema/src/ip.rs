//! The record of a pod's address.

use std::net::IpAddr;
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use crate::cluster::Origin;
use crate::excerpt::Excerpt;
use crate::go_json::{self, Zero};
use crate::identity::NumericIdentity;
use crate::key::RecordName;
use crate::prefix::{IpOrPrefix, IpPrefix, Prefix, parse_address, print_address};
use crate::rejection::{RecordError, Rejection};
use crate::service::{Protocol, port_number};

/// Who is behind an address, and on which node (Cilium `pkg/identity/identity.go`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpIdentityPair {
    /// The address, or a range of them.
    pub ip: IpOrPrefix,
    /// The node that packets to it go to, through a tunnel; `None` if there is none.
    pub host_ip: Option<IpAddr>,
    /// The identity of whoever has the address.
    pub identity: NumericIdentity,
    /// The number of the IPsec key that packets to it are encrypted with; 0 for none.
    pub encryption_key: u8,
    /// Free text. Nothing here depends on it.
    pub metadata: String,
    /// The namespace of the pod; empty if it is none.
    pub namespace: String,
    /// The name of the pod; empty if it is none.
    pub pod_name: String,
    /// The service account of the pod; empty if it is none, or if the writer does not say.
    pub service_account: String,
    /// The ports of the pod that have a name. Written in the order of their names.
    pub named_ports: Vec<NamedPort>,
}

/// A port of a pod that policy can name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedPort {
    /// The name.
    pub name: String,
    /// The number.
    pub port: NonZeroU16,
    /// The protocol.
    pub protocol: Protocol,
}

impl IpIdentityPair {
    /// The largest value that is read, in bytes.
    pub const MAX_BYTES: usize = 64 << 10;

    /// The name in its key.
    pub const fn record_name(&self) -> RecordName {
        RecordName::Ip(self.ip)
    }

    /// The value of the record. It does not name the cluster; readers know it by its identity.
    pub fn encode(&self) -> Vec<u8> {
        let mask = match self.ip.covered() {
            _ if !self.ip.is_prefix() => None,
            IpPrefix::V4(prefix) => Some(prefix.base64_mask()),
            IpPrefix::V6(prefix) => Some(prefix.base64_mask()),
        };
        let mut named_ports: Vec<_> = self.named_ports.iter().map(WireNamedPort::from).collect();
        named_ports.sort_by(|a, b| a.name.0.cmp(&b.name.0));
        go_json::encode(&Wire {
            ip: Zero(print_address(self.ip.covered().network())),
            mask,
            host_ip: Zero(self.host_ip.map(print_address).unwrap_or_default()),
            id: Zero(self.identity.0),
            key: Zero(self.encryption_key),
            metadata: Zero(self.metadata.clone()),
            k8s_namespace: Zero(self.namespace.clone()),
            k8s_pod_name: Zero(self.pod_name.clone()),
            k8s_service_account: Zero(self.service_account.clone()),
            named_ports: Zero(named_ports),
        })
    }

    /// Reads a record that `origin` published under `ip`.
    ///
    /// Stricter than Cilium: a reserved identity is refused, and so is a range with host bits or a mask that
    /// is not of its family.
    ///
    /// # Errors
    /// [`RecordError`] with what is wrong.
    pub fn decode(origin: &Origin, ip: IpOrPrefix, value: &[u8]) -> Result<Self, RecordError> {
        let wire = go_json::decode(value, Self::MAX_BYTES);
        let pair = wire.and_then(|wire: Wire| wire.validated(origin, ip));
        pair.map_err(|rejection| RecordError::new(origin, &RecordName::Ip(ip), rejection))
    }
}

/// The record's fields in Go's order. `Mask` is `null` for a single address, never left out.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Wire {
    #[serde(rename = "IP")]
    ip: Zero<String>,
    #[serde(rename = "Mask")]
    mask: Option<String>,
    #[serde(rename = "HostIP")]
    host_ip: Zero<String>,
    #[serde(rename = "ID")]
    id: Zero<u32>,
    #[serde(rename = "Key")]
    key: Zero<u8>,
    #[serde(rename = "Metadata")]
    metadata: Zero<String>,
    #[serde(rename = "K8sNamespace", skip_serializing_if = "Zero::is_zero")]
    k8s_namespace: Zero<String>,
    #[serde(rename = "K8sPodName", skip_serializing_if = "Zero::is_zero")]
    k8s_pod_name: Zero<String>,
    #[serde(rename = "K8sServiceAccount", skip_serializing_if = "Zero::is_zero")]
    k8s_service_account: Zero<String>,
    #[serde(rename = "NamedPorts", skip_serializing_if = "Zero::is_zero")]
    named_ports: Zero<Vec<WireNamedPort>>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WireNamedPort {
    name: Zero<String>,
    port: Zero<u16>,
    protocol: Zero<String>,
}

impl From<&NamedPort> for WireNamedPort {
    fn from(port: &NamedPort) -> Self {
        Self {
            name: Zero(port.name.clone()),
            port: Zero(port.port.get()),
            protocol: Zero(port.protocol.as_str().to_owned()),
        }
    }
}

impl Wire {
    fn validated(self, origin: &Origin, expected: IpOrPrefix) -> Result<IpIdentityPair, Rejection> {
        let ip = covered(&self.ip.0, self.mask.as_deref())?;
        Rejection::check_key("IP", &ip.to_string(), &expected.to_string())?;
        let identity = NumericIdentity(self.id.0);
        identity.check_owner("ID", origin.cluster_id)?;
        Ok(IpIdentityPair {
            ip,
            host_ip: host_ip(&self.host_ip.0)?,
            identity,
            encryption_key: self.key.0,
            metadata: self.metadata.0,
            namespace: self.k8s_namespace.0,
            pod_name: self.k8s_pod_name.0,
            service_account: self.k8s_service_account.0,
            named_ports: self.named_ports.0.into_iter().map(named_port).collect::<Result<_, _>>()?,
        })
    }
}

fn covered(ip: &str, mask: Option<&str>) -> Result<IpOrPrefix, Rejection> {
    let address = parse_address(ip).ok_or_else(|| invalid_address("IP", ip))?;
    let Some(mask) = mask else { return Ok(IpOrPrefix::address(address)) };
    let prefix = match address {
        IpAddr::V4(address) => Prefix::from_base64_mask(address, mask).map(IpPrefix::V4),
        IpAddr::V6(address) => Prefix::from_base64_mask(address, mask).map(IpPrefix::V6),
    };
    match prefix {
        Ok(prefix) if prefix.network() == address => Ok(IpOrPrefix::prefix(prefix)),
        _ => Err(Rejection::InvalidPrefix {
            field: "Mask",
            value: Excerpt::new(&format!("{ip} with mask {mask}")),
        }),
    }
}

fn host_ip(text: &str) -> Result<Option<IpAddr>, Rejection> {
    if text.is_empty() {
        return Ok(None);
    }
    parse_address(text).map(Some).ok_or_else(|| invalid_address("HostIP", text))
}

fn named_port(wire: WireNamedPort) -> Result<NamedPort, Rejection> {
    let port = port_number("NamedPorts", &wire.name.0, wire.port.0)?;
    let protocol = Protocol::from_wire("NamedPorts", &wire.protocol.0)?;
    Ok(NamedPort { name: wire.name.0, port, protocol })
}

fn invalid_address(field: &'static str, text: &str) -> Rejection {
    Rejection::InvalidAddress { field, value: Excerpt::new(text) }
}
