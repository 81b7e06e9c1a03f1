//! All records of all clusters, as this node sees them.

mod feed;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use landbridge_bpf_maps::{Address, Endpoint, NODES_LEN, NodeEntry, NodeNumber, PolicyEntry, PolicyKey};
use landbridge_kvstore_schema::{
    ClusterConfig, ClusterId, ClusterName, Keyspace, Kind, LocalPod, LocalService, NamespacedName, Node,
    NumericIdentity, ObjectName, cluster_of_config_key,
};

use crate::ipcache::Ipcache;
use crate::node_numbers::{self, NodeNumbers};
use crate::policy::{self, Policies};
use crate::records::Records;
use crate::service::{ServiceSummary, Services};
use crate::topology::{MeshNode, NodeRef, Topology};
use crate::{Desired, Problem, Reachability, Refused};

/// Which node this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Its cluster.
    pub cluster: ClusterName,
    /// The number of its cluster.
    pub id: ClusterId,
    /// Its name there.
    pub node: ObjectName,
}

impl Local {
    pub(crate) fn is_this_node(&self, node: &NodeRef) -> bool {
        node.node == self.node && node.cluster == self.cluster
    }
}

/// A pod of this node, as its agent has set it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// Index of the node's side of the interface.
    pub interface: u32,
    /// Link-layer address of the pod's side.
    pub mac: [u8; 6],
    /// Link-layer address of the node's side.
    pub host_mac: [u8; 6],
    /// Number of the endpoint on its node.
    pub id: u16,
    /// The pod.
    pub pod: NamespacedName,
}

/// All records of all clusters, and what follows from them for this node's maps.
#[derive(Clone, Debug)]
pub struct Mesh {
    local: Local,
    /// Complete now, and complete at some time.
    complete: bool,
    was_complete: bool,
    own: Records,
    /// Other clusters, with what they say of themselves.
    peers: BTreeMap<ClusterName, Peer>,
    pods: BTreeMap<NamespacedName, LocalPod>,
    services: BTreeMap<NamespacedName, LocalService>,
    policies: Policies,
    /// Keys that are refused now, but for those that [`Records`] keeps.
    refused: BTreeMap<String, Refused>,
    endpoints: BTreeMap<IpAddr, LocalEndpoint>,
    /// The last identities of the pods in `endpoints`. A pod's record may go before the pod has ended.
    identities: BTreeMap<NamespacedName, NumericIdentity>,
    reachability: Reachability,
    numbers: NodeNumbers,
    /// The addresses of this cluster alone, for a first look at records of others; none if it has to be made again.
    own_topology: Option<Topology>,
    problems: Vec<Problem>,
}

/// Another cluster.
#[derive(Clone, Debug)]
struct Peer {
    config: Option<ClusterConfig>,
    records: Records,
}

impl Mesh {
    /// A mesh without records. `numbers` are the nodes in the maps, so that they keep their numbers.
    pub fn new(local: Local, numbers: &BTreeMap<NodeNumber, NodeEntry>) -> Self {
        Self {
            own: Records::new(Keyspace::state(local.cluster.clone()), Some(local.id)),
            local,
            complete: false,
            was_complete: false,
            peers: BTreeMap::new(),
            pods: BTreeMap::new(),
            services: BTreeMap::new(),
            policies: Policies::default(),
            refused: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            identities: BTreeMap::new(),
            reachability: Reachability::default(),
            numbers: NodeNumbers::new(numbers),
            own_topology: None,
            problems: Vec::new(),
        }
    }

    /// Says whether all keys of the own store have been read. Before they were for the first time, nothing is desired.
    pub const fn set_complete(&mut self, complete: bool) {
        self.complete = complete;
        self.was_complete |= complete;
    }

    /// Whether all keys have been read, so that what is not desired can be deleted from maps.
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// Sets the pods of this node, by address.
    pub fn set_endpoints(&mut self, endpoints: BTreeMap<IpAddr, LocalEndpoint>) {
        self.endpoints = endpoints.into_iter().map(|(ip, endpoint)| (ip.to_canonical(), endpoint)).collect();
        let pods: BTreeSet<_> = self.endpoints.values().map(|endpoint| &endpoint.pod).collect();
        self.identities.retain(|pod, _| pods.contains(pod));
        for pod in pods {
            if let Some(record) = self.pods.get(pod) {
                self.identities.insert(pod.clone(), NumericIdentity(record.identity));
            }
        }
    }

    /// Sets which nodes do not answer.
    pub fn set_reachable(&mut self, reachability: &Reachability) {
        self.reachability.clone_from(reachability);
    }

    /// What the maps should hold. Empty before the feeds were complete once.
    ///
    /// Gives numbers to nodes and policy sets that are new and remembers them. That is why it is not a question alone.
    pub fn desired(&mut self) -> Desired {
        self.problems.clear();
        if !self.was_complete {
            return Desired::default();
        }
        let topology = self.topology();
        let others: Vec<_> =
            topology.nodes().iter().filter(|node| !self.local.is_this_node(&node.name)).collect();
        let without_number = self.numbers.assign(&others, !self.complete);
        let limit = NODES_LEN - 1;
        self.problems.extend(
            without_number.into_iter().map(|node| Problem::NoNodeNumber { node: node.name.clone(), limit }),
        );
        let nodes =
            others.iter().filter_map(|node| Some((self.numbers.get(&node.name)?, node_numbers::entry(node))));
        let nodes = nodes.collect();

        let (endpoints, policy) = self.endpoints_and_policy();
        let mut ipcache = Ipcache::new(&self.local, &topology, &self.numbers);
        for (address, endpoint) in &endpoints {
            ipcache.add_endpoint(*address, endpoint.identity);
        }
        ipcache.add_nodes();
        for (cluster, records) in self.clusters() {
            ipcache.add_records(cluster, records);
        }
        let Ipcache { addresses, cidrs, problems, .. } = ipcache;

        let remote = self.peers.iter().map(|(cluster, peer)| (cluster, &peer.records)).collect();
        let services = self.service_parts(&topology, &remote);
        let (services, service_problems) = services.frontends(&self.services);

        self.problems.extend(topology.problems().iter().cloned().chain(problems).chain(service_problems));
        self.problems.extend(self.policies.problems());
        Desired { ipcache: addresses, cidrs, nodes, endpoints, policy, services }
    }

    /// What is not as its author meant it: what is refused now, and what the last [`desired`](Self::desired) had to leave
    /// out.
    pub fn problems(&self) -> Vec<Problem> {
        let mut refused: BTreeMap<(ClusterName, &'static str), (usize, String)> = BTreeMap::new();
        let mut count = |cluster: &ClusterName, reason, key: &str| {
            let entry = refused.entry((cluster.clone(), reason)).or_insert_with(|| (0, key.to_owned()));
            entry.0 += 1;
        };
        for (key, reason) in &self.refused {
            let cluster = cluster_of_config_key(key.as_bytes());
            count(cluster.as_ref().unwrap_or(&self.local.cluster), reason.reason(), key);
        }
        for (cluster, records) in self.clusters() {
            for error in records.refused() {
                count(cluster, error.rejection.reason(), &error.key);
            }
        }
        let refused = refused.into_iter().map(|((cluster, reason), (records, example))| Problem::Refused {
            cluster,
            reason,
            records,
            example,
        });
        let ids = self.peers.iter().filter(|(_, peer)| peer.records.id().is_none()).filter_map(
            |(cluster, peer)| {
                let id = peer.config.as_ref()?.id;
                let holder = self.holder(id, cluster).unwrap_or(&self.local.cluster).clone();
                Some(Problem::ClusterId { cluster: cluster.clone(), id: id.get(), holder })
            },
        );
        refused.chain(ids).chain(self.policies.unreadable()).chain(self.problems.iter().cloned()).collect()
    }

    /// The identity of a pod of this cluster, once it is known with its labels, so that policy can be decided.
    pub fn identity_of(&self, pod: &NamespacedName) -> Option<NumericIdentity> {
        let identity = NumericIdentity(self.pods.get(pod)?.identity);
        self.own.identities().contains_key(&identity).then_some(identity)
    }

    /// The record of this node.
    pub fn own_node(&self) -> Option<&Node> {
        self.own.nodes().get(&self.local.node)
    }

    /// This node, as others see it.
    pub fn this_node(&self) -> Option<MeshNode> {
        self.own_node().and_then(|node| MeshNode::new(&self.local.cluster, self.local.id, node))
    }

    /// All nodes but this one: of this cluster, then of others by name. Those that are left out are not among them.
    pub fn remote_nodes(&self) -> Vec<MeshNode> {
        let topology = self.topology();
        topology.nodes().iter().filter(|node| !self.local.is_this_node(&node.name)).cloned().collect()
    }

    /// The numbers of nodes that do not answer.
    pub fn lost_nodes(&self) -> BTreeSet<NodeNumber> {
        let topology = self.topology();
        let lost = topology.nodes().iter().filter(|node| !self.reachability.is_reachable(&node.name));
        lost.filter_map(|node| self.numbers.get(&node.name)).collect()
    }

    /// Other clusters whose nodes, identities, addresses and services have all been read.
    pub fn synced_clusters(&self) -> Vec<ClusterName> {
        const KINDS: [Kind; 4] = [Kind::Nodes, Kind::Identities, Kind::Ips, Kind::Services];
        let is_synced = |peer: &Peer| {
            peer.records.id().is_some() && KINDS.iter().all(|kind| peer.records.synced.contains(kind))
        };
        let synced = self.peers.iter().filter(|(_, peer)| self.complete && is_synced(peer));
        synced.map(|(cluster, _)| cluster.clone()).collect()
    }

    /// Each service of this cluster, and who serves it.
    pub fn services(&self) -> Vec<ServiceSummary> {
        let topology = self.topology();
        let remote = self.peers.iter().map(|(cluster, peer)| (cluster, &peer.records)).collect();
        let services = self.service_parts(&topology, &remote);
        self.services.iter().map(|(name, service)| services.summary(name, service)).collect()
    }

    /// This cluster, then others by name.
    fn clusters(&self) -> impl Iterator<Item = (&ClusterName, &Records)> {
        let peers = self.peers.iter().map(|(cluster, peer)| (cluster, &peer.records));
        std::iter::once((&self.local.cluster, &self.own)).chain(peers)
    }

    fn topology(&self) -> Topology {
        let nodes = self.clusters().flat_map(|(cluster, records)| {
            records.nodes().values().filter_map(move |node| Some((cluster, records.id()?, node)))
        });
        let is_this = |cluster: &ClusterName, node: &Node| {
            *cluster == self.local.cluster && node.name == self.local.node
        };
        let this = self.own_node().map(|node| (&self.local.cluster, self.local.id, node));
        let nodes = this.into_iter().chain(nodes.filter(|(cluster, _, node)| !is_this(cluster, node)));
        Topology::new(&self.local.cluster, self.service_addresses(), nodes)
    }

    fn service_parts<'a>(
        &'a self,
        topology: &'a Topology,
        remote: &'a BTreeMap<&'a ClusterName, &'a Records>,
    ) -> Services<'a> {
        let Self { local, own, reachability, .. } = self;
        Services { local, topology, own, remote, reachability }
    }

    /// Addresses of this cluster's services.
    fn service_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.services.values().flat_map(|service| service.addresses.iter().copied())
    }

    /// This node's pods, and the entries of the policy sets that they use.
    fn endpoints_and_policy(&mut self) -> (BTreeMap<Address, Endpoint>, BTreeMap<PolicyKey, PolicyEntry>) {
        let mut subjects = BTreeMap::new();
        // A pod with two addresses is one problem.
        let mut problems = BTreeSet::new();
        for endpoint in self.endpoints.values() {
            let Some(identity) = self.identities.get(&endpoint.pod) else {
                problems.insert(Problem::UnknownPod { pod: endpoint.pod.clone() });
                continue;
            };
            let labels = self.own.identities().get(identity);
            if labels.is_none() {
                let pod = endpoint.pod.clone();
                problems.insert(Problem::UnknownLabels { pod, identity: identity.0 });
            }
            subjects.insert(*identity, labels);
        }
        self.problems.extend(problems);
        let peers = self.peers.iter().map(|(cluster, peer)| (cluster, &peer.records));
        let clusters = || std::iter::once((&self.local.cluster, &self.own)).chain(peers.clone());
        let known = policy::Mesh {
            local: self.local.id,
            clusters: clusters().filter_map(|(cluster, records)| Some((cluster, records.id()?))).collect(),
            identities: clusters()
                .flat_map(|(_, records)| {
                    records.identities().iter().map(|(identity, labels)| (*identity, labels))
                })
                .collect(),
        };
        let (enforced, policy) = self.policies.enforce(&subjects, &known);
        let endpoints = self.endpoints.iter().filter_map(|(ip, endpoint)| {
            let identity = self.identities.get(&endpoint.pod)?;
            let sets = enforced.get(identity)?;
            let entry = Endpoint {
                interface: endpoint.interface,
                identity: identity.0,
                ingress: sets.ingress,
                egress: sets.egress,
                mac: endpoint.mac,
                host_mac: endpoint.host_mac,
                id: endpoint.id,
                port_prefixes: sets.port_prefixes,
                ingress_lacks: sets.ingress_lacks,
                egress_lacks: sets.egress_lacks,
            };
            Some((Address::from(*ip), entry))
        });
        (endpoints.collect(), policy)
    }
}
