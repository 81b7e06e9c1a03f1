//! One version of a key, held as the bytes that go to clients.
//!
//! ```text
//! KeyValue ─► one shared allocation:  [0 │ sub revision, 4 bytes]  key  create  mod  version  value  lease
//!                                      only if it is not 0         └──── mvccpb.KeyValue, encoded ─────┘
//! ```
//!
//! Invariants:
//! - The encoding is the one that etcd's encoder writes: fields in their order, those that are 0 or empty left out,
//!   numbers as short as they can be. So equal versions have equal bytes, on all members and in etcd.
//! - A deletion is a version, too: one that has a key and a mod revision and nothing else, which is what etcd tells those
//!   who watch.

mod wire;

use std::fmt;
use std::sync::Arc;

use crate::LeaseId;

/// A key with its value and what etcd's API tells about both: a handle that is cheap to clone, around one allocation.
///
/// Each accessor reads the encoding from its beginning, in some nanoseconds.
#[derive(Clone)]
pub struct KeyValue(Arc<[u8]>);

/// What a [`KeyValue`] holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fields<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Revision of the first put since the key last did not exist; 0 in a deletion.
    pub create_revision: i64,
    /// Revision of the change that made this version.
    pub mod_revision: i64,
    /// How many puts made it since then, from 1; 0 in a deletion.
    pub version: i64,
    /// The value; may be empty.
    pub value: &'a [u8],
    /// The lease that the key goes with.
    pub lease: Option<LeaseId>,
}

/// Bytes that no encoder of a key and its value writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key and its value as etcd encodes them")]
pub struct InvalidKeyValue;

/// Stands before the sub revision. No message begins with it: there is no field 0.
const SUB_REVISION: u8 = 0;
/// The mark and the sub revision.
const PREFIX_LEN: usize = 5;

impl KeyValue {
    /// Holds the encoding of `fields`.
    pub fn new(fields: &Fields<'_>) -> Self {
        Self::with_sub_revision(fields, 0)
    }

    /// The same for the change number `sub_revision`, from 0, of its revision.
    pub fn with_sub_revision(fields: &Fields<'_>, sub_revision: u32) -> Self {
        let prefix = if sub_revision == 0 { 0 } else { PREFIX_LEN };
        // Written in place: the only allocation is the one that stays.
        let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, prefix + wire::encoded_len(fields)).collect();
        if let Some(bytes) = Arc::get_mut(&mut bytes) {
            let (before, encoded) = bytes.split_at_mut(prefix);
            if let Some(number) = before.get_mut(1..) {
                number.copy_from_slice(&sub_revision.to_be_bytes());
            }
            wire::encode(fields, encoded);
        }
        Self(bytes)
    }

    /// Takes over what [`KeyValue::encoded`] returned, for the change number `sub_revision` of its revision.
    ///
    /// # Errors
    /// [`InvalidKeyValue`] if that is not what these bytes are.
    pub fn from_encoded(encoded: &[u8], sub_revision: u32) -> Result<Self, InvalidKeyValue> {
        wire::validate(encoded)?;
        if sub_revision == 0 {
            return Ok(Self(encoded.into()));
        }
        let mut bytes = Vec::with_capacity(PREFIX_LEN + encoded.len());
        bytes.push(SUB_REVISION);
        bytes.extend_from_slice(&sub_revision.to_be_bytes());
        bytes.extend_from_slice(encoded);
        Ok(Self(bytes.into()))
    }

    /// The encoding of `mvccpb.KeyValue`.
    pub fn encoded(&self) -> &[u8] {
        match self.0.first() {
            Some(&SUB_REVISION) => self.0.get(PREFIX_LEN..).unwrap_or_default(),
            _ => &self.0,
        }
    }

    /// Which of the changes of its revision made it, from 0.
    pub fn sub_revision(&self) -> u32 {
        match *self.0 {
            [SUB_REVISION, a, b, c, d, ..] => u32::from_be_bytes([a, b, c, d]),
            _ => 0,
        }
    }

    /// All of it, read at once.
    pub fn fields(&self) -> Fields<'_> {
        wire::fields(self.encoded())
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        wire::key(self.encoded())
    }

    /// The value; may be empty.
    pub fn value(&self) -> &[u8] {
        self.fields().value
    }

    /// Revision of the first put since the key last did not exist; 0 in a deletion.
    pub fn create_revision(&self) -> i64 {
        self.fields().create_revision
    }

    /// Revision of the change that made this version.
    pub fn mod_revision(&self) -> i64 {
        self.fields().mod_revision
    }

    /// How many puts made it since it came to be, from 1; 0 in a deletion.
    pub fn version(&self) -> i64 {
        self.fields().version
    }

    /// The lease that the key goes with.
    pub fn lease(&self) -> Option<LeaseId> {
        self.fields().lease
    }

    /// Whether both are one allocation.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A deletion of `key`.
    pub(crate) fn deletion(key: &[u8], revision: i64, sub_revision: u32) -> Self {
        let fields = Fields { key, mod_revision: revision, ..Fields::default() };
        Self::with_sub_revision(&fields, sub_revision)
    }

    /// What etcd has on disk: the encoding; of a deletion, that of the key alone.
    pub(crate) fn stored_by_etcd(&self) -> &[u8] {
        let encoded = self.encoded();
        if self.is_deletion() { wire::key_field(encoded) } else { encoded }
    }

    /// Whether it says that the key was deleted.
    pub(crate) fn is_deletion(&self) -> bool {
        wire::is_deletion(self.encoded())
    }
}

/// What clients see of both is equal; they do not see the sub revision.
impl PartialEq for KeyValue {
    fn eq(&self, other: &Self) -> bool {
        self.encoded() == other.encoded()
    }
}

impl Eq for KeyValue {}

impl fmt::Debug for KeyValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}, sub revision {}", self.fields(), self.sub_revision())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_encoding_is_that_of_etcd() {
        let lease = LeaseId::new(-1).ok();
        let fields =
            Fields { key: b"k", create_revision: 2, mod_revision: 300, version: 2, value: b"v", lease };
        let lease = [0x30, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let expected = [&b"\x0a\x01k\x10\x02\x18\xac\x02\x20\x02\x2a\x01v"[..], &lease].concat();
        assert_eq!(KeyValue::new(&fields).encoded(), expected);
        assert_eq!(KeyValue::deletion(b"k", 5, 0).encoded(), b"\x0a\x01k\x18\x05");
    }

    #[test]
    fn what_no_encoder_writes_is_refused() {
        let refused: [&[u8]; 9] = [
            b"\x0a",
            b"\x0a\x02k",
            b"\x0a\x00",
            b"\x18\x05\x10\x05",
            b"\x18\x05\x18\x05",
            b"\x18\x85\x00",
            b"\x18\x00",
            b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            b"\x38\x01",
        ];
        for bytes in refused {
            assert_eq!(KeyValue::from_encoded(bytes, 0), Err(InvalidKeyValue), "{bytes:x?}");
        }
    }

    fn any_number() -> impl Strategy<Value = i64> {
        prop_oneof![0i64..300, any::<i64>()]
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_read_again(
            key in prop::collection::vec(any::<u8>(), 0..300),
            value in prop::collection::vec(any::<u8>(), 0..300),
            numbers in prop::array::uniform4(any_number()),
            sub_revision in prop_oneof![Just(0), any::<u32>()],
        ) {
            let [create_revision, mod_revision, version, lease] = numbers;
            let lease = LeaseId::new(lease).ok();
            let fields = Fields { key: &key, create_revision, mod_revision, version, value: &value, lease };
            let kv = KeyValue::with_sub_revision(&fields, sub_revision);
            prop_assert_eq!(kv.fields(), fields);
            prop_assert_eq!((kv.key(), kv.sub_revision()), (&key[..], sub_revision));
            prop_assert_eq!(kv.is_deletion(), create_revision == 0 && version == 0 && value.is_empty());
            let copy = KeyValue::from_encoded(kv.encoded(), sub_revision).unwrap();
            prop_assert_eq!(copy.0, kv.0);
        }

        /// Whatever bytes come, they are refused or are exactly what would be written.
        #[test]
        fn no_bytes_are_read_in_two_ways(bytes in prop::collection::vec(prop_oneof![
            prop::sample::select(vec![0u8, 1, 2, 0x0a, 0x10, 0x18, 0x20, 0x2a, 0x30, 0x80]), any::<u8>(),
        ], 0..24)) {
            if let Ok(kv) = KeyValue::from_encoded(&bytes, 0) {
                let copy = KeyValue::new(&kv.fields());
                prop_assert_eq!(copy.encoded(), &bytes[..]);
            }
        }
    }
}
