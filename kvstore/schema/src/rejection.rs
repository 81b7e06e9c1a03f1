//! Why a record is refused.

use crate::cluster::{ClusterId, ClusterName, InvalidClusterId, Origin};
use crate::excerpt::Excerpt;
use crate::identity::NumericIdentity;
use crate::key::RecordName;

/// A record that is refused: which one, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused record {key}")]
pub struct RecordError {
    /// The key, as it is in the store.
    pub key: String,
    /// What is wrong with it.
    #[source]
    pub rejection: Rejection,
}

impl RecordError {
    pub(crate) fn new(origin: &Origin, name: &RecordName, rejection: Rejection) -> Self {
        Self { key: origin.keyspace.key(name), rejection }
    }
}

/// What is wrong with a record. `field` is a field's name on the wire, `value` what it held.
///
/// The rules are those of Cilium's readers (`pkg/clustermesh`, `pkg/node/store`, `pkg/identity/cache`), which
/// skip such a record and warn, unless a variant says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The value is larger than a record of its kind can be. Cilium has no such limit.
    #[error("value of {size_bytes} bytes is larger than {max_bytes}")]
    TooLarge {
        /// Its size.
        size_bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// The value is not JSON, or a field has another type.
    #[error("value is not JSON of this record: {value}")]
    Malformed {
        /// What the JSON parser says, with the line and column.
        value: Excerpt,
    },
    /// The value is not UTF-8 text.
    #[error("value {value} is not UTF-8")]
    NotUtf8 {
        /// Its start.
        value: Excerpt,
    },
    /// The record says another name than its key.
    #[error("{field} is {value}, but the key says {expected}")]
    KeyMismatch {
        /// The field.
        field: &'static str,
        /// What it holds.
        value: Excerpt,
        /// What the key says.
        expected: String,
    },
    /// The record says that it is of another cluster.
    #[error("{field} is {value}, but the record comes from cluster {expected}")]
    ClusterMismatch {
        /// The field, or the key of the label.
        field: &'static str,
        /// What it holds.
        value: Excerpt,
        /// Where the record was read from.
        expected: ClusterName,
    },
    /// The record says that it is of a cluster with another number.
    #[error("{field} is {value}, but the record comes from cluster {expected}")]
    ClusterIdMismatch {
        /// The field.
        field: &'static str,
        /// What it holds.
        value: u32,
        /// The number of the cluster that the record was read from.
        expected: ClusterId,
    },
    /// A cluster config has an id that no cluster of this mesh can have.
    #[error("{field}: {source}")]
    InvalidClusterId {
        /// The field.
        field: &'static str,
        /// What it holds.
        source: InvalidClusterId,
    },
    /// A cluster config of a mesh of another size, seen by a cluster of a mesh of 511.
    #[error("{field} is {value}, but this mesh has {expected}")]
    MaxClustersMismatch {
        /// The field.
        field: &'static str,
        /// What it holds.
        value: u32,
        /// The size of the reader's mesh.
        expected: u16,
    },
    /// A cluster config with a way of exporting endpoint slices that we do not know.
    #[error("{field} is {value}, which is unknown")]
    UnknownExportMode {
        /// The field.
        field: &'static str,
        /// What it holds.
        value: Excerpt,
    },
    /// Not an address, or one with a zone.
    #[error("{field} holds {value}, which is not an address")]
    InvalidAddress {
        /// The field.
        field: &'static str,
        /// What it holds.
        value: Excerpt,
    },
    /// Not an address range: too long a prefix, or a mask that is not contiguous.
    #[error("{field} holds {value}, which is not an address range")]
    InvalidPrefix {
        /// The field.
        field: &'static str,
        /// What it holds.
        value: Excerpt,
    },
    /// Two spellings of one address. Cilium keeps one of them by chance.
    #[error("{field} holds {value} twice")]
    DuplicateAddress {
        /// The field.
        field: &'static str,
        /// The second spelling.
        value: Excerpt,
    },
    /// Not a transport protocol.
    #[error("{field} holds protocol {value}, not one of TCP, UDP, SCTP and ANY")]
    InvalidProtocol {
        /// The field.
        field: &'static str,
        /// What it holds.
        value: Excerpt,
    },
    /// Port 0, which is reserved (RFC 6335 section 6). Cilium does not check this.
    #[error("{field} holds port {value} with number 0")]
    PortZero {
        /// The field.
        field: &'static str,
        /// The name of the port.
        value: Excerpt,
    },
    /// An identity that means the same in every cluster. Cilium lets a peer use these; see cilium#45065 for
    /// what that allows.
    #[error("{field} is the reserved identity {value}")]
    ReservedIdentity {
        /// The field, or `key`.
        field: &'static str,
        /// The identity.
        value: NumericIdentity,
    },
    /// An identity that this cluster may not allocate.
    #[error("{field} is identity {value}, which is not one of cluster {cluster}")]
    ForeignIdentity {
        /// The field, or `key`.
        field: &'static str,
        /// The identity.
        value: NumericIdentity,
        /// The cluster that the record was read from.
        cluster: ClusterId,
    },
    /// The labels of an identity do not say which cluster it is of.
    #[error("label k8s:io.cilium.k8s.policy.cluster is missing")]
    MissingClusterLabel,
    /// The cluster label is there, but does not come from Kubernetes.
    #[error("label io.cilium.k8s.policy.cluster has source {value}, not k8s")]
    ClusterLabelSource {
        /// Its source.
        value: Excerpt,
    },
    /// A label of a source that never crosses clusters. Cilium does not check this.
    #[error("label {value} has a source that is for one node alone")]
    NodeLocalLabel {
        /// The label.
        value: Excerpt,
    },
    /// A part of the labels is no label.
    #[error("{value} is not a label")]
    InvalidLabel {
        /// The part.
        value: Excerpt,
    },
    /// Two labels of one key.
    #[error("label {value} has the key of an earlier one")]
    DuplicateLabel {
        /// The second one.
        value: Excerpt,
    },
    /// The last label is not ended, so the value may have been cut. Cilium does not check this.
    #[error("label {value} is not ended by ';'")]
    UnterminatedLabels {
        /// The last label.
        value: Excerpt,
    },
}

impl Rejection {
    /// A word for the reason, for the label of a metric.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::Malformed { .. } => "malformed",
            Self::NotUtf8 { .. } => "not_utf8",
            Self::KeyMismatch { .. } => "key_mismatch",
            Self::ClusterMismatch { .. } => "cluster_mismatch",
            Self::ClusterIdMismatch { .. } => "cluster_id_mismatch",
            Self::InvalidClusterId { .. } => "invalid_cluster_id",
            Self::MaxClustersMismatch { .. } => "max_clusters_mismatch",
            Self::UnknownExportMode { .. } => "unknown_export_mode",
            Self::InvalidAddress { .. } => "invalid_address",
            Self::InvalidPrefix { .. } => "invalid_prefix",
            Self::DuplicateAddress { .. } => "duplicate_address",
            Self::InvalidProtocol { .. } => "invalid_protocol",
            Self::PortZero { .. } => "port_zero",
            Self::ReservedIdentity { .. } => "reserved_identity",
            Self::ForeignIdentity { .. } => "foreign_identity",
            Self::MissingClusterLabel => "missing_cluster_label",
            Self::ClusterLabelSource { .. } => "cluster_label_source",
            Self::NodeLocalLabel { .. } => "node_local_label",
            Self::InvalidLabel { .. } => "invalid_label",
            Self::DuplicateLabel { .. } => "duplicate_label",
            Self::UnterminatedLabels { .. } => "unterminated_labels",
        }
    }

    pub(crate) fn check_size(value: &[u8], max_bytes: usize) -> Result<(), Self> {
        let size_bytes = value.len();
        if size_bytes > max_bytes { Err(Self::TooLarge { size_bytes, max_bytes }) } else { Ok(()) }
    }

    pub(crate) fn check_key(field: &'static str, value: &str, expected: &str) -> Result<(), Self> {
        if value == expected {
            return Ok(());
        }
        Err(Self::KeyMismatch { field, value: Excerpt::new(value), expected: expected.to_owned() })
    }

    pub(crate) fn check_cluster(
        field: &'static str,
        value: &str,
        expected: &ClusterName,
    ) -> Result<(), Self> {
        if value == expected.as_str() {
            return Ok(());
        }
        Err(Self::ClusterMismatch { field, value: Excerpt::new(value), expected: expected.clone() })
    }

    pub(crate) fn check_cluster_id(field: &'static str, value: u32, expected: ClusterId) -> Result<(), Self> {
        if value == u32::from(expected.get()) {
            Ok(())
        } else {
            Err(Self::ClusterIdMismatch { field, value, expected })
        }
    }
}
