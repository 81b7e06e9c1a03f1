//! Keys and values: few, so that they meet, and of the shapes that are easily got wrong.

use bytes::Bytes;

use super::{Generator, LARGE_VALUE};

/// Keys that are before, behind, prefixes and neighbours of each other.
const KEYS: [&[u8]; 14] = [
    b"\0",
    b"\0\0",
    b"a",
    b"a\0",
    b"a/",
    b"a/b",
    b"a/\xff",
    b"a0",
    b"b",
    "\u{e9}".as_bytes(),
    b"\x80",
    b"\xff",
    b"\xff\xff",
    b"\xff\xff\x01",
];
/// How many further keys there are below `k/`.
const MANY: u32 = 40;
/// Values that compare with each other in every way.
const VALUES: [&[u8]; 7] = [b"", b"", b"0", b"1", b"10", b"\0", b"\xff\xfe"];

impl Generator {
    /// A key; empty, which is refused, once in a while.
    pub(super) fn key(&mut self) -> Bytes {
        match self.dice.u32(..200) {
            0 => Bytes::new(),
            1..150 => Bytes::from_static(self.pick(&KEYS)),
            _ => format!("k/{:02}", self.dice.u32(..MANY)).into(),
        }
    }

    /// Keys none of which is another.
    pub(super) fn different_keys(&mut self, count: usize) -> Vec<Bytes> {
        let mut keys: Vec<_> = KEYS.iter().map(|key| Bytes::from_static(key)).collect();
        self.dice.shuffle(&mut keys);
        keys.truncate(count);
        keys
    }

    /// The end of a range that begins at `key`.
    pub(super) fn end_of(&mut self, key: &[u8]) -> Bytes {
        match self.dice.u32(..10) {
            0..3 => Bytes::new(),
            3..5 => Bytes::from_static(b"\0"),
            5..7 => prefix_end(key),
            7 => [key, b"\0"].concat().into(),
            // As often before the key as behind it.
            _ => self.key(),
        }
    }

    /// A range, as key and end.
    pub(super) fn key_range(&mut self) -> (Bytes, Bytes) {
        match self.dice.u32(..20) {
            0..3 => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
            3 => (Bytes::from_static(b"k/"), Bytes::from_static(b"k0")),
            _ => {
                let key = self.key();
                let end = self.end_of(&key);
                (key, end)
            }
        }
    }

    pub(super) fn value(&mut self) -> Bytes {
        match self.dice.u32(..100) {
            0 => vec![b'v'; LARGE_VALUE].into(),
            1..20 => self.dice.u32(..1000).to_string().into(),
            _ => Bytes::from_static(self.pick(&VALUES)),
        }
    }
}

/// The first key behind all that begin with `prefix`; all keys from it on if there is none.
fn prefix_end(prefix: &[u8]) -> Bytes {
    let kept = prefix.iter().rposition(|byte| *byte != 0xff);
    let Some(kept) = kept else { return Bytes::from_static(b"\0") };
    let mut end = prefix[..=kept].to_vec();
    end[kept] += 1;
    end.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_behind_all_that_begin_with_it() {
        assert_eq!(&prefix_end(b"a/")[..], b"a0");
        assert_eq!(&prefix_end(b"a\xff")[..], b"b");
        assert_eq!(&prefix_end(b"\xff\xff")[..], b"\0");
        assert_eq!(&prefix_end(b"")[..], b"\0");
    }
}
