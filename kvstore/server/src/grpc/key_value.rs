//! `mvccpb.KeyValue` as the store holds it: the bytes of a message, copied into each reply and never encoded again.

use std::hash::{Hash, Hasher};

use bytes::{Buf, BufMut, Bytes};
use landbridge_kvstore_store::{Fields, KeyValue, LeaseId};
use prost::encoding::{self, DecodeContext, WireType, encode_key, encode_varint, int64, key_len, skip_field};
use prost::{DecodeError, Message};

/// Numbers of the fields in `mvccpb.KeyValue`.
mod tag {
    pub(super) const KEY: u32 = 1;
    pub(super) const CREATE_REVISION: u32 = 2;
    pub(super) const MOD_REVISION: u32 = 3;
    pub(super) const VERSION: u32 = 4;
    pub(super) const VALUE: u32 = 5;
    pub(super) const LEASE: u32 = 6;
}

/// A key with its value in a message. Without one, all of its fields are empty.
#[derive(Clone, Debug, Default)]
pub struct KeyValueMessage {
    record: Option<KeyValue>,
    without_value: bool,
}

/// Messages are equal if what they say is.
impl PartialEq for KeyValueMessage {
    fn eq(&self, other: &Self) -> bool {
        self.fields() == other.fields()
    }
}

impl Eq for KeyValueMessage {}

impl Hash for KeyValueMessage {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fields().hash(state);
    }
}

impl From<KeyValue> for KeyValueMessage {
    fn from(kv: KeyValue) -> Self {
        Self { record: Some(kv), without_value: false }
    }
}

impl KeyValueMessage {
    /// The same without the value, which `keys_only` asks for.
    pub fn keys_only(kv: KeyValue) -> Self {
        Self { record: Some(kv), without_value: true }
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        self.record.as_ref().map_or(&[], KeyValue::key)
    }

    /// The value, empty if it is left out.
    pub fn value(&self) -> &[u8] {
        self.fields().value
    }

    /// Revision of the first put since the key last did not exist; 0 in a deletion.
    pub fn create_revision(&self) -> i64 {
        self.fields().create_revision
    }

    /// Revision of the last change.
    pub fn mod_revision(&self) -> i64 {
        self.fields().mod_revision
    }

    /// How many puts there were since it came to be; 0 in a deletion.
    pub fn version(&self) -> i64 {
        self.fields().version
    }

    /// The number of its lease, 0 for none.
    pub fn lease(&self) -> i64 {
        self.fields().lease.map_or(0, LeaseId::get)
    }

    fn fields(&self) -> Fields<'_> {
        let fields = self.record.as_ref().map(KeyValue::fields).unwrap_or_default();
        if self.without_value { Fields { value: &[], ..fields } } else { fields }
    }

    fn encoded(&self) -> &[u8] {
        self.record.as_ref().map_or(&[], KeyValue::encoded)
    }
}

fn encode_bytes(tag: u32, bytes: &[u8], buf: &mut impl BufMut) {
    if !bytes.is_empty() {
        encode_key(tag, WireType::LengthDelimited, buf);
        encode_varint(bytes.len() as u64, buf);
        buf.put_slice(bytes);
    }
}

fn encode_number(tag: u32, number: i64, buf: &mut impl BufMut) {
    if number != 0 {
        int64::encode(tag, &number, buf);
    }
}

impl Message for KeyValueMessage {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if !self.without_value {
            return buf.put_slice(self.encoded());
        }
        let fields = self.fields();
        encode_bytes(tag::KEY, fields.key, buf);
        encode_number(tag::CREATE_REVISION, fields.create_revision, buf);
        encode_number(tag::MOD_REVISION, fields.mod_revision, buf);
        encode_number(tag::VERSION, fields.version, buf);
        encode_number(tag::LEASE, self.lease(), buf);
    }

    fn encoded_len(&self) -> usize {
        let whole = self.encoded().len();
        let value = self.record.as_ref().filter(|_| self.without_value).map_or(&[][..], KeyValue::value);
        if value.is_empty() {
            return whole;
        }
        whole - key_len(tag::VALUE) - prost::length_delimiter_len(value.len()) - value.len()
    }

    // Only clients read such messages, so that it may take a copy for each field.
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        let mut contents = Bytes::new();
        let mut number = 0;
        match tag {
            tag::KEY | tag::VALUE => encoding::bytes::merge(wire_type, &mut contents, buf, context)?,
            tag::CREATE_REVISION | tag::MOD_REVISION | tag::VERSION | tag::LEASE => {
                int64::merge(wire_type, &mut number, buf, context)?;
            }
            _ => return skip_field(wire_type, tag, buf, context),
        }
        let mut fields = self.fields();
        match tag {
            tag::KEY => fields.key = &contents,
            tag::VALUE => fields.value = &contents,
            tag::CREATE_REVISION => fields.create_revision = number,
            tag::MOD_REVISION => fields.mod_revision = number,
            tag::VERSION => fields.version = number,
            _ => fields.lease = LeaseId::new(number).ok(),
        }
        *self = KeyValue::new(&fields).into();
        Ok(())
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost_reflect::{DescriptorPool, DynamicMessage, Value};

    use super::*;

    proptest! {
        /// What is written is what any other encoder writes, and what is read is what was written.
        #[test]
        fn the_message_is_the_one_of_the_protocol(
            key in prop::collection::vec(any::<u8>(), 0..200),
            value in prop::collection::vec(any::<u8>(), 0..200),
            numbers in prop::array::uniform4(prop_oneof![Just(0), any::<i64>()]),
            keys_only in any::<bool>(),
        ) {
            let [create_revision, mod_revision, version, lease] = numbers;
            let fields = Fields {
                key: &key, create_revision, mod_revision, version, value: &value, lease: LeaseId::new(lease).ok(),
            };
            let kv = KeyValue::new(&fields);
            let message = if keys_only { KeyValueMessage::keys_only(kv) } else { kv.into() };
            let bytes = message.encode_to_vec();
            prop_assert_eq!(message.encoded_len(), bytes.len());

            let files = protox::compile(["etcd/mvccpb.proto"], ["proto"]).unwrap();
            let pool = DescriptorPool::from_file_descriptor_set(files).unwrap();
            let mut other = DynamicMessage::new(pool.get_message_by_name("mvccpb.KeyValue").unwrap());
            other.set_field_by_name("key", Value::Bytes(key.into()));
            if !keys_only {
                other.set_field_by_name("value", Value::Bytes(value.into()));
            }
            for (name, number) in
                [("create_revision", create_revision), ("mod_revision", mod_revision), ("version", version), ("lease", lease)]
            {
                other.set_field_by_name(name, Value::I64(number));
            }
            prop_assert_eq!(&bytes, &other.encode_to_vec());
            let read = KeyValueMessage::decode(&bytes[..]).unwrap();
            prop_assert_eq!(read.fields(), message.fields());
            prop_assert_eq!(read.encode_to_vec(), bytes);
        }
    }
}
