//! Who has an address, and behind which node it is.
//!
//! ```text
//! pods of this node ► addresses of nodes ► ip records of this cluster ► those of clusters a, b, …     first wins
//! ```
//!
//! - A pod is behind the node that its record names. If that node is not known, it is behind the one whose `PodCIDR` it is
//!   in; if there is none either, it is left out until the node's record is there: an entry without a node would send its
//!   packets past the tunnel.
//! - A pod of this node is known by its interface, not by its record: the address of one that has ended, or has no
//!   interface yet, would give its identity to whoever sends from it outside of a tunnel.
//! - `PodCIDR`s of other nodes stand for pods that are not known yet: of that cluster, and no more.

use std::collections::BTreeMap;
use std::net::IpAddr;

use landbridge_bpf_maps::{Address, CidrKey, IpcacheEntry, NodeNumber, identity};
use landbridge_kvstore_schema::{ClusterName, IpOrPrefix, IpPrefix, NumericIdentity};

use crate::node_numbers::NodeNumbers;
use crate::ranges::{Range, cidr_key};
use crate::records::{IpOwner, Records};
use crate::topology::{Claim, NodeRef, Topology};
use crate::{Local, Problem};

/// The two maps while they are built.
pub(crate) struct Ipcache<'a> {
    local: &'a Local,
    topology: &'a Topology,
    numbers: &'a NodeNumbers,
    pub(crate) addresses: BTreeMap<Address, IpcacheEntry>,
    pub(crate) cidrs: BTreeMap<CidrKey, IpcacheEntry>,
    pub(crate) problems: Vec<Problem>,
}

impl<'a> Ipcache<'a> {
    pub(crate) fn new(local: &'a Local, topology: &'a Topology, numbers: &'a NodeNumbers) -> Self {
        let (addresses, cidrs, problems) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Self { local, topology, numbers, addresses, cidrs, problems }
    }

    /// The pod of this node with this address.
    pub(crate) fn add_endpoint(&mut self, address: Address, identity: u32) {
        self.addresses.insert(address, IpcacheEntry { identity, node: NodeNumber::NONE });
    }

    /// Addresses and `PodCIDR`s of all nodes.
    pub(crate) fn add_nodes(&mut self) {
        for node in self.topology.nodes() {
            let (identity, number) = if self.local.is_this_node(&node.name) {
                (identity::HOST, Some(NodeNumber::NONE))
            } else {
                (identity::REMOTE_NODE, self.numbers.get(&node.name))
            };
            // A node speaks outside of tunnels under the address that they begin at, and under no other: of the rest nobody
            // could tell whose they are.
            for ip in &node.internal {
                let behind = number.filter(|_| *ip != node.underlay).unwrap_or_default();
                self.addresses.entry(Address::from(*ip)).or_insert(IpcacheEntry { identity, node: behind });
            }
            let Some(number) = number else { continue };
            for ip in node.inner_addresses() {
                self.addresses.entry(Address::from(ip)).or_insert(IpcacheEntry { identity, node: number });
            }
            if number != NodeNumber::NONE {
                let (unknown_pod, _) = node.cluster_id.identities().into_inner();
                let entry = IpcacheEntry { identity: unknown_pod.0, node: number };
                self.cidrs.extend(node.pod_cidrs.iter().map(|cidr| (cidr_key(*cidr), entry)));
            }
        }
    }

    /// Addresses that a cluster has published.
    pub(crate) fn add_records(&mut self, cluster: &ClusterName, records: &Records) {
        let mut taken = Vec::new();
        for (ip, owner) in records.ips() {
            let Ok(Some(entry)) = self.entry(cluster, *ip, *owner).inspect_err(|()| taken.push(ip)) else {
                continue;
            };
            let existing = if is_single(*ip) {
                *self.addresses.entry(Address::from(ip.covered().network())).or_insert(entry)
            } else {
                *self.cidrs.entry(cidr_key(ip.covered())).or_insert(entry)
            };
            let is_of_another = existing.identity >= identity::FIRST_ALLOCATED
                && records
                    .id()
                    .is_some_and(|id| !id.identities().contains(&NumericIdentity(existing.identity)));
            if is_of_another {
                taken.push(ip);
            }
        }
        if let Some(example) = taken.first() {
            let (cluster, example) = (cluster.clone(), example.to_string());
            self.problems.push(Problem::AddressClaims { cluster, addresses: taken.len(), example });
        }
    }

    /// The entry of a record; none while its node is not known, an error if the address belongs to another cluster.
    fn entry(
        &self,
        cluster: &ClusterName,
        ip: IpOrPrefix,
        owner: IpOwner,
    ) -> Result<Option<IpcacheEntry>, ()> {
        let by_range = match self.topology.claim(cluster, Range::prefix(ip.covered())) {
            Claim::Foreign(_) => return Err(()),
            // A range can be of several nodes.
            Claim::Own(node) => is_single(ip).then_some(node),
            Claim::Free => None,
        };
        let by_host = owner.host.and_then(|host| self.topology.node_at(cluster, host));
        let node = match (by_host.or(by_range), owner.host) {
            // None for this node, too: its pods are in already.
            (Some(node), _) => self.numbers.get(&node.name),
            // Without a host, the address is reached as the underlay has it.
            (None, None) => Some(NodeNumber::NONE),
            (None, Some(_)) => None,
        };
        Ok(node.map(|node| IpcacheEntry { identity: owner.identity.0, node }))
    }
}

/// Whether one address is meant, also if it is written as a range.
fn is_single(ip: IpOrPrefix) -> bool {
    ip.covered() == IpPrefix::host(ip.covered().network())
}

/// The node that an address of `cluster` is on: as its record says, or else whose address or `PodCIDR` it is. An error if
/// it belongs to another cluster.
pub(crate) fn node_of<'a>(
    topology: &'a Topology,
    cluster: &ClusterName,
    records: &Records,
    ip: IpAddr,
) -> Result<Option<&'a NodeRef>, ()> {
    let by_range = match topology.claim(cluster, Range::address(ip)) {
        Claim::Foreign(_) => return Err(()),
        Claim::Own(node) => Some(node),
        Claim::Free => None,
    };
    let host = records.ips().get(&IpOrPrefix::address(ip)).and_then(|owner| owner.host);
    let by_host = host.and_then(|host| topology.node_at(cluster, host));
    Ok(by_host.or(by_range).map(|node| &node.name))
}
