//! A page of a listing, checked: stores of other clusters are not trusted to make sense.

use etcd_client::proto::{PbKeyValue, PbRangeResponse};

use crate::key_range::KeyRange;
use crate::key_value::{Header, KeyValue};

/// Keys of a page. A page costs the store a count of all keys behind it, and a client the memory of its values.
pub(crate) const PAGE_KEYS: i64 = 500;

/// Where a listing goes on: at this key, in the store as it was at this revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) start: Vec<u8>,
    pub(crate) revision: i64,
}

/// A part of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// Its revision is that of the store now, not of the page.
    pub(crate) header: Header,
    pub(crate) key_values: Vec<KeyValue>,
    /// Keys that are not UTF-8.
    pub(crate) skipped: Vec<Vec<u8>>,
    /// The key that the next page starts at, if there is one.
    pub(crate) next: Option<Vec<u8>>,
}

impl Page {
    /// The page of `range` from `start` on.
    pub(crate) fn from_wire(
        range: &KeyRange,
        start: &[u8],
        wire: PbRangeResponse,
    ) -> Result<Self, &'static str> {
        let header = Header::from_wire(wire.header.as_ref()).ok_or("it does not name its cluster")?;
        let keys = || wire.kvs.iter().map(|kv| kv.key.as_slice());
        if !keys().all(|key| range.contains(key) && key >= start) {
            return Err("it lists a key that was not asked for");
        }
        if !keys().is_sorted_by(|a, b| a < b) {
            return Err("its keys are not in order");
        }
        let next = match wire.kvs.last() {
            Some(last) if wire.more => Some([last.key.as_slice(), &[0]].concat()),
            None if wire.more => return Err("more is said to follow an empty page"),
            _ => None,
        };
        let (key_values, skipped) = split(wire.kvs);
        Ok(Self { header, key_values, skipped, next })
    }
}

/// Returns the ones with a readable key, and the keys of the others.
fn split(wire: Vec<PbKeyValue>) -> (Vec<KeyValue>, Vec<Vec<u8>>) {
    let mut skipped = Vec::new();
    let key_values =
        wire.into_iter().filter_map(|kv| KeyValue::from_wire(kv).map_err(|key| skipped.push(key)).ok());
    (key_values.collect(), skipped)
}

#[cfg(test)]
mod tests {
    use etcd_client::proto::PbResponseHeader;

    use super::*;

    fn page(keys: &[&[u8]], more: bool) -> Result<Page, &'static str> {
        let header = PbResponseHeader { cluster_id: 1, revision: 7, ..PbResponseHeader::default() };
        let kvs = keys.iter().map(|key| PbKeyValue { key: key.to_vec(), ..PbKeyValue::default() }).collect();
        let wire = PbRangeResponse { header: Some(header), kvs, more, count: 9 };
        Page::from_wire(&KeyRange::of_prefix("k/"), b"k/b", wire)
    }

    #[test]
    fn the_next_page_starts_right_behind_the_last_key_readable_or_not() {
        let page = page(&[b"k/b", b"k/c\xff"], true).unwrap();
        assert_eq!(page.key_values.len(), 1);
        assert_eq!(page.skipped, [b"k/c\xff"]);
        assert_eq!(page.next.as_deref(), Some(&b"k/c\xff\0"[..]));
    }

    #[test]
    fn a_page_that_would_never_end_or_was_not_asked_for_is_refused() {
        page(&[], true).unwrap_err();
        page(&[b"k/c", b"k/c"], true).unwrap_err();
        page(&[b"k/a"], false).unwrap_err();
        page(&[b"l"], false).unwrap_err();
        Page::from_wire(&KeyRange::of_prefix("k/"), b"k/", PbRangeResponse::default()).unwrap_err();
        page(&[], false).unwrap();
    }
}
