//! A node's own range of addresses, and what each of them is for.
//!
//! ```text
//! 10.1.2.0        10.1.2.1  10.1.2.2  10.1.2.3 … 10.1.2.254  10.1.2.255
//! not used (net)  router    health    pods                   not used (broadcast)
//! ```
//!
//! Of IPv6 the node may have a range as well. There each address has the place of its twin: whoever has the third address
//! of the one range has the third of the other.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use landbridge_kvstore_schema::{Ipv4Prefix, Ipv6Prefix};

/// A range with room for both of the node's own addresses and at least one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PodCidr {
    v4: Ipv4Prefix,
    /// With as many addresses as `v4`, or more.
    v6: Option<Ipv6Prefix>,
}

/// A range that is too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooSmall {
    /// For any pods.
    #[error("PodCIDR {0} has no room for pods: give the node a /29 or larger")]
    V4(Ipv4Prefix),
    /// For those of the other range.
    #[error(
        "PodCIDR {v6} has fewer addresses than {v4}, and each pod gets one of both: give the node a /{longest} or larger"
    )]
    V6 {
        /// The range of IPv6.
        v6: Ipv6Prefix,
        /// The range of IPv4.
        v4: Ipv4Prefix,
        /// How long the prefix may be.
        longest: u8,
    },
}

/// The longest prefix that still has some pods.
const LONGEST: u8 = 29;
/// The first address that is a pod's, counted from the network's.
const FIRST_POD: u32 = 3;

impl PodCidr {
    /// # Errors
    /// [`TooSmall`] if there is no room for pods.
    pub(crate) fn new(prefix: Ipv4Prefix) -> Result<Self, TooSmall> {
        if prefix.len() > LONGEST { Err(TooSmall::V4(prefix)) } else { Ok(Self { v4: prefix, v6: None }) }
    }

    /// Adds a range of IPv6.
    ///
    /// # Errors
    /// [`TooSmall`] if it has fewer addresses than the one of IPv4.
    pub(crate) fn with_ipv6(self, v6: Ipv6Prefix) -> Result<Self, TooSmall> {
        let longest = 128 - (32 - self.v4.len());
        if v6.len() > longest {
            return Err(TooSmall::V6 { v6, v4: self.v4, longest });
        }
        Ok(Self { v6: Some(v6), ..self })
    }

    /// The range of IPv4.
    pub(crate) fn prefix(self) -> Ipv4Prefix {
        self.v4
    }

    /// The range of IPv6.
    pub(crate) fn prefix6(self) -> Option<Ipv6Prefix> {
        self.v6
    }

    /// The address of IPv6 that whoever has `address` has as well.
    pub(crate) fn twin(self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        let place = address.to_bits().wrapping_sub(self.v4.network().to_bits());
        self.v6.map(|v6| Ipv6Addr::from_bits(v6.network().to_bits() + u128::from(place)))
    }

    /// An address and its twin.
    pub(crate) fn both(self, address: Ipv4Addr) -> impl Iterator<Item = IpAddr> {
        [Some(IpAddr::V4(address)), self.twin(address).map(IpAddr::V6)].into_iter().flatten()
    }

    /// The pods' gateway, and the node's own address among pods.
    pub(crate) fn router(self) -> Ipv4Addr {
        self.nth(1)
    }

    /// What other nodes probe.
    pub(crate) fn health(self) -> Ipv4Addr {
        self.nth(2)
    }

    /// Whether a pod may have `address`.
    pub(crate) fn is_for_pods(self, address: Ipv4Addr) -> bool {
        (self.nth(FIRST_POD)..self.broadcast()).contains(&address)
    }

    /// The next address for a pod that is not in `taken`: counted on from `last`, the one that was given out most
    /// recently, so that an address rests as long as possible before it is another pod's. One that still `rests` comes
    /// when there is no other. `None` if all are taken.
    pub(crate) fn free_address(
        self,
        taken: &BTreeSet<Ipv4Addr>,
        last: Option<Ipv4Addr>,
        rests: impl Fn(Ipv4Addr) -> bool,
    ) -> Option<Ipv4Addr> {
        let first = self.nth(FIRST_POD).to_bits();
        let count = self.broadcast().to_bits() - first;
        let start = last
            .filter(|last| self.is_for_pods(*last))
            .map_or(0, |last| (last.to_bits() - first + 1) % count);
        // At most as many steps as addresses are taken or rest, and one more.
        let mut free = (0..count)
            .map(|step| Ipv4Addr::from_bits(first + (start + step) % count))
            .filter(|address| !taken.contains(address));
        let next = free.clone().next();
        free.find(|address| !rests(*address)).or(next)
    }

    fn nth(self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.v4.network().to_bits() + n)
    }

    fn broadcast(self) -> Ipv4Addr {
        self.nth(u32::MAX.checked_shr(self.v4.len().into()).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cidr(text: &str) -> PodCidr {
        PodCidr::new(text.parse().unwrap()).unwrap()
    }

    #[test]
    fn the_first_two_addresses_are_the_nodes() {
        let cidr = cidr("10.1.2.0/24");
        assert_eq!(cidr.router().to_string(), "10.1.2.1");
        assert_eq!(cidr.health().to_string(), "10.1.2.2");
        let first = cidr.free_address(&BTreeSet::new(), None, |_| false).unwrap();
        assert_eq!(first.to_string(), "10.1.2.3");
    }

    #[test]
    fn an_address_has_a_twin_at_its_place() {
        let cidr = cidr("10.1.2.0/24");
        assert_eq!(cidr.twin(cidr.router()), None);
        let both = cidr.with_ipv6("fd10:1:2::/64".parse().unwrap()).unwrap();
        assert_eq!(both.twin(both.router()).unwrap().to_string(), "fd10:1:2::1");
        let all: Vec<_> =
            both.both(Ipv4Addr::new(10, 1, 2, 254)).map(|address| address.to_string()).collect();
        assert_eq!(all, ["10.1.2.254", "fd10:1:2::fe"]);
        let exact = cidr.with_ipv6("fd10:1:2::ff00/120".parse().unwrap()).unwrap();
        assert_eq!(exact.twin(Ipv4Addr::new(10, 1, 2, 255)).unwrap().to_string(), "fd10:1:2::ffff");
        let error = cidr.with_ipv6("fd10:1:2::/121".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("fd10:1:2::/121") && error.contains("/120"), "{error}");
    }

    #[test]
    fn a_range_without_room_is_refused() {
        for text in ["10.0.0.0/30", "10.0.0.0/32"] {
            assert!(PodCidr::new(text.parse().unwrap()).unwrap_err().to_string().contains(text));
        }
        assert_eq!(
            cidr("0.0.0.0/0").free_address(&BTreeSet::new(), None, |_| false),
            Some(Ipv4Addr::new(0, 0, 0, 3))
        );
    }

    #[test]
    fn an_address_rests_before_it_is_given_out_again() {
        let cidr = cidr("10.1.2.0/29");
        let mut last = None;
        let mut given = Vec::new();
        for _ in 0..5 {
            last = cidr.free_address(&BTreeSet::new(), last, |_| false);
            given.push(last.unwrap().octets()[3]);
        }
        assert_eq!(given, [3, 4, 5, 6, 3]);
    }

    #[test]
    fn an_address_that_rests_is_the_last_choice() {
        let cidr = cidr("10.1.2.0/29");
        let next = |taken: &[u8], rests: &[u8]| {
            let taken = taken.iter().map(|last| Ipv4Addr::new(10, 1, 2, *last)).collect();
            cidr.free_address(&taken, None, |address| rests.contains(&address.octets()[3]))
        };
        assert_eq!(next(&[3], &[4]), Some(Ipv4Addr::new(10, 1, 2, 5)));
        assert_eq!(next(&[3], &[4, 5, 6]), Some(Ipv4Addr::new(10, 1, 2, 4)));
        assert_eq!(next(&[3, 4, 5, 6], &[]), None);
    }

    proptest! {
        /// Every pod address is given out exactly once, and nothing else ever is.
        #[test]
        fn addresses_are_given_out_until_none_is_left(network: u32, len in 24u8..=29, start: u32) {
            let prefix = Ipv4Prefix::containing(Ipv4Addr::from_bits(network), len).unwrap();
            let cidr = PodCidr::new(prefix).unwrap();
            let mut taken = BTreeSet::new();
            let mut last = Some(Ipv4Addr::from_bits(start));
            while let Some(address) = cidr.free_address(&taken, last, |_| false) {
                prop_assert!(prefix.contains(address) && cidr.is_for_pods(address));
                prop_assert!(address != cidr.router() && address != cidr.health());
                prop_assert!(taken.insert(address));
                last = Some(address);
            }
            prop_assert_eq!(taken.len(), (1usize << (32 - len)) - 4);
        }
    }
}
