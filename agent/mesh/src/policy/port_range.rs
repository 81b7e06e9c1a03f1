//! Ranges of ports as what the map of rules can hold.

use std::iter;
use std::ops::RangeInclusive;

use landbridge_bpf_maps::PolicyKey;

/// The fewest prefixes that hold the ports of a range and no others: the first port of each, and how many of its bits count.
pub(super) fn prefixes(ports: RangeInclusive<u16>) -> impl Iterator<Item = (u16, u8)> {
    let (mut next, end) = (u32::from(*ports.start()), u32::from(*ports.end()) + 1);
    iter::from_fn(move || {
        let first = u16::try_from(next).ok()?;
        let left = end.checked_sub(next).filter(|left| *left > 0)?;
        // As large as where it begins and what is left allow.
        let wild = next.trailing_zeros().min(left.ilog2()).min(u16::BITS);
        next += 1 << wild;
        let bits = u8::try_from(u16::BITS - wild).ok()?;
        Some((first, bits.min(PolicyKey::ONE_PORT)))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_split_where_their_bits_end() {
        let of = |ports| prefixes(ports).collect::<Vec<_>>();
        assert_eq!(of(80..=80), [(80, 16)]);
        assert_eq!(of(80..=83), [(80, 14)]);
        assert_eq!(of(1024..=65535), [(1024, 6), (2048, 5), (4096, 4), (8192, 3), (16384, 2), (32768, 1)]);
        assert_eq!(of(1..=4), [(1, 16), (2, 15), (4, 16)]);
        assert_eq!(of(0..=u16::MAX), [(0, 0)]);
    }

    proptest! {
        /// Every port of the range is in exactly one prefix, and no other port in any.
        #[test]
        fn prefixes_hold_the_range_and_nothing_else(first: u16, length: u16, other: u16) {
            let ports = first..=first.saturating_add(length);
            let holding = |port: u16| prefixes(ports.clone()).filter(|(start, bits)| {
                let start = u32::from(*start);
                (start..start + (1 << (16 - bits))).contains(&port.into())
            }).count();
            for port in [*ports.start(), *ports.end(), other] {
                prop_assert_eq!(holding(port), usize::from(ports.contains(&port)));
            }
        }
    }
}
