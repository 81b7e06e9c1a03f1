//! The record of a global service.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::cluster::Origin;
use crate::excerpt::Excerpt;
use crate::go_json::{self, Zero};
use crate::key::RecordName;
use crate::name::NamespacedName;
use crate::prefix::{parse_address, print_address};
use crate::rejection::{RecordError, Rejection};

/// A service that a cluster shares, with its backends there (Cilium `pkg/clustermesh/store/store.go`).
///
/// A record exists only while the service is global and shared; a cluster that stops sharing it deletes the
/// key. So `includeExternal` and `shared` are always `true` on the wire, nobody reads them, and they are not
/// here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterService {
    /// Namespace and name. Services of the same name are one across clusters.
    pub name: NamespacedName,
    /// The service's addresses in its own cluster, none if it is headless. Readers have their own and do not
    /// use these.
    pub frontends: BTreeMap<IpAddr, Ports>,
    /// Where it is served: endpoints that are ready, or still serve while they terminate.
    pub backends: BTreeMap<IpAddr, Backend>,
    /// Labels of the service.
    pub labels: BTreeMap<String, String>,
    /// Which pods back it.
    pub selector: BTreeMap<String, String>,
}

/// Ports by name. The name of an unnamed port is empty; several names can have one number.
pub type Ports = BTreeMap<String, ServicePort>;

/// A port of a frontend or backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    /// The protocol.
    pub protocol: Protocol,
    /// The number.
    pub port: NonZeroU16,
}

/// A protocol of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// Any of them.
    Any,
}

impl Protocol {
    const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Sctp, Self::Any];

    /// The protocol on the wire: `TCP`, `UDP`, `SCTP` or `ANY`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Any => "ANY",
        }
    }

    pub(crate) fn from_wire(field: &'static str, text: &str) -> Result<Self, Rejection> {
        let known = Self::ALL.into_iter().find(|protocol| protocol.as_str() == text);
        known.ok_or_else(|| Rejection::InvalidProtocol { field, value: Excerpt::new(text) })
    }
}

impl FromStr for Protocol {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_wire("protocol", text)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An endpoint of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// The ports that it serves on, by the name that the service's frontend has for them.
    pub ports: Ports,
    /// Its name within a headless service.
    pub hostname: Option<String>,
    /// Where it is.
    pub zone: Option<Zone>,
}

/// Where an endpoint is, and who should use it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// The zone that it is in.
    pub zone: String,
    /// The zones whose clients should use it; none to say nothing about it.
    pub for_zones: Vec<String>,
}

impl ClusterService {
    /// The largest value that is read, in bytes: what etcd takes in one request.
    pub const MAX_BYTES: usize = 3 << 19;

    /// The name in its key.
    pub fn record_name(&self) -> RecordName {
        RecordName::Service(self.name.clone())
    }

    /// The value of the record, as the cluster of `origin` writes it.
    pub fn encode(&self, origin: &Origin) -> Vec<u8> {
        let backends = || self.backends.iter().map(|(ip, backend)| (print_address(*ip), backend));
        let hostnames = backends().filter_map(|(ip, backend)| Some((ip, Zero(backend.hostname.clone()?))));
        let zones = backends().filter_map(|(ip, backend)| Some((ip, Zero(backend.zone.as_ref()?.into()))));
        go_json::encode(&Wire {
            cluster: Zero(origin.keyspace.cluster.to_string()),
            namespace: Zero(self.name.namespace.to_string()),
            name: Zero(self.name.name.to_string()),
            frontends: Zero(
                self.frontends.iter().map(|(ip, ports)| (print_address(*ip), wire_ports(ports))).collect(),
            ),
            backends: Zero(backends().map(|(ip, backend)| (ip, wire_ports(&backend.ports))).collect()),
            hostnames: Zero(hostnames.collect()),
            zones: Zero(zones.collect()),
            labels: Zero(self.labels.clone()),
            selector: Zero(self.selector.clone()),
            include_external: true,
            shared: true,
            cluster_id: Zero(origin.cluster_id.get().into()),
        })
    }

    /// Reads a record that `origin` published under `name`.
    ///
    /// Host names and zones of addresses that are no backends are ignored. Stricter than Cilium: protocols
    /// have to be known, ports not 0, and an address must not be there in two spellings.
    ///
    /// # Errors
    /// [`RecordError`] with what is wrong.
    pub fn decode(origin: &Origin, name: &NamespacedName, value: &[u8]) -> Result<Self, RecordError> {
        let wire = go_json::decode(value, Self::MAX_BYTES);
        let service = wire.and_then(|wire: Wire| wire.validated(origin, name));
        service.map_err(|rejection| RecordError::new(origin, &RecordName::Service(name.clone()), rejection))
    }
}

type WirePorts = BTreeMap<String, Zero<WirePort>>;

/// The record's fields in Go's order. Addresses are text here: Go orders a map by the text of its keys.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Wire {
    cluster: Zero<String>,
    namespace: Zero<String>,
    name: Zero<String>,
    frontends: Zero<BTreeMap<String, Zero<WirePorts>>>,
    backends: Zero<BTreeMap<String, Zero<WirePorts>>>,
    #[serde(skip_serializing_if = "Zero::is_zero")]
    hostnames: Zero<BTreeMap<String, Zero<String>>>,
    #[serde(skip_serializing_if = "Zero::is_zero")]
    zones: Zero<BTreeMap<String, Zero<WireZone>>>,
    labels: Zero<BTreeMap<String, String>>,
    selector: Zero<BTreeMap<String, String>>,
    #[serde(skip_deserializing)]
    include_external: bool,
    #[serde(skip_deserializing)]
    shared: bool,
    #[serde(rename = "clusterID")]
    cluster_id: Zero<u32>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct WirePort {
    protocol: Zero<String>,
    port: Zero<u16>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireZone {
    zone: Zero<String>,
    for_zones: Zero<Vec<WireForZone>>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct WireForZone {
    name: Zero<String>,
}

impl From<&Zone> for WireZone {
    fn from(zone: &Zone) -> Self {
        let for_zones = zone.for_zones.iter().map(|name| WireForZone { name: Zero(name.clone()) });
        Self { zone: Zero(zone.zone.clone()), for_zones: Zero(for_zones.collect()) }
    }
}

impl From<WireZone> for Zone {
    fn from(wire: WireZone) -> Self {
        Self { zone: wire.zone.0, for_zones: wire.for_zones.0.into_iter().map(|zone| zone.name.0).collect() }
    }
}

impl Wire {
    fn validated(mut self, origin: &Origin, name: &NamespacedName) -> Result<ClusterService, Rejection> {
        Rejection::check_cluster("cluster", &self.cluster.0, &origin.keyspace.cluster)?;
        Rejection::check_key("namespace", &self.namespace.0, name.namespace.as_str())?;
        Rejection::check_key("name", &self.name.0, name.name.as_str())?;
        Rejection::check_cluster_id("clusterID", self.cluster_id.0, origin.cluster_id)?;

        let frontends = by_address("frontends", self.frontends.0, |_, ports| ports_of("frontends", ports))?;
        let backends = by_address("backends", self.backends.0, |ip, ports| {
            let ports = ports_of("backends", ports)?;
            let hostname = self.hostnames.0.remove(ip).map(|hostname| hostname.0);
            let zone = self.zones.0.remove(ip).map(|zone| zone.0.into());
            Ok(Backend { ports, hostname, zone })
        })?;
        Ok(ClusterService {
            name: name.clone(),
            frontends,
            backends,
            labels: self.labels.0,
            selector: self.selector.0,
        })
    }
}

/// Reads a map that is keyed by the text of an address.
fn by_address<T>(
    field: &'static str,
    wire: BTreeMap<String, Zero<WirePorts>>,
    mut read: impl FnMut(&str, WirePorts) -> Result<T, Rejection>,
) -> Result<BTreeMap<IpAddr, T>, Rejection> {
    let mut entries = BTreeMap::new();
    for (text, ports) in wire {
        let invalid = || Rejection::InvalidAddress { field, value: Excerpt::new(&text) };
        let address = parse_address(&text).ok_or_else(invalid)?;
        if entries.insert(address, read(&text, ports.0)?).is_some() {
            return Err(Rejection::DuplicateAddress { field, value: Excerpt::new(&text) });
        }
    }
    Ok(entries)
}

fn ports_of(field: &'static str, wire: WirePorts) -> Result<Ports, Rejection> {
    let read = |(name, Zero(wire)): (String, Zero<WirePort>)| {
        let protocol = Protocol::from_wire(field, &wire.protocol.0)?;
        let port = port_number(field, &name, wire.port.0)?;
        Ok((name, ServicePort { protocol, port }))
    };
    wire.into_iter().map(read).collect()
}

fn wire_ports(ports: &Ports) -> Zero<WirePorts> {
    let wire = |port: &ServicePort| WirePort {
        protocol: Zero(port.protocol.as_str().to_owned()),
        port: Zero(port.port.get()),
    };
    Zero(ports.iter().map(|(name, port)| (name.clone(), Zero(wire(port)))).collect())
}

pub(crate) fn port_number(field: &'static str, name: &str, port: u16) -> Result<NonZeroU16, Rejection> {
    NonZeroU16::new(port).ok_or_else(|| Rejection::PortZero { field, value: Excerpt::new(name) })
}
