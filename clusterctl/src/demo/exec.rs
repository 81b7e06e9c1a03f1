//! `clusterctl demo exec`: runs a program on a host of a lab.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::LabChoice;

/// What shells add to the number of the signal that ended a program.
const SIGNAL_BASE: i32 = 128;

/// Run a program on a host; its exit code is passed on
#[derive(Args)]
pub(super) struct Exec {
    #[command(flatten)]
    lab: LabChoice,
    /// The host, such as a1 for a node and a1p1 for a pod
    host: String,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl Exec {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let host = self.lab.open()?.host(&self.host)?;
        let (program, args) = self.command.split_first().context("name a program to run after --")?;
        let mut command = host.command(program)?;
        let status =
            command.args(args).status().with_context(|| format!("cannot run {}", program.display()))?;
        let code = status.code().or_else(|| status.signal().map(|signal| SIGNAL_BASE + signal));
        Ok(code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
    }
}
