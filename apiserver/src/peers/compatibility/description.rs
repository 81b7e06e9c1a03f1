//! What a cluster says of itself, read.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::SystemTime;

use landbridge_apiserver_api::v1::DescribeClusterResponse;
use landbridge_kvstore_schema::{ClusterName, IpPrefix};

use super::super::addresses::{Addresses, is_of_hosts};
use crate::config::host;
use crate::pki::{Certificate, CertificateError};

/// The most ranges, node addresses and endpoints that a cluster may name.
pub(super) const MAX_ITEMS: usize = 10_000;

/// What a cluster says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its name.
    pub name: ClusterName,
    /// Its number.
    pub id: u32,
    /// The largest number of clusters in its mesh.
    pub max_clusters: u32,
    /// Where its store is reached, `https://`.
    pub endpoints: Vec<String>,
    /// The certificate of its authority.
    pub ca: Certificate,
    /// Its addresses; without service ranges, which do not leave a cluster.
    pub addresses: Addresses,
}

impl Description {
    /// Reads what another cluster said.
    ///
    /// # Errors
    /// [`InvalidDescription`] with the first field that cannot be.
    pub fn read(said: &DescribeClusterResponse, now: SystemTime) -> Result<Self, InvalidDescription> {
        let invalid = |field: &'static str, value: &str| InvalidDescription::Field {
            field,
            value: value.chars().take(100).collect(),
        };
        let name = ClusterName::new(&said.name).map_err(|_| invalid("name", &said.name))?;
        if said.store_endpoints.is_empty() {
            return Err(InvalidDescription::Missing { field: "store_endpoints", cluster: name });
        }
        if said.pod_ranges.is_empty() {
            return Err(InvalidDescription::Missing { field: "pod_ranges", cluster: name });
        }
        if said.store_endpoints.len().max(said.pod_ranges.len()).max(said.node_addresses.len()) > MAX_ITEMS {
            return Err(invalid("pod_ranges", "too many"));
        }
        for endpoint in &said.store_endpoints {
            if host(endpoint).is_none() {
                return Err(invalid("store_endpoints", endpoint));
            }
        }
        let range = |text: &String| {
            text.parse::<IpPrefix>().ok().filter(is_of_hosts).ok_or_else(|| invalid("pod_ranges", text))
        };
        let node = |text: &String| {
            let address = text.parse::<IpAddr>().ok().map(|address| address.to_canonical());
            address
                .filter(|address| is_of_hosts(&IpPrefix::host(*address)))
                .ok_or_else(|| invalid("node_addresses", text))
        };
        let addresses = Addresses {
            pod_ranges: said.pod_ranges.iter().map(range).collect::<Result<_, _>>()?,
            service_ranges: Vec::new(),
            nodes: said.node_addresses.iter().map(node).collect::<Result<BTreeSet<_>, _>>()?,
        };
        let unusable = |source| InvalidDescription::Authority { cluster: name.clone(), source };
        let ca = Certificate::from_pem(&said.ca_certificate).map_err(unusable)?;
        ca.check_authority(now).map_err(unusable)?;
        let fingerprint = ca.fingerprint();
        if fingerprint != said.ca_fingerprint {
            let said = said.ca_fingerprint.chars().take(100).collect();
            return Err(InvalidDescription::Fingerprint { cluster: name, fingerprint, said });
        }
        Ok(Self {
            name,
            id: said.id,
            max_clusters: said.max_clusters,
            endpoints: said.store_endpoints.clone(),
            ca,
            addresses,
        })
    }
}

/// A description that no cluster can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDescription {
    /// A field without what it has to hold.
    #[error("the peer's {field} holds {value:?}, which it cannot")]
    Field {
        /// The field.
        field: &'static str,
        /// What it holds.
        value: String,
    },
    /// An empty field that has to hold something.
    #[error("cluster {cluster} names no {field}; start its apiserver with them")]
    Missing {
        /// The field.
        field: &'static str,
        /// Whose.
        cluster: ClusterName,
    },
    /// The certificate of the authority cannot be used.
    #[error("the CA certificate of cluster {cluster} cannot be used: {source}")]
    Authority {
        /// Whose.
        cluster: ClusterName,
        /// Why.
        source: CertificateError,
    },
    /// Certificate and fingerprint do not belong together.
    #[error(
        "the CA certificate of cluster {cluster} has the fingerprint {fingerprint}, not {said}; somebody changed one of them on the way"
    )]
    Fingerprint {
        /// Whose.
        cluster: ClusterName,
        /// Of the certificate.
        fingerprint: String,
        /// What was said.
        said: String,
    },
}
