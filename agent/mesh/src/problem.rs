//! What the mesh does not take, and what it cannot do.

use landbridge_kvstore_schema::{
    ClusterId, ClusterName, KeyError, NamespacedName, NumericIdentity, RecordError,
};

use crate::{AddressOwner, NodeRef};

/// Why a change of a key is not taken. The key then counts as absent, but for a policy that cannot be read: the pods that
/// it may be about get no connections.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The key is one of those that are read, but it names nothing that can have that name.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key is one of those that are read, but a part of it cannot be a name.
    #[error("key {key:?} does not hold a valid name of {part}")]
    Name {
        /// The key.
        key: String,
        /// What is named there.
        part: &'static str,
    },
    /// The value is not a record of its kind, or speaks for something that its writer may not speak for.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The mirror holds records under the name of this cluster, whose own are elsewhere.
    #[error("key {key} is a copy of a record of this cluster, which is read from cilium/state/ alone")]
    OwnCluster {
        /// The key.
        key: String,
    },
    /// A cluster's number is that of this cluster, or of one whose name comes before.
    #[error("cluster {cluster} has id {id}, which is that of cluster {holder}: give one of them another id")]
    ClusterId {
        /// The cluster.
        cluster: ClusterName,
        /// Its number.
        id: ClusterId,
        /// The cluster that has the number.
        holder: ClusterName,
    },
    /// A record of another cluster is about an address of this one, or one that no cluster can have.
    #[error("record {key} takes {address}, which belongs to {owner}")]
    Claim {
        /// The key.
        key: String,
        /// The address or range.
        address: String,
        /// Whose it is.
        owner: AddressOwner,
    },
    /// A pod of this cluster has an identity that this cluster cannot give.
    #[error("record {key} gives identity {identity}, which is not one of cluster {cluster}")]
    PodIdentity {
        /// The key.
        key: String,
        /// The identity.
        identity: NumericIdentity,
        /// The number of this cluster.
        cluster: ClusterId,
    },
}

impl Refused {
    /// A word for the reason, for the label of a metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Key(_) | Self::Name { .. } => "invalid_key",
            Self::Record(error) => error.rejection.reason(),
            Self::OwnCluster { .. } => "own_cluster",
            Self::ClusterId { .. } => "cluster_id_taken",
            Self::Claim { .. } => "address_taken",
            Self::PodIdentity { .. } => "foreign_identity",
        }
    }
}

/// Something that is not as its author meant it, for as long as it lasts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Problem {
    /// Records that are refused now.
    #[error("{records} records of cluster {cluster} are refused ({reason}), among them {example}")]
    Refused {
        /// Whose records.
        cluster: ClusterName,
        /// As in [`Refused::reason`].
        reason: &'static str,
        /// How many.
        records: usize,
        /// The key of the first.
        example: String,
    },
    /// A cluster's number is taken, so that none of its records are read.
    #[error(
        "cluster {cluster} is not read: its id {id} is that of cluster {holder}; give one of them another id"
    )]
    ClusterId {
        /// The cluster.
        cluster: ClusterName,
        /// Its number.
        id: u16,
        /// The cluster that has the number.
        holder: ClusterName,
    },
    /// A node is left out because an address or range of it belongs to another node.
    #[error("node {node} is left out: {address} belongs to {owner}")]
    NodeClaim {
        /// The node.
        node: NodeRef,
        /// The address or range.
        address: String,
        /// Whose it is.
        owner: AddressOwner,
    },
    /// A node is left out because nobody could send to it.
    #[error("node {node} is left out: it has no address that packets can be sent to")]
    NodeWithoutAddress {
        /// The node.
        node: NodeRef,
    },
    /// A node is left out because all numbers are taken.
    #[error("node {node} is left out: all {limit} numbers of nodes are taken")]
    NoNodeNumber {
        /// The node.
        node: NodeRef,
        /// How many numbers there are.
        limit: u32,
    },
    /// Addresses that are left out because they belong to others.
    #[error(
        "{addresses} addresses of cluster {cluster} belong to others and are left out, among them {example}"
    )]
    AddressClaims {
        /// Which cluster publishes them.
        cluster: ClusterName,
        /// How many.
        addresses: usize,
        /// The first.
        example: String,
    },
    /// A service shares an address and port with one whose name comes before.
    #[error("service {service} does not get {address}, which is that of service {holder}")]
    FrontendTaken {
        /// The service.
        service: NamespacedName,
        /// Address, port and protocol.
        address: String,
        /// The service that has it.
        holder: NamespacedName,
    },
    /// A policy asks for something that the datapath cannot do yet.
    #[error("policy {policy}: {unsupported}")]
    Policy {
        /// The policy.
        policy: NamespacedName,
        /// What it asks for.
        unsupported: Unsupported,
    },
    /// A policy cannot be read, so that nobody can say whom it allows what.
    #[error("policy {policy} cannot be read: the pods that it may be about get no connections")]
    UnreadablePolicy {
        /// The policy.
        policy: NamespacedName,
    },
    /// A pod is served without new connections because its labels are not known.
    #[error("pod {pod} has identity {identity}, whose labels are not known: it gets no new connections")]
    UnknownLabels {
        /// The pod.
        pod: NamespacedName,
        /// Its identity.
        identity: u32,
    },
    /// A pod is not served because no record says what it is.
    #[error("pod {pod} is not served: there is no record of it in this cluster")]
    UnknownPod {
        /// The pod.
        pod: NamespacedName,
    },
}

/// What the datapath cannot do yet, and what it does instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Unsupported {
    /// Rules that allow by address.
    #[error("rules that allow address ranges are not supported yet and allow nothing")]
    AllowAddresses,
    /// Rules that deny by address.
    #[error("rules that deny address ranges are not supported yet and deny everything outside of the mesh")]
    DenyAddresses,
}
