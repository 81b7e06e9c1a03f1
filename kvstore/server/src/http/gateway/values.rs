//! JSON values one after the other, as they come in.

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use tonic::Status;

/// Finds where a value ends. Only objects are values here: nothing else is a message.
///
/// It counts braces outside of texts, and leaves it to the parser whether the rest makes sense.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    bytes: BytesMut,
    /// How much of `bytes` was looked at.
    looked_at: usize,
    depth: usize,
    text: Text,
}

/// Where in a text the splitter is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Text {
    #[default]
    Outside,
    Inside,
    /// After a backslash.
    Escaped,
}

impl Splitter {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes that wait for the rest of their value.
    pub(super) fn pending(&self) -> usize {
        self.bytes.len()
    }

    /// The next value that is there as a whole.
    ///
    /// # Errors
    /// If the next thing is no object.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Status> {
        if self.looked_at == 0 {
            let blank = self.bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            self.bytes.advance(blank);
        }
        while let Some(byte) = self.bytes.get(self.looked_at).copied() {
            self.looked_at += 1;
            match (self.text, byte) {
                (Text::Inside, b'\\') => self.text = Text::Escaped,
                (Text::Inside, b'"') => self.text = Text::Outside,
                (Text::Escaped, _) | (Text::Outside, b'"') if self.depth > 0 => self.text = Text::Inside,
                (Text::Outside, b'{') => self.depth += 1,
                (Text::Outside, _) if self.depth == 0 => {
                    let what = char::from(byte);
                    return Err(Status::invalid_argument(format!(
                        "proto: syntax error: unexpected token {what}"
                    )));
                }
                (Text::Outside, b'}') => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        let value = self.bytes.split_to(self.looked_at).freeze();
                        self.looked_at = 0;
                        return Ok(Some(value));
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

/// The values of a body.
#[derive(Debug)]
pub(super) struct Values {
    body: Limited<Incoming>,
    splitter: Splitter,
    /// The most bytes of one value.
    largest: usize,
}

impl Values {
    pub(super) fn new(body: Limited<Incoming>, largest: usize) -> Self {
        Self { body, splitter: Splitter::default(), largest }
    }

    /// The next value; nothing at the end of the body. After an error there is nothing more.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        loop {
            match self.splitter.next() {
                Ok(Some(value)) => return Some(Ok(value)),
                Ok(None) => {}
                Err(status) => return Some(Err(status)),
            }
            if self.splitter.pending() > self.largest {
                return Some(Err(too_large()));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.splitter.push(data);
                    }
                }
                Some(Err(error)) if error.is::<LengthLimitError>() => return Some(Err(too_large())),
                Some(Err(error)) => return Some(Err(Status::invalid_argument(error.to_string()))),
                None if self.splitter.pending() > 0 => {
                    self.splitter = Splitter::default();
                    return Some(Err(Status::invalid_argument("unexpected EOF")));
                }
                None => return None,
            }
        }
    }
}

fn too_large() -> Status {
    Status::resource_exhausted("grpc: received message larger than max")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything that comes out, and whether it ended with a refusal.
    fn split<'b>(chunks: impl IntoIterator<Item = &'b [u8]>) -> (Vec<Bytes>, bool) {
        let (mut splitter, mut values) = (Splitter::default(), Vec::new());
        for chunk in chunks {
            splitter.push(chunk);
            loop {
                match splitter.next() {
                    Ok(Some(value)) => values.push(value),
                    Ok(None) => break,
                    Err(_) => return (values, true),
                }
            }
        }
        (values, false)
    }

    #[test]
    fn braces_in_texts_are_not_braces() {
        let (values, _) = split([&br#" {"a":"}\"{"} {"b":{}}{"c"#[..]]);
        assert_eq!(values, [&br#"{"a":"}\"{"}"#[..], br#"{"b":{}}"#]);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for wrong in ["[]", "null", "1", "\"a\"", "}", "{} x"] {
            assert!(split([wrong.as_bytes()]).1, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_network_cuts(
            objects in prop::collection::vec("\\{(\"[a{}\\\\ \"]{0,6}\":1,?){0,3}\\}", 0..4),
            cut in 1_usize..9,
        ) {
            let text = objects.join(" ");
            prop_assert_eq!(split(text.as_bytes().chunks(cut)), split([text.as_bytes()]));
        }

        #[test]
        fn no_bytes_make_it_fail_or_keep_more_than_it_was_given(bytes: Vec<u8>) {
            let (values, _) = split(bytes.chunks(3));
            prop_assert!(values.iter().map(Bytes::len).sum::<usize>() <= bytes.len());
        }

        #[test]
        fn real_objects_come_out_as_they_went_in(keys in prop::collection::vec(".*", 0..5)) {
            let texts: Vec<String> =
                keys.iter().map(|key| serde_json::json!({ key.clone(): [key, { "x": key }] }).to_string()).collect();
            let (values, refused) = split([texts.join("\n").as_bytes()]);
            prop_assert!(!refused);
            let values: Vec<&str> = values.iter().map(|value| std::str::from_utf8(value).unwrap()).collect();
            prop_assert_eq!(values, texts);
        }
    }
}
