//! Names of Kubernetes objects, as segments of keys.

use std::fmt;
use std::str::FromStr;

use crate::excerpt::Excerpt;

/// The name of a node, a namespace, a service or an endpoint slice.
///
/// 1 to 253 lower case letters, digits, `-` and `.`, starting and ending with a letter or digit: the
/// characters of a DNS subdomain (RFC 1123 section 2.1; Kubernetes, "Object Names and IDs"), the widest that
/// these objects can have. So it never holds a `/` and is always exactly one segment of a key. Cilium does
/// not check this.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

impl ObjectName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 253;

    /// # Errors
    /// [`InvalidName`] if `name` breaks a rule of the type.
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        let is_edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = name.len() <= Self::MAX_BYTES
            && name.as_bytes().first().is_some_and(is_edge)
            && name.as_bytes().last().is_some_and(is_edge)
            && name.bytes().all(|byte| is_edge(&byte) || matches!(byte, b'-' | b'.'));
        if fits { Ok(Self(name.to_owned())) } else { Err(InvalidName(Excerpt::new(name))) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ObjectName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A text that is not an [`ObjectName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not an object name: up to 253 lower case letters, digits and inner '-' and '.'")]
pub struct InvalidName(pub Excerpt);

/// The name of a namespaced object, written `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespacedName {
    /// The namespace.
    pub namespace: ObjectName,
    /// The name within it.
    pub name: ObjectName,
}

impl NamespacedName {
    /// # Errors
    /// [`InvalidName`] with the part that is not an [`ObjectName`].
    pub fn new(namespace: &str, name: &str) -> Result<Self, InvalidName> {
        Ok(Self { namespace: ObjectName::new(namespace)?, name: ObjectName::new(name)? })
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_segment_of_a_key() {
        for name in ["a", "paris-w3", "node-1.eu.example", "0", &"x".repeat(253)] {
            assert_eq!(ObjectName::new(name).unwrap().to_string(), name);
        }
        for name in ["", ".", "..", "a/b", "/", "a/", "-a", "a.", "A", "a b", "a\n", "ä", &"x".repeat(254)] {
            assert!(ObjectName::new(name).is_err(), "{name:?}");
        }
    }
}
