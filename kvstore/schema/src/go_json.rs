//! JSON as Go's `encoding/json` writes and reads it, where that differs from `serde_json`.
//!
//! - Strings: `<`, `>`, `&`, U+2028 and U+2029 are escaped (`json.HTMLEscape`).
//! - Zero values: `null` or an absent field leaves a field empty, 0 or false; it is not an error. See
//!   [`Zero`].
//!
//! Two liberties of Go are not taken, since no writer of Go uses them and another reader might read another
//! record: a field's name in other letter case, and a field that is there twice.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Serializer;
use serde_json::ser::Formatter;

use crate::excerpt::Excerpt;
use crate::rejection::Rejection;

/// The JSON of `value`, without spaces, fields in the order of the type.
pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut json = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut json, GoFormatter);
    value.serialize(&mut serializer).expect("memory takes every write, and all keys of our maps are text");
    json
}

/// Reads a JSON object of at most `max_bytes`. Unknown fields are ignored.
pub(crate) fn decode<T: DeserializeOwned>(json: &[u8], max_bytes: usize) -> Result<T, Rejection> {
    Rejection::check_size(json, max_bytes)?;
    // serde would also take an array of the fields in their order.
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(Rejection::Malformed { value: Excerpt::of_bytes(json) });
    }
    serde_json::from_slice(json)
        .map_err(|error| Rejection::Malformed { value: Excerpt::new(&error.to_string()) })
}

/// A field that is its type's zero value if the JSON has `null` for it. With `#[serde(default)]` on the
/// struct, also if the JSON does not have it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Zero<T>(pub(crate) T);

impl<'de, T: Default + Deserialize<'de>> Deserialize<'de> for Zero<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(|value| Self(value.unwrap_or_default()))
    }
}

impl<T: Default + PartialEq> Zero<T> {
    /// Whether Go's `omitempty` leaves the field out.
    pub(crate) fn is_zero(&self) -> bool {
        self.0 == T::default()
    }
}

struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(position) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, tail) = rest.split_at(position);
            writer.write_all(plain.as_bytes())?;
            let mut characters = tail.chars();
            if let Some(special) = characters.next() {
                write!(writer, "\\u{:04x}", u32::from(special))?;
            }
            rest = characters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(text: &str) -> String {
        String::from_utf8(encode(&text)).unwrap()
    }

    #[test]
    fn strings_are_escaped_as_go_escapes_them() {
        assert_eq!(encoded("a<b>&c"), r#""a\u003cb\u003e\u0026c""#);
        assert_eq!(encoded("\u{2028}x\u{2029}"), r#""\u2028x\u2029""#);
        assert_eq!(
            encoded("\"\\/\n\r\t\u{8}\u{c}\u{1f}\u{7f}ä😀"),
            "\"\\\"\\\\/\\n\\r\\t\\b\\f\\u001f\u{7f}ä😀\""
        );
        assert_eq!(encoded("&&"), r#""\u0026\u0026""#);
    }

    #[test]
    fn null_and_absent_fields_are_zero() {
        #[derive(Debug, Default, Deserialize)]
        #[serde(default)]
        struct Record {
            text: Zero<String>,
            number: Zero<u32>,
        }
        for json in ["{}", r#"{"text":null,"number":null,"other":[{}]}"#] {
            let record: Record = decode(json.as_bytes(), 100).unwrap();
            assert_eq!((record.text.0.as_str(), record.number.0), ("", 0), "{json}");
        }
    }

    #[test]
    fn what_is_no_object_is_malformed() {
        #[derive(Debug, Deserialize)]
        struct Record {
            #[expect(dead_code, reason = "only the reading is tested")]
            number: u32,
        }
        for json in [
            "",
            "null",
            "[1]",
            "7",
            "{",
            r#"{"number":1}x"#,
            r#"{"number":1,"number":1}"#,
            r#"{"number":-1}"#,
        ] {
            assert!(
                matches!(decode::<Record>(json.as_bytes(), 100), Err(Rejection::Malformed { .. })),
                "{json}"
            );
        }
        assert!(decode::<Record>(b" \n{\"number\":1} ", 100).is_ok());
        assert_eq!(
            decode::<Record>(b"{\"number\":1}", 11).unwrap_err(),
            Rejection::TooLarge { size_bytes: 12, max_bytes: 11 }
        );
    }
}
