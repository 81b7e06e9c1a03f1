//! What became of packets.

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

/// What became of a packet: 0 for one that was let through, otherwise a drop reason. The numbers are Cilium's
/// (130 and up), so that existing tools print them right.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reason(pub u8);

impl Reason {
    /// The packet was let through.
    pub const FORWARDED: Self = Self(0);
    /// The source address is not the sender's.
    pub const INVALID_SOURCE: Self = Self(132);
    /// No policy allows it.
    pub const POLICY_DENIED: Self = Self(133);
    /// A header is cut off or contradicts itself.
    pub const INVALID_PACKET: Self = Self(134);
    /// Neither IPv4 nor ARP.
    pub const UNSUPPORTED_PROTOCOL: Self = Self(139);
    /// The kernel refuses to change the packet.
    pub const WRITE_FAILED: Self = Self(141);
    /// What came through the tunnel has no key.
    pub const INVALID_TUNNEL_KEY: Self = Self(147);
    /// The destination is not here.
    pub const UNKNOWN_TARGET: Self = Self(150);
    /// The connection cannot be remembered, so that its replies would be dropped.
    pub const CONNECTION_NOT_TRACKED: Self = Self(155);
    /// A fragment: all but the first have no ports.
    pub const FRAGMENT_UNSUPPORTED: Self = Self(157);
    /// A service has no backend.
    pub const NO_SERVICE_BACKEND: Self = Self(158);
    /// The tunnel has no other end.
    pub const NO_TUNNEL_ENDPOINT: Self = Self(160);
    /// The identity in a tunnel is not one that its sender may use.
    pub const INVALID_IDENTITY: Self = Self(171);
    /// A tunnel's other end is not the node that the sender is on.
    pub const UNKNOWN_SENDER: Self = Self(172);
    /// A policy denies it.
    pub const POLICY_DENIED_BY_DENYLIST: Self = Self(181);
    /// It was forwarded too often.
    pub const TTL_EXCEEDED: Self = Self(196);
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
