//! Which node has which range of pod addresses.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use landbridge_kvstore_schema::{Family, IpPrefix, Ipv4Prefix, Ipv6Prefix, ObjectName, Prefix};

use super::Given;
use crate::objects::Objects;

/// The length of a range that is given to a node, as Kubernetes' `--node-cidr-mask-size`.
const NODE_PREFIX_LEN: u8 = 24;

/// Gives a range to each node: those that were given one keep it, then those that declare one get it, then the others
/// get the next free one of the first of `pods` that is of IPv4.
pub(super) fn give(
    objects: &Objects,
    kept: &BTreeMap<ObjectName, Ipv4Prefix>,
    pods: &[IpPrefix],
    problems: &mut Vec<String>,
) -> Given<ObjectName, Ipv4Prefix> {
    let of_ipv4 = |range: &IpPrefix| match range {
        IpPrefix::V4(range) => Some(*range),
        IpPrefix::V6(_) => None,
    };
    let pods: Vec<Ipv4Prefix> = pods.iter().filter_map(of_ipv4).collect();
    let mut given = Given::default();
    let mut owners: Vec<(Ipv4Prefix, &ObjectName)> = Vec::new();
    // Of several, always the same one is told of.
    let owner_of = |owners: &[(Ipv4Prefix, &ObjectName)], range: Ipv4Prefix| {
        let overlapping = owners.iter().filter(|(taken, _)| overlap(*taken, range));
        overlapping.min().map(|(taken, owner)| (*taken, (*owner).clone()))
    };

    for (name, range) in kept {
        let declares = objects.nodes.get(name).map(|node| node.pod_range);
        // While something may be missing, a range whose node is not to be seen stays taken.
        let stays = declares == Some(None) || (declares.is_none() && !objects.whole);
        if stays && pods.iter().any(|pods| covers(*pods, *range)) && owner_of(&owners, *range).is_none() {
            owners.push((*range, name));
            given.kept.insert(name.clone(), *range);
        }
    }
    for (name, node) in &objects.nodes {
        let Some(range) = node.pod_range else { continue };
        if let Some((taken, owner)) = owner_of(&owners, range) {
            problems.push(format!(
                "node {name} declares podCIDR {range}, which overlaps {taken} of node {owner}: its pods are not \
                 reached until one of both changes"
            ));
            continue;
        }
        if !pods.is_empty() && !pods.iter().any(|pods| covers(*pods, range)) {
            problems.push(format!(
                "node {name} declares podCIDR {range}, which is outside of --pod-range: other clusters refuse its pods"
            ));
        }
        owners.push((range, name));
        given.in_force.insert(name.clone(), range);
    }
    let mut free = pods.first().into_iter().flat_map(|pods| parts(*pods));
    for (name, node) in &objects.nodes {
        if node.pod_range.is_some() || given.kept.contains_key(name) {
            continue;
        }
        if let Some(range) = free.find(|range| owner_of(&owners, *range).is_none()) {
            owners.push((range, name));
            given.kept.insert(name.clone(), range);
        } else {
            problems.push(format!(
                "node {name} has no podCIDR, and --pod-range has no free /{NODE_PREFIX_LEN}: declare spec.podCIDR, or \
                 start the apiserver with a larger --pod-range"
            ));
        }
    }
    given.in_force.extend(given.kept.iter().map(|(name, range)| (name.clone(), *range)));
    given
}

/// Looks at the ranges of IPv6 that nodes declare. A node whose range is another's too loses it: its pods have IPv4 alone then.
pub(super) fn check_ipv6(objects: &mut Objects, pods: &[IpPrefix], problems: &mut Vec<String>) {
    let mut owners: Vec<(Ipv6Prefix, ObjectName)> = Vec::new();
    for (name, node) in &mut objects.nodes {
        let Some(range) = node.pod_range6 else { continue };
        if let Some((taken, owner)) = owners.iter().find(|(taken, _)| overlap(*taken, range)) {
            problems.push(format!(
                "node {name} declares podCIDR {range}, which overlaps {taken} of node {owner}: its pods get no IPv6 \
                 until one of both changes"
            ));
            node.pod_range6 = None;
            continue;
        }
        if !pods.iter().any(|pods| matches!(pods, IpPrefix::V6(pods) if covers(*pods, range))) {
            problems.push(format!(
                "node {name} declares podCIDR {range}, which is outside of --pod-range: other clusters refuse its pods"
            ));
        }
        owners.push((range, name.clone()));
    }
}

/// The parts that can be given to nodes, from the lowest; none if the range is shorter than one.
fn parts(pods: Ipv4Prefix) -> impl Iterator<Item = Ipv4Prefix> {
    let first = pods.network().to_bits();
    let count = NODE_PREFIX_LEN.checked_sub(pods.len()).map_or(0, |bits| 1_u32 << bits);
    (0..count).filter_map(move |at| {
        let network = Ipv4Addr::from_bits(first + (at << (32 - NODE_PREFIX_LEN)));
        Ipv4Prefix::new(network, NODE_PREFIX_LEN).ok()
    })
}

fn covers<A: Family>(outer: Prefix<A>, inner: Prefix<A>) -> bool {
    outer.len() <= inner.len() && outer.contains(inner.network())
}

fn overlap<A: Family>(a: Prefix<A>, b: Prefix<A>) -> bool {
    covers(a, b) || covers(b, a)
}
