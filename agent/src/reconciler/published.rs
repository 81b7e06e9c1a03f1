//! Which of this node's addresses the store has for pods, those that have ended included: what other nodes may still know.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use landbridge_kvstore_schema::{IpOrPrefix, Keyspace, RecordName};

use crate::pod_cidr::PodCidr;

/// See the module.
#[derive(Debug)]
pub(super) struct PublishedAddresses {
    keyspace: Keyspace,
    cidr: PodCidr,
    addresses: BTreeSet<Ipv4Addr>,
}

impl PublishedAddresses {
    /// None yet, of those in `cidr`, from a keyspace of this cluster.
    pub(super) const fn new(keyspace: Keyspace, cidr: PodCidr) -> Self {
        Self { keyspace, cidr, addresses: BTreeSet::new() }
    }

    /// Notes that a key of the store is there, or is not any more.
    pub(super) fn note(&mut self, key: &str, is_there: bool) {
        let Ok(RecordName::Ip(ip)) = self.keyspace.parse(key.as_bytes()) else { return };
        let IpAddr::V4(address) = ip.covered().network() else { return };
        if ip != IpOrPrefix::address(address.into()) || !self.cidr.is_for_pods(address) {
            return;
        }
        if is_there {
            self.addresses.insert(address);
        } else {
            self.addresses.remove(&address);
        }
    }

    pub(super) fn contains(&self, address: Ipv4Addr) -> bool {
        self.addresses.contains(&address)
    }
}

#[cfg(test)]
mod tests {
    use landbridge_kvstore_schema::ClusterName;

    use super::*;

    #[test]
    fn what_is_published_is_known_until_it_is_withdrawn() {
        let keyspace = Keyspace::state(ClusterName::new("a").unwrap());
        let cidr = PodCidr::new("10.1.2.0/24".parse().unwrap()).unwrap();
        let mut published = PublishedAddresses::new(keyspace.clone(), cidr);
        let key =
            |address: &str| keyspace.key(&RecordName::Ip(IpOrPrefix::address(address.parse().unwrap())));
        for address in ["10.1.2.3", "10.1.3.3", "10.1.2.1", "fd00::3"] {
            published.note(&key(address), true);
        }
        assert_eq!(published.addresses, [Ipv4Addr::new(10, 1, 2, 3)].into());
        published.note("cilium/state/nodes/v1/a/a1", true);
        published.note(&key("10.1.2.3"), false);
        assert!(!published.contains(Ipv4Addr::new(10, 1, 2, 3)));
    }
}
