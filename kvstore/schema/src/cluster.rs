//! Which cluster: its name, its number, and the numbers of identities that follow from it.

use std::fmt;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::excerpt::Excerpt;
use crate::identity::{IDENTITY_BITS, NumericIdentity};
use crate::key::Keyspace;

/// The name of a cluster, a segment of its keys and the value of its identities' cluster label.
///
/// 1 to 32 lower case letters, digits and `-`, starting and ending with a letter or digit, and not `default`,
/// which Cilium keeps for a cluster outside of a mesh (Cilium `pkg/clustermesh/types/addressing.go`,
/// `option.go`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterName(String);

impl ClusterName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 32;

    /// # Errors
    /// [`InvalidClusterName`] if `name` breaks a rule of the type.
    pub fn new(name: &str) -> Result<Self, InvalidClusterName> {
        let is_edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let edges_fit =
            name.as_bytes().first().is_some_and(is_edge) && name.as_bytes().last().is_some_and(is_edge);
        if !edges_fit || !name.bytes().all(|byte| is_edge(&byte) || byte == b'-') {
            return Err(InvalidClusterName::Characters(Excerpt::new(name)));
        }
        if name.len() > Self::MAX_BYTES {
            return Err(InvalidClusterName::TooLong(Excerpt::new(name)));
        }
        if name == "default" {
            return Err(InvalidClusterName::Default);
        }
        Ok(Self(name.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterName {
    type Err = InvalidClusterName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Why a text is not a [`ClusterName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidClusterName {
    /// A character that is not allowed, or not allowed first or last; or no character at all.
    #[error("cluster name {0} is not made of lower case letters, digits and inner '-'")]
    Characters(Excerpt),
    /// More than [`ClusterName::MAX_BYTES`].
    #[error("cluster name {0} is longer than 32 characters")]
    TooLong(Excerpt),
    /// The name that Cilium keeps for a cluster outside of a mesh.
    #[error("cluster name \"default\" is reserved for a cluster outside of a mesh")]
    Default,
}

/// How many clusters the mesh can have, which divides the 24 bits of an identity between cluster and label
/// set.
///
/// Chosen when a cluster is installed; all identities would change with it (Cilium `max-connected-clusters`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MaxClusters {
    /// 255 clusters of 65,536 identities: 8 bits and 16 bits.
    #[default]
    Of255,
    /// 511 clusters of 32,768 identities: 9 bits and 15 bits.
    Of511,
}

impl MaxClusters {
    /// The largest cluster id, 255 or 511; also what `maxConnectedClusters` says on the wire.
    pub const fn get(self) -> u16 {
        match self {
            Self::Of255 => 255,
            Self::Of511 => 511,
        }
    }

    /// The number of low bits of an identity that a cluster allocates, 16 or 15.
    pub const fn local_bits(self) -> u32 {
        match self {
            Self::Of255 => IDENTITY_BITS - 8,
            Self::Of511 => IDENTITY_BITS - 9,
        }
    }
}

/// Names one cluster of the mesh: 1 to 255, or to 511 in a mesh of [`MaxClusters::Of511`].
///
/// It fills the high 8 or 9 of the 24 bits of a security identity, so it carries the mesh's [`MaxClusters`]
/// with it. 0 stands for "not in a mesh" (Cilium `pkg/clustermesh/types/types.go`, "Security Identities").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId {
    id: NonZeroU16,
    max: MaxClusters,
}

impl ClusterId {
    /// # Errors
    /// [`InvalidClusterId`] if `id` is 0 or above `max`.
    pub fn new(id: u32, max: MaxClusters) -> Result<Self, InvalidClusterId> {
        let fitting = u16::try_from(id).ok().filter(|id| *id <= max.get()).and_then(NonZeroU16::new);
        fitting.map(|id| Self { id, max }).ok_or(InvalidClusterId { id, max: max.get() })
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.id.get()
    }

    /// The size of the mesh that the id was made for.
    pub const fn max_clusters(self) -> MaxClusters {
        self.max
    }

    /// Every identity that this cluster may allocate, as Cilium's `clusterIDValidator` has it.
    pub fn identities(self) -> RangeInclusive<NumericIdentity> {
        let first = u32::from(self.get()) << self.max.local_bits();
        let last = first | ((1 << self.max.local_bits()) - 1);
        NumericIdentity(first)..=NumericIdentity(last)
    }

    /// Whether `identity` is one that this cluster may allocate.
    pub fn owns(self, identity: NumericIdentity) -> bool {
        self.identities().contains(&identity)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)
    }
}

/// A number that names no cluster of this mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cluster id {id} is not in 1..={max}")]
pub struct InvalidClusterId {
    /// The number.
    pub id: u32,
    /// The largest id of this mesh.
    pub max: u16,
}

/// The cluster that records speak for, and where they are in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The keys, and with them the cluster's name.
    pub keyspace: Keyspace,
    /// The cluster's id, as its cluster config says.
    pub cluster_id: ClusterId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_cilium() {
        for name in ["a", "7", "c1", "eu-west-1", "a--b", &"x".repeat(32)] {
            assert_eq!(ClusterName::new(name).unwrap().as_str(), name);
        }
        for name in ["", "-a", "a-", "A", "a.b", "a_b", "a/b", "ä", "a b", "-"] {
            assert!(matches!(ClusterName::new(name), Err(InvalidClusterName::Characters(_))), "{name}");
        }
        assert!(matches!(ClusterName::new(&"x".repeat(33)), Err(InvalidClusterName::TooLong(_))));
        assert_eq!(ClusterName::new("default"), Err(InvalidClusterName::Default));
    }

    #[test]
    fn ids_reach_up_to_the_size_of_the_mesh() {
        for (max, last) in [(MaxClusters::Of255, 255), (MaxClusters::Of511, 511)] {
            assert!(ClusterId::new(0, max).is_err());
            assert_eq!(ClusterId::new(1, max).unwrap().get(), 1);
            assert_eq!(u32::from(ClusterId::new(last, max).unwrap().get()), last);
            assert_eq!(ClusterId::new(last + 1, max), Err(InvalidClusterId { id: last + 1, max: max.get() }));
            assert!(ClusterId::new(65_537, max).is_err());
        }
    }

    #[test]
    fn identities_of_a_cluster_follow_its_id() {
        let range = |id, max| {
            let range = ClusterId::new(id, max).unwrap().identities();
            (range.start().0, range.end().0)
        };
        assert_eq!(range(1, MaxClusters::Of255), (65_536, 131_071));
        assert_eq!(range(7, MaxClusters::Of255), (458_752, 524_287));
        assert_eq!(range(255, MaxClusters::Of255), (0xff_0000, 0xff_ffff));
        assert_eq!(range(7, MaxClusters::Of511), (229_376, 262_143));
        assert_eq!(range(511, MaxClusters::Of511), (0xff_8000, 0xff_ffff));
    }
}
