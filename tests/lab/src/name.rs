//! The name of a lab, the one thing that all its traces carry.

use std::fmt;
use std::process;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

/// Longest name in characters: a relay's socket path has to fit the 108 bytes of a Unix socket address.
const MAX_LEN: usize = 32;

/// Names a lab: 1 to 32 lower-case letters, digits and inner hyphens.
///
/// A dot is not allowed, since it separates the lab's name from the host's in the name of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LabName(String);

/// Why a text is no name of a lab.
#[derive(Debug, thiserror::Error)]
#[error("invalid lab name {0:?}: use 1 to {MAX_LEN} lower-case letters, digits and inner hyphens")]
pub struct InvalidLabName(String);

impl LabName {
    /// Returns a name that no other lab of this machine has now: `stem`, this process and a counter.
    ///
    /// # Errors
    /// [`InvalidLabName`] if `stem` is no name by itself or leaves no room for the numbers.
    pub fn unique(stem: &str) -> Result<Self, InvalidLabName> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        format!("{stem}-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)).parse()
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LabName {
    type Err = InvalidLabName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let valid = (1..=MAX_LEN).contains(&text.len())
            && text.bytes().all(allowed)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidLabName(text.to_owned())) }
    }
}

impl TryFrom<String> for LabName {
    type Error = InvalidLabName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<LabName> for String {
    fn from(name: LabName) -> Self {
        name.0
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_break_a_path_are_refused() {
        for text in ["", "-a", "a-", "A", "a.b", "a/b", "..", "a b", &"x".repeat(33)] {
            assert!(text.parse::<LabName>().is_err(), "{text:?}");
        }
        for text in ["a", "demo", "two-clusters", "9", &"x".repeat(32)] {
            assert!(text.parse::<LabName>().is_ok(), "{text:?}");
        }
    }

    #[test]
    fn unique_names_differ() {
        assert_ne!(LabName::unique("t").unwrap(), LabName::unique("t").unwrap());
    }
}
