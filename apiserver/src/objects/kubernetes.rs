//! From Kubernetes' types to ours: every rule that an object has to keep is checked here, and the field that breaks one
//! is named.

mod balance;
mod pod;
mod service;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use landbridge_kvstore_schema::{
    AddressType, Family, Label, NamespacedName, NodeAddress, ObjectName, Prefix, Protocol,
};

use super::{Namespace, Node};

/// Where a field is, from the root of its object. Elements of lists are numbers, from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldPath(Vec<String>);

impl FieldPath {
    /// The path through these fields.
    pub fn of(fields: &[&str]) -> Self {
        Self(fields.iter().map(|field| (*field).to_owned()).collect())
    }

    /// The path to a field of what is here.
    #[must_use]
    pub fn field(&self, field: &str) -> Self {
        Self(self.0.iter().cloned().chain([field.to_owned()]).collect())
    }

    /// The path to an element of the list that is here.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.field(&index.to_string())
    }

    /// Field names and numbers, from the root.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// An error about the field.
    pub fn error(&self, message: impl Into<String>) -> FieldError {
        FieldError { path: self.clone(), message: message.into() }
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.segments().enumerate().try_for_each(|(at, segment)| match segment {
            _ if segment.bytes().all(|byte| byte.is_ascii_digit()) => write!(f, "[{segment}]"),
            _ if segment.contains('.') => write!(f, "[{segment:?}]"),
            _ if at == 0 => f.write_str(segment),
            _ => write!(f, ".{segment}"),
        })
    }
}

/// What is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct FieldError {
    /// The field.
    pub path: FieldPath,
    /// What is wrong with it, with its value.
    pub message: String,
}

/// What is worth telling of an object that is taken all the same.
pub type Notes = Vec<FieldError>;

const GLOBAL_NAMESPACE: &str = "clustermesh.cilium.io/global";
/// The longest name of a namespace: a DNS label (RFC 1123), which has no dot.
const MAX_LABEL_BYTES: usize = 63;

impl Namespace {
    /// # Errors
    /// [`FieldError`] with the field that breaks a rule.
    pub fn from_kubernetes(object: core::Namespace) -> Result<Self, FieldError> {
        let annotations = object.metadata.annotations.unwrap_or_default();
        Ok(Self {
            name: namespace_name(object.metadata.name.as_deref(), "name")?,
            labels: labels(object.metadata.labels)?,
            global: !annotations
                .get(GLOBAL_NAMESPACE)
                .is_some_and(|value| value.eq_ignore_ascii_case("false")),
        })
    }
}

impl Node {
    /// # Errors
    /// [`FieldError`] with the field that breaks a rule.
    pub fn from_kubernetes(object: core::Node) -> Result<Self, FieldError> {
        let spec = object.spec.unwrap_or_default();
        let status = object.status.unwrap_or_default();
        let addresses = FieldPath::of(&["status", "addresses"]);
        let addresses =
            status.addresses.unwrap_or_default().into_iter().enumerate().filter_map(|(at, address)| {
                let address_type = match address.type_.as_str() {
                    "InternalIP" => AddressType::InternalIp,
                    "ExternalIP" => AddressType::ExternalIp,
                    _ => return None, // host names and DNS names are no addresses
                };
                let path = addresses.index(at).field("address");
                Some(ip(&path, &address.address).map(|ip| NodeAddress { address_type, ip }))
            });
        Ok(Self {
            name: object_name(&object.metadata)?,
            labels: labels(object.metadata.labels.clone())?,
            addresses: addresses.collect::<Result<_, _>>()?,
            pod_range: pod_range(&spec, |text| !text.contains(':'), Self::LONGEST_POD_RANGE)?,
            pod_range6: pod_range(&spec, |text| text.contains(':'), Self::LONGEST_POD_RANGE6)?,
            boot_id: status.node_info.map(|info| info.boot_id).unwrap_or_default(),
        })
    }
}

/// The range of a family in `spec.podCIDRs`, which has one range of each, or in `spec.podCIDR`.
fn pod_range<A: Family>(
    spec: &core::NodeSpec,
    is_of_family: impl Fn(&str) -> bool,
    longest: u8,
) -> Result<Option<Prefix<A>>, FieldError> {
    let path = FieldPath::of(&["spec"]);
    let list = path.field("podCIDRs");
    let many = spec.pod_cidrs.iter().flatten().enumerate().map(|(at, text)| (list.index(at), text));
    let one = spec.pod_cidr.iter().map(|text| (path.field("podCIDR"), text));
    let given = many.chain(one).find(|(_, text)| !text.is_empty() && is_of_family(text));
    let Some((path, text)) = given else { return Ok(None) };
    let range: Prefix<A> = text.parse().map_err(|error| path.error(format!("{error}")))?;
    if range.len() > longest {
        return Err(path.error(format!(
            "{range} is too small for a router, a health address and pods: use /{longest} or shorter"
        )));
    }
    Ok(Some(range))
}

pub(super) fn object_name(metadata: &ObjectMeta) -> Result<ObjectName, FieldError> {
    let path = FieldPath::of(&["metadata", "name"]);
    match metadata.name.as_deref() {
        None | Some("") => Err(path.error("the object has no name: give it one")),
        Some(name) => ObjectName::new(name).map_err(|error| path.error(format!("{error}"))),
    }
}

pub(super) fn namespaced_name(metadata: &ObjectMeta) -> Result<NamespacedName, FieldError> {
    let namespace = metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty());
    let namespace = namespace_name(namespace.or(Some(DEFAULT_NAMESPACE)), "namespace")?;
    Ok(NamespacedName { namespace, name: object_name(metadata)? })
}

/// The namespace of an object that does not say one.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

fn namespace_name(name: Option<&str>, field: &str) -> Result<ObjectName, FieldError> {
    let path = FieldPath::of(&["metadata", field]);
    let name = name.filter(|name| !name.is_empty()).ok_or_else(|| path.error("the namespace has no name"))?;
    ObjectName::new(name)
        .ok()
        .filter(|name| name.as_str().len() <= MAX_LABEL_BYTES && !name.as_str().contains('.'))
        .ok_or_else(|| {
            path.error(format!(
                "{name:?} is not the name of a namespace: up to 63 lower case letters, digits and inner '-'"
            ))
        })
}

pub(super) fn labels(
    labels: Option<BTreeMap<String, String>>,
) -> Result<BTreeMap<String, String>, FieldError> {
    let labels = labels.unwrap_or_default();
    for (key, value) in &labels {
        Label::new("k8s", key, value)
            .map_err(|error| FieldPath::of(&["metadata", "labels"]).field(key).error(format!("{error}")))?;
    }
    Ok(labels)
}

pub(super) fn ip(path: &FieldPath, text: &str) -> Result<IpAddr, FieldError> {
    let address = text.parse::<IpAddr>().map_err(|_| path.error(format!("{text:?} is not an IP address")))?;
    Ok(address.to_canonical())
}

pub(super) fn port(path: &FieldPath, number: i32) -> Result<NonZeroU16, FieldError> {
    let port = u16::try_from(number).ok().and_then(NonZeroU16::new);
    port.ok_or_else(|| path.error(format!("{number} is not a port: use 1 to 65535")))
}

/// The last port of a range, which has to have a first.
pub(super) fn end_port(
    path: &FieldPath,
    first: Option<NonZeroU16>,
    last: i32,
) -> Result<NonZeroU16, FieldError> {
    let Some(first) = first else { return Err(path.error("a range of ports needs its first in port")) };
    let last = port(path, last)?;
    if last < first {
        return Err(path.error(format!("{last} is less than the first port of the range, {first}")));
    }
    Ok(last)
}

/// TCP if nothing is said.
pub(super) fn protocol(path: &FieldPath, text: Option<&str>) -> Result<Protocol, FieldError> {
    match text.unwrap_or("TCP") {
        "TCP" => Ok(Protocol::Tcp),
        "UDP" => Ok(Protocol::Udp),
        "SCTP" => Ok(Protocol::Sctp),
        other => Err(path.error(format!("{other:?} is not a protocol: use TCP, UDP or SCTP"))),
    }
}
