//! Values from a YAML file, as etcd's `--config-file` takes it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::parse::UsageError;
use super::values::Values;
use super::{find, nearest};

/// Sections, and what stands before the flags' names in them.
const SECTIONS: [(&str, &str); 2] = [("client-transport-security", ""), ("peer-transport-security", "peer-")];

/// A value of the file.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Node {
    Switch(bool),
    Number(i64),
    Fraction(f64),
    Text(String),
    List(Vec<Node>),
    Section(BTreeMap<String, Node>),
    Nothing(()),
}

/// Reads a file.
///
/// # Errors
/// [`UsageError::File`], [`UsageError::Value`].
pub(super) fn read(path: &Path) -> Result<Values, UsageError> {
    let failed = |reason: String| UsageError::File { path: path.to_owned(), reason };
    let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    from_text(&text, failed)
}

fn from_text(text: &str, failed: impl Fn(String) -> UsageError) -> Result<Values, UsageError> {
    let nodes: Option<BTreeMap<String, Node>> =
        serde_saphyr::from_str(text).map_err(|error| failed(error.to_string()))?;
    let mut values = Values::default();
    for (name, node) in nodes.unwrap_or_default() {
        let prefix = SECTIONS.iter().find(|(section, _)| *section == name).map(|(_, prefix)| *prefix);
        match (prefix, node) {
            (Some(prefix), Node::Section(nodes)) => {
                for (name, node) in nodes {
                    take(&mut values, &format!("{prefix}{name}"), &node, &failed)?;
                }
            }
            (_, node) => take(&mut values, &name, &node, &failed)?,
        }
    }
    Ok(values)
}

fn take(
    values: &mut Values,
    name: &str,
    node: &Node,
    failed: &impl Fn(String) -> UsageError,
) -> Result<(), UsageError> {
    // In the clients' section, this flag lacks what its own name begins with.
    let name = if name == "crl-file" { "client-crl-file" } else { name };
    let flag = find(name).ok_or_else(|| {
        let meant = nearest(name).map(|flag| format!(": did you mean {}?", flag.name)).unwrap_or_default();
        failed(format!("{name} is no setting{meant}"))
    })?;
    let Some(value) = text_of(node) else {
        return Err(failed(format!("{name} is a section, and takes one value")));
    };
    if value.is_empty() { Ok(()) } else { values.set(flag, value) }
}

/// A value as it would stand on the command line.
fn text_of(node: &Node) -> Option<String> {
    Some(match node {
        Node::Switch(value) => value.to_string(),
        Node::Number(value) => value.to_string(),
        Node::Fraction(value) => value.to_string(),
        Node::Text(value) => value.clone(),
        Node::Nothing(()) => String::new(),
        Node::List(nodes) => nodes.iter().map(text_of).collect::<Option<Vec<_>>>()?.join(","),
        Node::Section(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Result<Values, UsageError> {
        from_text(text, |reason| UsageError::File { path: "etcd.yaml".into(), reason })
    }

    const SAMPLE: &str = "name: 'm1'\ndata-dir:\nsnapshot-count: 5000\nlog-outputs: [stderr]\nstrict-reconfig-check: true\n\
         client-transport-security:\n  cert-file: a.crt\n  client-cert-auth: true\n\
         peer-transport-security:\n  cert-file: b.crt\n";

    #[test]
    fn the_sample_of_etcd_is_read() {
        let values = values(SAMPLE).unwrap();
        assert_eq!((values.text("name"), values.number("snapshot-count")), ("m1", 5000));
        assert_eq!((values.text("cert-file"), values.text("peer-cert-file")), ("a.crt", "b.crt"));
        assert!(values.switch("client-cert-auth") && !values.is_given("data-dir"));
        assert_eq!(values.list("log-outputs"), ["stderr"]);
    }

    /// Characters that mean something in YAML are as likely as all others together.
    #[test]
    fn a_file_that_was_spoiled_is_read_or_refused_by_name() {
        for seed in 0..5_000 {
            let mut dice = fastrand::Rng::with_seed(seed);
            let mut text: Vec<char> = SAMPLE.chars().collect();
            for _ in 0..dice.u8(1..5) {
                let at = dice.usize(..text.len());
                text[at] = if dice.bool() {
                    char::from(*dice.choice(b":-&*!|>'\"%@`{}[],#\n\t\0 ").unwrap())
                } else {
                    dice.char(..)
                };
            }
            if let Err(error) = values(&text.into_iter().collect::<String>()) {
                assert!(
                    matches!(&error, UsageError::File { .. } | UsageError::Value { .. }),
                    "seed {seed}: {error:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_setting_is_refused() {
        assert!(values("nmae: x").unwrap_err().to_string().contains("did you mean name?"));
        assert!(values("name: {a: b}").is_err());
        assert!(values("snapshot-count: many").is_err());
        assert!(values("- a").is_err());
        assert_eq!(values(""), Ok(Values::default()));
    }
}
