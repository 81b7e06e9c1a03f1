//! Errors as text, for logs and answers.

use std::error::Error;

/// An error and its causes, each after a colon. Libraries that repeat their causes say everything once here too.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}
