//! The documents of a file.

/// One document, preceded by as many empty lines as there are before it in the file, so that places in it are places
/// in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Document(pub(super) String);

/// Splits a file at its document markers. A line that starts with `---` is always one: YAML does not allow it within a
/// scalar (YAML 1.2.2, section 6.7 and 9.1.2). Documents without content are left out.
pub(super) fn split(text: &str) -> Vec<Document> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text); // a byte order mark
    let mut documents = Vec::new();
    let mut current = Document(String::new());
    let mut has_content = false;
    for (line_at, line) in text.split_inclusive('\n').enumerate() {
        if is_marker(line) {
            let next = Document("\n".repeat(line_at));
            let finished = std::mem::replace(&mut current, next);
            documents.extend(has_content.then_some(finished));
            has_content = false;
        }
        has_content |= is_content(line);
        current.0.push_str(line);
    }
    documents.extend(has_content.then_some(current));
    documents
}

fn is_marker(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

/// Whether the line is more than a marker, a comment or a directive.
fn is_content(line: &str) -> bool {
    let rest = if is_marker(line) { &line[3..] } else { line };
    let rest = rest.trim();
    !rest.is_empty() && !rest.starts_with('#') && !rest.starts_with('%') && rest != "..."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_keep_their_lines() {
        let text =
            "# nothing here\n---\nkind: A\n---\n---\n# empty\n--- # comment\nkind: B\ntext: |\n  ---\n";
        let documents: Vec<_> = split(text).into_iter().map(|document| document.0).collect();
        assert_eq!(documents, ["\n---\nkind: A\n", "\n\n\n\n\n\n--- # comment\nkind: B\ntext: |\n  ---\n"]);
        assert_eq!(split("kind: A"), [Document("kind: A".to_owned())]);
        assert_eq!(split("# x\n\n---\n"), []);
        assert_eq!(split("\u{feff}"), split(""));
    }
}
