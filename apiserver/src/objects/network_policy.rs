//! `NetworkPolicy`, `networking.k8s.io/v1`.

use std::num::NonZeroU16;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use landbridge_kvstore_schema::{
    LabelExpression, LabelKey, LabelOperator, ObjectName, Policy, PolicyPeer, PolicyPort, PolicyRule,
    Selector,
};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::cilium_policy::address_range;
use super::kubernetes::{end_port, namespaced_name, port, protocol};
use super::label_selector::LabelSelector;
use super::{FieldError, FieldPath, NamedPolicy, PolicyKind, PolicyName};
use crate::identities::{NAMESPACE_LABEL, NAMESPACE_LABELS_PREFIX};

/// The manifest of a policy.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkPolicy {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    metadata: ObjectMeta,
    spec: Spec,
    #[serde(rename = "status")]
    _status: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    #[serde(default)]
    pod_selector: LabelSelector,
    policy_types: Option<Vec<String>>,
    ingress: Option<Vec<Ingress>>,
    egress: Option<Vec<Egress>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ingress {
    from: Option<Vec<Peer>>,
    ports: Option<Vec<Ports>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Egress {
    to: Option<Vec<Peer>>,
    ports: Option<Vec<Ports>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Peer {
    pod_selector: Option<LabelSelector>,
    namespace_selector: Option<LabelSelector>,
    ip_block: Option<IpBlock>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IpBlock {
    cidr: String,
    except: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Ports {
    protocol: Option<String>,
    port: Option<IntOrString>,
    end_port: Option<i32>,
}

impl NetworkPolicy {
    /// The policy.
    ///
    /// # Errors
    /// [`FieldError`] with the field that breaks a rule or is not evaluated here.
    pub fn read(self) -> Result<NamedPolicy, FieldError> {
        let name = namespaced_name(&self.metadata)?;
        let path = FieldPath::of(&["spec"]);
        // An empty list is no list (Kubernetes, defaults of `networking/v1`).
        let types = self.spec.policy_types.unwrap_or_default();
        for (at, named) in types.iter().enumerate() {
            if !matches!(named.as_str(), "Ingress" | "Egress") {
                let message = format!("{named:?} is no direction: use Ingress or Egress");
                return Err(path.field("policyTypes").index(at).error(message));
            }
        }
        let is_of = |direction: &str, by_default: bool| {
            if types.is_empty() { by_default } else { types.iter().any(|named| named == direction) }
        };
        let namespace = &name.namespace;
        let ingress = is_of("Ingress", true).then(|| {
            let path = path.field("ingress");
            let rules = self.spec.ingress.into_iter().flatten().enumerate();
            rules
                .map(|(at, rule)| read_rule(&path.index(at), namespace, ("from", rule.from), rule.ports))
                .collect()
        });
        let egress = is_of("Egress", self.spec.egress.is_some()).then(|| {
            let path = path.field("egress");
            let rules = self.spec.egress.into_iter().flatten().enumerate();
            rules
                .map(|(at, rule)| read_rule(&path.index(at), namespace, ("to", rule.to), rule.ports))
                .collect()
        });
        Ok(NamedPolicy {
            name: PolicyName {
                kind: PolicyKind::Kubernetes,
                namespace: Some(name.namespace),
                name: name.name,
            },
            rules: vec![Policy {
                subject: self.spec.pod_selector.read(&path.field("podSelector"), pod_label)?,
                ingress: ingress.transpose()?,
                egress: egress.transpose()?,
            }],
        })
    }
}

/// An empty list of peers or ports is the same as none: everybody, every port.
fn read_rule(
    path: &FieldPath,
    namespace: &ObjectName,
    (peers_field, peers): (&str, Option<Vec<Peer>>),
    ports: Option<Vec<Ports>>,
) -> Result<PolicyRule, FieldError> {
    let peers_path = path.field(peers_field);
    let peers = peers.filter(|peers| !peers.is_empty()).map(|peers| {
        let peers = peers.into_iter().enumerate();
        peers.map(|(at, peer)| peer.read(&peers_path.index(at), namespace)).collect()
    });
    let ports_path = path.field("ports");
    let ports = ports.filter(|ports| !ports.is_empty()).map(|ports| {
        let ports = ports.into_iter().enumerate();
        ports.map(|(at, port)| port.read(&ports_path.index(at))).collect()
    });
    Ok(PolicyRule { deny: false, peers: peers.transpose()?, ports: ports.transpose()? })
}

impl Peer {
    fn read(self, path: &FieldPath, namespace: &ObjectName) -> Result<PolicyPeer, FieldError> {
        match (self.ip_block, self.namespace_selector, self.pod_selector) {
            (Some(block), None, None) => address_range(
                &path.field("ipBlock"),
                &block.cidr,
                block.except.as_deref().unwrap_or_default(),
            ),
            (None, None, None) => {
                Err(path.error("the peer is empty: use podSelector, namespaceSelector or ipBlock"))
            }
            (None, namespaces, pods) => {
                let pods = pods.unwrap_or_default().read(&path.field("podSelector"), pod_label)?;
                let mut expressions = pods.expressions;
                // Without a selector of namespaces it is about the policy's own, whatever labels the pods are selected by.
                expressions.extend(match namespaces {
                    Some(namespaces) => read_namespaces(&path.field("namespaceSelector"), &namespaces)?,
                    None => vec![LabelExpression {
                        key: pod_label(NAMESPACE_LABEL),
                        operator: LabelOperator::In,
                        values: vec![namespace.to_string()],
                    }],
                });
                Ok(PolicyPeer::Pods(Selector { expressions }))
            }
            (Some(_), ..) => Err(path.error("ipBlock cannot stand together with a selector: use two peers")),
        }
    }
}

/// A selector of namespaces is one of the labels that pods have from them; an empty one is any namespace.
fn read_namespaces(path: &FieldPath, selector: &LabelSelector) -> Result<Vec<LabelExpression>, FieldError> {
    let namespaces = selector.read(path, |key| pod_label(&format!("{NAMESPACE_LABELS_PREFIX}{key}")))?;
    if !namespaces.expressions.is_empty() {
        return Ok(namespaces.expressions);
    }
    let any = LabelExpression {
        key: pod_label(NAMESPACE_LABEL),
        operator: LabelOperator::Exists,
        values: Vec::new(),
    };
    Ok(vec![any])
}

impl Ports {
    fn read(self, path: &FieldPath) -> Result<PolicyPort, FieldError> {
        let number: Option<NonZeroU16> = match self.port {
            None => None,
            Some(IntOrString::Int(number)) => Some(port(&path.field("port"), number)?),
            Some(IntOrString::String(name)) => {
                let message = format!("{name:?} is not a number: ports by name are not evaluated here");
                return Err(path.field("port").error(message));
            }
        };
        let end_port =
            self.end_port.map(|last| end_port(&path.field("endPort"), number, last)).transpose()?;
        let protocol = protocol(&path.field("protocol"), self.protocol.as_deref())?;
        Ok(PolicyPort { protocol, port: number, end_port })
    }
}

/// Keys of Kubernetes' own selectors have no source.
fn pod_label(key: &str) -> LabelKey {
    LabelKey { source: Some("k8s".to_owned()), key: key.to_owned() }
}
