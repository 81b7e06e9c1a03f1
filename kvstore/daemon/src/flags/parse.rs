//! From the command line and its environment to values.

use std::path::PathBuf;

use super::values::{Values, parse_switch};
use super::{Flag, Kind, config_file, find, nearest};

/// Before the names of all variables.
const PREFIX: &str = "ETCD_";
/// Variables of etcd's other programs and scripts, which mean nothing to the server.
const OF_OTHERS: [&str; 2] = ["ETCD_UNSUPPORTED_ARCH", "ETCD_VERIFY"];

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Invocation {
    /// Tell what flags there are.
    Help,
    /// Tell the version.
    Version,
    /// Be a store.
    Serve(Values),
}

/// Why the flags cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("flag provided but not defined: -{flag}{}", meant.map(|meant| format!(": did you mean --{meant}?")).unwrap_or_default())]
    Unknown { flag: String, meant: Option<&'static str> },
    #[error("flag needs an argument: -{0}")]
    NoValue(&'static str),
    #[error("invalid value {value:?} for flag -{flag}: {reason}")]
    Value { value: String, flag: &'static str, reason: String },
    #[error("'{0}' is not a valid flag")]
    NoFlag(String),
    #[error("--{flag} cannot be had: {why}")]
    Refused { flag: &'static str, why: &'static str },
    #[error("{path} of --config-file cannot be used: {reason}")]
    File { path: PathBuf, reason: String },
}

/// Reads arguments, without the program's name, and variables.
///
/// As in etcd, a flag may have one dash or two, its value follows after `=` or as the next argument, and a switch takes
/// one only after `=`. A flag counts more than its variable; a file counts instead of both.
///
/// # Errors
/// [`UsageError`].
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = String>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Invocation, UsageError> {
    let mut values = Values::default();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let Some(name) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else {
            return Err(UsageError::NoFlag(argument));
        };
        if name.is_empty() {
            // What follows is no flag, and nothing else is taken.
            match arguments.next() {
                Some(next) => return Err(UsageError::NoFlag(next)),
                None => break,
            }
        }
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        if name == "h" {
            return Ok(Invocation::Help);
        }
        let flag = find(name).ok_or_else(|| unknown(name))?;
        let value = match (flag.kind, value) {
            (_, Some(value)) => value,
            (Kind::Switch, None) => "true".to_owned(),
            (_, None) => arguments.next().ok_or(UsageError::NoValue(flag.name))?,
        };
        match (flag.name, parse_switch(&value)) {
            ("help", Some(true)) => return Ok(Invocation::Help),
            ("version", Some(true)) => return Ok(Invocation::Version),
            _ => values.set(flag, value)?,
        }
    }
    take_variables(&mut values, variables)?;
    if let Some(path) = values.some("config-file").map(PathBuf::from) {
        let mut from_file = config_file::read(&path)?;
        from_file.notes.push(format!("flags and variables do not count beside {}", path.display()));
        values = from_file;
    }
    values.review()?;
    Ok(Invocation::Serve(values))
}

fn take_variables(
    values: &mut Values,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<(), UsageError> {
    for (variable, value) in variables {
        let Some(name) = variable.strip_prefix(PREFIX) else { continue };
        let flag: Option<&'static Flag> = find(&name.to_ascii_lowercase().replace('_', "-"));
        match flag {
            None if OF_OTHERS.contains(&variable.as_str()) => {}
            None => values.notes.push(format!("{variable} is no variable of this store, and does not count")),
            Some(_) if value.is_empty() => {}
            Some(flag) if values.is_given(flag.name) => {
                values.notes.push(format!("{variable} does not count beside --{}", flag.name));
            }
            Some(flag) => values.set(flag, value)?,
        }
    }
    Ok(())
}

fn unknown(name: &str) -> UsageError {
    UsageError::Unknown { flag: name.to_owned(), meant: nearest(name).map(|flag| flag.name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str, variables: &[(&str, &str)]) -> Result<Invocation, UsageError> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        parse(line.split_whitespace().map(str::to_owned), variables)
    }

    fn served(line: &str, variables: &[(&str, &str)]) -> Values {
        match parsed(line, variables).unwrap() {
            Invocation::Serve(values) => values,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_have_every_form_that_go_takes() {
        for line in
            ["--name a --client-cert-auth", "-name a -client-cert-auth=true", "--client-cert-auth --name=a"]
        {
            let values = served(line, &[]);
            assert_eq!((values.text("name"), values.switch("client-cert-auth")), ("a", true), "{line}");
        }
        assert!(!served("--client-cert-auth=F", &[]).switch("client-cert-auth"));
        assert_eq!(served("", &[]).text("name"), "default");
        assert_eq!(parsed("--version --name", &[]), Ok(Invocation::Version));
        assert_eq!(parsed("-h", &[]), Ok(Invocation::Help));
    }

    #[test]
    fn what_is_not_understood_is_told_as_etcd_tells_it() {
        for (line, text) in [
            ("--bogus", "flag provided but not defined: -bogus"),
            ("--name", "flag needs an argument: -name"),
            ("foo", "'foo' is not a valid flag"),
            ("--snapshot-count abc", "invalid value \"abc\" for flag -snapshot-count"),
            ("--initial-cluster-state foo", "invalid value \"foo\" for flag -initial-cluster-state"),
            ("--data-dri d", "did you mean --data-dir?"),
            ("--unsafe-no-fsync", "--unsafe-no-fsync cannot be had"),
        ] {
            let error = parsed(line, &[]).unwrap_err().to_string();
            assert!(error.contains(text), "{line}: {error}");
        }
    }

    #[test]
    fn a_flag_counts_more_than_its_variable_and_says_so() {
        let values =
            served("--name flag", &[("ETCD_NAME", "variable"), ("ETCD_DATA_DIR", "d"), ("ETCD_X", "1")]);
        assert_eq!((values.text("name"), values.text("data-dir")), ("flag", "d"));
        assert_eq!(values.notes.len(), 2, "{:?}", values.notes);
    }

    #[test]
    fn a_flag_without_effect_says_why() {
        assert_eq!(served("--max-wals 7 --max-snapshots=5", &[]).notes.len(), 1);
        assert!(served("--pre-vote=true --strict-reconfig-check", &[]).notes.is_empty());
    }
}
