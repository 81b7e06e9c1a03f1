//! Changes of keys, and what they are about.

use landbridge_kvstore_schema::{
    Canary, ClusterConfig, ClusterId, ClusterName, KeyError, Keyspace, Kind, LandbridgeKey, Layout,
    NamespacedName, NumericIdentity, RecordName, cluster_of_config_key,
};

use super::{Mesh, Peer};
use crate::Refused;
use crate::ranges::Range;
use crate::records::{Records, own_record};
use crate::topology::{Claim, MeshNode, Topology};

/// The parts of the store that agents read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Folder {
    State,
    Cache,
    ClusterConfig,
    Synced,
    Local,
}

impl Folder {
    fn of(key: &str) -> Option<Self> {
        let mut segments = key.split('/');
        match (segments.next()?, segments.next()?) {
            ("cilium", "state") => Some(Self::State),
            ("cilium", "cache") => Some(Self::Cache),
            ("cilium", "cluster-config") => Some(Self::ClusterConfig),
            ("cilium", "synced") => Some(Self::Synced),
            ("landbridge", "local") => Some(Self::Local),
            _ => None,
        }
    }
}

impl Mesh {
    /// One key of the own store has changed; without a value it was deleted. Keys that agents do not read are ignored.
    ///
    /// # Errors
    /// [`Refused`], for the log. A record that is refused counts as absent, whatever was there before, until its key
    /// changes again or what it was refused for is no longer so. A policy that cannot be read closes what it may be about.
    pub fn apply(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), Refused> {
        self.refused.remove(key);
        let applied = match Folder::of(key) {
            Some(Folder::State) => self.apply_own(key, value),
            Some(Folder::Cache) => self.apply_cached(key, value),
            Some(Folder::ClusterConfig) => self.apply_config(key, value),
            Some(Folder::Synced) => self.apply_canary(key, value),
            Some(Folder::Local) => self.apply_local(key, value),
            None => Ok(()),
        };
        if value.is_none() {
            // A key that could not be read is none any more.
            return Ok(());
        }
        applied.inspect_err(|refused| {
            let is_counted_elsewhere = match refused {
                Refused::Record(_) => matches!(Folder::of(key), Some(Folder::State | Folder::Cache)),
                Refused::Claim { .. } | Refused::ClusterId { .. } => true,
                _ => false,
            };
            if !is_counted_elsewhere {
                self.refused.insert(key.to_owned(), refused.clone());
            }
        })
    }

    fn apply_own(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), Refused> {
        let Some(name) = parsed(&Keyspace::state(self.local.cluster.clone()), key)? else { return Ok(()) };
        self.note_change(&name);
        if name.kind() == Kind::Nodes {
            self.own_topology = None;
        }
        Ok(self.own.apply(name, value)?)
    }

    fn apply_cached(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), Refused> {
        // cilium/cache/<kind>/v1/<cluster>/…
        let Some(cluster) = key.split('/').nth(4) else { return Ok(()) };
        let cluster =
            ClusterName::new(cluster).map_err(|_| Refused::Name { key: key.to_owned(), part: "cluster" })?;
        if cluster == self.local.cluster {
            return Err(Refused::OwnCluster { key: key.to_owned() });
        }
        let keyspace = Keyspace::cache(cluster.clone());
        let Some(name) = parsed(&keyspace, key)? else { return Ok(()) };
        self.note_change(&name);
        self.peer(&cluster).records.apply(name.clone(), value)?;
        self.forget_if_empty(&cluster);
        if value.is_some() { self.check_claim(&cluster, key, &name) } else { Ok(()) }
    }

    fn apply_config(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), Refused> {
        let cluster = cluster_of_config_key(key.as_bytes())?;
        if cluster == self.local.cluster {
            return Ok(());
        }
        let decoded = value
            .map(|value| ClusterConfig::decode(&cluster, self.local.id.max_clusters(), value))
            .transpose();
        self.peer(&cluster).config = decoded.as_ref().ok().cloned().flatten();
        self.policies.forget_resolved();
        self.set_ids();
        self.forget_if_empty(&cluster);
        let Some(ClusterConfig { id, .. }) = decoded? else { return Ok(()) };
        match self.holder(id, &cluster) {
            Some(holder) => Err(Refused::ClusterId { holder: holder.clone(), cluster, id }),
            None => Ok(()),
        }
    }

    fn apply_canary(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), Refused> {
        let canary = match Canary::parse(key.as_bytes()) {
            Ok(canary) => canary,
            Err(KeyError::Elsewhere { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let cluster = canary.keyspace.cluster;
        if cluster == self.local.cluster || canary.keyspace.layout != Layout::Cache {
            return Ok(());
        }
        let synced = &mut self.peer(&cluster).records.synced;
        if value.is_some() {
            synced.insert(canary.kind);
        } else {
            synced.remove(&canary.kind);
            self.forget_if_empty(&cluster);
        }
        Ok(())
    }

    fn apply_local(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), Refused> {
        let parsed = LandbridgeKey::parse(key.as_bytes())?;
        let segments: Vec<_> = parsed.segments().collect();
        let [folder @ ("pods" | "services" | "policies"), namespace, name] = segments[..] else {
            return Ok(());
        };
        let name = NamespacedName::new(namespace, name)
            .map_err(|_| Refused::Name { key: key.to_owned(), part: "object" })?;
        match folder {
            "pods" => self.apply_pod(name, key, value),
            "services" => self.apply_service(&name, key, value),
            _ => Ok(self.policies.apply(name, key, value)?),
        }
    }

    fn apply_service(
        &mut self,
        name: &NamespacedName,
        key: &str,
        value: Option<&[u8]>,
    ) -> Result<(), Refused> {
        let addresses = |mesh: &Self| mesh.services.get(name).map(|service| service.addresses.clone());
        let before = addresses(self);
        let applied = own_record(&mut self.services, name.clone(), key, value);
        if addresses(self) != before {
            self.own_topology = None;
        }
        Ok(applied?)
    }

    fn apply_pod(&mut self, name: NamespacedName, key: &str, value: Option<&[u8]>) -> Result<(), Refused> {
        own_record(&mut self.pods, name.clone(), key, value)?;
        let Some(pod) = self.pods.get(&name) else { return Ok(()) };
        let identity = NumericIdentity(pod.identity);
        if !self.local.id.owns(identity) {
            self.pods.remove(&name);
            return Err(Refused::PodIdentity { key: key.to_owned(), identity, cluster: self.local.id });
        }
        if self.endpoints.values().any(|endpoint| endpoint.pod == name) {
            self.identities.insert(name, identity);
        }
        Ok(())
    }

    /// Refuses records that take an address of this cluster. They are kept, and left out wherever they would count, since
    /// what they take may be given up.
    fn check_claim(&mut self, cluster: &ClusterName, key: &str, name: &RecordName) -> Result<(), Refused> {
        let own = self.own_topology.take().unwrap_or_else(|| {
            let nodes = self.own.nodes().values().map(|node| (&self.local.cluster, self.local.id, node));
            Topology::new(&self.local.cluster, self.service_addresses(), nodes)
        });
        let claims: Vec<(Range, String)> = match (name, self.peers.get(cluster)) {
            (RecordName::Ip(ip), _) => vec![(Range::prefix(ip.covered()), ip.to_string())],
            (RecordName::Node(node), Some(Peer { records, .. })) => records
                .id()
                .zip(records.nodes().get(node))
                .and_then(|(id, node)| MeshNode::new(cluster, id, node))
                .map(|node| node.claims().collect())
                .unwrap_or_default(),
            (RecordName::Service(service), Some(Peer { records, .. })) => records
                .services()
                .get(service)
                .map(|service| {
                    service.backends.keys().map(|ip| (Range::address(*ip), ip.to_string())).collect()
                })
                .unwrap_or_default(),
            _ => Vec::new(),
        };
        let taken = claims.into_iter().find_map(|(range, address)| match own.claim(cluster, range) {
            Claim::Foreign(owner) => Some((address, owner)),
            Claim::Own(_) | Claim::Free => None,
        });
        self.own_topology = Some(own);
        taken.map_or(Ok(()), |(address, owner)| Err(Refused::Claim { key: key.to_owned(), address, owner }))
    }

    /// Policy that was resolved with other identities is resolved again.
    fn note_change(&mut self, name: &RecordName) {
        if name.kind() == Kind::Identities {
            self.policies.forget_resolved();
        }
    }

    fn peer(&mut self, cluster: &ClusterName) -> &mut Peer {
        self.peers.entry(cluster.clone()).or_insert_with(|| Peer {
            config: None,
            records: Records::new(Keyspace::cache(cluster.clone()), None),
        })
    }

    fn forget_if_empty(&mut self, cluster: &ClusterName) {
        if self.peers.get(cluster).is_some_and(|peer| peer.config.is_none() && peer.records.is_empty()) {
            self.peers.remove(cluster);
        }
    }

    /// Who has the number that `cluster` wants, if it is not `cluster` itself: this cluster, or the first by name.
    pub(super) fn holder(&self, id: ClusterId, cluster: &ClusterName) -> Option<&ClusterName> {
        if id == self.local.id {
            return Some(&self.local.cluster);
        }
        let mut wanted =
            self.peers.iter().filter(|(_, peer)| peer.config.as_ref().is_some_and(|config| config.id == id));
        wanted.next().map(|(name, _)| name).filter(|name| *name != cluster)
    }

    /// Each cluster gets the number that its config says, unless that is taken.
    fn set_ids(&mut self) {
        let ids: Vec<_> = self
            .peers
            .iter()
            .map(|(cluster, peer)| {
                let id = peer.config.as_ref().map(|config| config.id);
                id.filter(|id| self.holder(*id, cluster).is_none())
            })
            .collect();
        for (peer, id) in self.peers.values_mut().zip(ids) {
            peer.records.set_id(id);
        }
    }
}

/// The name of the record at `key`; none if it is no record of this schema.
fn parsed(keyspace: &Keyspace, key: &str) -> Result<Option<RecordName>, KeyError> {
    match keyspace.parse(key.as_bytes()) {
        Ok(name) => Ok(Some(name)),
        Err(KeyError::Elsewhere { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
