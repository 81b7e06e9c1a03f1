//! Which service has which address.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use landbridge_kvstore_schema::{Ipv4Prefix, NamespacedName};

use super::Given;
use crate::objects::{Objects, RequestedAddress};

/// Gives an address to each service that has one: those that were given one keep it, then those that ask for one in
/// particular get it, then the others get the next free one.
pub(super) fn give(
    objects: &Objects,
    kept: &BTreeMap<NamespacedName, Ipv4Addr>,
    range: Option<Ipv4Prefix>,
    problems: &mut Vec<String>,
) -> Given<NamespacedName, Ipv4Addr> {
    let mut given = Given::default();
    let mut owners: BTreeMap<Ipv4Addr, &NamespacedName> = BTreeMap::new();

    for (name, address) in kept {
        let asks = objects.services.get(name).map(|service| &service.address);
        // While something may be missing, an address whose service is not to be seen stays taken.
        let stays = asks == Some(&RequestedAddress::Any) || (asks.is_none() && !objects.whole);
        if stays && range.is_some_and(|range| range.contains(*address)) && !owners.contains_key(address) {
            owners.insert(*address, name);
            given.kept.insert(name.clone(), *address);
        }
    }
    for (name, service) in &objects.services {
        let RequestedAddress::Given(address) = service.address else { continue };
        if let Some(range) = range.filter(|range| !is_usable(*range, address)) {
            problems.push(format!(
                "service {name} asks for clusterIP {address}, which is not an address of the service range {range}: \
                 choose one of it, or leave clusterIP out"
            ));
        } else if let Some(owner) = owners.get(&address) {
            problems.push(format!(
                "service {name} asks for clusterIP {address}, which service {owner} has: choose another one, or leave \
                 clusterIP out"
            ));
        } else {
            owners.insert(address, name);
            given.in_force.insert(name.clone(), address);
        }
    }
    let mut free = range.into_iter().flat_map(in_order);
    for (name, service) in &objects.services {
        if service.address != RequestedAddress::Any || given.kept.contains_key(name) {
            continue;
        }
        match (range, free.find(|address| !owners.contains_key(address))) {
            (_, Some(address)) => {
                owners.insert(address, name);
                given.kept.insert(name.clone(), address);
            }
            (Some(range), None) => problems.push(format!(
                "service {name} has no clusterIP: all addresses of the service range {range} are taken; start the \
                 apiserver with a larger --service-range"
            )),
            (None, None) => problems.push(format!(
                "service {name} has no clusterIP: give it one, or start the apiserver with --service-range"
            )),
        }
    }
    given.in_force.extend(given.kept.iter().map(|(name, address)| (name.clone(), *address)));
    given
}

/// All usable addresses of `range` in the order in which they are given out: first those that people do not choose by
/// hand (KEP-3070: the lower part, 1/16 of the range but 16 to 256 addresses, comes last).
fn in_order(range: Ipv4Prefix) -> impl Iterator<Item = Ipv4Addr> {
    let first = range.network().to_bits();
    let size = 1_u64 << (32 - range.len());
    let low = (size / 16).clamp(16, 256).min(size);
    let address =
        move |at: u64| Ipv4Addr::from_bits(first.wrapping_add(u32::try_from(at).unwrap_or(u32::MAX)));
    (low..size).chain(0..low).map(address).filter(move |address| is_usable(range, *address))
}

/// The first address stands for the range itself and the last for all of it, unless it is too short for that.
fn is_usable(range: Ipv4Prefix, address: Ipv4Addr) -> bool {
    let host_bits = u32::MAX.checked_shr(range.len().into()).unwrap_or(0);
    let host = address.to_bits() & host_bits;
    range.contains(address) && (range.len() >= 31 || (host != 0 && host != host_bits))
}
