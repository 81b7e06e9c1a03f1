//! Upstream versions of etcd, as Debian packages and cache folders name them.

use std::fmt;

/// `major.minor.patch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EtcdVersion(pub(crate) u32, pub(crate) u32, pub(crate) u32);

/// The oldest etcd that benches should be compared with; Debian 12 itself has 3.4.
pub(crate) const WANTED_BY_BENCHES: EtcdVersion = EtcdVersion(3, 5, 0);

impl EtcdVersion {
    /// Parses a Debian package version, `[epoch:]upstream[+repack][-revision]` (Debian Policy 5.6.12), or an upstream version alone.
    pub(crate) fn parse(version: &str) -> Option<Self> {
        let without_epoch = version.trim().split_once(':').map_or(version.trim(), |(_, rest)| rest);
        let upstream = without_epoch.split(['-', '+', '~']).next()?;
        let mut numbers = upstream.split('.').map(|number| number.parse::<u32>().ok());
        let parsed = Self(numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(parsed)
    }

    /// The name of its folder among the peers in the cache.
    pub(crate) fn folder(self) -> String {
        format!("etcd-{self}")
    }

    /// The inverse of [`Self::folder`].
    pub(crate) fn from_folder(name: &str) -> Option<Self> {
        Self::parse(name.strip_prefix("etcd-")?)
    }
}

impl fmt::Display for EtcdVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_upstream_part_of_a_package_version_counts() {
        for text in ["3.4.23-4+b4", "1:3.4.23-4", "3.4.23+dfsg-1", "3.4.23~rc1-1", "3.4.23\n"] {
            assert_eq!(EtcdVersion::parse(text), Some(EtcdVersion(3, 4, 23)), "{text}");
        }
        for text in ["", "3.4", "3.4.x", "3.4.5.6"] {
            assert_eq!(EtcdVersion::parse(text), None, "{text}");
        }
    }

    #[test]
    fn folders_carry_the_version_and_compare_by_number() {
        let version = EtcdVersion(3, 10, 2);
        assert_eq!(EtcdVersion::from_folder(&version.folder()), Some(version));
        assert_eq!(EtcdVersion::from_folder("etcd"), None);
        assert!(version > WANTED_BY_BENCHES && WANTED_BY_BENCHES > EtcdVersion(3, 4, 23));
    }
}
