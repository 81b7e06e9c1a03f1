//! What a cluster consists of, as far as the mesh is concerned: plain values, already checked.
//!
//! ```text
//! manifest ─ source ─► Object ─┐
//!                              ├─► Objects ─ fill_in ─► Objects ─ publish ─► records
//! (Kubernetes API, later) ─────┘             addresses, slices
//! ```
//!
//! - Pure: no file, no clock, no store.
//! - Values were checked when an object was read: names fit into keys, ports are not 0, addresses are addresses.
//! - Only what ends up in a record, or decides about one, is kept.

mod cilium_policy;
pub mod fill_in;
mod kubernetes;
mod label_selector;
mod network_policy;
mod node;
mod pod;
mod policy;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use landbridge_kvstore_schema::{NamespacedName, ObjectName};

pub use cilium_policy::CiliumPolicy;
pub use kubernetes::{FieldError, FieldPath, Notes};
pub use network_policy::NetworkPolicy;
pub use node::Node;
pub use pod::{ContainerPort, Pod, Readiness};
pub use policy::{NamedPolicy, PolicyKind, PolicyName};
pub use service::{Endpoint, EndpointSlice, RequestedAddress, Service, ServicePort, TargetPort};

/// Everything that a cluster has, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objects {
    /// Whether nothing can be missing. It is `false` while a part of the source could not be read and nothing is
    /// known of what was in it: what is missing then may exist, and must not be withdrawn.
    pub whole: bool,
    /// Policies that cannot be read, and of which nothing good is known: what is in force of them stays so.
    pub unknown_policies: BTreeSet<PolicyName>,
    /// By name.
    pub namespaces: BTreeMap<ObjectName, Namespace>,
    /// By name.
    pub nodes: BTreeMap<ObjectName, Node>,
    /// By namespace and name.
    pub pods: BTreeMap<NamespacedName, Pod>,
    /// By namespace and name.
    pub services: BTreeMap<NamespacedName, Service>,
    /// By namespace and name.
    pub endpoint_slices: BTreeMap<NamespacedName, EndpointSlice>,
    /// By kind, namespace and name.
    pub policies: BTreeMap<PolicyName, NamedPolicy>,
}

impl Default for Objects {
    fn default() -> Self {
        Self {
            whole: true,
            unknown_policies: BTreeSet::new(),
            namespaces: BTreeMap::new(),
            nodes: BTreeMap::new(),
            pods: BTreeMap::new(),
            services: BTreeMap::new(),
            endpoint_slices: BTreeMap::new(),
            policies: BTreeMap::new(),
        }
    }
}

impl Objects {
    /// Adds an object, in place of the one with the same id.
    pub fn insert(&mut self, object: Object) {
        match object {
            Object::Namespace(object) => drop(self.namespaces.insert(object.name.clone(), object)),
            Object::Node(object) => drop(self.nodes.insert(object.name.clone(), object)),
            Object::Pod(object) => drop(self.pods.insert(object.name.clone(), object)),
            Object::Service(object) => drop(self.services.insert(object.name.clone(), object)),
            Object::EndpointSlice(object) => drop(self.endpoint_slices.insert(object.name.clone(), object)),
            Object::Policy(object) => drop(self.policies.insert(object.name.clone(), object)),
        }
    }

    /// The labels of a namespace. One that was never declared has the label that Kubernetes gives to each.
    pub fn namespace_labels(&self, namespace: &ObjectName) -> BTreeMap<String, String> {
        let mut labels = self.namespaces.get(namespace).map(|found| found.labels.clone()).unwrap_or_default();
        labels.insert(NAMESPACE_NAME_LABEL.to_owned(), namespace.to_string());
        labels
    }
}

impl FromIterator<Object> for Objects {
    fn from_iter<I: IntoIterator<Item = Object>>(iter: I) -> Self {
        let mut objects = Self::default();
        iter.into_iter().for_each(|object| objects.insert(object));
        objects
    }
}

/// The label that Kubernetes gives to every namespace (KEP-2161).
const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: ObjectName,
    /// Its labels, part of the identity of its pods.
    pub labels: BTreeMap<String, String>,
    /// Whether its services may be exported (`clustermesh.cilium.io/global`); they may unless it says `false`.
    pub global: bool,
}

/// One object of any kind that we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// `v1 Namespace`
    Namespace(Namespace),
    /// `v1 Node`
    Node(Node),
    /// `v1 Pod`
    Pod(Pod),
    /// `v1 Service`
    Service(Service),
    /// `discovery.k8s.io/v1 EndpointSlice`
    EndpointSlice(EndpointSlice),
    /// `cilium.io/v2` and `networking.k8s.io/v1`
    Policy(NamedPolicy),
}

impl Object {
    /// What no other object has.
    pub fn id(&self) -> ObjectId {
        let namespaced = |kind, name: &NamespacedName| {
            ObjectId::new(kind, Some(name.namespace.as_str()), name.name.as_str())
        };
        match self {
            Self::Namespace(object) => ObjectId::new("Namespace", None, object.name.as_str()),
            Self::Node(object) => ObjectId::new("Node", None, object.name.as_str()),
            Self::Pod(object) => namespaced("Pod", &object.name),
            Self::Service(object) => namespaced("Service", &object.name),
            Self::EndpointSlice(object) => namespaced("EndpointSlice", &object.name),
            Self::Policy(object) => {
                let namespace = object.name.namespace.as_ref().map(ObjectName::as_str);
                ObjectId::new(object.name.kind.as_str(), namespace, object.name.name.as_str())
            }
        }
    }
}

/// Kind, namespace and name of an object, also of one that could not be read further.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    kind: String,
    namespace: Option<String>,
    name: String,
}

impl ObjectId {
    /// `namespace` is `None` for kinds that belong to no namespace.
    pub fn new(kind: &str, namespace: Option<&str>, name: &str) -> Self {
        Self { kind: kind.to_owned(), namespace: namespace.map(str::to_owned), name: name.to_owned() }
    }

    /// The name of the policy, if it is one.
    pub fn policy_name(&self) -> Option<PolicyName> {
        let kind = PolicyKind::ALL.into_iter().find(|kind| kind.as_str() == self.kind)?;
        let namespace = self.namespace.as_deref().map(ObjectName::new).transpose().ok()?;
        Some(PolicyName { kind, namespace, name: ObjectName::new(&self.name).ok()? })
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}
