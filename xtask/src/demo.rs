//! `cargo xtask demo`: from a clone to joined clusters in one command.

use std::{
    ffi::OsString,
    process::{Command, ExitCode},
};

use anyhow::{Context, bail};

use crate::{cargo, process, setup, workspace};

/// The packages whose programs the tour starts, its own first.
const PROGRAMS: [&str; 3] = ["clusterctl", "landbridge-agent", "landbridge-apiserver"];

/// Sets up what is missing, builds, then runs `clusterctl demo run`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Passed on to `clusterctl demo run`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    setup::run(&setup::Args::default())?;
    let mut build = cargo::cargo();
    // As the tests do, so that whoever runs both builds once; what the tour measures is the kernel's work, not theirs.
    build.args(["build", "--bins"]);
    build.args(PROGRAMS.iter().flat_map(|package| ["--package", package]));
    let status = build.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("`{}` failed", process::describe(&build));
    }
    let mut command = Command::new(workspace::target_dir().join("debug/clusterctl"));
    command.args(["demo", "run"]).args(args.rest);
    process::become_command(command)
}
