//! Addresses as the maps hold them.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address of either family: IPv6, or IPv4 mapped into `::ffff:0:0/96`. Network byte order.
///
/// One form for both families means one map, one lookup and one program where there would be two of each.
///
/// Aligned, since the kernel's virtual machine would otherwise read it byte by byte.
#[repr(C, align(4))]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub [u8; 16]);

/// Bits before those of an IPv4 address.
pub const IPV4_PREFIX_BITS: u32 = 96;

impl Address {
    /// An IPv4 address, from its bytes in network order.
    pub const fn from_ipv4(bytes: [u8; 4]) -> Self {
        let [a, b, c, d] = bytes;
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// The bytes of an IPv4 address, nothing for an IPv6 one.
    pub const fn ipv4(self) -> Option<[u8; 4]> {
        match self.0 {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => Some([a, b, c, d]),
            _ => None,
        }
    }

    /// The numbers that its halves are, the first one first: addresses are in their order.
    #[must_use]
    pub const fn halves(&self) -> [u64; 2] {
        match (self.0.first_chunk(), self.0.last_chunk()) {
            (Some(high), Some(low)) => [u64::from_be_bytes(*high), u64::from_be_bytes(*low)],
            _ => [0; 2],
        }
    }

    /// Whether it is `::`, which stands for "none" where an address is optional.
    pub const fn is_none(self) -> bool {
        u128::from_ne_bytes(self.0) == 0
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::from_ipv4(address.octets()),
            IpAddr::V6(address) => Self(address.octets()),
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(address: Ipv4Addr) -> Self {
        Self::from_ipv4(address.octets())
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        address
            .ipv4()
            .map_or_else(|| Self::V6(Ipv6Addr::from(address.0)), |bytes| Self::V4(Ipv4Addr::from(bytes)))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&IpAddr::from(*self), f)
    }
}
