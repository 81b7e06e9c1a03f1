//! Collects what a status is made of.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use landbridge_apiserver_api::v1::GetStatusResponse;
use landbridge_kvstore_client::KvClient;
use landbridge_kvstore_schema::{
    Area, ClusterId, ClusterName, ClusterService, Keyspace, Kind, LandbridgeKey, LocalService,
    NamespacedName, NodeReport, ObjectName, Origin, OwnRecord, Peer, RecordName,
};

use super::super::AdminContext;
use super::super::error::AdminError;
use super::{Facts, PeerFacts, response};
use crate::store::chain;

impl AdminContext {
    /// How the cluster is doing.
    pub(in super::super) async fn status(
        &self,
        clock: SystemTime,
        now: Instant,
    ) -> Result<GetStatusResponse, AdminError> {
        let nodes = self.records.nodes.borrow().clone().ok_or(AdminError::Starting)?;
        let peers = self.records.peers.borrow().clone().ok_or(AdminError::Starting)?;
        let readers = self.records.readers.borrow().clone().ok_or(AdminError::Starting)?;
        let mut found = self.source_problems.borrow().clone();
        let unreadable = nodes.unreadable.iter().chain(&peers.unreadable).chain(&readers.unreadable);
        found.extend(unreadable.map(|(key, error)| format!("the record {key} cannot be read: {error}")));

        let reports = reports(&self.own, &mut found).await?;
        let services = services(&self.own, &mut found).await?;
        let mut remote_backends = BTreeMap::new();
        for (name, peer) in &peers.records {
            self.add_backends(name, peer, &mut remote_backends).await?;
        }
        let states = self.peers.borrow().clone();
        let facts_of = |(name, record): (&ClusterName, &Peer)| {
            let state = states.get(name).map(|state| state.borrow().clone()).unwrap_or_default();
            let certificate_expires = self.keys.certificate(name).map(|certificate| certificate.expires());
            (name.clone(), PeerFacts { record: record.clone(), state, certificate_expires })
        };
        let seconds = clock.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(response(&Facts {
            cluster: self.config.cluster().clone(),
            id: self.config.origin.cluster_id,
            revision: self.own.probe().await.map(|probe| probe.revision).map_err(|error| chain(&error)),
            publishes: *self.publishes.borrow(),
            nodes: nodes.records.clone(),
            reports,
            peers: peers.records.iter().map(facts_of).collect(),
            services,
            remote_backends,
            ca_expires: self.pki.ca().expires(),
            found,
            now_seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
            now,
        }))
    }

    /// Counts the backends that a peer's services have here.
    async fn add_backends(
        &self,
        name: &ClusterName,
        peer: &Peer,
        backends: &mut BTreeMap<NamespacedName, BTreeMap<ClusterName, usize>>,
    ) -> Result<(), AdminError> {
        let max = self.config.origin.cluster_id.max_clusters();
        let Ok(cluster_id) = ClusterId::new(peer.id.into(), max) else { return Ok(()) };
        let origin = Origin { keyspace: Keyspace::cache(name.clone()), cluster_id };
        let prefix = origin.keyspace.watch_prefix(Kind::Services);
        for record in self.own.list(prefix.as_str()).await?.key_values {
            // What is in the copy was admitted; another reader would skip what it cannot read just the same.
            let Ok(RecordName::Service(service)) = origin.keyspace.parse(record.key.as_bytes()) else {
                continue;
            };
            let Ok(read) = ClusterService::decode(&origin, &service, &record.value) else { continue };
            backends.entry(service).or_default().insert(name.clone(), read.backends.len());
        }
        Ok(())
    }
}

async fn reports(
    own: &KvClient,
    found: &mut Vec<String>,
) -> Result<BTreeMap<ObjectName, NodeReport>, AdminError> {
    let mut reports = BTreeMap::new();
    for record in own.list(Area::Health.prefix().as_str()).await?.key_values {
        let key = LandbridgeKey::parse(record.key.as_bytes()).ok();
        let Some(node) = key.and_then(|key| NodeReport::node_of(&key)) else { continue };
        match NodeReport::decode(&record.key, &record.value) {
            Ok(report) => drop(reports.insert(node, report)),
            Err(error) => found.push(format!("node {node}: its report cannot be read: {}", chain(&error))),
        }
    }
    Ok(reports)
}

async fn services(
    own: &KvClient,
    found: &mut Vec<String>,
) -> Result<BTreeMap<NamespacedName, LocalService>, AdminError> {
    let prefix = LocalService::prefix();
    let mut services = BTreeMap::new();
    for record in own.list(prefix.as_str()).await?.key_values {
        let name = record.key.strip_prefix(prefix.as_str()).and_then(|name| name.split_once('/'));
        let name = name.and_then(|(namespace, name)| NamespacedName::new(namespace, name).ok());
        match (name, LocalService::decode(&record.key, &record.value)) {
            (Some(name), Ok(service)) => drop(services.insert(name, service)),
            (_, read) => {
                let why = read.err().map_or("its key holds no name".to_owned(), |error| chain(&error));
                found.push(format!("the record {} cannot be read: {why}", record.key));
            }
        }
    }
    Ok(services)
}
