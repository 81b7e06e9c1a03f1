//! Address ranges, and how Go writes them.

use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::excerpt::Excerpt;

/// The two address families; nothing else can implement it.
pub trait Family:
    Copy + fmt::Debug + fmt::Display + Ord + Hash + FromStr + Into<IpAddr> + sealed::Sealed
{
    /// Bits of an address and so the longest prefix, 32 or 128.
    const MAX_LEN: u8;

    /// The address with only its first `len` bits kept; all of them if `len` is above [`Self::MAX_LEN`].
    #[must_use]
    fn network(self, len: u8) -> Self;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for std::net::Ipv4Addr {}
    impl Sealed for std::net::Ipv6Addr {}
}

impl Family for Ipv4Addr {
    const MAX_LEN: u8 = 32;

    fn network(self, len: u8) -> Self {
        let host_bits = u32::from(Self::MAX_LEN.saturating_sub(len));
        Self::from_bits(self.to_bits() & u32::MAX.checked_shl(host_bits).unwrap_or(0))
    }
}

impl Family for Ipv6Addr {
    const MAX_LEN: u8 = 128;

    fn network(self, len: u8) -> Self {
        let host_bits = u32::from(Self::MAX_LEN.saturating_sub(len));
        Self::from_bits(self.to_bits() & u128::MAX.checked_shl(host_bits).unwrap_or(0))
    }
}

/// The addresses that share the first bits of a network address, written `10.7.0.0/16`.
///
/// The bits after the prefix are 0. An IPv6 prefix is not inside `::ffff:0:0/96`: Go prints such an address
/// as the IPv4 address that is mapped into it, which would be another range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix<A> {
    network: A,
    len: u8,
}

/// A range of IPv4 addresses.
pub type Ipv4Prefix = Prefix<Ipv4Addr>;
/// A range of IPv6 addresses.
pub type Ipv6Prefix = Prefix<Ipv6Addr>;

impl<A: Family> Prefix<A> {
    /// # Errors
    /// [`InvalidPrefix`] if `len` is above the bits of the family, a bit after the prefix is set, or the
    /// range is in IPv6 but means IPv4.
    pub fn new(network: A, len: u8) -> Result<Self, InvalidPrefix> {
        let prefix = Self::containing(network, len)?;
        if prefix.network == network {
            Ok(prefix)
        } else {
            Err(InvalidPrefix::new(&format!("{network}/{len}")))
        }
    }

    /// The range of length `len` that `address` is in: its bits after the prefix are cleared.
    ///
    /// # Errors
    /// [`InvalidPrefix`] as for [`Prefix::new`], but for set bits.
    pub fn containing(address: A, len: u8) -> Result<Self, InvalidPrefix> {
        let is_mapped = matches!(address.into(), IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
        if len > A::MAX_LEN || is_mapped {
            return Err(InvalidPrefix::new(&format!("{address}/{len}")));
        }
        Ok(Self { network: address.network(len), len })
    }

    /// The first address of the range.
    pub const fn network(&self) -> A {
        self.network
    }

    /// How many leading bits all addresses of the range share.
    #[expect(
        clippy::len_without_is_empty,
        reason = "the length of a prefix counts bits; a range is never empty"
    )]
    pub const fn len(&self) -> u8 {
        self.len
    }

    /// Whether `address` is in the range.
    pub fn contains(&self, address: A) -> bool {
        address.network(self.len) == self.network
    }

    /// The network mask as Go's `encoding/json` writes a `net.IPMask`: base64 of its 4 or 16 bytes.
    pub(crate) fn base64_mask(&self) -> String {
        STANDARD.encode(mask(self.len, A::MAX_LEN))
    }

    /// Reads address and mask as Go writes them.
    ///
    /// # Errors
    /// The family does not match, the mask has not the family's length or is not contiguous, or as for
    /// [`Prefix::containing`].
    pub(crate) fn from_base64_mask(address: A, base64: &str) -> Result<Self, InvalidPrefix> {
        let bytes = STANDARD.decode(base64).ok();
        let len = (0..=A::MAX_LEN).find(|len| bytes.as_ref() == Some(&mask(*len, A::MAX_LEN)));
        let invalid = || InvalidPrefix::new(&format!("{address} with mask {}", Excerpt::new(base64)));
        Self::containing(address, len.ok_or_else(invalid)?)
    }
}

/// A network mask of `bits` bits, of which the first `len` are set.
fn mask(len: u8, bits: u8) -> Vec<u8> {
    let set_in_byte = |index: u8| u32::from(len.saturating_sub(index * 8).min(8));
    (0..bits / 8).map(|index| !0xff_u8.checked_shr(set_in_byte(index)).unwrap_or(0)).collect()
}

impl<A: Family> fmt::Display for Prefix<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.len)
    }
}

/// Reads `address/len`, with the rules of Go's `netip.ParsePrefix` and those of [`Prefix::new`].
impl<A: Family> FromStr for Prefix<A> {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, len) = split(text).ok_or_else(|| InvalidPrefix::new(text))?;
        let address = address.parse().map_err(|_| InvalidPrefix::new(text))?;
        Self::new(address, len)
    }
}

/// Splits `address/len`. The length is decimal without sign or leading zero.
pub(crate) fn split(text: &str) -> Option<(&str, u8)> {
    let (address, len) = text.split_once('/')?;
    let number: u8 = len.parse().ok()?;
    (number.to_string() == len).then_some((address, number))
}

/// A range of addresses of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpPrefix {
    /// A range of IPv4 addresses.
    V4(Ipv4Prefix),
    /// A range of IPv6 addresses.
    V6(Ipv6Prefix),
}

impl IpPrefix {
    /// The range that holds `address` alone, of length 32 or 128.
    pub fn host(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(network) => Self::V4(Prefix { network, len: Ipv4Addr::MAX_LEN }),
            IpAddr::V6(network) => Self::V6(Prefix { network, len: Ipv6Addr::MAX_LEN }),
        }
    }

    /// # Errors
    /// [`InvalidPrefix`] as for [`Prefix::new`].
    pub fn new(network: IpAddr, len: u8) -> Result<Self, InvalidPrefix> {
        match network {
            IpAddr::V4(network) => Prefix::new(network, len).map(Self::V4),
            IpAddr::V6(network) => Prefix::new(network, len).map(Self::V6),
        }
    }

    /// The first address of the range.
    pub const fn network(&self) -> IpAddr {
        match self {
            Self::V4(prefix) => IpAddr::V4(prefix.network()),
            Self::V6(prefix) => IpAddr::V6(prefix.network()),
        }
    }

    /// How many leading bits all addresses of the range share.
    #[expect(
        clippy::len_without_is_empty,
        reason = "the length of a prefix counts bits; a range is never empty"
    )]
    pub const fn len(&self) -> u8 {
        match self {
            Self::V4(prefix) => prefix.len(),
            Self::V6(prefix) => prefix.len(),
        }
    }

    /// Whether `address` is in the range. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self, address.to_canonical()) {
            (Self::V4(prefix), IpAddr::V4(address)) => prefix.contains(address),
            (Self::V6(prefix), IpAddr::V6(address)) => prefix.contains(address),
            _ => false,
        }
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(prefix) => prefix.fmt(f),
            Self::V6(prefix) => prefix.fmt(f),
        }
    }
}

impl FromStr for IpPrefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self::V4).or_else(|_| text.parse().map(Self::V6))
    }
}

/// What an [`IpIdentityPair`](crate::IpIdentityPair) is about, and the last part of its key: one address,
/// written without a length, or a range.
///
/// `10.7.3.21` and `10.7.3.21/32` cover the same address and are two keys, as in Cilium.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpOrPrefix {
    covered: IpPrefix,
    with_len: bool,
}

impl IpOrPrefix {
    /// One address. An IPv4 address mapped into IPv6 counts as IPv4, as in Go's `net.IP`.
    pub fn address(address: IpAddr) -> Self {
        Self { covered: IpPrefix::host(address), with_len: false }
    }

    /// A range.
    pub const fn prefix(prefix: IpPrefix) -> Self {
        Self { covered: prefix, with_len: true }
    }

    /// The addresses that are meant; for one address the range that holds it alone.
    pub const fn covered(&self) -> IpPrefix {
        self.covered
    }

    /// Whether it was given as a range, so that it is written with a length.
    pub const fn is_prefix(&self) -> bool {
        self.with_len
    }
}

impl fmt::Display for IpOrPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.with_len { self.covered.fmt(f) } else { self.covered.network().fmt(f) }
    }
}

/// Reads only the one spelling that [`IpOrPrefix`] is written in (RFC 5952 for IPv6): in a key, another
/// spelling would be another key.
impl FromStr for IpOrPrefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = match text.parse() {
            Ok(address) => Self::address(address),
            Err(_) => Self::prefix(text.parse()?),
        };
        if parsed.to_string() == text { Ok(parsed) } else { Err(InvalidPrefix::new(text)) }
    }
}

/// A text or a pair of address and mask that is no address range, or not in its one spelling.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not an address or an address range without host bits")]
pub struct InvalidPrefix(pub Excerpt);

impl InvalidPrefix {
    fn new(text: &str) -> Self {
        Self(Excerpt::new(text))
    }
}

/// Reads an address into its one form: IPv4 mapped into IPv6 becomes IPv4. A zone is refused, as in Cilium.
pub(crate) fn parse_address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// How Go's `net.IP` prints an address: IPv4 mapped into IPv6 as IPv4, IPv6 as RFC 5952.
pub(crate) fn print_address(address: IpAddr) -> String {
    address.to_canonical().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_written_as_go_writes_them() {
        // Cilium pkg/node/types/prefix_test.go, `goldenLegacy`.
        let v4: Ipv4Prefix = "10.244.1.0/24".parse().unwrap();
        assert_eq!(v4.base64_mask(), "////AA==");
        let v6: Ipv6Prefix = "fd00::/64".parse().unwrap();
        assert_eq!(v6.base64_mask(), "//////////8AAAAAAAAAAA==");
        assert_eq!(Ipv4Prefix::new(Ipv4Addr::UNSPECIFIED, 0).unwrap().base64_mask(), "AAAAAA==");
        assert_eq!("10.0.0.0/9".parse::<Ipv4Prefix>().unwrap().base64_mask(), "/4AAAA==");
    }

    #[test]
    fn masks_of_every_length_read_back() {
        for len in 0..=32 {
            let prefix = Ipv4Prefix::containing(Ipv4Addr::BROADCAST, len).unwrap();
            assert_eq!(Prefix::from_base64_mask(prefix.network(), &prefix.base64_mask()), Ok(prefix));
        }
        for len in 0..=128 {
            let prefix = Ipv6Prefix::containing("fd00::1".parse().unwrap(), len).unwrap();
            assert_eq!(Prefix::from_base64_mask(prefix.network(), &prefix.base64_mask()), Ok(prefix));
        }
    }

    #[test]
    fn masks_that_are_none_are_refused() {
        let (hole, wide, empty) = ("/wD/AA==", "//////////8AAAAAAAAAAA==", "");
        for mask in [hole, wide, empty, "????", "////AA"] {
            assert!(Prefix::from_base64_mask(Ipv4Addr::new(10, 7, 3, 0), mask).is_err(), "{mask}");
        }
    }

    #[test]
    fn ranges_have_one_spelling() {
        for text in [
            "10.7.3.21",
            "10.7.3.21/32",
            "10.0.0.0/8",
            "0.0.0.0/0",
            "::",
            "::1",
            "fd00::/64",
            "2001:db8::1:0:0:1",
        ] {
            assert_eq!(text.parse::<IpOrPrefix>().unwrap().to_string(), text);
        }
        let misspelt = [
            "",
            "/",
            "10.7.3",
            "010.7.3.1",
            "10.7.3.21/08",
            "10.7.3.21/+8",
            "10.7.3.21/24",
            "10.0.0.0/33",
            "FD00::1",
            "fd00:0::1",
            "fd00::/129",
            "::ffff:10.7.3.21",
            "::ffff:10.7.3.0/120",
            "fe80::1%eth0",
            "10.0.0.0/8/8",
            "10.0.0.0/",
        ];
        for text in misspelt {
            assert!(text.parse::<IpOrPrefix>().is_err(), "{text}");
        }
    }
}
