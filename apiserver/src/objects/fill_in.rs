//! What a control plane would add to the objects of a cluster that has none: addresses of services, ranges of nodes,
//! endpoints of services.
//!
//! ```text
//! Objects, as declared ─┐
//!                       ├─ fill_in ─► Objects, complete ─► publish
//! Kept, from the store ─┘        └──► Kept, to the store
//! ```
//!
//! - What was given stays given for as long as its object is declared: [`Kept`] is in the store, so that a restart or
//!   another replica goes on with it.
//! - No address is given to two services and no range to two nodes. What an object asks for itself is reserved first,
//!   unless somebody has it already; whoever gets nothing is a problem with both names in it.

mod pod_ranges;
mod service_addresses;
mod slices;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use landbridge_kvstore_schema::{IpPrefix, Ipv4Prefix, NamespacedName, ObjectName};

use super::{Objects, RequestedAddress};

/// What can be given out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// The range of services' addresses; with none, services have only the addresses that they ask for.
    pub services: Option<Ipv4Prefix>,
    /// The ranges of pods; nodes get parts of the first one of IPv4.
    pub pods: Vec<IpPrefix>,
}

/// What was given out, as the store keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Addresses of services that asked for none in particular.
    pub service_addresses: BTreeMap<NamespacedName, Ipv4Addr>,
    /// Ranges of nodes that have none of their own.
    pub pod_ranges: BTreeMap<ObjectName, Ipv4Prefix>,
}

/// The outcome of [`fill_in`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    /// Every service that can have an address has one in [`RequestedAddress::Given`], every node a range; endpoints of
    /// services with a selector are there as slices.
    pub objects: Objects,
    /// To be kept before anything of `objects` is published.
    pub kept: Kept,
    /// What could not be given, a sentence each.
    pub problems: Vec<String>,
}

/// Completes `objects`, going on from what was given before.
pub fn fill_in(objects: &Objects, kept: &Kept, ranges: &Ranges) -> Filled {
    let mut objects = objects.clone();
    let mut problems = Vec::new();

    let addresses =
        service_addresses::give(&objects, &kept.service_addresses, ranges.services, &mut problems);
    for (name, service) in &mut objects.services {
        if matches!(service.address, RequestedAddress::Any | RequestedAddress::Given(_)) {
            let given = addresses.in_force.get(name);
            service.address =
                given.map_or(RequestedAddress::Any, |address| RequestedAddress::Given(*address));
        }
    }

    let pod_ranges = pod_ranges::give(&objects, &kept.pod_ranges, &ranges.pods, &mut problems);
    for (name, node) in &mut objects.nodes {
        node.pod_range = pod_ranges.in_force.get(name).copied();
    }
    pod_ranges::check_ipv6(&mut objects, &ranges.pods, &mut problems);

    for slice in slices::of_selectors(&objects) {
        objects.endpoint_slices.insert(slice.name.clone(), slice);
    }

    let kept = Kept { service_addresses: addresses.kept, pod_ranges: pod_ranges.kept };
    Filled { objects, kept, problems }
}

/// Who has what, and the part of it that was chosen here.
struct Given<N, V> {
    in_force: BTreeMap<N, V>,
    kept: BTreeMap<N, V>,
}

impl<N, V> Default for Given<N, V> {
    fn default() -> Self {
        Self { in_force: BTreeMap::new(), kept: BTreeMap::new() }
    }
}
