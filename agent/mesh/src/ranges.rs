//! Disjoint ranges of addresses, each with an owner.

use std::collections::BTreeMap;
use std::net::IpAddr;

use landbridge_bpf_maps::{Address, CidrKey, IPV4_PREFIX_BITS};
use landbridge_kvstore_schema::IpPrefix;

/// A range of addresses, both ends included. IPv4 is where it is mapped into IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Range {
    first: u128,
    last: u128,
}

impl Range {
    pub(crate) fn address(address: IpAddr) -> Self {
        let bits = bits(address);
        Self { first: bits, last: bits }
    }

    pub(crate) fn prefix(prefix: IpPrefix) -> Self {
        let key = cidr_key(prefix);
        let first = u128::from_be_bytes(key.address.0);
        let host_bits = u128::BITS - key.prefix_len;
        Self { first, last: first | 1_u128.checked_shl(host_bits).map_or(u128::MAX, |size| size - 1) }
    }

    /// Whether an address of the range means something else on every machine, or no machine at all: `0.0.0.0/8`, loopback,
    /// link-local, multicast and what is behind it (RFC 6890).
    pub(crate) fn has_special(self) -> bool {
        let v4 = |first: [u8; 4], last: [u8; 4]| (bits(first.into()), bits(last.into()));
        let v6 =
            |first: u16, last: u16| (u128::from(first) << 112, u128::from(last) << 112 | u128::MAX >> 16);
        [
            v4([0, 0, 0, 0], [0, 255, 255, 255]),
            v4([127, 0, 0, 0], [127, 255, 255, 255]),
            v4([169, 254, 0, 0], [169, 254, 255, 255]),
            v4([224, 0, 0, 0], [255, 255, 255, 255]),
            (0, 1),
            v6(0xfe80, 0xfebf),
            v6(0xff00, 0xffff),
        ]
        .iter()
        .any(|(first, last)| self.first <= *last && *first <= self.last)
    }

    /// The address that is `offset` after the first, if it is in the range.
    pub(crate) fn nth(self, offset: u128) -> Option<IpAddr> {
        let bits = self.first.checked_add(offset).filter(|bits| *bits <= self.last)?;
        Some(Address(bits.to_be_bytes()).into())
    }
}

fn bits(address: IpAddr) -> u128 {
    u128::from_be_bytes(Address::from(address.to_canonical()).0)
}

/// A prefix as the `CIDRS` map has it.
pub(crate) fn cidr_key(prefix: IpPrefix) -> CidrKey {
    let prefix_len =
        u32::from(prefix.len()) + if matches!(prefix, IpPrefix::V4(_)) { IPV4_PREFIX_BITS } else { 0 };
    CidrKey { prefix_len, address: prefix.network().into() }
}

/// Ranges that do not overlap, by owner.
#[derive(Clone, Debug)]
pub(crate) struct Ranges<T> {
    by_first: BTreeMap<u128, (u128, T)>,
}

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Self { by_first: BTreeMap::new() }
    }
}

impl<T> Ranges<T> {
    /// The owners of what overlaps with `range`, in the order of addresses.
    pub(crate) fn overlapping(&self, range: Range) -> impl Iterator<Item = &T> {
        // They are disjoint, so that only the last one to start before `range` can reach into it.
        let before =
            self.by_first.range(..range.first).next_back().filter(|(_, (last, _))| *last >= range.first);
        let within = self.by_first.range(range.first..=range.last);
        before.into_iter().chain(within).map(|(_, (_, owner))| owner)
    }

    /// Adds a range, unless it overlaps with one that is there.
    pub(crate) fn insert_missing(&mut self, range: Range, owner: T) {
        if self.overlapping(range).next().is_none() {
            self.by_first.insert(range.first, (range.last, owner));
        }
    }
}
