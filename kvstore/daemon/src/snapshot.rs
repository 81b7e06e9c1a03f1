//! `landbridge-kvstore snapshot`: what becomes of the files that `etcdctl snapshot save` writes.
//!
//! ```text
//! FILE ─► read_backup: every byte is checked ─┬─► verify: is it whole?
//!                                             ├─► status: what is in it?
//!                                             └─► restore ─► the data folder of a member of a new cluster
//! ```
//!
//! Invariants:
//! - Nothing is restored, and nothing is told of, but a file whose checksums all fit.
//! - A folder that has something in it is left as it is.

mod status;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use landbridge_kvstore_server::backup::{Backup, RestoreOptions, read_backup, restore};

use crate::flags::Values;
use crate::settings;
use crate::snapshot::status::Format;

/// The word that all this begins with.
pub(crate) const COMMAND: &str = "snapshot";

/// What `landbridge-kvstore snapshot --help` tells.
const HELP: &str = "\
Files that `etcdctl snapshot save FILE` writes.

Usage:
  landbridge-kvstore snapshot verify FILE                Tell whether the file is whole
  landbridge-kvstore snapshot status FILE [-o FORMAT]    Tell what is in it
  landbridge-kvstore snapshot restore FILE [flags]       Make the data folder of a member from it

A restored member is of a new cluster. To restore several, give each the same file and the same flags but its own --name,
--initial-advertise-peer-urls and --data-dir, and start them afterwards, each with its --name.

Flags of status:
  -o, --write-out FORMAT
        simple, table, json [simple]

Flags of restore:
  --data-dir TEXT
        Folder of all data, which must not be there, or be empty; <name>.etcd where none is given
  --name TEXT
        Name of the member [default]
  --initial-cluster TEXT
        All members of the new cluster: name=URL,name=URL; only this one by default
  --initial-cluster-token TEXT
        Keeps clusters with equal members apart [etcd-cluster]
  --initial-advertise-peer-urls TEXT
        URLs by which the others reach this member [http://localhost:2380]
  --bump-revision N
        Raise the revision by so much, above all that clients may know; needs --mark-compacted
  --mark-compacted
        Compact all that was before, so that whoever watches lists again; needs --bump-revision

Exit codes: 0, 1 if the file is damaged or cannot be restored, 2 if the flags could not be understood.
";

/// Why nothing was done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments could not be understood.
    Misused(String),
    /// It did not work.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// What a flag takes.
#[derive(Clone, Copy, Debug)]
enum Takes {
    /// What the server's flag of the same name takes.
    AsServer,
    /// A number, 0 or more.
    Number,
    /// How to tell what there is.
    Format,
    /// `true` or `false`; alone it means `true`.
    Switch,
}

const OF_STATUS: &[(&str, Takes)] =
    &[("o", Takes::Format), ("w", Takes::Format), ("write-out", Takes::Format)];

const OF_RESTORE: &[(&str, Takes)] = &[
    ("data-dir", Takes::AsServer),
    ("name", Takes::AsServer),
    ("initial-cluster", Takes::AsServer),
    ("initial-cluster-token", Takes::AsServer),
    ("initial-advertise-peer-urls", Takes::AsServer),
    ("bump-revision", Takes::Number),
    ("mark-compacted", Takes::Switch),
];

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Task {
    Help,
    Verify { file: String },
    Status { file: String, format: Format },
    Restore { file: String, values: Values, bump_revision: u64, mark_compacted: bool },
}

/// Does what the arguments behind `snapshot` say. Blocks.
///
/// # Errors
/// [`Failure`].
pub(crate) fn run(arguments: impl Iterator<Item = String>) -> Result<(), Failure> {
    let text = match parse(arguments)? {
        Task::Help => HELP.to_owned(),
        Task::Verify { file } => {
            let backup = read(&file)?;
            let Backup { revision, keys, cluster_id, .. } = backup;
            format!("{file} is whole: {keys} keys at revision {revision} of cluster {cluster_id:x}\n")
        }
        Task::Status { file, format } => status::of(&read(&file)?, format),
        Task::Restore { file, values, bump_revision, mark_compacted } => {
            let options =
                RestoreOptions { bump_revision, mark_compacted, ..settings::of_restored_member(&values)? };
            let backup = read(&file)?;
            restore(&backup, &options).with_context(|| format!("{file} is not restored"))?;
            let RestoreOptions { data_dir, name, .. } = options;
            let (keys, dir) = (backup.keys, data_dir.display());
            format!("{keys} keys of {file} are restored to {dir}, as member {name} of a new cluster\n")
        }
    };
    io::stdout().write_all(text.as_bytes()).context("cannot write the answer")?;
    Ok(())
}

fn read(file: &str) -> Result<Backup> {
    read_backup(Path::new(file)).with_context(|| format!("snapshot {file} cannot be used"))
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Task, Failure> {
    let word = arguments.next().unwrap_or_default();
    let takes = match word.as_str() {
        "help" | "--help" | "-help" | "-h" => return Ok(Task::Help),
        "verify" => &[],
        "status" => OF_STATUS,
        "restore" => OF_RESTORE,
        "" => return Err(Failure::Misused("snapshot needs a word: verify, status or restore".to_owned())),
        "save" => {
            return Err(Failure::Misused("a snapshot is taken by `etcdctl snapshot save FILE`".to_owned()));
        }
        _ => {
            return Err(Failure::Misused(format!("snapshot {word} is not known: verify, status or restore")));
        }
    };
    let Some((files, mut given)) = split(arguments, takes)? else { return Ok(Task::Help) };
    let Ok([file]) = <[String; 1]>::try_from(files) else {
        return Err(Failure::Misused(format!("snapshot {word} takes one file")));
    };
    Ok(match word.as_str() {
        "verify" => Task::Verify { file },
        "status" => {
            let format = given.into_values().next();
            Task::Status { file, format: format.as_deref().and_then(Format::parse).unwrap_or_default() }
        }
        _ => {
            let bump_revision = given.remove("bump-revision").and_then(|n| n.parse().ok()).unwrap_or(0);
            let mark_compacted = given.remove("mark-compacted").is_some_and(|text| text == "true");
            // As far as they are the server's, they mean the same.
            let values = Values::of(given).map_err(|error| Failure::Misused(error.to_string()))?;
            Task::Restore { file, values, bump_revision, mark_compacted }
        }
    })
}

/// The words, and the values of flags; `None` if help is asked for. Flags have the forms that the server takes.
#[expect(clippy::type_complexity, reason = "of one caller")]
fn split(
    mut arguments: impl Iterator<Item = String>,
    takes: &[(&'static str, Takes)],
) -> Result<Option<(Vec<String>, BTreeMap<&'static str, String>)>, Failure> {
    let (mut words, mut given) = (Vec::new(), BTreeMap::new());
    while let Some(argument) = arguments.next() {
        let Some(flag) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else {
            words.push(argument);
            continue;
        };
        if flag.is_empty() {
            words.extend(arguments.by_ref());
            break;
        }
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        if matches!(name, "h" | "help") {
            return Ok(None);
        }
        let &(name, takes) = takes.iter().find(|(known, _)| *known == name).ok_or_else(|| {
            Failure::Misused(format!("unknown flag: {argument}: run `landbridge-kvstore snapshot --help`"))
        })?;
        let value = match (takes, value) {
            (_, Some(value)) => value,
            (Takes::Switch, None) => "true".to_owned(),
            (_, None) => {
                let value = arguments.next();
                value.ok_or_else(|| Failure::Misused(format!("flag needs an argument: --{name}")))?
            }
        };
        let wanted = match takes {
            Takes::Number if value.parse::<u64>().is_err() => Some("a number, 0 or more"),
            Takes::Switch if !matches!(value.as_str(), "true" | "false") => Some("true or false"),
            Takes::Format if Format::parse(&value).is_none() => Some("simple, table or json"),
            _ => None,
        };
        if let Some(wanted) = wanted {
            return Err(Failure::Misused(format!("--{name} takes {wanted}, and not {value:?}")));
        }
        given.insert(name, value);
    }
    Ok(Some((words, given)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task, String> {
        parse(line.split_whitespace().map(str::to_owned)).map_err(|failure| match failure {
            Failure::Misused(text) => text,
            Failure::Failed(error) => panic!("{error:#}"),
        })
    }

    #[test]
    fn flags_of_a_restore_mean_what_they_mean_to_the_server() {
        let line = "restore f.db --name=a -data-dir d --bump-revision 7 --mark-compacted";
        let Ok(Task::Restore { file, values, bump_revision: 7, mark_compacted: true }) = parsed(line) else {
            panic!("{line}");
        };
        assert_eq!((file.as_str(), values.text("name"), values.text("data-dir")), ("f.db", "a", "d"));
        assert_eq!(values.text("initial-cluster-token"), "etcd-cluster");
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for (line, text) in [
            ("", "needs a word"),
            ("save f.db", "etcdctl snapshot save"),
            ("restor f.db", "is not known"),
            ("verify", "takes one file"),
            ("status a b", "takes one file"),
            ("status a -o yaml", "simple, table or json"),
            ("verify a -o json", "unknown flag: -o"),
            ("restore a --data-dir", "flag needs an argument: --data-dir"),
            ("restore a --bump-revision -1", "a number, 0 or more"),
            ("restore a --skip-hash-check", "unknown flag"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(text), "{line}: {error}");
        }
        assert_eq!(parsed("restore --help"), Ok(Task::Help));
        let json = Task::Status { file: "a".to_owned(), format: Format::Json };
        assert_eq!(parsed("status a -w=json"), Ok(json));
    }
}
