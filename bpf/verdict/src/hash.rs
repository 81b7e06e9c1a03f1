//! A hash that is the same on every node: of backends for tables, of connections for places in them.
//!
//! Multiplications and shifts of 64 bits, since the kernel's virtual machine has nothing wider.

use landbridge_bpf_maps::Address;

/// A hash that is being made.
#[derive(Clone, Copy, Debug)]
pub struct Hash(u64);

/// The golden ratio as a fraction of 2^64.
const START: u64 = 0x9e37_79b9_7f4a_7c15;
/// The multiplier of `MurmurHash3`'s 64-bit finalizer.
const MULTIPLIER: u64 = 0xff51_afd7_ed55_8ccd;

impl Hash {
    /// Of nothing.
    #[inline(always)]
    #[must_use]
    pub const fn new() -> Self {
        Self(START)
    }

    /// With eight more bytes.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, word: u64) -> Self {
        let mixed = (self.0 ^ word).wrapping_mul(MULTIPLIER);
        Self(mixed ^ mixed >> 32)
    }

    /// With an address.
    #[inline(always)]
    #[must_use]
    pub const fn address(self, address: &Address) -> Self {
        let [high, low] = address.halves();
        self.word(high).word(low)
    }

    /// With two ports in network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn ports(self, one: [u8; 2], other: [u8; 2]) -> Self {
        let ([a, b], [c, d]) = (one, other);
        self.word(u32::from_be_bytes([a, b, c, d]) as u64)
    }

    /// The hash.
    #[inline(always)]
    #[must_use]
    pub const fn end(self) -> u64 {
        self.word(START).0
    }
}

impl Default for Hash {
    fn default() -> Self {
        Self::new()
    }
}
