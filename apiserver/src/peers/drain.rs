//! Removes what a peer told us, when it is no longer one.
//!
//! ```text
//! mark ─► cluster config ─► canaries ─► records ─► unmark
//! ```
//!
//! Readers forget a cluster when its config goes, before its records go one by one. The mark tells whoever publishes next
//! that something is left.

use std::collections::BTreeSet;

use landbridge_kvstore_client::{ClientError, KvClient};
use landbridge_kvstore_schema::{
    Area, CLUSTER_CONFIG_PREFIX, ClusterName, KeyPrefix, Keyspace, Kind, LandbridgeKey, cluster_config_key,
    synced_prefix,
};
use tracing::info;

const DRAINING: &str = "draining";

/// Clusters that the own store has records of, or the remains of an earlier drain.
pub(crate) async fn mirrored_clusters(own: &KvClient) -> Result<BTreeSet<ClusterName>, ClientError> {
    let marks = format!("{}{DRAINING}/", Area::Config.prefix());
    let mut clusters = BTreeSet::new();
    for prefix in [CLUSTER_CONFIG_PREFIX, "cilium/synced/", marks.as_str()] {
        let records = own.list(prefix).await?.key_values;
        let names = records.iter().filter_map(|record| record.key.strip_prefix(prefix)?.split('/').next());
        clusters.extend(names.filter_map(|name| ClusterName::new(name).ok()));
    }
    Ok(clusters)
}

/// Removes everything that is known of `peer`.
pub(super) async fn drain(own: &KvClient, peer: &ClusterName) -> Result<(), ClientError> {
    let mark = LandbridgeKey::new(Area::Config, &[DRAINING, peer.as_str()])
        .expect("the name of a cluster is a segment of a key");
    own.put(&mark.to_string(), Vec::new(), None).await?;
    own.delete(&cluster_config_key(peer)).await?;
    own.delete_prefix(synced_prefix(peer).as_str()).await?;
    let keyspace = Keyspace::cache(peer.clone());
    let mut removed = 0;
    for kind in Kind::ALL {
        let prefix: KeyPrefix = keyspace.watch_prefix(kind);
        removed += own.delete_prefix(prefix.as_str()).await?;
    }
    own.delete(&mark.to_string()).await?;
    info!(cluster = %peer, records = removed, "removed what a former peer told us");
    Ok(())
}
