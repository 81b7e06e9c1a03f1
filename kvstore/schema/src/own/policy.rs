//! Who may talk to whom, as agents evaluate it.
//!
//! The apiserver has resolved what depends on where a policy was written: a subject is one of this cluster, namespaces are
//! explicit, and a selector that says nothing of clusters has the local one added (Cilium 1.19,
//! `policy-default-local-cluster`).

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{OwnRecord, folder, namespaced_key};
use crate::{Area, IpPrefix, KeyPrefix, LandbridgeKey, NamespacedName, Protocol};

const FOLDER: &str = "policies";

/// One policy.
///
/// A direction without rules (`None`) is left as it is. One with rules, even with none in the list, allows what they
/// allow and nothing else, together with all other policies of the same subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// The pods that it is about.
    pub subject: Selector,
    /// What may reach them.
    #[serde(default)]
    pub ingress: Option<Vec<PolicyRule>>,
    /// What they may reach.
    #[serde(default)]
    pub egress: Option<Vec<PolicyRule>>,
}

/// One rule: it speaks of traffic with one of `peers`, on one of `ports`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRule {
    /// Deny, which wins over whatever allows.
    #[serde(default)]
    pub deny: bool,
    /// The other side; `None` is everybody, an empty list nobody.
    #[serde(default)]
    pub peers: Option<Vec<PolicyPeer>>,
    /// Destination ports; `None` is every port and protocol, an empty list none.
    #[serde(default)]
    pub ports: Option<Vec<PolicyPort>>,
}

/// The other side of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PolicyPeer {
    /// Pods with these labels.
    Pods(Selector),
    /// A group with a name.
    Entity(Entity),
    /// Addresses outside of the mesh, without those in `except`.
    Addresses {
        /// The addresses.
        range: IpPrefix,
        /// Exceptions.
        #[serde(default)]
        except: Vec<IpPrefix>,
    },
}

/// A group with a name (Cilium, "Entities Based").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entity {
    /// Everybody.
    All,
    /// Everything outside of the mesh.
    World,
    /// Every pod and node of this cluster.
    Cluster,
    /// Every pod of every cluster.
    ClusterMesh,
    /// The node that the pod is on.
    Host,
    /// All other nodes.
    RemoteNode,
}

/// A port of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyPort {
    /// The protocol.
    pub protocol: Protocol,
    /// The destination port; `None` for every port of the protocol.
    #[serde(default)]
    pub port: Option<NonZeroU16>,
    /// The last port of the range that `port` begins; `None` for `port` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_port: Option<NonZeroU16>,
}

/// Which sets of labels are meant: those that hold to every expression. One without expressions selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Selector {
    /// All of them have to hold.
    pub expressions: Vec<LabelExpression>,
}

/// What a label has to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelExpression {
    /// The label.
    pub key: LabelKey,
    /// What is asked of it.
    pub operator: LabelOperator,
    /// Values for `In` and `NotIn`; empty for the others.
    #[serde(default)]
    pub values: Vec<String>,
}

/// What is asked of a label, as in Kubernetes: `NotIn` holds for a label that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LabelOperator {
    /// It has one of the values.
    In,
    /// It has none of the values.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

/// The label that an expression is about, written `source:key`; without a source, or with `any`, of any source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelKey {
    /// Where the label is from, such as `k8s`; `None` for any.
    pub source: Option<String>,
    /// Its name.
    pub key: String,
}

impl FromStr for LabelKey {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.split_once(':') {
            None | Some(("any" | "", _)) => {
                let key = text.split_once(':').map_or(text, |(_, key)| key);
                Self { source: None, key: key.to_owned() }
            }
            Some((source, key)) => Self { source: Some(source.to_owned()), key: key.to_owned() },
        })
    }
}

impl fmt::Display for LabelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source.as_deref().unwrap_or("any"), self.key)
    }
}

impl OwnRecord for Policy {}

impl Policy {
    /// Where the record of `policy` is.
    pub fn key(policy: &NamespacedName) -> LandbridgeKey {
        namespaced_key(Area::Local, FOLDER, policy)
    }

    /// Where all of these records are.
    pub fn prefix() -> KeyPrefix {
        folder(Area::Local, FOLDER)
    }
}

impl PolicyPeer {
    /// One address outside of the mesh.
    pub fn address(address: IpAddr) -> Self {
        Self::Addresses { range: IpPrefix::host(address), except: Vec::new() }
    }
}
