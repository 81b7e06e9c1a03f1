//! Starts a test runner, shows its output as it goes, and keeps it for the counts.

use std::{
    io::{self, IsTerminal, Read, Write},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::Context;

use super::{
    counts::{Counts, parse_libtest, parse_nextest},
    skip_log,
};
use crate::{cargo, process};

/// A test runner, ready to start.
pub(crate) struct Runner {
    command: Command,
    output: Output,
}

/// Where and how a runner prints its counts.
enum Output {
    /// On standard error.
    Nextest { filtered: bool },
    /// On standard output.
    Libtest,
}

/// What a runner left behind.
pub(crate) struct Finished {
    pub(crate) counts: Counts,
    /// Why its counts are not the whole truth.
    pub(crate) problem: Option<String>,
}

impl Runner {
    /// All tests but those in documentation: nextest where it is installed, else cargo's own.
    pub(crate) fn of_tests(filters: &[String]) -> Self {
        let mut command = cargo::cargo();
        if process::query(cargo::cargo().args(["nextest", "--version"])).is_none() {
            command.args(["test", "--workspace", "--tests", "--no-fail-fast", "--"]).args(filters);
            return Self { command, output: Output::Libtest };
        }
        // A test that passes only at the second attempt has failed.
        command.args([
            "nextest",
            "run",
            "--workspace",
            "--no-fail-fast",
            "--retries",
            "0",
            "--no-tests",
            "pass",
        ]);
        if io::stderr().is_terminal() {
            command.args(["--color", "always"]);
        }
        command.arg("--").args(filters);
        Self { command, output: Output::Nextest { filtered: !filters.is_empty() } }
    }

    /// The examples in documentation, which nextest does not run.
    pub(crate) fn of_doc_tests(filters: &[String]) -> Self {
        let mut command = cargo::cargo();
        command.args(["test", "--workspace", "--doc", "--no-fail-fast", "--"]).args(filters);
        Self { command, output: Output::Libtest }
    }

    pub(crate) fn run(mut self, skip_log: &Path) -> anyhow::Result<Finished> {
        let shown = process::describe(&self.command);
        let context = || format!("cannot run `{shown}`");
        self.command.env(skip_log::VARIABLE, skip_log).stdin(Stdio::null());
        let (child, printed) = match self.output {
            Output::Nextest { .. } => {
                let mut child = self.command.stderr(Stdio::piped()).spawn().with_context(context)?;
                let printed = child.stderr.take().map(|pipe| tee(pipe, io::stderr()));
                (child, printed)
            }
            Output::Libtest => {
                let mut child = self.command.stdout(Stdio::piped()).spawn().with_context(context)?;
                let printed = child.stdout.take().map(|pipe| tee(pipe, io::stdout()));
                (child, printed)
            }
        };
        let mut child = child;
        let printed = printed.transpose().with_context(context)?.unwrap_or_default();
        let status = child.wait().with_context(context)?;
        let counts = match self.output {
            Output::Nextest { filtered } => parse_nextest(&printed, filtered),
            Output::Libtest => parse_libtest(&printed),
        };
        let problem = match counts {
            None => Some(format!("`{shown}` ended without a count ({status})")),
            // The count shows a failed test; anything else has to be told.
            Some(counts) if !status.success() && counts.failed == 0 => {
                Some(format!("`{shown}` failed ({status})"))
            }
            Some(_) => None,
        };
        Ok(Finished { counts: counts.unwrap_or_default(), problem })
    }
}

/// Copies `from` to `to` as it comes, and returns it.
fn tee(mut from: impl Read, mut to: impl Write) -> io::Result<String> {
    let mut all = Vec::new();
    let mut chunk = [0; 8192];
    loop {
        let length = match from.read(&mut chunk) {
            Ok(0) => return Ok(String::from_utf8_lossy(&all).into_owned()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let read = chunk.get(..length).unwrap_or_default();
        to.write_all(read)?;
        to.flush()?;
        all.extend_from_slice(read);
    }
}
