//! Addresses as the maps hold them.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address of either family: IPv6, or IPv4 mapped into `::ffff:0:0/96`. Network byte order.
///
/// One form for both families means one map, one lookup and one program where there would be two of each.
///
/// Aligned, since the kernel's virtual machine would otherwise read it byte by byte.
#[repr(C, align(4))]
#[derive(Clone, Copy, Default, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::derived_hash_with_manual_eq, reason = "the same bytes are equal, only faster")]
pub struct Address(pub [u8; 16]);

/// By words: by bytes it would take a hundred instructions.
impl PartialEq for Address {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        let [a, b, c, d] = self.words();
        let others = other.words();
        (a ^ others[0]) | (b ^ others[1]) | (c ^ others[2]) | (d ^ others[3]) == 0
    }
}

/// Bits before those of an IPv4 address.
pub const IPV4_PREFIX_BITS: u32 = 96;

impl Address {
    /// What comes before an IPv4 address, as words.
    pub const IPV4_PREFIX: [u32; 3] = [0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff])];

    /// An IPv4 address, from its bytes in network order.
    #[inline]
    pub const fn from_ipv4(bytes: [u8; 4]) -> Self {
        let [a, b, c] = Self::IPV4_PREFIX;
        Self::from_words([a, b, c, u32::from_ne_bytes(bytes)])
    }

    /// An address from its words, each in the machine's byte order of what is in a packet.
    ///
    /// By bytes it would be taken apart and put together again one by one: the kernel's virtual machine has no instruction
    /// for more.
    #[inline]
    #[expect(unsafe_code, reason = "there is no safe way from words to bytes that the compiler leaves whole")]
    pub const fn from_words(words: [u32; 4]) -> Self {
        // SAFETY: both are sixteen bytes, and any bytes are a value of either.
        unsafe { core::mem::transmute(words) }
    }

    /// The same words.
    #[inline]
    #[expect(unsafe_code, reason = "as above")]
    pub const fn words(self) -> [u32; 4] {
        // SAFETY: as above.
        unsafe { core::mem::transmute(self) }
    }

    /// Whether it is an IPv4 address.
    #[inline]
    pub const fn is_ipv4(self) -> bool {
        let [a, b, c, _] = self.words();
        let [_, _, prefix] = Self::IPV4_PREFIX;
        a | b == 0 && c == prefix
    }

    /// The bytes of an IPv4 address, nothing for an IPv6 one.
    #[inline]
    pub const fn ipv4(self) -> Option<[u8; 4]> {
        let [_, _, _, last] = self.words();
        if self.is_ipv4() { Some(last.to_ne_bytes()) } else { None }
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
    #[inline]
    pub const fn is_none(self) -> bool {
        let [a, b, c, d] = self.words();
        a | b | c | d == 0
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
