//! From the shares of clusters to those of backends.

use std::collections::BTreeMap;

use landbridge_bpf_maps::{Address, Backend};

/// The largest weight of a backend.
const LARGEST: u64 = u16::MAX as u64;

/// Backends, by address and port, of clusters that share connections by weight: each cluster's share is divided among those
/// of its backends that are here. Without weights, or if all are 0, all backends are alike.
///
/// The weights are the smallest whole numbers with the right proportions, rounded if those are too large.
pub(crate) fn shared_out(backends: BTreeMap<(Address, [u8; 2]), (u16, Option<u32>)>) -> Vec<Backend> {
    let mut counts: BTreeMap<u16, u64> = BTreeMap::new();
    for (cluster, _) in backends.values() {
        *counts.entry(*cluster).or_default() += 1;
    }
    // Each cluster's weight can be divided by its number of backends.
    let multiple = counts.values().fold(1, |all, count| match all / gcd(all, *count) * count {
        multiple if multiple <= 1 << 32 => multiple,
        _ => 1 << 32,
    });
    let raw: Vec<u64> = backends
        .values()
        .map(|(cluster, weight)| u64::from(weight.unwrap_or_default()) * multiple / counts[cluster])
        .collect();
    let largest = raw.iter().copied().max().unwrap_or_default();
    let divisor = raw.iter().copied().fold(0, gcd);
    let weight = |raw: u64| {
        if largest == 0 {
            return 1;
        }
        let exact = raw / divisor;
        let weight =
            if largest / divisor <= LARGEST { exact } else { (raw * LARGEST + largest / 2) / largest };
        u16::try_from(weight.max(1)).unwrap_or(u16::MAX)
    };
    let backends = backends.into_iter().zip(raw);
    let backends = backends.map(|(((address, port), (cluster, _)), raw)| Backend {
        weight: weight(raw),
        ..Backend::new(address, port, cluster)
    });
    backends.collect()
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    /// So many backends of each cluster, with the cluster's weight.
    fn weights(clusters: &[(u8, Option<u32>)]) -> Vec<(u16, u16)> {
        let all = (1u8..).zip(clusters).flat_map(|(cluster, (count, weight))| {
            (0..*count).map(move |number| {
                let address = Address::from(Ipv4Addr::new(10, cluster, 0, number));
                ((address, [0, 80]), (u16::from(cluster), *weight))
            })
        });
        shared_out(all.collect()).into_iter().map(|backend| (backend.cluster, backend.weight)).collect()
    }

    #[test]
    fn a_cluster_has_its_share_however_many_backends_it_has() {
        assert_eq!(weights(&[]), []);
        assert_eq!(weights(&[(2, None), (1, None)]), [(1, 1), (1, 1), (2, 1)]);
        assert_eq!(weights(&[(1, Some(90)), (1, Some(10))]), [(1, 9), (2, 1)]);
        assert_eq!(weights(&[(3, Some(90)), (1, Some(10))]), [(1, 3), (1, 3), (1, 3), (2, 1)]);
        assert_eq!(weights(&[(2, Some(50)), (1, Some(50))]), [(1, 1), (1, 1), (2, 2)]);
        assert_eq!(weights(&[(1, Some(0)), (1, Some(0))]), [(1, 1), (2, 1)], "somebody has to");
    }

    proptest! {
        /// Clusters get what they are to have, within a hundredth.
        #[test]
        fn shares_are_right(clusters in proptest::collection::vec((1u8..200, 1u32..1000), 1..9)) {
            let declared: Vec<_> = clusters.iter().map(|(count, weight)| (*count, Some(*weight))).collect();
            let found = weights(&declared);
            let total: f64 = found.iter().map(|(_, weight)| f64::from(*weight)).sum();
            let sum: f64 = clusters.iter().map(|(_, weight)| f64::from(*weight)).sum();
            for (cluster, (_, weight)) in (1u16..).zip(&clusters) {
                let of_cluster = found.iter().filter(|(of, _)| *of == cluster);
                let share: f64 = of_cluster.map(|(_, weight)| f64::from(*weight)).sum::<f64>() / total;
                let fair = f64::from(*weight) / sum;
                prop_assert!((share - fair).abs() < 0.01, "cluster {cluster}: {share} instead of {fair}");
            }
        }
    }
}
