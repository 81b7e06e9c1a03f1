//! `clusterctl demo exec`: runs a program on a host of a lab.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::Context;
use clap::Args;

use super::LabChoice;

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
    pub(super) fn run(self) -> anyhow::Result<()> {
        let host = self.lab.open()?.host(&self.host)?;
        let (program, args) = self.command.split_first().context("name a program to run after --")?;
        // The program takes this one's place, so that its signals and its exit code are the caller's own.
        let error = host.command(program)?.args(args).exec();
        Err(error).with_context(|| format!("cannot run {}", program.display()))
    }
}
