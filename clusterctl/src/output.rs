//! How results are printed: a table for people, JSON for programs.

use std::io::{self, ErrorKind, Write};
use std::{env, fmt};

use anyhow::Context;
use clap::ValueEnum;
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

/// The form of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns.
    Table,
    /// One JSON document.
    Json,
}

/// Prints a line.
///
/// # Errors
/// Whatever standard output answers; see [`is_closed_pipe`].
pub(crate) fn say(line: fmt::Arguments<'_>) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("cannot write to standard output")
}

/// Whether an error says that the reader of our output has gone, as `head` does: a reason to end, not to complain.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == ErrorKind::BrokenPipe)
}

/// Prints rows under a header, with columns as wide as they need to be.
pub(crate) fn print_table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    say(format_args!("{}", lines.join("\n")))
}

/// Prints a value as JSON.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    say(format_args!("{}", serde_json::to_string_pretty(value).context("cannot write the result as JSON")?))
}

/// Text that somebody else wrote, made safe for a terminal: characters that control it, or reorder others, become visible.
pub(crate) fn escaped(text: &str) -> String {
    let visible = |char: char| {
        if char.is_control() || is_reordering(char) {
            char.escape_default().to_string()
        } else {
            char.to_string()
        }
    };
    text.chars().map(visible).collect()
}

/// Whether a character changes the order that those around it are shown in (Unicode, UAX #9, section 2).
fn is_reordering(char: char) -> bool {
    matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The same for text of several lines, which stay lines.
pub(crate) fn escaped_lines(text: &str) -> String {
    text.split('\n').map(escaped).collect::<Vec<_>>().join("\n")
}

/// What stands before a line that says how a step went: a tick or a cross, words where the locale has neither.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mark {
    /// It went well.
    Good,
    /// It did not.
    Bad,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self, has_unicode()) {
            (Self::Good, true) => "✓",
            (Self::Bad, true) => "✗",
            (Self::Good, false) => "ok",
            (Self::Bad, false) => "FAIL",
        })
    }
}

/// Whether the locale is one of UTF-8; the first variable that is set decides (POSIX, "Environment Variables").
fn has_unicode() -> bool {
    let set =
        ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(env::var_os).find(|value| !value.is_empty());
    let locale = set.map(|value| value.to_string_lossy().to_lowercase()).unwrap_or_default();
    locale.contains("utf-8") || locale.contains("utf8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_controls_no_terminal() {
        assert_eq!(escaped("a\u{1b}[2J\r\n\u{202e}ä"), "a\\u{1b}[2J\\r\\n\\u{202e}ä");
        assert_eq!(escaped_lines("two\nlines\u{7}"), "two\nlines\\u{7}");
    }
}
