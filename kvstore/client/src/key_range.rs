//! The keys that start with a prefix, as the API writes them.

/// The keys from `start` to before `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub(crate) start: Vec<u8>,
    /// A single zero byte means no end.
    pub(crate) end: Vec<u8>,
}

impl KeyRange {
    /// The keys that start with `prefix`, all if it is empty.
    pub(crate) fn of_prefix(prefix: &str) -> Self {
        let mut end = prefix.as_bytes().to_vec();
        match end.last_mut() {
            // No byte of UTF-8 is 0xff.
            Some(last) => *last += 1,
            // An empty key is refused; a zero byte is the smallest one there is.
            None => return Self { start: vec![0], end: vec![0] },
        }
        Self { start: prefix.as_bytes().to_vec(), end }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_slice() && (self.end == [0] || key < self.end.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_its_successor_and_none_at_all_never() {
        let range = KeyRange::of_prefix("nodes/a");
        assert_eq!((range.start.as_slice(), range.end.as_slice()), (&b"nodes/a"[..], &b"nodes/b"[..]));
        assert!(
            range.contains(b"nodes/a") && range.contains(b"nodes/a\xff\xff") && !range.contains(b"nodes/b")
        );
        assert!(!range.contains(b"nodes/"));
        assert!(KeyRange::of_prefix("").contains(b"\xff"));
    }
}
