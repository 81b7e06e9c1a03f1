//! `cargo xtask demo`: from a clone to joined clusters in one command.

use std::{ffi::OsString, process::ExitCode};

use crate::{cargo, process, setup};

/// Sets up what is missing, then runs `clusterctl demo run`, release build.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Passed on to `clusterctl demo run`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    setup::run(&setup::Args::default())?;
    let mut command = cargo::cargo();
    command.args(["run", "--release", "--package", "clusterctl", "--", "demo", "run"]).args(args.rest);
    process::become_command(command)
}
