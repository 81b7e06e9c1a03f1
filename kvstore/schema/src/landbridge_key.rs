//! Keys of our own, beside those that Cilium knows.
//!
//! ```text
//! landbridge/shared/…         for peers and own agents: drain, address ranges, certificate requests, …
//! landbridge/local/…          for own agents: policies, pod labels, local services
//! landbridge/health/<node>/…  what the agent of a node sees; its only write, with a lease
//! landbridge/config/…         what clusterctl sets; apiservers only
//! landbridge/lock/…           who does what; apiservers only
//! ```

use std::fmt;

use crate::key::{KeyError, KeyPrefix, elsewhere, invalid, text};
use crate::name::ObjectName;

const ROOT: &str = "landbridge/";

/// The lock of the one replica that publishes and mirrors.
pub const PUBLISHER_LOCK: &str = "landbridge/lock/publisher";

/// A part of our keys with its own readers and writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// Written by the publisher, read by peers and own agents.
    Shared,
    /// Written by the publisher, read by own agents.
    Local,
    /// Written by agents, each below its node's name; read by own agents and the publisher.
    Health,
    /// Written and read by apiservers.
    Config,
    /// Written and read by apiservers.
    Lock,
}

impl Area {
    /// Every area.
    pub const ALL: [Self; 5] = [Self::Shared, Self::Local, Self::Health, Self::Config, Self::Lock];

    /// The segment of the key that stands for the area.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Local => "local",
            Self::Health => "health",
            Self::Config => "config",
            Self::Lock => "lock",
        }
    }

    /// Everything of the area; ends in `/`.
    pub fn prefix(self) -> KeyPrefix {
        KeyPrefix::new(format!("{ROOT}{}/", self.as_str()))
    }
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What the agent of `node` may write; ends in `/`.
pub fn health_prefix(node: &ObjectName) -> KeyPrefix {
    KeyPrefix::new(format!("{}{node}/", Area::Health.prefix()))
}

/// One of our keys.
///
/// Its path is one or more segments of ASCII letters, digits and `-._:`, so that it holds names, addresses
/// and numbers. A segment is never empty, `.` or `..`, and the first one of [`Area::Health`] is the name of a
/// node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LandbridgeKey {
    area: Area,
    path: String,
}

impl LandbridgeKey {
    /// # Errors
    /// [`KeyError::InvalidName`] if `segments` is empty or breaks a rule of the type.
    pub fn new(area: Area, segments: &[&str]) -> Result<Self, KeyError> {
        let path = segments.join("/");
        if segments.iter().any(|segment| segment.contains('/')) || !is_path(area, &path) {
            return Err(invalid(path.as_bytes(), area.as_str()));
        }
        Ok(Self { area, path })
    }

    /// # Errors
    /// [`KeyError`] if it is not one of our keys, or its path breaks a rule of the type.
    pub fn parse(key: &[u8]) -> Result<Self, KeyError> {
        let path = text(key)?.strip_prefix(ROOT).ok_or_else(|| elsewhere(key))?;
        let (area, path) = path.split_once('/').ok_or_else(|| elsewhere(key))?;
        let area =
            Area::ALL.into_iter().find(|known| known.as_str() == area).ok_or_else(|| elsewhere(key))?;
        if !is_path(area, path) {
            return Err(invalid(key, area.as_str()));
        }
        Ok(Self { area, path: path.to_owned() })
    }

    /// The area that the key is in.
    pub const fn area(&self) -> Area {
        self.area
    }

    /// What follows the area's prefix, segment by segment.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.path.split('/')
    }
}

impl fmt::Display for LandbridgeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.area.prefix(), self.path)
    }
}

fn is_path(area: Area, path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    let is_segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(is_plain);
    let starts_with_node = || path.split_once('/').is_some_and(|(node, _)| ObjectName::new(node).is_ok());
    path.split('/').all(is_segment) && (area != Area::Health || starts_with_node())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back() {
        for key in [
            PUBLISHER_LOCK,
            "landbridge/shared/drain",
            "landbridge/health/node-1.eu/peers/10.7.3.9",
            "landbridge/local/pods/shop/cart",
        ] {
            assert_eq!(LandbridgeKey::parse(key.as_bytes()).unwrap().to_string(), key);
        }
        let key = LandbridgeKey::new(Area::Health, &["node-1", "fd00::1"]).unwrap();
        assert_eq!(key.to_string(), "landbridge/health/node-1/fd00::1");
        assert_eq!(key.segments().collect::<Vec<_>>(), ["node-1", "fd00::1"]);
    }

    #[test]
    fn keys_that_are_not_ours_are_refused() {
        for key in [
            "",
            "landbridge",
            "landbridge/",
            "landbridge/shared",
            "landbridge/other/x",
            "cilium/state/x",
            "xlandbridge/shared/a",
        ] {
            assert!(matches!(LandbridgeKey::parse(key.as_bytes()), Err(KeyError::Elsewhere { .. })), "{key}");
        }
        for key in [
            "landbridge/shared/",
            "landbridge/shared/a//b",
            "landbridge/shared/..",
            "landbridge/shared/a/",
            "landbridge/shared/a b",
            "landbridge/health/node-1",
            "landbridge/health/Node/x",
        ] {
            assert!(
                matches!(LandbridgeKey::parse(key.as_bytes()), Err(KeyError::InvalidName { .. })),
                "{key}"
            );
        }
        assert!(LandbridgeKey::new(Area::Shared, &[]).is_err());
        assert!(LandbridgeKey::new(Area::Shared, &["a/b"]).is_err());
    }

    #[test]
    fn the_reports_of_one_node_are_not_those_of_another() {
        let node = ObjectName::new("node-1").unwrap();
        assert!(health_prefix(&node).contains(b"landbridge/health/node-1/peers"));
        assert!(!health_prefix(&node).contains(b"landbridge/health/node-11/peers"));
    }
}
