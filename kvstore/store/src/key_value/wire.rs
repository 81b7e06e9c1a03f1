//! The protocol buffers encoding of `mvccpb.KeyValue`, written and read by hand: bytes of a length that is known before,
//! and fields that are slices of what is there.

use super::{Fields, InvalidKeyValue};
use crate::LeaseId;

/// Number of the field, shifted left by three, and its form: 2 for bytes, 0 for numbers.
mod tag {
    pub(super) const KEY: u8 = 0x0a;
    pub(super) const CREATE_REVISION: u8 = 0x10;
    pub(super) const MOD_REVISION: u8 = 0x18;
    pub(super) const VERSION: u8 = 0x20;
    pub(super) const VALUE: u8 = 0x2a;
    pub(super) const LEASE: u8 = 0x30;
}

/// Bytes of a number.
fn varint_len(number: u64) -> usize {
    // Seven bits each, at least one byte.
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

fn bytes_len(bytes: &[u8]) -> usize {
    if bytes.is_empty() { 0 } else { 1 + varint_len(bytes.len() as u64) + bytes.len() }
}

fn number_len(number: i64) -> usize {
    if number == 0 { 0 } else { 1 + varint_len(number.cast_unsigned()) }
}

pub(super) fn encoded_len(fields: &Fields<'_>) -> usize {
    bytes_len(fields.key)
        + number_len(fields.create_revision)
        + number_len(fields.mod_revision)
        + number_len(fields.version)
        + bytes_len(fields.value)
        + number_len(fields.lease.map_or(0, LeaseId::get))
}

/// Writes into `out`, which has exactly the length that is needed.
pub(super) fn encode(fields: &Fields<'_>, out: &mut [u8]) {
    let mut writer = Writer { out, at: 0 };
    writer.bytes(tag::KEY, fields.key);
    writer.number(tag::CREATE_REVISION, fields.create_revision);
    writer.number(tag::MOD_REVISION, fields.mod_revision);
    writer.number(tag::VERSION, fields.version);
    writer.bytes(tag::VALUE, fields.value);
    writer.number(tag::LEASE, fields.lease.map_or(0, LeaseId::get));
}

struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn bytes(&mut self, tag: u8, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.byte(tag);
            self.varint(bytes.len() as u64);
            self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
            self.at += bytes.len();
        }
    }

    fn number(&mut self, tag: u8, number: i64) {
        if number != 0 {
            self.byte(tag);
            self.varint(number.cast_unsigned());
        }
    }

    fn varint(&mut self, mut number: u64) {
        loop {
            let [low, ..] = number.to_le_bytes();
            number >>= 7;
            if number == 0 {
                return self.byte(low & 0x7f);
            }
            self.byte(low | 0x80);
        }
    }

    fn byte(&mut self, byte: u8) {
        self.out[self.at] = byte;
        self.at += 1;
    }
}

/// The key, without a look at the rest.
pub(super) fn key(encoded: &[u8]) -> &[u8] {
    let mut reader = Reader(encoded);
    reader.bytes(tag::KEY).unwrap_or_default()
}

/// The key with its tag and length.
pub(super) fn key_field(encoded: &[u8]) -> &[u8] {
    let mut reader = Reader(encoded);
    let _key = reader.bytes(tag::KEY);
    &encoded[..encoded.len() - reader.0.len()]
}

/// Whether a version has no more than a deletion has: a key and when.
pub(super) fn is_deletion(encoded: &[u8]) -> bool {
    let mut reader = Reader(encoded);
    let _key = reader.bytes(tag::KEY);
    // A create revision comes next in all that was ever put.
    if reader.0.first() == Some(&tag::CREATE_REVISION) {
        return false;
    }
    let rest = fields(reader.0);
    rest.version == 0 && rest.value.is_empty()
}

/// All fields of what [`validate`] admits; of anything else, some of them.
pub(super) fn fields(encoded: &[u8]) -> Fields<'_> {
    let mut reader = Reader(encoded);
    reader.fields().unwrap_or_default()
}

/// Checks that these bytes are what [`encode`] writes.
pub(super) fn validate(encoded: &[u8]) -> Result<(), InvalidKeyValue> {
    let mut reader = Reader(encoded);
    reader.fields()?;
    if reader.0.is_empty() { Ok(()) } else { Err(InvalidKeyValue) }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn fields(&mut self) -> Result<Fields<'a>, InvalidKeyValue> {
        Ok(Fields {
            key: self.bytes(tag::KEY)?,
            create_revision: self.number(tag::CREATE_REVISION)?,
            mod_revision: self.number(tag::MOD_REVISION)?,
            version: self.number(tag::VERSION)?,
            value: self.bytes(tag::VALUE)?,
            lease: LeaseId::new(self.number(tag::LEASE)?).ok(),
        })
    }

    /// The field `tag` if it comes next, else that it is empty.
    fn bytes(&mut self, tag: u8) -> Result<&'a [u8], InvalidKeyValue> {
        if !self.begins(tag) {
            return Ok(&[]);
        }
        let len = usize::try_from(self.varint()?).map_err(|_| InvalidKeyValue)?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(InvalidKeyValue)?;
        self.0 = rest;
        if bytes.is_empty() { Err(InvalidKeyValue) } else { Ok(bytes) }
    }

    fn number(&mut self, tag: u8) -> Result<i64, InvalidKeyValue> {
        if !self.begins(tag) {
            return Ok(0);
        }
        match self.varint()? {
            0 => Err(InvalidKeyValue),
            number => Ok(number.cast_signed()),
        }
    }

    fn begins(&mut self, tag: u8) -> bool {
        match self.0.split_first() {
            Some((first, rest)) if *first == tag => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn varint(&mut self) -> Result<u64, InvalidKeyValue> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(InvalidKeyValue)?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            number |= bits << shift;
            if byte & 0x80 == 0 {
                // Neither more bits than there are, nor a byte that says nothing.
                let fits = (bits << shift) >> shift == bits && (*byte != 0 || shift == 0);
                return if fits { Ok(number) } else { Err(InvalidKeyValue) };
            }
        }
        Err(InvalidKeyValue)
    }
}
