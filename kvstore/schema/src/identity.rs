//! Security identities: what their numbers mean, and the record of one.

use std::fmt;

use crate::cluster::{ClusterId, MaxClusters, Origin};
use crate::excerpt::Excerpt;
use crate::key::RecordName;
use crate::labels::{CLUSTER_LABEL, Label, Labels};
use crate::rejection::{RecordError, Rejection};

/// Bits of an identity that can cross clusters; as many as a VNI has (RFC 7348 section 5).
pub(crate) const IDENTITY_BITS: u32 = 24;

/// The number of a security identity: what policy decides on, and what the VNI of a packet carries.
///
/// ```text
///  31      24 23        16 15             0     255 clusters
///  31      24 23       15 14              0     511 clusters
/// ┌──────────┬────────────┬────────────────┐
/// │  scope   │ cluster id │ within cluster │    scope 0 alone crosses clusters
/// └──────────┴────────────┴────────────────┘
/// ```
///
/// Numbers up to 255 are reserved and mean the same in every cluster. Source: Cilium
/// `pkg/identity/numericidentity.go`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NumericIdentity(pub u32);

impl NumericIdentity {
    /// Not known.
    pub const UNKNOWN: Self = Self(0);
    /// The node itself.
    pub const HOST: Self = Self(1);
    /// Outside of all clusters.
    pub const WORLD: Self = Self(2);
    /// A pod without network policy.
    pub const UNMANAGED: Self = Self(3);
    /// The health address of a node.
    pub const HEALTH: Self = Self(4);
    /// A pod whose labels are not known yet.
    pub const INIT: Self = Self(5);
    /// Another node, of this cluster or another.
    pub const REMOTE_NODE: Self = Self(6);
    /// The Kubernetes API server.
    pub const KUBE_APISERVER: Self = Self(7);
    /// An ingress proxy.
    pub const INGRESS: Self = Self(8);
    /// Outside of all clusters, by IPv4.
    pub const WORLD_IPV4: Self = Self(9);
    /// Outside of all clusters, by IPv6.
    pub const WORLD_IPV6: Self = Self(10);

    /// The first number that a cluster outside of a mesh allocates.
    const FIRST_ALLOCATED: u32 = 256;

    /// Whether the number means the same in every cluster, 0 to 255. A peer must not publish it.
    pub const fn is_reserved(self) -> bool {
        self.0 < Self::FIRST_ALLOCATED
    }

    /// The label of a reserved identity without its source: `host`, `world`, …; `None` for those without a
    /// fixed meaning.
    pub const fn reserved_label(self) -> Option<&'static str> {
        Some(match self {
            Self::UNKNOWN => "unknown",
            Self::HOST => "host",
            Self::WORLD => "world",
            Self::UNMANAGED => "unmanaged",
            Self::HEALTH => "health",
            Self::INIT => "init",
            Self::REMOTE_NODE => "remote-node",
            Self::KUBE_APISERVER => "kube-apiserver",
            Self::INGRESS => "ingress",
            Self::WORLD_IPV4 => "world-ipv4",
            Self::WORLD_IPV6 => "world-ipv6",
            _ => return None,
        })
    }

    /// Who can know the identity.
    pub const fn scope(self) -> IdentityScope {
        match self.0 >> IDENTITY_BITS {
            0 => IdentityScope::Global,
            1 => IdentityScope::LocalCidr,
            2 => IdentityScope::RemoteNode,
            _ => IdentityScope::Unassigned,
        }
    }

    /// The cluster that allocated the identity; `None` for a reserved one, one of a cluster outside of a
    /// mesh, and one that does not leave its node.
    pub fn cluster(self, max: MaxClusters) -> Option<ClusterId> {
        ClusterId::new(self.0 >> max.local_bits(), max).ok()
    }

    /// Reads a decimal number without sign or leading zero, as keys have it: a second spelling would be a
    /// second key.
    pub(crate) fn from_decimal(text: &str) -> Option<Self> {
        let identity = Self(text.parse().ok()?);
        (identity.to_string() == text).then_some(identity)
    }

    /// # Errors
    /// [`Rejection::ReservedIdentity`] or [`Rejection::ForeignIdentity`] if `cluster` may not speak for the
    /// identity.
    pub(crate) fn check_owner(self, field: &'static str, cluster: ClusterId) -> Result<(), Rejection> {
        if self.is_reserved() {
            return Err(Rejection::ReservedIdentity { field, value: self });
        }
        if !cluster.owns(self) {
            return Err(Rejection::ForeignIdentity { field, value: self, cluster });
        }
        Ok(())
    }
}

impl fmt::Display for NumericIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who can know an identity: the high 8 of its 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdentityScope {
    /// All clusters.
    Global,
    /// One node, for an address range outside of the mesh.
    LocalCidr,
    /// One node, for another node.
    RemoteNode,
    /// Nobody yet.
    Unassigned,
}

/// The record of an identity: a number and the labels that it stands for.
///
/// The labels hold `k8s:io.cilium.k8s.policy.cluster=<cluster>`, the number is one of the cluster's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    number: NumericIdentity,
    labels: Labels,
}

impl Identity {
    /// The largest value that is read, in bytes.
    pub const MAX_BYTES: usize = 64 << 10;

    /// An identity that the cluster of `origin` allocated for `labels`. The cluster label is set.
    ///
    /// # Errors
    /// [`Rejection`] if a reader would refuse it: the number is not one of the cluster's, or a label comes
    /// from a source that no identity of a pod can have.
    pub fn new(origin: &Origin, number: NumericIdentity, mut labels: Labels) -> Result<Self, Rejection> {
        labels.insert(Label::cluster(&origin.keyspace.cluster));
        Self::checked(origin, number, labels)
    }

    /// The number.
    pub const fn number(&self) -> NumericIdentity {
        self.number
    }

    /// The labels, the cluster label included.
    pub const fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The name in its key.
    pub const fn name(&self) -> RecordName {
        RecordName::Identity(self.number)
    }

    /// The value of the record: the labels as [`Labels`] prints them. It is not JSON.
    pub fn encode(&self) -> Vec<u8> {
        self.labels.to_string().into_bytes()
    }

    /// Reads a record that `origin` published under `number`.
    ///
    /// Stricter than Cilium: a value that does not end in `;` may have been cut and is refused, and so are
    /// labels of the sources `reserved`, `cidr`, `cidrgroup`, `fqdn` and `node`, by which a peer's pod would
    /// match a rule about something that this node alone decides.
    ///
    /// # Errors
    /// [`RecordError`] with what is wrong. A deletion has no value and is never refused.
    pub fn decode(origin: &Origin, number: NumericIdentity, value: &[u8]) -> Result<Self, RecordError> {
        let decoded =
            Labels::decode(value, Self::MAX_BYTES).and_then(|labels| Self::checked(origin, number, labels));
        decoded.map_err(|rejection| RecordError::new(origin, &RecordName::Identity(number), rejection))
    }

    fn checked(origin: &Origin, number: NumericIdentity, labels: Labels) -> Result<Self, Rejection> {
        number.check_owner("key", origin.cluster_id)?;
        let cluster = labels.get(CLUSTER_LABEL).ok_or(Rejection::MissingClusterLabel)?;
        if cluster.source() != "k8s" {
            return Err(Rejection::ClusterLabelSource { value: Excerpt::new(cluster.source()) });
        }
        Rejection::check_cluster(CLUSTER_LABEL, cluster.value(), &origin.keyspace.cluster)?;
        if let Some(label) = labels.iter().find(|label| label.is_of_one_node()) {
            return Err(Rejection::NodeLocalLabel { value: Excerpt::new(&label.to_string()) });
        }
        Ok(Self { number, labels })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_numbers_have_the_names_of_cilium() {
        let names: Vec<_> = (0..=11).map(|number| NumericIdentity(number).reserved_label()).collect();
        let first =
            ["unknown", "host", "world", "unmanaged", "health", "init", "remote-node", "kube-apiserver"];
        let last = ["ingress", "world-ipv4", "world-ipv6"];
        let expected: Vec<_> = first.into_iter().chain(last).map(Some).chain([None]).collect();
        assert_eq!(names, expected);
        assert!(NumericIdentity(255).is_reserved() && !NumericIdentity(256).is_reserved());
    }

    #[test]
    fn the_cluster_is_in_the_high_bits() {
        let cluster = |number, max| NumericIdentity(number).cluster(max).map(ClusterId::get);
        assert_eq!(cluster(461_234, MaxClusters::Of255), Some(7));
        assert_eq!(cluster(461_234, MaxClusters::Of511), Some(14));
        assert_eq!(cluster(0xff_ffff, MaxClusters::Of255), Some(255));
        assert_eq!(cluster(0xff_ffff, MaxClusters::Of511), Some(511));
        for outside in [0, 255, 256, 32_767, 0x0100_0000, 0x0200_0001, u32::MAX] {
            assert_eq!(cluster(outside, MaxClusters::Of255), None, "{outside}");
            assert_eq!(cluster(outside, MaxClusters::Of511), None, "{outside}");
        }
    }

    #[test]
    fn the_scope_is_in_the_highest_byte() {
        assert_eq!(NumericIdentity(0x00ff_ffff).scope(), IdentityScope::Global);
        assert_eq!(NumericIdentity(0x0100_0000).scope(), IdentityScope::LocalCidr);
        assert_eq!(NumericIdentity(0x0200_0000).scope(), IdentityScope::RemoteNode);
        assert_eq!(NumericIdentity(0x0300_0000).scope(), IdentityScope::Unassigned);
    }

    #[test]
    fn numbers_have_one_spelling() {
        assert_eq!(NumericIdentity::from_decimal("461234"), Some(NumericIdentity(461_234)));
        for text in ["", "007", "+7", "-1", "7 ", "0x7", "4294967296"] {
            assert_eq!(NumericIdentity::from_decimal(text), None, "{text:?}");
        }
    }
}
