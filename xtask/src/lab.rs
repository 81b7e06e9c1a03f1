//! `cargo xtask lab`: the demo's clusters, from a debug build.

use std::{ffi::OsString, process::ExitCode};

use crate::{cargo, process};

/// Passes everything on to `clusterctl demo`, debug build: `cargo xtask lab clean` removes what a lab left behind.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Passed on to `clusterctl demo`; `-- --help` lists what it takes.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut command = cargo::cargo();
    command.args(["run", "--package", "clusterctl", "--", "demo"]).args(args.rest);
    process::become_command(command)
}
