//! What became of packets.

use crate::Reason;

/// Where a packet goes, as the pod sees it that it comes from or is for. The numbers are those of Cilium's `metrics` map.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// It arrives at the pod.
    Ingress = 1,
    /// It leaves the pod.
    Egress = 2,
}

impl Direction {
    /// Where the answer goes.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Ingress => Self::Egress,
            Self::Egress => Self::Ingress,
        }
    }
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
