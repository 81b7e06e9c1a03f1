//! Keys and values of the BPF maps: the contract between the kernel side and user space.
//!
//! Every type is `repr(C)` without padding, and its size is asserted: padding would become part of a key.
#![no_std]

/// Declares types whose bytes are their value, with the size the other side relies on.
macro_rules! map_element {
    ($($element:ty => $size:literal),+ $(,)?) => {$(
        const _: () = assert!(size_of::<$element>() == $size);
        #[cfg(feature = "user")]
        #[expect(unsafe_code, reason = "this is how aya is told that a type is plain bytes")]
        // SAFETY: the type is `repr(C)`, has only number fields and, by its size, no padding.
        unsafe impl aya::Pod for $element {}
    )+};
}

/// Where a packet goes, as its interface sees it. The numbers are those of Cilium's `metrics` map.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It arrives at the interface.
    Ingress = 1,
    /// It leaves the interface.
    Egress = 2,
}

/// What became of a packet: 0 for one that was let through, otherwise a drop reason. The numbers are Cilium's
/// (130 and up), so that existing tools print them right.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason(pub u8);

impl Reason {
    /// The packet was let through.
    pub const FORWARDED: Self = Self(0);
}

/// Value of the `METRICS` map, a `BPF_MAP_TYPE_PERCPU_ARRAY`: each CPU counts for itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficCount {
    /// Packets seen.
    pub packets: u64,
    /// Their bytes, link-layer headers included.
    pub bytes: u64,
}

map_element!(TrafficCount => 16);

/// Number of entries of the `METRICS` map: 256 reasons in up to 4 directions.
pub const METRICS_LEN: u32 = 256 * DIRECTIONS;
/// A power of two above the largest [`Direction`], so that an index is a shift and an addition.
const DIRECTIONS: u32 = 4;

/// Position of a count in the `METRICS` map, always below [`METRICS_LEN`].
pub const fn metrics_index(reason: Reason, direction: Direction) -> u32 {
    reason.0 as u32 * DIRECTIONS + direction as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_has_a_place_of_its_own() {
        let mut taken = [false; METRICS_LEN as usize];
        for reason in 0..=u8::MAX {
            for direction in [Direction::Ingress, Direction::Egress] {
                let index = metrics_index(Reason(reason), direction) as usize;
                assert!(!core::mem::replace(&mut taken[index], true), "reason {reason}, {direction:?}");
            }
        }
    }
}
