//! All records that a cluster publishes of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::SystemTime;

use landbridge_kvstore_schema::{
    AddressType, Capabilities, ClusterConfig, EndpointSlicesExportMode, Identity, IpIdentityPair, IpOrPrefix,
    Kind, Labels, LocalPod, LocalService, Node as NodeRecord, NodeAddress, Origin, OwnRecord, Policy,
    RecordName, SharedFacts, cluster_config_key, pod_range_key, rfc3339, service_address_key,
};

use super::policies::policy_records;
use super::services::served;
use crate::identities::{Allocation, labels_of};
use crate::objects::fill_in::{Kept, Ranges};
use crate::objects::{Node, Objects, Pod};

/// What is true of a cluster whatever it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterFacts {
    /// Name, number and keys; in [`Layout::State`](landbridge_kvstore_schema::Layout::State).
    pub origin: Origin,
    /// Version of the apiserver.
    pub version: String,
    /// What can be given to services and nodes.
    pub ranges: Ranges,
}

/// The outcome of [`records`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Values by key.
    pub records: BTreeMap<String, Vec<u8>>,
    /// What could not be published, a sentence each.
    pub problems: Vec<String>,
}

/// The kinds of records that are published, each with a canary.
const KINDS: [Kind; 4] = [Kind::Nodes, Kind::Identities, Kind::Ips, Kind::Services];

/// The sets of labels that pods of `objects` have. A pod whose labels cannot stand in a record has none.
pub fn wanted_identities(objects: &Objects, facts: &ClusterFacts) -> BTreeSet<Labels> {
    let pods = objects.pods.values().filter(|pod| pod.has_own_network());
    pods.filter_map(|pod| labels(objects, facts, pod).ok()).collect()
}

/// Everything that the cluster publishes but canaries and heartbeat, by key. `objects` are complete, and every set of
/// labels of [`wanted_identities`] has a number in `allocation` if there was one left.
pub fn records(objects: &Objects, kept: &Kept, allocation: &Allocation, facts: &ClusterFacts) -> Published {
    let mut writer = Writer { facts, published: Published::default() };
    writer.facts();
    writer.kept(kept);
    for (number, labels) in allocation.iter() {
        match Identity::new(&facts.origin, number, labels.clone()) {
            Ok(identity) => writer.record(&identity.name(), identity.encode()),
            Err(error) => writer.problem(format!("identity {number} is not published: {error}")),
        }
    }
    for node in objects.nodes.values() {
        writer.node(node);
    }
    writer.pods(objects, allocation);
    for (name, service) in served(objects) {
        writer.own(&LocalService::key(name), &service.local());
        let may_leave = objects.namespaces.get(&name.namespace).is_none_or(|namespace| namespace.global);
        if let Some(exported) = service.exported().filter(|_| may_leave) {
            writer.record(&exported.record_name(), exported.encode(&facts.origin));
        }
    }
    for policy in objects.policies.values() {
        for (name, rule) in policy_records(policy, &facts.origin.keyspace.cluster) {
            writer.own(&Policy::key(&name), &rule);
        }
    }
    writer.published
}

/// The canaries: their keys are to exist, whatever their values. They come after all records.
pub fn canaries(facts: &ClusterFacts, now: SystemTime) -> BTreeMap<String, Vec<u8>> {
    let canary = |kind| (facts.origin.keyspace.canary(kind), rfc3339(now).into_bytes());
    KINDS.into_iter().map(canary).collect()
}

fn labels(
    objects: &Objects,
    facts: &ClusterFacts,
    pod: &Pod,
) -> Result<Labels, landbridge_kvstore_schema::InvalidLabel> {
    labels_of(pod, &objects.namespace_labels(&pod.name.namespace), &facts.origin.keyspace.cluster)
}

struct Writer<'a> {
    facts: &'a ClusterFacts,
    published: Published,
}

impl Writer<'_> {
    fn record(&mut self, name: &RecordName, value: Vec<u8>) {
        self.published.records.insert(self.facts.origin.keyspace.key(name), value);
    }

    fn own(&mut self, key: &landbridge_kvstore_schema::LandbridgeKey, record: &impl OwnRecord) {
        self.published.records.insert(key.to_string(), record.encode());
    }

    fn problem(&mut self, problem: String) {
        self.published.problems.push(problem);
    }

    fn facts(&mut self) {
        let Origin { keyspace, cluster_id } = &self.facts.origin;
        let config = ClusterConfig {
            id: *cluster_id,
            capabilities: Capabilities {
                synced_canaries: true,
                cached: false,
                max_connected_clusters: cluster_id.max_clusters().get().into(),
                service_exports_enabled: Some(false),
                endpoint_slices_export_mode: EndpointSlicesExportMode::ServicesOnly,
            },
        };
        self.published.records.insert(cluster_config_key(&keyspace.cluster), config.encode());
        let pod_ranges = self.facts.ranges.pods.clone();
        self.own(&SharedFacts::key(), &SharedFacts { version: self.facts.version.clone(), pod_ranges });
    }

    fn kept(&mut self, kept: &Kept) {
        let addresses = kept.service_addresses.iter();
        let addresses = addresses.map(|(name, address)| (service_address_key(name), address.to_string()));
        let ranges = kept.pod_ranges.iter().map(|(node, range)| (pod_range_key(node), range.to_string()));
        let texts = addresses.chain(ranges).map(|(key, text)| (key.to_string(), text.into_bytes()));
        self.published.records.extend(texts);
    }

    fn node(&mut self, node: &Node) {
        if node.internal_ip().is_none() {
            self.problem(format!(
                "node {} has no InternalIP, so that its pods are not reached: write it into status.addresses",
                node.name
            ));
        }
        let routers = node.router().map(IpAddr::V4).into_iter().chain(node.router6().map(IpAddr::V6));
        let routers = routers.map(|ip| NodeAddress { address_type: AddressType::CiliumInternalIp, ip });
        let record = NodeRecord {
            name: node.name.clone(),
            addresses: node.addresses.iter().cloned().chain(routers).collect(),
            ipv4_pod_cidrs: node.pod_range.into_iter().collect(),
            ipv6_pod_cidrs: node.pod_range6.into_iter().collect(),
            ipv4_health: node.health(),
            ipv6_health: node.health6(),
            ipv4_ingress: None,
            ipv6_ingress: None,
            encryption_key: 0,
            labels: node.labels.clone(),
            annotations: BTreeMap::new(),
            wireguard_public_key: String::new(),
            boot_id: node.boot_id.clone(),
        };
        self.record(&record.record_name(), record.encode(&self.facts.origin));
    }

    /// Of several pods with one address the first one has it that is not on its way out.
    fn pods(&mut self, objects: &Objects, allocation: &Allocation) {
        let mut owners: BTreeMap<IpAddr, &Pod> = BTreeMap::new();
        let mut pods: Vec<&Pod> = objects.pods.values().filter(|pod| pod.has_own_network()).collect();
        pods.sort_by_key(|pod| pod.readiness.terminating);
        for pod in pods {
            let labels = match labels(objects, self.facts, pod) {
                Ok(labels) => labels,
                Err(error) => {
                    self.problem(format!("pod {} is not published: {error}", pod.name));
                    continue;
                }
            };
            // All numbers are given out: said once, by whoever gives them out.
            let Some(identity) = allocation.number(&labels) else { continue };
            let Some(node) = &pod.node else { continue };
            let local = LocalPod { node: node.clone(), identity: identity.0, uid: pod.uid.clone() };
            self.own(&LocalPod::key(&pod.name), &local);
            let Some(host) = objects.nodes.get(node) else {
                self.problem(format!(
                    "pod {} is on node {node}, which is not known: declare the Node, or correct spec.nodeName",
                    pod.name
                ));
                continue;
            };
            let Some(host_ip) = host.internal_ip() else { continue }; // told of the node
            for address in &pod.addresses {
                if let Some(owner) = owners.get(address) {
                    let (name, owner) = (&pod.name, &owner.name);
                    self.problem(format!("pod {name} has address {address}, which pod {owner} has already"));
                    continue;
                }
                owners.insert(*address, pod);
                let pair = IpIdentityPair {
                    ip: IpOrPrefix::address(*address),
                    host_ip: Some(host_ip),
                    identity,
                    encryption_key: 0,
                    metadata: String::new(),
                    namespace: pod.name.namespace.to_string(),
                    pod_name: pod.name.name.to_string(),
                    service_account: pod.service_account.clone(),
                    named_ports: Vec::new(),
                };
                self.record(&pair.record_name(), pair.encode());
            }
        }
    }
}
