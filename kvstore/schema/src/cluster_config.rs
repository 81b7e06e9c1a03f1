//! What a cluster says of itself before anything else.

use serde::{Deserialize, Serialize};

use crate::cluster::{ClusterId, ClusterName, MaxClusters};
use crate::excerpt::Excerpt;
use crate::go_json::{self, Zero};
use crate::key::{Keyspace, cluster_config_key};
use crate::rejection::{RecordError, Rejection};

/// The record that a reader of a cluster reads first: `CiliumClusterConfig` (Cilium
/// `pkg/clustermesh/types/types.go`).
///
/// A reader also has to know whether the id is its own or another peer's; that is not to be seen in one
/// record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// The number of the cluster.
    pub id: ClusterId,
    /// What its records can do.
    pub capabilities: Capabilities,
}

/// What a reader can expect of a cluster's records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Canaries are written. A reader then watches nothing of a kind before its canary exists.
    pub synced_canaries: bool,
    /// The records are in [`Layout::Cache`](crate::Layout::Cache), because a mirror wrote them.
    pub cached: bool,
    /// The size of the mesh, 255 or 511; 0 if it does not say. Not a [`MaxClusters`], because a reader in a
    /// mesh of 255 takes any number.
    pub max_connected_clusters: u32,
    /// Whether services are exported through the MCS API; `None` from writers that do not know it.
    pub service_exports_enabled: Option<bool>,
    /// Where endpoints of global services are.
    pub endpoint_slices_export_mode: EndpointSlicesExportMode,
}

/// Where a cluster publishes endpoints of its global services (Cilium 1.20, CFP-41953).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndpointSlicesExportMode {
    /// Under `services` alone.
    #[default]
    ServicesOnly,
    /// Under `services` and under `endpointslices`.
    ServicesAndEndpointSlices,
    /// Under `endpointslices` alone.
    EndpointSlicesOnly,
}

impl EndpointSlicesExportMode {
    const ALL: [Self; 3] = [Self::ServicesOnly, Self::ServicesAndEndpointSlices, Self::EndpointSlicesOnly];

    const fn as_str(self) -> &'static str {
        match self {
            Self::ServicesOnly => "",
            Self::ServicesAndEndpointSlices => "services-and-endpointslices",
            Self::EndpointSlicesOnly => "endpointslices-only",
        }
    }
}

impl ClusterConfig {
    /// The largest value that is read, in bytes.
    pub const MAX_BYTES: usize = 16 << 10;

    /// Where the records of this cluster are.
    pub fn keyspace(&self, cluster: ClusterName) -> Keyspace {
        if self.capabilities.cached { Keyspace::cache(cluster) } else { Keyspace::state(cluster) }
    }

    /// The value of the record.
    pub fn encode(&self) -> Vec<u8> {
        let capabilities = &self.capabilities;
        let export_mode = capabilities.endpoint_slices_export_mode.as_str().to_owned();
        go_json::encode(&Wire {
            id: Zero(self.id.get().into()),
            capabilities: Zero(WireCapabilities {
                synced_canaries: Zero(capabilities.synced_canaries),
                cached: Zero(capabilities.cached),
                max_connected_clusters: Zero(capabilities.max_connected_clusters),
                service_exports_enabled: capabilities.service_exports_enabled,
                endpoint_slices_export_mode: Zero(export_mode),
            }),
        })
    }

    /// Reads the config of `cluster`, for a reader in a mesh of size `max`. Any rejection means that this
    /// cluster cannot be connected to (Cilium `ClusterInfo.ValidateRemoteConfig`), since the numbers of its
    /// identities would be misread.
    ///
    /// # Errors
    /// [`RecordError`] with what is wrong.
    pub fn decode(cluster: &ClusterName, max: MaxClusters, value: &[u8]) -> Result<Self, RecordError> {
        let wire = go_json::decode(value, Self::MAX_BYTES);
        let config = wire.and_then(|wire: Wire| wire.validated(max));
        config.map_err(|rejection| RecordError { key: cluster_config_key(cluster), rejection })
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Wire {
    #[serde(skip_serializing_if = "Zero::is_zero")]
    id: Zero<u32>,
    /// Written even if empty: Go's `omitempty` leaves no struct out.
    capabilities: Zero<WireCapabilities>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireCapabilities {
    #[serde(skip_serializing_if = "Zero::is_zero")]
    synced_canaries: Zero<bool>,
    #[serde(skip_serializing_if = "Zero::is_zero")]
    cached: Zero<bool>,
    #[serde(skip_serializing_if = "Zero::is_zero")]
    max_connected_clusters: Zero<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_exports_enabled: Option<bool>,
    #[serde(skip_serializing_if = "Zero::is_zero")]
    endpoint_slices_export_mode: Zero<String>,
}

impl Wire {
    fn validated(self, max: MaxClusters) -> Result<ClusterConfig, Rejection> {
        let capabilities = self.capabilities.0;
        let max_connected_clusters = capabilities.max_connected_clusters.0;
        let id = ClusterId::new(self.id.0, max)
            .map_err(|source| Rejection::InvalidClusterId { field: "id", source })?;
        if max != MaxClusters::Of255 && max_connected_clusters != u32::from(max.get()) {
            return Err(Rejection::MaxClustersMismatch {
                field: "maxConnectedClusters",
                value: max_connected_clusters,
                expected: max.get(),
            });
        }
        let export_mode = &capabilities.endpoint_slices_export_mode.0;
        let known_mode = EndpointSlicesExportMode::ALL.into_iter().find(|mode| mode.as_str() == export_mode);
        let endpoint_slices_export_mode = known_mode.ok_or_else(|| Rejection::UnknownExportMode {
            field: "endpointSlicesExportMode",
            value: Excerpt::new(export_mode),
        })?;
        Ok(ClusterConfig {
            id,
            capabilities: Capabilities {
                synced_canaries: capabilities.synced_canaries.0,
                cached: capabilities.cached.0,
                max_connected_clusters,
                service_exports_enabled: capabilities.service_exports_enabled,
                endpoint_slices_export_mode,
            },
        })
    }
}
