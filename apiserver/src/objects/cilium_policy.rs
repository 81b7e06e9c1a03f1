//! `CiliumNetworkPolicy` and `CiliumClusterwideNetworkPolicy`, `cilium.io/v2`.
//!
//! A policy with a field that is not evaluated here (rules on layer 7, `toFQDNs`, …) is refused as a whole: without the
//! field it would allow or deny something else than its author meant.
//!
//! What a rule means follows Cilium `pkg/policy/api` and `pkg/policy/rule.go`: a rule without peers and ports selects
//! nothing, one with ports alone is about everybody, an empty list of peers is about nobody.

mod addresses;
mod ports;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use landbridge_kvstore_schema::{Entity, LabelKey, ObjectName, Policy, PolicyPeer, PolicyRule, Selector};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::kubernetes::{namespaced_name, object_name};
use super::label_selector::LabelSelector;
use super::{FieldError, FieldPath, NamedPolicy, PolicyKind, PolicyName};
use crate::identities::NAMESPACE_LABEL;

pub(super) use addresses::address_range;
use addresses::{CidrRule, addresses};
use ports::{PortRule, ports};

/// The manifest of a policy.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CiliumPolicy {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    metadata: ObjectMeta,
    spec: Option<Rule>,
    specs: Option<Vec<Rule>>,
    #[serde(rename = "status")]
    _status: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    endpoint_selector: Option<LabelSelector>,
    ingress: Option<Vec<IngressRule>>,
    ingress_deny: Option<Vec<IngressRule>>,
    egress: Option<Vec<EgressRule>>,
    egress_deny: Option<Vec<EgressRule>>,
    enable_default_deny: Option<DefaultDeny>,
    #[serde(rename = "labels")]
    _labels: Option<IgnoredAny>,
    #[serde(rename = "description")]
    _description: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DefaultDeny {
    ingress: Option<bool>,
    egress: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IngressRule {
    from_endpoints: Option<Vec<LabelSelector>>,
    from_entities: Option<Vec<Entity>>,
    #[serde(rename = "fromCIDR")]
    from_cidr: Option<Vec<String>>,
    #[serde(rename = "fromCIDRSet")]
    from_cidr_set: Option<Vec<CidrRule>>,
    to_ports: Option<Vec<PortRule>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "these are the names of the manifest")]
struct EgressRule {
    to_endpoints: Option<Vec<LabelSelector>>,
    to_entities: Option<Vec<Entity>>,
    #[serde(rename = "toCIDR")]
    to_cidr: Option<Vec<String>>,
    #[serde(rename = "toCIDRSet")]
    to_cidr_set: Option<Vec<CidrRule>>,
    to_ports: Option<Vec<PortRule>>,
}

/// Both directions in one shape; the names are those of the fields.
struct DirectionRule {
    endpoints: (&'static str, Option<Vec<LabelSelector>>),
    entities: (&'static str, Option<Vec<Entity>>),
    cidr: (&'static str, Option<Vec<String>>),
    cidr_set: (&'static str, Option<Vec<CidrRule>>),
    to_ports: Option<Vec<PortRule>>,
}

impl From<IngressRule> for DirectionRule {
    fn from(rule: IngressRule) -> Self {
        Self {
            endpoints: ("fromEndpoints", rule.from_endpoints),
            entities: ("fromEntities", rule.from_entities),
            cidr: ("fromCIDR", rule.from_cidr),
            cidr_set: ("fromCIDRSet", rule.from_cidr_set),
            to_ports: rule.to_ports,
        }
    }
}

impl From<EgressRule> for DirectionRule {
    fn from(rule: EgressRule) -> Self {
        Self {
            endpoints: ("toEndpoints", rule.to_endpoints),
            entities: ("toEntities", rule.to_entities),
            cidr: ("toCIDR", rule.to_cidr),
            cidr_set: ("toCIDRSet", rule.to_cidr_set),
            to_ports: rule.to_ports,
        }
    }
}

impl CiliumPolicy {
    /// The policy; `clusterwide` if its kind is `CiliumClusterwideNetworkPolicy`.
    ///
    /// # Errors
    /// [`FieldError`] with the field that breaks a rule or is not evaluated here.
    pub fn read(self, clusterwide: bool) -> Result<NamedPolicy, FieldError> {
        let name = if clusterwide {
            PolicyName {
                kind: PolicyKind::CiliumClusterwide,
                namespace: None,
                name: object_name(&self.metadata)?,
            }
        } else {
            let name = namespaced_name(&self.metadata)?;
            PolicyName { kind: PolicyKind::Cilium, namespace: Some(name.namespace), name: name.name }
        };
        let spec = self.spec.map(|rule| (FieldPath::of(&["spec"]), rule));
        let specs = FieldPath::of(&["specs"]);
        let specs = self.specs.into_iter().flatten().enumerate().map(|(at, rule)| (specs.index(at), rule));
        let rules: Vec<Policy> = spec
            .into_iter()
            .chain(specs)
            .map(|(path, rule)| rule.read(&path, name.namespace.as_ref()))
            .collect::<Result<_, _>>()?;
        if rules.is_empty() {
            return Err(FieldPath::of(&["spec"]).error("the policy has neither spec nor specs"));
        }
        Ok(NamedPolicy { name, rules })
    }
}

impl Rule {
    fn read(self, path: &FieldPath, namespace: Option<&ObjectName>) -> Result<Policy, FieldError> {
        let selector = self.endpoint_selector.ok_or_else(|| {
            path.error("the rule has no endpointSelector: use endpointSelector: {} to select all pods")
        })?;
        let selector_path = path.field("endpointSelector");
        let subject = read_selector(&selector_path, &selector)?;
        if let Some(own) = namespace {
            stays_within(own, &subject).map_err(|message| selector_path.error(message))?;
        }
        let default_deny = self.enable_default_deny.unwrap_or_default();
        Ok(Policy {
            subject,
            ingress: direction(
                path,
                ["ingress", "ingressDeny"],
                self.ingress,
                self.ingress_deny,
                default_deny.ingress,
            )?,
            egress: direction(
                path,
                ["egress", "egressDeny"],
                self.egress,
                self.egress_deny,
                default_deny.egress,
            )?,
        })
    }
}

/// A namespaced policy is about pods of its own namespace alone.
fn stays_within(own: &ObjectName, subject: &Selector) -> Result<(), String> {
    let of_namespace = subject.expressions.iter().filter(|expression| expression.key.key == NAMESPACE_LABEL);
    let mut others =
        of_namespace.flat_map(|expression| &expression.values).filter(|value| *value != own.as_str());
    others.next().map_or(Ok(()), |other| {
        Err(format!("selects pods of namespace {other:?}, but the policy is in {own}: move it there"))
    })
}

/// Without rules the direction stays open, unless `default_deny` asks for more (Cilium `Rule.Sanitize`).
fn direction<R: Into<DirectionRule>>(
    path: &FieldPath,
    [allow_field, deny_field]: [&str; 2],
    allow: Option<Vec<R>>,
    deny: Option<Vec<R>>,
    default_deny: Option<bool>,
) -> Result<Option<Vec<PolicyRule>>, FieldError> {
    let has_rules = [&allow, &deny].into_iter().flatten().any(|rules| !rules.is_empty());
    match default_deny {
        Some(false) if has_rules => {
            let path = path.field("enableDefaultDeny").field(allow_field);
            return Err(path.error("rules without default deny are not evaluated here: remove the field"));
        }
        Some(true) => {}
        _ if !has_rules => return Ok(None),
        _ => {}
    }
    let read = |field: &'_ str, rules: Option<Vec<R>>, deny: bool| -> Result<Vec<PolicyRule>, FieldError> {
        let path = path.field(field);
        let rules = rules.into_iter().flatten().enumerate();
        let rules = rules.map(|(at, rule)| rule.into().read(&path.index(at), deny));
        Ok(rules.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    };
    let mut rules = read(allow_field, allow, false)?;
    rules.extend(read(deny_field, deny, true)?);
    Ok(Some(rules))
}

impl DirectionRule {
    /// `None` if it is about nothing.
    fn read(self, path: &FieldPath, deny: bool) -> Result<Option<PolicyRule>, FieldError> {
        let (endpoints_field, endpoints) = self.endpoints;
        let (entities_field, entities) = self.entities;
        let (cidr_field, cidr) = self.cidr;
        let (cidr_set_field, cidr_set) = self.cidr_set;
        let kinds = [
            (endpoints_field, endpoints.as_ref().is_some_and(|list| !list.is_empty())),
            (entities_field, entities.as_ref().is_some_and(|list| !list.is_empty())),
            (cidr_field, cidr.as_ref().is_some_and(|list| !list.is_empty())),
            (cidr_set_field, cidr_set.as_ref().is_some_and(|list| !list.is_empty())),
        ];
        let mut kinds = kinds.into_iter().filter_map(|(field, is_used)| is_used.then_some(field));
        if let (Some(one), Some(other)) = (kinds.next(), kinds.next()) {
            // As Cilium does (`IngressCommonRule.sanitize`): whether both are meant or either would be a guess.
            let message = format!("{other} cannot stand together with {one}: use a rule for each");
            return Err(path.field(other).error(message));
        }
        let names_peers = endpoints.is_some() || entities.is_some() || cidr.is_some() || cidr_set.is_some();
        let mut peers = Vec::new();
        for (at, selector) in endpoints.iter().flatten().enumerate() {
            let path = path.field(endpoints_field).index(at);
            peers.push(PolicyPeer::Pods(read_selector(&path, selector)?));
        }
        peers.extend(entities.into_iter().flatten().map(PolicyPeer::Entity));
        for (at, text) in cidr.iter().flatten().enumerate() {
            let range = addresses(&path.field(cidr_field).index(at), text)?;
            peers.push(PolicyPeer::Addresses { range, except: Vec::new() });
        }
        for (at, rule) in cidr_set.iter().flatten().enumerate() {
            peers.push(rule.read(&path.field(cidr_set_field).index(at))?);
        }
        let ports = ports(&path.field("toPorts"), &self.to_ports.unwrap_or_default())?;
        Ok(match (names_peers, ports) {
            (false, None) => None,
            (true, ports) => Some(PolicyRule { deny, peers: Some(peers), ports }),
            (false, ports) => Some(PolicyRule { deny, peers: None, ports }),
        })
    }
}

fn read_selector(path: &FieldPath, selector: &LabelSelector) -> Result<Selector, FieldError> {
    selector.read(path, |key| key.parse::<LabelKey>().unwrap_or_else(|never| match never {}))
}
