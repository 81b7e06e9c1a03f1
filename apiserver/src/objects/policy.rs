//! The network policies of a cluster, as they were written.

use landbridge_kvstore_schema::{ObjectName, Policy};

/// A policy. What depends on where it was written (its namespace, its cluster) is not in its selectors yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPolicy {
    /// Its name.
    pub name: PolicyName,
    /// Its rules; `specs` of a Cilium policy can have several.
    pub rules: Vec<Policy>,
}

/// What no other policy has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName {
    /// Which kind of policy.
    pub kind: PolicyKind,
    /// `None` if it is about pods of all namespaces.
    pub namespace: Option<ObjectName>,
    /// The name.
    pub name: ObjectName,
}

/// The kinds of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// `cilium.io/v2 CiliumNetworkPolicy`
    Cilium,
    /// `cilium.io/v2 CiliumClusterwideNetworkPolicy`
    CiliumClusterwide,
    /// `networking.k8s.io/v1 NetworkPolicy`
    Kubernetes,
}

impl PolicyKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Cilium, Self::CiliumClusterwide, Self::Kubernetes];

    /// The kind as a manifest writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cilium => "CiliumNetworkPolicy",
            Self::CiliumClusterwide => "CiliumClusterwideNetworkPolicy",
            Self::Kubernetes => "NetworkPolicy",
        }
    }
}
