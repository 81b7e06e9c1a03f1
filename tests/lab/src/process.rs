//! A program that a test pauses, kills and starts again.

use std::fs::{self, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::{IoContext, LabError, write_error};

/// A long-running program of a host. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    command: Command,
    log: PathBuf,
    running: Running,
}

#[derive(Debug)]
struct Running {
    child: Child,
    pidfd: OwnedFd,
}

impl Process {
    pub(crate) fn start(name: String, mut command: Command, log: PathBuf) -> Result<Self, LabError> {
        let output =
            OpenOptions::new().create(true).append(true).open(&log).map_err(|e| write_error(&log, e))?;
        let errors = output.try_clone().context(|| format!("open {} again", log.display()))?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let running = Running::start(&name, &mut command)?;
        Ok(Self { name, command, log, running })
    }

    /// The process number.
    pub fn id(&self) -> u32 {
        self.running.child.id()
    }

    /// The file that its output and errors are appended to, over restarts too.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What it has printed until now; bytes that are no UTF-8 are replaced.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Stops it where it is (SIGSTOP).
    ///
    /// # Errors
    /// [`LabError::Io`] if it has ended.
    pub fn pause(&self) -> Result<(), LabError> {
        self.send(Signal::STOP)
    }

    /// Lets it go on after a pause (SIGCONT).
    ///
    /// # Errors
    /// [`LabError::Io`] if it has ended.
    pub fn resume(&self) -> Result<(), LabError> {
        self.send(Signal::CONT)
    }

    /// Asks it to end (SIGTERM) and waits.
    ///
    /// # Errors
    /// [`LabError::TimedOut`] if it still runs after `deadline`.
    pub fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus, LabError> {
        self.send(Signal::TERM)?;
        self.wait(deadline)
    }

    /// Ends it at once (SIGKILL). Ending what has ended is no error.
    ///
    /// # Errors
    /// [`LabError::Io`] if the kernel refuses.
    pub fn kill(&mut self) -> Result<ExitStatus, LabError> {
        self.running
            .child
            .kill()
            .and_then(|()| self.running.child.wait())
            .context(|| format!("kill {}", self.name))
    }

    /// Kills it if it runs, and starts the same command again.
    ///
    /// # Errors
    /// [`LabError::Io`] if it cannot be started.
    pub fn restart(&mut self) -> Result<(), LabError> {
        self.kill()?;
        self.running = Running::start(&self.name, &mut self.command)?;
        Ok(())
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// [`LabError::TimedOut`] if it still runs after `deadline`.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus, LabError> {
        let context = || format!("wait for {}", self.name);
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.running.child.try_wait().context(context)? {
                return Ok(status);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let what = format!("the end of {}", self.name);
                return Err(LabError::TimedOut { what, seconds: deadline.as_secs() });
            }
            // A pidfd becomes readable when its process ends.
            let timeout = Timespec::try_from(left).ok();
            match poll(&mut [PollFd::new(&self.running.pidfd, PollFlags::IN)], timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context(context),
            }
        }
    }

    fn send(&self, signal: Signal) -> Result<(), LabError> {
        pidfd_send_signal(&self.running.pidfd, signal).context(|| format!("send {signal:?} to {}", self.name))
    }
}

impl Running {
    fn start(name: &str, command: &mut Command) -> Result<Self, LabError> {
        let context = || format!("start {name} ({})", command.get_program().display());
        // Formatted before the command is borrowed by the start.
        let context = context();
        let mut child = command.spawn().context(|| context.clone())?;
        // The child is not waited for yet, so that its number cannot have passed to another process.
        let pid = Pid::from_child(&child);
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self { child, pidfd }),
            Err(error) => {
                let _ = child.kill().and_then(|()| child.wait());
                Err(error).context(|| context)
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
