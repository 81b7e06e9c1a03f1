//! Starting other programs: quietly, with their output kept for the error, or in place of xtask.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    io::{self, Read},
    os::unix::process::CommandExt,
    process::{Command, ExitCode, Stdio},
};

use anyhow::Context;

/// How many lines of a failed program's output its error shows.
const TAIL_LINES: usize = 15;

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("cannot start `{command}`")]
    NotStarted { command: String, source: io::Error },
    #[error("`{command}` failed ({status}), its output ends with\n{}", tail(output))]
    Failed { command: String, status: String, output: String },
}

impl CommandError {
    /// Whether the program failed because it could not reach a server, as far as its output tells.
    pub(crate) fn looks_unreachable(&self) -> bool {
        matches!(self, Self::Failed { output, .. } if looks_unreachable(output))
    }
}

/// Runs `command` without input and returns its output, standard output and error in the order written.
pub(crate) fn run_quietly(command: &mut Command) -> Result<String, CommandError> {
    let shown = describe(command);
    let not_started = |source| CommandError::NotStarted { command: shown.clone(), source };
    let (mut reader, writer) = io::pipe().map_err(not_started)?;
    let second_writer = writer.try_clone().map_err(not_started)?;
    let spawned = command.stdin(Stdio::null()).stdout(writer).stderr(second_writer).spawn();
    // `command` holds the write ends: while it does, reading would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = spawned.map_err(not_started)?;
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(not_started)?;
    let status = child.wait().map_err(not_started)?;
    let output = String::from_utf8_lossy(&bytes).into_owned();
    if status.success() {
        Ok(output)
    } else {
        Err(CommandError::Failed { command: shown, status: status.to_string(), output })
    }
}

/// Standard output of a query that may fail, `None` if it did.
pub(crate) fn query(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Replaces xtask by `command`, so that its exit code and signals are the caller's own.
pub(crate) fn become_command(mut command: Command) -> anyhow::Result<ExitCode> {
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start `{}`", describe(&command)))
}

/// The command as one would type it, with the variables that were set for it.
pub(crate) fn describe(command: &Command) -> String {
    let mut text = String::new();
    for (name, value) in command.get_envs() {
        // The search path is long, and adds nothing to what went wrong.
        if let Some(value) = value.filter(|_| name != "PATH") {
            let _ = write!(text, "{}={} ", name.to_string_lossy(), quoted(value));
        }
    }
    text += &quoted(command.get_program());
    for argument in command.get_args() {
        text.push(' ');
        text += &quoted(argument);
    }
    text
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain =
        !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || "'\"\\$&|;<>()*?".contains(c));
    if plain { word.into_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// The last lines of a program's output, indented.
pub(crate) fn tail(output: &str) -> String {
    let lines: Vec<&str> = output.lines().filter(|line| !line.trim().is_empty()).collect();
    let kept = lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default();
    kept.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// Whether a tool's output speaks of a server that could not be reached: apt, cargo, git and rustup.
pub(crate) fn looks_unreachable(output: &str) -> bool {
    const SIGNS: [&str; 10] = [
        "could not connect",
        "could not resolve",
        "couldn't connect",
        "couldn't resolve",
        "connection timed out",
        "failed to fetch http",
        "network is unreachable",
        "temporary failure resolving",
        "timeout was reached",
        "unable to connect",
    ];
    let output = output.to_lowercase();
    SIGNS.iter().any(|sign| output.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_ends_with_its_last_lines() {
        let error =
            run_quietly(Command::new("sh").args(["-c", "seq 1 40; echo last >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("`sh -c 'seq 1 40; echo last >&2; exit 3'` failed (exit status: 3)"),
            "{text}"
        );
        assert!(text.ends_with("\n  40\n  last"), "{text}");
        assert!(!text.contains("\n  20\n"), "{text}");
    }

    #[test]
    fn both_streams_are_returned_in_the_order_written() {
        let output = run_quietly(Command::new("sh").args(["-c", "echo a; echo b >&2; echo c"])).unwrap();
        assert_eq!(output, "a\nb\nc\n");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = run_quietly(&mut Command::new("landbridge-no-such-program")).unwrap_err();
        assert_eq!(error.to_string(), "cannot start `landbridge-no-such-program`");
    }

    #[test]
    fn commands_are_shown_as_one_would_type_them() {
        let mut command = Command::new("cargo");
        command.env("LLVM_PREFIX", "/usr/lib/llvm-22").env("PATH", "/long").args(["install", "a b"]);
        assert_eq!(describe(&command), "LLVM_PREFIX=/usr/lib/llvm-22 cargo install 'a b'");
    }

    #[test]
    fn an_unreachable_server_is_told_from_other_failures() {
        let apt = "W: Failed to fetch http://archive.example/dists/stable/InRelease  Temporary failure resolving 'archive.example'";
        let cargo = "error: download of config.json failed\n\nCaused by:\n  [6] Couldn't resolve host name";
        assert!(looks_unreachable(apt));
        assert!(looks_unreachable(cargo));
        assert!(!looks_unreachable("error: linking with `cc` failed: exit status: 1\n  cannot find -lLLVM"));
    }
}
