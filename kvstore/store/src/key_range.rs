//! Which keys a request is about.

use std::ops::Bound;

use bytes::Bytes;

/// The end that stands for "no end" in etcd's API.
const NO_END: &[u8] = &[0];

/// Where a range begins and ends.
type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// A set of keys, as etcd's pair of `key` and `range_end` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRange {
    /// Just this key.
    Single(Bytes),
    /// From the first key, included, to the second, not included. Empty if the end is not above the start.
    Between(Bytes, Bytes),
    /// This key and all above.
    From(Bytes),
}

impl KeyRange {
    /// Reads etcd's form: no end is one key, an end of one zero byte is everything from the key on.
    pub fn new(key: Bytes, range_end: Bytes) -> Self {
        match &range_end[..] {
            [] => Self::Single(key),
            NO_END => Self::From(key),
            _ => Self::Between(key, range_end),
        }
    }

    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        let start = Bytes::copy_from_slice(prefix);
        // The first key above all of them: the last byte that can grow does, what is behind it goes.
        match prefix.iter().rposition(|byte| *byte < 0xff) {
            Some(last) => {
                let mut end = prefix[..=last].to_vec();
                end[last] += 1;
                Self::Between(start, end.into())
            }
            None => Self::From(start),
        }
    }

    /// Whether `key` is one of them.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Single(only) => only == key,
            Self::Between(start, end) => **start <= *key && *key < **end,
            Self::From(start) => **start <= *key,
        }
    }

    /// Whether no key can be one of them.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Between(start, end) if start >= end)
    }

    /// The bounds for an ordered map, or nothing if the range is empty.
    pub(crate) fn bounds(&self) -> Option<Bounds<'_>> {
        match self {
            Self::Single(key) => Some((Bound::Included(key), Bound::Included(key))),
            Self::Between(start, end) if start < end => Some((Bound::Included(start), Bound::Excluded(end))),
            Self::Between(..) => None,
            Self::From(start) => Some((Bound::Included(start), Bound::Unbounded)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_end_of_one_zero_byte_is_no_end() {
        let range = |key: &'static [u8], end: &'static [u8]| KeyRange::new(key.into(), end.into());
        assert!(range(b"a", b"\0").contains(b"\xff\xff"));
        assert!(!range(b"a", b"").contains(b"a\0"));
        assert!(range(b"b", b"a").is_empty());
        assert!(!range(b"a", b"b").contains(b"b"));
        assert_eq!(KeyRange::prefix(b"\xff\xff"), KeyRange::From((&b"\xff\xff"[..]).into()));
        assert_eq!(KeyRange::prefix(b"a\xff"), range(b"a\xff", b"b"));
    }

    proptest! {
        #[test]
        fn a_prefix_holds_exactly_the_keys_that_begin_with_it(
            prefix in prop::collection::vec(0xfcu8..=0xff, 0..3),
            key in prop::collection::vec(0xfcu8..=0xff, 0..4),
        ) {
            prop_assert_eq!(KeyRange::prefix(&prefix).contains(&key), key.starts_with(&prefix));
        }
    }
}
