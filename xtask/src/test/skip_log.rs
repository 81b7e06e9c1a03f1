//! What tests that cannot run here leave behind: one JSON line each, in the file that a variable names.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::Deserialize;

use crate::workspace;

/// The variable that tells tests where the file is.
pub(crate) const VARIABLE: &str = "LANDBRIDGE_SKIP_LOG";

/// A test that could not run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) struct Skip {
    /// What it needs: `ebpf`, `namespaces`, `etcd`, …
    pub(crate) group: String,
    pub(crate) test: String,
    pub(crate) reason: String,
}

/// A line that is not a skip; it may hide one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {number} of the skip log is not a skip: {line:?}")]
pub(crate) struct UnreadableSkip {
    number: usize,
    line: String,
}

/// The file, made anew for each run.
pub(crate) struct SkipLog {
    path: PathBuf,
}

impl SkipLog {
    pub(crate) fn create() -> anyhow::Result<Self> {
        let folder = workspace::target_dir().join("skips");
        // Two runs at once, of another toolchain for example, have a file each.
        let path = folder.join(format!("{}.jsonl", std::process::id()));
        let context = || format!("cannot make the skip log {}", path.display());
        fs::create_dir_all(&folder).with_context(context)?;
        fs::write(&path, "").with_context(context)?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn read(&self) -> anyhow::Result<Result<Vec<Skip>, UnreadableSkip>> {
        let text = fs::read_to_string(&self.path);
        Ok(parse(&text.with_context(|| format!("cannot read the skip log {}", self.path.display()))?))
    }
}

impl Drop for SkipLog {
    fn drop(&mut self) {
        // Everything in it was printed.
        let _ = fs::remove_file(&self.path);
    }
}

/// The skips in a log, in order; a line that is repeated counts once.
fn parse(text: &str) -> Result<Vec<Skip>, UnreadableSkip> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let skips = lines.map(|(index, line)| {
        serde_json::from_str(line).map_err(|_| UnreadableSkip { number: index + 1, line: line.to_owned() })
    });
    let mut skips = skips.collect::<Result<Vec<Skip>, _>>()?;
    skips.sort();
    skips.dedup();
    Ok(skips)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_line_counts_once() {
        let line = |test: &str| format!(r#"{{"group":"etcd","test":"{test}","reason":"no etcd"}}"#) + "\n";
        let skips = parse(&(line("b") + &line("a") + "\n" + &line("b"))).unwrap();
        assert_eq!(skips.iter().map(|skip| skip.test.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(skips[0], Skip { group: "etcd".into(), test: "a".into(), reason: "no etcd".into() });
    }

    #[test]
    fn a_torn_line_is_reported_with_its_number() {
        let text = "{\"group\":\"etcd\",\"test\":\"a\",\"reason\":\"r\"}\n{\"group\":\"eb\n";
        assert_eq!(
            parse(text).unwrap_err().to_string(),
            "line 2 of the skip log is not a skip: \"{\\\"group\\\":\\\"eb\""
        );
    }
}
