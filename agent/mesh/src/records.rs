//! The records of one cluster, read as far as they can be.
//!
//! ```text
//!            no id yet            id known
//! value ───► waiting ────────────► decoded ─► nodes, identities, ips, services
//!               ▲                    └ refused ─┐
//!               └───────────────────────────────┘  read again when the id changes
//! ```
//!
//! A record can come before the config that says how to read it; which of the two came first makes no difference.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use landbridge_kvstore_schema::{
    ClusterId, ClusterService, Identity, IpIdentityPair, IpOrPrefix, Keyspace, Kind, Labels, NamespacedName,
    Node, NumericIdentity, ObjectName, Origin, OwnRecord, RecordError, RecordName,
};

/// The records of one cluster. None of them is read while its id is not known.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    keyspace: Keyspace,
    id: Option<ClusterId>,
    nodes: BTreeMap<ObjectName, Node>,
    identities: BTreeMap<NumericIdentity, Labels>,
    ips: BTreeMap<IpOrPrefix, IpOwner>,
    services: BTreeMap<NamespacedName, ClusterService>,
    /// Values that could not be read, and why; no reason while the id is not known.
    waiting: BTreeMap<RecordName, (Vec<u8>, Option<RecordError>)>,
    /// Kinds whose records are all there.
    pub(crate) synced: BTreeSet<Kind>,
}

/// Who has an address: the part of an [`IpIdentityPair`] that decides something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IpOwner {
    pub(crate) identity: NumericIdentity,
    pub(crate) host: Option<IpAddr>,
}

impl Records {
    pub(crate) const fn new(keyspace: Keyspace, id: Option<ClusterId>) -> Self {
        Self {
            keyspace,
            id,
            nodes: BTreeMap::new(),
            identities: BTreeMap::new(),
            ips: BTreeMap::new(),
            services: BTreeMap::new(),
            waiting: BTreeMap::new(),
            synced: BTreeSet::new(),
        }
    }

    pub(crate) const fn id(&self) -> Option<ClusterId> {
        self.id
    }

    pub(crate) const fn nodes(&self) -> &BTreeMap<ObjectName, Node> {
        &self.nodes
    }

    pub(crate) const fn identities(&self) -> &BTreeMap<NumericIdentity, Labels> {
        &self.identities
    }

    pub(crate) const fn ips(&self) -> &BTreeMap<IpOrPrefix, IpOwner> {
        &self.ips
    }

    pub(crate) const fn services(&self) -> &BTreeMap<NamespacedName, ClusterService> {
        &self.services
    }

    /// Records that are refused now.
    pub(crate) fn refused(&self) -> impl Iterator<Item = &RecordError> {
        self.waiting.values().filter_map(|(_, reason)| reason.as_ref())
    }

    /// Whether nothing is left of the cluster.
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
            && self.identities.is_empty()
            && self.ips.is_empty()
            && self.services.is_empty()
            && self.waiting.is_empty()
            && self.synced.is_empty()
    }

    /// Takes a record, or its deletion.
    ///
    /// # Errors
    /// [`RecordError`] if it is refused; it then counts as absent.
    pub(crate) fn apply(&mut self, name: RecordName, value: Option<&[u8]>) -> Result<(), RecordError> {
        self.remove(&name);
        let Some(value) = value else { return Ok(()) };
        let Some(cluster_id) = self.id else {
            self.waiting.insert(name, (value.to_vec(), None));
            return Ok(());
        };
        let origin = Origin { keyspace: self.keyspace.clone(), cluster_id };
        self.insert(&origin, &name, value).inspect_err(|error| {
            self.waiting.insert(name, (value.to_vec(), Some(error.clone())));
        })
    }

    /// Sets the number that the cluster's records have to have, and reads all of them again if it is another.
    pub(crate) fn set_id(&mut self, id: Option<ClusterId>) {
        if self.id == id {
            return;
        }
        let values = self.take_values();
        self.id = id;
        for (name, value) in values {
            // Those that are refused wait, with the reason.
            let _ = self.apply(name, Some(&value));
        }
    }

    fn insert(&mut self, origin: &Origin, name: &RecordName, value: &[u8]) -> Result<(), RecordError> {
        match name {
            RecordName::Node(node) => {
                self.nodes.insert(node.clone(), Node::decode(origin, node, value)?);
            }
            RecordName::Identity(number) => {
                let identity = Identity::decode(origin, *number, value)?;
                self.identities.insert(*number, identity.labels().clone());
            }
            RecordName::Ip(ip) => {
                let pair = IpIdentityPair::decode(origin, *ip, value)?;
                self.ips.insert(*ip, IpOwner { identity: pair.identity, host: pair.host_ip });
            }
            RecordName::Service(service) => {
                self.services.insert(service.clone(), ClusterService::decode(origin, service, value)?);
            }
            // Endpoint slices repeat what services say; exports are for whoever makes imports of them.
            RecordName::EndpointSlice(_) | RecordName::ServiceExport(_) => {}
        }
        Ok(())
    }

    fn remove(&mut self, name: &RecordName) {
        self.waiting.remove(name);
        match name {
            RecordName::Node(node) => drop(self.nodes.remove(node)),
            RecordName::Identity(number) => drop(self.identities.remove(number)),
            RecordName::Ip(ip) => drop(self.ips.remove(ip)),
            RecordName::Service(service) => drop(self.services.remove(service)),
            RecordName::EndpointSlice(_) | RecordName::ServiceExport(_) => {}
        }
    }

    /// Takes out everything, as values. A cluster seldom changes its id, so that the values of records which are in are
    /// not kept but written again.
    fn take_values(&mut self) -> Vec<(RecordName, Vec<u8>)> {
        let waiting = std::mem::take(&mut self.waiting).into_iter().map(|(name, (value, _))| (name, value));
        let mut values: Vec<_> = waiting.collect();
        let Some(cluster_id) = self.id else { return values };
        let origin = Origin { keyspace: self.keyspace.clone(), cluster_id };
        let nodes = std::mem::take(&mut self.nodes).into_values();
        values.extend(nodes.map(|node| (node.record_name(), node.encode(&origin))));
        let identities = std::mem::take(&mut self.identities).into_iter();
        values.extend(
            identities
                .map(|(number, labels)| (RecordName::Identity(number), labels.to_string().into_bytes())),
        );
        let ips = std::mem::take(&mut self.ips).into_iter();
        values.extend(ips.map(|(ip, owner)| (RecordName::Ip(ip), owner.pair(ip).encode())));
        let services = std::mem::take(&mut self.services).into_values();
        values.extend(services.map(|service| (service.record_name(), service.encode(&origin))));
        values
    }
}

impl IpOwner {
    fn pair(self, ip: IpOrPrefix) -> IpIdentityPair {
        IpIdentityPair {
            ip,
            host_ip: self.host,
            identity: self.identity,
            encryption_key: 0,
            metadata: String::new(),
            namespace: String::new(),
            pod_name: String::new(),
            service_account: String::new(),
            named_ports: Vec::new(),
        }
    }
}

/// Takes a record of this cluster, or its deletion.
pub(crate) fn own_record<T: OwnRecord>(
    records: &mut BTreeMap<NamespacedName, T>,
    name: NamespacedName,
    key: &str,
    value: Option<&[u8]>,
) -> Result<(), RecordError> {
    records.remove(&name);
    if let Some(value) = value {
        records.insert(name, T::decode(key, value)?);
    }
    Ok(())
}
