//! The record of a node.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::cluster::Origin;
use crate::excerpt::Excerpt;
use crate::go_json::{self, Zero};
use crate::key::RecordName;
use crate::name::ObjectName;
use crate::prefix::{Family, Ipv4Prefix, Ipv6Prefix, Prefix, parse_address, print_address, split};
use crate::rejection::{RecordError, Rejection};

/// A node and how to reach it and its pods (Cilium `pkg/node/types/node.go`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The name, unique in its cluster.
    pub name: ObjectName,
    /// Addresses of the node itself. Tunnels end at its internal one.
    pub addresses: Vec<NodeAddress>,
    /// Where its pods have their IPv4 addresses from; the first is `IPv4AllocCIDR` on the wire, others are
    /// secondary.
    pub ipv4_pod_cidrs: Vec<Ipv4Prefix>,
    /// The same for IPv6.
    pub ipv6_pod_cidrs: Vec<Ipv6Prefix>,
    /// The address that answers health probes.
    pub ipv4_health: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub ipv6_health: Option<Ipv6Addr>,
    /// The address of the ingress proxy.
    pub ipv4_ingress: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub ipv6_ingress: Option<Ipv6Addr>,
    /// The number of the IPsec key that it encrypts with; 0 for none.
    pub encryption_key: u8,
    /// Labels of the Kubernetes node.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the Kubernetes node.
    pub annotations: BTreeMap<String, String>,
    /// The WireGuard public key in base64; empty for none. Not looked at here.
    pub wireguard_public_key: String,
    /// Changes with each boot; IPsec keys depend on it. Empty if not known.
    pub boot_id: String,
}

/// An address of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    /// What it is for.
    pub address_type: AddressType,
    /// The address.
    pub ip: IpAddr,
}

/// What an address of a node is for (Cilium `pkg/node/addressing`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressType {
    /// Between nodes.
    InternalIp,
    /// From outside.
    ExternalIp,
    /// The router address of the pods.
    CiliumInternalIp,
    /// One that we have no use for, such as `Hostname`.
    Other(String),
}

impl AddressType {
    fn as_str(&self) -> &str {
        match self {
            Self::InternalIp => "InternalIP",
            Self::ExternalIp => "ExternalIP",
            Self::CiliumInternalIp => "CiliumInternalIP",
            Self::Other(other) => other,
        }
    }

    fn from_text(text: String) -> Self {
        [Self::InternalIp, Self::ExternalIp, Self::CiliumInternalIp]
            .into_iter()
            .find(|known| known.as_str() == text)
            .unwrap_or(Self::Other(text))
    }
}

impl Node {
    /// The largest value that is read, in bytes. Labels and annotations of a Kubernetes object have 256 KiB
    /// together.
    pub const MAX_BYTES: usize = 512 << 10;

    /// What a publisher that reads Kubernetes objects writes as `Source`. Readers put their own in its place.
    const SOURCE: &str = "custom-resource";

    /// The name in its key.
    pub fn record_name(&self) -> RecordName {
        RecordName::Node(self.name.clone())
    }

    /// The value of the record, as the cluster of `origin` writes it. Address ranges are written as objects, the
    /// form that readers before Cilium 1.20 need (cilium#46924).
    pub fn encode(&self, origin: &Origin) -> Vec<u8> {
        let (ipv4_alloc_cidr, ipv4_secondary_alloc_cidrs) = wire_prefixes(&self.ipv4_pod_cidrs);
        let (ipv6_alloc_cidr, ipv6_secondary_alloc_cidrs) = wire_prefixes(&self.ipv6_pod_cidrs);
        go_json::encode(&Wire {
            name: Zero(self.name.to_string()),
            cluster: Zero(origin.keyspace.cluster.to_string()),
            ip_addresses: Some(self.addresses.iter().map(WireAddress::from).collect())
                .filter(|list: &Vec<_>| !list.is_empty()),
            ipv4_alloc_cidr,
            ipv4_secondary_alloc_cidrs,
            ipv6_alloc_cidr,
            ipv6_secondary_alloc_cidrs,
            ipv4_health_ip: Zero(text(self.ipv4_health)),
            ipv6_health_ip: Zero(text(self.ipv6_health)),
            ipv4_ingress_ip: Zero(text(self.ipv4_ingress)),
            ipv6_ingress_ip: Zero(text(self.ipv6_ingress)),
            cluster_id: Zero(origin.cluster_id.get().into()),
            source: Zero(Self::SOURCE.to_owned()),
            encryption_key: Zero(self.encryption_key),
            labels: Some(self.labels.clone()).filter(|map| !map.is_empty()),
            annotations: Some(self.annotations.clone()).filter(|map| !map.is_empty()),
            wireguard_pub_key: Zero(self.wireguard_public_key.clone()),
            boot_id: Zero(self.boot_id.clone()),
        })
    }

    /// Reads a record that `origin` published under `name`.
    ///
    /// Host bits of address ranges are cleared, as in Cilium. Stricter than Cilium: a mask has the length of
    /// its address, and a field named for one address family holds no address of the other.
    ///
    /// # Errors
    /// [`RecordError`] with what is wrong.
    pub fn decode(origin: &Origin, name: &ObjectName, value: &[u8]) -> Result<Self, RecordError> {
        let wire = go_json::decode(value, Self::MAX_BYTES);
        let node = wire.and_then(|wire: Wire| wire.validated(origin, name));
        node.map_err(|rejection| RecordError::new(origin, &RecordName::Node(name.clone()), rejection))
    }
}

/// The record's fields in Go's order. Empty lists and maps are `null`, as Go writes those that were never
/// made.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Wire {
    name: Zero<String>,
    cluster: Zero<String>,
    #[serde(rename = "IPAddresses")]
    ip_addresses: Option<Vec<WireAddress>>,
    #[serde(rename = "IPv4AllocCIDR")]
    ipv4_alloc_cidr: Option<WirePrefix>,
    #[serde(rename = "IPv4SecondaryAllocCIDRs")]
    ipv4_secondary_alloc_cidrs: Option<Vec<Option<WirePrefix>>>,
    #[serde(rename = "IPv6AllocCIDR")]
    ipv6_alloc_cidr: Option<WirePrefix>,
    #[serde(rename = "IPv6SecondaryAllocCIDRs")]
    ipv6_secondary_alloc_cidrs: Option<Vec<Option<WirePrefix>>>,
    #[serde(rename = "IPv4HealthIP")]
    ipv4_health_ip: Zero<String>,
    #[serde(rename = "IPv6HealthIP")]
    ipv6_health_ip: Zero<String>,
    #[serde(rename = "IPv4IngressIP")]
    ipv4_ingress_ip: Zero<String>,
    #[serde(rename = "IPv6IngressIP")]
    ipv6_ingress_ip: Zero<String>,
    #[serde(rename = "ClusterID")]
    cluster_id: Zero<u32>,
    source: Zero<String>,
    encryption_key: Zero<u8>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    wireguard_pub_key: Zero<String>,
    #[serde(rename = "BootID")]
    boot_id: Zero<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct WireAddress {
    #[serde(rename = "Type")]
    address_type: Zero<String>,
    #[serde(rename = "IP")]
    ip: Zero<String>,
}

/// An address range: an object up to Cilium 1.21, a text from 1.22 on, read in both forms.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum WirePrefix {
    Object {
        #[serde(rename = "IP")]
        ip: String,
        #[serde(rename = "Mask")]
        mask: String,
    },
    Text(String),
}

impl From<&NodeAddress> for WireAddress {
    fn from(address: &NodeAddress) -> Self {
        Self {
            address_type: Zero(address.address_type.as_str().to_owned()),
            ip: Zero(print_address(address.ip)),
        }
    }
}

impl<A: Family> From<&Prefix<A>> for WirePrefix {
    fn from(prefix: &Prefix<A>) -> Self {
        Self::Object { ip: prefix.network().to_string(), mask: prefix.base64_mask() }
    }
}

impl Wire {
    fn validated(self, origin: &Origin, name: &ObjectName) -> Result<Node, Rejection> {
        Rejection::check_cluster("Cluster", &self.cluster.0, &origin.keyspace.cluster)?;
        Rejection::check_key("Name", &self.name.0, name.as_str())?;
        Rejection::check_cluster_id("ClusterID", self.cluster_id.0, origin.cluster_id)?;
        Ok(Node {
            name: name.clone(),
            addresses: self.ip_addresses.into_iter().flatten().map(node_address).collect::<Result<_, _>>()?,
            ipv4_pod_cidrs: [
                prefixes("IPv4AllocCIDR", [self.ipv4_alloc_cidr])?,
                prefixes("IPv4SecondaryAllocCIDRs", self.ipv4_secondary_alloc_cidrs.into_iter().flatten())?,
            ]
            .concat(),
            ipv6_pod_cidrs: [
                prefixes("IPv6AllocCIDR", [self.ipv6_alloc_cidr])?,
                prefixes("IPv6SecondaryAllocCIDRs", self.ipv6_secondary_alloc_cidrs.into_iter().flatten())?,
            ]
            .concat(),
            ipv4_health: ipv4("IPv4HealthIP", &self.ipv4_health_ip.0)?,
            ipv6_health: ipv6("IPv6HealthIP", &self.ipv6_health_ip.0)?,
            ipv4_ingress: ipv4("IPv4IngressIP", &self.ipv4_ingress_ip.0)?,
            ipv6_ingress: ipv6("IPv6IngressIP", &self.ipv6_ingress_ip.0)?,
            encryption_key: self.encryption_key.0,
            labels: self.labels.unwrap_or_default(),
            annotations: self.annotations.unwrap_or_default(),
            wireguard_public_key: self.wireguard_pub_key.0,
            boot_id: self.boot_id.0,
        })
    }
}

/// The first range and the others, `None` where there are none.
fn wire_prefixes<A: Family>(prefixes: &[Prefix<A>]) -> (Option<WirePrefix>, Option<Vec<Option<WirePrefix>>>) {
    let mut prefixes = prefixes.iter().map(WirePrefix::from);
    let first = prefixes.next();
    let others: Vec<_> = prefixes.map(Some).collect();
    (first, Some(others).filter(|others| !others.is_empty()))
}

fn prefixes<A: Family>(
    field: &'static str,
    wire: impl IntoIterator<Item = Option<WirePrefix>>,
) -> Result<Vec<Prefix<A>>, Rejection> {
    let read = |wire: WirePrefix| {
        let (prefix, text) = match &wire {
            WirePrefix::Object { ip, mask } => (
                ip.parse().ok().map(|ip| Prefix::from_base64_mask(ip, mask)),
                format!("{ip} with mask {mask}"),
            ),
            WirePrefix::Text(text) => {
                let parts = split(text).and_then(|(address, len)| Some((address.parse().ok()?, len)));
                (parts.map(|(address, len)| Prefix::containing(address, len)), text.clone())
            }
        };
        let prefix = prefix.and_then(Result::ok);
        prefix.ok_or_else(|| Rejection::InvalidPrefix { field, value: Excerpt::new(&text) })
    };
    // Cilium skips a `null` among the secondary ranges too.
    wire.into_iter().flatten().map(read).collect()
}

fn node_address(wire: WireAddress) -> Result<NodeAddress, Rejection> {
    let ip = parse_address(&wire.ip.0).ok_or_else(|| invalid_address("IPAddresses", &wire.ip.0))?;
    Ok(NodeAddress { address_type: AddressType::from_text(wire.address_type.0), ip })
}

fn ipv4(field: &'static str, text: &str) -> Result<Option<Ipv4Addr>, Rejection> {
    match parse_address(text) {
        _ if text.is_empty() => Ok(None),
        Some(IpAddr::V4(address)) => Ok(Some(address)),
        _ => Err(invalid_address(field, text)),
    }
}

fn ipv6(field: &'static str, text: &str) -> Result<Option<Ipv6Addr>, Rejection> {
    match parse_address(text) {
        _ if text.is_empty() => Ok(None),
        Some(IpAddr::V6(address)) => Ok(Some(address)),
        _ => Err(invalid_address(field, text)),
    }
}

fn invalid_address(field: &'static str, text: &str) -> Rejection {
    Rejection::InvalidAddress { field, value: Excerpt::new(text) }
}

/// An address as text, empty for none.
fn text(address: Option<impl Into<IpAddr>>) -> String {
    address.map(|address| print_address(address.into())).unwrap_or_default()
}
