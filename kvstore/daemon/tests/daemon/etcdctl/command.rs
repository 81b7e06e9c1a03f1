//! One command of etcdctl: started, given its input, read, and ended if it does not do so by itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::program::Running;

/// A command that takes longer will not end.
const PATIENCE: Duration = Duration::from_secs(40);

/// An etcdctl.
#[derive(Clone, Debug)]
pub(crate) struct Etcdctl(pub(crate) PathBuf);

/// A line of a script: `[N>] arguments [< input]`.
///
/// `N>` reads so many lines of a command that does not end by itself. In the input `|` ends a line. `""` is an empty
/// argument.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    lines: Option<usize>,
    args: Vec<&'a str>,
    input: String,
}

impl<'a> Line<'a> {
    pub(crate) fn parse(line: &'a str) -> Self {
        let (line, input) = line.split_once(" < ").unwrap_or((line, ""));
        let count = line.split_once("> ").and_then(|(count, line)| Some((count.parse().ok()?, line)));
        let (lines, line) = count.map_or((None, line), |(count, line)| (Some(count), line));
        let args = line.split_whitespace().map(|word| if word == "\"\"" { "" } else { word }).collect();
        Self { lines, args, input: input.replace('|', "\n") }
    }
}

impl Etcdctl {
    pub(crate) fn command(&self, url: &str) -> Command {
        let mut command = Command::new(&self.0);
        command.env("ETCDCTL_API", "3").args(["--endpoints", url, "--command-timeout=20s"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What the command says, and the code that it ends with.
    pub(crate) fn run(&self, url: &str, line: &Line<'_>) -> String {
        self.run_within(PATIENCE, url, line)
    }

    /// [`Self::run`], of a command that takes a minute.
    pub(crate) fn run_within_minutes(&self, url: &str, line: &Line<'_>) -> String {
        self.run_within(Duration::from_mins(4), url, line)
    }

    fn run_within(&self, patience: Duration, url: &str, line: &Line<'_>) -> String {
        let mut child = Running(self.command(url).args(&line.args).stdin(Stdio::piped()).spawn().unwrap());
        // It may have ended without reading.
        let _ = child.0.stdin.take().unwrap().write_all(line.input.as_bytes());
        let (stdout, stderr) = (child.0.stdout.take().unwrap(), child.0.stderr.take().unwrap());
        let (stdout, stderr) = (lines_of(stdout), lines_of(stderr));
        let until = Instant::now() + patience;
        let wanted = line.lines.unwrap_or(usize::MAX);
        let mut said = String::new();
        let is_in_time = read(&stdout, &mut said, wanted, until);
        let is_ended =
            is_in_time.unwrap_or_else(|| panic!("{:?} said no more in time than\n{said}", line.args));
        if let Some(lines) = line.lines {
            assert!(!is_ended, "{:?} ended before it said {lines} lines:\n{said}", line.args);
            // etcdctl ends in order then: whoever leads resigns.
            child.terminate();
            return said;
        }
        let mut errors = String::new();
        assert!(read(&stderr, &mut errors, usize::MAX, until).is_some(), "{:?} does not end", line.args);
        // The client's own log has times in it.
        for line in errors.lines().filter(|line| !line.starts_with('{')) {
            said.push_str(line);
            said.push('\n');
        }
        said + &format!("code {:?}", child.0.wait().unwrap().code())
    }
}

/// Reads up to `wanted` lines, and says whether there are no more; nothing if they do not come in time.
fn read(lines: &Receiver<String>, said: &mut String, wanted: usize, until: Instant) -> Option<bool> {
    for _ in 0..wanted {
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => *said += &line,
            Err(RecvTimeoutError::Disconnected) => return Some(true),
            Err(RecvTimeoutError::Timeout) => return None,
        }
    }
    Some(false)
}

/// Reads aside, so that neither pipe fills up. Whoever takes no more of it ends the thread.
fn lines_of(output: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    lines
}
