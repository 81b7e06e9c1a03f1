//! Untrusted text, cut and quoted so that it can stand in an error or a log line.

use std::fmt;

/// The start of a text that somebody else wrote, at most [`Excerpt::MAX_BYTES`] of it.
///
/// Displayed in quotes with control characters escaped, so that a peer can neither fill a log nor forge a
/// line of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    text: String,
    cut: bool,
}

impl Excerpt {
    /// How much of the text is kept, in bytes.
    pub const MAX_BYTES: usize = 128;

    pub(crate) fn new(text: &str) -> Self {
        let end = text.floor_char_boundary(Self::MAX_BYTES);
        Self { text: text[..end].to_owned(), cut: end < text.len() }
    }

    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        let end = bytes.len().min(Self::MAX_BYTES);
        let mut excerpt = Self::new(&String::from_utf8_lossy(&bytes[..end]));
        excerpt.cut |= end < bytes.len();
        excerpt
    }

    /// The kept text, as it was.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{}", self.text, if self.cut { "…" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_at_a_character() {
        let excerpt = Excerpt::new(&"ä".repeat(100));
        assert_eq!(excerpt.as_str().len(), Excerpt::MAX_BYTES);
        assert!(excerpt.to_string().ends_with('…'));

        let excerpt = Excerpt::new(&format!("x{}", "ä".repeat(100)));
        assert_eq!(excerpt.as_str().len(), Excerpt::MAX_BYTES - 1);
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(Excerpt::of_bytes(b"a\n\x1b[31m\xff").to_string(), r#""a\n\u{1b}[31m�""#);
    }
}
