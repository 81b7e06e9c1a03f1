//! Frontends of services, and the backends of all clusters behind them.
//!
//! ```text
//! LocalService ─ frontends: addresses × ports ──────────────────┐
//!      └ backends ─┐                                            ▼
//!                  ├─ matched by port name ─► tiers ─ first that is not empty ─► ServiceSpec
//! ClusterService ──┘  (same namespace and name, if the local one is global)
//!      └ backends
//! ```
//!
//! The tiers, best first. A backend is *up* if it takes new connections, *draining* if it serves on its way out. The same
//! three come again, behind the first ones, for backends whose node does not answer: the last resort.
//!
//! | affinity | 1 | 2 | 3 | 4 to 6 |
//! |---|---|---|---|---|
//! | none, or not global | all up | | draining | as 1 to 3, on nodes that do not answer |
//! | local | local up | remote up | draining | |
//! | remote | remote up | local up | draining | |
//!
//! Where clusters have weights, those without one are behind the others: they are in tier 2.
//!
//! Records of other clusters do not say whether a backend drains (Cilium, `ClusterService`): theirs are always up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU16;

use landbridge_bpf_maps::{Address, Algorithm, Backend, ServiceKey, ServiceSettings};
use landbridge_kvstore_schema::{
    Affinity, BalanceAlgorithm, ClusterName, ClusterService, LocalBackend, LocalPort, LocalService,
    NamespacedName, Protocol,
};

use crate::ipcache::node_of;
use crate::records::Records;
use crate::shares::shared_out;
use crate::topology::{NodeRef, Topology};
use crate::{Local, Problem, Reachability, ServiceSpec};

/// A service of this cluster, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSummary {
    /// Its name.
    pub name: NamespacedName,
    /// Its addresses; none if it is headless.
    pub addresses: Vec<IpAddr>,
    /// Whether backends of other clusters belong to it.
    pub global: bool,
    /// Which backends come first; has no effect on a service that is not global.
    pub affinity: Affinity,
    /// How many backends each cluster has.
    pub backends: BTreeMap<ClusterName, BackendCount>,
}

/// Backends of one cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendCount {
    /// All that serve, also on their way out.
    pub known: usize,
    /// Those that take new connections and are on a node that answers.
    pub healthy: usize,
}

/// What services are made of.
pub(crate) struct Services<'a> {
    pub(crate) local: &'a Local,
    pub(crate) topology: &'a Topology,
    pub(crate) own: &'a Records,
    /// Records of other clusters.
    pub(crate) remote: &'a BTreeMap<&'a ClusterName, &'a Records>,
    pub(crate) reachability: &'a Reachability,
}

/// A backend with what its tier depends on, and its ports by name.
struct Candidate<'a> {
    cluster: u16,
    /// The share of its cluster, if clusters have shares.
    weight: Option<u32>,
    is_local: bool,
    is_draining: bool,
    is_lost: bool,
    address: IpAddr,
    ports: Vec<(&'a str, Protocol, NonZeroU16)>,
}

/// The tiers of the table at the top.
const TIERS: usize = 6;

impl<'a> Services<'a> {
    /// All frontends of `services`, and what is wrong with some.
    pub(crate) fn frontends(
        &self,
        services: &'a BTreeMap<NamespacedName, LocalService>,
    ) -> (BTreeMap<ServiceKey, ServiceSpec>, Vec<Problem>) {
        let mut frontends: BTreeMap<ServiceKey, ServiceSpec> = BTreeMap::new();
        let mut holders: BTreeMap<ServiceKey, &NamespacedName> = BTreeMap::new();
        let mut numbers = BTreeSet::new();
        let mut problems = Vec::new();
        let mut claims: BTreeMap<ClusterName, (usize, String)> = BTreeMap::new();
        for (name, service) in services {
            let settings = ServiceSettings {
                service: service_number(name, &mut numbers),
                algorithm: algorithm(service.balance.algorithm),
                affinity_seconds: service.balance.session_affinity_seconds,
            };
            let candidates = self.candidates(name, service, |cluster, address| {
                claims
                    .entry(cluster.clone())
                    .or_insert_with(|| (0, format!("{address} of service {name}")))
                    .0 += 1;
            });
            for (address, port) in
                service.addresses.iter().flat_map(|ip| service.ports.iter().map(move |p| (*ip, p)))
            {
                for protocol in numbers_of(port.protocol) {
                    let key = ServiceKey {
                        address: Address::from(address.to_canonical()),
                        port: port.port.get().to_be_bytes(),
                        protocol: *protocol,
                        scope: 0,
                    };
                    if let Some(holder) = holders.get(&key) {
                        if *holder != name {
                            let address = format!("{address} port {} {}", port.port, port.protocol);
                            let (service, holder) = (name.clone(), (*holder).clone());
                            problems.push(Problem::FrontendTaken { service, address, holder });
                        }
                        continue;
                    }
                    holders.insert(key, name);
                    let backends = backends(service, address, port, *protocol, &candidates);
                    frontends.insert(key, ServiceSpec { settings, backends });
                }
            }
        }
        problems.extend(claims.into_iter().map(|(cluster, (addresses, example))| Problem::AddressClaims {
            cluster,
            addresses,
            example,
        }));
        (frontends, problems)
    }

    /// Who serves `service`.
    pub(crate) fn summary(&self, name: &NamespacedName, service: &LocalService) -> ServiceSummary {
        let mut backends: BTreeMap<ClusterName, BackendCount> = BTreeMap::new();
        for candidate in self.candidates(name, service, |_, _| ()) {
            let remote = self.remote.iter().find(|(_, records)| {
                !candidate.is_local && records.id().is_some_and(|id| id.get() == candidate.cluster)
            });
            let cluster = remote.map_or(&self.local.cluster, |(cluster, _)| *cluster);
            let count = backends.entry(cluster.clone()).or_default();
            count.known += 1;
            count.healthy += usize::from(!candidate.is_draining && !candidate.is_lost);
        }
        ServiceSummary {
            name: name.clone(),
            addresses: service.addresses.clone(),
            global: service.global,
            affinity: service.affinity,
            backends,
        }
    }

    /// All backends that `service` can have. `claimed` is told of those whose address belongs to another cluster.
    fn candidates<'s>(
        &'s self,
        name: &NamespacedName,
        service: &'s LocalService,
        mut claimed: impl FnMut(&ClusterName, IpAddr),
    ) -> Vec<Candidate<'s>> {
        let weights = Some(&service.balance.weights);
        let weights = weights.filter(|weights| service.global && !weights.is_empty());
        let weight = |cluster: &ClusterName| Some(weights?.get(cluster).copied().unwrap_or_default());
        let own_weight = weight(&self.local.cluster);
        let local = service.backends.iter().filter_map(|(ip, backend)| {
            Some(Candidate { weight: own_weight, ..self.local_candidate(*ip, backend)? })
        });
        let mut candidates: Vec<_> = local.collect();
        for (cluster, records) in self.remote.iter().filter(|_| service.global) {
            let Some((id, ClusterService { backends, .. })) = records.id().zip(records.services().get(name))
            else {
                continue;
            };
            for (address, backend) in backends {
                let Ok(node) = node_of(self.topology, cluster, records, *address) else {
                    claimed(cluster, *address);
                    continue;
                };
                candidates.push(Candidate {
                    cluster: id.get(),
                    weight: weight(cluster),
                    is_local: false,
                    is_draining: false,
                    is_lost: node.is_some_and(|node| !self.reachability.is_reachable(node)),
                    address: *address,
                    ports: backend
                        .ports
                        .iter()
                        .map(|(name, port)| (name.as_str(), port.protocol, port.port))
                        .collect(),
                });
            }
        }
        candidates
    }

    fn local_candidate<'s>(&self, address: IpAddr, backend: &'s LocalBackend) -> Option<Candidate<'s>> {
        let is_draining = !backend.ready;
        if is_draining && !(backend.serving && backend.terminating) {
            return None;
        }
        let address = address.to_canonical();
        let named = backend.node.clone().map(|node| NodeRef { cluster: self.local.cluster.clone(), node });
        let found = || node_of(self.topology, &self.local.cluster, self.own, address).ok().flatten().cloned();
        let node = named.or_else(found).filter(|node| !self.local.is_this_node(node));
        Some(Candidate {
            cluster: self.local.id.get(),
            weight: None,
            is_local: true,
            is_draining,
            is_lost: node.is_some_and(|node| !self.reachability.is_reachable(&node)),
            address,
            ports: backend
                .ports
                .iter()
                .map(|(name, port)| (name.as_str(), port.protocol, port.port))
                .collect(),
        })
    }
}

/// Address and port, network byte order.
type Place = (Address, [u8; 2]);

/// The backends of one frontend: those of the best tier that has any.
fn backends(
    service: &LocalService,
    address: IpAddr,
    port: &LocalPort,
    protocol: u8,
    candidates: &[Candidate<'_>],
) -> Vec<Backend> {
    let mut tiers: [BTreeMap<Place, (u16, Option<u32>)>; TIERS] = Default::default();
    for candidate in candidates.iter().filter(|candidate| is_same_family(candidate.address, address)) {
        let tier = &mut tiers[tier(service, candidate)];
        for (name, backend_protocol, number) in &candidate.ports {
            // By name, and whatever has no name fits (Cilium, `ClusterService` and its frontends).
            let is_named = port.name.is_empty() || name.is_empty() || *name == port.name;
            if is_named && numbers_of(*backend_protocol).contains(&protocol) {
                // Several names of one port are one backend (cilium#45109).
                tier.entry((Address::from(candidate.address), number.get().to_be_bytes()))
                    .or_insert((candidate.cluster, candidate.weight));
            }
        }
    }
    let best = tiers.into_iter().find(|tier| !tier.is_empty()).unwrap_or_default();
    shared_out(best)
}

/// Which tier a backend is in, 0 for the best.
fn tier(service: &LocalService, candidate: &Candidate<'_>) -> usize {
    let affinity = if service.global { service.affinity } else { Affinity::None };
    let is_preferred = match affinity {
        Affinity::None => true,
        Affinity::Local => candidate.is_local,
        Affinity::Remote => !candidate.is_local,
    };
    let is_preferred = is_preferred && candidate.weight != Some(0);
    let within = if candidate.is_draining { 2 } else { usize::from(!is_preferred) };
    if candidate.is_lost { within + TIERS / 2 } else { within }
}

fn is_same_family(a: IpAddr, b: IpAddr) -> bool {
    a.to_canonical().is_ipv4() == b.to_canonical().is_ipv4()
}

/// The IP protocols that a protocol of ports stands for.
pub(crate) const fn numbers_of(protocol: Protocol) -> &'static [u8] {
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    const SCTP: u8 = 132;
    match protocol {
        Protocol::Tcp => &[TCP],
        Protocol::Udp => &[UDP],
        Protocol::Sctp => &[SCTP],
        Protocol::Any => &[TCP, UDP, SCTP],
    }
}

const fn algorithm(declared: BalanceAlgorithm) -> Algorithm {
    match declared {
        BalanceAlgorithm::Random => Algorithm::Random,
        BalanceAlgorithm::RoundRobin => Algorithm::RoundRobin,
        BalanceAlgorithm::Maglev => Algorithm::Maglev,
    }
}

/// A number for a service, the same on every node unless two names have one hash. Never 0.
fn service_number(name: &NamespacedName, taken: &mut BTreeSet<u32>) -> u32 {
    let mut number = crate::policy::hash(name.to_string().as_bytes()).max(1);
    while !taken.insert(number) {
        number = number.wrapping_add(1).max(1);
    }
    number
}
